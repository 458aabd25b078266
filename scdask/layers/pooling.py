"""Pooling and reshaping of images, in binary."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import INTEGERS
from ..errors import BitstreamError
from ..vector_ops.conv import Window, of_windows
from .base import Layer
from .windows import images_of, padding_of, pair

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class _Pool2d(Layer):
    kernel: Any
    stride: Any = None
    padding: Any = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", pair("kernel", self.kernel))
        object.__setattr__(self, "stride", self.kernel if self.stride is None else pair("stride", self.stride))
        object.__setattr__(self, "padding", padding_of(self.padding))
        if any(added >= size for added, size in zip(self.padding, 2 * self.kernel, strict=True)):
            raise BitstreamError(f"windows of {self.kernel} pixels with {self.padding} around may see no pixel")

    @property
    def window(self) -> Window:
        """Where its windows lie."""
        return Window(self.kernel, self.stride, self.padding)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out, (channels, rows, columns), for an image (channels, height, width)."""
        return (shape[0], *images_of(shape, self.window))

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        return super().facts() | {"Inputs": f"{self.kernel[0]} x {self.kernel[1]}", "Stride": self.stride}

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return self._pooled(x, self.window)

    def __call__(self, x: Any, length: int, start: int = 0) -> Any:
        """The outputs, float64; lazy for a Dask array, whose images may be cut into rows."""
        self.output_shape(x.shape[1:])
        return of_windows(self._pooled, x, self.window)

    @abstractmethod
    def _pooled(self, x: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
        """The outputs of images, or of rows of them with what is added around these."""


def _taps(x: Any, window: Window, around: float) -> Any:
    """The values (batch, channels, rows, columns) at each place of a window."""
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=around)
    return (tap.transpose(0, 3, 1, 2) for tap in window.taps(padded.transpose(0, 2, 3, 1)))


@dataclass(frozen=True)
class MaxPool2d(_Pool2d):
    """The largest value in each window, in binary.

    Parameters
    ----------
    kernel : int or (int, int)
        Rows and columns of a window.
    stride : int or (int, int), optional
        Steps from window to window; those of the kernel by default.
    padding : int, (int, int) or (int, int, int, int)
        As in `SCConv2d`; what is added is never the largest.

    Notes
    -----
    Images of a Dask array may be cut into samples, channels and rows; their width is made whole.
    """

    def _pooled(self, x: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
        found: NDArray[np.float64]
        found, *others = _taps(x, window, -np.inf)
        for tap in others:
            found = np.maximum(found, tap)
        return found


@dataclass(frozen=True)
class AvgPool2d(_Pool2d):
    """The mean of each window, in binary.

    Parameters
    ----------
    kernel, stride, padding
        As in `MaxPool2d`.
    count_padding : bool
        Whether the zeros that are added count in the mean.
    """

    count_padding: bool = True

    def _pooled(self, x: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
        total: Any = sum(_taps(x, window, 0.0))
        size: Any = self.kernel[0] * self.kernel[1]
        if not self.count_padding:
            size = sum(_taps(np.ones_like(x, shape=(1, 1, *x.shape[2:])), window, 0.0))
        means: NDArray[np.float64] = total / size
        return means


@dataclass(frozen=True)
class Flatten(Layer):
    """All values of a sample on one axis, in C order."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out."""
        return (math.prod(shape),)

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return x.reshape(len(x), math.prod(x.shape[1:]))


@dataclass(frozen=True)
class Reshape(Layer):
    """All values of a sample in another shape, in C order.

    Parameters
    ----------
    shape : tuple of int
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        shape = self.shape
        if not isinstance(shape, tuple | list) or not all(isinstance(n, INTEGERS) and n >= 0 for n in shape):
            raise BitstreamError(f"a shape is a tuple of integers of at least 0, not {shape!r}")
        object.__setattr__(self, "shape", tuple(int(n) for n in shape))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out."""
        if math.prod(shape) != math.prod(self.shape):
            raise BitstreamError(f"samples of shape {shape} cannot have the shape {self.shape}")
        return self.shape

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return x.reshape(len(x), *self.shape)


@dataclass(frozen=True)
class Transpose(Layer):
    """The axes of a sample in another order.

    Parameters
    ----------
    axes : tuple of int
        For each axis of the output that of the input, counted without the samples: (2, 0, 1) turns images
        (height, width, channels) into (channels, height, width).
    """

    axes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.axes, tuple | list) or sorted(self.axes) != list(range(len(self.axes))):
            raise BitstreamError(f"the axes of a transposition are 0 to n - 1 in any order, not {self.axes!r}")

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out."""
        if len(shape) != len(self.axes):
            raise BitstreamError(f"the axes {self.axes} are not those of samples of shape {shape}")
        return tuple(shape[axis] for axis in self.axes)

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return x.transpose(0, *(axis + 1 for axis in self.axes))

"""Activations in binary, between layers of products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.contract import exactly, on_host
from ..core.dispatch import backend_of
from ..errors import BitstreamError
from .base import Layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


class _Activation(Layer):
    """A function of each value."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out: that of its inputs."""
        return shape

    def __call__(self, x: Any, length: int, start: int = 0) -> Any:
        """The outputs, float64; lazy for a Dask array, which may be cut anywhere."""
        return exactly(self.exact, x)


@dataclass(frozen=True)
class ReLU(_Activation):
    """max(x, 0), and at most `largest`.

    Parameters
    ----------
    largest : float
        Where it saturates, 6 for ReLU6; nowhere by default.
    """

    largest: float = np.inf

    def __post_init__(self) -> None:
        if not self.largest > 0:
            raise BitstreamError(f"ReLU saturates at a positive value, not at {self.largest!r}")

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return x.clip(0.0, self.largest)


@dataclass(frozen=True)
class Clip(_Activation):
    """Values below `low` are `low`, those above `high` are `high`.

    Parameters
    ----------
    low, high : float
    """

    low: float = -np.inf
    high: float = np.inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise BitstreamError(f"values cannot be clipped to {self.low!r} at least and {self.high!r} at most")

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return x.clip(self.low, self.high)


@dataclass(frozen=True)
class Tanh(_Activation):
    """tanh(x)."""

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        outputs: NDArray[np.float64] = _by_numpy(np.tanh, x)
        return outputs


@dataclass(frozen=True)
class Logistic(_Activation):
    """1 / (1 + exp(-x))."""

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        outputs: NDArray[np.float64] = _by_numpy(_logistic, x)
        return outputs


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) over its sum along the first axis of a sample: probabilities of classes."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out: that of its inputs."""
        return shape

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        outputs: NDArray[np.float64] = _by_numpy(softmax, x)
        return outputs


def _by_numpy(func: Callable[..., Any], x: Any) -> Any:
    """func(x) by NumPy, because another library rounds tanh and exp in another way."""
    backend = backend_of(x)
    values = func(on_host(x))
    return values if backend is None or backend.name == "numpy" else backend.from_numpy(values)


def _logistic(x: Any) -> Any:
    tail = np.exp(-abs(x))
    return np.where(x >= 0, 1.0, tail) / (1.0 + tail)


def softmax(x: Any) -> Any:
    """exp(x) over its sum along axis 1."""
    shares = np.exp(x - x.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)

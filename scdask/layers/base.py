"""What a network asks of a layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.contract import exactly
from ..errors import BitstreamError
from ..vector_ops.numbers import of_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Layer(ABC):
    """A layer of a network, for samples on the first axis.

    A subclass that has `output_shape` and `exact` is a layer in binary, without streams. `SCDense` and `SCConv2d`
    multiply streams.

    Attributes
    ----------
    input_shape : tuple of int or None
        Shape of a sample; None for any that `output_shape` takes.
    input_scale : float
        The largest |input| that it takes: infinite, if it encodes none.
    signed : bool
        Whether it takes negative inputs.
    """

    input_shape: Any = None
    input_scale: float = np.inf
    signed: bool = True

    @abstractmethod
    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out for a sample of shape `shape`; a BitstreamError says why it takes none."""

    @abstractmethod
    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point, (batch, *output_shape) of inputs (batch, *shape)."""

    def __call__(self, x: Any, length: int, start: int = 0) -> Any:
        """The outputs, float64, with streams of `length` bits; lazy for a Dask array.

        `start` is the number of the first sample: streams do not depend on how samples are cut into chunks.
        """
        return of_samples(self._in_binary, x, self.output_shape(x.shape[1:]))

    def _in_binary(self, x: Any, start: int) -> Any:
        outputs, shape = exactly(self.exact, x), (len(x), *self.output_shape(x.shape[1:]))
        if outputs.shape != shape:
            raise BitstreamError(f"{self} puts out {outputs.shape}, where its output_shape says {shape}")
        return outputs

    def products(self, shape: tuple[int, ...]) -> int:
        """Products of numbers that a sample of shape `shape` takes."""
        return 0

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it, in a row of a table: names and values, as the layer likes."""
        return {"Kind": type(self).__name__}


def encodes(layer: Layer) -> bool:
    """Whether a layer has generators."""
    return bool(layer.input_scale < np.inf)


def cut(hidden: Any, layer: Layer) -> Any:
    """Activations, cut to what a layer takes: where it takes no negative ones, that is ReLU."""
    low = -layer.input_scale if layer.signed else 0.0
    if low == -np.inf and layer.input_scale == np.inf:
        return hidden
    return exactly(_clipped, hidden, low=low, high=layer.input_scale)


def _clipped(hidden: Any, low: float, high: float) -> Any:
    return hidden.clip(low, high)

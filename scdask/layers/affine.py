"""What is done to inputs in binary before they are encoded: scaling, and cutting to a range."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_array, as_numpy
from ..core.contract import exactly, on_host
from ..errors import BitstreamError
from ..vector_ops.products import as_weights
from .activations import Clip
from .base import Layer
from .conv import SCConv2d

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .products import ProductLayer


@dataclass(frozen=True, eq=False)
class Affine(Layer):
    """scale * x + shift, in binary: a scaler of inputs, or a batch normalization that no layer of products can take.

    Parameters
    ----------
    scale, shift : array_like of float
        Numbers, or arrays that broadcast to the shape of a sample: (n_inputs,) for a number of each input,
        (channels, 1, 1) for one of each channel.

    Examples
    --------
    >>> Affine(2.0, [0.0, 1.0]).exact(np.array([[1.0, 3.0]]))
    array([[2., 7.]])
    """

    scale: Any
    shift: Any

    def __post_init__(self) -> None:
        for name in ("scale", "shift"):
            what = f"the {name} of an affine layer"
            object.__setattr__(self, name, as_weights(as_numpy(on_host(as_array(getattr(self, name), what)), what)))

    def __repr__(self) -> str:
        sizes = sorted({part.size for part in (self.scale, self.shift)})
        return f"Affine({sizes[-1]} {'number' if sizes[-1] == 1 else 'numbers'})"

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out: that of its inputs, to which scale and shift must broadcast."""
        try:
            fits = np.broadcast_shapes(shape, self.scale.shape, self.shift.shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise BitstreamError(
                f"a scale {self.scale.shape} and a shift {self.shift.shape} do not broadcast to samples {shape}"
            )
        return shape

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs."""
        return _affine(x, self.scale, self.shift)  # type: ignore[no-any-return]

    def _in_binary(self, x: Any, start: int) -> Any:
        return exactly(_affine, x, self.scale, self.shift)

    def reshaped(self, old: tuple[int, ...], new: tuple[int, ...]) -> Affine:
        """The same function of samples of the shape `new`, which have had the shape `old`."""
        parts = (self.scale, self.shift)
        return Affine(
            *(np.broadcast_to(part, old).reshape(new) if part.size > 1 else part.reshape(()) for part in parts)
        )

    def into_next(self, layer: ProductLayer, shape: tuple[int, ...]) -> ProductLayer | None:
        """The layer that does this and then what `layer` does with samples of a shape, or None if none does exactly.

        W (s x + t) + b = (W s) x + (W t + b): s and t are those of an input, or of a channel of images. The zeros
        around images would have to become -t / s.
        """
        scale, shift = self._of_channels(shape)
        if scale is None or (isinstance(layer, SCConv2d) and any(layer.padding) and shift.any()):
            return None
        groups = layer.groups if isinstance(layer, SCConv2d) else 1
        weights = layer.weights.reshape(groups, -1, *layer.weights.shape[1:])
        parts = (part.reshape(groups, 1, -1, *[1] * (weights.ndim - 3)) for part in (scale, shift))
        scaled, shifted = (weights * part for part in parts)
        bias = layer.bias + shifted.reshape(len(layer.bias), -1).sum(axis=1)
        return replace(layer, weights=scaled.reshape(layer.weights.shape), bias=bias)

    def into_previous(self, layer: ProductLayer, shape: tuple[int, ...]) -> ProductLayer | None:
        """The layer that does what `layer` does, and then this with samples of a shape, or None if none does."""
        scale, shift = self._of_channels(shape)
        if scale is None:
            return None
        weights = layer.weights * scale.reshape(-1, *[1] * (layer.weights.ndim - 1))
        return replace(layer, weights=weights, bias=layer.bias * scale + shift)

    def _of_channels(self, shape: tuple[int, ...]) -> Any:
        """Scale and shift as one number each for each channel, (None, None) if pixels have different ones."""
        full = [part.reshape((1,) * (len(shape) - part.ndim) + part.shape) for part in (self.scale, self.shift)]
        if any(max(part.shape[1:], default=1) > 1 for part in full):
            return None, None
        return [np.broadcast_to(part.reshape(-1), shape[:1]) for part in full]


def _affine(x: Any, scale: Any, shift: Any) -> Any:
    return x * scale + shift


@dataclass(frozen=True)
class Saturation(Clip):
    """Inputs, cut to what streams hold: in floating point they stay as they are.

    The range of streams comes from calibration inputs, and some that come later may exceed it. They are cut, as the
    activations of hidden layers are.

    Parameters
    ----------
    low, high : float
    """

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inputs."""
        return x

    def __call__(self, x: Any, length: int, start: int = 0) -> Any:
        """The inputs, cut, float64; lazy for a Dask array."""
        return exactly(_clipped, x, low=self.low, high=self.high)


def _clipped(x: Any, low: float, high: float) -> Any:
    return x.clip(low, high)

"""Layers from models of others, made ready for streams."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_host, as_real
from ..errors import BitstreamError
from .activations import Clip, Logistic, ReLU, Softmax, Tanh
from .affine import Affine, Saturation
from .pooling import AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose
from .products import ProductLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike

    from .base import Layer

KEEP_SIGNS = (AvgPool2d, Flatten, MaxPool2d, Reshape, Transpose, Tanh, Saturation)


@dataclass(frozen=True)
class Imported:
    """What a model of others says of a network.

    Parameters
    ----------
    layers : sequence of Layer
    input_shape : tuple of int
    classes : array_like
    readout : {"classes", "labels", "values", ""}
        "" where the model does not say it.
    scaled : bool
        Whether the layers have their input scales.
    only_classes : str
        Why its outputs cannot be read out as values.
    name : str
        Of the model, for messages.
    """

    layers: tuple[Any, ...]
    input_shape: tuple[int, ...]
    classes: Any = field(default=())
    readout: str = ""
    scaled: bool = False
    only_classes: str = ""
    name: str = "the model"

    def network(self, calibration: ArrayLike | None, classes: ArrayLike, readout: str | None) -> dict[str, Any]:
        """The arguments of an SCSequential, whose hidden layers are yet to be calibrated."""
        layers = list(self.layers)
        labels = as_host(classes, "classes")
        labels = labels if labels.size else np.asarray(self.classes)
        readout = readout or self.readout or self._usual_readout(labels)
        if readout == "values" and self.only_classes:
            raise BitstreamError(f"{self.only_classes}, which are no values to read out")
        if readout != "values" and isinstance(layers[-1], Softmax | Logistic) and len(layers) > 1 and not self.scaled:
            layers.pop()  # Labels are the same without, and margins between them clearer.
        if not self.scaled:
            if calibration is None:
                raise BitstreamError("it has no input scales: give it calibration inputs, like those to come")
            layers = prepared(layers, as_calibration(calibration, self.input_shape))
        return {"layers": tuple(layers), "classes": labels, "input_shape": self.input_shape, "readout": readout}

    def _usual_readout(self, labels: Any) -> str:
        last = self.layers[-1]
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
        if shape == (1,):
            return "classes" if labels.size or isinstance(last, Logistic) else "values"
        return "labels" if isinstance(last, Logistic) else "classes"


@contextmanager
def named(name: str) -> Iterator[None]:
    """Let errors of scdask say which model they are about."""
    try:
        yield
    except BitstreamError as error:
        raise BitstreamError(f"{name}: {error}") from error


def as_calibration(calibration: ArrayLike, shape: tuple[int, ...]) -> Any:
    """Calibration inputs as float64, of samples of a shape."""
    inputs = as_real(as_host(calibration, "calibration"), "calibration")
    if inputs.shape[1:] != shape or not inputs.size:
        sizes = ", ".join(map(str, ("samples", *shape)))
        raise BitstreamError(f"calibration inputs are ({sizes}), not {inputs.shape}")
    inputs = inputs.astype(np.float64)
    if not np.isfinite(inputs).all():
        raise BitstreamError(f"calibration inputs are finite, but there is {inputs[~np.isfinite(inputs)][0]}")
    return inputs


def prepared(layers: list[Any], inputs: Any) -> list[Any]:
    """The layers, of which the first that encodes has the scale of what the inputs cause there.

    For inputs in [0, 1] it is 1. Else, or if there is a layer in binary before it, it is the largest size, the layer is
    signed if a value is negative, and what later inputs cause beyond that is cut.
    """
    if not any(isinstance(layer, ProductLayer) for layer in layers):
        raise BitstreamError("it has no layer of products, whose operands would be streams")
    found: list[Any] = []
    hidden, shape, inner = inputs, inputs.shape[1:], False
    for i, layer in enumerate(layers):
        following = layers[i + 1] if i + 1 < len(layers) else None
        if isinstance(layer, Affine) and isinstance(following, ProductLayer):
            folded = layer.into_next(following, shape)
            outputs = layer.exact(hidden)
            if folded is not None and error_scale(folded, hidden) <= error_scale(following, outputs):
                layers[i + 1] = folded
                continue
        if isinstance(layer, ProductLayer) and not inner:
            inner = True
            low, high = float(hidden.min()), float(hidden.max())
            apart = _apart(layer, hidden) if low < 0 or high > 1 else None
            if apart is not None:
                hidden, (scaler, layer) = apart[0].exact(hidden), apart
                found.append(scaler)
                low, high = float(hidden.min()), float(hidden.max())
            if low < 0 or high > 1 or found:
                scale = max(-low, high) if low < 0 or high > 1 else 1.0
                found.append(Saturation(-scale if low < 0 else 0.0, scale))
                layer = replace(layer, input_scale=scale, signed=low < 0)
        found.append(layer)
        hidden, shape = layer.exact(hidden), layer.output_shape(shape)
    return with_signs(found)


def _apart(layer: ProductLayer, x: Any) -> tuple[Affine, ProductLayer] | None:
    """Inputs of a dense layer, each divided by its own largest size, and the layer that takes these.

    None, if errors are not at least halved by that: columns of a table may have very different units.
    """
    if x.ndim != 2:
        return None
    sizes = abs(x).max(axis=0)
    sizes[sizes == 0] = 1
    own = replace(layer, weights=layer.weights * sizes)
    return (Affine(1 / sizes, 0.0), own) if 2 * own.weight_scale <= layer.weight_scale * sizes.max() else None


def error_scale(layer: ProductLayer, x: Any) -> float:
    """What errors of counts are multiplied with: twice that if inputs have signs, which takes twice the operations."""
    return float(layer.weight_scale * abs(x).max() * (2 if (x < 0).any() else 1))


def with_signs(layers: list[Any]) -> list[Any]:
    """The layers, of which those behind the first that encodes are signed if what they take may be negative."""
    found: list[Any] = []
    negative: bool | None = None
    for layer in layers:
        if isinstance(layer, ProductLayer) and negative is not None:
            layer = replace(layer, signed=negative)
        if isinstance(layer, ProductLayer) or negative is not None:
            negative = may_be_negative(layer, bool(negative))
        found.append(layer)
    return found


def may_be_negative(layer: Layer, before: bool) -> bool:
    """Whether a layer may put out negative values, if what it takes may be negative or not."""
    if isinstance(layer, ReLU | Logistic | Softmax):
        return False
    if isinstance(layer, KEEP_SIGNS):
        return before
    if isinstance(layer, Clip):
        return layer.low < 0 and (before or layer.high < 0)
    if isinstance(layer, Affine):
        return before or bool((layer.scale < 0).any() or (layer.shift < 0).any())
    return True

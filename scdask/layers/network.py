"""Networks: any layers in a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np

from .. import _html
from ..core.checks import as_host, as_real
from ..core.contract import exactly, on_host
from ..errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..core.words import Mode
    from ..generators import SNG


@runtime_checkable
class Layer(Protocol):
    """What a network asks of a layer, for samples on the first axis.

    A layer that encodes its inputs, so that its `input_scale` is finite, also has
    `with_generators(x_sng, w_sng, mode)`, which gives the same layer with other generators.
    """

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of a sample; None for any that `output_shape` takes."""

    @property
    def input_scale(self) -> float:
        """The largest input that it takes: infinite, if it encodes none."""

    @property
    def products(self) -> int:
        """Products of streams that a sample takes."""

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out for a sample of shape `shape`; a BitstreamError says why it takes none."""

    def __call__(self, x: Any, length: int) -> Any:
        """The outputs before an activation, float64, with streams of `length` bits; lazy for a Dask array."""

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point."""

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it, in a row of a table: names and values, as the layer likes."""


@dataclass(frozen=True, eq=False, repr=False)
class SCSequential:
    """Layers in a row, with ReLU in binary between them.

    What a layer puts out is cut to [0, input_scale] of the next one, and encoded again there.

    Parameters
    ----------
    layers : sequence of layers
        Such as `SCDense`, or of your own: `scdask.layers.network.Layer` says what they have.
    classes : array_like, shape (n_classes,), optional
        Labels of the outputs, 0, 1, ... by default. Two labels with one output: the second where it is positive.

    Raises
    ------
    BitstreamError
        If there is no layer, the layers do not fit each other, or the outputs do not fit the classes.
    """

    layers: tuple[Any, ...]
    classes: NDArray[Any] = field(default_factory=lambda: np.array([]))

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple | list) or not self.layers:
            raise BitstreamError(f"a network has at least one layer, not {self.layers!r}")
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise BitstreamError(f"a layer has what scdask.layers.network.Layer says, unlike {layer!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        shape = self.input_shape
        for layer in self.layers:
            shape = layer.output_shape(shape)
        if len(shape) != 1:
            raise BitstreamError(f"the last layer of a network has outputs of shape (n,), not {shape}")
        (outputs,) = shape
        classes = as_host(self.classes, "classes")
        classes = classes if classes.size else np.arange(max(outputs, 2))
        if not outputs or classes.shape != (max(outputs, 2),):
            raise BitstreamError(f"{outputs} outputs cannot tell classes of shape {classes.shape} apart")
        object.__setattr__(self, "classes", classes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def _repr_html_(self) -> str:
        layers = [{"Layer": i, **layer.facts()} for i, layer in enumerate(self.layers)]
        names = list(dict.fromkeys(name for facts in layers for name in facts))
        rows = [[facts.get(name, "") for name in names] for facts in layers]
        note = f"{len(self.classes):,} classes: {np.array2string(self.classes, threshold=20)}"
        return _html.table(type(self).__name__, names, rows, note)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        shape: tuple[int, ...] | None = self.layers[0].input_shape
        if shape is None:
            raise BitstreamError(f"the first layer of a network says what shape a sample has, unlike {self.layers[0]}")
        return shape

    @property
    def products(self) -> int:
        """Products of streams that a sample takes."""
        return sum(layer.products for layer in self.layers)

    @property
    def encoding_layers(self) -> tuple[Any, ...]:
        """The layers that have generators."""
        return tuple(layer for layer in self.layers if _encodes(layer))

    def with_generators(self, pairs: Sequence[tuple[SNG, SNG]], mode: Mode = "split") -> Self:
        """The same network with the (x_sng, w_sng) of each layer that has generators, and the mode of all."""
        try:
            given = [(x_sng, w_sng) for x_sng, w_sng in pairs]
        except (TypeError, ValueError):
            raise BitstreamError(f"pairs are (x_sng, w_sng), one a layer that has generators, not {pairs!r}") from None
        if len(given) != len(self.encoding_layers):
            raise BitstreamError(f"{len(given)} pairs of generators do not go with {len(self.encoding_layers)} layers")
        left = iter(given)
        layers = (layer.with_generators(*next(left), mode) if _encodes(layer) else layer for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def logits(self, x: Any, length: int) -> Any:
        """The outputs for inputs (batch, *input_shape) in [0, 1], from streams of `length` bits; lazy if `x` is."""
        first, *others = self.layers
        hidden = first(self._fitting(x), length)
        for layer in others:
            hidden = layer(exactly(_saturated, hidden, largest=layer.input_scale), length)
        return hidden

    def predict(self, x: Any, length: int) -> Any:
        """The labels of inputs (batch, *input_shape) in [0, 1]; lazy for a Dask array."""
        return self._labels(self.logits(x, length))

    def predict_float(self, x: Any) -> Any:
        """The labels that the same weights give in floating point; lazy for a Dask array."""
        x = on_host(self._fitting(x))
        if isinstance(x, np.ndarray):
            return self._float_labels(x)
        samples = tuple(range(1, x.ndim))
        like = {"dtype": self.classes.dtype, "meta": self.classes[:0]}
        return x.rechunk(dict.fromkeys(samples, -1)).map_blocks(self._float_labels, drop_axis=samples, **like)

    def _float_labels(self, x: NDArray[Any]) -> NDArray[Any]:
        first, *others = self.layers
        hidden = first.exact(x.astype(np.float64))
        for layer in others:
            hidden = layer.exact(np.maximum(hidden, 0))
        labels: NDArray[Any] = self._labels(hidden)
        return labels

    def _fitting(self, x: Any) -> Any:
        """The inputs as an array, once their shape is known to be that of samples."""
        inputs = as_real(x, "x")
        if inputs.shape[1:] != self.input_shape or not inputs.ndim:
            sizes = ", ".join(map(str, ("samples", *self.input_shape)))
            raise BitstreamError(f"the network takes x ({sizes}), not {inputs.shape}")
        return inputs

    def _labels(self, logits: Any) -> Any:
        logits = on_host(logits)
        index = logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)
        if isinstance(index, np.ndarray):
            return self.classes[index]
        return index.map_blocks(self.classes.take, dtype=self.classes.dtype, meta=self.classes[:0])


def _encodes(layer: Layer) -> bool:
    return layer.input_scale < np.inf


def _saturated(hidden: Any, largest: float) -> Any:
    return hidden.clip(0, largest)

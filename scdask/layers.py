"""Layers whose products are streams: the SC matrix product, dense layers, and perceptrons trained elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from . import _html, vector_ops
from ._dispatch import as_numpy
from ._files import read_npz
from .encoding import SNG, Sobol
from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from .vector_ops import Mode


def matmul(x: Any, w: Any, length: int, *, mode: Mode = "split", x_sng: SNG = Sobol(1), w_sng: SNG = Sobol(2)) -> Any:
    """The SC estimate of `x @ w.T`.

    The weights are divided by max|w|, both operands are encoded, and the ones of their products are counted. Encoding,
    gate and count are one kernel over a tile, so that memory does not grow with batch * neurons * length.

    Parameters
    ----------
    x : array_like or dask Array of float, shape (batch, n_inputs)
        In [0, 1]; in bipolar mode also down to -1.
    w : array_like or dask Array of float, shape (n_neurons, n_inputs)
    length : int
        Bits of a stream, N >= 1.
    mode : {"split", "bipolar"}
        "split": w = w+ - w-, two unipolar streams and AND (split-unipolar). "bipolar": bipolar streams and XNOR.
    x_sng, w_sng : SNG
        Generators of the inputs and the weights. Equal ones give correlated operands, and so a wrong product.

    Returns
    -------
    array of float64, shape (batch, n_neurons)
        Lazy if `x` or `w` is a Dask array.

    Raises
    ------
    BitstreamError
        If the shapes do not fit, an input is outside its range or a weight is not finite (for a Dask array: when it is
        computed), or the length is below 1.

    Examples
    --------
    >>> matmul([[0.5, 0.25]], [[1.0, -0.5]], 256)
    array([[0.375]])
    """
    x = x if hasattr(x, "dtype") else as_numpy(x, "inputs")
    w = vector_ops.as_weights(w)
    vector_ops.check_layer(w, x, w_sng, x_sng, length, mode)
    scale = vector_ops.largest(w)
    unit = vector_ops.exactly(vector_ops.divide, w, scale)
    counts = vector_ops.encode_mac(unit, x, w_sng, x_sng, length, mode)
    return vector_ops.exactly(_product, counts, scale, mode=mode, length=int(length), n_inputs=w.shape[1])


def _product(counts: Any, scale: Any, mode: Mode, length: int, n_inputs: int) -> Any:
    if mode == "split":
        return counts * vector_ops.divide(scale, length)
    return (vector_ops.divide(2 * counts, length) - n_inputs) * scale


@dataclass(frozen=True, eq=False, repr=False)
class SCDense:
    """A dense layer: `matmul` and a bias in binary.

    Parameters
    ----------
    weights : array_like of float, shape (n_neurons, n_inputs)
    bias : array_like of float, shape (n_neurons,)
    input_scale : float
        The inputs are in [0, input_scale] and are divided by it before they are encoded.
    mode : {"split", "bipolar"}
    x_sng, w_sng : SNG
        Generators of the inputs and the weights.
    """

    weights: Any
    bias: Any
    input_scale: float = 1.0
    mode: Mode = "split"
    x_sng: SNG = field(default=Sobol(1))
    w_sng: SNG = field(default=Sobol(2))

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            values = as_numpy(vector_ops.on_host(getattr(self, name)), f"the {name} of a layer")
            object.__setattr__(self, name, vector_ops.as_weights(values))
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[:1]:
            raise BitstreamError(
                f"a layer takes weights (n_neurons, n_inputs) and a bias (n_neurons,), "
                f"not {self.weights.shape} and {self.bias.shape}"
            )
        if not isinstance(self.input_scale, float | int | np.number) or not 0 < self.input_scale < np.inf:
            raise BitstreamError(f"the input scale of a layer is positive and finite, not {self.input_scale!r}")
        object.__setattr__(self, "input_scale", float(self.input_scale))
        vector_ops.check_mode(self.mode)
        for sng in (self.x_sng, self.w_sng):
            vector_ops.check_encoding(1, sng)

    def __repr__(self) -> str:
        n_neurons, n_inputs = self.weights.shape
        return f"SCDense({n_inputs} -> {n_neurons}, {self.mode}, x_sng={self.x_sng}, w_sng={self.w_sng})"

    def _repr_html_(self) -> str:
        return _html.facts("SCDense", self._facts())

    def _facts(self) -> dict[str, Any]:
        n_neurons, n_inputs = self.weights.shape
        return {
            "Inputs": f"{n_inputs:,}",
            "Neurons": f"{n_neurons:,}",
            "Mode": self.mode,
            "Input scale": f"{self.input_scale:.4g}",
            "SNG of inputs": self.x_sng,
            "SNG of weights": self.w_sng,
            "Weights and bias": _html.size(self.weights.nbytes + self.bias.nbytes),
        }

    def __call__(self, x: Any, length: int) -> Any:
        """The outputs before an activation, float64 (batch, n_neurons), for inputs (batch, n_inputs)."""
        x = x if hasattr(x, "dtype") else as_numpy(x, "inputs")
        vector_ops.check_real(x)
        x = vector_ops.exactly(_divided, x, scale=self.input_scale)
        product = matmul(x, self.weights, length, mode=self.mode, x_sng=self.x_sng, w_sng=self.w_sng)
        return vector_ops.exactly(_with_bias, product, self.bias, scale=self.input_scale)


def _divided(x: Any, scale: float) -> Any:
    return vector_ops.divide(x.astype(np.float64), scale)


def _with_bias(product: Any, bias: Any, scale: float) -> Any:
    return product * scale + bias


@dataclass(frozen=True, eq=False, repr=False)
class SCMLP:
    """A multilayer perceptron: SC dense layers with ReLU in binary between them.

    What a hidden layer puts out is cut to [0, input_scale] of the next one and encoded again.

    Parameters
    ----------
    layers : sequence of SCDense
    classes : array_like, shape (n_classes,), optional
        Labels of the outputs, 0, 1, ... by default. Two labels with one output: the second where it is positive.
    """

    layers: tuple[SCDense, ...]
    classes: NDArray[Any] = field(default_factory=lambda: np.array([]))

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple | list) or not self.layers:
            raise BitstreamError(f"a perceptron has at least one layer, not {self.layers!r}")
        if not all(isinstance(layer, SCDense) for layer in self.layers):
            raise BitstreamError(f"the layers of a perceptron are SCDense, not {self.layers!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        for below, above in pairwise(self.layers):
            if above.weights.shape[1] != len(below.weights):
                raise BitstreamError(
                    f"a layer of {len(below.weights)} neurons feeds one of {above.weights.shape[1]} inputs"
                )
        outputs = len(self.layers[-1].weights)
        classes = as_numpy(vector_ops.on_host(self.classes), "classes")
        classes = classes if classes.size else np.arange(max(outputs, 2))
        if not outputs or classes.shape != (max(outputs, 2),):
            raise BitstreamError(f"{outputs} outputs cannot tell classes of shape {classes.shape} apart")
        object.__setattr__(self, "classes", classes)

    def __repr__(self) -> str:
        return f"SCMLP({', '.join(map(repr, self.layers))})"

    def _repr_html_(self) -> str:
        layers = [{"Layer": i, **layer._facts()} for i, layer in enumerate(self.layers)]
        note = f"{len(self.classes):,} classes: {np.array2string(self.classes, threshold=20)}"
        return _html.table("SCMLP", list(layers[0]), [list(layer.values()) for layer in layers], note)

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        *,
        calibration: ArrayLike,
        classes: ArrayLike = (),
    ) -> Self:
        """Build a perceptron from trained weights.

        Parameters
        ----------
        weights : sequence of array_like, each (n_neurons, n_inputs)
        biases : sequence of array_like, each (n_neurons,)
        calibration : array_like, shape (samples, n_inputs)
            Inputs like those to come, in [0, 1]. The largest activation that they cause in floating point becomes the
            scale of each hidden layer's outputs.
        classes : array_like, optional
            Labels of the outputs.
        """
        if len(weights) != len(biases):
            raise BitstreamError(f"{len(weights)} weight matrices do not go with {len(biases)} biases")
        plain = cls(
            tuple(SCDense(w, b) for w, b in zip(weights, biases, strict=True)), np.asarray(vector_ops.on_host(classes))
        )
        hidden, n_inputs = (
            vector_ops.probabilities(vector_ops.on_host(calibration), "unipolar"),
            plain.layers[0].weights.shape[1],
        )
        if hidden.ndim != 2 or hidden.shape[1] != n_inputs:
            raise BitstreamError(f"calibration inputs are (samples, {n_inputs}), not {hidden.shape}")
        scales = [1.0]
        for layer in plain.layers[:-1]:
            hidden = np.maximum(_affine(layer, hidden), 0)
            scales.append(float(hidden.max(initial=0)) or 1.0)
        layers = (replace(layer, input_scale=scale) for layer, scale in zip(plain.layers, scales, strict=True))
        return replace(plain, layers=tuple(layers))

    @classmethod
    def from_sklearn(cls, classifier: Any, calibration: ArrayLike) -> Self:
        """Build a perceptron from a fitted `MLPClassifier` with ReLU; `calibration` as in `from_arrays`."""
        missing = [name for name in ("coefs_", "intercepts_", "classes_") if not hasattr(classifier, name)]
        if missing:
            raise BitstreamError(f"from_sklearn takes a fitted MLPClassifier, but {classifier!r} has no {missing[0]}")
        if classifier.activation != "relu":
            raise BitstreamError(f"the hidden layers of an SC perceptron use ReLU, not {classifier.activation!r}")
        weights = [coefs.T for coefs in classifier.coefs_]
        return cls.from_arrays(weights, classifier.intercepts_, calibration=calibration, classes=classifier.classes_)

    @classmethod
    def load(cls, file: Any, calibration: ArrayLike | None = None) -> Self:
        """Read an npz file: weights_0, bias_0, weights_1, ... and, if there, classes and input_scales.

        Parameters
        ----------
        file : path or file object
        calibration : array_like, optional
            As in `from_arrays`; needed for a file of several layers without input_scales.
        """
        arrays = read_npz(file)
        count = sum(name.startswith("weights_") for name in arrays)
        names = [name for i in range(count) for name in (f"weights_{i}", f"bias_{i}")] or ["weights_0"]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BitstreamError(f"the model {file} has no array {missing[0]}, only {', '.join(arrays)}")
        weights, biases = ([arrays[name] for name in names[k::2]] for k in (0, 1))
        classes = arrays.get("classes", ())
        scales = arrays.get("input_scales")
        if scales is None and calibration is not None:
            return cls.from_arrays(weights, biases, calibration=calibration, classes=classes)
        if scales is None and count > 1:
            raise BitstreamError(f"the model {file} has {count} layers but no input_scales: give it calibration inputs")
        scales = np.ones(count) if scales is None else vector_ops.as_weights(scales)
        if scales.shape != (count,):
            raise BitstreamError(f"the model {file} has {count} layers but input_scales of shape {scales.shape}")
        layers = (SCDense(w, b, float(s)) for w, b, s in zip(weights, biases, scales, strict=True))
        return cls(tuple(layers), np.asarray(classes))

    def save(self, file: Any) -> None:
        """Write weights, scales and classes to an npz file that `load` reads; mode and generators are not in it."""
        arrays = {"classes": self.classes, "input_scales": np.array([layer.input_scale for layer in self.layers])}
        for i, layer in enumerate(self.layers):
            arrays |= {f"weights_{i}": layer.weights, f"bias_{i}": layer.bias}
        np.savez(file, allow_pickle=False, **arrays)

    def with_generators(self, pairs: Sequence[tuple[SNG, SNG]], mode: Mode = "split") -> Self:
        """The same perceptron with the (x_sng, w_sng) of each layer, and the mode of all."""
        if len(pairs) != len(self.layers):
            raise BitstreamError(f"{len(pairs)} pairs of generators do not go with {len(self.layers)} layers")
        layers = (replace(layer, x_sng=x, w_sng=w, mode=mode) for layer, (x, w) in zip(self.layers, pairs, strict=True))
        return replace(self, layers=tuple(layers))

    def logits(self, x: Any, length: int) -> Any:
        """The outputs for inputs (batch, n_inputs) in [0, 1], with streams of `length` bits; lazy for a Dask array."""
        hidden = self.layers[0](x, length)
        for layer in self.layers[1:]:
            hidden = layer(vector_ops.exactly(_saturated, hidden, limit=layer.input_scale), length)
        return hidden

    def predict(self, x: Any, length: int) -> Any:
        """The labels of inputs (batch, n_inputs) in [0, 1]; lazy for a Dask array."""
        return self._labels(self.logits(x, length))

    def predict_float(self, x: Any) -> Any:
        """The labels that the same weights give in floating point."""
        hidden = as_numpy(vector_ops.on_host(x), "inputs").astype(np.float64)
        for layer in self.layers[:-1]:
            hidden = np.maximum(_affine(layer, hidden), 0)
        return self._labels(_affine(self.layers[-1], hidden))

    def _labels(self, logits: Any) -> Any:
        logits = vector_ops.on_host(logits)
        index = logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)
        if isinstance(index, np.ndarray):
            return self.classes[index]
        return index.map_blocks(self.classes.take, dtype=self.classes.dtype, meta=self.classes[:0])


def _saturated(hidden: Any, limit: float) -> Any:
    return hidden.clip(0, limit)


def _affine(layer: SCDense, x: NDArray[np.float64]) -> NDArray[np.float64]:
    outputs: NDArray[np.float64] = x @ layer.weights.T + layer.bias
    return outputs

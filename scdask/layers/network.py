"""Networks: any layers in a row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np

from .. import _html
from .._files import refused_as
from ..computing import compute
from ..core.checks import INTEGERS, as_host, as_real, check_choice
from ..core.contract import on_host
from ..core.dispatch import DASK, backend_of
from ..errors import BitstreamError
from ..vector_ops.numbers import of_samples
from .base import Layer, cut, encodes
from .early_exit import EarlyExit, Rule, check_rule, run_until
from .explain import Explanation, explain
from .imported import as_calibration, named
from .onnx_reader import read_onnx
from .onnx_writer import write_onnx
from .products import ProductLayer
from .sklearn_models import read_sklearn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from ..core.words import Mode
    from ..generators import SNG

Readout = Literal["classes", "labels", "values"]


@dataclass(frozen=True, eq=False, repr=False)
class SCSequential:
    """Layers in a row.

    What a layer puts out is cut to what the next one takes before it is encoded there: to [0, input_scale], which is
    ReLU in binary, or to [-input_scale, input_scale] if that layer is signed.

    Parameters
    ----------
    layers : sequence of Layer
        Such as `SCConv2d`, `MaxPool2d`, `Flatten`, `SCDense`, `Tanh`, or of your own: subclasses of `Layer`.
    classes : array_like, shape (n_classes,), optional
        Labels of the outputs, 0, 1, ... by default. Two labels with one output: the second where it is positive.
    input_shape : tuple of int, optional
        Shape of a sample, such as (channels, height, width); needed if the first layer takes several.
    readout : {"classes", "labels", "values"}
        What is predicted of a sample. "classes": the class with the largest output. "labels": for each output on its
        own, 1 where it is positive, else 0 (multilabel). "values": the outputs themselves (regression).

    Raises
    ------
    BitstreamError
        If there is no layer, the layers do not fit each other, or the outputs do not fit the classes.
    """

    layers: tuple[Any, ...]
    classes: NDArray[Any] = field(default_factory=lambda: np.array([]))
    input_shape: tuple[int, ...] = ()
    readout: Readout = "classes"

    def __post_init__(self) -> None:
        if not isinstance(self.layers, tuple | list) or not self.layers:
            raise BitstreamError(f"a network has at least one layer, not {self.layers!r}")
        for layer in self.layers:
            if not isinstance(layer, Layer):
                raise BitstreamError(f"a layer is a subclass of scdask.layers.Layer, unlike {layer!r}")
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "input_shape", self._sample_shape())
        shape = self.shapes[-1]
        if len(shape) != 1:
            raise BitstreamError(f"the last layer of a network has outputs of shape (n,), not {shape}")
        (outputs,) = shape
        check_choice("the readout of a network", self.readout, get_args(Readout))
        classes = as_host(self.classes, "classes")
        if self.readout == "classes":
            classes = classes if classes.size else np.arange(max(outputs, 2))
            if not outputs or classes.shape != (max(outputs, 2),):
                raise BitstreamError(f"{outputs} outputs cannot tell classes of shape {classes.shape} apart")
        object.__setattr__(self, "classes", classes)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self.input_shape:  # as pickled by 0.1.0
            object.__setattr__(self, "input_shape", self._sample_shape())

    def _sample_shape(self) -> tuple[int, ...]:
        shape = self.input_shape or self.layers[0].input_shape
        if shape is None:
            raise BitstreamError(
                f"a network whose first layer takes any samples is given its input_shape: {self.layers[0]}"
            )
        if not isinstance(shape, tuple | list) or not all(isinstance(n, INTEGERS) and n >= 0 for n in shape):
            raise BitstreamError(f"the input_shape of a network is a tuple of integers of at least 0, not {shape!r}")
        return tuple(int(n) for n in shape)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of a sample before each layer, and after the last."""
        shapes = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return shapes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.layers))})"

    def _repr_html_(self) -> str:
        layers = [{"Layer": i, **layer.facts()} for i, layer in enumerate(self.layers)]
        names = list(dict.fromkeys(name for facts in layers for name in facts))
        rows = [[facts.get(name, "") for name in names] for facts in layers]
        note = f"reads out {self.readout}"
        if self.readout == "classes":
            note = f"{len(self.classes):,} classes: {np.array2string(self.classes, threshold=20)}"
        return _html.table(type(self).__name__, names, rows, note)

    @property
    def products(self) -> int:
        """Products of numbers that a sample takes."""
        return sum(layer.products(shape) for layer, shape in zip(self.layers, self.shapes, strict=False))

    @property
    def encoding_layers(self) -> tuple[Any, ...]:
        """The layers that have generators."""
        return tuple(layer for layer in self.layers if encodes(layer))

    def with_generators(self, pairs: Sequence[tuple[SNG, SNG]] | None, mode: Mode = "split") -> Self:
        """The same network with the (x_sng, w_sng) of each layer that has generators, and the mode of all.

        Without pairs, None, the generators stay.
        """
        if pairs is None:
            pairs = [(layer.x_sng, layer.w_sng) for layer in self.encoding_layers]
        try:
            given = [(x_sng, w_sng) for x_sng, w_sng in pairs]
        except (TypeError, ValueError):
            raise BitstreamError(f"pairs are (x_sng, w_sng), one a layer that has generators, not {pairs!r}") from None
        if len(given) != len(self.encoding_layers):
            raise BitstreamError(f"{len(given)} pairs of generators do not go with {len(self.encoding_layers)} layers")
        left = iter(given)
        layers = (layer.with_generators(*next(left), mode) if encodes(layer) else layer for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def with_faults(self, rate: float, seed: int = 0) -> Self:
        """The same network, in which each bit of the streams of inputs and weights flips with a probability.

        A product of an input x and a weight w, both divided by their scales, becomes ((1 - 2 f) x + f) (1 - 2 f) w on
        average of split weights, w+ and w- being a stream each, and (1 - 2 f)**2 x w of bipolar streams, with f as the
        rate. What is in binary, such as sums, biases and activations, has no faults. The pixels that are added around
        an image are streams too.

        Which bits flip is a pure function of (seed, layer, operand, stream, bit), streams being numbered as those of
        the generators are: it is the same in any chunks, for other generators and rates (a bit that flips at a rate
        flips at all higher ones), and for samples that stop early.

        Parameters
        ----------
        rate : float
            0 to 1. 0 takes the faults away.
        seed : int
            0 to 2**64 - 1.

        Raises
        ------
        BitstreamError
            If the rate or the seed is no such number, or a layer that encodes is of one's own.

        Examples
        --------
        >>> import numpy as np
        >>> from scdask import SCDense, SCSequential
        >>> network = SCSequential((SCDense(np.ones((1, 100)) / 100, [0.0]),), readout="values")
        >>> x = np.full((1, 100), 0.25)
        >>> for rate in (0, 0.1):  # 0.24 is expected of the second
        ...     print(network.with_faults(rate).predict(x, 256).round(2))
        [0.25]
        [0.24]
        """
        if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not 0 <= rate <= 1:
            raise BitstreamError(f"the rate of faults is from 0 to 1, not {rate!r}")
        for layer in self.encoding_layers:
            if not isinstance(layer, ProductLayer):
                raise BitstreamError(f"only the streams of SCDense and SCConv2d can have faults, not those of {layer}")
        layers = (
            layer.with_faults(float(rate), seed, number) if encodes(layer) else layer
            for number, layer in enumerate(self.layers)
        )
        return replace(self, layers=tuple(layers))

    def calibrated(self, inputs: ArrayLike, percentile: float = 100) -> Self:
        """The same network with the scales of what its hidden layers take.

        Parameters
        ----------
        inputs : array_like, shape (samples, *input_shape)
            Inputs like those to come.
        percentile : float
            Of the sizes of the activations that they cause in floating point, this percentile becomes the scale:
            100, the largest, cuts none of them; less encodes the others finer.
        """
        if not isinstance(percentile, int | float) or not 0 < percentile <= 100:
            raise BitstreamError(f"a percentile is above 0 and at most 100, not {percentile!r}")
        hidden = as_host(self._fitting(inputs), "calibration").astype(np.float64)
        layers: list[Any] = []
        for layer, inner in zip(self.layers, self.inner, strict=True):
            if encodes(layer) and inner:
                sizes = abs(hidden) if layer.signed else hidden.clip(0)
                scale = float(np.percentile(sizes, percentile)) if sizes.size else 0.0
                layer = replace(layer, input_scale=scale or float(sizes.max(initial=0.0)) or 1.0)
            hidden = layer.exact(hidden.clip(0) if inner and not layer.signed else hidden)
            layers.append(layer)
        return replace(self, layers=tuple(layers))

    @property
    def inner(self) -> list[bool]:
        """For each layer whether another one that encodes comes before: it takes activations, not inputs."""
        before = [False]
        for layer in self.layers:
            before.append(before[-1] or encodes(layer))
        return before[:-1]

    def lengths(self, length: int | Sequence[int]) -> list[int]:
        """The length of the streams of each layer: of one number, or of one for each layer that encodes."""
        needed = len(self.encoding_layers)
        several = isinstance(length, tuple | list) or getattr(length, "ndim", 0) == 1
        given: Any = list(length) if several else [length] * needed  # type: ignore[arg-type]
        if not all(isinstance(n, INTEGERS) and n > 0 for n in given):
            raise BitstreamError(f"the length of a stream is an integer of at least 1, not {length!r}")
        if len(given) != needed:
            raise BitstreamError(f"{len(given)} lengths do not go with {needed} layers that encode")
        left = iter(given)
        return [next(left) if encodes(layer) else 0 for layer in self.layers]

    def logits(self, x: Any, length: int | None = None, *, lengths: Sequence[int] | None = None) -> Any:
        """The outputs for inputs (batch, *input_shape), from streams of so many bits, see `predict`; lazy if `x` is."""
        inputs = self._fitting(x)
        run = partial(self._run, self._given_lengths(length, lengths))
        if inputs.ndim == 4 and backend_of(inputs) is DASK and max(inputs.numblocks[1:]) > 1:
            return run(inputs, 0)  # layer by layer, as images may be too large for a task
        return of_samples(run, inputs, self.shapes[-1])

    def _given_lengths(self, length: int | None, lengths: Sequence[int] | None) -> list[int]:
        if (length is None) == (lengths is None):
            raise BitstreamError(
                f"a network is given the length of all its streams, or the lengths of each layer that encodes, "
                f"not {length!r} and {lengths!r}"
            )
        return self.lengths(lengths if length is None else length)  # type: ignore[arg-type]

    def _run(self, lengths: list[int], x: Any, start: int) -> Any:
        hidden = x
        for layer, length, inner in zip(self.layers, lengths, self.inner, strict=True):
            hidden = layer(cut(hidden, layer) if inner else hidden, length, start)
        return hidden

    def predict(
        self,
        x: Any,
        length: int | None = None,
        *,
        lengths: Sequence[int] | None = None,
        stop: Rule | None = None,
    ) -> Any:
        """What is read out for inputs (batch, *input_shape): labels, or values; lazy for a Dask array.

        Parameters
        ----------
        x : array_like or dask Array, shape (batch, *input_shape)
            In the range that the first layer takes.
        length : int
            Bits of a stream, of all layers.
        lengths : sequence of int
            Bits of a stream of each layer that encodes, instead of `length`.
        stop : Margin, Stability, Cycles or another Rule, optional
            When a sample goes no further. Cut at n cycles, a network is evaluated from the first n bits of all its
            streams; streams that are shorter are whole. See `scdask.layers.early_exit`.

        Returns
        -------
        array, shape (batch,); or EarlyExit of (label, cycles, margin), if it stops

        Raises
        ------
        BitstreamError
            If neither the length nor the lengths are given, or both; the lengths or the inputs do not fit; or the
            network cannot be stopped by the rule.
        """
        if stop is None:
            return self.read_out(self.logits(x, length, lengths=lengths))
        bits = self._given_lengths(length, lengths)
        check_rule(stop, self, bits)
        shape = (self.shapes[-1][0] + 2,)
        found = on_host(of_samples(partial(run_until, self, bits, stop), self._fitting(x), shape))
        return EarlyExit(self.read_out(found[:, :-2]), found[:, -2].astype(np.int64), found[:, -1])

    def explain(self, x: Any, length: int | None = None, *, lengths: Sequence[int] | None = None) -> Explanation:
        """Where errors come from, layer by layer.

        For each layer, root mean squares over samples and outputs: of the error from the network in floating point; of
        what the layer's own streams cause, its inputs being exact; of what it inherits from the layers before; and of
        what theory expects its own streams to cause. Own and inherited errors are nearly independent, so that the error
        is about the root of the sum of their squares.

        **Theory.** Let p be an input and w a weight, divided by their scales, and N the bits. An output is their sum of
        products times both scales; its error is that factor times the root of the sum over its products of

        - `Bernoulli` streams: p |w| (1 - p |w|) / N for split weights, (1 - p^2 w^2) / N for bipolar streams. A bit of
          a product is one of independent trials, and this is the variance of their mean [1]_: it is exact.
        - `Bernoulli` inputs and numbers that all weights share: p |w| (1 - p) / N, or (1 - p^2) / N; of
          `Bernoulli` weights in the same way.
        - Numbers that all elements share (`Sobol`, `Halton`, `LFSR`, ...): T^2, or 16 T^2 for bipolar streams, where
          neither p nor w is 0. The ones of a product are the points (number of the input, number of the weight) in a
          box p by w, so that the error of a product is their local discrepancy. T is the L2 star discrepancy, its root
          mean square over all boxes [2]_. This is an estimate: it takes p and w as uniform, and the errors of products
          as independent. It was 1.1 to 1.5 times what was measured with `Sobol`, and half of it with two `LFSR`.

        For other generators, and for more than 16,384 such numbers, there is none (NaN).

        Parameters
        ----------
        x : array_like, shape (samples, *input_shape)
            Inputs like those to come; some hundreds are enough. All that they cause is in memory at once.
        length, lengths
            As in `predict`.

        Returns
        -------
        Explanation
            A sequence of `scdask.layers.explain.LayerError`, one a layer, shown as a table.

        Raises
        ------
        BitstreamError
            As in `predict`.

        References
        ----------
        .. [1] Gaines: Stochastic computing systems. Advances in Information Systems Science 2, 1969.
        .. [2] Warnock: Computational investigations of low-discrepancy point sets. Applications of Number Theory to
           Numerical Analysis, 1972; `scipy.stats.qmc.discrepancy` with "L2-star".
        """
        bits = self._given_lengths(length, lengths)
        return explain(self, as_host(self._fitting(x), "x").astype(np.float64), bits)

    def predict_float(self, x: Any) -> Any:
        """What the same weights give in floating point; lazy for a Dask array."""
        return self.read_out(of_samples(self._exact, on_host(self._fitting(x)), self.shapes[-1]))

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point."""
        hidden = x
        for layer, inner in zip(self.layers, self.inner, strict=True):
            hidden = layer.exact(np.maximum(hidden, 0) if inner and not layer.signed else hidden)
        return hidden

    def _exact(self, x: NDArray[Any], start: int) -> NDArray[np.float64]:
        return self.exact(x.astype(np.float64))

    def _fitting(self, x: Any) -> Any:
        """The inputs as an array, once their shape is known to be that of samples."""
        inputs = as_real(x, "x")
        if inputs.shape[1:] != self.input_shape or not inputs.ndim:
            sizes = ", ".join(map(str, ("samples", *self.input_shape)))
            raise BitstreamError(f"the network takes x ({sizes}), not {inputs.shape}")
        return inputs

    def read_out(self, logits: Any) -> Any:
        """What the outputs of the last layer (batch, n) say: labels (batch,), indicators (batch, n), or values."""
        logits = on_host(logits)
        if self.readout == "values":
            return logits[:, 0] if logits.shape[1] == 1 else logits
        if self.readout == "labels":
            return (logits > 0).astype(np.int64)
        index = logits.argmax(axis=1) if logits.shape[1] > 1 else (logits[:, 0] > 0).astype(np.int64)
        if isinstance(index, np.ndarray):
            return self.classes[index]
        return index.map_blocks(self.classes.take, dtype=self.classes.dtype, meta=self.classes[:0])

    def score(self, x: Any, y: ArrayLike, length: int | None = None, *, lengths: Sequence[int] | None = None) -> float:
        """How well it predicts, as the `score` of scikit-learn's estimators says it.

        Parameters
        ----------
        x : array_like or dask Array, shape (batch, *input_shape)
        y : array_like or dask Array, shape (batch,) or (batch, n)
            The labels or values that are right.
        length, lengths
            As in `predict`.

        Returns
        -------
        float
            Of classes the share that is right; of labels the share of samples all of whose labels are right; of values
            the coefficient of determination, R^2 = 1 - sum((y - p)^2) / sum((y - mean(y))^2), the mean of those of
            several outputs.

        Raises
        ------
        BitstreamError
            If there are no samples, or `y` has another shape than what is predicted.
        """
        predicted, right = compute(self.predict(x, length, lengths=lengths), y, name="score")
        return self.score_of(predicted, as_host(right, "y"))

    def score_of(self, predicted: NDArray[Any], right: NDArray[Any]) -> float:
        """The score of what was predicted; see `score`."""
        if right.shape != predicted.shape or not len(predicted):
            raise BitstreamError(f"a score needs the right values of {predicted.shape} predictions, not {right.shape}")
        if self.readout != "values":
            hits = predicted == right
            return float(hits.reshape(len(hits), -1).all(axis=1).mean())
        if right.dtype.kind not in "biuf":
            raise BitstreamError(f"a score needs numbers that are right, not {right.dtype}")
        left, spread = ((right - p) ** 2 for p in (predicted, right.mean(axis=0)))
        left, spread = left.sum(axis=0), spread.sum(axis=0)
        constant = spread == 0  # As in scikit-learn: 1 for constants that are met, else 0.
        return float(np.where(constant, left == 0, 1 - left / np.where(constant, 1, spread)).mean())

    @classmethod
    def from_onnx(
        cls,
        model: Any,
        calibration: ArrayLike | None = None,
        *,
        percentile: float = 100,
        classes: ArrayLike = (),
        readout: Readout | None = None,
    ) -> Self:
        """Build a network from an ONNX model, as PyTorch, Keras and scikit-learn export it.

        The nodes are a chain from one input to one output. Gemm, MatMul, Conv, MaxPool, AveragePool, GlobalAveragePool,
        GlobalMaxPool, ReduceMean over images, Relu, Clip, Tanh, Sigmoid, Softmax, Flatten, Reshape, Transpose, Squeeze
        and Unsqueeze are layers. BatchNormalization, Scaler, and Add, Sub, Mul and Div of constants become part of the
        layer of products before or after them, or else an `Affine` in binary. Identity, Cast, and Dropout do nothing. A
        last Softmax, LogSoftmax or Sigmoid is left out where classes or labels are read out: it changes none of them,
        and the outputs are logits. A layer behind another one that encodes is signed, unless what it takes cannot be
        negative.

        Parameters
        ----------
        model : path, file object, bytes or onnx.ModelProto
            Weights may be in other files in its folder.
        calibration : array_like, shape (samples, *input_shape)
            Inputs like those to come, as the model takes them. If all are in [0, 1], the first layer takes that range;
            else its scale is their largest size, and inputs beyond that are cut. The scales of the hidden layers are
            those of `calibrated`. It is not needed, and not used, for what `to_onnx` wrote.
        percentile : float
            As in `calibrated`.
        classes : array_like, optional
            Labels of the outputs, if the model has none or others are wanted.
        readout : {"classes", "labels", "values"}, optional
            By default what the nodes say: a last Sigmoid of several outputs reads out "labels", a single output without
            Sigmoid and `classes` "values", all else "classes".

        Raises
        ------
        BitstreamError
            If the file is no ONNX model, or no layers do what it says. The message names the file and the node.
        MissingBackendError
            If the package `onnx` is not installed.
        """
        inputs = None if calibration is None else as_host(calibration, "calibration")
        imported = read_onnx(model, None if inputs is None else inputs.shape[1:])
        with refused_as(f"{imported.name} cannot be taken"), named(imported.name):
            network = cls(**imported.network(inputs, classes, readout))
            return network if inputs is None or imported.scaled else network.calibrated(inputs, percentile)

    @classmethod
    def from_sklearn(cls, estimator: Any, calibration: ArrayLike, *, percentile: float = 100) -> Self:
        """Build a network from a fitted estimator of scikit-learn.

        Parameters
        ----------
        estimator : estimator of scikit-learn
            `MLPClassifier` or `MLPRegressor` with any activation, `LogisticRegression`, `LinearSVC`, `Perceptron`,
            `SGDClassifier`, `LinearRegression`, `Ridge`, `Lasso`, `ElasticNet` or `LinearSVR`; or a `Pipeline` of
            `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler` or `RobustScaler` and one of these.
        calibration : array_like, shape (samples, n_inputs)
            Inputs like those to come, as the estimator takes them.
        percentile : float
            As in `calibrated`.

        Raises
        ------
        BitstreamError
            If it is another estimator, or is not fitted.
        """
        imported = read_sklearn(estimator)
        inputs = as_calibration(calibration, imported.input_shape)
        return cls(**imported.network(inputs, (), None)).calibrated(inputs, percentile)

    def to_onnx(self, file: Any) -> None:
        """Write an ONNX model in float32, with classes and input scales, from which `from_onnx` makes the same network.

        Weights and biases are rounded to float32, and so are the numbers of `Affine` and the bounds of `Clip`; a
        network whose numbers are float32 already is read again with the same bits. Where what a layer takes is cut to
        [0, scale], the model has a Relu. Generators, modes and faults are not in the file.

        Parameters
        ----------
        file : path or file object
            A path is written whole or not at all.

        Raises
        ------
        BitstreamError
            If a layer is of one's own, or classes are Python objects other than text.
        MissingBackendError
            If the package `onnx` is not installed.
        """
        write_onnx(self, file)

    def save(self, file: Any) -> None:
        """Write the network to an .onnx file, see `to_onnx`; `scdask.layers.load_model` reads it."""
        if not str(file).endswith(".onnx"):
            raise BitstreamError(f"a network is saved as .onnx, not as {file}")
        self.to_onnx(file)

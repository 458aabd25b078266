"""Perceptrons: networks of dense layers, trained elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .._files import read_npz, some, write_npz
from ..core.checks import as_host, as_real
from ..core.contract import probabilities
from ..errors import BitstreamError
from ..vector_ops.products import as_weights
from .dense import SCDense
from .network import SCSequential

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False, repr=False)
class SCMLP(SCSequential):
    """A multilayer perceptron: SC dense layers with ReLU in binary between them.

    What a hidden layer puts out is cut to [0, input_scale] of the next one and encoded again.

    Parameters
    ----------
    layers : sequence of SCDense
    classes : array_like, shape (n_classes,), optional
        Labels of the outputs, 0, 1, ... by default. Two labels with one output: the second where it is positive.
    """

    def __post_init__(self) -> None:
        if isinstance(self.layers, tuple | list) and not all(isinstance(layer, SCDense) for layer in self.layers):
            raise BitstreamError(f"the layers of a perceptron are SCDense, not {self.layers!r}")
        super().__post_init__()

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[ArrayLike],
        biases: Sequence[ArrayLike],
        *,
        calibration: ArrayLike,
        classes: ArrayLike = (),
        percentile: float = 100,
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
        percentile : float
            Of the sizes of the activations, this percentile becomes the scale instead of the largest.
        """
        for name, given in (("weights", weights), ("biases", biases)):
            try:
                len(given)
            except TypeError:
                raise BitstreamError(f"the {name} are a sequence of arrays, one a layer, not {given!r}") from None
        if len(weights) != len(biases):
            raise BitstreamError(f"{len(weights)} weight matrices do not go with {len(biases)} biases")
        plain = cls(tuple(SCDense(w, b) for w, b in zip(weights, biases, strict=True)), as_host(classes, "classes"))
        inputs = as_real(as_host(calibration, "calibration"), "calibration")
        (n_inputs,) = plain.input_shape
        if inputs.ndim != 2 or inputs.shape[1] != n_inputs:
            raise BitstreamError(f"calibration inputs are (samples, {n_inputs}), not {inputs.shape}")
        return plain.calibrated(probabilities(inputs, "unipolar"), percentile)

    @classmethod
    def from_sklearn(cls, classifier: Any, calibration: ArrayLike, *, percentile: float = 100) -> Self:
        """Build a perceptron from a fitted scikit-learn `MLPClassifier` with ReLU.

        Parameters
        ----------
        classifier : MLPClassifier
            One that gives a sample one of two classes or more.
        calibration, percentile
            As in `from_arrays`.

        Raises
        ------
        BitstreamError
            If it is none, is not fitted, has another activation, or was fitted with several labels a sample.
        """
        missing = [name for name in ("coefs_", "intercepts_", "classes_") if not hasattr(classifier, name)]
        if missing:
            raise BitstreamError(f"from_sklearn takes a fitted MLPClassifier, but {classifier!r} has no {missing[0]}")
        if classifier.activation != "relu" and len(classifier.coefs_) > 1:
            raise BitstreamError(f"the hidden layers of an SC perceptron use ReLU, not {classifier.activation!r}")
        outputs, classes = len(classifier.intercepts_[-1]), classifier.classes_
        if len(classes) == 1:
            raise BitstreamError(f"a perceptron tells two classes or more apart, but the classifier knows {classes[0]}")
        if classifier.out_activation_ == "logistic" and outputs > 1:
            raise BitstreamError(
                f"a perceptron gives a sample one of its classes, but each of the classifier's {outputs} outputs is a "
                "label of its own: it was fitted with y (samples, labels), multilabel or one-hot; labels (samples,) fit"
            )
        weights = [coefs.T for coefs in classifier.coefs_]
        biases = classifier.intercepts_
        return cls.from_arrays(weights, biases, calibration=calibration, classes=classes, percentile=percentile)

    @classmethod
    def load(cls, file: Any, calibration: ArrayLike | None = None, percentile: float = 100) -> Self:
        """Read an npz file: weights_0, bias_0, weights_1, ... and, if there, classes and input_scales.

        Parameters
        ----------
        file : path or file object
        calibration, percentile : optional
            As in `from_arrays`; needed for a file of several layers without input_scales, else not used.

        Raises
        ------
        BitstreamError
            If the file is no npz file of plain arrays, or they are no perceptron.
        """
        arrays = read_npz(file)
        try:
            return cls._of_arrays(arrays, file, calibration, percentile)
        except BitstreamError as error:
            if str(file) in str(error):
                raise
            raise BitstreamError(f"the model {file}: {error}") from error

    @classmethod
    def _of_arrays(
        cls, arrays: dict[str, NDArray[Any]], file: Any, calibration: ArrayLike | None, percentile: float = 100
    ) -> Self:
        count = sum(name.startswith("weights_") for name in arrays)
        names = [name for i in range(count) for name in (f"weights_{i}", f"bias_{i}")] or ["weights_0"]
        missing = [name for name in names if name not in arrays]
        if missing:
            raise BitstreamError(f"the model {file} has no array {missing[0]}, only {some(arrays)}")
        weights, biases = ([arrays[name] for name in names[k::2]] for k in (0, 1))
        classes = arrays.get("classes", ())
        if calibration is not None:
            given = calibration = as_host(calibration, "calibration")
            if weights[0].ndim == 2 and given.shape[1:] != weights[0].shape[1:]:
                raise BitstreamError(f"the model {file} takes x (samples, {weights[0].shape[1]}), not {given.shape}")
        scales = arrays.get("input_scales")
        if scales is None and calibration is not None:
            how: Any = {"calibration": calibration, "classes": classes, "percentile": percentile}
            return cls.from_arrays(weights, biases, **how)
        if scales is None and count > 1:
            raise BitstreamError(f"the model {file} has {count} layers but no input_scales: give it calibration inputs")
        scales = np.ones(count) if scales is None else as_weights(scales)
        if scales.shape != (count,):
            raise BitstreamError(f"the model {file} has {count} layers but input_scales of shape {scales.shape}")
        layers = (SCDense(w, b, float(s)) for w, b, s in zip(weights, biases, scales, strict=True))
        return cls(tuple(layers), np.asarray(classes))

    def save(self, file: Any) -> None:
        """Write weights, scales and classes to an npz file that `load` reads; mode and generators are not in it.

        A path that ends in .onnx is written as `to_onnx` does it.

        The file is written whole or not at all: what was there stays until then.

        Parameters
        ----------
        file : path or file object
            A path gets the suffix .npz if it has none.

        Raises
        ------
        BitstreamError
            If the classes are Python objects other than text.
        """
        if str(file).endswith(".onnx"):
            self.to_onnx(file)
            return
        classes = self.classes
        if classes.dtype == object:  # as scikit-learn has the labels of a column of text
            if not all(isinstance(label, str) for label in classes):
                raise BitstreamError(f"a file holds classes that are numbers or text, not {some(map(repr, classes))}")
            classes = classes.astype(str)
        arrays = {"classes": classes, "input_scales": np.array([layer.input_scale for layer in self.layers])}
        for i, layer in enumerate(self.layers):
            arrays |= {f"weights_{i}": layer.weights, f"bias_{i}": layer.bias}
        write_npz(file, arrays)

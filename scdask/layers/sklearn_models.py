"""Estimators of scikit-learn as layers; what they are, their attributes say, so that nothing is imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import BitstreamError
from .activations import Clip, Logistic, ReLU, Tanh
from .affine import Affine
from .dense import SCDense
from .imported import Imported

PERCEPTRONS = ("MLPClassifier", "MLPRegressor")
LINEAR_CLASSIFIERS = ("LogisticRegression", "LinearSVC", "Perceptron", "SGDClassifier")
LINEAR_REGRESSORS = ("LinearRegression", "Ridge", "Lasso", "ElasticNet", "LinearSVR")
SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
ACTIVATIONS: dict[str, list[Any]] = {"relu": [ReLU()], "tanh": [Tanh()], "logistic": [Logistic()], "identity": []}


def read_sklearn(estimator: Any) -> Imported:
    """The layers of a fitted estimator, or of a pipeline of scalers and one."""
    steps = list(_steps(estimator))
    if not steps:
        raise BitstreamError(f"a pipeline has a classifier or a regressor at its end, unlike {_shown(estimator)}")
    *before, last = steps
    layers: list[Any] = []
    for step in before:
        _add_scaler(layers, step)
    kind = _kind(last, PERCEPTRONS + LINEAR_CLASSIFIERS + LINEAR_REGRESSORS, "an estimator")
    read = _perceptron if kind in PERCEPTRONS else _linear
    products, classes, readout = read(last, kind)
    n_inputs = products[0].weights.shape[1]
    return Imported((*layers, *products), (n_inputs,), classes, readout)


def _steps(estimator: Any) -> Any:
    """The estimators of a pipeline, one after the other."""
    if "Pipeline" not in _names(estimator):
        yield estimator
        return
    for _, step in estimator.steps:
        if step is not None and not (isinstance(step, str) and step == "passthrough"):
            yield from _steps(step)


def _names(estimator: Any) -> list[str]:
    """The names of its class and of those that it inherits from, if they are of scikit-learn."""
    return [c.__name__ for c in type(estimator).__mro__ if c.__module__.partition(".")[0] == "sklearn"]


def _shown(estimator: Any) -> str:
    return " ".join(repr(estimator).split())[:100]


def _kind(estimator: Any, taken: tuple[str, ...], what: str) -> str:
    kind = next((name for name in _names(estimator) if name in taken), None)
    if kind is None:
        raise BitstreamError(f"{what} is one of {', '.join(taken)}, not {_shown(estimator)}")
    return kind


def _fitted(estimator: Any, *names: str) -> list[Any]:
    missing = [name for name in names if not hasattr(estimator, name)]
    if missing:
        raise BitstreamError(f"{_shown(estimator)} is not fitted: it has no {missing[0]}")
    return [getattr(estimator, name) for name in names]


def _add_scaler(layers: list[Any], scaler: Any) -> None:
    kind = _kind(scaler, SCALERS, "what comes before an estimator in a pipeline")
    if kind == "MinMaxScaler":
        scale, shift = _fitted(scaler, "scale_", "min_")
    else:
        center = {"StandardScaler": "mean_", "RobustScaler": "center_"}.get(kind)
        (divisor,) = _fitted(scaler, "scale_")
        (middle,) = _fitted(scaler, center) if center else (None,)
        if kind == "StandardScaler" and not scaler.with_mean:
            middle = None
        scale = np.ones(scaler.n_features_in_) if divisor is None else 1.0 / divisor
        shift = np.zeros_like(scale) if middle is None else -middle * scale
    if layers and isinstance(layers[-1], Affine):
        before = layers.pop()
        scale, shift = before.scale * scale, before.shift * scale + shift
    layers.append(Affine(scale, shift))
    if getattr(scaler, "clip", False):
        layers.append(Clip(*map(float, scaler.feature_range)) if kind == "MinMaxScaler" else Clip(-1.0, 1.0))


def _perceptron(estimator: Any, kind: str) -> tuple[list[Any], Any, str]:
    coefs, biases, output = _fitted(estimator, "coefs_", "intercepts_", "out_activation_")
    activation = estimator.activation
    if activation not in ACTIVATIONS or (kind == "MLPRegressor" and output != "identity"):
        raise BitstreamError(
            f"the activation {activation!r} of {_shown(estimator)} is none of {', '.join(ACTIVATIONS)}"
        )
    layers: list[Any] = []
    for weights, bias in zip(coefs, biases, strict=True):
        layers += [SCDense(weights.T, bias), *ACTIVATIONS[activation]]
    layers = layers[: len(layers) - len(ACTIVATIONS[activation])]
    if kind == "MLPRegressor":
        return layers, (), "values"
    if output == "logistic" and len(biases[-1]) > 1:
        return layers, (), "labels"
    return layers, _two_or_more(estimator), "classes"


def _two_or_more(estimator: Any) -> Any:
    (classes,) = _fitted(estimator, "classes_")
    if len(classes) < 2:
        raise BitstreamError(f"a network tells two classes or more apart, but {_shown(estimator)} knows {classes}")
    return classes


def _linear(estimator: Any, kind: str) -> tuple[list[Any], Any, str]:
    coefs, bias = _fitted(estimator, "coef_", "intercept_")
    weights = np.atleast_2d(coefs.toarray() if hasattr(coefs, "toarray") else coefs)
    layers = [SCDense(weights, np.broadcast_to(np.ravel(bias), len(weights)))]
    if kind in LINEAR_REGRESSORS:
        return layers, (), "values"
    return layers, _two_or_more(estimator), "classes"

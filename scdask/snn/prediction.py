"""What a trained network says of inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from dask import delayed

from ..computing import as_place
from ..core.checks import as_host, as_real
from ..core.contract import probabilities
from ..errors import BitstreamError
from ..generators import Bernoulli
from ..training.states import as_labels, refuse_other_kinds, refuse_unknown_labels
from .network import forward, rate_code, refuse_other_layers

if TYPE_CHECKING:
    from distributed import Client
    from numpy.typing import ArrayLike, NDArray

    from ..computing import Place
    from ..training.states import Weights
    from .network import Settings, State

ROWS = 256  # samples that one task classifies


def predict(
    state: State, x: ArrayLike, settings: Settings, place: Place | Client, sng: Bernoulli = Bernoulli()
) -> NDArray[Any]:
    """Classify with a trained network.

    Parameters
    ----------
    state : State
    x : array_like, shape (samples, n_inputs)
        In [0, 1].
    settings : Settings
    place : Place or dask Client
    sng : Bernoulli
        The generator of the spikes of the inputs.

    Returns
    -------
    ndarray, shape (samples,)
        Labels.

    Raises
    ------
    BitstreamError
        If an input is outside [0, 1], or the shape does not fit.
    """
    place = as_place(place)
    refuse_other_layers(state, settings)
    given = as_real(as_host(x, "x"), "x")
    refuse_other_inputs(given, state.weights[0].shape[1])
    inputs = probabilities(given, "unipolar")
    if not len(inputs):
        return state.classes[:0]
    run = uuid4().hex
    shared = delayed(state.weights, name=f"snn-weights-{run}", traverse=False)
    parts = [
        delayed(_outputs)(shared, inputs[i : i + ROWS], i, sng, settings, dask_key_name=f"snn-predict-{run}-{i}")
        for i in range(0, len(inputs), ROWS)
    ]
    outputs = place.compute(delayed(np.concatenate)(parts, dask_key_name=f"snn-outputs-{run}"))
    labels: NDArray[Any] = state.classes[outputs]
    return labels


def _outputs(
    weights: Weights, x: NDArray[np.float64], first: int, sng: Bernoulli, settings: Settings
) -> NDArray[np.int64]:
    logits, _ = forward(weights, rate_code(x, settings.steps, sng, first), settings)
    outputs: NDArray[np.int64] = np.asarray(logits).argmax(axis=1)
    return outputs


def accuracy(state: State, x: ArrayLike, y: ArrayLike, settings: Settings, place: Place | Client) -> float:
    """The share of inputs (samples, n_inputs) that `predict` gives the labels (samples,)."""
    inputs, labels = as_data(x, y)
    refuse_unknown_labels(labels, state.classes)
    return float(np.mean(predict(state, inputs, settings, place) == labels))


def as_data(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A copy of the inputs and the labels, once they are known to fit."""
    given, labels = as_real(as_host(x, "x"), "x"), as_labels(y)
    if given.ndim != 2 or labels.shape != given.shape[:1] or not given.size:
        raise BitstreamError(
            f"a network takes x (samples, n_inputs) and y (samples,), not {given.shape} and {labels.shape}"
        )
    refuse_other_kinds(labels)
    return np.array(probabilities(given, "unipolar")), labels


def refuse_other_inputs(x: NDArray[Any], n_inputs: int) -> None:
    """Raise a BitstreamError unless the inputs are samples of a network."""
    if x.ndim != 2 or x.shape[1] != n_inputs:
        raise BitstreamError(f"the network takes x (samples, {n_inputs}), not {x.shape}")

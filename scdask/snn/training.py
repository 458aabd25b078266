"""Training with surrogate gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import require
from ..computing import as_place
from ..generators import Bernoulli
from ..jax_backend.device import jax, jitted
from ..training import engine
from ..training.states import refuse_unknown_labels
from .network import Settings, State, rate_code, refuse_other_layers, simulate
from .prediction import accuracy, as_data, refuse_other_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client
    from numpy.typing import ArrayLike, NDArray

    from ..computing import Place
    from ..training.states import Weights


def train(
    x: ArrayLike,
    y: ArrayLike,
    settings: Settings,
    place: Place | Client,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    state: State | None = None,
) -> Iterator[State]:
    """Train a network, and yield after each epoch.

    The loss is the cross-entropy of the labels with the softmax of the logits (`forward`), the optimiser Adam; where a
    spike has no derivative, that of a fast sigmoid stands for it [1]_. The inputs spike at a Bernoulli rate code, anew
    in each epoch. Initial weights are normal with the variance 1 / n_inputs.

    Parameters
    ----------
    x : array_like, shape (samples, n_inputs)
        In [0, 1].
    y : array_like, shape (samples,)
        Labels.
    settings : Settings
    place : Place or dask Client
        Where to compute: from `scdask.cluster.open_scheduler`, or a Client.
    test : (x, y), optional
        Data to be classified after each epoch.
    state : State, optional
        Where to go on. The weights are the same as those of a training that was never interrupted.

    Yields
    ------
    State

    Raises
    ------
    BitstreamError
        If the shapes do not fit, an input is outside [0, 1], or the state is from other data.

    References
    ----------
    .. [1] Neftci, Mostafa, Zenke: Surrogate gradient learning in spiking neural networks. IEEE SPM 36(6), 2019.
    """
    place = as_place(place)
    inputs, labels = as_data(x, y)
    classes, targets = engine.classes_of(labels)
    if test is not None:
        test_inputs, test_labels = as_data(*test)
        refuse_other_inputs(test_inputs, inputs.shape[1])
        refuse_unknown_labels(test_labels, classes)
    samples, n_inputs = inputs.shape
    digest = engine.digest_of(classes, inputs, targets)
    data = {"samples": samples, "inputs": n_inputs, "classes": len(classes), "digest": digest}
    if state is None:
        state = _start(settings, classes, data)
    refuse_other_layers(state, settings)
    engine.refuse_other_course(state, data, classes, test is not None)
    reached = None if test is None else partial(_reached, test, settings, place)
    yield from engine.epochs(state, inputs, targets, settings, place, partial(_problem, settings), reached)


def _reached(test: tuple[ArrayLike, ArrayLike], settings: Settings, place: Place, state: State) -> float:
    return accuracy(state, *test, settings, place)


def _problem(settings: Settings, state: State, generator: np.random.Generator) -> _Problem:
    return _Problem(settings, Bernoulli(int(generator.integers(2**64, dtype=np.uint64))))


def _start(settings: Settings, classes: NDArray[Any], data: dict[str, Any]) -> State:
    generator = np.random.default_rng([settings.seed, 0])
    sizes = (data["inputs"], *settings.hidden, data["classes"])
    weights = tuple(
        (generator.standard_normal((above, below)) / math.sqrt(below)).astype(np.float32)
        for below, above in pairwise(sizes)
    )
    return State(weights, classes, engine.optimiser_of(weights), data)


@dataclass(frozen=True)
class _Problem:
    """What is trained in an epoch: the network of the settings, on the spikes of a generator."""

    settings: Settings
    sng: Bernoulli

    name: ClassVar[str] = "snn"

    @property
    def learning_rate(self) -> float:
        """That of Adam."""
        return self.settings.learning_rate

    def gradient(self, weights: Weights, x: NDArray[Any], targets: NDArray[np.int64], first: int) -> Any:
        """(loss, right, gradient) of a shard: sums over its samples."""
        settings = self.settings
        spikes = rate_code(x, settings.steps, self.sng, first)
        return _differentiate(weights, spikes, targets, settings.decay, settings.threshold, settings.slope)


@partial(jitted, static_argnums=5)
def _differentiate(
    weights: Weights, spikes: Any, targets: Any, decay: Any, threshold: Any, slope: float
) -> tuple[Any, Any, Weights]:
    def loss(weights: Weights) -> tuple[Any, Any]:
        logits, _ = simulate(weights, spikes, decay, threshold, slope)
        nats = require("optax", "jax").softmax_cross_entropy_with_integer_labels(logits, targets)
        return nats.sum(), (logits.argmax(axis=1) == targets).sum()

    (nats, right), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    return nats, right, gradient

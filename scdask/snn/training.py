"""Training with surrogate gradients, as a graph of tasks for each part of an epoch."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import replace
from functools import partial, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from dask import delayed

from .._extras import require
from ..computing import TRAINING, as_place
from ..errors import BitstreamError, ScdaskError
from ..generators import Bernoulli
from ..jax_backend.device import jax, jitted, needing_jax
from .network import State, rate_code, refuse_other_layers, simulate
from .prediction import accuracy, as_data, refuse_other_inputs, refuse_unknown_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client
    from numpy.typing import ArrayLike, NDArray

    from ..computing import Place
    from .network import Settings, Weights

    Progress = tuple[Weights, Any, float, int]  # weights, optimiser, summed loss and number right of the epoch
    Part = tuple[Progress | None, Any]  # the progress, which one shard carries on, and the sums of some shards

FAN_IN = 4  # sums that one task adds up, because each level of tasks that wait for others costs Dask about 6 ms
GRAPH_BATCHES = 20  # batches of one graph, which holds their data, and which may run again if a worker dies


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
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise BitstreamError(f"a network tells two classes or more apart, but all labels are {classes[0]}")
    if test is not None:
        test_inputs, test_labels = as_data(*test)
        refuse_other_inputs(test_inputs, inputs.shape[1])
        refuse_unknown_labels(test_labels, classes)
    data = _describe(inputs, classes, targets)
    if state is None:
        state = _start(settings, classes, data)
    refuse_other_layers(state, settings)
    refuse_changes("the training began with", state.data, data)
    if not np.array_equal(state.classes, classes):
        raise BitstreamError(f"the training began with the classes {state.classes}, not {classes}")
    if state.epoch and bool(state.test_accuracies) != (test is not None):
        began = "with" if state.test_accuracies else "without"
        raise BitstreamError(f"the training began {began} test data, {state.epoch} epochs ago, and goes on like that")
    place.run_everywhere(partial(_compile, state.weights, state.optimiser, len(inputs), settings))
    run = uuid4().hex  # Keys must differ from those of another training on the same scheduler.
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        order, sng = _shuffle(settings.seed, epoch, len(inputs))
        progress = (state.weights, state.optimiser, 0.0, 0)
        rows = settings.batch * GRAPH_BATCHES
        for first in range(0, len(inputs), rows):
            chosen = order[first : first + rows]
            name = f"{run}-{epoch}-{first}"
            part = _batches(name, progress, inputs[chosen], targets[chosen], first, sng, settings)
            with warnings.catch_warnings():  # The weights are in the graph, so that no worker can lose them.
                warnings.filterwarnings("ignore", "Sending large graph")
                progress = place.compute(part)
        weights, optimiser, loss, right = progress
        if not math.isfinite(loss) or not all(np.isfinite(a).all() for a in jax.tree.leaves((weights, optimiser))):
            raise ScdaskError(
                f"the training diverged in epoch {epoch}: a learning rate below {settings.learning_rate}?"
            )
        state = replace(
            state,
            weights=weights,
            optimiser=optimiser,
            losses=(*state.losses, loss / len(inputs)),
            train_accuracies=(*state.train_accuracies, right / len(inputs)),
        )
        if test is not None:
            reached = accuracy(state, *test, settings, place)
            state = replace(state, test_accuracies=(*state.test_accuracies, reached))
        place.log_event(TRAINING, _epoch(run, state, settings))
        yield state


def _epoch(run: str, state: State, settings: Settings) -> dict[str, Any]:
    """What the dashboard shows of an epoch."""
    return {
        "run": run,
        "epoch": state.epoch,
        "epochs": settings.epochs,
        "loss": state.losses[-1],
        "train_accuracy": state.train_accuracies[-1],
        "test_accuracy": state.test_accuracies[-1] if state.test_accuracies else None,
    }


def _describe(inputs: NDArray[np.float64], classes: NDArray[Any], targets: NDArray[np.int64]) -> dict[str, Any]:
    digest = hashlib.sha256(repr(classes.tolist()).encode())
    for array in (inputs, targets):
        digest.update(array.tobytes())
    samples, n_inputs = inputs.shape
    return {"samples": samples, "inputs": n_inputs, "classes": len(classes), "digest": digest.hexdigest()}


def refuse_changes(what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise a BitstreamError that begins with `what` if a value of `now` was another one before."""
    for name, value in now.items():
        if before.get(name) != value:
            raise BitstreamError(f"{what} {name} = {before.get(name)}, not {value}")


@needing_jax
def _start(settings: Settings, classes: NDArray[Any], data: dict[str, Any]) -> State:
    generator = np.random.default_rng([settings.seed, 0])
    sizes = (data["inputs"], *settings.hidden, data["classes"])
    weights = tuple(
        (generator.standard_normal((above, below)) / math.sqrt(below)).astype(np.float32)
        for below, above in pairwise(sizes)
    )
    optimiser = jax.tree.map(np.asarray, adam(settings.learning_rate).init(weights))
    return State(weights, classes, optimiser, data)


def adam(learning_rate: float) -> Any:
    """The optimiser."""
    return require("optax", "jax").adam(learning_rate)


def _shuffle(seed: int, epoch: int, samples: int) -> tuple[NDArray[np.int64], Bernoulli]:
    """The order of the samples in an epoch from 1 on, and the generator of their spikes."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(samples)
    return order, Bernoulli(int(generator.integers(2**64, dtype=np.uint64)))


def _batches(
    name: str,
    progress: Progress,
    x: NDArray[np.float64],
    targets: NDArray[np.int64],
    first: int,
    sng: Bernoulli,
    settings: Settings,
) -> Any:
    """The lazy progress after some batches; the first begins with sample `first` of the epoch."""
    gradient = delayed(partial(_updated_gradient, sng=sng, settings=settings), pure=False)
    add, update = delayed(_add, pure=False), delayed(partial(_update, settings.learning_rate), pure=False)
    rows, samples = _shard_rows(settings), 0
    parts = [delayed((progress, None), name=f"snn-weights-{name}", traverse=False)]
    for start in range(0, len(x), settings.batch):
        stop = min(start + settings.batch, len(x))
        parts = [
            gradient(
                samples, parts, x[i : min(i + rows, stop)], targets[i : min(i + rows, stop)], first + i, i == start,
                dask_key_name=f"snn-gradient-{name}-{i}",
            )
            for i in range(start, stop, rows)
        ]  # fmt: skip
        while len(parts) > FAN_IN:
            key = f"snn-sum-{name}-{start}-{len(parts)}"
            parts = [add(parts[i : i + FAN_IN], dask_key_name=f"{key}-{i}") for i in range(0, len(parts), FAN_IN)]
        samples = stop - start
    return update(samples, parts, dask_key_name=f"snn-update-{name}")


def _shard_rows(settings: Settings) -> int:
    return -(-settings.batch // settings.shards)


def _updated_gradient(
    samples: int,
    parts: Sequence[Part],
    x: NDArray[np.float64],
    targets: NDArray[np.int64],
    first: int,
    carries: bool,
    *,
    sng: Bernoulli,
    settings: Settings,
) -> Part:
    """The gradient of a shard after the update from the batch before, which every shard makes for itself.

    A task that made it for all would cost Dask more time than the arithmetic takes. One shard carries the progress on.
    """
    progress = _update(settings.learning_rate, samples, parts)
    return progress if carries else None, _gradient(progress[0], x, targets, first, sng, settings)


def _gradient(
    weights: Weights,
    x: NDArray[np.float64],
    targets: NDArray[np.int64],
    first: int,
    sng: Bernoulli,
    settings: Settings,
) -> Any:
    """(loss, right, gradient) of a shard: sums over its samples."""
    spikes = rate_code(x, settings.steps, sng, first)
    sums = _differentiate(weights, spikes, targets, settings.decay, settings.threshold, settings.slope)
    return jax.tree.map(np.asarray, sums)


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


def _add(parts: Sequence[Part]) -> Part:
    return parts[0][0], jax.tree.map(lambda *terms: reduce(np.add, terms), *(sums for _, sums in parts))


def _update(learning_rate: float, samples: int, parts: Sequence[Part]) -> Progress:
    progress, sums = _add(parts)
    assert progress is not None
    if sums is None:
        return progress
    weights, optimiser, loss, right = progress
    batch_loss, batch_right, gradient = sums
    updated = _adam(weights, optimiser, gradient, samples, learning_rate)
    weights, optimiser = jax.tree.map(np.asarray, updated)
    return weights, optimiser, loss + float(batch_loss), right + int(batch_right)


@partial(jitted, static_argnums=4)
def _adam(weights: Weights, optimiser: Any, gradient: Any, samples: Any, learning_rate: float) -> tuple[Weights, Any]:
    mean = jax.tree.map(lambda g: g / samples, gradient)
    updates, optimiser = adam(learning_rate).update(mean, optimiser)
    return require("optax", "jax").apply_updates(weights, updates), optimiser


def _compile(weights: Weights, optimiser: Any, samples: int, settings: Settings) -> None:
    """Compile what an epoch runs: the gradient for shards of all sizes, and the update."""
    rows = _shard_rows(settings)
    batches = {min(settings.batch, samples), samples % settings.batch}
    for size in {min(rows, batch - i) for batch in batches for i in range(0, batch, rows)}:
        x, targets = np.zeros((size, weights[0].shape[1])), np.zeros(size, np.int64)
        sums = _gradient(weights, x, targets, 0, Bernoulli(), settings)
        _update(settings.learning_rate, size, [((weights, optimiser, 0.0, 0), sums)])

"""Data-parallel training: a graph of tasks for each part of an epoch, and the same weights on any number of workers."""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import numpy as np
from dask import delayed

from .._extras import require
from ..computing import TRAINING
from ..errors import BitstreamError, ScdaskError
from ..jax_backend.device import jax, jitted, needing_jax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..computing import Place
    from .states import State, Weights

    Progress = tuple[Weights, Any, float, int]  # weights, optimiser, summed loss and number right of the epoch
    Part = tuple[Progress | None, Any]  # the progress, which one shard carries on, and the sums of some shards

FAN_IN = 4  # sums that one task adds up, because each level of tasks that wait for others costs Dask about 6 ms
GRAPH_BATCHES = 20  # batches of one graph, which holds their data, and which may run again if a worker dies


class Plan(Protocol):
    """The settings of a training that its graph needs."""

    @property
    def batch(self) -> int:
        """Samples between two updates."""

    @property
    def shards(self) -> int:
        """Tasks that share a batch."""

    @property
    def epochs(self) -> int:
        """Passes over the samples."""

    @property
    def seed(self) -> int:
        """The seed of the order of the samples."""

    @property
    def learning_rate(self) -> float:
        """That of Adam, in the first epoch."""


class Problem(Protocol):
    """What is trained in an epoch; it goes to the workers with each task."""

    @property
    def name(self) -> str:
        """What the keys of its tasks begin with."""

    @property
    def learning_rate(self) -> float:
        """That of Adam in this epoch."""

    def gradient(self, weights: Weights, x: NDArray[Any], targets: NDArray[np.int64], first: int) -> Any:
        """(loss, right, gradient) of a shard, which begins with sample `first` of the epoch: sums over its samples."""


def epochs(
    state: State,
    x: NDArray[Any],
    targets: NDArray[np.int64],
    settings: Plan,
    place: Place,
    problem_of: Callable[[State, np.random.Generator], Problem],
    accuracy: Callable[[State], float] | None,
) -> Iterator[Any]:
    """Train, and yield the state after each epoch.

    Parameters
    ----------
    state : State
        Where to go on.
    x : ndarray, shape (samples, ...)
    targets : ndarray of int64, shape (samples,)
        The numbers of the classes.
    settings : Plan
    place : Place
    problem_of : callable
        Gives the problem of an epoch, from the state before it and a generator of random numbers of that epoch.
    accuracy : callable, optional
        Gives the test accuracy of a state.
    """
    run = uuid4().hex  # Keys must differ from those of another training on the same scheduler.
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        generator = np.random.default_rng([settings.seed, epoch])
        order = generator.permutation(len(x))
        problem = problem_of(state, generator)
        if epoch == state.epoch + 1:
            few = np.zeros((min(len(x), settings.batch), *x.shape[1:]), x.dtype)
            place.run_everywhere(partial(_compile, problem, state.weights, state.optimiser, few, len(x), settings))
        progress: Progress = (state.weights, state.optimiser, 0.0, 0)
        rows = settings.batch * GRAPH_BATCHES
        for first in range(0, len(x), rows):
            chosen = order[first : first + rows]
            name = f"{run}-{epoch}-{first}"
            part = _batches(name, progress, x[chosen], targets[chosen], first, problem, settings)
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
            losses=(*state.losses, loss / len(x)),
            train_accuracies=(*state.train_accuracies, right / len(x)),
        )
        if accuracy is not None:
            state = replace(state, test_accuracies=(*state.test_accuracies, accuracy(state)))
        place.log_event(TRAINING, _epoch(run, state, settings))
        yield state


def _epoch(run: str, state: State, settings: Plan) -> dict[str, Any]:
    """What the dashboard shows of an epoch."""
    return {
        "run": run,
        "epoch": state.epoch,
        "epochs": settings.epochs,
        "loss": state.losses[-1],
        "train_accuracy": state.train_accuracies[-1],
        "test_accuracy": state.test_accuracies[-1] if state.test_accuracies else None,
    }


def digest_of(classes: NDArray[Any], *arrays: NDArray[Any]) -> str:
    """A digest of the data of a training."""
    digest = hashlib.sha256(repr(classes.tolist()).encode())
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def classes_of(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The classes, and the number of the class of each label."""
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise BitstreamError(f"a network tells two classes or more apart, but all labels are {classes[0]}")
    return classes, targets


def refuse_other_course(state: State, data: dict[str, Any], classes: NDArray[Any], tested: bool) -> None:
    """Raise a BitstreamError if a training cannot go on from a state: with other data or classes, or another test."""
    refuse_changes("the training began with", state.data, data)
    if not np.array_equal(state.classes, classes):
        raise BitstreamError(f"the training began with the classes {state.classes}, not {classes}")
    if state.epoch and bool(state.test_accuracies) != tested:
        began = "with" if state.test_accuracies else "without"
        raise BitstreamError(f"the training began {began} test data, {state.epoch} epochs ago, and goes on like that")


def refuse_changes(what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise a BitstreamError that begins with `what` if a value of `now` was another one before."""
    for name, value in now.items():
        if before.get(name) != value:
            raise BitstreamError(f"{what} {name} = {before.get(name)}, not {value}")


def adam(learning_rate: Any) -> Any:
    """The optimiser."""
    return require("optax", "jax").adam(learning_rate)


@needing_jax
def optimiser_of(weights: Weights) -> Any:
    """The state of the optimiser before the first update."""
    return jax.tree.map(np.asarray, adam(0.0).init(weights))


def _batches(
    name: str,
    progress: Progress,
    x: NDArray[Any],
    targets: NDArray[np.int64],
    first: int,
    problem: Problem,
    settings: Plan,
) -> Any:
    """The lazy progress after some batches; the first begins with sample `first` of the epoch."""
    gradient = delayed(partial(_updated_gradient, problem=problem), pure=False)
    add, update = delayed(_add, pure=False), delayed(partial(_update, problem.learning_rate), pure=False)
    rows, samples, kind = _shard_rows(settings), 0, problem.name
    parts = [delayed((progress, None), name=f"{kind}-weights-{name}", traverse=False)]
    for start in range(0, len(x), settings.batch):
        stop = min(start + settings.batch, len(x))
        parts = [
            gradient(
                samples, parts, x[i : min(i + rows, stop)], targets[i : min(i + rows, stop)], first + i, i == start,
                dask_key_name=f"{kind}-gradient-{name}-{i}",
            )
            for i in range(start, stop, rows)
        ]  # fmt: skip
        while len(parts) > FAN_IN:
            key = f"{kind}-sum-{name}-{start}-{len(parts)}"
            parts = [add(parts[i : i + FAN_IN], dask_key_name=f"{key}-{i}") for i in range(0, len(parts), FAN_IN)]
        samples = stop - start
    return update(samples, parts, dask_key_name=f"{kind}-update-{name}")


def _shard_rows(settings: Plan) -> int:
    return -(-settings.batch // settings.shards)


def _updated_gradient(
    samples: int,
    parts: Sequence[Part],
    x: NDArray[Any],
    targets: NDArray[np.int64],
    first: int,
    carries: bool,
    *,
    problem: Problem,
) -> Part:
    """The gradient of a shard after the update from the batch before, which every shard makes for itself.

    A task that made it for all would cost Dask more time than the arithmetic takes. One shard carries the progress on.
    """
    progress = _update(problem.learning_rate, samples, parts)
    sums = jax.tree.map(np.asarray, problem.gradient(progress[0], x, targets, first))
    return progress if carries else None, sums


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


@jitted
def _adam(weights: Weights, optimiser: Any, gradient: Any, samples: Any, learning_rate: Any) -> tuple[Weights, Any]:
    mean = jax.tree.map(lambda g: g / samples, gradient)
    updates, optimiser = adam(learning_rate).update(mean, optimiser)
    return require("optax", "jax").apply_updates(weights, updates), optimiser


def _compile(problem: Problem, weights: Weights, optimiser: Any, x: NDArray[Any], samples: int, settings: Plan) -> None:
    """Compile what an epoch runs: the gradient for shards of all sizes, and the update."""
    rows = _shard_rows(settings)
    batches = {min(settings.batch, samples), samples % settings.batch}
    for size in {min(rows, batch - i) for batch in batches for i in range(0, batch, rows)}:
        sums = jax.tree.map(np.asarray, problem.gradient(weights, x[:size], np.zeros(size, np.int64), 0))
        _update(problem.learning_rate, size, [((weights, optimiser, 0.0, 0), sums)])

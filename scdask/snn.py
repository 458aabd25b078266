"""Spiking networks of leaky integrate-and-fire (LIF) neurons, trained with surrogate gradients over any Dask scheduler.

A batch is cut into shards, a task each; a tree of tasks adds up the gradients of many. The shards are those of the
settings, whatever the number of workers, and every spike is a bit of a stream that has its own number. So the weights
are the same to the last bit on one worker and on many, and what is lost with a worker that dies is computed again
elsewhere with the same result. That is where processors, and the cores that each worker may use, are alike: XLA adds up
large products in an order that depends on them.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import asdict, dataclass, replace
from functools import partial, reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from dask import delayed

from . import _html, vector_ops
from ._dispatch import as_numpy
from ._extras import require
from ._files import read_npz, write_whole
from .computing import TRAINING, as_place
from .encoding import Bernoulli
from .errors import BitstreamError, ScdaskError
from .jax_backend import spike
from .layers import SCMLP, SCDense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from distributed import Client
    from numpy.typing import ArrayLike, NDArray

    from .computing import Place

    Weights = tuple[NDArray[np.float32], ...]
    Progress = tuple[Weights, Any, float, int]  # weights, optimiser, summed loss and number right of the epoch
    Part = tuple[Progress | None, Any]  # what one shard carries on, and the sums of some shards

jax, optax = require("jax", "jax"), require("optax", "jax")
jnp, lax = jax.numpy, jax.lax

FAN_IN = 4  # sums that one task adds up: a level of tasks that wait for each other costs Dask about 6 ms
GRAPH_BATCHES = 20  # sent to the scheduler at once: what a worker that dies can cost, and what the data add to a graph
ROWS = 256  # samples of one task of `predict`


@dataclass(frozen=True)
class Settings:
    """A network and how it is trained.

    Parameters
    ----------
    hidden : tuple of int
        Neurons of each hidden layer.
    steps : int
        Steps in time, and bits of an input's stream.
    decay : float
        The share of its potential that a neuron keeps from one step to the next, 0 to 1.
    threshold : float
        The potential at which a hidden neuron spikes, and by which it is lowered then; positive.
    slope : float
        Of the surrogate derivative of a spike (`jax_backend.spike`).
    learning_rate : float
        Of Adam.
    batch : int
        Samples between two updates of the weights.
    epochs : int
    shards : int
        Into how many tasks a batch is cut.
    seed : int
        Of the initial weights, the order of the samples and their spikes.

    Raises
    ------
    BitstreamError
        If a value is outside its range.
    """

    hidden: tuple[int, ...] = (100,)
    steps: int = 25
    decay: float = 0.9
    threshold: float = 1.0
    slope: float = 10.0
    learning_rate: float = 2e-3
    batch: int = 64
    epochs: int = 40
    shards: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.hidden, tuple | list) or not self.hidden:
            raise BitstreamError(f"hidden is a tuple of the neurons of at least one layer, not {self.hidden!r}")
        object.__setattr__(self, "hidden", tuple(_count("a number of neurons", n) for n in self.hidden))
        for name in ("steps", "batch", "epochs", "shards"):
            object.__setattr__(self, name, _count(name, getattr(self, name)))
        object.__setattr__(self, "seed", _count("a seed", self.seed, 0))
        for name in ("decay", "threshold", "slope", "learning_rate"):
            given, positive = getattr(self, name), name in ("threshold", "learning_rate")
            real = isinstance(given, float | int | np.floating | np.integer) and not isinstance(given, bool)
            value = _float(given) if real else math.nan
            if not 0 <= value < math.inf or (positive and value == 0) or (name == "decay" and value > 1):
                limits = "from 0 to 1" if name == "decay" else "finite and " + ("above 0" if positive else "at least 0")
                raise BitstreamError(f"{name} is {limits}, not {given!r}")
            object.__setattr__(self, name, value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # an int beyond all floats
        return math.inf


def _count(name: str, value: Any, low: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value < 2**63:
        raise BitstreamError(f"{name} is an integer of at least {low}, not {value!r}")
    return int(value)


@dataclass(frozen=True, eq=False)
class State:
    """A network in training, after some epochs.

    Parameters
    ----------
    weights : tuple of ndarray of float32, each (n_neurons, n_inputs)
        Hidden layers, then the outputs.
    classes : ndarray, shape (n_classes,)
        The labels of the outputs.
    optimiser : pytree of ndarray
        The state of Adam.
    data : dict
        What it is trained on: samples, inputs, classes, and a digest of all of them.
    losses, train_accuracies : tuple of float
        Means over each epoch as it went: cross-entropy in nats, and the share of the samples that were right.
    test_accuracies : tuple of float
        After each epoch, where there were test data.
    """

    weights: Weights
    classes: NDArray[Any]
    optimiser: Any
    data: dict[str, Any]
    losses: tuple[float, ...] = ()
    train_accuracies: tuple[float, ...] = ()
    test_accuracies: tuple[float, ...] = ()

    @property
    def epoch(self) -> int:
        """How many epochs are done."""
        return len(self.losses)

    def _repr_html_(self) -> str:
        sizes = [self.weights[0].shape[1], *map(len, self.weights)]
        facts = {
            "Network": "-".join(map(str, sizes)),
            "Weights": f"{sum(w.size for w in self.weights):,}, {_html.size(sum(w.nbytes for w in self.weights))}",
            "Classes": np.array2string(self.classes, threshold=20),
            "Epochs": self.epoch,
        }
        curves = {
            "Training loss": self.losses,
            "Training accuracy": self.train_accuracies,
            "Test accuracy": self.test_accuracies,
        }
        units = {"Training loss": " nats"}
        last = {name: f"{curve[-1]:.4f}{units.get(name, '')}" for name, curve in curves.items() if curve}
        return _html.facts("Spiking network", facts | last)


# The network


def forward(weights: Sequence[Any], spikes: Any, settings: Settings) -> tuple[Any, list[Any]]:
    """Run the network over time, from potentials of 0.

    In each step a hidden layer, from the first on, with W its weights and s_below the spikes of the layer below in the
    same step, does v = decay * v + W @ s_below; s = v >= threshold; v = v - threshold * s (soft reset). The outputs do
    the same without spikes or reset, and the logits are the means of their potentials over time.

    Parameters
    ----------
    weights : sequence of array of float32, each (n_neurons, n_inputs)
    spikes : array of float32, shape (steps, samples, n_inputs)
        0 and 1, such as `rate_code` gives.
    settings : Settings
        Of which decay, threshold and slope count here.

    Returns
    -------
    logits : array of float32, shape (samples, n_classes)
    hidden : list of array of float32, each (steps, samples, n_neurons)
        The spikes of each hidden layer, 0 and 1.
    """
    logits, hidden = _forward(tuple(weights), spikes, settings.decay, settings.threshold, settings.slope)
    return logits, hidden


@partial(jax.jit, static_argnums=4)
def _forward(weights: Weights, spikes: Any, decay: Any, threshold: Any, slope: float) -> tuple[Any, list[Any]]:
    *hidden, output = weights

    def fire(v: Any, current: Any) -> tuple[Any, Any]:
        v = decay * v + current
        s = spike(v - threshold, slope)
        return v - threshold * s, s

    def integrate(v: Any, current: Any) -> tuple[Any, Any]:
        v = decay * v + current
        return v, v

    below, trains = spikes, []
    for w in hidden:
        below = _over_time(fire, below @ w.T)
        trains.append(below)
    return _over_time(integrate, below @ output.T).mean(axis=0), trains


def _over_time(neurons: Callable[[Any, Any], tuple[Any, Any]], currents: Any) -> Any:
    return lax.scan(neurons, jnp.zeros_like(currents[0]), currents)[1]


def rate_code(x: NDArray[Any], steps: int, sng: Bernoulli, first: int = 0) -> NDArray[np.float32]:
    """Spikes of inputs: bit t of the stream that encodes an input is its spike in step t.

    Parameters
    ----------
    x : ndarray of float, shape (samples, n_inputs)
        In [0, 1]: the probability of a spike in a step.
    steps : int
    sng : Bernoulli
    first : int
        The place of the first sample in the array that it is a part of: streams are numbered there, so that the
        spikes do not depend on how the array is split.

    Returns
    -------
    ndarray of float32, shape (steps, samples, n_inputs)
    """
    samples, n_inputs = x.shape
    region, shape = (slice(first, first + samples), slice(0, n_inputs)), (first + samples, n_inputs)
    words = vector_ops.encode_region(x, sng, steps, "unipolar", region, shape, (0, vector_ops.words_for(steps)))
    bits: NDArray[np.uint8] = vector_ops.unpack_bitstream(words, steps)
    return np.moveaxis(bits, -1, 0).astype(np.float32)


# Training


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
    inputs, labels = _as_data(x, y)
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise BitstreamError(f"a network tells two classes or more apart, but all labels are {classes[0]}")
    if test is not None:
        _check_known(_as_data(*test)[1], classes)
    data = _describe(inputs, classes, targets)
    if state is None:
        state = _start(settings, classes, data)
    _check_layers(state, settings)
    _check_same("the training began with", state.data, data)
    if not np.array_equal(state.classes, classes):
        raise BitstreamError(f"the training began with the classes {state.classes}, not {classes}")
    if state.epoch and bool(state.test_accuracies) != (test is not None):
        began = "with" if state.test_accuracies else "without"
        raise BitstreamError(f"the training began {began} test data, {state.epoch} epochs ago, and goes on like that")
    place.run_everywhere(partial(_compile, state.weights, state.optimiser, len(inputs), settings))
    run = uuid4().hex  # keys are not to meet those of another training on the same scheduler
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        order, sng = _shuffle(settings.seed, epoch, len(inputs))
        progress = (state.weights, state.optimiser, 0.0, 0)
        rows = settings.batch * GRAPH_BATCHES
        for first in range(0, len(inputs), rows):
            places = order[first : first + rows]
            name = f"{run}-{epoch}-{first}"
            part = _batches(name, progress, inputs[places], targets[places], first, sng, settings)
            with warnings.catch_warnings():  # the weights are in the graph, so that no worker can lose them
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


def _as_data(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """A copy of the inputs and the labels, once they are known to fit."""
    inputs, labels = (
        vector_ops.probabilities(vector_ops.on_host(x), "unipolar"),
        as_numpy(vector_ops.on_host(y), "labels"),
    )
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    if inputs.ndim != 2 or labels.shape != inputs.shape[:1] or not inputs.size:
        raise BitstreamError(
            f"a network takes x (samples, n_inputs) and y (samples,), not {inputs.shape} and {labels.shape}"
        )
    if labels.dtype.kind not in "biufUS" or (labels.dtype.kind == "f" and not np.isfinite(labels).all()):
        raise BitstreamError(
            f"labels are finite numbers or strings, not {labels.dtype}" + " with NaN" * (labels.dtype.kind == "f")
        )
    return np.array(inputs), labels


def _check_known(labels: NDArray[Any], classes: NDArray[Any]) -> None:
    alike = labels.dtype.kind == classes.dtype.kind or {labels.dtype.kind, classes.dtype.kind} <= set("biuf")
    unknown = labels[~np.isin(labels, classes)] if alike else labels
    if unknown.size:
        known = ", ".join(map(str, classes))
        raise BitstreamError(f"the data have the label {unknown[0]}, but the classes of the network are {known}")


def _describe(inputs: NDArray[np.float64], classes: NDArray[Any], targets: NDArray[np.int64]) -> dict[str, Any]:
    digest = hashlib.sha256(repr(classes.tolist()).encode())
    for array in (inputs, targets):
        digest.update(array.tobytes())
    samples, n_inputs = inputs.shape
    return {"samples": samples, "inputs": n_inputs, "classes": len(classes), "digest": digest.hexdigest()}


def _check_same(what: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise BitstreamError(f"{what} {name} = {before.get(name)}, not {value}")


def _start(settings: Settings, classes: NDArray[Any], data: dict[str, Any]) -> State:
    generator = np.random.default_rng([settings.seed, 0])
    sizes = (data["inputs"], *settings.hidden, data["classes"])
    weights = tuple(
        (generator.standard_normal((above, below)) / math.sqrt(below)).astype(np.float32)
        for below, above in pairwise(sizes)
    )
    optimiser = jax.tree.map(np.asarray, optax.adam(settings.learning_rate).init(weights))
    return State(weights, classes, optimiser, data)


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
    """The lazy progress after some batches; the first begins at place `first` of the epoch."""
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


@partial(jax.jit, static_argnums=5)
def _differentiate(
    weights: Weights, spikes: Any, targets: Any, decay: Any, threshold: Any, slope: float
) -> tuple[Any, Any, Weights]:
    def loss(weights: Weights) -> tuple[Any, Any]:
        logits, _ = _forward(weights, spikes, decay, threshold, slope)
        nats = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
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


@partial(jax.jit, static_argnums=4)
def _adam(weights: Weights, optimiser: Any, gradient: Any, samples: Any, learning_rate: float) -> tuple[Weights, Any]:
    mean = jax.tree.map(lambda g: g / samples, gradient)
    updates, optimiser = optax.adam(learning_rate).update(mean, optimiser)
    return optax.apply_updates(weights, updates), optimiser


def _compile(weights: Weights, optimiser: Any, samples: int, settings: Settings) -> None:
    """Compile what an epoch runs: the gradient for shards of all sizes, and the update."""
    rows = _shard_rows(settings)
    batches = {min(settings.batch, samples), samples % settings.batch}
    for size in {min(rows, batch - i) for batch in batches for i in range(0, batch, rows)}:
        x, targets = np.zeros((size, weights[0].shape[1])), np.zeros(size, np.int64)
        sums = _gradient(weights, x, targets, 0, Bernoulli(), settings)
        _update(settings.learning_rate, size, [((weights, optimiser, 0.0, 0), sums)])


# Prediction


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
        Of the spikes of the inputs.

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
    _check_layers(state, settings)
    inputs, n_inputs = vector_ops.probabilities(vector_ops.on_host(x), "unipolar"), state.weights[0].shape[1]
    if inputs.ndim != 2 or inputs.shape[1] != n_inputs:
        raise BitstreamError(f"the network takes x (samples, {n_inputs}), not {inputs.shape}")
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


def _check_layers(state: State, settings: Settings) -> None:
    hidden = tuple(len(w) for w in state.weights[:-1])
    if hidden != settings.hidden:
        raise BitstreamError(f"the settings are for hidden layers of {settings.hidden} neurons, but there are {hidden}")


def _outputs(
    weights: Weights, x: NDArray[np.float64], first: int, sng: Bernoulli, settings: Settings
) -> NDArray[np.int64]:
    logits, _ = forward(weights, rate_code(x, settings.steps, sng, first), settings)
    outputs: NDArray[np.int64] = np.asarray(logits).argmax(axis=1)
    return outputs


def accuracy(state: State, x: ArrayLike, y: ArrayLike, settings: Settings, place: Place | Client) -> float:
    """The share of inputs (samples, n_inputs) that `predict` gives the labels (samples,)."""
    inputs, labels = _as_data(x, y)
    _check_known(labels, state.classes)
    return float(np.mean(predict(state, inputs, settings, place) == labels))


# Perceptrons, and files


def to_scmlp(state: State, settings: Settings) -> SCMLP:
    """The perceptron for stochastic computing whose activations are the rates of the neurons.

    A neuron with soft reset that starts at 0 and gets the mean current I over T steps has, exactly, the rate

        r = (I - (1 - decay) * mean(v) - decay * v_T / T) / threshold

    spikes a step: sum v_t = decay * v_(t-1) + I_t - threshold * s_t over t. After a reset the potential lies anywhere
    between 0 and the threshold. With half of it for mean(v) and v_T, r is I / threshold - (1 - decay + decay / T) / 2,
    cut to [0, 1]: the ReLU of a hidden layer with a bias that all its neurons share, which saturates at the scale 1 of
    the next layer's inputs. The outputs need no bias. On scikit-learn's digits with the default settings the rates are
    off by .048 (root mean square over training images, against 25 steps of Bernoulli spikes), and 99.9 % of the
    training images get the class that the spiking network gives them; other data may do worse, and more steps better.

    Parameters
    ----------
    state : State
    settings : Settings

    Returns
    -------
    SCMLP
    """
    _check_layers(state, settings)
    *hidden, output = state.weights
    bias = -(1 - settings.decay + settings.decay / settings.steps) / 2
    layers = [SCDense(w / settings.threshold, np.full(len(w), bias)) for w in hidden]
    return SCMLP((*layers, SCDense(output, np.zeros(len(output)))), state.classes)


HISTORY = ("losses", "train_accuracies", "test_accuracies")


def save_checkpoint(path: Path, state: State, settings: Settings) -> None:
    """Write a state to an npz file that `load_checkpoint` reads, whole or not at all."""
    arrays = {"classes": state.classes} | {name: np.array(getattr(state, name)) for name in HISTORY}
    arrays |= {f"weights_{i}": w for i, w in enumerate(state.weights)}
    arrays |= {f"optimiser_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.optimiser))}
    arrays["made_with"] = np.array(json.dumps({"settings": asdict(settings), "data": state.data}))
    write_whole(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def load_checkpoint(path: Path, settings: Settings) -> State:
    """Read a state to go on from; `train` checks that the data are the same.

    Parameters
    ----------
    path : Path
    settings : Settings
        Those of the checkpoint; there may be more epochs.

    Raises
    ------
    BitstreamError
        If there is no such file, it is no checkpoint, was made with other settings, or has more epochs already.
    """
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise BitstreamError(f"there is no checkpoint {path} to resume from") from None
    if "made_with" not in arrays:
        raise BitstreamError(f"{path} is no checkpoint, but has the arrays {', '.join(arrays)}")
    try:
        made_with = json.loads(str(arrays["made_with"]))
        before = made_with["settings"] | {"hidden": tuple(made_with["settings"]["hidden"]), "epochs": settings.epochs}
        state = _state_of(arrays, made_with["data"], settings.learning_rate)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise BitstreamError(f"{path} is no whole checkpoint: {error}") from error
    _check_same(f"the checkpoint {path} was made with", before, asdict(settings))
    _check_layers(state, settings)
    if state.epoch > settings.epochs:
        raise BitstreamError(f"the checkpoint {path} has {state.epoch} epochs already, not {settings.epochs}")
    return state


def _state_of(arrays: dict[str, NDArray[Any]], data: dict[str, Any], learning_rate: float) -> State:
    """The state in the arrays of a checkpoint; a ValueError or KeyError says what does not fit."""
    count = sum(name.startswith("weights_") for name in arrays)
    weights = tuple(arrays[f"weights_{i}"] for i in range(count))
    sizes = (data["inputs"], *map(len, weights[:-1]), data["classes"])
    template = tuple(jax.ShapeDtypeStruct(shape, np.float32) for shape in zip(sizes[1:], sizes, strict=False))
    leaves, structure = jax.tree.flatten(jax.eval_shape(optax.adam(learning_rate).init, template))
    found = [arrays[f"optimiser_{i}"] for i in range(len(leaves))]
    losses, train_accuracies, test_accuracies = (arrays[name] for name in HISTORY)
    epochs = losses.shape
    for array, kind, shapes in [
        *((w, np.float32, [t.shape]) for w, t in zip(weights, template, strict=True)),
        *((leaf, t.dtype, [t.shape]) for leaf, t in zip(found, leaves, strict=True)),
        *((history, np.float64, [(losses.size,)]) for history in (losses, train_accuracies)),
        (test_accuracies, np.float64, [epochs, (0,)]),
        (arrays["classes"], arrays["classes"].dtype, [(data["classes"],)]),
    ]:
        if (
            array.dtype != kind
            or array.shape not in shapes
            or (array.dtype.kind == "f" and not np.isfinite(array).all())
        ):
            raise ValueError(f"an array is {array.dtype} {array.shape}, or not finite")
    optimiser = jax.tree.unflatten(structure, found)
    history = (tuple(array.tolist()) for array in (losses, train_accuracies, test_accuracies))
    return State(weights, arrays["classes"], optimiser, data, *history)

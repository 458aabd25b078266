"""Training of networks of streams, in floating point and with streams in the loop."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import dask.array as da
import numpy as np

from .._extras import require
from ..computing import as_place
from ..core.checks import as_host, as_real, check_choice
from ..errors import BitstreamError
from ..jax_backend.device import jax, jitted, needing_jax
from ..layers.products import ProductLayer
from . import engine
from .checkpoints import read_checkpoint
from .forward import logits, outputs_of_streams, plan_of, straight_through, weights_of
from .states import State, as_labels, integer, number, refuse_other_kinds, refuse_unknown_labels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from distributed import Client
    from numpy.typing import ArrayLike, NDArray

    from ..computing import Place
    from ..layers import SCSequential
    from .states import Weights

Noise = Literal["streams", "model"]

ROWS = 250  # samples that one task classifies
MEASURED = 64  # samples that the errors of streams are measured on, for the noise model


@dataclass(frozen=True)
class Settings:
    """How a network is trained.

    Parameters
    ----------
    length : int or tuple of int, optional
        Bits of the streams in the loop, of all layers or of each that encodes. None trains in floating point.
    noise : {"streams", "model"}
        What the loop sees of streams. "streams": the outputs of real ones, as in inference. "model": those in floating
        point with normal noise, whose mean and variance for each neuron are those of the errors of streams at the
        beginning of the epoch.
    learning_rate : float
        The learning rate of Adam in the first epoch.
    decay : float
        By what it is multiplied after each epoch, 0 to 1.
    shift : int
        By how many pixels images are moved at most, each way, at random and anew in each epoch.
    batch : int
        Samples between two updates of the weights.
    epochs : int
    shards : int
        The number of tasks that a batch is cut into.
    seed : int
        The seed of the order of the samples, of their shifts, and of noise.

    Raises
    ------
    BitstreamError
        If a value is outside its range.
    """

    length: int | tuple[int, ...] | None = None
    noise: Noise = "streams"
    learning_rate: float = 2e-3
    decay: float = 0.8
    shift: int = 0
    batch: int = 64
    epochs: int = 10
    shards: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "epochs", "shards"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        for name in ("seed", "shift"):
            object.__setattr__(self, name, integer(name, getattr(self, name), 0))
        object.__setattr__(self, "learning_rate", number("learning_rate", self.learning_rate, positive=True))
        object.__setattr__(self, "decay", number("decay", self.decay, most=1))
        check_choice("the noise of a training", self.noise, get_args(Noise))
        if isinstance(self.length, tuple | list):
            object.__setattr__(self, "length", tuple(integer("a length", n) for n in self.length))
        elif self.length is not None:
            object.__setattr__(self, "length", integer("length", self.length))


def train(
    network: SCSequential,
    x: ArrayLike,
    y: ArrayLike,
    settings: Settings,
    place: Place | Client,
    *,
    test: tuple[ArrayLike, ArrayLike] | None = None,
    state: State | None = None,
) -> Iterator[State]:
    """Train a network further, from the weights that it has, and yield after each epoch.

    Scales of inputs, modes and generators stay. In floating point no activation is cut to its scale.

    Parameters
    ----------
    network : SCSequential
        Of the layers of `scdask.layers`, with a class for each output, or two for one output. A last `Softmax` is that
        of the loss.
    x : array_like, shape (samples, *input_shape)
        In the range that the first layer takes.
    y : array_like, shape (samples,)
        Labels, of the classes of the network.
    settings : Settings
    place : Place or dask Client
        Where to compute: from `scdask.cluster.open_scheduler`, or a Client.
    test : (x, y), optional
        Data to be classified after each epoch: in floating point, or with streams if they are in the loop.
    state : State, optional
        Where to go on, of a training that began with the same network. The weights are the same as those of a training
        that was never interrupted.

    Yields
    ------
    State

    Raises
    ------
    BitstreamError
        If the shapes do not fit, an input is not finite or outside the range of its streams, a layer cannot be trained,
        or the state is from other data or another network.
    ScdaskError
        If the training diverged.
    """
    place = as_place(place)
    plan = plan_of(network)
    inputs, targets = _as_data(network, x, y)
    if settings.shift and len(network.input_shape) != 3:
        raise BitstreamError(f"only images (channels, height, width) are shifted, not samples {network.input_shape}")
    lengths = None if settings.length is None else tuple(n for n in network.lengths(settings.length) if n)
    data = _describe(network, inputs, targets)
    if state is None:
        weights = weights_of(network)
        state = State(weights, network.classes, engine.optimiser_of(weights), data)
    tested = None if test is None else partial(_reached, network, *_as_data(network, *test), settings.length, place)
    engine.refuse_other_course(state, data, network.classes, test is not None)

    def problem_of(state: State, generator: np.random.Generator) -> _Problem:
        seed = int(generator.integers(2**63))
        rate = settings.learning_rate * settings.decay**state.epoch
        problem = _Problem(plan, lengths, settings.shift, rate, seed, state.epoch * len(inputs))
        return problem.with_noise(state.weights, inputs) if settings.noise == "model" and lengths else problem

    yield from engine.epochs(state, inputs, targets, settings, place, problem_of, tested)


@needing_jax
def load_checkpoint(path: Path, settings: Settings, network: SCSequential) -> State:
    """Read a state to go on from; `train` checks that data and network are the same.

    Parameters
    ----------
    path : Path
    settings : Settings
        Those of the checkpoint; there may be more epochs.
    network : SCSequential
        The network that the training began with.

    Raises
    ------
    BitstreamError
        If there is no such file, it is no checkpoint, was made with other settings or of other layers, or has more
        epochs already.
    """
    shapes = [array.shape for array in weights_of(network)]
    state: State = read_checkpoint(path, settings, State, lambda weights, data: shapes)
    return state


def _as_data(network: SCSequential, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A copy of the inputs, and the number of the class of each, once they are known to fit."""
    given, labels = as_real(as_host(x, "x"), "x"), as_labels(y)
    if given.shape[1:] != network.input_shape or labels.shape != given.shape[:1] or not given.size:
        sizes = ", ".join(map(str, ("samples", *network.input_shape)))
        raise BitstreamError(f"the network takes x ({sizes}) and y (samples,), not {given.shape} and {labels.shape}")
    if not np.isfinite(given).all():
        raise BitstreamError(f"a network is trained with finite inputs, but there is {given[~np.isfinite(given)][0]}")
    refuse_other_kinds(labels)
    refuse_unknown_labels(labels, network.classes)
    order = np.argsort(network.classes)
    return np.array(given, np.float64), order[np.searchsorted(network.classes, labels, sorter=order)]


def _describe(network: SCSequential, x: NDArray[Any], targets: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "samples": len(x),
        "inputs": list(x.shape[1:]),
        "classes": len(network.classes),
        "digest": engine.digest_of(network.classes, x, targets),
        "network": repr(network),
        "scales": [layer.input_scale for layer in network.encoding_layers],
    }


def trained(network: SCSequential, state: State) -> SCSequential:
    """The network with the weights of a state of its training."""
    left = iter(state.weights)
    layers = [
        replace(layer, weights=next(left), bias=next(left)) if isinstance(layer, ProductLayer) else layer
        for layer in network.layers
    ]
    return replace(network, layers=tuple(layers))


def clipped(network: SCSequential, percentile: float = 99.5) -> SCSequential:
    """The network whose largest weights are cut, because the largest one of a layer is the scale of all.

    Parameters
    ----------
    network : SCSequential
    percentile : float
        Of the sizes of a layer's weights, above 0 and at most 100: what is larger becomes this one.
    """
    if not isinstance(percentile, int | float) or not 0 < percentile <= 100:
        raise BitstreamError(f"a percentile is above 0 and at most 100, not {percentile!r}")
    layers: list[Any] = []
    for layer in network.layers:
        if isinstance(layer, ProductLayer) and layer.weights.size:
            most = np.percentile(abs(layer.weights), percentile)
            layer = replace(layer, weights=layer.weights.clip(-most, most))
        layers.append(layer)
    return replace(network, layers=tuple(layers))


def _reached(
    network: SCSequential, x: NDArray[Any], targets: NDArray[Any], length: Any, place: Place, state: State
) -> float:
    """The accuracy with the weights of a state: in floating point, or with streams."""
    now, images = trained(network, state), da.from_array(x, chunks=(ROWS, *x.shape[1:]))
    labels = now.predict_float(images) if length is None else now.predict(images, length)
    return float(np.mean(place.compute(labels) == network.classes[targets]))


@dataclass(frozen=True)
class _Problem:
    """What is trained in an epoch."""

    plan: tuple[Any, ...]
    lengths: tuple[int, ...] | None
    shift: int
    learning_rate: float
    seed: int
    start: int
    noise: tuple[tuple[NDArray[np.float32], ...], ...] = ()

    name = "sc"

    def gradient(self, weights: Weights, x: NDArray[Any], targets: NDArray[np.int64], first: int) -> Any:
        """(loss, right, gradient) of a shard: sums over its samples."""
        generator = np.random.default_rng([self.seed, first])
        if self.shift:
            x = _shifted(x, self.shift, generator)
        streamed: tuple[Any, ...] = ()
        if self.lengths is not None and not self.noise:
            found = outputs_of_streams(self.plan, weights, x, self.lengths, self.start + first)
            streamed = tuple(outputs.astype(np.float32) for _, _, outputs in found)
        seed = int(generator.integers(2**31))
        return _differentiate(self.plan, weights, x.astype(np.float32), targets, streamed, self.noise, seed)

    def with_noise(self, weights: Weights, x: NDArray[Any]) -> _Problem:
        """The problem with the mean and the standard deviation of the errors of streams, for each neuron."""
        assert self.lengths is not None
        noise = []
        for layer, taken, outputs in outputs_of_streams(self.plan, weights, x[:MEASURED], self.lengths, self.start):
            errors = outputs - layer.exact(np.asarray(taken))
            others = (0, *range(2, errors.ndim))
            moments = errors.mean(axis=others, keepdims=True), errors.std(axis=others, keepdims=True)
            noise.append(tuple(moment[0].astype(np.float32) for moment in moments))
        return replace(self, noise=tuple(noise))


def _shifted(x: NDArray[Any], most: int, generator: np.random.Generator) -> NDArray[Any]:
    """Images (batch, channels, height, width), moved by up to `most` pixels each way, and 0 where they left."""
    height, width = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (most, most), (most, most)))
    rows, columns = generator.integers(2 * most + 1, size=(2, len(x), 1, 1, 1))
    images, channels = np.arange(len(x)).reshape(-1, 1, 1, 1), np.arange(x.shape[1]).reshape(1, -1, 1, 1)
    moved: NDArray[Any] = padded[images, channels, rows + np.arange(height).reshape(-1, 1), columns + np.arange(width)]
    return moved


@partial(jitted, static_argnums=0)
def _differentiate(
    plan: tuple[Any, ...], weights: Weights, x: Any, targets: Any, streamed: Any, noise: Any, seed: Any
) -> tuple[Any, Any, Weights]:
    def with_noise(i: int, outputs: Any) -> Any:
        mean, deviation = noise[i]
        key = jax.random.fold_in(jax.random.key(seed), i)
        return outputs + mean + deviation * jax.random.normal(key, outputs.shape)

    def with_streams(i: int, outputs: Any) -> Any:
        return straight_through(outputs, streamed[i])

    def loss(weights: Weights) -> tuple[Any, Any]:
        outputs = logits(plan, weights, x, with_noise if noise else with_streams if streamed else None)
        nats = require("optax", "jax").softmax_cross_entropy_with_integer_labels(outputs, targets)
        return nats.sum(), (outputs.argmax(axis=1) == targets).sum()

    (nats, right), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    return nats, right, gradient

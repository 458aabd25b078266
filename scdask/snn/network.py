"""The network: its settings, its state, what it does with spikes, and the perceptron that it stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..core import contract
from ..core.words import Part, words_for
from ..errors import BitstreamError
from ..jax_backend import spike
from ..jax_backend.device import jitted, jnp, lax, varying_as
from ..layers import SCMLP, SCDense
from ..training import states
from ..training.states import integer, number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ..generators import Bernoulli
    from ..training.states import Weights


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
        The slope of the surrogate derivative of a spike (`jax_backend.spike`).
    learning_rate : float
        The learning rate of Adam.
    batch : int
        Samples between two updates of the weights.
    epochs : int
    shards : int
        The number of tasks that a batch is cut into.
    seed : int
        The seed of the initial weights, of the order of the samples, and of their spikes.

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
        object.__setattr__(self, "hidden", tuple(integer("a number of neurons", n) for n in self.hidden))
        for name in ("steps", "batch", "epochs", "shards"):
            object.__setattr__(self, name, integer(name, getattr(self, name)))
        object.__setattr__(self, "seed", integer("a seed", self.seed, 0))
        for name in ("decay", "threshold", "slope", "learning_rate"):
            positive, most = name in ("threshold", "learning_rate"), 1 if name == "decay" else math.inf
            object.__setattr__(self, name, number(name, getattr(self, name), positive=positive, most=most))


@dataclass(frozen=True, eq=False)
class State(states.State):
    """A network in training, after some epochs.

    Parameters
    ----------
    weights : tuple of ndarray of float32, each (n_neurons, n_inputs)
        Hidden layers, then the outputs.
    classes, optimiser, data, losses, train_accuracies, test_accuracies
        As those of every training, see `scdask.training.State`.
    """

    TITLE: ClassVar[str] = "Spiking network"

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        return {"Network": "-".join(map(str, [self.weights[0].shape[1], *map(len, self.weights)]))} | super().facts()


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
        Only decay, threshold and slope count here.

    Returns
    -------
    logits : array of float32, shape (samples, n_classes)
    hidden : list of array of float32, each (steps, samples, n_neurons)
        The spikes of each hidden layer, 0 and 1.
    """
    logits, hidden = simulate(tuple(weights), spikes, settings.decay, settings.threshold, settings.slope)
    return logits, hidden


@partial(jitted, static_argnums=4)
def simulate(weights: Weights, spikes: Any, decay: Any, threshold: Any, slope: float) -> tuple[Any, list[Any]]:
    """What `forward` does, compiled: a slope is a constant of the program, decay and threshold are its arguments."""
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
        below = _over_time(fire, below @ w.T, decay, threshold)
        trains.append(below)
    return _over_time(integrate, below @ output.T, decay).mean(axis=0), trains


def _over_time(neurons: Callable[[Any, Any], tuple[Any, Any]], currents: Any, *constants: Any) -> Any:
    return lax.scan(neurons, varying_as(jnp.zeros_like(currents[0]), currents, *constants), currents)[1]


def rate_code(x: NDArray[Any], steps: int, sng: Bernoulli, first: int = 0) -> NDArray[np.float32]:
    """Spikes of inputs: bit t of the stream that encodes an input is its spike in step t.

    Parameters
    ----------
    x : ndarray of float, shape (samples, n_inputs)
        In [0, 1]: the probability of a spike in a step.
    steps : int
    sng : Bernoulli
    first : int
        The number of the first sample in the array that it is a part of: streams are numbered there, so that the
        spikes do not depend on how the array is split.

    Returns
    -------
    ndarray of float32, shape (steps, samples, n_inputs)
    """
    samples, n_inputs = x.shape
    region, shape = (slice(first, first + samples), slice(0, n_inputs)), (first + samples, n_inputs)
    words = contract.encode_part(x, sng, steps, "unipolar", Part(region, shape, 0, words_for(steps)))
    bits: NDArray[np.uint8] = contract.unpack(words, steps)
    return np.moveaxis(bits, -1, 0).astype(np.float32)


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
    refuse_other_layers(state, settings)
    *hidden, output = state.weights
    bias = -(1 - settings.decay + settings.decay / settings.steps) / 2
    layers = [SCDense(w / settings.threshold, np.full(len(w), bias)) for w in hidden]
    return SCMLP((*layers, SCDense(output, np.zeros(len(output)))), state.classes)


def refuse_other_layers(state: State, settings: Settings) -> None:
    """Raise a BitstreamError if the settings are for another network than that of the state."""
    hidden = tuple(len(w) for w in state.weights[:-1])
    if hidden != settings.hidden:
        raise BitstreamError(f"the settings are for hidden layers of {settings.hidden} neurons, but there are {hidden}")

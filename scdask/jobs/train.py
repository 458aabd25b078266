"""Training of a spiking network and of networks of streams on digits, and what is written at the end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import snn, training
from .._extras import require
from ..generators import Bernoulli
from ..plotting import plot_loss, plot_training_accuracy, training_figure
from .mnist import ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..computing import Place
    from ..layers import SCSequential
    from .digits import Digits


CHECKPOINT, TUNED = "checkpoint.npz", "fine-tuned.npz"
CURVES = ("losses", "train_accuracies", "test_accuracies")


class Course(ABC):
    """A training, and what is written of it."""

    files: ClassVar[tuple[str, ...]]
    checkpoints: ClassVar[tuple[str, ...]]
    epochs: int
    digits: Digits

    @property
    @abstractmethod
    def done(self) -> int:
        """Epochs that are done."""

    @abstractmethod
    def resume(self, folder: Path) -> None:
        """Go on from the checkpoints in a folder."""

    @abstractmethod
    def run(self, place: Place) -> Iterator[tuple[training.State, Any, str]]:
        """Train, and yield after each epoch the state, its settings, and the name of its checkpoint."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """What results.json says of a training: accuracies, losses and settings."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the network to a file that `scdask infer --model` takes."""

    @abstractmethod
    def figure(self) -> Any:
        """The curves of the training."""


class Spiking(Course):
    """The training of a spiking network on the digits."""

    files = ("results.json", "training.png", "weights.npz", CHECKPOINT)
    checkpoints = (CHECKPOINT,)

    def __init__(self, settings: snn.Settings, digits: Digits) -> None:
        self.settings = settings
        self.digits = digits
        self.epochs = settings.epochs
        self.state: Any = None

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return self.state.epoch if self.state else 0

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoint in a folder."""
        self.state = snn.load_checkpoint(folder / CHECKPOINT, self.settings)

    def run(self, place: Place) -> Iterator[tuple[training.State, snn.Settings, str]]:
        """Train, and test after each epoch."""
        x, y, test = self.digits.x_train, self.digits.y_train, (self.digits.x_test, self.digits.y_test)
        for state in snn.train(x, y, self.settings, place, test=test, state=self.state):
            self.state = state
            yield state, self.settings, CHECKPOINT

    def report(self) -> dict[str, Any]:
        """What results.json says of the training."""
        return {"test_accuracy": self.state.test_accuracies[-1], **_curves(self.state, self.settings)}

    def save(self, folder: Path) -> None:
        """Write the perceptron for stochastic computing."""
        snn.to_scmlp(self.state, self.settings).save(folder / "weights.npz")

    def figure(self) -> Any:
        """The curves of the training, and the spikes that the first test image causes."""
        state = self.state
        spikes = snn.rate_code(self.digits.x_test[:1], self.settings.steps, Bernoulli())
        _, hidden = snn.forward(state.weights, spikes, self.settings)
        trains = [np.asarray(layer)[:, 0] for layer in (spikes, *hidden)]
        sizes = (state.weights[0].shape[1], *map(len, state.weights))
        title = f"Spiking network, digits, {'-'.join(map(str, sizes))}"
        return training_figure(state, trains, title, f"test image 0, a {self.digits.y_test[0]}")


def _curves(state: training.State, settings: Any) -> dict[str, Any]:
    return {name: getattr(state, name) for name in CURVES} | {"settings": asdict(settings)}


@dataclass(frozen=True)
class Stage:
    """A part of a training: in floating point, or with streams in the loop."""

    checkpoint: str
    settings: training.Settings


class Streams(Course):
    """The training of a network of streams, stage by stage.

    Parameters
    ----------
    network : SCSequential
        Before the first stage.
    stages : sequence of Stage
    digits : Digits

    Raises
    ------
    BitstreamError
        If the lengths of a stage do not go with the layers.
    """

    checkpoints = (CHECKPOINT, TUNED)
    files = ("results.json", "training.png", "model.onnx", *checkpoints)

    def __init__(self, network: SCSequential, stages: Sequence[Stage], digits: Digits) -> None:
        for stage in stages:
            if stage.settings.length is not None:
                network.lengths(stage.settings.length)
        self.network = network
        self.stages = stages
        self.digits = digits
        self.epochs = sum(stage.settings.epochs for stage in stages)
        self.states: dict[str, training.State] = {}

    @property
    def done(self) -> int:
        """Epochs that are done."""
        return sum(state.epoch for state in self.states.values())

    def resume(self, folder: Path) -> None:
        """Go on from the checkpoints in a folder; one of a stage counts if all epochs before it are done."""
        network = self.network
        for stage in self.stages:
            path = folder / stage.checkpoint
            if self.states and not path.exists():
                break
            self.states[stage.checkpoint] = state = training.load_checkpoint(path, stage.settings, network)
            if state.epoch < stage.settings.epochs:
                break
            network = self._after(stage, network, state)

    def run(self, place: Place) -> Iterator[tuple[training.State, training.Settings, str]]:
        """Train, test after each epoch, and let the network be the trained one at the end."""
        digits = self.digits
        for stage in self.stages:
            before, test = self.states.get(stage.checkpoint), (digits.x_test, digits.y_test)
            for state in training.train(
                self.network, digits.x_train, digits.y_train, stage.settings, place, test=test, state=before
            ):
                self.states[stage.checkpoint] = state
                yield state, stage.settings, stage.checkpoint
            self.network = self._after(stage, self.network, self.states[stage.checkpoint])

    def _after(self, stage: Stage, network: SCSequential, state: training.State) -> SCSequential:
        after = training.trained(network, state)
        return ready(after, self.digits) if stage.settings.length is None else after

    def report(self) -> dict[str, Any]:
        """What results.json says: accuracies at the end, and of each stage accuracies, losses and settings."""
        right = self.network.predict_float(self.digits.x_test) == self.digits.y_test
        stages = [_curves(self.states[stage.checkpoint], stage.settings) for stage in self.stages]
        reached = stages[-1]["test_accuracies"][-1]
        return {"test_accuracy": reached, "float_accuracy": float(np.mean(right)), "stages": stages}

    def save(self, folder: Path) -> None:
        """Write the network with its scales."""
        self.network.to_onnx(folder / "model.onnx")

    def figure(self) -> Any:
        """The curves of all stages, one after the other."""
        states = [self.states[stage.checkpoint] for stage in self.stages]
        whole: Any = SimpleNamespace(**{name: [v for state in states for v in getattr(state, name)] for name in CURVES})
        figure = require("matplotlib.figure", "apps").Figure(figsize=(9, 4), layout="constrained")
        axes = figure.subplots(1, 2)
        for ax, plot in zip(axes, (plot_loss, plot_training_accuracy), strict=True):
            plot(whole, ax=ax)
        length, title = self.stages[-1].settings.length, "Network of streams, MNIST"
        if len(states) > 1:
            for ax in axes:
                ax.axvline(states[0].epoch + 0.5, color="black", linestyle=":", linewidth=1)
            title += f"; from the dotted line on with N = {length}"
        elif length is not None:
            title += f", trained with N = {length}"
        figure.suptitle(title)
        return figure


def stages_of(settings: training.Settings, fine: training.Settings | None, *, begun: bool) -> list[Stage]:
    """The stages of a training: in floating point, unless a trained network is given, and with streams in the loop."""
    stages = [] if begun else [Stage(CHECKPOINT, settings)]
    return stages if fine is None else [*stages, Stage(TUNED, fine)]

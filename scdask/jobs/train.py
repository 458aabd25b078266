"""Training of a spiking network on the digits, and what is written at the end."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import snn
from ..generators import Bernoulli
from ..plotting import training_figure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..computing import Place
    from .digits import Digits


def train(digits: Digits, settings: snn.Settings, place: Place, state: snn.State | None = None) -> Iterator[snn.State]:
    """Train, and test after each epoch."""
    return snn.train(digits.x_train, digits.y_train, settings, place, test=(digits.x_test, digits.y_test), state=state)


def report(state: snn.State, settings: snn.Settings) -> dict[str, Any]:
    """What results.json says of a training: accuracies, losses and settings."""
    return {
        "test_accuracy": state.test_accuracies[-1],
        "losses": state.losses,
        "train_accuracies": state.train_accuracies,
        "test_accuracies": state.test_accuracies,
        "settings": asdict(settings),
    }


def save_weights(path: Path, state: snn.State, settings: snn.Settings) -> None:
    """Write the perceptron for stochastic computing, which `scdask infer --model` takes."""
    snn.to_scmlp(state, settings).save(path)


def figure(state: snn.State, settings: snn.Settings, digits: Digits, title: str) -> Any:
    """The curves of a training, and the spikes that the first test image causes."""
    spikes = snn.rate_code(digits.x_test[:1], settings.steps, Bernoulli())
    _, hidden = snn.forward(state.weights, spikes, settings)
    trains = [np.asarray(layer)[:, 0] for layer in (spikes, *hidden)]
    image = f"test image 0, a {digits.y_test[0]}"
    return training_figure(state, trains, title, image)

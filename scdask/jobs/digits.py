"""Scikit-learn's handwritten digits, and the float perceptron that the SC one is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .._extras import require
from ..layers import SCMLP

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Digits(NamedTuple):
    """Images to train on and to test with, in [0, 1], and a label each."""

    x_train: NDArray[Any]
    x_test: NDArray[Any]
    y_train: NDArray[Any]
    y_test: NDArray[Any]


def load_digits() -> Digits:
    """The digits in the split that all our accuracies are for: 1257 to train on and 540 to test with, stratified."""
    x, y = require("sklearn.datasets", "apps").load_digits(return_X_y=True)
    split = require("sklearn.model_selection", "apps").train_test_split
    return Digits(*split(x / 16, y, test_size=0.3, random_state=0, stratify=y))


def train_perceptron(digits: Digits) -> SCMLP:
    """A 64-32-10 ReLU perceptron trained in floating point, ready for SC inference."""
    classifier = require("sklearn.neural_network", "apps").MLPClassifier(
        (32,), max_iter=1500, random_state=0, alpha=1e-3, learning_rate_init=3e-3
    )
    classifier.fit(digits.x_train, digits.y_train)
    return SCMLP.from_sklearn(classifier, digits.x_train)

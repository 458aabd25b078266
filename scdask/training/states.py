"""What a training has reached, and the checks of its settings and data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import _html
from ..core.checks import as_host
from ..errors import BitstreamError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Weights = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class State:
    """A network in training, after some epochs.

    Parameters
    ----------
    weights : tuple of ndarray of float32
        What is trained: the weights and the bias of each layer that has them, one after the other.
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

    TITLE: ClassVar[str] = "Network in training"

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

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        facts = {
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
        return facts | last

    def _repr_html_(self) -> str:
        return _html.facts(self.TITLE, self.facts())


def number(name: str, given: Any, *, positive: bool = False, most: float = math.inf) -> float:
    """A setting that is a finite number of at least 0, and at most `most`, as a float."""
    real = isinstance(given, float | int | np.floating | np.integer) and not isinstance(given, bool)
    value = _float(given) if real else math.nan
    if not 0 <= value < math.inf or (positive and value == 0) or value > most:
        bounds = "finite and " + ("above 0" if positive else "at least 0")
        raise BitstreamError(f"{name} is {f'from 0 to {most:g}' if most < math.inf else bounds}, not {given!r}")
    return value


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # An int may be larger than all floats.
        return math.inf


def integer(name: str, value: Any, low: int = 1) -> int:
    """A setting that is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value < 2**63:
        raise BitstreamError(f"{name} is an integer of at least {low}, not {value!r}")
    return int(value)


def as_labels(y: ArrayLike) -> NDArray[Any]:
    """Labels as an array; those of text, which scikit-learn has as objects, as text."""
    labels = as_host(y, "y")
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)
    return labels


def refuse_other_kinds(labels: NDArray[Any]) -> None:
    """Raise a BitstreamError unless labels are finite numbers or strings."""
    if labels.dtype.kind not in "biufUS" or (labels.dtype.kind == "f" and not np.isfinite(labels).all()):
        raise BitstreamError(
            f"labels are finite numbers or strings, not {labels.dtype}" + " with NaN" * (labels.dtype.kind == "f")
        )


def refuse_unknown_labels(labels: NDArray[Any], classes: NDArray[Any]) -> None:
    """Raise a BitstreamError if a label is none of the classes of a network."""
    alike = labels.dtype.kind == classes.dtype.kind or {labels.dtype.kind, classes.dtype.kind} <= set("biuf")
    unknown = labels[~np.isin(labels, classes)] if alike else labels
    if unknown.size:
        known = ", ".join(map(str, classes))
        raise BitstreamError(f"the data have the label {unknown[0]}, but the classes of the network are {known}")

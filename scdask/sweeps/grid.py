"""The axes of a campaign, its cells, and what is known of each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import SweepError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

TO_DO, DONE, FAILED = 0, 1, 2  # the state of a cell; below 0 is the number of the job that has claimed it
OWN = ("asked", "state", "seconds", "error")  # variables that every campaign has
DERIVED = ("_mean", "_low", "_high", "_samples")  # ends of the names of variables that are made of a metric

Cell = tuple[int, ...]  # a position on each axis
Setting = dict[str, Any]


class Share(NamedTuple):
    """How many of some samples were right."""

    right: int
    samples: int


class Found(NamedTuple):
    """What a cell gave: its metrics, each an array or a `Share`, or its error, and how long it took."""

    cell: Cell
    values: dict[str, Any]
    error: str
    seconds: float


def label_of(value: Any) -> Any:
    """What stands for a value on an axis: a number, a text, or a truth value, which JSON keeps as it is."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SweepError(f"a setting is no {value}")
        return value
    if isinstance(value, tuple | list):
        labels = (label_of(part) for part in value)
        return "/".join(
            f"({label})" if isinstance(part, tuple | list) else str(label)
            for part, label in zip(value, labels, strict=True)
        )
    called = getattr(value, "__qualname__", getattr(value, "__name__", None))
    name = f"{getattr(value, '__module__', '')}.{called}" if called else repr(value)
    if " at 0x" in name or "<lambda>" in name or isinstance(value, set | frozenset | dict):
        raise SweepError(f"a setting needs a name that is the same in every run, which {name} has not: give its text")
    return _encodable(name)


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SweepError(f"{text!r} is no text that a store can hold") from error
    if "\0" in text:
        raise SweepError(f"{text!r} is no text that a store can hold")
    return text


@dataclass
class Axis:
    """One axis: the labels that the store has, in their order."""

    name: str
    labels: list[Any]

    def add(self, labels: Iterable[Any]) -> None:
        """Add labels that are not there."""
        known = {label: label for label in self.labels}
        texts = {str(label): label for label in self.labels}
        for label in labels:
            there = known.get(label, texts.get(str(label), label))
            if any(isinstance(there, kind) != isinstance(label, kind) for kind in (bool, str)):
                raise SweepError(f"{self.name} has {there!r}, and can have no {label!r} beside it")
            known.setdefault(label, label)
            texts[str(label)] = label
        self.labels = list(known)

    def places(self, labels: Sequence[Any]) -> NDArray[np.intp]:
        """Where labels are."""
        where = {label: place for place, label in enumerate(self.labels)}
        return np.array([where[label] for label in labels], np.intp)

    def coordinate(self, labels: Sequence[Any] | None = None) -> NDArray[Any]:
        """Labels as an array: numbers if all are, else texts."""
        given = self.labels if labels is None else labels
        kinds = {type(label) for label in given}
        if kinds == {int} and max(map(abs, given)) >= 2**63:
            kinds = {str}
        if len(kinds) > 1 and kinds <= {int, float}:
            return np.array(given, np.float64)
        return np.array(given if len(kinds) == 1 and kinds != {str} else list(map(str, given)))


@dataclass
class Metric:
    """What all cells gave of one thing; `samples` are counts where it is a share, and there are none otherwise."""

    values: NDArray[np.float64]
    samples: NDArray[np.int64] | None = None

    def own_shape(self, axes: int) -> tuple[int, ...]:
        """The shape of the value of a cell."""
        return self.values.shape[axes:]


@dataclass
class Grid:
    """All cells of a campaign, in memory."""

    axes: list[Axis]
    state: NDArray[np.int32] = field(init=False)
    seconds: NDArray[np.float64] = field(init=False)
    errors: dict[Cell, str] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state = np.zeros(self.shape, np.int32)
        self.seconds = np.full(self.shape, np.nan)

    @property
    def shape(self) -> tuple[int, ...]:
        """How many labels each axis has."""
        return tuple(len(axis.labels) for axis in self.axes)

    def grow(self, labels: Mapping[str, Iterable[Any]]) -> bool:
        """Add labels to the axes, and tell whether any was new."""
        before = self.shape
        for axis in self.axes:
            axis.add(labels.get(axis.name, ()))
        if (shape := self.shape) == before:
            return False
        self.state = _padded(self.state, shape, 0)
        self.seconds = _padded(self.seconds, shape, np.nan)
        for metric in self.metrics.values():
            metric.values = _padded(metric.values, shape, np.nan)
            if metric.samples is not None:
                metric.samples = _padded(metric.samples, shape, 0)
        return True

    def put(self, found: Found) -> None:
        """Note what a cell gave; what does not go with the others is a failure of it."""
        error = found.error or self._misfit(found.values)
        self.seconds[found.cell] = found.seconds
        self.errors.pop(found.cell, None)
        if error:
            self.errors[found.cell] = error
            self.state[found.cell] = FAILED
            return
        for name, value in found.values.items():
            metric = self.metric(name, value)
            if metric.samples is not None:
                metric.samples[found.cell] = value.samples
                metric.values[found.cell] = value.right / value.samples if value.samples else np.nan
            else:
                metric.values[found.cell] = value
        self.state[found.cell] = DONE

    def error_array(self) -> NDArray[Any]:
        """The errors of all cells, as texts of any length."""
        texts = np.full(self.shape, "", np.dtypes.StringDType())
        for cell, error in self.errors.items():
            texts[cell] = error
        return texts

    def metric(self, name: str, value: Any) -> Metric:
        """The metric of a name, which is made for the first value of it."""
        if name not in self.metrics:
            if isinstance(value, Share):
                self.metrics[name] = Metric(np.full(self.shape, np.nan), np.zeros(self.shape, np.int64))
            else:
                self.metrics[name] = Metric(np.full((*self.shape, *np.shape(value)), np.nan))
        return self.metrics[name]

    def _misfit(self, values: dict[str, Any]) -> str:
        """Why the metrics of a cell cannot stand beside those of the others, if they cannot."""
        axes = {axis.name for axis in self.axes}
        own = {name: own_dimensions(name, 0 if isinstance(v, Share) else np.ndim(v)) for name, v in values.items()}
        for name, value in values.items():
            if name in {*OWN, *itertools.chain(*own.values())} | axes or name.endswith(DERIVED):
                return f"SweepError: a metric cannot be called {name}"
            if also := axes & {*(name + end for end in DERIVED), *own[name]}:
                return f"SweepError: beside an axis {min(also)} no metric can be called {name}"
            metric = self.metrics.get(name)
            if metric is None:
                continue
            if isinstance(value, Share) != (metric.samples is not None):
                return f"SweepError: {name} is truth values in some cells, and numbers in others"
            shape = metric.own_shape(len(self.axes))
            if not isinstance(value, Share) and np.shape(value) != shape:
                return f"SweepError: {name} has the shape {np.shape(value)}, and {shape} in the cells before"
        return ""


def own_dimensions(name: str, count: int) -> list[str]:
    """What the axes of a metric are called that are not those of the campaign."""
    return [f"{name}_{i}" for i in range(count)]


def _padded(array: NDArray[Any], shape: tuple[int, ...], value: Any) -> NDArray[Any]:
    """The array, whose first axes are longer now."""
    larger = np.full((*shape, *array.shape[len(shape) :]), value, array.dtype)
    larger[tuple(slice(n) for n in array.shape)] = array
    return larger

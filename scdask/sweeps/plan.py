"""Which cells a campaign has, in which order they are done, and when they are enough."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import SweepError
from .grid import DONE, FAILED, OWN, TO_DO, Axis, label_of
from .intervals import of_mean, of_shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from .grid import Cell, Grid, Setting
    from .intervals import Kind

LEAST = 3  # repeats from which on the interval of a mean is believed
MOST = 1000  # repeats, unless said otherwise
LARGEST = 10**7  # cells of a campaign, all of which are in memory
STEP = 2  # an estimate of how many repeats are enough is believed up to so many times what there is


class Plan:
    """The cells that are asked for, by the labels of their axes.

    Parameters
    ----------
    over : mapping of str to iterable
        The values of each axis.
    repeats : str, optional
        The axis over which means are taken.
    where : callable, optional
        Whether there is a cell for a setting.
    cost : callable, optional
        How much work a setting is, compared to others.
    until : float or mapping of str to float, optional
        Half of the width of the intervals that is narrow enough.
    most : int
        How many repeats there may be.
    kind : {"t", "bootstrap"}
        How the interval of a mean is found.
    """

    def __init__(
        self,
        over: Mapping[str, Iterable[Any]],
        repeats: str | None = None,
        where: Callable[[Setting], bool] | None = None,
        cost: Callable[[Setting], float] | None = None,
        until: float | Mapping[str, float] | None = None,
        most: int = MOST,
        kind: Kind = "t",
    ) -> None:
        self.values = {name: _values(name, values) for name, values in _checked(over).items()}
        self.names = list(self.values)
        self.repeats = repeats
        self.until = _widths(until)
        for what, function in (("where", where), ("cost", cost)):
            if function is not None and not callable(function):
                raise SweepError(f"{what} is a function of a setting, not {function!r}")
        self.most, self.kind = most, kind
        self._where, self._cost = where, cost
        if (cells := math.prod(map(len, self.values.values()))) > LARGEST:
            raise SweepError(f"these are {cells:,} cells, more than {LARGEST:,}: make several campaigns of them")
        self.labels = {name: _labels(name, values) for name, values in self.values.items()}
        if until is not None:
            _check_repeats(self.repeats, self.labels, most)
        self._rows = [name for name in self.names if name != repeats]
        shape = [len(self.values[name]) for name in self._rows]
        first = len(self.values[repeats]) if repeats else 1
        self.planned = np.full(shape, first, np.intp)  # repeats of each row
        self._narrow = np.zeros(shape, bool)
        self._order: NDArray[np.intp] = np.empty((0, len(self.names)), np.intp)
        self._grid: Grid | None = None  # which `_look_at` has looked at, and how large it was
        self._shape: tuple[int, ...] = ()
        self._arrange()

    @property
    def axes(self) -> list[Axis]:
        """The axes that are asked for, as new ones."""
        return [Axis(name, list(labels)) for name, labels in self.labels.items()]

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Which cells are asked for, in the order of the labels."""
        return self._asked

    @property
    def total(self) -> int:
        """The number of cells that are asked for so far."""
        return len(self._order)

    def setting(self, grid: Grid, cell: Cell) -> Setting:
        """The setting of a cell, with the values that were given."""
        return self._setting_at(self._places(grid, cell))

    def _setting_at(self, places: Iterable[int]) -> Setting:
        return {name: self.values[name][place] for name, place in zip(self.names, places, strict=True)}

    def cost(self, grid: Grid, cell: Cell) -> float:
        """How much work a cell is."""
        return float(self._cost_at(self._places(grid, cell)))

    def _places(self, grid: Grid, cell: Cell) -> list[int]:
        """Where a cell of a grid is among the values that are asked for."""
        self._look_at(grid)
        return [asked[cell[axis]] for axis, asked in self._places_asked]

    def cells(self, grid: Grid) -> NDArray[np.intp]:
        """The positions of all cells in a grid, (cells, axes), in the order in which they are done."""
        self._look_at(grid)
        return self._cells

    def _look_at(self, grid: Grid) -> None:
        """Note where the cells are in a grid, which is asked again and again, unless it has changed."""
        if grid is self._grid and grid.state.shape == self._shape:
            return
        self._grid, self._shape = grid, grid.state.shape
        columns: list[NDArray[np.intp]] = []
        self._places_asked: list[tuple[int, list[int]]] = [(0, [])] * len(self.names)
        for i, axis in enumerate(grid.axes):
            name = self.names.index(axis.name)
            columns.append(axis.places(self.labels[axis.name])[self._order[:, name]])
            place_of = {label: place for place, label in enumerate(self.labels[axis.name])}
            self._places_asked[name] = i, [place_of.get(label, -1) for label in axis.labels]
        self._cells = np.stack(columns, axis=1)

    def states(self, grid: Grid) -> NDArray[np.int32]:
        """The states of all cells, in the same order."""
        found: NDArray[np.int32] = grid.state[tuple(self.cells(grid).T)]
        return found

    def choose(self, grid: Grid, count: int, *, retry: bool = False) -> list[Cell]:
        """The next cells to do."""
        cells = self.cells(grid)
        states = grid.state[tuple(cells.T)]
        free = states == TO_DO
        if retry:
            free |= states == FAILED
        return [tuple(cell) for cell in cells[np.flatnonzero(free)[:count]].tolist()]

    def extend(self, grid: Grid) -> bool:
        """Ask for more repeats where all are done and the interval is too wide; tell whether any was added."""
        if not self.until or self.repeats is None:
            return False
        before = self.planned.copy()
        for row in map(tuple, np.argwhere(~self._narrow)):
            self._extend_row(grid, row)
        if (self.planned == before).all():
            return False
        labels = self.labels[self.repeats]
        new = range(max(labels) + 1, max(labels) + 1 + int(self.planned.max()) - len(labels))
        labels += new
        self.values[self.repeats] += new
        grid.grow({self.repeats: labels})
        self._arrange()
        return True

    def _extend_row(self, grid: Grid, row: tuple[int, ...]) -> None:
        """Look at one row. What is added depends on its cells alone, not on the order in which they came."""
        assert self.repeats is not None
        planned = int(self.planned[row])
        places = iter(row)
        repeats = np.flatnonzero(
            self._asked[tuple(slice(planned) if name == self.repeats else next(places) for name in self.names)]
        )
        if not len(repeats) or repeats[-1] < (planned - 1) // STEP:  # `where` leaves none of those that were added.
            self._narrow[row] = True
            return
        cells = self._cells_of(grid, row, repeats)
        states, count = grid.state[cells], len(repeats)
        if not ((states == DONE) | (states == FAILED)).all():
            return
        needed = max((self._needed(grid, cells, states == DONE, name) for name in self._metrics(grid)), default=count)
        failing = 2 * np.count_nonzero(states == FAILED) > count  # More repeats would be more failures.
        self._narrow[row] = needed <= count or planned >= self.most or failing
        if not self._narrow[row]:
            self.planned[row] = min(math.ceil(planned * needed / count), STEP * planned, self.most)

    def _metrics(self, grid: Grid) -> Iterable[str]:
        if None not in self.until:
            for name in self.until:
                if grid.metrics and name not in grid.metrics:
                    raise SweepError(f"until names {name}, but the metrics are {', '.join(grid.metrics)}")
            return [name for name in self.until if name in grid.metrics]
        if len(grid.metrics) > 1:
            raise SweepError(
                f"which of the metrics {', '.join(grid.metrics)} is to be narrow enough? until={{name: width}} says it"
            )
        return grid.metrics

    def _needed(self, grid: Grid, cells: Any, done: NDArray[np.bool_], name: str) -> int:
        """How many repeats a metric seems to need."""
        width = self.until.get(name, self.until.get(None, math.inf))
        metric, count = grid.metrics[name], len(done)
        values = metric.values[cells][done]
        if count < LEAST:
            return LEAST
        if metric.samples is not None:
            samples = metric.samples[cells][done]
            low, high = of_shares(np.rint(np.nan_to_num(values) * samples), samples)
        else:
            low, high = of_mean(np.moveaxis(values, 0, -1), self.kind)
        halves = (high - low) / 2
        half = float(np.max(halves, initial=0, where=~np.isnan(halves)))
        if ((~np.isnan(values)).sum(axis=0) == 1).any():  # which has no interval
            return max(STEP * count, math.ceil(count * (half / width) ** 2))
        return count if half <= width else max(count + 1, math.ceil(count * (half / width) ** 2))

    def _cells_of(self, grid: Grid, row: tuple[int, ...], repeats: NDArray[np.intp]) -> tuple[Any, ...]:
        """The places of a row in a grid, as an index."""
        places = dict(zip(self._rows, row, strict=True))
        index: list[Any] = []
        for axis in grid.axes:
            labels = self.labels[axis.name]
            if axis.name == self.repeats:
                index.append(axis.places([labels[repeat] for repeat in repeats]))
            else:
                index.append(axis.places([labels[places[axis.name]]])[0])
        return tuple(index)

    def _arrange(self) -> None:
        """Order the cells: the cheap ones first, and the repeats of a row one after the other."""
        self._grid = None
        shape = tuple(len(self.values[name]) for name in self.names)
        keep = np.ones(shape, bool)
        if self.repeats:
            axis = self.names.index(self.repeats)
            planned = np.expand_dims(self.planned, axis)
            keep &= np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape))]) < planned
        if self._where:
            for places in np.argwhere(keep):
                keep[tuple(places)] = bool(self._told_by("where", self._where, places))
        self._asked = keep
        cells = np.argwhere(keep)
        of_repeats = [i for i, name in enumerate(self.names) if name == self.repeats]
        of_rows = [i for i in range(len(shape)) if i not in of_repeats]
        keys = [cells[:, i] for i in of_repeats + of_rows[::-1]]
        costs = self._costs_of(cells, shape)
        order = np.lexsort([*keys, costs])
        self._order, self.costs = cells[order], costs[order]

    def _told_by(self, name: str, function: Callable[[Setting], Any], places: Any) -> Any:
        """What a function of the user says of a setting."""
        setting = self._setting_at(places)
        try:
            return function(setting)
        except Exception as error:
            raise SweepError(f"{name} fails for {setting}: {type(error).__name__}: {error}") from error

    def _costs_of(self, cells: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.float64]:
        if self._cost is not None:
            given = self._cost

            def cost_at(places: Sequence[int]) -> float:
                cost = self._told_by("cost", given, places)
                if not isinstance(cost, int | float | np.number) or not 0 <= cost < math.inf:
                    setting = self._setting_at(places)
                    raise SweepError(f"the cost of a setting is a number from 0 on, not {cost!r} of {setting}")
                return float(cost)

            self._cost_at: Callable[[Any], float] = cost_at
            return np.array([cost_at(places) for places in cells], np.float64)
        if "length" not in self.names:
            self._cost_at = lambda places: 1.0
            return np.ones(len(cells))
        axis = self.names.index("length")
        by_length = np.array([_bits(value) for value in self.values["length"]])
        self._cost_at = lambda places: float(by_length[places[axis]])
        found: NDArray[np.float64] = by_length[cells[:, axis]]
        return found


def _bits(length: Any) -> float:
    """The cycles of a length, which may be one for each layer."""
    numbers = length if isinstance(length, tuple | list) else [length]
    sizes = [float(n) for n in numbers if isinstance(n, int | float | np.number)]
    return max(sizes, default=1.0)


def _checked(over: Any) -> Mapping[str, Any]:
    if not isinstance(over, Mapping) or not over:
        raise SweepError(f"over is a mapping of names to values, such as {{'length': [16, 64]}}, not {over!r}")
    for name in over:
        if not isinstance(name, str) or not name.isidentifier():
            raise SweepError(f"an axis is called by the name of an argument, not {name!r}")
        if name in OWN:
            raise SweepError(f"an axis cannot be called {name}, as the table has a variable of this name")
    return over


def _values(name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise SweepError(f"the values of {name} are a list or a range, not {values!r}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise SweepError(f"the values of {name} are a list or a range, not an array of {values.ndim} axes")
    found = list(itertools.islice(values, LARGEST + 1))
    if len(found) > LARGEST:
        raise SweepError(f"{name} has more than {LARGEST:,} values")
    if not found:
        raise SweepError(f"{name} has no values")
    return [
        value.item() if isinstance(value, np.generic) and value.dtype.kind not in "mM" else value for value in found
    ]


def _labels(name: str, values: list[Any]) -> list[Any]:
    labels = [label_of(value) for value in values]
    seen = set()
    for label in labels:
        if label in seen or str(label) in seen:
            raise SweepError(f"{name} has {label!r} more than once")
        seen |= {label, str(label)}
    return labels


def _widths(until: Any) -> dict[str | None, float]:
    """The half widths by the names of metrics; None stands for the only one."""
    if until is None:
        return {}
    widths: dict[Any, Any] = dict(until) if isinstance(until, Mapping) else {None: until}
    for width in widths.values():
        if isinstance(width, bool) or not isinstance(width, int | float | np.number) or not width > 0:
            raise SweepError(f"until is half of the width of an interval, above 0, not {width!r}")
    if not widths:
        raise SweepError("until names no metric")
    return widths


def _check_repeats(repeats: str | None, labels: Mapping[str, list[Any]], most: int) -> None:
    if repeats is None:
        raise SweepError("until adds repeats, but over has no axis of them, such as seed: repeats= says which it is")
    for label in labels[repeats]:
        if isinstance(label, bool) or not isinstance(label, int):
            raise SweepError(f"until adds to the numbers of {repeats}, but {label!r} is none")
    if not most >= len(labels[repeats]):
        raise SweepError(f"{len(labels[repeats])} repeats were given, but most is {most}")

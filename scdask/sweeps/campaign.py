"""`sweep`: a function over all combinations of settings."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import os
import platform
import sys
import textwrap
import time
import warnings
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from .. import __version__
from .._extras import require
from ..cluster import available_cores, open_scheduler
from ..computing import SWEEP, Place, as_place
from ..errors import ScdaskWarning, SchedulerError, SweepError
from ..progress import bar
from .cells import LAZY, Given
from .dataset import dataset_of
from .grid import DONE, FAILED
from .intervals import KINDS
from .live import figure_of
from .plan import MOST, Plan
from .runners import Cluster, Threads
from .store import Ledger, Store, path_of
from .waves import wave_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from .grid import Cell, Found, Grid, Setting
    from .intervals import Kind
    from .runners import Ended

UNIT_SECONDS = 0.1  # of a task, while there are few threads
UNITS_A_SECOND = 100  # tasks that a scheduler does beside its other work
LEAST_UNIT = 4  # the last tasks may be shorter by this factor
MOST_CELLS = 1000  # of a task
AT_ONCE = 64  # tasks that are sent together: the first are to begin while the others are made
GOLDEN = (5**0.5 - 1) / 2  # multiples of it are spread evenly over [0, 1) by their fractions
PROBES = 16  # cells that are tried first, while it is not known how long they take
PROBE_SECONDS = 0.3  # after which each thread gets one
AHEAD_SECONDS = 4  # for so long the cells suffice that a job has claimed
AHEAD_UNITS = 4  # and for so many tasks of each thread
FLUSH_SHARE = 20  # a store is written for a twentieth of the time
FLUSH_SECONDS = 0.5
TELL_SECONDS = 1
IDLE_SECONDS = 30  # after which a job that only waits for others says so
RATE_TELLS = 10  # over so many the rate is taken
FORGET = 0.98  # what the time of a cell counts after that of the next one: the first ones load kernels
PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None), np.ndarray)  # kinds of constants of a module
WAVE = 8  # cells of a wave for each thread


def sweep(
    function: Callable[..., Any],
    *,
    over: Mapping[str, Iterable[Any]],
    data: Any = None,
    scheduler: Any = None,
    store: str | os.PathLike[str] | None = None,
    until: float | Mapping[str, float] | None = None,
    repeats: str | None = "seed",
    most_repeats: int = MOST,
    where: Callable[[Setting], bool] | None = None,
    cost: Callable[[Setting], float] | None = None,
    interval: Kind = "t",
    units: Mapping[str, str] | None = None,
    about: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
    retry: bool = False,
    progress: bool = False,
) -> Any:
    """Compute a function for all combinations of settings; return a table of the results, with intervals.

    Parameters
    ----------
    function : callable
        Is called with the values of one setting as keywords, `function(length=64, sng="sobol", seed=0)`, and with
        `data` before them if that is given. It gives numbers or arrays, of NumPy, xarray or lazy ones of Dask, or a
        dict of them by name; a result without a name is called "value". What it is given is shared by all cells, and
        not to be written to. An array of truth values is what became of some samples: the share of True is kept, and
        how many there were. Other arrays are kept as they are.
    over : mapping of str to iterable
        The values of each axis: numbers, texts, truth values, or objects with a repr that is the same in every run. A
        tuple is one value, such as the lengths of layers.
    data : object, optional
        What all cells need. It travels to each worker once.
    scheduler : str, Place or distributed.Client, optional
        Where to compute: a name as for `scdask.cluster.open_scheduler`, such as "local", or what runs already. By
        default the Client that is open, or the threads of this process.
    store : path, optional
        A Zarr store on a file system of this machine, in which cells land as they are done. What is there already is
        not done again, and of several jobs with one store each does cells of its own.
    until : float or mapping of str to float, optional
        Add repeats to each row until half of the width of its 95 % interval is no more than this: of the only metric,
        or of those that are named.
    repeats : str, optional
        The axis over which means are taken, and on which `until` goes on with the next integers. None, or one that is
        not there: every cell stands for itself.
    most_repeats : int
        Where `until` ends in any case.
    where : callable, optional
        Is called with a setting as a dict, and tells whether there is such a cell.
    cost : callable, optional
        Is called with a setting as a dict, and tells how much work it is, in any unit. Cheap cells come first. By
        default it is the value of an axis `length`.
    interval : {"t", "bootstrap"}
        How the interval of a mean over repeats is found.
    units : mapping of str to str, optional
        Units of metrics and axes, which become attributes.
    about : mapping of str to JSON values, optional
        What tells this campaign from others: a store of one with other values is refused. It takes the place of a
        digest of the function's code and of the data.
    attributes : mapping of str to JSON values, optional
        What the Dataset is to say of itself, such as its title; the store keeps it.
    retry : bool
        Whether cells that failed are done again.
    progress : bool
        Whether to show how many cells are done.

    Returns
    -------
    xarray.Dataset
        A coordinate for each axis, and the variables

        - metric (all axes, and its own): what a cell gave; nan where it failed or was not asked for;
        - metric_mean, metric_low, metric_high (all axes but that of repeats): the mean over repeats, and the ends of
          its 95 % interval over repeats, Wilson's for shares, else Student's t or the bootstrap: nan for a single one.
          Without an axis of repeats it is Wilson's of the samples, for shares, and says what other samples would give;
        - metric_samples (same axes): the number of samples, or of repeats;
        - seconds (all axes): the time that a cell took; nan for lazy ones;
        - error (all axes): the error of a cell that failed, or "".

        Attributes say what ran where, how many cells this call has done: `cells`, and how many tasks it took: `tasks`,
        and `tasks_alone`, if each cell had been computed alone.

    Raises
    ------
    SweepError
        If the axes, the store or another argument is not what it must be, or the function takes no such keywords.
    SchedulerError
        If the scheduler cannot be reached, or has no worker left.
    MissingBackendError
        If xarray or Zarr is not installed.

    Warns
    -----
    ScdaskWarning
        If cells failed.

    Examples
    --------
    >>> import scdask as sc
    >>> def product(length, seed):
    ...     a, b = (sc.encode([0.3, 0.6, 0.9], length, sng=sc.Bernoulli(2 * seed + i)) for i in range(2))
    ...     return {"rmse": (((a & b).decode() - a.decode() * b.decode()) ** 2).mean() ** 0.5}
    >>> found = sc.sweep(product, over={"length": [64, 1024], "seed": range(20)})
    >>> found.rmse.shape, found.rmse_mean.round(3).values, bool((found.rmse_low < found.rmse_mean).all())
    ((2, 20), array([0.023, 0.005]), True)
    """
    require("xarray", "sweeps")
    if interval not in KINDS:
        raise SweepError(f"the interval of a mean is by {' or '.join(KINDS)}, not {interval!r}")
    if not isinstance(repeats, str | None):
        raise SweepError(f"repeats is the name of an axis or None, not {repeats!r}")
    if isinstance(most_repeats, bool) or not isinstance(most_repeats, int | np.integer) or most_repeats < 1:
        raise SweepError(f"most_repeats is a number of repeats, from 1 on, not {most_repeats!r}")
    units = _as_json("units", units or {})
    repeats = repeats if isinstance(over, Mapping) and repeats in over else None
    plan = Plan(over, repeats, where, cost, until, most_repeats, interval)
    given = Given(function, *(() if data is None else (data,)))
    _check_signature(given, plan)
    attributes = _as_json("attributes", attributes or {})
    with _place_of(scheduler) as place:
        ledger = Ledger(plan.axes)
        if store is not None:
            show = {"repeats": plan.repeats, "interval": interval, "units": units, "attributes": attributes}
            ledger = Store(path_of(store), plan.axes, _identity(given, about), show)
        campaign = Campaign(plan, given, ledger, place, retry=retry, title=str(attributes.get("title", "")))
        try:
            there = int((plan.states(ledger.grid) > 0).sum()) if plan.total and not retry else 0
            with bar(plan.total, "sweep", "cells", done=there, quiet=not progress) as update:
                campaign.run(update)
        finally:
            ledger.close()
        found = campaign.dataset(interval, units).assign_attrs(attributes)
    errors = [error for error in found.error.values.ravel() if error]
    if errors:
        message = f"{len(errors)} of {plan.total} cells failed, the first with {errors[0]}"
        warnings.warn(message, ScdaskWarning, stacklevel=2)
    return found


@dataclass
class Campaign:
    """A campaign that runs.

    Parameters
    ----------
    plan : Plan
    given : Given
    ledger : Ledger
    place : Place
    retry : bool
        Whether to do cells again that failed, in this or another run.
    title : str
        What the dashboard calls it, by default the name of the function.
    """

    plan: Plan
    given: Given
    ledger: Ledger
    place: Place
    retry: bool = False
    title: str = ""
    tasks: int = 0
    tasks_alone: int = 0
    done_here: int = 0
    _asked: int = 0
    _lazy: bool | None = None
    _waiting: deque[Cell] = field(default_factory=deque)
    _found: list[Found] = field(default_factory=list)
    _unit_of: dict[Cell, int] = field(default_factory=dict)  # of the cells that run
    _units: Counter[int] = field(default_factory=Counter)  # the cells that run, of each unit
    _number: int = 0
    _tried: set[Cell] = field(default_factory=set)
    _suspects: deque[Cell] = field(default_factory=deque)  # workers died that had one of them: they wait to be tried
    _alone: Cell | None = None  # the suspect that is tried, no other one beside it
    _lately: tuple[float, float, float] = (0.0, 0.0, 0.0)  # cells, seconds that they took, and costs
    _exchange_seconds: float = 0.0  # that the last one took
    _started: float = 0.0
    _idle_since: float = math.inf  # since when there is nothing to do but to wait for other jobs
    _done_before: float | None = None  # the cost of what was done at the start
    _told: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=RATE_TELLS))  # cells done by then
    _run_id: str = field(default_factory=lambda: uuid4().hex)

    def run(self, update: Callable[..., None]) -> None:
        """Do all cells; write what is done also if it is stopped or fails."""
        self.place.wait_until_ready()
        runner: Any = (Threads if self.place.client is None else Cluster)(self.place, self.given)
        try:
            self._run(runner, update)
        except BaseException as end:
            runner.close()
            try:
                self.ledger.exchange(self._found)
            except SweepError as error:
                if not isinstance(end, SweepError):
                    warnings.warn(f"what was done at the end is lost: {error}", ScdaskWarning, stacklevel=2)
            raise
        else:
            runner.close()
            self.ledger.exchange(self._found)
        finally:
            self._found = []
            with suppress(Exception):  # The scheduler may be gone.
                self._tell(update)

    def dataset(self, interval: Kind, units: Mapping[str, str]) -> Any:
        """The result so far."""
        attributes = {
            "function": _name_of(self.given.function),
            "scdask": __version__,
            "numpy": np.__version__,
            "dask": version("dask"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "host": platform.node(),
            "scheduler": self.place.name,
            "threads": self.place.threads,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "cells": self.done_here,
            "tasks": self.tasks,
            "tasks_alone": self.tasks_alone,
        }
        plan = self.plan
        return dataset_of(self.ledger.grid, plan.labels, plan.repeats, plan.asked, interval, units, attributes)

    def _run(self, runner: Any, update: Callable[..., None]) -> None:
        exchanged = told = -math.inf
        exhausted = measured = False
        self._started = time.monotonic()
        while True:
            now = time.monotonic()
            due = now - exchanged > max(FLUSH_SHARE * self._exchange_seconds, FLUSH_SECONDS)
            idle = not (self._waiting or self._unit_of or self._suspects)
            more = not exhausted or (bool(self.plan.until) and bool(self._found))
            few = len(self._waiting) < 2 * runner.threads or (not measured and bool(self._lately[0]))
            if (few and more) or (due and self._found) or (idle and (due or self._found)):
                measured = bool(self._lately[0])
                chosen = self.ledger.exchange(self._found, partial(self._choose, runner.threads))
                self._found = []
                self._waiting += chosen
                self._tried.update(chosen)
                exchanged = time.monotonic()
                self._exchange_seconds, exhausted = exchanged - now, not chosen
                if idle and exhausted and not self._left():
                    return
            self._submit(runner)
            if now - told > TELL_SECONDS:
                self._tell(update)
                told = now
            if not self._unit_of:
                if not (self._waiting or self._suspects or self._found):  # The others have the rest.
                    self._wait_for_the_others()
                continue
            self._idle_since = math.inf
            for ended in runner.wait(PROBE_SECONDS if self._lazy is None else FLUSH_SECONDS):
                self._take(ended)

    def _wait_for_the_others(self) -> None:
        now = time.monotonic()
        if self._idle_since == math.inf:
            self._idle_since = now
        elif now - self._idle_since > IDLE_SECONDS:
            self._idle_since = math.nan  # It is said.
            left = int((self.plan.states(self.ledger.grid) <= 0).sum())
            logging.getLogger("scdask").warning("%d cells are left, which other jobs of the store have claimed", left)
        time.sleep(FLUSH_SECONDS / 5)

    def _left(self) -> bool:
        """Whether cells are to be done, by whomever."""
        return bool((self.plan.states(self.ledger.grid) <= 0).any())

    def _choose(self, threads: int, grid: Grid, jobs: int) -> list[Cell]:
        """What to claim: enough for some seconds, but not all that is left if there are other jobs."""
        while self.plan.extend(grid):
            pass
        if self.plan.total != self._asked:
            self.ledger.asked, self._asked = self.plan.cells(grid), self.plan.total
        count = self._ahead(threads) - len(self._waiting)
        if count <= 0:
            return []
        if jobs > 1:
            left = int((self.plan.states(grid) == 0).sum())
            count = min(count, max(threads, left // (2 * jobs)))
        if not self.retry:
            return self.plan.choose(grid, count)
        chosen = self.plan.choose(grid, count + len(self._tried), retry=True)
        return [cell for cell in chosen if cell not in self._tried][:count]

    def _ahead(self, threads: int) -> int:
        """How many cells are to wait."""
        if self._lazy:
            return 2 * WAVE * threads
        cells, seconds, _ = self._lately
        if not seconds:
            return 2 * threads
        ahead = max(AHEAD_SECONDS, AHEAD_UNITS * self._unit_seconds(threads), 2 * FLUSH_SHARE * self._exchange_seconds)
        return int(max(4 * threads, ahead * threads * cells / seconds))

    def _unit_seconds(self, threads: int) -> float:
        """How long a task is to take: there may be too many a second, and threads are not to wait for an exchange."""
        return max(UNIT_SECONDS, threads / UNITS_A_SECOND, self._exchange_seconds)

    def _submit(self, runner: Any) -> None:
        if self._suspects and self._alone is None:
            self._alone = self._suspects.popleft()
            if self._lazy:
                self._submit_wave(runner, [self._alone])
            else:
                self._begin([self._alone])
                self.tasks += 1
                runner.submit([self._with_settings([self._alone])], probe=self._lazy is None)
            if self._alone not in self._unit_of:  # The function has failed.
                self._alone = None
        if self._lazy:
            size = WAVE * runner.threads
            while self._waiting and len(self._unit_of) < size:
                self._submit_wave(runner, [self._waiting.popleft() for _ in range(min(len(self._waiting), size))])
            return
        probe = self._lazy is None
        most = 3 * runner.threads
        if probe:
            soon = time.monotonic() < self._started + PROBE_SECONDS
            most = min(runner.threads, PROBES) if soon else runner.threads
        while self._waiting and len(self._units) < most:
            units: list[list[tuple[Cell, Setting]]] = []
            while self._waiting and len(units) < min(AT_ONCE, most - len(self._units)):
                size = 1 if probe else self._size(runner.threads)
                cells = [self._waiting.popleft() for _ in range(size)]
                self._begin(cells)
                units.append(self._with_settings(cells))
            self.tasks += len(units)
            runner.submit(units, probe=probe)

    def _submit_wave(self, runner: Any, cells: list[Cell]) -> None:
        wave = wave_of(self.given, self._with_settings(cells), f"sweep-cell-{self._run_id}")
        self._begin(list(wave.keys))
        self.tasks += len(wave.graph)
        self.tasks_alone += wave.tasks_alone
        self._note(wave.found)
        runner.submit_wave(wave)

    def _begin(self, cells: Sequence[Cell]) -> None:
        self._number += 1
        for cell in cells:
            self._unit_of[cell] = self._number
        self._units[self._number] = len(cells)

    def _size(self, threads: int) -> int:
        """How many of the next cells are one task."""
        _, taken, costs_taken = self._lately
        if not taken:
            return 1
        # Tasks that began together are not to end together.
        enough = self._unit_seconds(threads) * costs_taken / taken * (1 - self._number * GOLDEN % 1 / 2)
        share = len(self._waiting) // threads  # of a thread in what is left
        size, costs = 0, 0.0
        for cell in islice(self._waiting, MOST_CELLS):
            costs += self.plan.cost(self.ledger.grid, cell)
            most = enough if size < share else enough / LEAST_UNIT
            if size and costs > most:
                break
            size += 1
        return size

    def _with_settings(self, cells: Sequence[Cell]) -> list[tuple[Cell, Setting]]:
        return [(cell, self.plan.setting(self.ledger.grid, cell)) for cell in cells]

    def _take(self, ended: Ended) -> None:
        """Note what came back."""
        for found in ended.found:
            unit = self._unit_of.pop(found.cell)
            self._units[unit] -= 1
            if not self._units[unit]:
                del self._units[unit]
        cells = {found.cell for found in ended.found}
        if ended.killed and self._alone not in cells:
            self._suspects.extend(cells)
            return
        if self._alone in cells:
            self._alone = None
        lazy = [found.cell for found in ended.found if found.error == LAZY]
        if lazy:
            self._lazy = True
            self._waiting.extendleft(lazy)
            self.tasks -= len(lazy)
        self._note([found for found in ended.found if found.error != LAZY])

    def _note(self, found: Sequence[Found]) -> None:
        if self._lazy is None and any(not each.error for each in found):
            self._lazy = False
        self._found += found
        self.done_here += len(found)
        for each in found:
            if not math.isnan(each.seconds):
                new = 1.0, each.seconds, self.plan.cost(self.ledger.grid, each.cell)
                cells, seconds, costs = (FORGET * old + more for old, more in zip(self._lately, new, strict=True))
                self._lately = cells, seconds, costs
                self.tasks_alone += 1

    def _tell(self, update: Callable[..., None]) -> None:
        """Say how far it is."""
        states = self.plan.states(self.ledger.grid)
        done, failed = int((states == DONE).sum()), int((states == FAILED).sum())
        update(done + failed, f"sweep, {failed} failed" if failed else "sweep", total=len(states))
        if self.place.client is None:
            return
        now = time.monotonic()
        self._told.append((now, self.done_here))
        (then, before), seconds = self._told[0], now - self._told[0][0]
        event = {
            "run": self._run_id,
            "name": self.title or _name_of(self.given.function),
            "total": len(states),
            "done": done,
            "failed": failed,
            "running": len(self._unit_of),
            "rate": (self.done_here - before) / seconds if now > then else None,
            "left": self._seconds_left(states, now),
            "figure": figure_of(self.plan, self.ledger.grid),
        }
        self.place.log_event(SWEEP, event)

    def _seconds_left(self, states: NDArray[np.int32], now: float) -> float | None:
        """The time that is left, by the cost of what is done since the start: what is cheap comes first."""
        costs = self.plan.costs
        left = float(costs[states <= 0].sum())
        done = float(costs.sum()) - left
        if self._done_before is None:
            self._done_before = done
        new = done - self._done_before
        return left * (now - self._started) / new if new > 0 else None


@contextmanager
def _place_of(scheduler: Any) -> Iterator[Place]:
    """Where to compute: what is given, or what runs, or a scheduler that is opened for the block."""
    if scheduler is None:
        yield _default_place()
    elif isinstance(scheduler, str | os.PathLike):
        with open_scheduler(scheduler) as place:  # type: ignore[arg-type]
            yield place
    else:
        yield as_place(scheduler)


def _default_place() -> Place:
    import dask
    from dask.base import get_scheduler

    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with suppress(ValueError):  # No worker runs this.
            distributed.get_worker()
            return Place("threads", 1)  # A task that waits for others of its cluster may wait for ever.
    try:
        client = getattr(get_scheduler(), "__self__", None)
    except (RuntimeError, ValueError) as error:  # The client is asynchronous, or there is no scheduler of this name.
        raise SchedulerError(f"nothing computes a campaign: {error}") from error
    if client is not None and hasattr(client, "scheduler_info"):
        return as_place(client)
    asked = dask.config.get("scheduler", None)
    if asked in ("sync", "synchronous", "single-threaded"):
        return Place("threads", 1)
    threads = dask.config.get("num_workers", None) or available_cores()
    if not isinstance(threads, int) or threads < 1:
        raise SchedulerError(f"the Dask option num_workers is a number of threads, not {threads!r}")
    return Place("threads", threads)


def _check_signature(given: Given, plan: Plan) -> None:
    """Raise unless the function takes the axes as keywords, and the data before them."""
    if not callable(given.function):
        raise SweepError(f"a campaign is one of a function, not of {given.function!r}")
    try:
        signature = inspect.signature(given.function)
    except (TypeError, ValueError):  # of a builtin
        return
    try:
        signature.bind(*given.data, **dict.fromkeys(plan.names))
    except TypeError as error:
        data = "data, " if given.data else ""
        raise SweepError(
            f"the function is called with ({data}{', '.join(f'{n}=' for n in plan.names)}): {error}"
        ) from None


def _identity(given: Given, about: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a store says of its campaign."""
    name = {"function": _name_of(given.function)}
    if about is not None:
        return name | _as_json("about", about)
    return name | {"code": _digest(given.function), "data": _token(given.data) if given.data else ""}


def _as_json(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(given), allow_nan=False))  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise SweepError(f"{name} is a mapping of names to what JSON can hold: {error}") from error


def _name_of(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _digest(function: Any, seen: tuple[Any, ...] = ()) -> str:
    """What changes if the text of a function does, or what it was made with, or a constant that it reads."""
    if function in seen:
        return ""
    seen = (*seen, function)
    if isinstance(function, partial):
        return _short(_digest(function.func, seen), _token((function.args, sorted(function.keywords.items()))))
    if inspect.ismethod(function):
        owner: Any = function.__self__
        return _short(_digest(function.__func__, seen), _name_of(owner) if inspect.isclass(owner) else _token(owner))
    if not inspect.isroutine(function):
        return _short(_digest(type(function).__call__, seen), _token(function))
    code = getattr(function, "__code__", None)
    if code is None:
        return _short(str(getattr(function, "__module__", "")), _name_of(function))
    read = inspect.getclosurevars(function)
    functions = {name: value for name, value in read.nonlocals.items() if inspect.isroutine(value)}
    made_with = [
        {name: value for name, value in read.nonlocals.items() if name not in functions},
        {name: value for name, value in read.globals.items() if isinstance(value, PLAIN)},
        [getattr(function, name, None) for name in ("__defaults__", "__kwdefaults__")],
    ]
    return _short(_text_of(code), _token(made_with), *(_digest(value, seen) for value in functions.values()))


def _text_of(code: Any) -> str:
    """The source of a function, or what it was compiled to: there may be several lambdas in a line."""
    if code.co_name != "<lambda>":
        with suppress(OSError, TypeError):
            return textwrap.dedent(inspect.getsource(code))
    constants = [
        _text_of(value)
        if inspect.iscode(value)
        else repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value)
        for value in code.co_consts
    ]
    return repr((code.co_code, code.co_names, constants))


def _token(values: Any) -> str:
    from dask.base import tokenize
    from dask.tokenize import TokenizationError

    try:
        return str(tokenize(values, ensure_deterministic=True))
    except (TokenizationError, RuntimeError) as error:
        raise SweepError(
            "the data, or what the function was made with, have no digest that is the same in every run: say with "
            "about= which campaign this is"
        ) from error


def _short(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]

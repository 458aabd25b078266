"""Where the cells of a campaign land: in memory, or in a Zarr store that several jobs may share.

A store is a Zarr group of arrays over the axes of the campaign, which `xarray.open_zarr` opens, also while jobs write,
but for the moment in which one adds labels. Whether a cell is there, `state` says, which is written last. All writing
is done by the job that holds the lock of the store; a job claims cells before it computes them, and holds a lock of its
own as long as it lives, by which the others tell whether its claims still count. Locks are those of the kernel (flock),
which end with a process, however it dies.
"""

from __future__ import annotations

import errno
import os
import platform
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from .. import __version__
from .._extras import require
from .._files import reason
from ..errors import ScdaskError, ScdaskWarning, SweepError
from .grid import DONE, FAILED, OWN, TO_DO, Axis, Grid, Metric, own_dimensions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .grid import Cell, Found

    Choose = Callable[[Grid, int], Sequence[Cell]]

T = TypeVar("T")
FORMAT = 1
CHUNK = 2**15  # cells of a chunk at most
LOCK_SECONDS = 300  # that a job waits for the exchange of another, which takes seconds
LAST_SECONDS = 3  # that it waits after an interrupt, to write what is done
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}


class Ledger:
    """The cells of a campaign in the memory of its only job.

    Parameters
    ----------
    axes : sequence of Axis
        Those that are asked for.
    """

    def __init__(self, axes: Sequence[Axis]) -> None:
        self.grid = Grid([Axis(axis.name, list(axis.labels)) for axis in axes])
        self.job = 1
        self.asked: NDArray[np.intp] | None = None  # where cells are that a choice asks for, (cells, axes), if new

    def exchange(self, found: Sequence[Found], choose: Choose | None = None) -> list[Cell]:
        """Note what was found, and claim the cells that are chosen.

        Parameters
        ----------
        found : sequence of Found
        choose : callable, optional
            Is called with the grid, which then knows what all jobs have done and claimed, and the number of jobs, and
            chooses cells to do. Without it the job gives back what it has claimed and not done.

        Returns
        -------
        list of Cell
            Those that were chosen, which no other job does.
        """
        for each in found:
            self.grid.put(each)
        if choose is None:
            self.grid.state[self.grid.state < 0] = TO_DO
            return []
        claimed = list(choose(self.grid, 1))
        for cell in claimed:
            self.grid.state[cell] = -self.job
        return claimed

    def close(self) -> None:
        """End the job."""


class Store(Ledger):
    """The cells of a campaign in a Zarr store.

    Parameters
    ----------
    path : Path
    axes : sequence of Axis
        Those that are asked for. The store may have more labels, but no other axes.
    about : dict
        What the campaign is: a store of another one is refused.
    show : dict
        How its results are shown: `repeats`, `interval`, `units`, `attributes`, as for `sweep`. The last job's count.

    Raises
    ------
    SweepError
        If there is something else at the path, or another campaign, or it cannot be written to.
    """

    def __init__(self, path: Path, axes: Sequence[Axis], about: dict[str, Any], show: dict[str, Any]) -> None:
        super().__init__(axes)
        self.path, self.about = path, about
        self._lock_file = path.with_name(f".{path.name}.lock")
        self._dead: set[int] = set()
        self._own_lock: int | None = None
        self._waits, self._interrupted = True, False
        self._stuck: SweepError | None = None
        self._had_errors = False
        self._entry = {
            "host": platform.node(),
            "pid": os.getpid(),
            "started": datetime.now(UTC).isoformat(timespec="microseconds"),
            "scdask": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        try:
            self._to_its_end(self._begin, show)
        except BaseException:
            self.close()
            raise

    def exchange(self, found: Sequence[Found], choose: Choose | None = None) -> list[Cell]:
        """As in memory, and write it; also learn what other jobs have found. What is done already stays as it is."""
        return self._to_its_end(self._exchange, found, choose)

    def _to_its_end(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do something that an interrupt does not cut in two, unless it waits for the lock yet."""
        self._waits = True
        return _to_its_end(work, *arguments, interrupted=self._give_up)

    def _give_up(self) -> None:
        self._waits, self._interrupted = False, True

    def _begin(self, show: dict[str, Any]) -> None:
        zarr = require("zarr", "sweeps")
        with _refused(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _refuse_what_is_no_store(self.path)
        with _refused(self.path), self._locked() as locks:
            self._remove_partial()
            new = {"format": FORMAT, "about": self.about, "axes": {}, "jobs": []}
            try:
                group = zarr.open_group(self.path, mode="a", attributes={"scdask": new})
            except ValueError as error:
                raise _is_no_store(self.path) from error
            known = group.attrs.get("scdask")
            if not isinstance(known, dict):
                raise _is_no_store(self.path)
            _check_same(self.path, known, self.about, [axis.name for axis in self.grid.axes])
            if known["axes"]:
                labels = {axis.name: axis.labels for axis in self.grid.axes}
                self.grid = read_grid(group, known)
                self.grid.grow(labels)
                self._had_errors = bool(self.grid.errors)
            self.job = 1 + len(known["jobs"])
            if locks:
                self._own_lock = _hold(self._lock_of(self.job))
            self._void_the_dead(known)
            self._write_axes(group, known | {"show": show, "jobs": [*known["jobs"], self._entry]})

    def _exchange(self, found: Sequence[Found], choose: Choose | None) -> list[Cell]:
        zarr = require("zarr", "sweeps")
        with _refused(self.path), self._locked():
            group = zarr.open_group(self.path, mode="r+")
            known = group.attrs["scdask"]
            if known["jobs"][self.job - 1 : self.job] != [self._entry]:
                raise SweepError(f"{self.path} is another store than that which this campaign began with")
            self._learn(group, known)
            before, shape = self.grid.state.copy(), self.grid.shape
            new = [each for each in found if self.grid.state[each.cell] != DONE]
            for each in new:
                self.grid.put(each)
            known = self._write(group, known, [each.cell for each in new])
            self._void_the_dead(known)
            claimed: list[Cell] = []
            if choose is None:
                self.grid.state[self.grid.state == -self.job] = TO_DO
            else:
                claimed = list(choose(self.grid, len(known["jobs"]) - len(self._dead)))
                for cell in claimed:
                    self.grid.state[cell] = -self.job
            if self.grid.shape != shape:  # The choice has added repeats.
                self._write_axes(group, known)
            else:
                self._write_state(group, before)
            if self.asked is not None:
                mask = group["asked"][...]
                mask[tuple(self.asked.T)] = True
                group["asked"][...] = mask
                self.asked = None
        return claimed

    def close(self) -> None:
        """End the job, whose claims count no more."""
        if self._own_lock is not None:
            _release(self._own_lock)
            self._own_lock = None
            with suppress(OSError):  # The folder may be gone.
                self._lock_of(self.job).unlink()

    def _lock_of(self, job: int) -> Path:
        return lock_of(self.path, job)

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock of the store; yield whether the file system has locks."""
        if self._stuck:
            raise self._stuck
        seconds = LAST_SECONDS if self._interrupted else LOCK_SECONDS
        holder, since = "", time.monotonic()

        def waits() -> bool:
            nonlocal holder, since
            with suppress(OSError):
                now = self._lock_file.read_text(errors="replace")
                if now != holder:
                    holder, since = now, time.monotonic()
            return self._waits and time.monotonic() < since + seconds

        while True:
            try:
                lock = _hold(self._lock_file, waits)
            except BlockingIOError:
                stuck = SweepError(
                    f"{self.path} has been locked for {time.monotonic() - since:.3g} seconds by "
                    f"{holder.partition(',')[0] or 'another job'}: has that been stopped?"
                )
                self._stuck = stuck if self._waits else None
                raise stuck from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                warnings.warn(
                    f"the file system of {self.path} has no locks: let no other job use this store meanwhile",
                    ScdaskWarning,
                    stacklevel=2,
                )
                yield False
                return
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), self._lock_file.stat()):
                    break
            _release(lock)  # The one that had it before has removed the file.
        try:
            with suppress(OSError):
                os.ftruncate(lock, 0)
                os.write(lock, f"process {os.getpid()} on {platform.node()}, at {time.time_ns()}".encode())
            yield True
        finally:
            with suppress(OSError):
                self._lock_file.unlink()
            _release(lock)

    def _void_the_dead(self, known: dict[str, Any]) -> None:
        """Give back what jobs have claimed that are no more."""
        known_dead = len(self._dead)
        for job in {*range(1, 1 + len(known["jobs"]))} - self._dead - {self.job}:
            lock = self._lock_of(job)
            try:
                _release(_hold(lock, make=False))
            except FileNotFoundError:
                pass
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            lock.unlink(missing_ok=True)
            self._dead.add(job)
        if len(self._dead) > known_dead:
            self._remove_partial()
        self.grid.state[np.isin(self.grid.state, [-job for job in self._dead])] = TO_DO

    def _remove_partial(self) -> None:
        """Remove the files that a job had not written to their end when it died, which Zarr warns of."""
        for file in self.path.rglob("*.partial"):
            file.unlink(missing_ok=True)

    def _learn(self, group: Any, known: dict[str, Any]) -> None:
        """Take over what other jobs have written since."""
        self.grid.grow(known["axes"])
        state = _in_shape(group["state"][...], self.grid.shape, 0)
        if ((state > 0) & (state != self.grid.state)).any():
            theirs = read_grid(group, known)
            theirs.grow({axis.name: axis.labels for axis in self.grid.axes})
            self.grid = theirs
        self.grid.state = state

    def _write_axes(self, group: Any, known: dict[str, Any]) -> None:
        """Let the arrays be as large as the grid, and write its axes."""
        metrics = [f"{name}{end}" for name in known.get("metrics", {}) for end in ("", "_samples")]
        for name in (*OWN, *metrics):
            if name in group:
                shape = (*self.grid.shape, *group[name].shape[len(self.grid.axes) :])
                if group[name].shape != shape:
                    group[name].resize(shape)
        axes = {axis.name: axis.labels for axis in self.grid.axes}
        for axis in self.grid.axes:
            values = axis.coordinate()
            values = values.astype(np.dtypes.StringDType()) if values.dtype.kind == "U" else values
            if not _holds(group, axis.name, values):  # A job may have died while it wrote them.
                array = group.create_array(
                    axis.name, data=values, dimension_names=(axis.name,), overwrite=True, compressors=None
                )
                array.attrs.update(UNITS.get(axis.name, {}))
        texts = np.dtypes.StringDType()
        for name, dtype in (("asked", np.bool_), ("state", np.int32), ("seconds", np.float64), ("error", texts)):
            if name not in group:
                self._create(group, name, dtype, ())
        group.attrs["scdask"] = known | {"axes": axes}
        self._write_state(group, np.full(self.grid.shape, np.iinfo(np.int32).min))

    def _write(self, group: Any, known: dict[str, Any], cells: Sequence[Cell]) -> dict[str, Any]:
        """Write what cells gave; return what the store says of itself now."""
        for region in self._regions(cells):
            for name, metric in self.grid.metrics.items():
                self._array_of(group, name, metric)[region] = metric.values[region]
                if metric.samples is not None:
                    self._array_of(group, f"{name}_samples", metric)[region] = metric.samples[region]
            group["seconds"][region] = self.grid.seconds[region]
        if self.grid.errors or self._had_errors:
            self._had_errors = True
            errors = self.grid.error_array()
            for region in self._regions(cells):
                group["error"][region] = errors[region]
        metrics = {
            name: {"share": metric.samples is not None, "shape": list(metric.own_shape(len(self.grid.axes)))}
            for name, metric in self.grid.metrics.items()
        }
        if known.get("metrics", {}) != metrics:
            known = known | {"metrics": metrics}
            group.attrs["scdask"] = known
        return known

    def _write_state(self, group: Any, before: NDArray[np.int32]) -> None:
        for region in self._regions(np.argwhere(self.grid.state != before)):
            group["state"][region] = self.grid.state[region]

    def _array_of(self, group: Any, name: str, metric: Metric) -> Any:
        dtype = np.int64 if name.endswith("_samples") else np.float64
        own = metric.own_shape(len(self.grid.axes)) if dtype == np.float64 else ()
        shape = (*self.grid.shape, *own)
        if name not in group or group[name].shape != shape:  # A job may have died after it had made one like it.
            self._create(group, name, dtype, own)
        return group[name]

    def _create(self, group: Any, name: str, dtype: Any, own: tuple[int, ...]) -> None:
        axes = [axis.name for axis in self.grid.axes]
        array = group.create_array(
            name,
            overwrite=True,
            shape=(*self.grid.shape, *own),
            chunks=(*self._chunks(prod(own)), *own),
            dtype=dtype,
            fill_value=np.nan if dtype == np.float64 else "" if name == "error" else 0,
            dimension_names=(*axes, *own_dimensions(name, len(own))),
            compressors=None,
        )
        array.attrs.update(UNITS.get(name, {}))

    def _chunks(self, own: int = 1) -> tuple[int, ...]:
        """The shape of chunks: whole axes from the last on, as far as that goes."""
        left, chunks = max(1, CHUNK // max(1, own)), []
        for n in reversed(self.grid.shape):
            chunks.append(min(n, left))
            left = max(1, left // n)
        return tuple(reversed(chunks))

    def _regions(self, cells: Any) -> list[tuple[slice, ...]]:
        """Boxes that hold the cells, one for each block of the size of a chunk."""
        if not len(cells):
            return []
        places = np.asarray(cells)
        chunks = np.array(self._chunks())
        _, block = np.unique(places // chunks, axis=0, return_inverse=True)
        boxes = []
        for number in range(block.max() + 1):
            within = places[block.reshape(-1) == number]
            low, high = within.min(axis=0), within.max(axis=0) + 1
            boxes.append(tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))
        return boxes


UNITS: dict[str, dict[str, str]] = {
    "length": {"units": "bit", "long_name": "stream length"},
    "seconds": {"units": "s", "long_name": "time that a cell took"},
    "accuracy": {"units": "1", "long_name": "accuracy"},
    "rmse": {"units": "1", "long_name": "root mean square error"},
    "bias": {"units": "1", "long_name": "mean error"},
    "psnr": {"units": "dB", "long_name": "peak signal-to-noise ratio"},
    "cycles": {"units": "cycle", "long_name": "cycles of a sample"},
    "fault": {"units": "1", "long_name": "share of the bits that are flipped"},
    "sng": {"long_name": "number generator"},
}
"""Attributes of variables that have these names."""


def path_of(store: Any) -> Path:
    """The path of a store."""
    text = os.fspath(store) if isinstance(store, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "://" in text or "::" in text:
        raise SweepError(f"a store is at a path of a file system, which has locks, not {store!r}")
    try:
        path = Path(text).expanduser().resolve()
    except (ValueError, RuntimeError) as error:  # It holds a NUL, or there is no such home.
        raise SweepError(f"{text!r} is no path: {error}") from None
    if not path.name:
        raise SweepError(f"a store is a folder of its own, not {path}")
    return path


def lock_of(path: Path, job: int) -> Path:
    """The file that a job of a store holds locked as long as it lives."""
    return path.with_name(f".{path.name}.job-{job}.lock")


def _refuse_what_is_no_store(path: Path) -> None:
    """Raise unless there is a Zarr store at the path, or nothing."""
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / "zarr.json").is_file())):
        raise _is_no_store(path)


def _is_no_store(path: Path) -> SweepError:
    return SweepError(f"{path} is there already, and is no store of a campaign")


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Let the errors of a file system, such as one that is full, be those of the store."""
    try:
        yield
    except ScdaskError:
        raise
    except OSError as error:
        raise SweepError(f"{path} cannot be written to: {reason(error)}") from error
    except (KeyError, ValueError) as error:
        raise _is_damaged(path, error) from error


def _is_damaged(path: Path, error: Exception) -> SweepError:
    what = f"it has no {error}" if isinstance(error, KeyError) else reason(error)
    return SweepError(f"{path} is damaged: {what}")


def _to_its_end(work: Callable[..., T], *arguments: Any, interrupted: Callable[[], None] = lambda: None) -> T:
    """Do what an interrupt must not cut in two, in a thread: Zarr would go on, without the lock, or complain."""
    with ThreadPoolExecutor(1, "sweep-store") as thread:
        doing = thread.submit(work, *arguments)
        try:
            return doing.result()
        except BaseException:
            if not doing.done():
                interrupted()
            raise


def _holds(group: Any, name: str, values: NDArray[Any]) -> bool:
    """Whether there is an array of these values."""
    if name not in group or group[name].shape != values.shape:
        return False
    there = group[name][...]
    return bool(there.dtype == values.dtype and (there == values).all())


def _check_same(path: Path, known: dict[str, Any], about: dict[str, Any], axes: list[str]) -> None:
    if known.get("format") != FORMAT:
        raise SweepError(f"{path} has the format {known.get('format')} of a campaign, this version reads {FORMAT}")
    for name in about | known["about"]:
        theirs, ours = known["about"].get(name), about.get(name)
        if theirs != ours:
            raise SweepError(
                f"{path} is of another campaign, whose {name} is {theirs}, not {ours}: give this one another store"
            )
    if known["axes"] and known["axes"].keys() != set(axes):
        raise SweepError(f"{path} has the axes {', '.join(known['axes'])}, not {', '.join(axes)}")


def read_store(path: Path) -> tuple[Grid, dict[str, Any]]:
    """The grid of a store, which jobs may be writing to, and what it says of itself."""
    return _to_its_end(_read, path)


def _read(path: Path) -> tuple[Grid, dict[str, Any]]:
    group, _ = _open_group(path)
    try:
        state = group["state"][...]  # The metrics of what it says is done are there by now.
        group, known = _open_group(path)
        return read_grid(group, known, state), known
    except SweepError:
        raise
    except (KeyError, ValueError) as error:
        raise _is_damaged(path, error) from error


def read_asked(path: Path, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which cells of a store any job was asked for."""
    asked: NDArray[np.bool_] = _to_its_end(lambda: _open_group(path)[0]["asked"][...])
    return _in_shape(asked, shape, False)


def read_grid(group: Any, known: dict[str, Any], state: NDArray[np.int32] | None = None) -> Grid:
    """The grid of a store."""
    grid = Grid([Axis(name, list(labels)) for name, labels in known["axes"].items()])
    shape = grid.shape
    grid.state = _in_shape(group["state"][...] if state is None else state, shape, 0)
    grid.seconds = _in_shape(group["seconds"][...], shape, np.nan)
    for name, kind in known.get("metrics", {}).items():
        values = _in_shape(group[name][...], shape, np.nan)
        samples = _in_shape(group[f"{name}_samples"][...], shape, 0) if kind["share"] else None
        grid.metrics[name] = Metric(values, samples)
    if (grid.state == FAILED).any():
        errors = _in_shape(group["error"][...], shape, "")
        grid.errors = {tuple(map(int, cell)): str(errors[tuple(cell)]) for cell in np.argwhere(grid.state == FAILED)}
    for metric in grid.metrics.values():  # What a killed job has begun to write is no result.
        metric.values[grid.state != DONE] = np.nan
        if metric.samples is not None:
            metric.samples[grid.state != DONE] = 0
    return grid


def _open_group(path: Path) -> tuple[Any, dict[str, Any]]:
    """The group of a store, and what it says of itself."""
    zarr = require("zarr", "sweeps")
    try:
        group = zarr.open_group(path, mode="r")
        known = group.attrs["scdask"]
        if not known["axes"]:
            raise ValueError("it is about to be made")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SweepError(f"{path} is no store of a campaign: {reason(error)}") from error
    if known.get("format") != FORMAT:
        raise SweepError(f"{path} has the format {known.get('format')} of a campaign, this version reads {FORMAT}")
    return group, known


def _in_shape(array: NDArray[Any], shape: tuple[int, ...], value: Any) -> NDArray[Any]:
    """The array in the shape that the axes have: one that another job makes longer may be so already, or not yet."""
    whole = np.full((*shape, *array.shape[len(shape) :]), value, array.dtype)
    part = tuple(slice(min(n, m)) for n, m in zip(shape, array.shape, strict=False))
    whole[part] = array[part]
    return whole


_HELD: set[int] = set()  # A process that a cell forks is to have none of them: it may outlive the job.


def _close_what_is_held() -> None:
    for lock in _HELD:
        with suppress(OSError):
            os.close(lock)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_what_is_held)


def _release(lock: int) -> None:
    _HELD.discard(lock)
    os.close(lock)


def _hold(path: Path, waits: Callable[[], bool] = lambda: False, *, make: bool = True) -> int:
    """Lock a file until the descriptor is closed; raise BlockingIOError if another has it and it is not waited for."""
    import fcntl

    lock = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
    _HELD.add(lock)
    pause = 0.001
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if not waits():
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
    except BaseException:
        _release(lock)
        raise

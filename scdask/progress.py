"""Progress: a bar in a terminal, a line of text in a notebook or a log.

`track` shows progress for a loop of your own, with rate and time left; `scdask.compute` and `Bitstream.to_zarr` do with
`progress=True`, and the commands unless `--quiet` is given. In a terminal it is a bar on the standard error, in a
notebook a line that stays in the saved file, and elsewhere, such as in the log of a batch job, a line every 30 seconds
and one at the end, without control characters.

>>> from scdask.progress import track
>>> [n * n for n in track(range(3), description="squares")]
[0, 1, 4]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sized
from contextlib import contextmanager, suppress
from inspect import signature
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from ._locks import fork_safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from distributed import Client
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["bar", "track"]

T = TypeVar("T")
LOG_SECONDS = 30  # seconds between two lines of a log
DRAW_SECONDS = 0.1  # seconds between two updates in a notebook


def track(
    iterable: Iterable[T], total: int | None = None, description: str = "", unit: str = "", *, quiet: bool = False
) -> Iterator[T]:
    """Show how far the loop over an iterable is, with rate and time left.

    In a terminal that is a bar on the standard error; in a notebook a line that stays in the saved file; elsewhere a
    line every 30 seconds and at the end, without control characters.

    Parameters
    ----------
    iterable : iterable
    total : int, optional
        The number of its items; by default its length, if it has one.
    description : str
        What is done.
    unit : str
        What the items are, such as "epochs".
    quiet : bool
        Whether to show nothing.

    Yields
    ------
    object
        The items.
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with bar(total, description, unit, quiet=quiet) as update:
        for done, item in enumerate(iterable, 1):
            yield item
            update(done)


@contextmanager
def bar(
    total: int | None, description: str = "", unit: str = "", *, done: int = 0, quiet: bool = False
) -> Iterator[Callable[..., None]]:
    """Show how far a block is, as `track` does.

    Parameters
    ----------
    total, description, unit, quiet
        As in `track`.
    done : int
        How many items are done before the block begins.

    Yields
    ------
    callable
        To be called with the number that is done now, and, if they change, description= and total=.
    """
    if quiet:
        yield _ignore
        return
    console = stderr_console()

    def show(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    notebook = _in_notebook()
    if console.is_terminal and not notebook:
        with _rich(console, done, total, description, unit) as update:
            yield update
        return
    line = _Line(
        _Notebook() if notebook else show, DRAW_SECONDS if notebook else LOG_SECONDS, done, total, description, unit
    )
    if notebook:
        line.draw()
    try:
        yield line.update
    finally:
        line.draw()


def stderr_console(*, quiet: bool = False) -> Console:
    """The standard error, which the work outlives, and which gets control characters only if it is a terminal."""
    from rich.console import Console

    stream = _Unread(getattr(sys.stderr, "rich_proxied_file", sys.stderr))
    return Console(file=stream, force_terminal=stream.isatty(), quiet=quiet)  # type: ignore[arg-type]


class _Unread:
    """A stream that may be full or closed, or whose reader may be gone: what cannot be written is dropped."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            return bool(self._stream.isatty())
        return False

    def fileno(self) -> int:
        number: int = self._stream.fileno()
        return number

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()


def _ignore(done: int, description: str | None = None, total: int | None = None) -> None:
    pass


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


class _Notebook:
    """A text in the output of a cell, which each call replaces."""

    def __init__(self) -> None:
        self.handle: Any = None

    def __call__(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self.handle is None:
            self.handle = display(content, raw=True, display_id=True)
        else:
            self.handle.update(content, raw=True)


_LOCK = fork_safe(Lock())
_BARS: list[Progress] = []  # the display of the terminal, once for each bar in it


@contextmanager
def _rich(console: Console, done: int, total: int | None, description: str, unit: str) -> Iterator[Callable[..., None]]:
    """Show a bar below the others of this process, until the block ends; the first one stays."""
    with _LOCK:
        first = not _BARS
        progress = _started(console) if first else _BARS[0]
        _BARS.append(progress)
    task = progress.add_task(description, total=total, completed=done, first=done, unit=unit)

    def update(now: int, description: str | None = None, total: int | None = None) -> None:
        progress.update(task, completed=now, description=description, total=total)

    try:
        yield update
    finally:
        with _LOCK:
            _BARS.pop()
            if not first:
                progress.remove_task(task)
            if not _BARS:
                progress.stop()


def _started(console: Console) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            done = task.completed - task.fields["first"]
            spent = task.finished_time or task.elapsed or 1e-9
            return Text(rate_text(done / spent, task.fields["unit"]) if done > 0 else "")

    text = TextColumn("{task.description}", markup=False)
    progress = Progress(text, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=console)
    progress.start()
    return progress


class _Line:
    """A line of text that is shown again from time to time, and at the end."""

    def __init__(
        self, show: Callable[[str], None], every: float, done: int, total: int | None, description: str, unit: str
    ) -> None:
        self.show, self.every = show, every
        self.first = self.done = done
        self.total, self.description, self.unit = total, description, unit
        self.start = self.shown = time.monotonic()
        self.last = ""

    def update(self, done: int, description: str | None = None, total: int | None = None) -> None:
        self.done = done
        self.description = description or self.description
        self.total = total or self.total
        if time.monotonic() - self.shown >= self.every:
            self.draw()

    def draw(self) -> None:
        self.shown = time.monotonic()
        if self.last != (text := self.text(self.shown - self.start)):
            self.last = text
            self.show(text)

    def text(self, spent: float) -> str:
        rate = (self.done - self.first) / max(spent, 1e-9)
        count = f"{self.done}" if self.total is None else f"{self.done}/{self.total}"
        parts = [" ".join(filter(None, (self.description and f"{self.description}:", count, self.unit)))]
        if self.done > self.first:
            parts.append(rate_text(rate, self.unit))
            if self.total is not None and self.done < self.total:
                parts.append(f"{duration_text((self.total - self.done) / rate)} left")
        return ", ".join([*parts, f"{duration_text(spent)} elapsed"])


def rate_text(rate: float, unit: str) -> str:
    """A rate with three digits, such as "12.5 cells/s"."""
    number = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
    return f"{number} {unit}/s" if unit else f"{number}/s"


def duration_text(seconds: float) -> str:
    """A time in seconds, minutes or hours, such as "1:20 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def follow(collections: Sequence[Any], description: str, options: dict[str, Any]) -> tuple[Any, ...]:
    """Compute as `dask.compute(*collections, **options)` does, and show how many tasks are done."""
    import dask

    get = dask.base.get_scheduler(scheduler=options.get("scheduler"))
    client = getattr(get, "__self__", None)
    distributed = sys.modules.get("distributed")
    if distributed and getattr(distributed.worker.thread_state, "key", None):  # Nobody watches a task.
        return dask.compute(*collections, **options)  # type: ignore[no-any-return]
    with bar(None, description, "tasks") as update:
        if distributed and isinstance(client, distributed.Client):
            return _follow_cluster(client, collections, options, update)

        def started(graph: Any, state: dict[str, Any]) -> None:
            update(0, total=len(state["ready"]) + len(state["waiting"]))

        def ended(key: Any, result: Any, graph: Any, state: dict[str, Any], worker: Any) -> None:
            update(len(state["finished"]))

        with dask.callbacks.Callback(start_state=started, posttask=ended):
            return dask.compute(*collections, **options)  # type: ignore[no-any-return]


def _follow_cluster(
    client: Client, collections: Sequence[Any], options: dict[str, Any], update: Callable[..., None]
) -> tuple[Any, ...]:
    from dask.base import unpack_collections
    from distributed.diagnostics.progressbar import ProgressBar

    lazy, repack = unpack_collections(*collections, traverse=options.get("traverse", True))
    if not lazy:
        return tuple(collections)
    known = signature(client.compute).parameters.keys() - {"sync", "traverse"}
    futures = client.compute(lazy, **{name: value for name, value in options.items() if name in known})
    seen: dict[str, int] = {}

    class Watch(ProgressBar):  # type: ignore[misc]
        def _draw_bar(self, remaining: int, all: int, **response: Any) -> None:  # noqa: A002
            seen.update(done=all - remaining, total=all)

    # The event loop reads the counts, and this thread draws them: a notebook shows the output of its cell's thread.
    async def listen() -> None:
        watch = Watch(futures)
        try:
            await watch.listen()
        finally:
            if hasattr(watch, "comm"):
                watch.comm.abort()

    async def start() -> asyncio.Task[None]:
        return asyncio.create_task(listen())

    async def stop() -> None:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)

    listening = client.sync(start)
    try:
        while not all(future.done() for future in futures):
            time.sleep(DRAW_SECONDS)
            if seen:
                update(seen["done"], total=seen["total"])
        results = client.gather(futures)
        if seen:
            update(seen["total"], total=seen["total"])
        return tuple(repack(results))
    finally:
        with suppress(Exception):  # The client may be closed, and its loop with it.
            client.sync(stop)

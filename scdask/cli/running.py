"""How a command runs: where, how it ends, and how it writes what it found."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from ..computing import cpu_seconds_here
from ..errors import ScdaskError, printable
from ..progress import stderr_console
from .options import home_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from rich.console import Console
    from rich.table import Table

    from ..computing import Place


@dataclass(frozen=True)
class Stopwatch:
    """Starts with a job, and says what it has taken."""

    wall: float = field(default_factory=perf_counter)
    cpu: float = field(default_factory=cpu_seconds_here)

    def spent(self, place: Place, *, ask: bool = True) -> Spent:
        """What the job has taken, in all its processes if it started them, and unless nobody is to be asked."""
        elsewhere = place.cpu_seconds_elsewhere() if ask or place.client is None else None
        cpu = cpu_seconds_here() - self.cpu + (elsewhere or 0.0)
        return Spent(perf_counter() - self.wall, cpu, "client" if elsewhere is None else "all processes")


@dataclass(frozen=True)
class Spent:
    """The wall time of a job, its CPU seconds, and which of its processes they are of: "all processes" or "client"."""

    wall_seconds: float
    cpu_seconds: float
    cpu_seconds_of: str

    def __str__(self) -> str:
        alone = "" if self.cpu_seconds_of == "all processes" else " here, those of the workers not counted"
        return f"{self.wall_seconds:.1f} s, {self.cpu_seconds:.1f} CPU s{alone}"


@contextmanager
def opened(
    quiet: bool, scheduler: str, workers: int | None, threads: int | None, interface: str | None, encrypted: bool
) -> Iterator[Place]:
    """Open a scheduler as the options say, and print the addresses of its dashboard.

    Of the ranks of MPI only one comes out, and loads what the job needs; the others work, and leave the program.
    """
    from ..cluster import open_scheduler

    scheduler = home_of(scheduler)
    with ExitStack() as stack:
        with waiting(quiet, scheduler) if scheduler != "mpi" else nullcontext():
            place = stack.enter_context(open_scheduler(scheduler, workers, threads, interface, encrypted))
        status = stderr_console(quiet=quiet)
        if place.dashboard:
            say(status, f"Dask dashboard: {place.dashboard}")
        if place.page:
            say(status, f"Bitstreams: {place.page}")
        yield place


def waiting(quiet: bool, scheduler: str) -> AbstractContextManager[Any]:
    """Say that a scheduler is waited for, as long as the block lasts."""
    from rich.markup import escape

    return stderr_console(quiet=quiet).status(escape(printable(f"waiting for the scheduler: {scheduler}")))


def refuse_ranks(scheduler: str) -> None:
    """Raise a UsageError in a job of several ranks that is not to run in MPI: each rank would do the whole job."""
    from ..mpi_driver.launch import RANKS, launched

    terminal = "SLURM_PTY_PORT" in os.environ  # A shell in srun has its variables.
    if scheduler == "mpi" or launched() < 2 or (terminal and not any(name in os.environ for name in RANKS)):
        return
    rank = next((os.environ[name] for name in (*RANKS, "SLURM_PROCID") if name in os.environ), "0")
    if rank != "0":
        sys.exit(click.UsageError.exit_code)
    raise click.UsageError(
        f"{launched()} processes were launched together, and each would do the whole job: add --scheduler mpi to share "
        "it, or launch one"
    )


def keep_open(status: Console, place: Place) -> None:
    """Wait for Enter or Ctrl-C, so that the dashboard of a finished job can be looked at; SIGTERM ends it as ever."""
    if not place.dashboard:
        say(status, "There is no dashboard to keep open.")
        return
    say(status, "The job is done. Its dashboard stays open until Enter or Ctrl-C.")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if not sys.stdin.readline():  # Nobody can press Enter.
            threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Show our errors and those of files as one line, not a traceback, but leave the error of another rank to it."""
    try:
        yield
    except ScdaskError as error:
        from ..mpi_driver.ending import is_foreign

        if is_foreign(error):
            sys.exit(1)
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.filename is None:
            raise
        raise click.ClickException(printable(error)) from error


@contextmanager
def plain_os_errors(out: Path) -> Iterator[None]:
    """Show an error of the system as one line, which names the folder that is written to."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(printable(f"cannot write to {out}: {error}")) from error


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """On Ctrl-C, SIGTERM or SIGHUP, unwind, so that the workers are closed and nothing is half-written, then exit.

    Yields a function to call between steps, which exits if the job was stopped: libraries swallow exceptions here and
    there, as scikit-learn's training does with a KeyboardInterrupt, and a stopped job must not go on.
    """
    stopped: list[int] = []

    def exit_if_stopped() -> None:
        if stopped:
            sys.exit(128 + stopped[0])

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        exit_if_stopped()

    numbers = {signal.SIGINT, signal.SIGTERM}
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup makes it
        numbers.add(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield exit_if_stopped
        exit_if_stopped()
    except BaseException as error:
        if not stopped:
            raise
        with suppress(OSError):  # The terminal may be gone.
            click.echo(f"Stopped by {signal.Signals(stopped[0]).name}.", err=True)
        raise SystemExit(128 + stopped[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_folder(out: Path, files: Sequence[str]) -> Path:
    """Make the folder of a run, and try to write to it before the work begins.

    Of a folder that holds one of the files already, the next numbered one is made instead.
    """
    numbered = out if out.name not in ("", "..") else out / "results"
    candidates = chain([out], (numbered.with_name(f"{numbered.name}-{n}") for n in count(2)))
    with plain_os_errors(out):
        folder = next(path for path in candidates if not any((path / name).is_file() for name in files))
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    if folder != out:
        say(stderr_console(), f"{out} holds a run already: this one is written to {folder}")
    return folder


def free_file(path: Path) -> Path:
    """The path, or the next numbered one if it is there, once its folder is known to take files."""
    make_folder(path.parent, ())
    candidates = chain([path], (path.with_stem(f"{path.stem}-{n}") for n in count(2)))
    free = next(candidate for candidate in candidates if not candidate.is_file())
    if free != path:
        say(stderr_console(), f"{path} is there already: this one is written to {free}")
    return free


def write_report(out: Path, report: dict[str, Any]) -> None:
    """Write a report as results.json, whole or not at all."""
    from .._files import write_whole

    with plain_os_errors(out):
        write_whole(out / "results.json", lambda file: file.write(json.dumps(report, indent=2).encode() + b"\n"))


def write_results(out: Path, report: dict[str, Any], name: str, figure: Callable[[], Any]) -> None:
    """Write a report as results.json, and then a figure as the PNG file of a name, each whole or not at all."""
    write_report(out, report)
    write_figure(out, name, figure)


def write_figure(out: Path, name: str, figure: Callable[[], Any]) -> None:
    """Write a figure as a PNG file, whole or not at all."""
    from .._files import write_whole

    with plain_os_errors(out):
        drawn = figure()
        write_whole(out / name, lambda file: drawn.savefig(file, format="png", dpi=150))


def say(status: Console, text: str) -> None:
    """Print a line as it is: names of files may look like markup."""
    status.print(printable(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def printing(*, saved: bool, quiet: bool = False) -> Iterator[Console]:
    """Open the standard output for what a job found: that nobody reads it is no failure of the job.

    Nor is it one that it cannot be written there, as on a full disk, if the results are `saved` in files.
    """
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:
            raise  # Rich calls this where it handles the error.

    try:
        yield Output(quiet=quiet, force_terminal=sys.stdout is not None and sys.stdout.isatty())
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        settle()
    except (OSError, UnicodeError) as error:
        settle()
        message = f"the standard output cannot be written: {error}"
        if not saved:
            raise click.ClickException(message) from error
        say(stderr_console(), f"Warning: {message}")


def settle() -> None:
    """Write out what is printed; what cannot be is dropped, so that the exit code stays that of the job."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            with suppress(OSError, ValueError, AttributeError), Path(os.devnull).open("wb") as nothing:
                os.dup2(nothing.fileno(), stream.fileno())


def print_wide(console: Console, table: Table) -> None:
    """Print a table at least 80 columns wide: a narrower one would hide figures."""
    console.width = max(console.width, 80)
    console.print(table)

"""How a command runs: where, how it ends, and how it writes what it found."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import click

from ..errors import ScdaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rich.console import Console
    from rich.table import Table

    from ..computing import Place


@contextmanager
def opened(
    status: Console, scheduler: str, workers: int | None, threads: int | None, interface: str | None
) -> Iterator[Place]:
    """Open a scheduler as the options say, and print the addresses of its dashboard."""
    from ..cluster import open_scheduler

    with ExitStack() as stack:
        with status.status(f"waiting for the scheduler: {scheduler}"):
            place = stack.enter_context(open_scheduler(scheduler, workers, threads, interface))
        if place.dashboard:
            status.print(f"Dask dashboard: {place.dashboard}", highlight=False, soft_wrap=True)
        if place.page:
            status.print(f"Bitstreams: {place.page}", highlight=False, soft_wrap=True)
        yield place


def refuse_ranks(scheduler: str) -> None:
    """Raise a UsageError in a job of several ranks that is not to run in MPI: each rank would do the whole job."""
    from ..mpi_driver.group import RANKS, launched

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
        status.print("There is no dashboard to keep open.")
        return
    status.print("The job is done. Its dashboard stays open until Enter or Ctrl-C.", highlight=False, soft_wrap=True)
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
    """Show our errors as one line instead of a traceback, but leave the error of another rank to that rank."""
    try:
        yield
    except ScdaskError as error:
        from ..mpi_driver.ending import is_foreign

        if is_foreign(error):
            sys.exit(1)
        raise click.ClickException(str(error)) from error


@contextmanager
def plain_os_errors(out: Path) -> Iterator[None]:
    """Show an error of the system as one line, which names the folder that is written to."""
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot write to {out}: {error}") from error


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """On Ctrl-C or SIGTERM, unwind, so that the workers are closed and nothing is half-written, then exit.

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

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield exit_if_stopped
        exit_if_stopped()
    except BaseException as error:
        if not stopped:
            raise
        click.echo(f"Stopped by {signal.Signals(stopped[0]).name}.", err=True)
        raise SystemExit(128 + stopped[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_folder(out: Path) -> None:
    """Make the folder, and try to write to it before the work begins."""
    with plain_os_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out):
            pass


def write_results(out: Path, report: dict[str, Any], name: str, figure: Any) -> None:
    """Write a report as results.json and a figure as the PNG file of a name, each whole or not at all."""
    from .._files import write_whole

    with plain_os_errors(out):
        write_whole(out / "results.json", lambda file: file.write(json.dumps(report, indent=2).encode() + b"\n"))
        write_whole(out / name, lambda file: figure.savefig(file, format="png", dpi=150))


def print_wide(console: Console, table: Table) -> None:
    """Print a table at least 80 columns wide: a narrower one would hide figures."""
    console.width = max(console.width, 80)
    console.print(table)

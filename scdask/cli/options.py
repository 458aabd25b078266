"""Types of options, and the options that several commands have."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable


class CommaList(click.ParamType):  # type: ignore[type-arg]
    """Values of one type with commas between them, each once if they are to be distinct."""

    name = "list"

    def __init__(self, item: click.ParamType[Any], *, distinct: bool = True) -> None:
        self.item = item
        self.distinct = distinct

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[Any]:
        """Convert the text of an option; a list passes as it is."""
        if isinstance(value, list):
            return value
        items = [self.item.convert(part.strip(), param, ctx) for part in value.split(",")]
        return list(dict.fromkeys(items)) if self.distinct else items

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete the last of the values, to one that is not there yet."""
        before, comma, last = incomplete.rpartition(",")
        given = before.split(",") if self.distinct else ()
        items = self.item.shell_complete(ctx, param, last)
        return [CompletionItem(f"{before}{comma}{item.value}") for item in items if item.value not in given]

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for the value in the help."""
        return f"{self.item.name.upper()}[,...]"


class FilePath(click.Path):
    """A path in which a leading ~ is the home folder, as a shell leaves it in --out=~/results."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, as text or as `path_type`."""
        if not str(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(home_of(str(value)), param, ctx)


def home_of(path: str) -> str:
    """The path with the home folder in place of a leading ~, if there is such a home."""
    if path.startswith("~"):
        with suppress(RuntimeError):
            return str(Path(path).expanduser())
    return path


class Matching(click.ParamType):  # type: ignore[type-arg]
    """Text that a regular expression matches as a whole."""

    def __init__(self, name: str, pattern: str) -> None:
        self.name = name
        self.pattern = pattern

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text as it is."""
        return value if re.fullmatch(self.pattern, value) else self.fail(f"{value!r} is no {self.name}", param, ctx)


class Scheduler(click.ParamType):  # type: ignore[type-arg]
    """A scheduler: one of `NAMES`, an address, or a file."""

    name = "scheduler"
    NAMES = ("local", "threads", "cuda", "mpi", "slurm")

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Complete a name, or leave files to the shell."""
        names = [CompletionItem(name) for name in self.NAMES if name.startswith(incomplete)]
        return names or [CompletionItem(incomplete, type="file")]


SCHEDULERS = """\b
Schedulers:
  local    a cluster that is started for the job, on this machine
  threads  threads of this process
  cuda     a local cluster with a worker on each GPU
  mpi      the ranks of this MPI job: mpiexec -n 4 scdask ... --scheduler mpi
  slurm    workers that are jobs of Slurm, while the client stays here
  ADDRESS  a running scheduler, such as tcp://host:8786
  FILE     a running scheduler, by its scheduler file

The workers of a running scheduler need the same version of scdask. If it has none yet, the job waits for them. Ctrl-C,
SIGTERM or SIGHUP ends a job in order: what is done is written, the workers are closed, and no file is half-written.

Of three ranks of MPI or more, rank 0 is the scheduler, rank 1 runs the job, and the others are workers; of one or two,
all are workers, and rank 0 runs it. For slurm, partition, account, memory and the like are options of Dask under
jobqueue.slurm; its credentials are files that only you can read, in the current folder as long as the job runs.

\b
cuda   needs pip install "scdask[gpu-cuda13]", or gpu-cuda12
mpi    needs pip install "scdask[mpi]"
slurm  needs pip install "scdask[slurm]"
"""
KEEP_OPEN = click.option(
    "--keep-open", "keep", is_flag=True, help="Keep the dashboard open after the job, until Enter or Ctrl-C."
)
QUIET = click.option("--quiet", is_flag=True, help="Print nothing but errors.")


def scheduler_options(default: str) -> tuple[Callable[[Any], Any], ...]:
    """The options of where to run, and the scheduler without them."""
    return (
        click.option(
            "--scheduler",
            type=Scheduler(),
            default=default,
            show_default=True,
            metavar="local|threads|cuda|mpi|slurm|ADDRESS|FILE",
            help="Where to run; see below.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Processes of the local cluster, or jobs of Slurm; by default as many as all cores need, or one job.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="Threads of each process; by default one a core, of a worker up to 8.",
        ),
        click.option("--interface", help="Network interface of mpi and slurm, such as ib0."),
        click.option(
            "--encrypted",
            is_flag=True,
            help="Let the local cluster talk TLS, so that other users of this machine cannot reach it; mpi and slurm "
            "always do.",
        ),
    )


def seed_option(what: str) -> Callable[[Any], Any]:
    """The option `--seed`, and what it is the seed of."""
    return click.option("--seed", type=click.IntRange(0, 2**32), default=0, show_default=True, help=what)


def out_option(default: str, files: str) -> Callable[[Any], Any]:
    """The option `--out`, the folder of some files."""
    folder = FilePath(file_okay=False, path_type=Path)
    help_text = f"Folder for {files}; if it holds a run already, the next numbered one, such as {default}-2."
    return click.option("--out", type=folder, default=default, show_default=True, help=help_text)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorate a command with options, which its help shows in this order."""
    return lambda command: reduce(lambda decorated, option: option(decorated), reversed(options), command)

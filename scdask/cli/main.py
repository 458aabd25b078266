"""The command `scdask`, and the commands that belong to it."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from .. import __version__
from .batch import mpi_run, sbatch
from .bench import bench
from .infer import infer
from .info import info
from .mpi_check import mpi_check
from .run import run
from .running import settle
from .sweep import sweep
from .train import train


class Commands(click.Group):
    """Commands whose exit code does not depend on who reads what they print."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # What has begun is stopped by `running.stoppable`.
            click.echo("Stopped by SIGINT.", err=True)
            sys.exit(128 + signal.SIGINT)
        finally:
            settle()


@click.group("scdask", cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="scdask")
def main() -> None:
    """Stochastic computing on Dask.

    \b
    scdask infer digits          what accuracy do streams of bits reach?
    scdask run edges photo.jpg   what do circuits of streams make of an image?
    scdask sweep digits          the same with error bars, over many settings
    scdask COMMAND --help        what a command takes, and what it writes

    \b
    eval "$(_SCDASK_COMPLETE=bash_source scdask)" in ~/.bashrc lets the shell
    complete commands, options and their values; zsh_source and fish_source too.

    `dask scdask ...` is the same as `scdask ...`.

    Ten notebooks lie in the folder notebooks of the source tree, each a question and its answer: what AND does with
    two streams, accuracy and length, streams larger than memory, a cluster that loses a worker, spiking digits, MPI
    jobs, circuits with memory, images, a convolutional network, and a campaign. In the root of the source tree this
    opens them:

    \b
    pip install ".[notebooks]" && jupyter lab notebooks
    """


for command in (infer, train, run, sweep, mpi_run, mpi_check, sbatch, bench, info):
    main.add_command(command)

"""How this process was launched, and the start of MPI in it."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from math import isnan, nan
from multiprocessing import current_process, parent_process
from typing import TYPE_CHECKING, Any

import dask

from .._extras import require
from ..errors import MissingBackendError, WorldError

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_MPI = find_spec("mpi4py") is not None

# Variables in which a launcher says how many processes it launched. SLURM_NTASKS is none: a batch script has it too.
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # variables by which a launcher tells a process its rank
LAST_TURN = 6  # seconds
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched() -> int:
    """How many processes were launched together, as the launcher of this one says; 1 without a launcher."""
    return max([1, *(int(size) for name in LAUNCHERS if (size := os.environ.get(name, "")).isdigit())])


def load_mpi() -> Any:
    """mpi4py's MPI module, or None where it is not installed and this process is alone."""
    _refuse_children()
    n_launched = launched()
    if n_launched > 1 and "mpi4py.MPI" not in sys.modules:
        _settle_network()
    with _limited_start(n_launched):
        try:
            mpi: Any = require("mpi4py.MPI", "mpi")
        except MissingBackendError:
            if n_launched > 1:
                raise
            return None
        except (ImportError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise WorldError(f"mpi4py finds no MPI library ({reason}); pip install mpich brings one") from error
    if not mpi.Is_initialized() or mpi.Is_finalized():
        raise WorldError(f"the program {'has ended MPI' if mpi.Is_finalized() else 'is to start MPI first'}")
    if mpi.COMM_WORLD.size < n_launched:
        library = " ".join(mpi.Get_library_version().partition("\n")[0].strip("\0").split())
        raise WorldError(
            f"this process is one of {n_launched} that were launched together, but its MPI library ({library}) sees "
            f"{mpi.COMM_WORLD.size}: the launcher belongs to another MPI, so take the one of this library, or for srun "
            "the --mpi type that it knows"
        )
    return mpi


def rank_here() -> str:
    """The rank of this process and its host, as its launcher knows them, before MPI does."""
    return f"rank {_rank_of_launcher() or '?'} on {socket.gethostname()}"


def _rank_of_launcher() -> str:
    return next((os.environ[name] for name in (*RANKS, "SLURM_PROCID") if name in os.environ), "")


def start_seconds() -> float:
    """The seconds in which all ranks of a job must be there: Dask's option scdask.start-seconds."""
    seconds = seconds_of("scdask.start-seconds", 120)
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise WorldError(
            f"Dask's option scdask.start-seconds is more than 0 and at most {threading.TIMEOUT_MAX:g} seconds, not "
            f"{seconds:g}"
        )
    return seconds


def seconds_of(option: str, default: float) -> float:
    """The seconds that an option of Dask says.

    Raises
    ------
    WorldError
        If it says something else.
    """
    given = dask.config.get(option, default)
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = nan
    if isnan(seconds):
        raise WorldError(f"Dask's option {option} is a number of seconds, not {given!r}")
    return seconds


def turn_of(rank: int) -> int:
    """The seconds that a rank leaves to lower ones, which see the same, to say so and end the job."""
    return min(2 * rank, LAST_TURN)


def _settle_network() -> None:
    """Tell MPICH, before it loads, what it would get wrong."""
    if os.environ.get("MPI_LOCALNRANKS", "") == os.environ.get("PMI_SIZE"):
        # Ranks on one machine need no network: MPICH would listen on all of the machine's addresses.
        os.environ.setdefault("UCX_TLS", "posix,self,cma")
    elif "UCX_TLS" not in os.environ:
        # A network that is away for seconds while nobody sends would end in a segmentation fault.
        os.environ.setdefault("UCX_TCP_KEEPIDLE", "inf")
    several_nodes = os.environ.get("SLURM_STEP_NUM_NODES", "1") != "1" and "MPI_LOCALNRANKS" not in os.environ
    if several_nodes and "PMI_FD" in os.environ and _has_mpich_wheel():
        # The addresses of UCX are longer than the lines that Slurm's pmi2 takes: MPI would wait for ever as it starts.
        os.environ.setdefault("MPIR_CVAR_CH4_NETMOD", "ofi")


def _has_mpich_wheel() -> bool:
    try:
        version("mpich")
    except PackageNotFoundError:
        return False
    return True


@contextmanager
def _limited_start(n_launched: int) -> Iterator[None]:
    """Kill this process, with a sentence, if the block takes too long.

    MPI holds the interpreter while it waits for the other ranks, so it is another process that looks at the clock.
    """
    if n_launched < 2 or "mpi4py.MPI" in sys.modules or not hasattr(os, "fork"):
        yield
        return
    limit = start_seconds()
    sentence = (
        f"scdask: {rank_here()} waited {limit:g} seconds for the start of MPI on all ranks: one has not come, the "
        "launcher is of another MPI, or a host does not reach the others\n"
    )
    rank = _rank_of_launcher()
    turn = turn_of(int(rank)) if rank.isdigit() else 0
    ours, theirs = os.pipe()
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # The child does nothing that other threads could disturb.
        child = os.fork()
    if child == 0:
        try:
            os.close(theirs)
            ready, _, _ = select.select([ours], [], [], limit + turn)
            if not ready and os.getppid() == parent:
                os.write(2, sentence.encode())
                time.sleep(0.2)  # A launcher does not forward what it has not read before the end.
                os.kill(parent, signal.SIGKILL)
        finally:
            os._exit(0)
    os.close(ours)
    try:
        yield
    finally:
        os.close(theirs)
        with suppress(ChildProcessError):  # The program may have its children reaped.
            os.waitpid(child, 0)


def _refuse_children() -> None:
    """Raise a WorldError in a process that multiprocessing has started: MPI would take it for the rank, and wait."""
    child = current_process()
    starting = getattr(child, "_inheriting", False)  # It imports the program.
    rank = next((os.environ[name] for name in RANKS if name in os.environ), None)
    if rank is None or not (starting or parent_process()):
        return
    refusal = (
        f"this process was started by multiprocessing in rank {rank} of an MPI job, and is no rank itself: use MPI in "
        'the rank alone, such as after `if __name__ == "__main__":`'
    )
    if starting and "PoolWorker" in child.name:
        # The pool would start another process in place of one that fails as it starts, and so for ever.
        print(f"scdask: {refusal}", file=sys.stderr, flush=True)
        time.sleep(0.2)  # A launcher does not forward what it has not read before the end.
        os.kill(os.getppid(), signal.SIGTERM)
    raise WorldError(refusal)

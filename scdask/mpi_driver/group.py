"""Ranks of an MPI job that meet without burning a core."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import accumulate
from multiprocessing import current_process, parent_process
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

from distributed.system import MEMORY_LIMIT

from .._extras import require
from ..errors import MissingBackendError, WorldError
from .ending import FOREIGN, end_job, exit_code, flush, watch_errors

if TYPE_CHECKING:
    from collections.abc import Callable

# MPI is asked in bursts whether something is done: the seconds of a burst, and of the pause between two.
FIRST_BURST = 2e-3
BURST = 1e-4
SHORTEST_PAUSE = 1e-4
LONGEST_PAUSE = 2e-2
SIZE = Struct("q")
HEAD = 1024  # bytes of the first message of a meeting: the size of the note, and the note if it is short
ENDED = -1  # what a rank whose program ends gives as the size of its note
HAS_MPI = find_spec("mpi4py") is not None

# Variables in which a launcher says how many processes it launched. SLURM_NTASKS is none: a batch script has it too.
RANKS = ("PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")  # variables by which a launcher tells a process its rank
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def launched() -> int:
    """How many processes were launched together, as the launcher of this one says; 1 without a launcher."""
    return max([1, *(int(size) for name in LAUNCHERS if (size := os.environ.get(name, "")).isdigit())])


def load_mpi() -> Any:
    """mpi4py's MPI module, or None where it is not installed and this process is alone."""
    _refuse_children()
    # Ranks on one machine need no network: MPICH would listen on all of the machine's addresses.
    if os.environ.get("MPI_LOCALNRANKS", "") == os.environ.get("PMI_SIZE") and "mpi4py.MPI" not in sys.modules:
        os.environ.setdefault("UCX_TLS", "posix,self,cma")
    n_launched = launched()
    try:
        mpi: Any = require("mpi4py.MPI", "mpi")
    except MissingBackendError:
        if n_launched > 1:
            raise
        return None
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise WorldError(f"mpi4py finds no MPI library ({reason}); pip install mpich brings one") from error
    if mpi.COMM_WORLD.size < n_launched:
        library = " ".join(mpi.Get_library_version().partition("\n")[0].strip("\0").split())
        raise WorldError(
            f"this process is one of {n_launched} that were launched together, but its MPI library ({library}) sees "
            f"{mpi.COMM_WORLD.size}: the launcher belongs to another MPI, so take the one of this library, or for srun "
            "the --mpi type that it knows"
        )
    return mpi


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


class Group:
    """The ranks of a communicator, over a duplicate of it, so that our messages never meet the program's own.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm or None
        None is a world of one, which needs no MPI.
    """

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self.pid = os.getpid()
        self.meetings = 0  # The number is the same on all ranks, also after an error.

    def meet(self, operation: str, give: Callable[[], Any] = lambda: None, timeout: float | None = None) -> list[Any]:
        """Wait for all ranks, and exchange what each gives.

        Parameters
        ----------
        operation : str
            What this rank does; all must do the same.
        give : callable
            Makes what this rank gives. What it raises is raised on every rank.
        timeout : float, optional
            Seconds after which the job is ended because a rank is missing.

        Returns
        -------
        list
            What the ranks gave, in their order.

        Raises
        ------
        WorldError
            If another rank does something else, or its program has ended, or this is a child process of a rank.
        """
        if self.size > 1 and os.getpid() != self.pid:
            raise WorldError(
                f"this process was forked by rank {self.rank}, and is no rank itself: {operation} is for the rank"
            )
        self.meetings += 1
        value, error = None, None
        try:
            value = give()
        except Exception as raised:
            error = raised
        except BaseException as stopped:
            self._end_if_awaited(stopped)
            raise
        if self.size == 1:
            if error:
                raise error
            return [value]
        try:
            found = self._exchange_notes(
                operation, pickle.dumps((operation, value, error and _portable(error))), timeout
            )
        except WorldError:
            raise
        except BaseException as stopped:
            self._end_if_awaited(stopped)
            raise
        for rank, (other, _, _) in enumerate(found):
            if other != found[0][0]:
                raise WorldError(f"all ranks do the same, but rank 0 is at {found[0][0]} and rank {rank} at {other}")
        for rank, (_, _, theirs) in enumerate(found):
            if theirs is not None:
                raise _from_rank(theirs, rank) if error is None or rank != self.rank else error
        return [given for _, given, _ in found]

    def _end_if_awaited(self, stopped: BaseException) -> None:
        """End the job of several ranks, because the others wait in the meeting that this rank leaves, or soon will."""
        if self.size > 1:
            end_job(exit_code(stopped) or 1, error=stopped)

    def _exchange_notes(self, operation: str, note: bytes, timeout: float | None) -> list[Any]:
        # Short notes are exchanged in one step, so that the last rank need not wait until the others look again.
        heads = bytearray(HEAD * self.size)
        self.wait(self.comm.Iallgather(_head(len(note), note), heads), timeout, operation)
        sizes = _sizes(heads)
        if ENDED in sizes:
            raise WorldError(f"rank {sizes.index(ENDED)} has ended its program, but rank {self.rank} is at {operation}")
        if max(sizes) <= HEAD - SIZE.size:
            return [_unpack(heads[i * HEAD + SIZE.size : i * HEAD + SIZE.size + n]) for i, n in enumerate(sizes)]
        notes = bytearray(sum(sizes))
        self.wait(self.comm.Iallgatherv(note, [notes, sizes]), timeout, operation)
        ends = list(accumulate(sizes))
        return [_unpack(notes[end - size : end]) for end, size in zip(ends, sizes, strict=True)]

    def wait(self, request: Any, timeout: float | None = None, what: str = "") -> None:
        """Wait for a request of MPI without burning a core; end the job after `timeout` seconds."""
        if not poll(request.Test, timeout):
            end_job(1, f"rank {self.rank} waited {timeout:g} seconds for {what}: a rank is missing")

    def make(self, operation: str, make: Callable[[], Any]) -> Any:
        """What this rank makes, if all ranks could make theirs."""
        made: list[Any] = []
        self.meet(operation, lambda: made.append(make()))
        return made[0]

    def share_of_host(self, first_worker: int = 0, timeout: float | None = None, interface: str | None = None) -> Share:
        """What this rank may use, if the ranks from `first_worker` on are workers; call it on all ranks.

        Raises
        ------
        WorldError
            If a host has no such network interface, on every rank.
        """
        mine = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        host = socket.gethostname(), ""
        with suppress(OSError):  # Hosts may have the same name, but not the same boot.
            host = socket.gethostname(), Path("/proc/sys/kernel/random/boot_id").read_text()

        def look() -> tuple[tuple[str, str], set[int]]:
            there = [name for _, name in socket.if_nameindex()]
            if interface not in (None, *there):
                raise WorldError(f"{host[0]} has no network interface {interface}, only {', '.join(there)}")
            return host, mine

        ranks = self.meet("a look at the hosts", look, timeout)
        cores = set().union(*(theirs for name, theirs in ranks if name == host))
        workers = max(1, sum(name == host for name, _ in ranks[first_worker:]))
        threads = max(1, min(len(mine), len(cores) // workers))
        return Share(threads, int(MEMORY_LIMIT / workers), all(name == host for name, _ in ranks))


@dataclass(frozen=True)
class Share:
    """The threads and bytes for a worker of this host, and whether all ranks are on this host."""

    threads: int
    memory: int
    one_host: bool


yield_core: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


def poll(done: Callable[[], bool], timeout: float | None = None) -> bool:
    """Wait until something is done, without burning a core; False after `timeout` seconds.

    MPI goes on only while it is asked, and a collective takes several questions, so they come in bursts.
    """
    start = time.perf_counter()
    burst, pause = FIRST_BURST, SHORTEST_PAUSE
    while True:
        end = time.perf_counter() + burst
        while time.perf_counter() < end:
            if done():
                return True
            yield_core()
        if timeout is not None and time.perf_counter() - start > timeout:
            return False
        time.sleep(pause)
        burst, pause = BURST, min(2 * pause, LONGEST_PAUSE)


def group_of(comm: Any = None) -> Group:
    """The Group over a communicator, by default over all ranks; always the same one for the same communicator.

    Raises
    ------
    WorldError
        If it is no intracommunicator, or the launcher and the MPI library do not know each other.
    """
    if isinstance(comm, Group):
        return comm
    mpi = load_mpi()
    if mpi is None:
        if comm is not None:
            raise WorldError(f"without mpi4py there are no communicators, but {comm!r} was given")
        return Group()
    comm = mpi.COMM_WORLD if comm is None else comm
    if not isinstance(comm, mpi.Intracomm) or comm == mpi.COMM_NULL:
        raise WorldError(f"a group of ranks is an mpi4py.MPI.Intracomm, not {comm!r}")
    group: Group | None = comm.Get_attr(_attribute())
    if group is None:
        group = Group(comm.Dup())
        comm.Set_attr(_attribute(), group)
        if group.size > 1:
            if not _GROUPS:
                watch_errors()
                atexit.register(_end_together, os.getpid())
            _GROUPS.append(group)
    return group


_GROUPS: list[Group] = []


@cache
def _attribute() -> int:
    from mpi4py import MPI

    number: int = MPI.Comm.Create_keyval()
    return number


def _head(size: int, note: bytes = b"") -> bytes:
    return (SIZE.pack(size) + note).ljust(HEAD, b"\0")[:HEAD]


def _sizes(heads: bytearray) -> list[int]:
    return [SIZE.unpack_from(heads, start)[0] for start in range(0, len(heads), HEAD)]


def _portable(error: Exception) -> Exception:
    """The error, if it survives being sent."""
    try:
        if repr(pickle.loads(pickle.dumps(error))) == repr(error):
            return error
        return WorldError(f"{type(error).__name__}: {error}")
    except Exception:  # A foreign class may raise anything there.
        pass
    try:
        return WorldError(f"{type(error).__name__}: {error}")
    except Exception:
        return WorldError(type(error).__name__)


def _unpack(note: bytearray) -> Any:
    try:
        return pickle.loads(note)
    except Exception as error:
        raise WorldError(f"what another rank sent cannot be read: {error}") from error


def _from_rank(error: Exception, rank: int) -> Exception:
    error.add_note(f"raised on rank {rank}")
    error.__dict__[FOREIGN] = rank
    return error


def _end_together(pid: int) -> None:
    """Wait for the others at the end of the program; if they wait for this rank elsewhere, end the job."""
    from mpi4py import MPI

    if os.getpid() != pid or MPI.Is_finalized():
        return
    flush()
    meetings = []
    for group in _GROUPS:
        heads = bytearray(HEAD * group.size)
        meetings.append((group, group.comm.Iallgather(_head(ENDED), heads), heads))

    def all_ended() -> bool:
        for group, request, heads in meetings:
            if not request.Test():
                return False
            waiting = [str(rank) for rank, size in enumerate(_sizes(heads)) if size != ENDED]
            if waiting:
                end_job(1, f"rank {group.rank} has ended its program, but rank {', '.join(waiting)} waits for it")
        return True

    poll(all_ended)

"""Ranks of an MPI job that meet without burning a core."""

from __future__ import annotations

import atexit
import os
import pickle
import socket
import time
from array import array
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from ..errors import WorldError
from .ending import FOREIGN, end_job, exit_code, flush, watch_errors
from .heart import Heart
from .launch import load_mpi, start_seconds, turn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container

# MPI is asked in bursts whether something is done: the seconds of a burst, and of the pause between two, which is a
# share of the time that was waited.
FIRST_BURST = 2e-3
BURST = 1e-4
SHORTEST_PAUSE = 1e-4
LONGEST_PAUSE = 2e-2
PAUSE = 0.1
NAME = 64  # bytes of the name of an operation, where ranks tell each other that theirs differ


class State(NamedTuple):
    """What a rank tells the others when they meet; of each number all get the highest."""

    operation: int = 0
    minus_operation: int = 0  # The highest of these is minus the lowest of those.
    failed: int = 0  # the size of the group less the rank, for the lowest rank of those that are meant
    ended: int = 0
    waiting: int = 0
    note: int = 0  # bytes


def _nothing() -> None:
    return None


class Group:
    """The ranks of a communicator, over a duplicate of it, so that our messages never meet the program's own.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm or None
        None is a world of one, which needs no MPI.
    """

    heart: Heart

    def __init__(self, comm: Any = None) -> None:
        self.comm = comm
        self.rank: int = 0 if comm is None else comm.rank
        self.size: int = 1 if comm is None else comm.size
        self.pid = os.getpid()
        self.meetings = 0  # The number is the same on all ranks, also after an error.

    def __str__(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"

    def meet(self, operation: str, give: Callable[[], Any] = _nothing, timeout: float | None = None) -> list[Any]:
        """Wait for all ranks, and exchange what each gives.

        Parameters
        ----------
        operation : str
            What this rank does; all must do the same.
        give : callable
            Makes what this rank gives, which goes to every rank, so it should be little. What it raises is raised on
            every rank.
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
        value, note, size = self._agree(operation, give, timeout, range(self.size))
        if size == 0:
            return [value] * self.size
        notes = bytearray(size * self.size)
        self.wait(self.comm.Iallgather(note.ljust(size, b"\0"), notes), timeout, operation)
        return _unpack_all(notes, size)

    def share(self, operation: str, give: Callable[[], Any], root: int = 0, timeout: float | None = None) -> Any:
        """Wait for all ranks, as `meet` does, and give every rank what the root gives."""
        value, note, size = self._agree(operation, give, timeout, (root,))
        if self.size == 1:
            return value
        return _unpack(self._from_rank(root, note, size, timeout, operation)) if size else None

    def collect(
        self, operation: str, give: Callable[[], Any], root: int = 0, timeout: float | None = None
    ) -> list[Any]:
        """Wait for all ranks, as `meet` does, and give the root what each gives; the others get an empty list."""
        value, note, size = self._agree(operation, give, timeout, range(self.size))
        if size == 0:
            return [value] * self.size if self.rank == root else []
        notes = bytearray(size * self.size if self.rank == root else 0)
        self.wait(self.comm.Igather(note.ljust(size, b"\0"), notes, root), timeout, operation)
        return _unpack_all(notes, size)

    def _agree(
        self, operation: str, give: Callable[[], Any], timeout: float | None, givers: Container[int]
    ) -> tuple[Any, bytes, int]:
        """What this rank gives, the same as a note, and the bytes of the longest note, if all ranks do the same.

        A note travels if `givers` has the rank and it is not None. If none does, one reduction of some numbers is all.
        """
        if self.size > 1 and os.getpid() != self.pid:
            raise WorldError(
                f"this process was forked by rank {self.rank}, and is no rank itself: {operation} is for the rank"
            )
        self.meetings += 1
        if self.size == 1:
            return give(), b"", 0
        value, note, error = None, b"", None
        try:
            value = give()
            if value is not None and self.rank in givers:
                note = pickle.dumps(value)
        except Exception as raised:
            error, note = raised, pickle.dumps(_portable(raised))
        except BaseException as stopped:
            end_job(exit_code(stopped) or 1, error=stopped)
        place, code = self.size - self.rank, crc32(operation.encode()) + 1
        found = self._highest(State(code, -code, place if error else 0, 0, place, len(note)), timeout, operation)
        if found.ended:
            raise WorldError(
                f"rank {self.size - found.ended} has ended its program, but rank {self.rank} is at {operation}"
            )
        if found.operation != -found.minus_operation:
            self._tell_the_difference(operation, timeout)
        if found.failed:
            rank = self.size - found.failed
            theirs = _unpack(self._from_rank(rank, note, found.note, timeout, operation))
            raise _foreign(theirs, rank) if error is None or rank != self.rank else error
        return value, note, found.note

    def _highest(self, mine: State, timeout: float | None, operation: str) -> State:
        from mpi4py import MPI

        sent, found = array("q", mine), array("q", mine)
        self.wait(self.comm.Iallreduce(sent, found, MPI.MAX), timeout, operation)
        return State(*found)

    def _from_rank(self, rank: int, note: bytes, size: int, timeout: float | None, operation: str) -> bytearray:
        found = bytearray(note[:size].ljust(size, b"\0"))
        self.wait(self.comm.Ibcast(found, rank), timeout, operation)
        return found

    def _tell_the_difference(self, operation: str, timeout: float | None) -> None:
        names = bytearray(NAME * self.size)
        self.wait(self.comm.Iallgather(operation.encode()[:NAME].ljust(NAME), names), timeout, operation)
        there = [names[start : start + NAME].decode(errors="replace").strip() for start in range(0, len(names), NAME)]
        rank = next(rank for rank, name in enumerate(there) if name != there[0])
        raise WorldError(
            f"all ranks are to call the same, but rank 0 is at {there[0]} and rank {rank} at {there[rank]}"
        )

    def wait(self, request: Any, timeout: float | None = None, what: str = "") -> None:
        """Wait for a request of MPI without burning a core; end the job after `timeout` seconds."""
        try:
            done = poll(request.Test, None if timeout is None else timeout + turn_of(self.rank))
        except Exception as error:
            end_job(1, f"{self} lost the others at {what}: {error}")
        except BaseException as stopped:  # The others wait in the meeting that this rank leaves, or soon will.
            end_job(exit_code(stopped) or 1, error=stopped)
        if not done:
            end_job(1, f"{self} waited {timeout:g} seconds for {what}: a rank is missing")

    def make(self, operation: str, make: Callable[[], Any]) -> Any:
        """What this rank makes, if all ranks could make theirs."""
        made: list[Any] = []
        self.meet(operation, lambda: made.append(make()))
        return made[0]

    def share_of_host(self, first_worker: int = 0, timeout: float | None = None) -> Share:
        """What this rank may use, if the ranks from `first_worker` on are workers; call it on all ranks."""
        from distributed.system import MEMORY_LIMIT  # A driver alone starts without Dask's cluster.

        mine = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        self.meet("a look at the hosts", timeout=timeout)
        here = self._of_this_host()
        neighbours = here.meet("a look at a host", lambda: (self.rank, mine), timeout)
        if here is not self:
            here.comm.Free()
        cores = set().union(*(theirs for _, theirs in neighbours))
        workers = max(1, sum(rank >= first_worker for rank, _ in neighbours))
        threads = max(1, min(len(mine), len(cores) // workers))
        return Share(threads, int(MEMORY_LIMIT / workers), here.size == self.size)

    def _of_this_host(self) -> Group:
        if self.size == 1:
            return self
        from mpi4py import MPI

        return Group(self.comm.Split_type(MPI.COMM_TYPE_SHARED, self.rank))


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
    burst = FIRST_BURST
    while True:
        end = time.perf_counter() + burst
        while time.perf_counter() < end:
            if done():
                return True
            yield_core()
        if timeout is not None and time.perf_counter() - start > timeout:
            return False
        time.sleep(min(max(PAUSE * (time.perf_counter() - start), SHORTEST_PAUSE), LONGEST_PAUSE))
        burst = BURST


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
        group = Group(_duplicate(comm))
        if group.size > 1:
            if not _GROUPS:
                watch_errors()
                _end_in_time()
            group.heart = Heart(comm.Dup())
            group.heart.start()
            _GROUPS.append(group)
        comm.Set_attr(_attribute(), group)
    return group


_GROUPS: list[Group] = []


def _duplicate(comm: Any) -> Any:
    """A duplicate of a communicator; until the first has a heart, a limit of time stands for it."""
    limit = None if _GROUPS else start_seconds()
    duplicate, request = comm.Idup()
    Group(comm).wait(request, limit, "the first meeting of all ranks")
    return duplicate


@cache
def _attribute() -> int:
    from mpi4py import MPI

    number: int = MPI.Comm.Create_keyval()
    return number


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
    if not note[0]:  # A rank gave nothing.
        return None
    try:
        return pickle.loads(note)
    except Exception as error:
        raise WorldError(f"what another rank sent cannot be read: {error}") from error


def _unpack_all(notes: bytearray, size: int) -> list[Any]:
    return [_unpack(notes[start : start + size]) for start in range(0, len(notes), size)]


def _foreign(error: Exception, rank: int) -> Exception:
    error.add_note(f"raised on rank {rank}")
    error.__dict__[FOREIGN] = rank
    return error


def _end_in_time() -> None:
    """Have the groups end together before MPI does, which a program may end itself: it first frees COMM_SELF."""
    from mpi4py import MPI

    pid = os.getpid()
    atexit.register(_end_together, pid)
    MPI.COMM_SELF.Set_attr(MPI.Comm.Create_keyval(delete_fn=lambda *_: _end_together(pid)), pid)


def _end_together(pid: int) -> None:
    """Wait for the others at the end of the program; if they wait for this rank elsewhere, end the job."""
    from mpi4py import MPI

    if os.getpid() != pid or MPI.Is_finalized():
        return
    flush()
    meetings = []
    for group in _GROUPS:
        found = array("q", State())
        mine = array("q", State(ended=group.size - group.rank))
        meetings.append((group, group.comm.Iallreduce(mine, found, MPI.MAX), found, mine))
    _GROUPS.clear()

    def all_ended() -> bool:
        for meeting in list(meetings):
            group, request, found, _ = meeting
            if request.Test():
                if waiting := State(*found).waiting:
                    end_job(1, f"{group} has ended its program, but rank {group.size - waiting} waits for it")
                group.heart.stop()  # The others stop now too: one of them may be in no other group, and go.
                meetings.remove(meeting)
        return not meetings

    poll(all_ended)

"""What an MPI job rests on: ranks that meet without burning a core, and an end for all where one of them ends."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import pickle
import socket
import sys
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

from distributed.system import MEMORY_LIMIT

from ._extras import require
from .errors import MissingBackendError, WorldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

# Seconds of looking at what MPI waits for, and between.
FIRST_BURST = 2e-3
BURST = 1e-4
SHORTEST_PAUSE = 1e-4
LONGEST_PAUSE = 2e-2
FOREIGN = "_scdask_rank"  # the attribute of an error that came from another rank
SIZE = Struct("q")
HEAD = 1024  # bytes of the first message of a meeting: the size of the note, and the note if it is short
ENDED = -1  # the size of the message of a rank whose program ends
INTERRUPTED = 130  # exit code after Ctrl-C

# Where a launcher says how many it launched. SLURM_NTASKS is also there in a batch script, which is no task.
LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def load_mpi() -> Any:
    """mpi4py's MPI module, or None where it is not installed and this process is alone."""
    # Ranks on one machine need no network: MPICH would listen on all of the machine's addresses.
    if os.environ.get("MPI_LOCALNRANKS", "") == os.environ.get("PMI_SIZE") and "mpi4py.MPI" not in sys.modules:
        os.environ.setdefault("UCX_TLS", "posix,self,cma")
    launched = max([1, *(int(size) for name in LAUNCHERS if (size := os.environ.get(name, "")).isdigit())])
    try:
        mpi: Any = require("mpi4py.MPI", "mpi")
    except MissingBackendError:
        if launched > 1:
            raise
        return None
    except (ImportError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise WorldError(f"mpi4py finds no MPI library ({reason}); pip install mpich brings one") from error
    if mpi.COMM_WORLD.size < launched:
        library = " ".join(mpi.Get_library_version().partition("\n")[0].strip("\0").split())
        raise WorldError(
            f"this process is one of {launched} that were launched together, but its MPI library ({library}) sees "
            f"{mpi.COMM_WORLD.size}: the launcher belongs to another MPI, so take the one of this library, or for srun "
            "the --mpi type that it knows"
        )
    return mpi


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
        self.meetings = 0  # the same on all ranks, also after an error

    def meet(self, operation: str, give: Callable[[], Any] = lambda: None, limit: float | None = None) -> list[Any]:
        """Wait for all ranks, and exchange what each gives.

        Parameters
        ----------
        operation : str
            What this rank does; all must do the same.
        give : callable
            Makes what this rank gives. What it raises is raised on every rank.
        limit : float, optional
            Seconds after which the job is ended because a rank is missing.

        Returns
        -------
        list
            What the ranks gave, in their order.

        Raises
        ------
        WorldError
            If another rank does something else, or its program has ended.
        """
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
            found = self._exchange_notes(operation, pickle.dumps((operation, value, error and _portable(error))), limit)
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
        """End the job, if this rank leaves a meeting in which the others wait, or the next one would be another."""
        if self.size > 1:
            end_job(exit_code(stopped) or 1, error=stopped)

    def _exchange_notes(self, operation: str, note: bytes, limit: float | None) -> list[Any]:
        # In one step where the notes are short: who comes last need not wait until the others look again.
        heads = bytearray(HEAD * self.size)
        self.wait(self.comm.Iallgather(_head(len(note), note), heads), limit, operation)
        sizes = _sizes(heads)
        if ENDED in sizes:
            raise WorldError(f"rank {sizes.index(ENDED)} has ended its program, but rank {self.rank} is at {operation}")
        if max(sizes) <= HEAD - SIZE.size:
            return [_unpack(heads[i * HEAD + SIZE.size : i * HEAD + SIZE.size + n]) for i, n in enumerate(sizes)]
        notes = bytearray(sum(sizes))
        self.wait(self.comm.Iallgatherv(note, [notes, sizes]), limit, operation)
        ends = list(accumulate(sizes))
        return [_unpack(notes[end - size : end]) for end, size in zip(ends, sizes, strict=True)]

    def wait(self, request: Any, limit: float | None = None, what: str = "") -> None:
        """Wait for a request of MPI without burning a core; end the job after `limit` seconds."""
        if not poll(request.Test, limit):
            end_job(1, f"rank {self.rank} waited {limit:g} seconds for {what}: a rank is missing")

    def share_of_host(self, first_worker: int = 0, limit: float | None = None, interface: str | None = None) -> Share:
        """What this rank may use, if the ranks from `first_worker` on are workers; call it on all ranks.

        Raises
        ------
        WorldError
            If a host has no such network interface, on every rank.
        """
        mine = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
        host = socket.gethostname(), ""
        with suppress(OSError):  # hosts may have the same name
            host = socket.gethostname(), Path("/proc/sys/kernel/random/boot_id").read_text()

        def look() -> tuple[tuple[str, str], set[int]]:
            there = [name for _, name in socket.if_nameindex()]
            if interface not in (None, *there):
                raise WorldError(f"{host[0]} has no network interface {interface}, only {', '.join(there)}")
            return host, mine

        ranks = self.meet("a look at the hosts", look, limit)
        cores = set().union(*(theirs for name, theirs in ranks if name == host))
        workers = max(1, sum(name == host for name, _ in ranks[first_worker:]))
        threads = max(1, min(len(mine), len(cores) // workers))
        return Share(threads, int(MEMORY_LIMIT / workers), all(name == host for name, _ in ranks))


@dataclass(frozen=True)
class Share:
    """Threads and bytes for a worker of this host, and whether all ranks are on this host."""

    threads: int
    memory: int
    one_host: bool


yield_core: Callable[[], None] = getattr(os, "sched_yield", lambda: time.sleep(0))


def poll(done: Callable[[], bool], limit: float | None = None) -> bool:
    """Wait until something is done, without burning a core; False after `limit` seconds.

    MPI goes on only while one looks, and a collective takes several looks, so they come in bursts.
    """
    start = time.perf_counter()
    burst, pause = FIRST_BURST, SHORTEST_PAUSE
    while True:
        end = time.perf_counter() + burst
        while time.perf_counter() < end:
            if done():
                return True
            yield_core()
        if limit is not None and time.perf_counter() - start > limit:
            return False
        time.sleep(pause)
        burst, pause = BURST, min(2 * pause, LONGEST_PAUSE)


def _mpi() -> Any:
    from mpi4py import MPI

    return MPI


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
            _GROUPS.append(group)
            watch_errors()
    return group


_GROUPS: list[Group] = []


@cache
def _attribute() -> int:
    number: int = _mpi().Comm.Create_keyval()
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
    except Exception:  # whatever a foreign class raises there
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


def end_job(code: int, message: str | None = None, error: BaseException | None = None) -> NoReturn:
    """Say why, and end every rank of the job with an exit code."""
    if message:
        print(f"scdask: {message}", file=sys.stderr)
    if error is not None:
        _show(error)
    _flush()
    time.sleep(0.2)  # a launcher does not forward what it has not read before the end
    if "mpi4py.MPI" in sys.modules and not _mpi().Is_finalized():
        _mpi().COMM_WORLD.Abort(code)
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a closed pipe must not keep the job alive
            stream.flush()


def is_foreign(error: BaseException) -> bool:
    """Whether an error was raised on another rank, which shows it."""
    return FOREIGN in vars(error)


def _show(error: BaseException) -> None:
    if is_foreign(error):
        time.sleep(1)  # so that the rank that raised it is the one that shows it
        print(f"scdask: {type(error).__name__} of rank {vars(error)[FOREIGN]}: {error}", file=sys.stderr)
    elif isinstance(error, SystemExit):
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    else:
        traceback.print_exception(error)


@cache
def watch_errors() -> None:
    """From now on an error that nothing catches ends the job, and so does a rank that leaves the others waiting."""
    show, pid = sys.excepthook, os.getpid()

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if os.getpid() != pid:  # of a child, which is no rank
            show(kind, error, trace)
            return
        end_job(exit_code(error), error=error)

    sys.excepthook = hook
    atexit.register(_end_together, pid)


def _end_together(pid: int) -> None:
    """Wait for the others at the end of the program; if they wait for this rank elsewhere, end the job."""
    if os.getpid() != pid or _mpi().Is_finalized():
        return
    _flush()
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


def watch_threads() -> Callable[[], None]:
    """An error in any thread ends the job, until the function that is returned is called."""
    show = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        show(args)
        if args.exc_type is not SystemExit:
            end_job(1, f"the thread {args.thread.name if args.thread else '?'} failed")

    threading.excepthook = hook

    def stop() -> None:
        threading.excepthook = show

    return stop


def exit_code(error: BaseException) -> int:
    """The exit code that Python gives a program that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    return 1


# credentials

# The arguments of distributed's Security, and the options of Dask that stand for them.
FIELDS = {"tls_ca_file": "distributed.comm.tls.ca-file"} | {
    f"tls_{role}_{part}": f"distributed.comm.tls.{role}.{part}"
    for role in ("client", "scheduler", "worker")
    for part in ("cert", "key")
}


@contextmanager
def shared_credentials(group: Group, limit: float | None = None) -> Iterator[dict[str, str]]:
    """Make the TLS credentials of a job on rank 0, and hand them to every rank.

    They travel sealed, each rank's with a key that only it and rank 0 know (X25519, HKDF, ChaCha20-Poly1305), because
    MPI leaves what it sends readable in shared memory. A rank keeps them in files in memory, since TLS takes files.

    Yields
    ------
    dict
        The arguments of distributed's Security. Each is the path of a file in memory, until the block ends.
    """
    require("cryptography", "mpi")
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    from distributed import Security

    private = X25519PrivateKey.generate()
    publics = group.meet("handing out of credentials", private.public_key().public_bytes_raw, limit)

    def lock(rank: int) -> ChaCha20Poly1305:
        shared = private.exchange(X25519PublicKey.from_public_bytes(publics[rank]))
        return ChaCha20Poly1305(HKDF(SHA256(), 32, None, b"scdask credentials").derive(shared))

    def seal() -> list[bytes] | None:
        if group.rank:
            return None
        security = Security.temporary()
        letter = pickle.dumps({field: getattr(security, field) for field in FIELDS})
        nonces = [os.urandom(12) for _ in publics]
        return [nonce + lock(rank).encrypt(nonce, letter, None) for rank, nonce in enumerate(nonces)]

    letters: Sequence[bytes] = group.meet("handing out of credentials", seal, limit)[0]
    letter = letters[group.rank]
    texts: dict[str, str] = pickle.loads(lock(0).decrypt(letter[:12], letter[12:], None))
    with ExitStack() as stack:
        files = {text: stack.enter_context(_in_memory(text)) for text in set(texts.values())}
        yield {field: files[text] for field, text in texts.items()}


@contextmanager
def _in_memory(text: str) -> Iterator[str]:
    """The path of a file that is on no disk, or the text itself where there are no such files, which TLS takes too."""
    if not hasattr(os, "memfd_create"):
        yield text
        return
    number = os.memfd_create("scdask")
    try:
        os.write(number, text.encode())
        yield f"/proc/self/fd/{number}"
    finally:
        os.close(number)


def hush() -> None:
    """Keep what closes, and clients that the program leaves open, from complaining of each other."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def dashboard_of(client: Any) -> tuple[str, str]:
    """The address of the dashboard on the host of the scheduler, and how to reach it from elsewhere."""
    port = client.scheduler_info()["services"]["dashboard"]
    host = client.run_on_scheduler(socket.gethostname)
    return f"http://127.0.0.1:{port}/status", f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"

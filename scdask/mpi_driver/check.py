"""What each rank of a job sees of its set-up, and measures to others; `judging` says what is wrong in it."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import math
import os
import platform
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from distributed import Security
from distributed.comm import connect, listen
from distributed.protocol import to_serialize
from distributed.utils import get_ip, silence_logging_cmgr

from .. import __version__
from ..errors import WorldError
from .credentials import shared_credentials
from .ending import end_job
from .group import RANKS, group_of, yield_core

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .group import Group

PACKAGES = ("dask", "distributed", "numpy", "numba", "mpi4py", "dask-mpi", "cryptography")
MEASURE_SECONDS = 4  # After that rank 0 lets no other rank measure its bandwidth, and no transfer takes longer.
BLOCK = 4 * 2**20  # bytes of a transfer that is measured
LONG = 0.3  # seconds of a transfer that is not repeated
REPEATS = 3
PINGS = 10
SHARED_MEMORY = Path("/dev/shm")
TAG = 21  # of our messages over MPI
CLOCK = Struct("d")


@dataclass
class Link:
    """What a connection to another rank did: seconds of a round trip, bytes a second, or why there is none."""

    round_trip: float | None = None
    bandwidth: float | None = None
    error: str = ""


@dataclass
class Report:
    """What a rank sees of its set-up. Memory is in bytes, times are in seconds; what is not known is None."""

    rank: int
    host: str
    boot: str
    mpi: str
    thread_level: str
    versions: dict[str, str]  # "" of what is not installed
    environment: str
    source: str
    source_sum: int
    cores: list[int]
    cores_of_launcher: int
    open_files: int | None
    shared_memory: int | None
    shared_memory_free: int | None
    numba_cache: str  # "" if there is no folder that Numba can write to
    folder: str
    folder_shared: bool | None = None
    threads: int = 1
    memory: int = 0
    interface: str = ""
    address: str = ""
    no_address: str = ""  # why it has none
    clock: float = 0.0  # by how much it is ahead of rank 0's
    to_root: Link | None = None
    to_next: Link | None = None
    over_mpi: Link | None = None

    @property
    def machine(self) -> tuple[str, str]:
        """What tells its host from the others: hosts may have the same name, but not the same boot."""
        return self.host, self.boot


# The process that a Watch starts
WATCHER = """
import os, select, sys, time
start, step = time.monotonic(), "its start"
who, seconds = sys.argv[1], float(sys.argv[2])
while select.select([0], [], [], max(0, start + seconds - time.monotonic()))[0]:
    read = os.read(0, 4096).decode()
    if not read:
        sys.exit()
    step = read.splitlines()[-1]
print(f"scdask: {who} is after {seconds:g} seconds still at {step}", file=sys.stderr)
"""


class Watch:
    """Ends this process with code 1 if it is not done after some seconds, and says where it is.

    This also works where MPI hangs without letting any Python run, as in its start.
    """

    def __init__(self, seconds: float, who: str) -> None:
        self.end = time.monotonic() + seconds
        self.patience = seconds / 4  # for a connection
        self._teller = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHER, who, str(seconds)], stdin=subprocess.PIPE, bufsize=0
        )
        self._nothing = os.open(os.devnull, os.O_WRONLY)
        faulthandler.dump_traceback_later(seconds + 1, exit=True, file=self._nothing)

    def step(self, what: str) -> float:
        """Note what begins; gives the seconds that are left for it."""
        assert self._teller.stdin
        self._teller.stdin.write(f"{what}\n".encode())
        return max(1.0, self.end - time.monotonic() - 1)

    def close(self) -> None:
        """Watch no more."""
        faulthandler.cancel_dump_traceback_later()
        os.close(self._nothing)
        self._teller.communicate()


def check(interface: str | None, timeout: float) -> tuple[int, list[Report]]:
    """Look at the set-up of this job; all ranks call it.

    Parameters
    ----------
    interface : str, optional
        The network interface that the ranks are to use; by default what a session takes.
    timeout : float
        Seconds after which the job is ended.

    Returns
    -------
    rank : int
        The number of this rank.
    reports : list of Report
        What all ranks found, in their order.

    Raises
    ------
    WorldError
        If MPI cannot start, or the launcher and the MPI library do not know each other.
    MissingBackendError
        If mpi4py is not installed.
    """
    rank = next((os.environ[name] for name in (*RANKS, "SLURM_PROCID") if name in os.environ), "0")
    who = f"rank {rank} on {socket.gethostname()}"
    watch = Watch(timeout, who)
    try:
        watch.step("the start of MPI: its launcher is of another MPI or version, or a host does not reach the others")
        try:
            group = group_of()
        except WorldError as error:
            raise WorldError(f"{who}: {error}") from error
        return group.rank, _check(group, interface, watch)
    finally:
        watch.close()


def _check(group: Group, interface: str | None, watch: Watch) -> list[Report]:
    mine = look(group)
    share = group.share_of_host(timeout=watch.step("a look at the hosts"))
    mine.threads, mine.memory = share.threads, share.memory
    try:
        mine.interface, mine.address = listening_address(interface, share.one_host)
    except (WorldError, OSError) as error:  # The name of this host may lead nowhere.
        mine.no_address = str(error)
    with _file_here(group.rank == 0) as name:
        reports, names = zip(*group.meet("the reports", lambda: (mine, name), watch.step("the reports")), strict=True)
        mine.folder_shared = Path(names[0]).exists() if names[0] else None
        group.meet("a look at the current folder", timeout=watch.step("a look at the current folder"))
    if group.size > 1:
        if all(report.versions["cryptography"] for report in reports):
            _over_tls(group, mine, watch)
        _over_mpi(group, mine, _by_hosts(reports), watch)
    return group.meet("the results", lambda: mine, watch.step("the results"))


def look(group: Group) -> Report:
    """What this rank sees by itself."""
    from mpi4py import MPI

    vendor, numbers = MPI.get_vendor()
    boot = Path("/proc/sys/kernel/random/boot_id")
    source = Path(__file__).parents[1]
    cores, of_launcher = _cores()
    shared = shutil.disk_usage(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    return Report(
        rank=group.rank,
        host=socket.gethostname(),
        boot=boot.read_text().strip() if boot.exists() else "",
        mpi=f"{vendor} {'.'.join(map(str, numbers))}",
        thread_level=next(name for name in THREAD_LEVELS if MPI.Query_thread() == getattr(MPI, name)),
        versions={"Python": platform.python_version(), "scdask": __version__} | {p: _version(p) for p in PACKAGES},
        environment=sys.prefix,
        source=str(source),
        source_sum=_sum_of(source),
        cores=cores,
        cores_of_launcher=of_launcher,
        open_files=_open_files(),
        shared_memory=shared and shared.total,
        shared_memory_free=shared and shared.free,
        numba_cache=next((str(folder) for folder in _numba_caches(source) if _is_writable(folder)), ""),
        folder=_folder(),
    )


THREAD_LEVELS = ("THREAD_SINGLE", "THREAD_FUNNELED", "THREAD_SERIALIZED", "THREAD_MULTIPLE")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _sum_of(source: Path) -> int:
    """A sum over the names and sizes of the source files, which other files are unlikely to have."""
    files = sorted((str(path.relative_to(source)), path.stat().st_size) for path in source.rglob("*.py"))
    return zlib.crc32(repr(files).encode())


def _cores() -> tuple[list[int], int]:
    """The cores that this rank may use, and the number of those that its launcher may use."""
    if not hasattr(os, "sched_getaffinity"):
        n_cores = os.cpu_count() or 1
        return list(range(n_cores)), n_cores
    mine = os.sched_getaffinity(0)
    of_launcher = set(mine)
    with suppress(OSError):
        of_launcher |= os.sched_getaffinity(os.getppid())
    of_job = os.environ.get("SLURM_CPUS_ON_NODE", "")  # The launcher of Slurm may use those of other jobs too.
    return sorted(mine), min(len(of_launcher), int(of_job)) if of_job.isdigit() else len(of_launcher)


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # on Windows
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _numba_caches(source: Path) -> Iterator[Path]:
    """The folders that Numba tries, in its order."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given)
    yield source / "jit_kernels" / "__pycache__"
    with suppress(RuntimeError):  # There is no home folder.
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself can."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "that was removed"


def listening_address(interface: str | None, one_host: bool) -> tuple[str, str]:
    """The name of the interface, and the IPv4 address, at which this rank listens.

    Raises
    ------
    WorldError
        If this host has no such interface, or the interface no such address.
    """
    addresses = {
        name: [address.address for address in of_it if address.family == socket.AF_INET]
        for name, of_it in psutil.net_if_addrs().items()
    }
    if interface is None:
        address = "127.0.0.1" if one_host else get_ip()
        return next((name for name, of_it in addresses.items() if address in of_it), "?"), address
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names:
        raise WorldError(f"there is no network interface {interface}, only {', '.join(names)}")
    if not addresses.get(interface):
        raise WorldError(f"the network interface {interface} has no IPv4 address")
    return interface, addresses[interface][0]


@contextmanager
def _file_here(wanted: bool) -> Iterator[str]:
    """The name of a file in the current folder while the block lasts; "" if none is wanted, or can be made."""
    with ExitStack() as stack:
        name = ""
        if wanted:
            with suppress(OSError):
                name = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".scdask-check-", dir=".")).name
        yield Path(name).name


def _by_hosts(reports: tuple[Report, ...]) -> list[int]:
    """The ranks but 0, the first of each host before the second of any, so that all hosts have their turn."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for report in reports:
        seen[report.machine] = turn = seen.get(report.machine, 0) + 1
        turns.append((turn, report.rank))
    return [rank for _, rank in sorted(turns) if rank]


# Over TLS, as the parts of Dask talk


def _over_tls(group: Group, mine: Report, watch: Watch) -> None:
    """Connect to rank 0 and to the next rank, and measure."""
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        credentials = stack.enter_context(shared_credentials(group, watch.step("the handing out of credentials")))
        security = Security(require_encryption=True, **credentials)
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="scdask-check", daemon=True).start()
        stack.callback(loop.call_soon_threadsafe, loop.stop)
        listener = _Listener(mine.rank, security)

        def start() -> str:
            if not mine.address:
                return ""
            try:
                return asyncio.run_coroutine_threadsafe(listener.start(mine.address), loop).result()
            except (OSError, RuntimeError) as error:
                mine.no_address = f"nothing can listen at {mine.address} ({mine.interface}): {error}"
                return ""

        addresses = group.meet("the listeners", start, watch.step("the listeners"))
        measured = asyncio.run_coroutine_threadsafe(_connect_all(mine.rank, addresses, security, watch.patience), loop)
        watch.step("the connections to rank 0 and to the next rank")
        mine.to_root, mine.to_next = measured.result()
        group.meet("the connections", timeout=watch.step("the connections of the other ranks"))
        asyncio.run_coroutine_threadsafe(listener.stop(), loop).result()


async def _connect_all(
    rank: int, addresses: list[str], security: Security, patience: float
) -> tuple[Link | None, Link | None]:
    """The links to rank 0 and to the next rank; that to rank 0 is one, and a rank has none to itself."""

    async def link(other: int, measure: bool) -> Link | None:
        if not addresses[rank] or not addresses[other] or other == rank:
            return None
        return await _connect(other, addresses[other], security, patience, measure)

    following = (rank + 1) % len(addresses)
    return await asyncio.gather(link(0, True), link(following or rank, False))


async def _connect(rank: int, address: str, security: Security, patience: float, measure: bool) -> Link:
    """Connect to a rank, and measure a round trip, and the bandwidth too if asked to."""
    link = Link()
    try:
        async with asyncio.timeout(patience):
            comm = await connect(address, timeout=patience, **security.get_connection_args("worker"))
        try:
            async with asyncio.timeout(patience):
                for _ in range(PINGS):
                    start = time.perf_counter()
                    await comm.write("ping")
                    if (answers := await comm.read()) != rank:
                        raise OSError(f"rank {answers} answers there")
                    seconds = time.perf_counter() - start
                    link.round_trip = min(seconds, link.round_trip or seconds)
            if measure and await _has_turn(comm, patience):
                link.bandwidth = await _bandwidth(comm)
        finally:
            comm.abort()
    except Exception as error:  # The user asks what is wrong, whatever it is.
        link.error = _reason(error)
    return link


async def _has_turn(comm: Any, patience: float) -> bool:
    with suppress(TimeoutError):  # Others were slow: this says nothing of this rank.
        async with asyncio.timeout(patience):
            await comm.write("measure")
            return bool(await comm.read())
    return False


async def _bandwidth(comm: Any) -> float:
    block = np.random.default_rng().integers(0, 255, BLOCK, np.uint8)
    quickest = math.inf
    try:
        async with asyncio.timeout(MEASURE_SECONDS):
            for _ in range(REPEATS):
                start = time.perf_counter()
                await comm.write({"block": to_serialize(block)})
                await comm.read()
                seconds = time.perf_counter() - start
                quickest = min(seconds, quickest)
                if seconds > LONG:
                    break
    except TimeoutError:
        if quickest == math.inf:
            raise OSError(
                f"short messages arrive, but not {BLOCK / 2**20:g} MiB in {MEASURE_SECONDS} seconds, as where "
                "a host and its switch differ in their MTU"
            ) from None
    return BLOCK / quickest


class _Listener:
    """Answers the other ranks; of those that measure, one after the other."""

    def __init__(self, rank: int, security: Security) -> None:
        self.rank = rank
        self.security = security
        self.one = asyncio.Lock()
        self.measuring = 0.0  # since when ranks measure
        self.listener: Any = None

    async def start(self, address: str) -> str:
        self.listener = listen(f"tls://{address}:0", self.answer, **self.security.get_listen_args("scheduler"))
        await self.listener.start()
        return str(self.listener.contact_address)

    async def stop(self) -> None:
        if self.listener is not None:
            self.listener.stop()

    async def answer(self, comm: Any) -> None:
        with suppress(OSError):  # The other has gone.
            while await comm.read() == "ping":
                await comm.write(self.rank)
            async with self.one:
                self.measuring = self.measuring or time.monotonic()
                if time.monotonic() > self.measuring + MEASURE_SECONDS:
                    await comm.write(False)
                    return
                await comm.write(True)
                while await comm.read():
                    await comm.write(True)


def _reason(error: BaseException) -> str:
    """Why a connection failed, in a few words."""
    while inner := error.__cause__ or getattr(error, "real_error", None):
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, TimeoutError | asyncio.CancelledError):
        return "no answer"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


# Over MPI


def _over_mpi(group: Group, mine: Report, turns: list[int], watch: Watch) -> None:
    """Let each rank measure the round trip and the bandwidth to rank 0, one after the other, while time is left."""
    timeout = watch.step("messages over MPI to rank 0")
    one, clock, block = bytearray(1), bytearray(CLOCK.size), np.zeros(BLOCK, np.uint8)

    def spin(request: Any) -> None:
        end = time.monotonic() + timeout
        while not request.Test():
            yield_core()
            if time.monotonic() > end:
                end_job(1, f"rank {mine.rank} on {mine.host} waited {timeout:.0f} seconds for a message over MPI")

    def send(what: Any, rank: int = 0) -> None:
        spin(group.comm.Isend(what, rank, TAG))

    def receive(what: Any, rank: int = 0) -> None:
        spin(group.comm.Irecv(what, rank, TAG))

    if group.rank == 0:
        end = time.monotonic() + MEASURE_SECONDS
        for rank in turns:
            measures = time.monotonic() < end
            send(bytes([measures]), rank)
            for _ in range(PINGS if measures else 0):
                receive(one, rank)
                send(CLOCK.pack(time.time()), rank)
            for _ in range(REPEATS if measures else 0):
                receive(block, rank)
                send(b"x", rank)
        return
    link = mine.over_mpi = Link()
    group.wait(group.comm.Irecv(one, 0, TAG), timeout, "its turn to send over MPI")
    if not one[0]:
        return
    for _ in range(PINGS):
        start, date = time.perf_counter(), time.time()
        send(b"x")
        receive(clock)
        seconds = time.perf_counter() - start
        if link.round_trip is None or seconds < link.round_trip:
            link.round_trip = seconds
            mine.clock = date + seconds / 2 - CLOCK.unpack(clock)[0]
    quickest = math.inf
    for _ in range(REPEATS):
        start = time.perf_counter()
        send(block)
        receive(one)
        quickest = min(quickest, time.perf_counter() - start)
    link.bandwidth = BLOCK / quickest

"""A Dask cluster in the ranks of an MPI job: the scheduler, worker and client of each."""

from __future__ import annotations

import asyncio
import getpass
import logging
import resource
import socket
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
from dask.utils import parse_bytes
from distributed import Client, Scheduler, Security, Worker
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import silence_logging_cmgr

from ..dashboard import page_of, preloaded
from ..errors import WorldError
from .addresses import address_here
from .credentials import shared_credentials
from .ending import end_job, exit_code, watch_threads
from .group import group_of
from .launch import start_seconds, turn_of
from .session import MPISession

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from .group import Group

CLOSE_SECONDS = 20
LOST_SCHEDULER_SECONDS = 3
OPEN_FILES, OPEN_FILES_A_RANK = 100, 4  # of the scheduler's process
RANK = "scdask-rank"  # what the scheduler knows of a worker beside what Dask tells it: its rank and host
# Dask looks after itself seldom, because the cores of a rank belong to its program.
SELDOM = {"distributed.admin.tick.interval": "200ms", "distributed.worker.profile.interval": "100ms"}


class RankWorker(Worker):  # type: ignore[misc]
    """A worker of a rank: it serves no HTTP, and does not wait for tasks that run when the job ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        where = f"rank {kwargs.get('name')} on {socket.gethostname()}"
        super().__init__(*args, **{"startup_information": {RANK: lambda _: where}} | kwargs)
        logging.getLogger("distributed.worker").addFilter(_is_no_heartbeat)
        expect_late_connections()

    async def start_unsafe(self) -> Any:
        """Start the worker without loading what would serve."""
        with dask.config.set({"distributed.worker.http.routes": []}):
            return await super().start_unsafe()

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start no server."""

    async def close(self, *args: Any, executor_wait: bool = False, **kwargs: Any) -> str | None:
        """Close the worker."""
        closed: str | None = await super().close(*args, executor_wait=executor_wait, **kwargs)
        return closed


def _is_no_heartbeat(record: logging.LogRecord) -> bool:
    """Leave out that a heartbeat met a scheduler which closes or is lost, since the ranks tell each other."""
    return "heartbeat" not in record.getMessage()


def expect_late_connections() -> None:
    """Leave out that a connection was given up which another rank began before a server here closed."""
    logging.getLogger("tornado.application").addFilter(_is_no_late_connection)


def _is_no_late_connection(record: logging.LogRecord) -> bool:
    _, error, _ = record.exc_info or (None, None, None)
    return not (isinstance(error, ValueError) and "non-started TCPListener" in str(error))


class Watch(SchedulerPlugin):  # type: ignore[misc]
    """Ends the job when a worker, or the client of the program, is lost, for launchers that do not."""

    name = "scdask-watch"

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.closing = False
        self.client: str | None = None
        self.ranks: dict[str, str] = {}

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Remember whose worker it is."""
        self.ranks[worker] = scheduler.workers[worker].extra.get(RANK, worker)

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """End the job, because a worker has left."""
        self._end(f"the worker of {self.ranks.get(worker, worker)} is lost")

    def remove_client(self, scheduler: Any, client: str, **kwargs: Any) -> None:
        """End the job if the client that has left is the program's."""
        if client == self.client:
            self._end("the program is lost")

    def _end(self, message: str) -> None:
        if self.scheduler.status.name == "running" and not self.closing:
            end_job(1, message)


class LoopThread:
    """An event loop in a thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._go_on, name=name, daemon=True)
        self.thread.start()

    def _go_on(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as error:  # A task has raised SystemExit or KeyboardInterrupt.
            end_job(exit_code(error) or 1, "a task has ended its worker", error)

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        """The result of a coroutine that runs in the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        """End the loop and its thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=5)


@contextmanager
def mpi_session(
    comm: Any = None,
    *,
    threads: int | None = None,
    host: str | None = None,
    interface: str | None = None,
    memory_limit: Any = None,
    encrypted: bool = True,
    quiet: bool = False,
    timeout: float | None = None,
) -> Iterator[MPISession]:
    """Make every rank of an MPI program a Dask worker too, until the block ends.

    Each rank goes on with its program, while a thread of it works for the cluster; rank 0 has the scheduler and the
    client as well. All ranks enter and leave together.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        By default all ranks.
    threads : int, optional
        Threads of each worker; by default the cores of a host over its ranks, at least 1.
    host, interface : str, optional
        Address, or network interface such as "ib0", where this rank listens. By default 127.0.0.1 where all ranks are
        on one host, otherwise the address that the host has to the outside.
    memory_limit : int or str, optional
        Memory of each worker, beyond which it writes blocks to disk; by default the memory of a host over its ranks.
    encrypted : bool
        Whether the ranks talk TLS, with credentials made for this session, that nobody else has.
    quiet : bool
        Whether not to print the address of the dashboard, which is on the loopback device of rank 0's host.
    timeout : float, optional
        Seconds within which all ranks must be there; by default Dask's option scdask.start-seconds, or 120.

    Yields
    ------
    MPISession

    Raises
    ------
    WorldError
        If the launcher and the MPI library do not know each other, the workers are not there in time, or an argument is
        none of these.
    MissingBackendError
        If a package of the extra `mpi` is not installed.

    Notes
    -----
    An error in the block, on any rank or in any of its threads, is printed and ends the job with exit code 1,
    `sys.exit(n)` with n; so does the loss of a worker.
    """
    group = group_of(comm)
    timeout = start_seconds() if timeout is None else timeout
    patience = timeout if isinstance(timeout, int | float) and timeout > 0 else None  # What it is else, the check says.
    group.meet("mpi_session", partial(_check, threads, host, interface, memory_limit, timeout), patience)
    with ExitStack() as stack:
        security = None
        if encrypted:
            credentials = stack.enter_context(shared_credentials(group, timeout))
            security = Security(require_encryption=True, **credentials)
        where = {"host": host, "interface": interface, "protocol": "tls" if encrypted else "tcp", "security": security}
        session = stack.enter_context(open_session(group, where, threads, memory_limit, timeout))
        if session.client is not None and not quiet:
            dashboard, tunnel = dashboard_of(session.client)
            page = page_of(session.client, dashboard)
            with suppress(OSError):  # Nobody may be reading.
                print(f"Dask dashboard: {dashboard} (from elsewhere: {tunnel})", file=sys.stderr)
                if page:
                    print(f"Bitstreams: {page}", file=sys.stderr)
        with _together(group):
            yield session


def _check(threads: Any, host: Any, interface: Any, memory_limit: Any, timeout: Any) -> None:
    if threads is not None and (not hasattr(threads, "__index__") or threads < 1):
        raise WorldError(f"a worker has at least one thread, not {threads!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= threading.TIMEOUT_MAX:
        raise WorldError(f"the timeout is a number of seconds, not {timeout!r}")
    for what, given in (("a host is an address", host), ("a network interface is a name", interface)):
        if not isinstance(given, str | None):
            raise WorldError(f"{what}, not {given!r}")
    try:
        if memory_limit not in (None, "auto"):
            parse_bytes(memory_limit)
    except (ValueError, TypeError, AttributeError):
        raise WorldError(f'a memory limit is a number of bytes, or such as "4 GiB", not {memory_limit!r}') from None


@contextmanager
def open_session(
    group: Group, where: dict[str, Any], threads: int | None, memory_limit: Any, timeout: float
) -> Iterator[MPISession]:
    """The session of a group, at the address and with the protocol and credentials of `where`.

    The ranks must leave the block together.
    """
    share = group.share_of_host(timeout=timeout)
    where["host"] = address_here(group, where["host"], where.pop("interface"), share.one_host, timeout)
    memory = share.memory if memory_limit is None else memory_limit
    with ExitStack() as stack:
        if group.size > 1:
            stack.callback(watch_threads())
        stack.enter_context(silence_logging_cmgr(logging.WARNING))
        for logger in map(logging.getLogger, ("distributed", "distributed.client")):
            stack.callback(logger.setLevel, logger.level)
        loop = LoopThread("scdask-session")
        stack.callback(loop.close)
        session = MPISession(group)
        cluster = _Cluster(session, loop, timeout)
        stack.callback(cluster.close)
        cluster.start(where, threads or share.threads, memory)
        yield session


@contextmanager
def _together(group: Group) -> Iterator[None]:
    """Make the ranks leave a block together, or end the job on an error of one."""
    leaving = None
    try:
        yield
    except BaseException as error:
        if group.size == 1:
            raise
        code = exit_code(error)
        if not isinstance(error, GeneratorExit) and (code or not isinstance(error, SystemExit)):
            end_job(code or 1, error=error)
        leaving = error
    group.meet("the end of the session")
    if leaving:
        raise leaving


class _Cluster:
    """The scheduler, worker and client of a rank."""

    def __init__(self, session: MPISession, loop: LoopThread, timeout: float) -> None:
        self.session = session
        self.group = session._group
        self.loop = loop
        self.timeout = timeout
        self.closing = False
        self.scheduler: Any = None
        self.watch: Watch | None = None
        self.worker: Any = None
        self.root = ""  # the rank that has the scheduler, and its host

    def start(self, where: dict[str, Any], threads: int, memory: Any) -> None:
        def scheduler() -> tuple[str, str] | None:
            if self.group.rank == 0:
                allow_connections(self.group.size)
                with _listening(where):
                    self.scheduler = self.loop.run(self._start_scheduler(where), self.timeout)
            return self.scheduler and (str(self.scheduler.address), str(self.group))

        def worker() -> str:
            options = {"nthreads": threads, "name": self.group.rank, "memory_limit": memory, **where}
            with _listening(where):
                self.worker = self.loop.run(self._start_worker(address, options), self.timeout)
            return str(self.worker.address)

        def client() -> None:
            if self.group.rank == 0:
                self._start_client(where["security"])

        address, self.root = self.group.share("the start of the scheduler", scheduler, timeout=self.timeout)
        self.session._workers = self.group.collect("the start of the workers", worker, timeout=self.timeout)
        self.group.meet("the start of the client", client, self.timeout)

    async def _start_scheduler(self, where: dict[str, Any]) -> Any:
        with dask.config.set(SELDOM), preloaded():
            scheduler = await Scheduler(**where, port=0, dashboard=True, dashboard_address="127.0.0.1:0")
        if self.group.size > 1:
            self.watch = Watch(scheduler)
            scheduler.add_plugin(self.watch)
        return scheduler

    async def _start_worker(self, address: str, options: dict[str, Any]) -> Any:
        # A paused worker would wait for memory that the program of its rank holds.
        with dask.config.set({"distributed.worker.memory.pause": False} | SELDOM):
            worker = await RankWorker(address, **options, dashboard=False, death_timeout=self.timeout)
        self.watching = asyncio.ensure_future(self._watch(worker))
        return worker

    async def _watch(self, worker: Any) -> None:
        await worker.finished()
        if self.group.size > 1 and not self.closing:
            # Of a lost host the heart knows more, and may take a little longer.
            await asyncio.sleep(LOST_SCHEDULER_SECONDS + turn_of(self.group.rank))
            end_job(1, f"the worker of {self.group} has lost the scheduler, {self.root}")

    def _start_client(self, security: Any) -> None:
        client = self.session.client = Client(self.scheduler.address, security=security, timeout=self.timeout)
        try:
            client.wait_for_workers(self.group.size, timeout=self.timeout)
        except TimeoutError as error:
            raise WorldError(f"not every rank has a worker after {self.timeout:g} seconds: {error}") from error

    def close(self) -> None:
        """Close what there is, on all ranks in step."""
        hush()
        self.closing = True
        self.session._is_open = False
        if self.watch is not None:
            self.watch.closing = True
        self.group.meet("the close of the session", timeout=CLOSE_SECONDS)
        with suppress(Exception):  # What does not close any more ends with the process.
            if self.session.client is not None:
                self.session.client.close()
            if self.worker is not None:
                self.loop.run(self.worker.close(nanny=False), CLOSE_SECONDS)
        self.group.meet("the close of the scheduler", timeout=2 * CLOSE_SECONDS)
        with suppress(Exception):
            if self.scheduler is not None:
                self.loop.run(self.scheduler.close(), CLOSE_SECONDS)
        self.session._forget()


def allow_connections(n_ranks: int) -> None:
    """Let this process have the open files that the scheduler of so many ranks needs.

    Raises
    ------
    WorldError
        If the system does not allow it.
    """
    needed = OPEN_FILES + OPEN_FILES_A_RANK * n_ranks
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise WorldError(
                f"the scheduler of {n_ranks} ranks needs {needed} open files, but {hard} are allowed: raise ulimit -n"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def _listening(where: dict[str, Any]) -> Iterator[None]:
    """Say where a server was to listen if it could not start."""
    try:
        yield
    except RuntimeError as error:
        raise WorldError(f"nothing can listen at {where['host']}: {error.__cause__ or error}") from error


def hush() -> None:
    """Silence Dask while it closes: its parts, and clients that the program left open, complain of each other."""
    for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def dashboard_of(client: Any) -> tuple[str, str]:
    """The address of the dashboard on the host of the scheduler, and how to reach it from elsewhere."""
    port = client.scheduler_info()["services"]["dashboard"]
    host = client.run_on_scheduler(socket.gethostname)
    return f"http://127.0.0.1:{port}/status", f"ssh -N -L {port}:127.0.0.1:{port} {getpass.getuser()}@{host}"

"""A Dask cluster in the ranks of an MPI job, of which one goes on with a program that knows nothing of MPI."""

from __future__ import annotations

import logging
import runpy
import signal
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Security

from .._extras import require
from ..dashboard import preloaded
from ..errors import WorldError
from .addresses import address_here, interface_of
from .credentials import FIELDS, shared_credentials
from .ending import end_job, exit_code, watch_threads
from .group import group_of
from .launch import start_seconds
from .ranks import (
    CLOSE_SECONDS,
    RankWorker,
    Watch,
    allow_connections,
    dashboard_of,
    expect_late_connections,
    hush,
    open_session,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Scheduler

    from .group import Group

CLIENT = 1  # the rank on which dask-mpi lets the program go on
STOP_SECONDS = 10  # time that the client has to close the cluster after a signal


@contextmanager
def mpi_cluster(threads: int | None = None, interface: str | None = None) -> Iterator[tuple[Any, str]]:
    """Bring a Dask cluster up in the ranks of this job, on dask-mpi. All but one rank leave the program here.

    Of three ranks or more, rank 0 is the scheduler, rank 1 goes on, and the others are workers. Of one or two, rank 0
    goes on, and all are workers too.

    Parameters
    ----------
    threads : int, optional
        Threads of each worker; by default the cores of a host over its workers.
    interface : str, optional
        Network interface such as "ib0" for the cluster; by default the loopback device where all ranks are on one host.

    Yields
    ------
    client : distributed.Client
        A client of the cluster; a `Client()` of your own finds it too.
    dashboard : str
        The address of the dashboard, and how to reach it from elsewhere.

    Raises
    ------
    WorldError
        If the launcher and the MPI library do not know each other, or the workers are not there in time.
    MissingBackendError
        If a package of the extra `mpi` is not installed.
    SystemExit
        On the other ranks, when the cluster is closed.
    """
    require("dask_mpi", "mpi")
    group = group_of()
    with shared_credentials(group, start_seconds()) as credentials, dask.config.set(_tls(credentials)):
        start = _on_dask_mpi if group.size > 2 else _on_session
        try:
            with start(group, threads, interface) as client:
                dashboard, tunnel = dashboard_of(client)
                with dask.config.set(
                    {"distributed.dashboard.link": dashboard}
                ):  # It is on loopback, wherever ranks listen.
                    yield client, f"{dashboard} (from elsewhere: {tunnel})"
        finally:
            hush()


def _tls(credentials: dict[str, str]) -> dict[str, Any]:
    """The credentials as options of Dask, which is where dask-mpi and a `Client()` look for them."""
    options = {FIELDS[field]: path for field, path in credentials.items()}
    return options | {"distributed.comm.require-encryption": True, "distributed.comm.default-scheme": "tls"}


def run_script(script: str, args: Sequence[str], threads: int | None = None, interface: str | None = None) -> None:
    """Run a Dask script in the ranks of this job, as `python script args` would, on one of them."""
    # All ranks do this, because workers import what lies beside the script.
    sys.path.insert(0, str(Path(script).resolve().parent))
    with mpi_cluster(threads, interface):
        sys.argv = [script, *args]
        try:
            runpy.run_path(script, run_name="__main__")
        except (Exception, KeyboardInterrupt) as error:
            traceback.print_exc()
            sys.exit(exit_code(error))


@contextmanager
def _on_session(group: Group, threads: int | None, interface: str | None) -> Iterator[Any]:
    where = {"host": None, "interface": interface, "protocol": "tls", "security": Security()}
    with open_session(group, where, threads, None, start_seconds()) as session:
        if session.client is None:
            _outlive_the_client()
            group.meet("the end of the job")
            sys.exit()
        try:
            with dask.config.set({"scheduler-address": session.client.scheduler.address}):
                yield session.client
        finally:
            group.meet("the end of the job")


@contextmanager
def _on_dask_mpi(group: Group, threads: int | None, interface: str | None) -> Iterator[Any]:
    from dask_mpi import initialize

    timeout = start_seconds()
    share = group.share_of_host(first_worker=2, timeout=timeout)
    address = address_here(group, None, interface, share.one_host, timeout)
    group.make("a look at the limits", lambda: allow_connections(group.size) if group.rank == 0 else None)
    logging.getLogger("distributed").setLevel(logging.WARNING if group.rank == CLIENT else logging.ERROR)
    group.meet("a look at the dashboard", _load_dashboard if group.rank == 0 else lambda: None, timeout)
    stop_watching = watch_threads()
    if group.rank != CLIENT:
        _outlive_the_client()
    try:
        with preloaded(__name__), preloaded():
            is_client = initialize(
                interface=interface_of(address),
                nthreads=threads or share.threads,
                memory_limit=share.memory,
                dashboard_address="127.0.0.1:0",
                protocol="tls",
                worker_class=f"{RankWorker.__module__}.{RankWorker.__name__}",
                worker_options={"dashboard": False, "death_timeout": timeout},
                comm=group.comm,
                exit=False,
            )
    except BaseException as error:
        end_job(exit_code(error) or 1, error=error)
    if not is_client:
        _meet_scheduler(group)
        group.meet("the end of the job")
        sys.exit()
    yield from _with_client(group, stop_watching)


def _load_dashboard() -> None:
    """Load what the scheduler will need: from then on until it is there, dask-mpi burns the cores of the others."""
    with suppress(ImportError):  # Without Bokeh there is no dashboard.
        import_module("distributed.dashboard.scheduler")


def _with_client(group: Group, stop_watching: Any) -> Iterator[Any]:
    workers = group.size - 2
    timeout = start_seconds()
    client = Client(timeout=timeout)
    code = 0
    try:
        try:
            client.wait_for_workers(workers, timeout=timeout)
        except TimeoutError as error:
            raise WorldError(f"not all {workers} workers are there after {timeout:g} seconds: {error}") from error
        client.run_on_scheduler(_expect, client.id)
        yield client
    except BaseException as error:
        code = exit_code(error)
        raise
    finally:
        stop_watching()
        watchdog = threading.Timer(2 * CLOSE_SECONDS, end_job, (code or 1, "the cluster does not close"))
        watchdog.daemon = True
        watchdog.start()
        hush()
        with suppress(Exception):
            if client.status == "running":  # The program has not closed the cluster.
                client.shutdown()
        group.meet("the end of the job")
        watchdog.cancel()


def _outlive_the_client() -> None:
    """On a signal wait for the client, which gets it too, to close the cluster; but not for ever."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: signal.alarm(STOP_SECONDS))


def _meet_scheduler(group: Group) -> None:
    """Wait for the scheduler, if it is there: then the cluster was closed, and otherwise its death ends the job."""
    if group.rank == 0:
        for rank in range(2, group.size):
            group.wait(group.comm.Isend(b"x", rank))
    else:
        group.wait(group.comm.Irecv(bytearray(1), 0), CLOSE_SECONDS, "the scheduler")


# In the scheduler


def dask_setup(scheduler: Scheduler) -> None:
    """Add the watch to the scheduler, which calls this as it starts."""
    expect_late_connections()
    scheduler.add_plugin(Watch(scheduler))


def _expect(client: str, dask_scheduler: Any) -> None:
    dask_scheduler.plugins[Watch.name].client = client

"""Where a job runs: threads of this process, a local Dask cluster, or a scheduler that is already there."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dask

from .errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Place:
    """A running scheduler: what it is, how many threads compute there, and the address of its dashboard, if any."""

    name: str
    threads: int
    dashboard: str | None = None


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_scheduler(
    scheduler: str = "local", workers: int | None = None, threads: int | None = None
) -> Iterator[Place]:
    """Make a scheduler Dask's default until the block ends, then close what was started for it.

    Parameters
    ----------
    scheduler : str
        "local": a cluster of processes on this machine, reachable from it alone. "threads": this process.
        Otherwise the address of a running scheduler, such as tcp://host:8786, or its scheduler file.
    workers, threads : int, optional
        Processes, and threads in each. By default Dask chooses them for the cores there are.

    Raises
    ------
    SchedulerError
        If the scheduler cannot be reached, or has no worker after 30 seconds.
    """
    if scheduler == "threads":
        if workers is not None:
            raise SchedulerError(f"the threads scheduler has no workers to count, but {workers} were asked for")
        count = threads or available_cores()
        with dask.config.set(scheduler="threads", num_workers=count):
            yield Place("threads", count)
        return

    from distributed import Client, LocalCluster

    if scheduler == "local":
        with (
            LocalCluster(
                n_workers=workers, threads_per_worker=threads, host="127.0.0.1", dashboard_address="127.0.0.1:0"
            ) as cluster,
            Client(cluster) as client,
        ):
            yield _place("local", client)
        return
    if workers is not None or threads is not None:
        raise SchedulerError(f"the workers of {scheduler} are there already: leave their number to it")
    with _connect(scheduler) as client:
        yield _place(scheduler, client)


def _connect(scheduler: str) -> Client:
    from distributed import Client

    if "://" in scheduler:
        where = {"address": scheduler}
    elif Path(scheduler).is_file():
        where = {"scheduler_file": scheduler}
    else:
        raise SchedulerError(f'{scheduler} is not "local", "threads", an address such as tcp://host:8786, or a file')
    try:
        client = Client(**where, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SchedulerError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        raise SchedulerError(f"the scheduler at {scheduler} has no worker after {CONNECT_SECONDS} seconds") from None
    return client


def _place(name: str, client: Client) -> Place:
    return Place(name, sum(client.nthreads().values()), client.dashboard_link)


if TYPE_CHECKING:
    from distributed import Client

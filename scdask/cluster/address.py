"""A scheduler that is running already."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client

from ..computing import CONNECT_SECONDS
from ..errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running(scheduler: str, workers: int | None, threads: int | None) -> Iterator[tuple[Client, str]]:
    """Connect to a scheduler by its address or its scheduler file; yield the client and the dashboard's address."""
    if workers is not None or threads is not None:
        raise SchedulerError(f"the workers of {scheduler} are there already: leave their number to it")
    with _connect(scheduler) as client:
        yield client, client.dashboard_link


def _connect(scheduler: str) -> Client:
    address = scheduler
    if Path(scheduler).is_file():
        try:
            address = json.loads(Path(scheduler).read_text())["address"]
        except (ValueError, KeyError, TypeError) as error:
            raise SchedulerError(f"{scheduler} is no scheduler file: it names no address") from error
    elif ":" not in scheduler:
        raise SchedulerError(
            f"{scheduler} is not local, threads, cuda, mpi, slurm, an address such as tcp://host:8786, or a file"
        )
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SchedulerError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        raise SchedulerError(f"the scheduler at {scheduler} has no worker after {CONNECT_SECONDS} seconds") from None
    return client

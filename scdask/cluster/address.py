"""A scheduler that is running already."""

from __future__ import annotations

import json
from asyncio import wait_for
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Security
from distributed.core import connect
from distributed.utils import LoopRunner

from ..computing import CONNECT_SECONDS, Place
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
    if _is_file(scheduler):
        try:
            address = json.loads(Path(scheduler).read_text())["address"]
            if not isinstance(address, str):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SchedulerError(f"{scheduler} is no scheduler file: it names no address") from error
    elif ":" not in scheduler:
        raise SchedulerError(
            f"{scheduler} is not local, threads, cuda, mpi, slurm, an address such as tcp://host:8786, or a file"
        )
    try:
        kind = _kind(address)
        client = Client(address, timeout=CONNECT_SECONDS) if kind == "Scheduler" else None
    except Exception as error:  # An address that is none raises whatever its scheme does.
        reason = f"nothing of Dask's answers within {CONNECT_SECONDS} seconds" if not str(error) else error
        raise SchedulerError(f"no Dask scheduler answers at {scheduler}: {reason}") from error
    if client is None:
        raise SchedulerError(f"no Dask scheduler answers at {scheduler}, but a {kind}")
    try:
        Place(scheduler, sum(client.nthreads().values()), client=client).wait_for_worker()
    except BaseException:
        client.close()
        raise
    return client


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # It is too long for a path, or holds a null character.
        return False


def _kind(address: str) -> str:
    """What answers at an address: a "Scheduler", or another server of Dask's.

    A Client would wait for ever if what answers there does not speak Dask's protocol.
    """

    async def ask() -> Any:
        comm = await connect(address, timeout=CONNECT_SECONDS, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return await comm.read()
        finally:
            comm.abort()

    if dask.config.get("distributed.client.security-loader", None):  # Only a Client has these credentials.
        return "Scheduler"
    runner = LoopRunner()
    runner.start()
    try:
        return str(runner.run_sync(lambda: wait_for(ask(), CONNECT_SECONDS))["type"])
    finally:
        runner.stop()

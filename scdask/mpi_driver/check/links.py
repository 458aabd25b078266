"""Connections between ranks, and their speed: over TLS, as the parts of Dask talk, and over MPI."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
import time
from contextlib import ExitStack, suppress
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np
from distributed import Security
from distributed.comm import connect, listen
from distributed.protocol import to_serialize
from distributed.utils import silence_logging_cmgr

from ..credentials import shared_credentials
from ..ending import end_job
from ..group import yield_core
from ..ranks import LoopThread
from .report import Link

if TYPE_CHECKING:
    from ..group import Group
    from .job import Watch
    from .report import Report

MEASURE_SECONDS = 4  # After that rank 0 lets no other rank measure its bandwidth, and no transfer takes longer.
BLOCK = 4 * 2**20  # bytes of a transfer that is measured
LONG = 0.3  # seconds of a transfer that is not repeated
REPEATS = 3
PINGS = 10
TAG = 21  # of our messages over MPI
CLOCK = Struct("d")


def over_tls(group: Group, mine: Report, watch: Watch) -> None:
    """Connect to rank 0 and to the next rank, and measure."""
    with ExitStack() as stack:
        stack.enter_context(silence_logging_cmgr(logging.CRITICAL))
        credentials = stack.enter_context(shared_credentials(group, watch.step("the handing out of credentials")))
        security = Security(require_encryption=True, **credentials)
        loop = LoopThread("scdask-check")
        stack.callback(loop.close)
        listener = _Listener(mine.rank, security)

        def start() -> str:
            if not mine.address:
                return ""
            try:
                return str(loop.run(listener.start(mine.address)))
            except (OSError, RuntimeError) as error:
                mine.no_address = f"nothing can listen at {mine.address} ({mine.interface}): {error}"
                return ""

        addresses = group.meet("the listeners", start, watch.step("the listeners"))
        watch.step("the connections to rank 0 and to the next rank")
        mine.to_root, mine.to_next = loop.run(_connect_all(mine.rank, addresses, security, watch.patience))
        group.meet("the connections", timeout=watch.step("the connections of the other ranks"))
        loop.run(listener.stop())


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
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

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


def over_mpi(group: Group, mine: Report, turns: list[int], watch: Watch) -> None:
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

"""What computes the cells of a campaign: the threads of this process, or a cluster."""

from __future__ import annotations

import asyncio
import pickle
import queue
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from math import nan
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from ..computing import Patience, span
from ..errors import SchedulerError
from .cells import Given, run_cell, run_cells, told
from .grid import Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..computing import Place
    from .grid import Cell, Setting
    from .waves import Wave

    Unit = list[tuple[Cell, Setting]]  # cells that are one task


TOGETHER_SECONDS = 0.05  # results that come within are fetched at once, as each fetch costs a millisecond or more


class Ended(NamedTuple):
    """What a unit, or a cell of a wave, gave."""

    found: list[Found]
    killed: bool = False  # whether workers died that had it: one of its cells may have done that, or one beside it


class Threads:
    """The threads of this process."""

    def __init__(self, place: Place, given: Given) -> None:
        self.given, self.threads = given, place.threads
        self._pool = ThreadPoolExecutor(self.threads, "sweep")
        self._waves = ThreadPoolExecutor(1, "sweep-wave")
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._kept: dict[Any, Any] = {}

    def submit(self, units: Sequence[Unit], *, probe: bool) -> None:
        """Begin units of cells."""
        for unit in units:
            self._pool.submit(self._run, unit, probe)

    def _run(self, unit: Unit, probe: bool) -> None:
        found = []
        for cell, setting in unit:
            if self._stopped.is_set():
                return
            found.append(run_cell(self.given, cell, setting, probe=probe))
        self._ended.put(Ended(found))

    def submit_wave(self, wave: Wave) -> None:
        """Begin a wave, when the one before it is done."""
        self._waves.submit(self._run_wave, wave)

    def _run_wave(self, wave: Wave) -> None:
        from dask._task_spec import DataNode
        from dask.optimization import cull
        from dask.threaded import get

        cells, keys = list(wave.keys), list(wave.keys.values())
        kept = list(wave.shared)
        graph = wave.graph | {key: DataNode(key, self._kept[key]) for key in wave.graph.keys() & self._kept.keys()}
        graph, _ = cull(graph, keys + kept)
        try:
            found, values = get(graph, [keys, kept], pool=self._pool)
            self._kept = dict(zip(kept, values, strict=True))
            self._ended.put(Ended(list(found)))
        except BaseException:  # Which cell it was is found by one after the other.
            for cell, key in zip(cells, keys, strict=True):
                if self._stopped.is_set():
                    return
                try:
                    self._ended.put(Ended([get(cull(graph, [key])[0], key, pool=self._pool)]))
                except BaseException as error:
                    self._ended.put(Ended([Found(cell, {}, told(error), nan)]))

    def wait(self, seconds: float) -> list[Ended]:
        """What ended, once something has, or the time is over."""
        ended = []
        with suppress(queue.Empty):
            ended.append(self._ended.get(timeout=seconds))
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    def close(self) -> None:
        """Begin nothing more."""
        self._stopped.set()
        self._waves.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=False, cancel_futures=True)


class Cluster:
    """The workers of a Dask scheduler."""

    def __init__(self, place: Place, given: Given) -> None:
        from .giver import Giver

        assert place.client is not None
        self.threads = max(1, place.threads)
        self._client, self._place = place.client, place
        self._patience = Patience(place)
        self._name = f"sweep-{uuid4().hex[:8]}"
        # Workers that come later get it too; as what tasks depend on, it would draw them to the worker that has it.
        self._client.register_plugin(Giver(given, self._name))
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._units: dict[str, Unit] = {}
        self._futures: dict[str, Any] = {}
        self._kept: list[list[Any]] = []
        self._lost: list[Any] = []
        self._looked = time.monotonic()
        self._number = 0

    def submit(self, units: Sequence[Unit], *, probe: bool) -> None:
        """Begin units of cells."""
        from distributed.protocol.pickle import dumps  # also of what only cloudpickle can

        keys = []
        for unit in units:
            keys.append(f"{self._name}-{self._number}")
            self._number += 1
            self._units[keys[-1]] = unit
        with span("sweep"):
            futures = self._client.map(
                _run_unit, list(map(dumps, units)), key=keys, pure=False, batch_size=None, name=self._name, probe=probe
            )
        self._watch(futures)

    def submit_wave(self, wave: Wave) -> None:
        """Begin a wave."""
        if not wave.keys:
            return
        for cell, key in wave.keys.items():
            self._units[key] = [(cell, {})]
        shared = list(wave.shared)
        with span("sweep"):
            futures, kept = self._client.get(wave.graph, [list(wave.keys.values()), shared], sync=False)
        self._kept = [*self._kept[-1:], kept]
        self._watch(futures)

    def _watch(self, futures: Sequence[Any]) -> None:
        for future in futures:
            self._futures[future.key] = future
            future.add_done_callback(self._ended.put)

    def wait(self, seconds: float) -> list[Ended]:
        """What ended, once something has, or the time is over; raise a SchedulerError if there are no workers left."""
        futures = []
        with suppress(queue.Empty):
            futures.append(self._ended.get(timeout=seconds))
            time.sleep(TOGETHER_SECONDS)
            while True:
                futures.append(self._ended.get_nowait())
        # What is lost with its worker is computed again, of which there is no second callback.
        futures += self._lost
        self._lost = [future for future in futures if future.status in ("lost", "pending")]
        futures = [future for future in futures if future not in self._lost]
        if not futures:
            if time.monotonic() - self._looked > Patience.SECONDS:
                self._patience.look()
                self._count_threads()
                self._looked = time.monotonic()
            return []
        self._looked = time.monotonic()
        self._patience.forget()
        return [*map(self._failed, (f for f in futures if f.status != "finished")), *self._gathered(futures)]

    def _count_threads(self) -> None:
        self.threads = max(1, sum(self._client.nthreads().values()))

    def _gathered(self, futures: Sequence[Any]) -> list[Ended]:
        """The results of those that have one."""
        done = [future for future in futures if future.status == "finished"]
        for future in done:
            self._futures.pop(future.key, None)
        found = self._data_of(done)
        for future in done:
            self._units.pop(future.key)
        return [Ended(pickle.loads(each) if isinstance(each, bytes) else [each]) for each in found]

    def _data_of(self, futures: Sequence[Any]) -> list[Any]:
        """What futures hold, as long as there are workers, which may have to compute it again."""
        gathering = asyncio.run_coroutine_threadsafe(
            self._client.gather(futures, asynchronous=True), self._client.loop.asyncio_loop
        )
        while True:
            try:
                return list(gathering.result(Patience.SECONDS))
            except TimeoutError:
                self._patience.look()
            except CancelledError as error:
                raise SchedulerError(f"the connection to the scheduler {self._place.name} is lost") from error

    def _failed(self, future: Any) -> Ended:
        """What a unit that has no result leaves."""
        from distributed import KilledWorker

        self._futures.pop(future.key, None)
        unit = self._units.pop(future.key)
        if future.status != "error":
            raise SchedulerError(f"the connection to the scheduler {self._place.name} is lost")
        error = future.exception()
        return Ended([Found(cell, {}, told(error), nan) for cell, _ in unit], isinstance(error, KilledWorker))

    def close(self) -> None:
        """Give up what is not done."""
        with suppress(Exception):  # The scheduler may be gone.
            self._client.cancel(list(self._futures.values()), force=True)
            self._client.unregister_worker_plugin(self._name)
        self._futures.clear()
        self._lost.clear()


def _run_unit(unit: bytes, name: str, probe: bool) -> bytes:
    from distributed import get_worker

    # Of bytes the scheduler makes nothing, and Dask would send each number as a message of its own.
    return pickle.dumps(run_cells(get_worker().plugins[name].given, pickle.loads(unit), probe=probe))

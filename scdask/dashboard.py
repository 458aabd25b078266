"""The page `/scdask` of the Dask dashboard, and the same figures for Prometheus.

Every cluster that scdask starts has them. Another one has them from the start with `scdask.dashboard` in Dask's option
distributed.scheduler.preload (or `dask scheduler --preload scdask.dashboard`), a running one after `install(client)`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import dask
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from ._dispatch import METER
from .computing import TRAINING
from .errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Scheduler

PAGE = "scdask"
EPOCH = {"run", "epoch", "epochs", "loss", "train_accuracy", "test_accuracy"}  # what an event of a training has
SAMPLE_SECONDS = 1
SPAN = 2  # seconds of a worker's clock that a rate is taken over, at least
SILENT = 10  # seconds after which a worker that sends nothing is taken to do nothing
HISTORY = 300  # samples that are kept


@dataclass
class Total:
    """What was done of an operation: bits, time, streams begun, and what it took of the machine."""

    bitops: int = 0
    seconds: float = 0.0
    streams: int = 0
    uses: dict[str, float] = field(default_factory=dict)

    def add(self, other: Total) -> None:
        """Add what was done elsewhere."""
        self.bitops += other.bitops
        self.seconds += other.seconds
        self.streams += other.streams
        for name, amount in other.uses.items():
            self.uses[name] = self.uses.get(name, 0.0) + amount


Totals = dict[tuple[str, str], Total]  # by operation and kernels


@dataclass
class Report:
    """What a worker said last, and its rates since a few seconds before, in bit operations a second."""

    time: float
    totals: Totals
    held: int
    simd: list[str]
    limits: dict[str, float] | None
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Of all operations together."""
        return sum(self.rates.values())


class Monitor(SchedulerPlugin):  # type: ignore[misc]
    """Gathers what workers count, and shows it.

    Attributes
    ----------
    reports : dict of str to Report
        Of the workers that there are, by address.
    history : deque of (float, dict of str to float)
        Time, by `time.monotonic`, and the rate of each worker then.
    """

    name = "scdask-monitor"

    def __init__(self, scheduler: Scheduler) -> None:
        from tornado.ioloop import PeriodicCallback

        self.scheduler = scheduler
        self.reports: dict[str, Report] = {}
        self.history: deque[tuple[float, dict[str, float]]] = deque(maxlen=HISTORY)
        self.has_page = False
        self._workers = dict(scheduler.workers)
        self._gone: Totals = {}
        self._before: dict[str, deque[tuple[float, Counter[str]]]] = {}
        self._asked: set[str] = set()
        self._mount()
        if find_spec("prometheus_client"):
            _publish(self)
        self._sampling = PeriodicCallback(self.sample, SAMPLE_SECONDS * 1000)
        self._sampling.start()

    async def before_close(self) -> None:
        """Stop, before the scheduler does."""
        self._sampling.stop()
        _MONITORS.discard(self)

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Remember a worker, whose last report is to be found when it has left."""
        self._workers[worker] = scheduler.workers[worker]

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Keep the totals of a worker that leaves, as of its last heartbeat."""
        self._take(worker, self._workers.pop(worker))
        report = self.reports.pop(worker, None)
        self._before.pop(worker, None)
        self._asked.discard(worker)
        if report is not None:
            _merge(self._gone, report.totals)

    def sample(self) -> None:
        """Take in what the workers sent."""
        for address, worker in self._workers.items():
            self._take(address, worker)
        rates = {address: report.rate for address, report in self.reports.items()}
        self.history.append((time.monotonic(), rates))

    def _take(self, address: str, worker: Any) -> None:
        sent = worker.metrics.get(METER)
        if not sent:
            return
        totals = {
            (operation, kernels): Total(int(bitops), seconds, int(streams), uses)
            for operation, kernels, bitops, seconds, streams, uses in sent["totals"]
        }
        report = Report(sent["time"], totals, sent["held"], list(sent["simd"]), sent["limits"])
        before = self._before.setdefault(address, deque())
        counts: Counter[str] = Counter()
        for (operation, _), total in totals.items():
            counts[operation] += total.bitops
        if not before or report.time > before[-1][0]:
            before.append((report.time, counts))
        while len(before) > 2 and before[-1][0] - before[1][0] >= SPAN:
            before.popleft()
        then, counted = before[0]
        if report.time > then and time.time() - worker.last_seen < SILENT:
            report.rates = {name: (n - counted[name]) / (report.time - then) for name, n in counts.items()}
        self.reports[address] = report

    def totals(self) -> Totals:
        """What was done on the cluster since it has the page, on workers that left too, up to their last heartbeat."""
        totals: Totals = {}
        _merge(totals, self._gone)
        for report in self.reports.values():
            _merge(totals, report.totals)
        return totals

    def shares(self) -> dict[tuple[str, str], float]:
        """By operation and kernels: the time at the limits of the workers over the time that it took."""
        shortest: dict[tuple[str, str], float] = {}
        seconds: dict[tuple[str, str], float] = {}
        for report in self.reports.values():
            limits = report.limits or {}
            for key, total in report.totals.items() if limits else ():
                if key[1] == "numpy":  # the limits are those of a thread of the processor
                    least = sum(amount / limits[name] for name, amount in total.uses.items())
                    shortest[key] = shortest.get(key, 0.0) + least
                    seconds[key] = seconds.get(key, 0.0) + total.seconds
        return {key: shortest[key] / seconds[key] for key in seconds if seconds[key]}

    async def ask_for_limits(self) -> None:
        """Have the workers that have computed something measure their limits, once."""
        from ._meter import measure_limits

        unasked = [address for address, report in self.reports.items() if report.totals and address not in self._asked]
        if unasked:
            self._asked.update(unasked)
            function = dumps(measure_limits)
            await self.scheduler.broadcast(msg={"op": "run", "function": function}, workers=unasked, on_error="ignore")

    def epochs(self) -> list[dict[str, Any]]:
        """What trainings logged, the oldest epoch first."""
        events = [event for _, event in self.scheduler.get_events(TRAINING)]
        return [event for event in events if isinstance(event, dict) and event.keys() >= EPOCH]

    def _mount(self) -> None:
        """Add the page to the server of the dashboard, and to its bar of links."""
        bokeh = next((a for a in self.scheduler.http_application.applications if hasattr(a, "prefix")), None)
        if bokeh is None:
            return  # Bokeh is not installed, or the dashboard is switched off
        from distributed.dashboard.core import BokehApplication
        from distributed.dashboard.scheduler import template_variables
        from tornado.ioloop import IOLoop

        from ._page import show

        variables = template_variables(self.scheduler)
        variables["pages"].append(PAGE)
        page = BokehApplication({f"/{PAGE}": show}, self.scheduler, bokeh.prefix, variables)
        self.scheduler.http_application.add_application(page)
        page.initialize(IOLoop.current())
        page.start()
        self.has_page = True


def _merge(totals: Totals, others: Totals) -> None:
    for key, other in others.items():
        totals.setdefault(key, Total()).add(other)


async def dask_setup(scheduler: Scheduler) -> None:
    """Called by a scheduler that has this module as a preload."""
    if Monitor.name not in scheduler.plugins:
        from ._meter import Meter

        scheduler.add_plugin(Monitor(scheduler), name=Monitor.name)
        await scheduler.register_worker_plugin(None, dumps(Meter()), METER, idempotent=True)


@contextmanager
def preloaded(module: str = __name__) -> Iterator[None]:
    """Schedulers that start in the block preload a module; by default this one, and have the page."""
    modules = dask.config.get("distributed.scheduler.preload")
    with dask.config.set({"distributed.scheduler.preload": [*modules, module]}):
        yield


def install(client: Client) -> str:
    """Add the page to the dashboard of a running cluster, unless it is there.

    Parameters
    ----------
    client : distributed.Client
        Of a scheduler that can import this version of scdask, as can its workers.

    Returns
    -------
    str
        The address of the page. An asynchronous client gives an awaitable of it.

    Raises
    ------
    SchedulerError
        If the scheduler has no dashboard. The workers count nevertheless, for Prometheus.
    """
    return client.sync(_install, client)  # type: ignore[no-any-return]


async def _install(client: Client) -> str:
    await client.run_on_scheduler(_set_up)
    address = await _address(client, None)
    if address is None:
        raise SchedulerError(
            f"the scheduler at {client.scheduler.address} has no dashboard: is bokeh installed there, "
            "and the dashboard not switched off?"
        )
    return address


async def _set_up(dask_scheduler: Scheduler) -> None:
    await dask_setup(dask_scheduler)


def page_of(client: Client, dashboard: str | None = None) -> str | None:
    """The address of the page beside the dashboard's first page, if the scheduler of a client has it."""
    return client.sync(_address, client, dashboard)  # type: ignore[no-any-return]


async def _address(client: Client, dashboard: str | None) -> str | None:
    has_page = await client.run_on_scheduler(_has_page)
    return f"{(dashboard or client.dashboard_link).rpartition('/')[0]}/{PAGE}" if has_page else None


def _has_page(dask_scheduler: Scheduler) -> bool:
    return getattr(dask_scheduler.plugins.get(Monitor.name), "has_page", False)


# Prometheus

_MONITORS: set[Monitor] = set()  # of this process, whose metrics are those of all its schedulers


def _publish(monitor: Monitor) -> None:
    from prometheus_client import REGISTRY

    if not _collector:
        _collector.append(_Collector())
        REGISTRY.register(_collector[0])
    _MONITORS.add(monitor)


class _Collector:
    def describe(self) -> list[Any]:
        return []  # so that the registry does not collect to learn the names

    def collect(self) -> Iterator[Any]:
        """The counters of each worker, and the bytes that it holds."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        labels = ["worker", "op", "backend"]
        bitops = CounterMetricFamily("scdask_bitops", "Bits generated, gated, counted or packed.", labels=labels)
        seconds = CounterMetricFamily("scdask_kernel_seconds", "Time in kernels.", labels=labels)
        streams = CounterMetricFamily("scdask_streams_encoded", "Streams encoded.", labels=["worker", "backend"])
        held = GaugeMetricFamily("scdask_words_bytes", "Packed words in memory.", labels=["worker"])
        for monitor in _MONITORS:
            for address, report in monitor.reports.items():
                for (operation, kernels), total in report.totals.items():
                    bitops.add_metric([address, operation, kernels], total.bitops)
                    seconds.add_metric([address, operation, kernels], total.seconds)
                    if operation == "encode":
                        streams.add_metric([address, kernels], total.streams)
                held.add_metric([address], report.held)
        yield from (bitops, seconds, streams, held)


_collector: list[_Collector] = []

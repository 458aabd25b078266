"""What the scheduler gathers from the counts of its workers."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.protocol.pickle import dumps

from ..computing import EARLY_EXIT, SWEEP, TRAINING
from ..core.metering import METER
from .meter import measure_limits

if TYPE_CHECKING:
    from distributed import Scheduler

EPOCH = {"run", "epoch", "epochs", "loss", "train_accuracy", "test_accuracy"}  # keys of a training's event
CHUNK = {"run", "name", "length", "of", "start", "samples", "right", "cycles"}  # keys of an early exit's event
TOLD = {"run", "name", "total", "done", "failed", "running", "rate", "left", "figure"}  # keys of a campaign's event
RUNS = 8  # inferences with early exit, and campaigns, that are kept
SAMPLE_SECONDS = 1
SPAN = 2  # least seconds of a worker's clock that a rate is taken over
SILENT = 10  # seconds after which a worker that sends nothing is taken to do nothing
HISTORY = 300  # samples that are kept


@dataclass
class Total:
    """What was done of one operation: bits, time, streams begun, and what that took of the machine."""

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


Totals = dict[tuple[str, str], Total]  # totals by operation and backend


@dataclass
class Report:
    """What a worker sent last, and its rates in the seconds before, in bit operations a second."""

    time: float
    totals: Totals
    held: int
    simd: list[str]
    limits: dict[str, float] | None
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """The rate of all operations together."""
        return sum(self.rates.values())


@dataclass
class Exits:
    """What the chunks of an inference with early exit have told so far."""

    name: str
    length: int
    of: int
    _chunks: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, event: dict[str, Any]) -> None:
        """Add a chunk; of one that was tried again, the last counts."""
        self._chunks[event["start"]] = event

    @property
    def samples(self) -> int:
        """Samples that are done."""
        return sum(event["samples"] for event in self._chunks.values())

    @property
    def accuracy(self) -> float:
        """The share of them that is right; nan for numbers."""
        right = [event["right"] for event in self._chunks.values()]
        return math.nan if None in right else sum(right) / self.samples

    @property
    def cycles(self) -> list[tuple[int, int]]:
        """Numbers of cycles, and the samples that took so many, the least first."""
        counts: Counter[int] = Counter()
        for event in self._chunks.values():
            counts.update(dict(event["cycles"]))
        return sorted(counts.items())

    @property
    def mean_cycles(self) -> float:
        """The mean over the samples."""
        return sum(n * count for n, count in self.cycles) / self.samples


@dataclass(frozen=True)
class Campaign:
    """What a campaign told last: its event, and when that came, by `time.monotonic`."""

    event: dict[str, Any]
    time: float

    @property
    def over(self) -> bool:
        """Whether no cell is left."""
        return bool(self.event["done"] + self.event["failed"] >= self.event["total"])

    @property
    def silent(self) -> float:
        """For how many seconds nothing has come of one that is not over; 0 if that is not long."""
        seconds = time.monotonic() - self.time
        return 0.0 if self.over or seconds < SILENT else seconds


class Monitor(SchedulerPlugin):  # type: ignore[misc]
    """Gathers what workers count, for those who show it.

    Attributes
    ----------
    scheduler : distributed.Scheduler
    reports : dict of str to Report
        What the present workers sent last, by their addresses.
    history : deque of (float, dict of str to float)
        Time, by `time.monotonic`, and the rate of each worker then.
    exits : dict of str to Exits
        The last inferences with early exit that told of themselves, the oldest first.
    campaigns : dict of str to Campaign
        The last campaigns that told of themselves, that which told last at the end.
    has_page : bool
        Whether the dashboard of the scheduler has the page.
    at_close : contextlib.ExitStack
        What is to be called before the scheduler closes.
    """

    name = "scdask-monitor"

    def __init__(self, scheduler: Scheduler, has_page: bool) -> None:
        from tornado.ioloop import PeriodicCallback

        self.scheduler = scheduler
        self.reports: dict[str, Report] = {}
        self.history: deque[tuple[float, dict[str, float]]] = deque(maxlen=HISTORY)
        self.exits: dict[str, Exits] = {}
        self.campaigns: dict[str, Campaign] = {}
        self.has_page = has_page
        self._workers = dict(scheduler.workers)
        self._gone: Totals = {}
        self._before: dict[str, deque[tuple[float, Counter[str]]]] = {}
        self._asked: set[str] = set()
        self.at_close = ExitStack()
        sampling = PeriodicCallback(self.sample, SAMPLE_SECONDS * 1000)
        sampling.start()
        self.at_close.callback(sampling.stop)

    async def before_close(self) -> None:
        """Stop before the scheduler closes."""
        self.at_close.close()

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Remember a worker, so that its last report can be found when it has left."""
        self._workers[worker] = scheduler.workers[worker]

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Keep the totals of a worker that leaves, as of its last heartbeat."""
        self._take(worker, self._workers.pop(worker))
        report = self.reports.pop(worker, None)
        self._before.pop(worker, None)
        self._asked.discard(worker)
        if report is not None:
            _merge(self._gone, report.totals)

    def log_event(self, topic: str, msg: Any) -> None:
        """Take in what a chunk of samples told, or a campaign."""
        if not isinstance(msg, dict):
            return
        if topic == SWEEP and msg.keys() >= TOLD:
            self.campaigns.pop(msg["run"], None)
            self.campaigns[msg["run"]] = Campaign(msg, time.monotonic())
        if topic == EARLY_EXIT and msg.keys() >= CHUNK:
            self.exits.setdefault(msg["run"], Exits(msg["name"], msg["length"], msg["of"])).add(msg)
        for kept in (self.exits, self.campaigns):
            while len(kept) > RUNS:
                del kept[next(iter(kept))]

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
            (operation, backend): Total(int(bitops), seconds, int(streams), uses)
            for operation, backend, bitops, seconds, streams, uses in sent["totals"]
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
        """What the cluster has done since it has the page, including workers that left, up to their last heartbeat."""
        totals: Totals = {}
        _merge(totals, self._gone)
        for report in self.reports.values():
            _merge(totals, report.totals)
        return totals

    def shares(self) -> dict[tuple[str, str], float]:
        """The shares by operation and backend: the time at the limits of the workers over the time that was taken."""
        shortest: dict[tuple[str, str], float] = {}
        seconds: dict[tuple[str, str], float] = {}
        for report in self.reports.values():
            limits = report.limits or {}
            for key, total in report.totals.items() if limits else ():
                if key[1] == "numpy":  # The limits are those of a thread of the processor.
                    least = sum(amount / limits[name] for name, amount in total.uses.items())
                    shortest[key] = shortest.get(key, 0.0) + least
                    seconds[key] = seconds.get(key, 0.0) + total.seconds
        return {key: shortest[key] / seconds[key] for key in seconds if seconds[key]}

    async def ask_for_limits(self) -> None:
        """Have the workers that have computed something measure their limits, once."""
        unasked = [address for address, report in self.reports.items() if report.totals and address not in self._asked]
        if unasked:
            self._asked.update(unasked)
            function = dumps(measure_limits)
            await self.scheduler.broadcast(msg={"op": "run", "function": function}, workers=unasked, on_error="ignore")

    def epochs(self) -> list[dict[str, Any]]:
        """What trainings logged, the oldest epoch first."""
        events = [event for _, event in self.scheduler.get_events(TRAINING)]
        return [event for event in events if isinstance(event, dict) and event.keys() >= EPOCH]


def _merge(totals: Totals, others: Totals) -> None:
    for key, other in others.items():
        totals.setdefault(key, Total()).add(other)

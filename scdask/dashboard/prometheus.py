"""The counters as metrics on the scheduler's `/metrics`, for Prometheus."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .monitor import Monitor

_MONITORS: set[Monitor] = set()  # all monitors of this process, because it has one set of metrics


def publish(monitor: Monitor) -> None:
    """Publish what a monitor gathers until its scheduler closes, if prometheus_client is installed."""
    if not find_spec("prometheus_client"):
        return
    _register()
    _MONITORS.add(monitor)
    monitor.at_close.callback(_MONITORS.discard, monitor)


@cache
def _register() -> None:
    from prometheus_client import REGISTRY

    REGISTRY.register(_Collector())


class _Collector:
    def describe(self) -> list[Any]:
        return []  # Otherwise the registry would collect, just to learn the names.

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
                for (operation, backend), total in report.totals.items():
                    bitops.add_metric([address, operation, backend], total.bitops)
                    seconds.add_metric([address, operation, backend], total.seconds)
                    if operation == "encode":
                        streams.add_metric([address, backend], total.streams)
                held.add_metric([address], report.held)
        yield from (bitops, seconds, streams, held)

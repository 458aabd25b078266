"""What a Dask worker counts of the kernels that its tasks run, and sends with its heartbeats."""

from __future__ import annotations

import time
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import WorkerPlugin

from ..core.metering import METER

MEASURED_FROM = 2**31  # least bytes of memory of a worker that measures its limits, which takes an eighth of them

if TYPE_CHECKING:
    from distributed import Worker

    from ..core.metering import Work


class Meter(WorkerPlugin):  # type: ignore[misc]
    """Totals of a worker, by operation and backend, and the packed words that it holds."""

    name = METER

    def setup(self, worker: Worker) -> None:
        """Begin to count."""
        self._data = worker.data
        self._memory = worker.memory_manager.memory_limit
        self._lock = Lock()
        self._totals: dict[tuple[str, str], list[Any]] = {}
        self._simd: list[str] = []
        self._limits: dict[str, float] | None = None
        self._measuring = False
        worker.metrics[METER] = self.report

    def teardown(self, worker: Worker) -> None:
        """Send no more counts."""
        worker.metrics.pop(METER, None)

    def add(self, backend: str, work: Work, seconds: float) -> None:
        """Count a call of a kernel that took some seconds; any thread may do so."""
        with self._lock:
            total = self._totals.setdefault((work.operation, backend), [0, 0.0, 0, {}])
            total[0] += work.bitops
            total[1] += seconds
            total[2] += work.streams
            for name, amount in work.uses.items():
                total[3][name] = total[3].get(name, 0.0) + amount

    def measure(self) -> None:
        """Measure the limits of this machine, once, beside what the worker does, if it has the memory."""
        if not self._measuring and (self._memory is None or self._memory >= MEASURED_FROM):
            self._measuring = True
            Thread(target=self._measure, name="scdask-limits", daemon=True).start()

    def _measure(self) -> None:
        from ..limits import measure_limits  # Numba, which a scheduler does without

        self._limits = vars(measure_limits())

    def report(self, worker: Worker) -> dict[str, Any]:
        """The totals for a heartbeat, in which counts are text, because its integers have 64 bits."""
        if self._totals and not self._simd:
            from ..limits import simd

            self._simd = simd()
        with self._lock:
            totals = [
                [operation, backend, str(bitops), seconds, str(streams), dict(uses)]
                for (operation, backend), (bitops, seconds, streams, uses) in self._totals.items()
            ]
        return {
            "time": time.time(),
            "totals": totals,
            # What has been written to disk does not count.
            "held": sum(map(_bytes_of_words, list(getattr(self._data, "fast", self._data).values()))),
            "simd": self._simd,
            "limits": self._limits,
        }


def _bytes_of_words(value: Any) -> int:
    """The bytes of the words of a Bitstream, or of an array that may be packed words; else 0."""
    words = getattr(value, "words", value)
    return int(words.nbytes) if getattr(words, "dtype", None) == "uint64" and hasattr(words, "nbytes") else 0


def measure_limits(dask_worker: Worker) -> None:
    """Have a worker measure its limits; this runs in its event loop."""
    dask_worker.plugins[METER].measure()

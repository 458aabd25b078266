"""The work that kernels do, and how the meters of Dask workers hear of it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .digits import DIGITS
from .words import WORD, bits_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from .words import Part

METER = "scdask"  # name of the worker plugin that adds up what the tasks do
NEAR_BYTES = 2**20  # A kernel that moves up to this many bytes stays within a second-level cache.
READ_BATCH = 8  # With fewer inputs a MAC is bound by reading its weights.


@dataclass(frozen=True)
class Work:
    """What a call of a kernel does.

    Parameters
    ----------
    operation : str
        "encode", "gate", "mac", "machine", "popcount", or "pack", which unpacking is too.
    bitops : int
        Bits generated, gated, counted or packed, or steps of machines; for a MAC pairs of bits, gated and counted.
    uses : dict
        Bit operations, digits and bytes that it takes, each by the name of the limit in `limits.Limits`.
    streams : int
        Streams that it begins to encode.
    """

    operation: str
    bitops: int
    uses: dict[str, float] = field(default_factory=dict)
    streams: int = 0


def worker_of_this_task() -> Any:
    """The Dask worker that runs this thread's task, or None."""
    module = sys.modules.get("distributed.worker")
    if module is None:
        return None
    try:
        # Where the process has no worker, nothing raises an error that would say so.
        return module.get_worker() if module.Worker._instances else None
    except (ValueError, AttributeError):  # There is no task, or distributed is still being imported.
        return None


def measured(
    worker: Any, work: Callable[..., Work], kernel: Callable[..., Any], args: Any, kwargs: Any, computed_by: Any
) -> Any:
    """Call a kernel in a task, and tell the worker what the kernel did and how long that took."""
    start = perf_counter()
    result = kernel(*args, **kwargs)
    results = result if isinstance(result, tuple) else (result,)
    backend = computed_by(chain(results, args, kwargs.values()))
    if backend is not None:
        backend.wait(result)
        _tell(worker, backend.name, work(result, *args, **kwargs), perf_counter() - start)
    return result


def _tell(worker: Any, backend: str, work: Work, seconds: float) -> None:
    meter = import_module("distributed.metrics").context_meter
    label = f"sc-{work.operation}-{backend}"
    meter.digest_metric(label, seconds, "seconds")  # Dask subtracts this from the time that it counts for the task.
    meter.digest_metric(label, work.bitops, "bitops")
    plugin = worker.plugins.get(METER)
    if plugin is not None:
        plugin.add(backend, work, seconds)


# What the primitives do


def _moved(**sizes: float) -> dict[str, float]:
    """Bytes read and written, near the core in a cache or far from it in memory."""
    distance = "near" if sum(sizes.values()) <= NEAR_BYTES else "far"
    return {f"{way}_{distance}": size for way, size in sizes.items()}


def packing(words: Any, bits: Any) -> Work:
    """The work of `contract.pack`."""
    return Work("pack", bits.size, _moved(read=bits.size, write=words.nbytes))


def unpacking(bits: Any, words: Any, length: int) -> Work:
    """The work of `contract.unpack`."""
    return Work("pack", bits.size, _moved(read=words.nbytes, write=bits.nbytes))


def gating(words: Any, kind: str, *operands: Any, length: int | None = None) -> Work:
    """The work of `contract.gate`."""
    read = sum(operand.nbytes for operand in operands)
    return Work("gate", WORD * words.size, _moved(read=read, write=words.nbytes))


def counting(counts: Any, words: Any, *digits: int) -> Work:
    """The work of `contract.word_ones`, `contract.stream_ones` and `contract.count_columns`."""
    return Work("popcount", WORD * words.size, _moved(read=words.nbytes))


def accumulating(counts: Any, weights: Any, inputs: Any, gate: str, total: int | None = None) -> Work:
    """The work of `contract.gate_counts`."""
    batch = math.prod(inputs.shape[:-2])
    bitops = WORD * batch * weights.size
    return Work("mac", bitops, {"arithmetic": bitops} if batch >= READ_BATCH else _moved(read=weights.nbytes))


def convolving(counts: Any, weights: Any, windows: Any, gate: str) -> Work:
    """The work of the MAC of windows."""
    bitops = WORD * counts.size * math.prod(weights.shape[1:])
    return Work("mac", bitops, {"arithmetic": bitops})


def stepping(results: Any, machine: Any, start: Any, *words: Any, length: int) -> Work:
    """The work of `contract.run_machine`."""
    *outputs, states = results
    read = sum(operand.nbytes for operand in words)
    return Work("machine", length * states.size, _moved(read=read, write=sum(output.nbytes for output in outputs)))


def adding(results: Any, words: Any, start: Any, *, length: int, **numbers: int) -> Work:
    """The work of `contract.accumulate`: the bits that it adds."""
    out, states = results
    return Work("machine", length * states.size * words.shape[-2], _moved(read=words.nbytes, write=out.nbytes))


def encoding(packed: Any, values: Any, sng: Any, length: int, polarity: str, part: Part) -> Work:
    """The work of `contract.encode_part`."""
    streams = math.prod(packed.shape[:-1])
    bits = streams * max(0, bits_in(part.first, part.last, length))
    uses = _moved(write=packed.nbytes) if sng.key() is None else {"digits": DIGITS * bits}
    return Work("encode", bits, uses, streams if part.first == 0 else 0)

"""What the kernels do, for the meters of Dask workers."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from importlib import import_module
from itertools import chain
from time import perf_counter
from typing import TYPE_CHECKING, Any

from .threefry import DIGITS
from .words import WORD, bits_in

if TYPE_CHECKING:
    from collections.abc import Callable

METER = "scdask"  # the name of the plugin of a worker that adds up what its tasks do
NEAR_BYTES = 2**20  # up to so many bytes moved stay in a second-level cache
READ_BATCH = 8  # inputs below which a MAC waits for its weights to be read


@dataclass(frozen=True)
class Work:
    """What a call of a kernel does.

    Parameters
    ----------
    operation : str
        "encode", "gate", "mac", "popcount", or "pack", which unpacking is too.
    bitops : int
        Bits generated, gated, counted or packed; of a MAC pairs of bits, gated and counted.
    uses : dict
        What it takes of the machine, by the names of `limits.Limits`.
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
    try:
        return module and module.get_worker()
    except (ValueError, AttributeError):  # no task, or distributed is still being imported
        return None


def measured(
    worker: Any, work: Callable[..., Work], kernel: Callable[..., Any], args: Any, kwargs: Any, computed_by: Any
) -> Any:
    """Call a kernel, and tell the worker whose task calls it what it did, and how long that took."""
    start = perf_counter()
    result = kernel(*args, **kwargs)
    backend = computed_by(chain([result], args, kwargs.values()))
    if backend is not None:
        backend.wait(result)
        _tell(worker, backend.name, work(result, *args, **kwargs), perf_counter() - start)
    return result


def _tell(worker: Any, kernels: str, work: Work, seconds: float) -> None:
    meter = import_module("distributed.metrics").context_meter
    label = f"sc-{work.operation}-{kernels}"
    meter.digest_metric(label, seconds, "seconds")  # of which Dask takes its own time for the task away
    meter.digest_metric(label, work.bitops, "bitops")
    plugin = worker.plugins.get(METER)
    if plugin is not None:
        plugin.add(kernels, work, seconds)


# What the primitives do


def _moved(**sizes: float) -> dict[str, float]:
    """Bytes read and written, of a cache or of the memory beyond."""
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


def counting(counts: Any, words: Any) -> Work:
    """The work of `contract.word_ones` and `contract.stream_ones`."""
    return Work("popcount", WORD * words.size, _moved(read=words.nbytes))


def accumulating(counts: Any, weights: Any, inputs: Any, gate: str, total: int | None = None) -> Work:
    """The work of `contract.gate_counts`."""
    batch = math.prod(inputs.shape[:-2])
    bitops = WORD * batch * weights.size
    return Work("mac", bitops, {"arithmetic": bitops} if batch >= READ_BATCH else _moved(read=weights.nbytes))


def encoding(
    packed: Any, values: Any, sng: Any, length: int, polarity: str, region: Any, shape: Any, words: tuple[int, int]
) -> Work:
    """The work of `contract.encode_region`."""
    streams = math.prod(packed.shape[:-1])
    bits = streams * max(0, bits_in(*words, length))
    uses = _moved(write=packed.nbytes) if sng.key() is None else {"digits": DIGITS * bits}
    return Work("encode", bits, uses, streams if words[0] == 0 else 0)

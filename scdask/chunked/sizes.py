"""Sizes of chunks: by the time that a task takes, unless the caller gives them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from warnings import warn

import dask
import numpy as np
from dask.array.core import PerformanceWarning, normalize_chunks
from dask.utils import parse_timedelta

from ..errors import BitstreamError

if TYPE_CHECKING:
    import dask.array as da

# One thread's rates in bits a second, only to size chunks: a task should run long enough to hide Dask's own cost.
ENCODE_RATE = 5e9
MAC_RATE = 1e12
TASK_SECONDS = 0.05  # default of the Dask option scdask.task-seconds
MANY_BLOCKS = 100_000
PLAN_SECONDS = 6e-5  # time that Dask takes to plan a block


def task_bits(rate: float) -> float:
    """The bits that a kernel of this rate handles in the time that a task should take."""
    asked = dask.config.get("scdask.task-seconds", TASK_SECONDS)
    try:
        seconds = parse_timedelta(asked)
    except (ValueError, KeyError):
        seconds = 0
    if not seconds > 0:
        raise BitstreamError(f"the Dask option scdask.task-seconds is a positive time, not {asked!r}")
    return rate * float(seconds)


def whole_if_empty(chunks: Any, shape: tuple[int, ...]) -> Any:
    """The chunks, without any that Dask is to size where there is nothing: it would divide by 0."""
    if 0 not in shape:
        return chunks
    whole = [-1 if isinstance(n, str) else n for n in (chunks if isinstance(chunks, tuple | list) else [chunks])]
    return tuple(whole) if isinstance(chunks, tuple | list) else whole[0]


def word_chunks(values: Any, n_words: int, chunks: Any) -> tuple[tuple[int, ...], ...]:
    """Chunks of the words of `values`: as asked for, or kept from the values, or by the time that a task takes."""
    shape = (*values.shape, n_words)
    by_time = isinstance(chunks, str) and chunks == "auto"
    if 0 in shape and (chunks is None or by_time):
        return tuple((n,) for n in shape)
    chunks = whole_if_empty(chunks, shape)
    most_bytes = None
    if isinstance(chunks, tuple) and len(chunks) == values.ndim:
        chunks = (*chunks, -1)
    if chunks is None:
        chunks, most_bytes = (*values.chunks, "auto"), dask.config.get("array.chunk-size")
    elif by_time:
        most_bytes = int(task_bits(ENCODE_RATE) / 8)
        chunks = (*["auto"] * values.ndim, -1 if values.ndim and 8 * n_words <= most_bytes else "auto")
    dtype = np.dtype(np.uint64)
    try:
        normal: tuple[tuple[int, ...], ...] = normalize_chunks(chunks, shape, limit=most_bytes, dtype=dtype)
    except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:  # what Dask raises
        raise BitstreamError(f"words of shape {shape} cannot have the chunks {chunks!r}: {error}") from error
    return normal


def check_known(values: Any) -> None:
    """Raise unless the number of streams is known, so that each can be numbered."""
    if any(np.isnan(n) for n in values.shape):
        raise BitstreamError("streams of unknown chunk sizes cannot be numbered: call compute_chunk_sizes() first")


def warn_of_many_blocks(words: da.Array, stacklevel: int) -> None:
    """Warn, and propose larger chunks, if encoded words have very many blocks that take far less than a task's time."""
    fewest = 64 * words.size / task_bits(ENCODE_RATE) if words.npartitions > MANY_BLOCKS else math.inf
    values = np.broadcast_to(0, words.shape[:-1])
    larger = word_chunks(values, words.shape[-1], "auto") if 2 * fewest < words.npartitions else None
    if larger:
        blocks = math.prod(map(len, larger))
        warn(
            f"streams in {words.npartitions:,} blocks take Dask about {words.npartitions * PLAN_SECONDS:.0f} "
            f'seconds to plan, and memory; in chunks={tuple(max(c) for c in larger)}, as "auto" makes them, they are '
            f"{blocks:,} block{'s' * (blocks > 1)}",
            PerformanceWarning,
            stacklevel=stacklevel,
        )

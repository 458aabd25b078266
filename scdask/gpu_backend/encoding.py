"""Encoding: comparisons of probabilities with the numbers of a generator."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.words import ONES, RANGES, WORD, tail_mask
from ..vector_ops.encoding import own_tiles, stream_numbers, table_spans
from .device import cupy, implements
from .launch import launch_over

if TYPE_CHECKING:
    from ..core.words import Part, Polarity
    from ..generators import SNG

TABLES = 16  # look-up tables of shared sequences, up to 2 MiB each, that are kept on the devices


@implements(contract.encode_part)
def encode_part(values: Any, sng: SNG, length: int, polarity: Polarity, part: Part) -> Any:
    p = cupy.ascontiguousarray(probabilities(values, polarity))
    first, last = part.first, part.last
    n_words = last - first
    out = cupy.empty((*values.shape, n_words), np.uint64)
    if not out.size:
        return out
    key = sng.key()
    if key is None and sng.own:
        rows, flat = out.reshape(p.size, n_words), p.reshape(-1)
        for tile, numbers in own_tiles(sng, length, part):
            rows[tile] = contract.pack(cupy.asarray(numbers) < flat[tile[0], None])
        return out
    if key is None:
        for start, stop in table_spans(p.size, length, part):
            ranked, table = _table(cupy.cuda.Device().id, sng, length, start, stop)
            columns = (table, table.shape[1], start // WORD - first, n_words)
            launch_over("look_up", p.size * table.shape[1], p, p.size, ranked, np.int32(len(ranked)), *columns, out)
        return out
    streams = cupy.ascontiguousarray(stream_numbers(part, cupy))
    kept = tail_mask(length) if WORD * last > length else ONES
    arguments = (np.uint64(first), n_words, *map(np.uint64, key), kept)
    launch_over("bernoulli", out.size, p, streams, p.size, *arguments, out)
    return out


@lru_cache(maxsize=TABLES)
def _table(device: int, sng: SNG, length: int, start: int, stop: int) -> tuple[Any, Any]:
    """The sorted numbers of a shared sequence, and the stream of a probability between two of them, on the device."""
    ranked, _, _, rows = sng.table(length, start, stop)
    table = cupy.asarray(ranked[: stop - start]), cupy.asarray(rows)
    cupy.cuda.get_current_stream().synchronize()  # Other CUDA streams will read it.
    return table


@implements(contract.probabilities)
def probabilities(values: Any, polarity: Polarity) -> Any:
    low, high = RANGES[polarity]
    p = values.astype(np.float64, copy=False)
    if not bool(((p >= low) & (p <= high)).all()):
        # This raises an error that says where, unless all are in the range but for rounding.
        return cupy.asarray(contract.probabilities(values.get(), polarity))
    return p if polarity == "unipolar" else (p + 1) / 2


@implements(contract.finite)
def finite(weights: Any) -> Any:
    numbers = weights.astype(np.float64, copy=False)
    if not bool(cupy.isfinite(numbers).all()):
        contract.finite(weights.get())  # This raises an error that says where.
    return numbers

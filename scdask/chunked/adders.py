"""Adders: accumulators go on from block to block along time; blocks of the streams to add are counted in a tree."""

from __future__ import annotations

from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from ..core import contract
from ..core.checks import as_words
from ..vector_ops.adders import accumulate, digits_of
from ..vector_ops.numbers import in_64_bits
from .blocks import SPLIT_EVERY, meta_of, without_empty_chunks
from .device import as_dask, implements
from .machines import Scan

COST = 1.25  # what a block takes if all of its ones are counted too, over that without


@implements(contract.accumulate)
def add(
    words: Any, start: Any, *, scale: int, offset: int, low: int, high: int, worth: int, digits: int, length: int
) -> tuple[da.Array, ...]:
    words = without_empty_chunks(as_dask(words))
    n = words.shape[-2]
    # An accumulator that is never clipped is the rest of all ones so far.
    rest = offset == low == 0 and high == scale - 1 and worth * (n // digits * (2**digits - 1)) <= scale
    if words.numblocks[-2] > 1:
        total = digits_of(n, digits)
        words, digits = count_columns(words, digits, total), total
    numbers = {"scale": scale, "offset": offset, "low": low, "high": high, "worth": worth, "digits": digits}
    maps, after = (partial(_ones, worth, digits), partial(_rest, scale)) if rest else (None, None)
    scan = Scan("sc-add", partial(_add_block, numbers), length, 1, np.int32, maps, COST, after, low == high)
    return scan.over((words,), start, summed=True)


def _add_block(numbers: dict[str, int], words: Any, start: Any, length: int) -> Any:
    return accumulate(words, start=start, length=length, **numbers)


def _ones(worth: int, digits: int, words: Any, length: int) -> Any:
    """What all ones of a block add to its accumulators."""
    ones = contract.on_host(contract.stream_ones(as_words(words)))
    return worth * (ones.reshape(*ones.shape[:-1], -1, digits) << np.arange(digits)).sum((-2, -1))


def _rest(scale: int, added: Any, states: Any) -> Any:
    return ((contract.on_host(states) + added) % scale).astype(np.int32)


@implements(contract.count_columns)
def count_columns(words: da.Array, digits: int, total: int) -> da.Array:
    axis = words.ndim - 2
    again = partial(_count, total, total)
    count = partial(
        da.reduction,
        words,
        partial(_count, digits, total),
        again,
        axis=axis,
        keepdims=True,
        combine=again,
        output_size=total,
        name="sc-add",
        dtype=words.dtype,
        split_every={axis: SPLIT_EVERY},
    )
    return in_64_bits(lambda meta: count(meta=meta), meta_of([words], words.ndim, words.dtype))


def _count(digits: int, total: int, words: Any, axis: Any, keepdims: bool) -> Any:
    return contract.count_columns(as_words(words), digits, total)

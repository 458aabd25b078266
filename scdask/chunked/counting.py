"""The ones of words and of streams: blocks are counted, and the counts added up in a tree."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.words import WORD
from ..vector_ops.counting import popcount, stream_popcount
from ..vector_ops.counting import prefix_ones as prefix_ones_of
from ..vector_ops.counting import total_ones as total_ones_of
from .blocks import add, as_they_are, axes_of, blockwise, sum_blocks
from .compat import ArraySliceDep
from .device import implements

if TYPE_CHECKING:
    import dask.array as da


@implements(contract.word_ones)
def word_ones(words: da.Array) -> da.Array:
    return blockwise("sc-popcount", popcount, axes_of(words), words, axes_of(words), dtype=np.uint8)


@implements(contract.stream_ones)
def stream_ones(words: da.Array) -> da.Array:
    return sum_blocks("sc-popcount", words, _stream_counts, words.ndim - 1)


@implements(total_ones_of)
def total_ones(words: da.Array) -> da.Array:
    return sum_blocks("sc-popcount", words, _total_count, None)


def _stream_counts(words: Any, axis: Any, keepdims: bool) -> Any:
    return stream_popcount(words)[..., None]


def _total_count(words: Any, axis: Any, keepdims: bool) -> Any:
    return add(stream_popcount(words), axis=None, keepdims=True)[..., None]


@implements(prefix_ones_of)
def prefix_ones(words: da.Array, at: tuple[int, ...]) -> da.Array:
    axes, times = axes_of(words), words.chunks[-1]
    counts = blockwise(
        "sc-popcount",
        partial(_prefix_counts, at),
        axes + "Z",
        words,
        axes,
        ArraySliceDep((times,)),
        "z",
        adjust_chunks={"z": (1,) * len(times)},
        new_axes={"Z": len(at)},
        dtype=np.int64,
    )
    return sum_blocks("sc-popcount", counts, as_they_are, words.ndim - 1)


def _prefix_counts(at: tuple[int, ...], words: Any, region: tuple[slice]) -> Any:
    first, most = WORD * region[0].start, WORD * words.shape[-1]
    return prefix_ones_of(words, tuple(min(max(bits - first, 0), most) for bits in at))[..., None, :]

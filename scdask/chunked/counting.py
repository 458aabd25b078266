"""The ones of words and of streams: blocks are counted, and the counts added up in a tree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..vector_ops.counting import popcount, stream_popcount
from ..vector_ops.counting import total_ones as total_ones_of
from .blocks import add, axes_of, blockwise, sum_blocks
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

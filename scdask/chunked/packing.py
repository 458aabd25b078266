"""Packing and unpacking of bits, block by block."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_words
from ..core.words import WORD, bits_in, words_for
from ..vector_ops import numbers
from ..vector_ops.packing import bits_between as bits_between_of
from ..vector_ops.packing import check_tail as check_words_and_tail
from ..vector_ops.packing import pack_bitstream, shifted, unpack_bitstream
from .blocks import axes_of, blockwise, in_chunk, over_words, word_regions
from .compat import ArraySliceDep
from .device import implements

if TYPE_CHECKING:
    import dask.array as da


@implements(contract.pack)
def pack(bits: da.Array) -> da.Array:
    if any(n % WORD for n in bits.chunks[-1][:-1]):
        bits = bits.rechunk({bits.ndim - 1: WORD * words_for(max(bits.chunks[-1]))})
    axes = axes_of(bits)
    n_words = tuple(words_for(n) for n in bits.chunks[-1])
    region = ArraySliceDep(bits.chunks)
    return blockwise(
        "sc-pack", _pack_block, axes, bits, axes, region, axes, adjust_chunks={"z": n_words}, dtype=np.uint64
    )


def _pack_block(bits: Any, region: tuple[slice, ...]) -> Any:
    return in_chunk(pack_bitstream, region, bits)


@implements(contract.unpack)
def unpack(words: da.Array, length: int) -> da.Array:
    bits = tuple(bits_in(region.start, region.stop, length) for region in word_regions(words))
    return over_words("sc-unpack", unpack_bitstream, [words], length, np.uint8, {"z": bits})


@implements(bits_between_of)
def bits_between(words: da.Array, start: int, stop: int) -> da.Array:
    first, shift = divmod(start, WORD)
    n = words_for(stop - start)
    low, high = words[..., first : first + n], words[..., first + 1 : first + 1 + n]
    if not shift:
        return contract.gate("mask", low, length=stop - start)
    if high.shape[-1] < n:  # No bit of the word after the last is needed: any will do.
        high = numbers.concatenate(high, low[..., -1:], axis=low.ndim - 1)
    high = high.rechunk({high.ndim - 1: low.chunks[-1]})  # The word after the last of a chunk is in the next one.
    return over_words("sc-bits", partial(_shift_block, shift), [low, high], stop - start, np.uint64)


def _shift_block(shift: int, low: Any, high: Any, length: int) -> Any:
    return shifted(as_words(low), as_words(high), shift, length)


@implements(contract.check_tail)
def check_tail(words: da.Array, length: int) -> da.Array:
    return over_words("sc-check", check_words_and_tail, [words], length, np.uint64)

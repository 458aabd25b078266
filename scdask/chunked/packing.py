"""Packing and unpacking of bits, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.words import WORD, bits_in, words_for
from ..vector_ops.packing import check_tail as check_words_and_tail
from ..vector_ops.packing import pack_bitstream, unpack_bitstream
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


@implements(contract.check_tail)
def check_tail(words: da.Array, length: int) -> da.Array:
    return over_words("sc-check", check_words_and_tail, [words], length, np.uint64)

"""The ones of words and of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import I64, LANES, V8, compiled, constant, lane_ones, load, prefetch, sum_of
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray


@implements(contract.word_ones)
def word_ones(words: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.bitwise_count(words)


@implements(contract.stream_ones)
def stream_ones(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    words = np.ascontiguousarray(words)
    out = np.zeros(words.shape[:-1], np.int64)
    if words.size:
        count_rows(words.reshape(out.size, -1), out.reshape(-1))
    return out


def _popcount_vectors(far: bool) -> Any:
    """A function that counts the ones of vectors, four at a time, with prefetches if the words are in no cache."""

    @intrinsic
    def count_vectors(typing_context, address, n_vectors):
        def codegen(context, builder, signature, args):
            address, n_vectors = args
            totals = [cgutils.alloca_once_value(builder, ir.Constant(V8, [0] * LANES)) for _ in range(4)]

            def count(here: Any, total: Any) -> None:
                builder.store(builder.add(builder.load(total), lane_ones(builder, load(builder, here))), total)

            quads = builder.lshr(n_vectors, constant(2))
            with cgutils.for_range(builder, quads) as loop:
                here = builder.add(address, builder.mul(loop.index, constant(4 * 64)))
                for q in range(4):
                    vector = builder.add(here, constant(64 * q))
                    if far:
                        prefetch(builder, vector)
                    count(vector, totals[q])
            done = builder.shl(quads, constant(2))
            with cgutils.for_range_slice(builder, done, n_vectors, constant(1), I64) as (index, _):
                count(builder.add(address, builder.mul(index, constant(64))), totals[0])
            total = builder.load(totals[0])
            for other in totals[1:]:
                total = builder.add(total, builder.load(other))
            return sum_of(builder, total)

        return types.int64(types.intp, types.intp), codegen

    return count_vectors


_count_near, _count_far = _popcount_vectors(far=False), _popcount_vectors(far=True)


@intrinsic
def _popcount_at(typing_context, address):
    def codegen(context, builder, signature, args):
        return builder.ctpop(load(builder, args[0], I64))

    return types.int64(types.intp), codegen


@compiled
def _popcount_rows(address, n_words, out):
    if n_words == 1:
        for s in range(out.size):
            out[s] = _popcount_at(address + 8 * s)
        return
    vectors = n_words // 8
    far = out.size * n_words > 2**17
    for s in range(out.size):
        row = address + 8 * s * n_words
        total = 0
        if vectors:
            total = _count_far(row, vectors) if far else _count_near(row, vectors)
        for w in range(8 * vectors, n_words):
            total += _popcount_at(row + 8 * w)
        out[s] = total


def count_rows(words: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    """Write the ones of each row of contiguous words, of any alignment, to `out` (rows,)."""
    _popcount_rows(words.ctypes.data, words.shape[-1], out)

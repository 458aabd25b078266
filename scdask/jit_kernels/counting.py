"""The ones of words and of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import (
    I64,
    address_of,
    compiled,
    constant,
    load,
    prefetch,
    readonly,
    shuffled_bytes,
    splat,
    store,
    sum_of,
    sums_of,
)
from ..core.ones import add_by_tree, byte_ones, lane_ones, popcount_word, sum_bytes
from ..core.words import WORD
from ..vector_ops.counting import prefix_ones as prefix_ones_of
from ..vector_ops.counting import watched as watched_of
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


def _total(builder: Any, address: Any, count: Any, step: int, start: Any, add: Any) -> Any:
    """Start with a vector and, for each `step` registers of `count`, take what `add(address, vector)` makes of it."""
    total = cgutils.alloca_once_value(builder, start)
    size = constant(step * start.type.count * (start.type.element.width // 8))
    with cgutils.for_range(builder, count) as loop:
        here = builder.add(address, builder.mul(loop.index, size))
        builder.store(add(here, builder.load(total)), total)
    return builder.load(total)


def _few(builder: Any, address: Any, registers: Any) -> Any:
    """The ones of up to 31 registers, of which bytes can hold the sums, in the lanes of one."""
    size = shuffled_bytes()
    kind = ir.VectorType(I64, size // 8)

    def add(here: Any, total: Any) -> Any:
        return builder.add(total, byte_ones(builder, load(builder, here, kind)))

    start = ir.Constant(ir.VectorType(ir.IntType(8), size), [0] * size)
    return sum_bytes(builder, _total(builder, address, registers, 1, start, add))


@intrinsic
def _count_few(typing_context, address, registers):
    """The ones of up to 31 registers."""

    def codegen(context, builder, signature, args):
        return sum_of(builder, _few(builder, *args))

    return types.int64(types.intp, types.intp), codegen


@intrinsic
def _count_rows(typing_context, address, registers, out):
    """Write the ones of rows of up to 31 registers each, as many rows as a register has lanes."""

    def codegen(context, builder, signature, args):
        address, registers, out = args
        size = builder.mul(registers, constant(shuffled_bytes()))
        rows = [builder.add(address, builder.mul(size, constant(row))) for row in range(shuffled_bytes() // 8)]
        store(builder, sums_of(builder, [_few(builder, row, registers) for row in rows]), out)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def _count_tree(typing_context, address, blocks):
    """The ones of blocks of 16 registers, read in four streams: memory gives more of them at once."""

    def codegen(context, builder, signature, args):
        kind = ir.VectorType(I64, shuffled_bytes() // 8)
        size = 8 * kind.count
        apart = builder.mul(args[1], constant(4 * size))
        zero = splat(builder, 0, kind.count)
        kept = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]

        def ones(words: Any) -> Any:
            return sum_bytes(builder, byte_ones(builder, words))

        def add(here: Any, total: Any) -> Any:
            registers = []
            for i in range(16):
                at = builder.add(here, builder.add(builder.mul(apart, constant(i // 4)), constant(size * (i % 4))))
                if i * size % 64 == 0:
                    prefetch(builder, at)
                registers.append(load(builder, at, kind))
            return builder.add(total, ones(add_by_tree(builder, kept, registers)))

        total = _total(builder, args[0], args[1], 4, zero, add)
        for worth in reversed(kept):
            total = builder.add(builder.shl(total, splat(builder, 1, kind.count)), ones(builder.load(worth)))
        return sum_of(builder, total)

    return types.int64(types.intp, types.intp), codegen


@intrinsic
def _count_vectors(typing_context, address, quads):
    """The ones of four vectors at a time, which the processor counts by itself."""

    def codegen(context, builder, signature, args):
        totals = [cgutils.alloca_once_value(builder, splat(builder, 0)) for _ in range(4)]
        with cgutils.for_range(builder, args[1]) as loop:
            here = builder.add(args[0], builder.mul(loop.index, constant(4 * 64)))
            for q, total in enumerate(totals):
                vector = builder.add(here, constant(64 * q))
                prefetch(builder, vector)
                builder.store(builder.add(builder.load(total), lane_ones(builder, load(builder, vector))), total)
        total = builder.load(totals[0])
        for other in totals[1:]:
            total = builder.add(total, builder.load(other))
        return sum_of(builder, total)

    return types.int64(types.intp, types.intp), codegen


@intrinsic
def _popcount_at(typing_context, address):
    def codegen(context, builder, signature, args):
        return builder.ctpop(load(builder, args[0], I64))

    return types.int64(types.intp), codegen


@compiled
def _count_words(address, out):
    """Write the ones of rows of one word."""
    for s in range(out.size):
        out[s] = _popcount_at(address + 8 * s)


@compiled
def _count_by_vectors(address, n_words, out):
    """Write the ones of rows."""
    quads = n_words // 32
    for s in range(out.size):
        row = address + 8 * s * n_words
        total = 0
        if quads:
            total = _count_vectors(row, quads)
        for w in range(32 * quads, n_words):
            total += _popcount_at(row + 8 * w)
        out[s] = total


@compiled
def _count_by_bytes(address, n_words, lanes, out):
    """Write the ones of rows, where registers have so many words."""
    blocks = n_words // (16 * lanes)
    few = n_words // lanes - 16 * blocks
    done = (16 * blocks + few) * lanes
    first = 0
    if few and few * lanes == n_words:
        first = out.size // lanes * lanes
        for s in range(0, first, lanes):
            _count_rows(address + 8 * s * n_words, few, out.ctypes.data + 8 * s)
    for s in range(first, out.size):
        row = address + 8 * s * n_words
        total = 0
        if blocks:
            total += _count_tree(row, blocks)
        if few:
            total += _count_few(row + 128 * blocks * lanes, few)
        for w in range(done, n_words):
            total += _popcount_at(row + 8 * w)
        out[s] = total


def count_rows(words: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    """Write the ones of each row of contiguous words, of any alignment, to `out` (rows,)."""
    address, n_words, size = address_of(words), words.shape[-1], shuffled_bytes()
    if n_words == 1:
        _count_words(address, out)
    elif size:
        _count_by_bytes(address, n_words, size // 8, out)
    else:
        _count_by_vectors(address, n_words, out)


@implements(prefix_ones_of)
def prefix_ones(words: NDArray[np.uint64], at: tuple[int, ...]) -> NDArray[np.int64]:
    bits = np.array(at, np.int64)
    out = np.zeros((*words.shape[:-1], len(at)), np.int64)
    if out.size:
        rows = readonly(words).reshape(-1, words.shape[-1])
        _count_prefixes(rows, bits, np.argsort(bits), out.reshape(-1, len(at)))
    return out


@compiled
def _count_prefixes(words, bits, order, out):
    for r in range(words.shape[0]):
        ones, counted = 0, 0
        for i in order:
            whole, rest = bits[i] // WORD, bits[i] % WORD
            for w in range(counted, whole):
                ones += popcount_word(words[r, w])
            counted = whole
            out[r, i] = ones
            if rest:
                out[r, i] += popcount_word(words[r, whole] << uint64(WORD - rest))


@implements(watched_of)
def watched(words: NDArray[np.uint64], watch: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    found = np.array(watch, order="C")
    if found.size:
        rows = readonly(words).reshape(-1, words.shape[-1])
        _watch(rows, found.reshape(-1, found.shape[-1]), length)
    return found


@compiled
def _watch(words, watch, length):
    for r in range(words.shape[0]):
        low, high, before, ones, last = watch[r]
        for w in range((length + WORD - 1) // WORD):
            word, n = words[r, w], min(WORD, length - WORD * w)
            more = popcount_word(word)
            start, stop = before + 1, before + n
            # Neither end can be passed within the word, if the share is far enough from it.
            if not (ones + more <= min(high * start, high * stop) and ones >= max(low * start, low * stop)):
                seen, place = ones + more, stop
                for t in range(n - 1, -1, -1):
                    if not (low * place <= seen <= high * place):
                        last = place
                        break
                    seen -= word >> uint64(t) & uint64(1)
                    place -= 1
            before, ones = stop, ones + more
        watch[r, 2], watch[r, 3], watch[r, 4] = before, ones, last

"""Encoding: comparisons of probabilities with the numbers of a generator, whole words at a time."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import (
    I64,
    LANES,
    V8,
    call_llvm,
    compiled,
    constant,
    copy_words,
    empty_words,
    load,
    readonly,
    splat,
    store,
    target_has,
    threefry_vectors,
)
from ..core.threefry import PAIR_BITS, PARITY
from ..core.words import RANGES, WORD, rounding, tail_mask
from ..errors import BitstreamError
from ..vector_ops.encoding import own_tiles, stream_numbers, table_spans
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words
    from ..core.words import Part, Polarity
    from ..generators import SNG

BLOCK = 16  # words whose levels are drawn together
PANEL = 16 * BLOCK  # words prepared together, because a vector load right after narrow stores would stall
ROW = PANEL + LANES  # words from row to row of a panel, which leave room to store whole vectors
FIRST_LEVELS = 8  # levels drawn for all words: after them one bit in 256 is undecided, and one word in five


@implements(contract.encode_part)
def encode_part(values: NDArray[Any], sng: SNG, length: int, polarity: Polarity, part: Part) -> Words:
    p = probabilities(values, polarity)
    first, last = part.first, part.last
    out = empty_words((*p.shape, last - first))
    if not out.size:
        return out
    flat, rows, key = readonly(p.reshape(-1)), out.reshape(p.size, -1), sng.key()
    if key is None and sng.own:
        for tile, numbers in own_tiles(sng, length, part):
            rows[tile] = contract.pack(numbers < flat[tile[0], None])
        return out
    if key is None:
        for start, stop in table_spans(p.size, length, part):
            look_up(flat, *sng.table(length, start, stop), start // WORD - first, rows)
        return out
    streams = readonly(stream_numbers(part).reshape(-1))
    bernoulli(flat.view(np.uint64), streams, first, *key, rows)
    if WORD * last > length:
        rows[:, -1] &= tail_mask(length)
    return out


@implements(contract.probabilities)
def probabilities(values: NDArray[Any], polarity: Polarity) -> NDArray[np.float64]:
    low, high = RANGES[polarity]
    p = values.astype(np.float64, copy=False)
    if p.size and not (p.min() >= low and p.max() <= high):  # NaN is the minimum where there is one.
        slack = rounding(values.dtype)
        outside = np.argwhere(~((p >= low - slack) & (p <= high + slack)))
        if len(outside):
            index = tuple(int(i) for i in outside[0])
            at = f" at {index}" if index else ""
            way = "" if np.isnan(p[index]) else " (np.clip would take it to the end)"
            raise BitstreamError(
                f"{polarity} streams encode {low:g} to {high:g}, but there is {values[index]}{at}{way}"
            )
        p = p.clip(low, high)
    return p if polarity == "unipolar" else (p + 1) / 2


@implements(contract.finite)
def finite(weights: NDArray[Any]) -> NDArray[np.float64]:
    numbers = weights.astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        raise BitstreamError(f"weights are finite, but there is {numbers[index]} at {index}")
    return numbers


@intrinsic
def _fill_lanes(typing_context, lanes, columns, counter0, counter1, digits):
    """Fill the first three rows of lanes for consecutive words of a stream, and up to seven columns more."""

    def codegen(context, builder, signature, args):
        lanes, columns, counter0, counter1, digits = args
        steps = ir.Constant(V8, [i << PAIR_BITS for i in range(LANES)])
        last = builder.add(splat(builder, counter1), steps)
        with cgutils.for_range_slice(builder, constant(0), columns, constant(LANES), I64) as (index, _):
            here = builder.add(lanes, builder.shl(index, constant(3)))
            along = builder.add(last, splat(builder, builder.shl(index, constant(PAIR_BITS))))
            for row, vector in enumerate((splat(builder, counter0), along, splat(builder, digits))):
                store(builder, vector, builder.add(here, constant(8 * ROW * row)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, *[types.uint64] * 3), codegen


@intrinsic
def _bernoulli_block(typing_context, lanes, key0, key1, level, levels):
    """Draw an even number of levels, from an even level on, for BLOCK words.

    `lanes` is the address of a column of uint64[6, ROW]. A column belongs to a word: it holds the two Threefry counters
    with the key added, the next binary digits of p, the bits that are undecided and those that are 1 so far, and the
    number of the word in the panel. Level 0 starts with all bits undecided. A bit compares the digits of a uniform
    number with those of p, from the highest on. The first that differ decide it: it is 1 where p has the 1. Where p has
    no digits left, the number is not below p, and the bit stays 0.
    """

    def codegen(context, builder, signature, args):
        lanes, key0, key1, level, levels = args
        first_pair = builder.lshr(level, constant(1))
        last_pair = builder.add(first_pair, builder.lshr(levels, constant(1)))
        groups = range(BLOCK // LANES)

        def address(row: int, g: int) -> Any:
            return builder.add(lanes, constant(8 * (ROW * row + LANES * g)))

        rows = [[load(builder, address(row, g)) for g in groups] for row in range(5)]
        counters0, counters1 = rows[:2]
        key2 = builder.xor(builder.xor(constant(PARITY), key0), key1)
        keys = [splat(builder, key) for key in (key0, key1, key2)]
        ones = splat(builder, -1)
        resumed = splat(builder, builder.sext(builder.icmp_unsigned("!=", level, constant(0)), I64))
        for g in groups:
            rows[3][g] = builder.or_(rows[3][g], builder.xor(resumed, ones))
            rows[4][g] = builder.and_(rows[4][g], resumed)

        entry, loop = builder.block, builder.append_basic_block("pairs")
        done = builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(I64)
        pair.add_incoming(first_pair, entry)
        states = [[builder.phi(V8) for _ in range(3)] for _ in groups]
        for g in groups:
            p, undecided, result = states[g]
            for number in threefry_vectors(
                builder, keys, counters0[g], builder.add(counters1[g], splat(builder, pair))
            ):
                digit = builder.ashr(p, splat(builder, 63))
                one = builder.and_(builder.and_(undecided, digit), builder.xor(number, ones))
                result = builder.or_(result, one)
                undecided = builder.and_(undecided, builder.xor(builder.xor(number, digit), ones))
                p = builder.shl(p, splat(builder, 1))
            for before, state, value in zip(rows[2:], states[g], (p, undecided, result), strict=True):
                state.add_incoming(before[g], entry)
                state.add_incoming(value, loop)
                before[g] = value
        next_pair = builder.add(pair, constant(1))
        pair.add_incoming(next_pair, loop)
        builder.cbranch(builder.icmp_unsigned("<", next_pair, last_pair), loop, done)
        builder.position_at_end(done)
        for i, g in product((2, 3, 4), groups):
            store(builder, rows[i][g], address(i, g))
        return context.get_dummy_value()

    return types.void(types.intp, *[types.uint64] * 4), codegen


def _store_some(context: Any, builder: Any, vector: Any, keep: Any, address: Any) -> None:
    """Store the kept lanes side by side; lanes after them, up to eight, may be overwritten."""
    if target_has("avx512f"):  # Some of these chips take a hundred cycles for the general form.
        nothing = ir.Constant(V8, ir.Undefined)
        together = call_llvm(builder, "llvm.x86.avx512.mask.compress.v8i64", V8, vector, nothing, keep)
        store(builder, together, address)
    else:
        pointer = builder.inttoptr(address, I64.as_pointer())
        call_llvm(builder, "llvm.masked.compressstore.v8i64", ir.VoidType(), vector, pointer, keep)


@intrinsic
def _keep_undecided(typing_context, lanes, kept, size, more):
    """Move the columns that need more levels to the front of `kept`, which may be `lanes`; return their number.

    Of the first `size` columns these are the ones with undecided bits, if p has digits left, or `more` is not 0.
    """

    def codegen(context, builder, signature, args):
        lanes, kept, size, more = args
        count = cgutils.alloca_once_value(builder, constant(0))
        zero = splat(builder, 0)
        with cgutils.for_range_slice(builder, constant(0), size, constant(LANES), I64) as (index, _):
            here = builder.add(lanes, builder.shl(index, constant(3)))
            rows = [load(builder, builder.add(here, constant(8 * ROW * row))) for row in range(6)]
            inside = builder.icmp_signed(
                "<", ir.Constant(V8, list(range(LANES))), splat(builder, builder.sub(size, index))
            )
            digits = builder.icmp_unsigned("!=", builder.or_(rows[2], splat(builder, more)), zero)
            keep = builder.and_(builder.and_(inside, digits), builder.icmp_unsigned("!=", rows[3], zero))
            to = builder.add(kept, builder.shl(builder.load(count), constant(3)))
            for row, vector in enumerate(rows):
                _store_some(context, builder, vector, keep, builder.add(to, constant(8 * ROW * row)))
            ones = builder.ctpop(builder.bitcast(keep, ir.IntType(8)))
            builder.store(builder.add(builder.load(count), builder.zext(ones, I64)), count)
        return builder.load(count)

    return types.int64(types.intp, types.intp, types.intp, types.uint64), codegen


@compiled
def _digits(p_bits, level):
    """Binary digits level + 1 ... level + 64 of a double in [0, 1] given by its bits, the first in the highest bit.

    1 is taken as 0.111..., so that every number below 1 is smaller.
    """
    if p_bits == _ONE:
        return ~uint64(0)
    exponent = int64(p_bits >> uint64(52))
    mantissa = p_bits & uint64(2**52 - 1)
    if exponent > 0:
        mantissa |= uint64(2**52)
    shift = int64(1075) - max(exponent, 1) - level - 64
    if shift >= 64 or shift <= -64:
        return uint64(0)
    return mantissa >> uint64(shift) if shift >= 0 else mantissa << uint64(-shift)


_ONE = np.float64(1.0).view(np.uint64)


_SHORT = np.float64(2.0**-11).view(np.uint64)  # From here up to 1, p has no digit after the 64th.


@compiled
def bernoulli(p_bits, streams, first_word, key0, key1, out):
    """Independent Bernoulli streams, exact to the last bit of p: (streams, words) from word `first_word` on.

    The random words are Threefry2x64 of the key (key0, key1) and the counter (stream, word << PAIR_BITS | level // 2).
    A panel of words draws the first levels, which nearly all need; then the few that have undecided bits are gathered
    and draw more.
    """
    n_streams, n_words = out.shape
    total = n_streams * n_words
    out_flat = out.reshape(total)
    lanes, few = np.zeros((6, ROW), np.uint64), np.zeros((6, ROW), np.uint64)
    for i in range(PANEL):
        lanes[5, i] = i
    stream = word = 0
    for start in range(0, total, PANEL):
        size = min(PANEL, total - start)
        any_long = False
        any_digit = uint64(0)
        i = 0
        while i < size:
            run = min(n_words - word, size - i)
            p = p_bits[stream]
            digits = _digits(p, 0)
            any_digit |= digits
            any_long |= 0 < p < _SHORT or p == _ONE
            counter0 = streams[stream] + key0
            counter1 = (uint64(first_word + word) << uint64(PAIR_BITS)) + key1
            if run < LANES:
                for r in range(i, i + run):
                    lanes[0, r] = counter0
                    lanes[1, r] = counter1
                    lanes[2, r] = digits
                    counter1 += uint64(1 << PAIR_BITS)
            else:
                _fill_lanes(lanes.ctypes.data + 8 * i, run, counter0, counter1, digits)
            i += run
            word += run
            if word == n_words:
                word = 0
                stream += 1
        level = FIRST_LEVELS
        while level > 2 and not any_long and any_digit << uint64(level - 2) == 0:
            level -= 2
        for block in range(0, size, BLOCK):
            _bernoulli_block(lanes.ctypes.data + 8 * block, key0, key1, uint64(0), uint64(level))
        for i in range(size):
            out_flat[start + i] = lanes[4, i]
        if not any_long and any_digit << uint64(level) == 0:
            continue
        more = ~uint64(0) if any_long else uint64(0)
        n = _keep_undecided(lanes.ctypes.data, few.ctypes.data, size, more)
        while n:
            if any_long and level % 64 == 0:
                for j in range(n):
                    few[2, j] = _digits(p_bits[(start + int64(few[5, j])) // n_words], level)
            for block in range(0, n, BLOCK):
                _bernoulli_block(few.ctypes.data + 8 * block, key0, key1, uint64(level), uint64(4))
            level += 4
            for j in range(n):
                out_flat[start + int64(few[5, j])] = few[4, j]
            n = _keep_undecided(few.ctypes.data, few.ctypes.data, n, more)


@compiled
def look_up(p, numbers, guide, stride, table, first, out):
    """out[s, first : first + table words] = the row of `table` for the count of numbers < p[s].

    `numbers` are sorted. guide[j] is the count of those below j / (len(guide) - 1), where a binary search for p starts
    in steps of `stride`, a power of two. At most 2 * stride - 1 numbers lie between two of these counts, and at the end
    at least as many above 1.
    """
    scale = float(guide.size - 1)
    n_words = table.shape[1]
    for s in range(p.size):
        k = guide[int(p[s] * scale)]
        step = stride
        while step > 1:
            k += step * (numbers[k + step - 1] < p[s])
            step >>= 1
        k += numbers[k] < p[s]
        if n_words < LANES:
            for w in range(n_words):
                out[s, first + w] = table[k, w]
        else:
            row = out.ctypes.data + 8 * (s * out.shape[1] + first)
            copy_words(row, table.ctypes.data + 8 * k * n_words, n_words)

"""Encoding: comparisons of probabilities with the numbers of a generator, whole words at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import int32, int64, types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.digits import PARITY
from ..core.llvm import (
    I64,
    LANES,
    V8,
    compiled,
    constant,
    copy_word,
    copy_words,
    empty_words,
    load,
    prefetch_words,
    readonly,
    register_lanes,
    seeded_vectors,
    sfc64_vectors,
    splat,
    store,
)
from ..core.words import RANGES, WORD, rounding, tail_mask
from ..errors import BitstreamError
from ..vector_ops.encoding import own_tiles, stream_numbers, table_spans
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words
    from ..core.words import Part, Polarity
    from ..generators import SNG

FIRST, MORE = 8, 4  # digits drawn of all words, after which one in five has undecided bits, and then of those
PANEL = 256  # words prepared together, because a vector load right after narrow stores would stall
ROW = PANEL + 2 * LANES  # words from row to row of a panel, which leave room to store whole vectors


@implements(contract.encode_part)
def encode_part(values: NDArray[Any], sng: SNG, length: int, polarity: Polarity, part: Part) -> Words:
    flat = _flat_probabilities(values, polarity)
    first, last = part.first, part.last
    out = empty_words((*values.shape, last - first))
    if not out.size:
        return out
    rows, key = out.reshape(flat.size, -1), sng.key()
    if key is None and sng.own:
        for tile, numbers in own_tiles(sng, length, part):
            rows[tile] = contract.pack(numbers < flat[tile[0], None])
        return out
    if key is None:
        for start, stop in table_spans(flat.size, length, part):
            look_up(flat, *sng.table(length, start, stop), start // WORD - first, rows)
        return out
    streams = readonly(stream_numbers(part).reshape(-1))
    bernoulli(flat.view(np.uint64), streams, first, *key, rows)
    if WORD * last > length:
        rows[:, -1] &= tail_mask(length)
    return out


@implements(contract.probabilities)
def probabilities(values: NDArray[Any], polarity: Polarity) -> NDArray[np.float64]:
    return _flat_probabilities(values, polarity).reshape(values.shape)


def _flat_probabilities(values: NDArray[Any], polarity: Polarity) -> NDArray[np.float64]:
    """The probabilities of all values in C order, as kernels take them."""
    low, high = RANGES[polarity]
    flat = readonly(values.astype(np.float64, copy=False).reshape(-1))
    if _count_outside(flat, low, high):
        p = flat.reshape(values.shape)
        slack = rounding(values.dtype)
        outside = np.argwhere(~((p >= low - slack) & (p <= high + slack)))
        if len(outside):
            index = tuple(int(i) for i in outside[0])
            at = f" at {index}" if index else ""
            way = "" if np.isnan(p[index]) else " (np.clip would take it to the end)"
            raise BitstreamError(
                f"{polarity} streams encode {low:g} to {high:g}, but there is {values[index]}{at}{way}"
            )
        flat = readonly(flat.clip(low, high))
    return flat if polarity == "unipolar" else readonly((flat + 1) / 2)


@compiled
def _count_outside(p, low, high):
    outside = 0
    for i in range(p.size):
        outside += not (p[i] >= low and p[i] <= high)  # NaN is.
    return outside


@implements(contract.finite)
def finite(weights: NDArray[Any]) -> NDArray[np.float64]:
    numbers = weights.astype(np.float64, copy=False)
    if not np.isfinite(numbers).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(numbers))[0])
        raise BitstreamError(f"weights are finite, but there is {numbers[index]} at {index}")
    return numbers


@intrinsic
def _fill_columns(typing_context, columns, count, counter0, counter1, digits):
    """Fill the columns of consecutive words of a stream, and up to seven more."""

    def codegen(context, builder, signature, args):
        columns, count, counter0, counter1, digits = args
        last = builder.add(splat(builder, counter1), ir.Constant(V8, list(range(LANES))))
        with cgutils.for_range_slice(builder, constant(0), count, constant(LANES), I64) as (index, _):
            here = builder.add(columns, builder.shl(index, constant(3)))
            along = builder.add(last, splat(builder, index))
            for row, vector in ((0, splat(builder, counter0)), (1, along), (3, splat(builder, digits))):
                store(builder, vector, builder.add(here, constant(8 * ROW * row)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, *[types.uint64] * 3), codegen


@intrinsic
def _seed_columns(typing_context, columns, size, key0, key1):
    """Put the state of SFC64 in place of the counters of the first `size` columns, and up to fifteen more."""

    def codegen(context, builder, signature, args):
        columns, size, *key = args
        lanes = 2 * LANES  # Threefry is a long chain: several registers of it must be under way.
        kind = ir.VectorType(I64, lanes)
        key.append(builder.xor(builder.xor(constant(PARITY), key[0]), key[1]))
        keys = [splat(builder, part, lanes) for part in key]
        all_ones = splat(builder, -1, lanes)
        with cgutils.for_range_slice(builder, constant(0), size, constant(lanes), I64) as (index, _):
            here = builder.add(columns, builder.shl(index, constant(3)))
            rows = [builder.add(here, constant(8 * ROW * row)) for row in range(6)]
            x0, x1, digits = (load(builder, rows[row], kind) for row in (0, 1, 3))
            one = builder.sext(builder.icmp_unsigned("==", digits, all_ones), kind)
            state = seeded_vectors(builder, keys, x0, x1)
            for row, value in zip(rows, [*state, digits, builder.xor(one, all_ones), one], strict=True):
                store(builder, value, row)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.uint64, types.uint64), codegen


def _drawing(levels: int) -> Any:
    """A function that draws so many digits of each word."""

    @intrinsic
    def draw(typing_context, columns, size, level):
        """Draw the digits from `level` on for the first `size` columns, and up to seven more.

        A bit compares the digits of a uniform number with those of p, from the highest on. The first that differ decide
        it: it is 1 where p has the 1. Where p has no digits left, the number is not below p, and the bit stays 0.
        """

        def codegen(context, builder, signature, args):
            columns, size, level = args
            lanes = register_lanes()
            kind = ir.VectorType(I64, lanes)
            counts = [splat(builder, builder.add(level, constant(i)), lanes) for i in range(levels)]
            with cgutils.for_range_slice(builder, constant(0), size, constant(lanes), I64) as (index, _):
                here = builder.add(columns, builder.shl(index, constant(3)))
                rows = [builder.add(here, constant(8 * ROW * row)) for row in range(6)]
                *state, p, undecided, result = (load(builder, row, kind) for row in rows)
                for count in counts:
                    number, state = sfc64_vectors(builder, state, count)
                    digit = builder.ashr(p, splat(builder, 63, lanes))
                    decided = builder.and_(undecided, builder.xor(number, digit))
                    result = builder.or_(result, builder.and_(decided, digit))
                    undecided = builder.xor(undecided, decided)
                    p = builder.shl(p, splat(builder, 1, lanes))
                for row, value in zip(rows, [*state, p, undecided, result], strict=True):
                    store(builder, value, row)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.uint64), codegen

    return draw


_draw_first, _draw_more = _drawing(FIRST), _drawing(MORE)


@intrinsic
def _undecided(typing_context, columns, first):
    """A word that has a bit for each of 64 columns from `first` on: 1 if it has undecided bits, and p more digits."""

    def codegen(context, builder, signature, args):
        start = builder.add(args[0], builder.shl(args[1], constant(3)))
        zero = splat(builder, 0)
        mask = constant(0)
        for i in range(WORD // LANES):
            p, undecided = (load(builder, builder.add(start, constant(8 * (ROW * row + LANES * i)))) for row in (3, 4))
            more = builder.and_(builder.icmp_unsigned("!=", p, zero), builder.icmp_unsigned("!=", undecided, zero))
            bits = builder.zext(builder.bitcast(more, ir.IntType(LANES)), I64)
            mask = builder.or_(mask, builder.shl(bits, constant(LANES * i)))
        return mask

    return types.uint64(types.intp, types.intp), codegen


@intrinsic
def _copy_column(typing_context, source, i, target, j):
    def codegen(context, builder, signature, args):
        source, i, target, j = args
        here, there = (builder.add(a, builder.shl(at, constant(3))) for a, at in ((source, i), (target, j)))
        for row in range(7):
            word = load(builder, builder.add(here, constant(8 * ROW * row)), I64)
            store(builder, word, builder.add(there, constant(8 * ROW * row)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def _lowest_one(typing_context, word):
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.cttz(
        args[0], ir.Constant(ir.IntType(1), 1)
    )


@compiled
def _gather_undecided(columns, size, few):
    """Copy those of the first `size` columns that draw more digits to the front of `few`, and return their number."""
    n = 0
    for first in range(0, size, WORD):
        mask = _undecided(columns.ctypes.data, first)
        if size - first < WORD:
            mask &= (uint64(1) << uint64(size - first)) - uint64(1)
        while mask:
            _copy_column(columns.ctypes.data, first + _lowest_one(mask), few.ctypes.data, n)
            mask &= mask - uint64(1)
            n += 1
    return n


@compiled
def digits_of(p_bits):
    """The 64 binary digits of a probability given by the bits of its double, rounded up; those of 1 are all ones."""
    if p_bits == _ONE:
        return ~uint64(0)
    exponent = int64(p_bits >> uint64(52)) & 2047  # -0 has a sign above it.
    mantissa = p_bits & uint64(2**52 - 1)
    if exponent:
        mantissa |= uint64(2**52)
    shift = 1011 - max(exponent, 1)
    if shift <= 0:
        return mantissa << uint64(-shift)
    shift = min(shift, 63)
    return mantissa + (uint64(1) << uint64(shift)) - uint64(1) >> uint64(shift)


_ONE = np.float64(1.0).view(np.uint64)


@compiled
def bernoulli(p_bits, streams, first_word, key0, key1, out):
    """Independent Bernoulli streams: (streams, words) from word `first_word` on.

    A panel of words is drawn at a time, of the key (key0, key1) and the counters (stream, word). Of each word a column
    holds the two counters, then the three words of SFC64; the digits of p; the bits that are undecided; the result; and
    its place in the panel.
    """
    n_streams, n_words = out.shape
    total = n_streams * n_words
    out_flat = out.reshape(total)
    columns, few = np.zeros((7, ROW), np.uint64), np.zeros((7, ROW), np.uint64)
    for i in range(PANEL):
        columns[6, i] = i
    stream = word = 0
    for start in range(0, total, PANEL):
        size = min(PANEL, total - start)
        i = 0
        while i < size:
            run = min(n_words - word, size - i)
            digits = digits_of(p_bits[stream])
            counter0 = streams[stream] + key0
            counter1 = uint64(first_word + word) + key1
            if run < LANES:
                for r in range(i, i + run):
                    columns[0, r] = counter0
                    columns[1, r] = counter1
                    columns[3, r] = digits
                    counter1 += uint64(1)
            else:
                _fill_columns(columns.ctypes.data + 8 * i, run, counter0, counter1, digits)
            i += run
            word += run
            if word == n_words:
                word = 0
                stream += 1
        _seed_columns(columns.ctypes.data, size, key0, key1)
        _draw_first(columns.ctypes.data, size, uint64(1))
        for i in range(size):
            out_flat[start + i] = columns[5, i]
        level = uint64(1 + FIRST)
        n = _gather_undecided(columns, size, few)
        while n:
            _draw_more(few.ctypes.data, n, level)
            for j in range(n):
                out_flat[start + int64(few[6, j])] = few[5, j]
            level += uint64(MORE)
            n = _gather_undecided(few, n, few)


@compiled
def _find_rows(p, numbers, guide, stride, rows):
    """Write how many of the numbers are below each p, as `look_up` says."""
    if stride == 0:
        n = float(numbers.size)
        least = numbers[0] * n
        for i in range(p.size):
            rows[i] = int32(np.ceil(p[i] * n - least))
        return
    scale = float(guide.size - 1)
    for i in range(p.size):
        k = guide[int64(p[i] * scale)]
        step = stride
        while step > 1:
            k += step * (numbers[k + step - 1] < p[i])
            step >>= 1
        rows[i] = k + (numbers[k] < p[i])


@compiled
def look_up(p, numbers, guide, stride, table, first, out):
    """out[s, first : first + table words] = the row of `table` for the count of numbers < p[s].

    `numbers` are sorted. If `stride` is 0 they are a + i / n, where n is a power of two and a a multiple of 2**-53, so
    that p n - a n is exact for p above a. Otherwise guide[j] is the count of those below j / (len(guide) - 1), where a
    binary search for p starts in steps of `stride`, a power of two. At most 2 * stride - 1 numbers lie between two of
    these counts, and at the end at least as many above 1.
    """
    n_words = table.shape[1]
    found = np.empty(PANEL, np.int32)
    out_row, table_at = 8 * out.shape[1], table.ctypes.data
    for start in range(0, p.size, PANEL):
        size = min(PANEL, p.size - start)
        rows = found[:size]
        _find_rows(p[start : start + size], numbers, guide, stride, rows)
        to = out.ctypes.data + out_row * start + 8 * first
        if n_words == 1:
            for i in range(size):
                copy_word(to + out_row * i, table_at + 8 * int64(rows[i]))
        elif n_words < LANES:
            for i in range(size):
                here = table_at + 8 * n_words * int64(rows[i])
                for w in range(n_words):
                    copy_word(to + out_row * i + 8 * w, here + 8 * w)
        else:
            for i in range(size):
                prefetch_words(table_at + 8 * n_words * int64(rows[min(i + 8, size - 1)]), n_words)
                copy_words(to + out_row * i, table_at + 8 * n_words * int64(rows[i]), n_words)

"""Numba kernels over one chunk of packed words.

The two public names fill an array that the caller gives; everything else is what `vector_ops` runs.
A kernel takes C-contiguous, aligned arrays of the machine's byte order. Inputs come through `readonly`, so that each
kernel is compiled once, for read-only arrays, which any array can be viewed as. LLVM's vectoriser prefers 256-bit
registers on many AVX-512 machines and gives up half of the speed there, so the inner loops are explicit vectors.
"""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import int64, njit, types, uint64, vectorize
from numba.core import cgutils
from numba.extending import intrinsic

from ._dispatch import as_numpy
from .errors import BitstreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

WORD = 64  # bits in a word
LANES = 8  # words in a vector
BLOCK = 16  # words whose levels `bernoulli` draws together
PANEL = 16 * BLOCK  # words that it prepares together: a vector load right after narrow stores would stall
ROUNDS = 13  # of Threefry2x64: the fewest that Random123 calls Crush-resistant
PAIR_BITS = 10  # of a Threefry counter hold the pair of levels: a double has 1074 levels at the most
ONES = np.uint64(2**64 - 1)

_I64 = ir.IntType(64)
_V8 = ir.VectorType(_I64, LANES)
_BYTES = ir.VectorType(ir.IntType(8), WORD)
_BITS = ir.VectorType(ir.IntType(1), WORD)


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels want their inputs: C-contiguous, aligned, native, read-only."""
    view = np.require(array, array.dtype.newbyteorder("="), ["C", "A"]).view()
    view.flags.writeable = False
    return view


def empty_words(shape: tuple[int, ...]) -> Words:
    """An uninitialised array of words that starts on a cache line, where vector stores are fastest."""
    size = math.prod(shape)
    buffer = np.empty(size + LANES, np.uint64)
    start = -(buffer.ctypes.data // 8) % LANES
    return buffer[start : start + size].reshape(shape)


def tail_mask(length: int) -> np.uint64:
    """The bits of the last word that belong to a stream of `length` bits."""
    used = length % WORD
    return np.uint64(2**used - 1) if used else ONES


# LLVM pieces


def _constant(value: int) -> Any:
    return ir.Constant(_I64, value % 2**64)


def _splat(builder: Any, value: Any) -> Any:
    if isinstance(value, int):
        return ir.Constant(_V8, [value % 2**64] * LANES)
    i32 = ir.IntType(32)
    first = builder.insert_element(ir.Constant(_V8, ir.Undefined), value, ir.Constant(i32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(i32, LANES), [0] * LANES))


def _load(builder: Any, address: Any, kind: Any = _V8, align: int = 8) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, address: Any, align: int = 8) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _llvm(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _popcount(builder: Any, vector: Any) -> Any:
    return _llvm(builder, "llvm.ctpop.v8i64", _V8, vector)


def _sum(builder: Any, vector: Any) -> Any:
    return _llvm(builder, "llvm.vector.reduce.add.v8i64", _I64, vector)


@intrinsic
def popcount_word(typing_context, word):
    """Ones of a word."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


# pack and unpack


@intrinsic
def _pack_words(typing_context, source, target, n_words):
    """Pack 64 * n_words bytes (one compare a word, vptestmb on AVX-512); return the OR of all bytes as 8 bytes."""

    def codegen(context, builder, signature, args):
        source, target, n_words = args
        seen = cgutils.alloca_once_value(builder, ir.Constant(_V8, [0] * LANES))
        zero = ir.Constant(_BYTES, [0] * WORD)
        with cgutils.for_range(builder, n_words) as loop:
            here = builder.add(source, builder.mul(loop.index, _constant(WORD)))
            bits = _load(builder, here, _BYTES, align=1)
            word = builder.bitcast(builder.icmp_unsigned("!=", bits, zero), _I64)
            _store(builder, word, builder.add(target, builder.mul(loop.index, _constant(8))))
            builder.store(builder.or_(builder.load(seen), builder.bitcast(bits, _V8)), seen)
        return _llvm(builder, "llvm.vector.reduce.or.v8i64", _I64, builder.load(seen))

    return types.uint64(types.intp, types.intp, types.intp), codegen


@njit(nogil=True, cache=True)
def pack(bits, out):
    """Pack uint8 (streams, length) into (streams, words); return the OR of all bytes, over 1 if one was no bit."""
    streams, length = bits.shape
    full = length // 64
    seen = uint64(0)
    for s in range(streams):
        seen |= _pack_words(bits.ctypes.data + s * length, out.ctypes.data + 8 * s * out.shape[1], full)
        if length % 64:
            word = uint64(0)
            for t in range(64 * full, length):
                word |= uint64(bits[s, t] != 0) << uint64(t % 64)
                seen |= uint64(bits[s, t])
            out[s, full] = word
    for shift in (32, 16, 8):
        seen |= seen >> uint64(shift)
    return seen & uint64(255)


@intrinsic
def _unpack_words(typing_context, source, target, n_words):
    def codegen(context, builder, signature, args):
        source, target, n_words = args
        with cgutils.for_range(builder, n_words) as loop:
            word = _load(builder, builder.add(source, builder.mul(loop.index, _constant(8))), _I64)
            bits = builder.zext(builder.bitcast(word, _BITS), _BYTES)
            _store(builder, bits, builder.add(target, builder.mul(loop.index, _constant(WORD))), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@njit(nogil=True, cache=True)
def unpack(words, out):
    """Unpack (streams, words) into uint8 (streams, length)."""
    streams, length = out.shape
    full = length // 64
    for s in range(streams):
        _unpack_words(words.ctypes.data + 8 * s * words.shape[1], out.ctypes.data + s * length, full)
        for t in range(64 * full, length):
            out[s, t] = (words[s, full] >> uint64(t % 64)) & uint64(1)


# gates


# With signatures, since two threads that compile a ufunc at its first call warn about each other.


@vectorize(["uint64(uint64, uint64)"], cache=True)
def xnor_word(a, b):
    """XNOR of words."""
    return ~(a ^ b)


@vectorize(["uint64(uint64, uint64, uint64)"], cache=True)
def mux_word(select, a, b):
    """The bits of `a` where `select` is 1, else those of `b`."""
    return (select & a) | (~select & b)


# popcount


@intrinsic
def _popcount_vectors(typing_context, address, n_vectors):
    """Ones in n_vectors vectors, four at a time."""

    def codegen(context, builder, signature, args):
        address, n_vectors = args
        totals = [cgutils.alloca_once_value(builder, ir.Constant(_V8, [0] * LANES)) for _ in range(4)]

        def count(here: Any, total: Any) -> None:
            builder.store(builder.add(builder.load(total), _popcount(builder, _load(builder, here))), total)

        quads = builder.lshr(n_vectors, _constant(2))
        with cgutils.for_range(builder, quads) as loop:
            here = builder.add(address, builder.mul(loop.index, _constant(4 * 64)))
            for q in range(4):
                count(builder.add(here, _constant(64 * q)), totals[q])
        done = builder.shl(quads, _constant(2))
        with cgutils.for_range_slice(builder, done, n_vectors, _constant(1), _I64) as (index, _):
            count(builder.add(address, builder.mul(index, _constant(64))), totals[0])
        total = builder.load(totals[0])
        for other in totals[1:]:
            total = builder.add(total, builder.load(other))
        return _sum(builder, total)

    return types.int64(types.intp, types.intp), codegen


@njit(nogil=True, cache=True)
def popcount(words, out):
    """Ones of each row of (streams, words) into int64 (streams,)."""
    streams, n_words = words.shape
    vectors = n_words // 8
    for s in range(streams):
        total = _popcount_vectors(words.ctypes.data + 8 * s * n_words, vectors) if vectors else 0
        for w in range(8 * vectors, n_words):
            total += popcount_word(words[s, w])
        out[s] = total


# multiply-accumulate


def _tile(rows: int, columns: int, xor: bool) -> Any:
    """A register tile of the binary matrix product: rows x columns accumulators that stay in registers."""

    @intrinsic
    def tile(typing_context, x, w, out, words, x_stride, w_stride, out_stride):
        """out[i, j] += ones of gate(x[i], w[j]) over `words` words (8 or more before x + words); byte strides."""

        def codegen(context, builder, signature, args):
            x, w, out, words, x_stride, w_stride, out_stride = args
            x_rows = [builder.add(x, builder.mul(_constant(i), x_stride)) for i in range(rows)]
            w_rows = [builder.add(w, builder.mul(_constant(j), w_stride)) for j in range(columns)]
            zero = ir.Constant(_V8, [0] * LANES)

            def step(at: Any, keep: Any, totals: Any) -> Any:
                ws = [_load(builder, builder.add(row, at)) for row in w_rows]
                for i in range(rows):
                    xi = _load(builder, builder.add(x_rows[i], at))
                    for j in range(columns):
                        product = builder.xor(xi, ws[j]) if xor else builder.and_(xi, ws[j])
                        if keep is not None:
                            product = builder.and_(product, keep)
                        totals[i][j] = builder.add(totals[i][j], _popcount(builder, product))
                return totals

            size = builder.shl(words, _constant(3))
            whole = builder.and_(size, _constant(-64))
            entry, head = builder.block, builder.append_basic_block("head")
            body, rest = builder.append_basic_block("body"), builder.append_basic_block("rest")
            builder.branch(head)
            builder.position_at_end(head)
            at = builder.phi(_I64)
            at.add_incoming(_constant(0), entry)
            totals = [[builder.phi(_V8) for _ in range(columns)] for _ in range(rows)]
            for total in chain.from_iterable(totals):
                total.add_incoming(zero, entry)
            builder.cbranch(builder.icmp_signed("<", at, whole), body, rest)
            builder.position_at_end(body)
            new = step(at, None, [list(row) for row in totals])
            for total, now in zip(chain.from_iterable(totals), chain.from_iterable(new), strict=True):
                total.add_incoming(now, body)
            at.add_incoming(builder.add(at, _constant(64)), body)
            builder.branch(head)
            builder.position_at_end(rest)
            # The words past the last whole vector: load the last eight words and keep those not counted yet.
            uncounted = builder.and_(words, _constant(7))
            lane = ir.Constant(_V8, list(range(LANES)))
            keep = builder.icmp_unsigned(">=", lane, _splat(builder, builder.sub(_constant(8), uncounted)))
            totals = step(builder.sub(size, _constant(64)), builder.sext(keep, _V8), totals)
            for i in range(rows):
                for j in range(columns):
                    here = builder.add(builder.add(out, builder.mul(_constant(i), out_stride)), _constant(8 * j))
                    _store(builder, builder.add(_load(builder, here, _I64), _sum(builder, totals[i][j])), here)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return tile


_and44, _and14, _and41, _and11 = (_tile(r, c, xor=False) for r, c in ((4, 4), (1, 4), (4, 1), (1, 1)))
_xor44, _xor14, _xor41, _xor11 = (_tile(r, c, xor=True) for r, c in ((4, 4), (1, 4), (4, 1), (1, 1)))


@njit(nogil=True, cache=True)
def _add_tile(xor, tall, wide, x, w, out, size, row, out_row):
    """Add one tile: four rows of x if tall, else one; four of w if wide, else one."""
    if xor:
        if tall and wide:
            _xor44(x, w, out, size, row, row, out_row)
        elif wide:
            _xor14(x, w, out, size, row, row, out_row)
        elif tall:
            _xor41(x, w, out, size, row, row, out_row)
        else:
            _xor11(x, w, out, size, row, row, out_row)
    elif tall and wide:
        _and44(x, w, out, size, row, row, out_row)
    elif wide:
        _and14(x, w, out, size, row, row, out_row)
    elif tall:
        _and41(x, w, out, size, row, row, out_row)
    else:
        _and11(x, w, out, size, row, row, out_row)


@njit(nogil=True, cache=True)
def mac(x, w, xor, out):
    """out[b, n] += ones of x[b] AND (or XOR) w[n]; x (batch, words), w (neurons, words), words >= 8."""
    batch, words = x.shape
    neurons = w.shape[0]
    row, out_row = 8 * words, 8 * neurons
    # Blocks of 4 KiB a row keep eight rows in the first-level cache; few x need no blocks.
    block = 512 if batch > 4 else 8192
    first = 0
    while first < words:
        size = min(block, words - first)
        if words - first - size < 8:  # a tile takes at least 8 words
            size = words - first
        n = 0
        while n < neurons:
            wide = n + 4 <= neurons
            wn = w.ctypes.data + n * row + 8 * first
            b = 0
            while b < batch:
                tall = b + 4 <= batch
                xb = x.ctypes.data + b * row + 8 * first
                _add_tile(xor, tall, wide, xb, wn, out.ctypes.data + b * out_row + 8 * n, size, row, out_row)
                b += 4 if tall else 1
            n += 4 if wide else 1
        first += size


# encode


@njit(nogil=True, cache=True)
def _rotate(x, n):
    return (x << uint64(n)) | (x >> uint64(64 - n))


_ROTATIONS = (16, 42, 12, 31, 16, 32, 24, 21)  # of Threefry2x64, from Random123 (Salmon et al., SC 2011)
_PARITY = 0x1BD11BDAA9FC1A22


@njit(nogil=True, cache=True)
def threefry(key0, key1, counter0, counter1):
    """Threefry2x64-13 of one counter: two random words."""
    keys = (key0, key1, uint64(_PARITY) ^ key0 ^ key1)
    x0 = counter0 + key0
    x1 = counter1 + key1
    for i in range(ROUNDS):
        x0 += x1
        x1 = _rotate(x1, _ROTATIONS[i % 8]) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 += keys[j % 3]
            x1 += keys[(j + 1) % 3] + uint64(j)
    return x0, x1


@intrinsic
def _bernoulli_block(typing_context, lanes, key0, key1, level):
    """Draw up to 64 levels from `level` on for BLOCK words, two at a time, until every bit is decided.

    `lanes` is the address of a column of uint64[6, PANEL], a column a word: the two Threefry counters with the key
    added, the next 64 binary digits of p, all ones where p has digits after those, and the undecided and the one bits
    so far, which level 0 starts afresh. A bit compares the digits of a uniform number with those of p from the highest
    on. The first that differs decides it: a one where p has the 1. Where p has no digits left, the number is not
    smaller: the bit stays 0.
    Returns non-zero if a bit is still undecided.
    """

    def codegen(context, builder, signature, args):
        lanes, key0, key1, level = args
        first_pair = builder.lshr(level, _constant(1))
        last_pair = builder.add(first_pair, _constant(32))
        groups = range(BLOCK // LANES)

        def address(row: int, g: int) -> Any:
            return builder.add(lanes, _constant(8 * (PANEL * row + LANES * g)))

        rows = [[_load(builder, address(row, g)) for g in groups] for row in range(6)]
        counters0, counters1, _, more, _, _ = rows
        key2 = builder.xor(builder.xor(_constant(_PARITY), key0), key1)
        keys = [_splat(builder, key) for key in (key0, key1, key2)]
        zero, ones = _splat(builder, 0), _splat(builder, -1)
        resumed = _splat(builder, builder.sext(builder.icmp_unsigned("!=", level, _constant(0)), _I64))
        for g in groups:
            rows[4][g] = builder.or_(rows[4][g], builder.xor(resumed, ones))
            rows[5][g] = builder.and_(rows[5][g], resumed)

        def random_words(g: int, pair: Any) -> list[Any]:
            x0, x1 = counters0[g], builder.add(counters1[g], _splat(builder, pair))
            for i in range(ROUNDS):
                x0 = builder.add(x0, x1)
                turned = _llvm(builder, "llvm.fshl.v8i64", _V8, x1, x1, _splat(builder, _ROTATIONS[i % 8]))
                x1 = builder.xor(turned, x0)
                if i % 4 == 3:
                    j = i // 4 + 1
                    x0 = builder.add(x0, keys[j % 3])
                    x1 = builder.add(x1, builder.add(keys[(j + 1) % 3], _splat(builder, j)))
            return [x0, x1]

        entry, loop = builder.block, builder.append_basic_block("pairs")
        done = builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(_I64)
        pair.add_incoming(first_pair, entry)
        states = [[builder.phi(_V8) for _ in range(3)] for _ in groups]
        any_open = zero
        final = []
        for g in groups:
            for state, row in zip(states[g], (2, 4, 5), strict=True):
                state.add_incoming(rows[row][g], entry)
            p, undecided, result = states[g]
            for number in random_words(g, pair):
                digit = builder.ashr(p, _splat(builder, 63))
                differs = builder.xor(number, digit)
                result = builder.or_(result, builder.and_(builder.and_(undecided, differs), digit))
                undecided = builder.and_(undecided, builder.xor(differs, ones))
                p = builder.shl(p, _splat(builder, 1))
            alive = builder.or_(builder.sext(builder.icmp_unsigned("!=", p, zero), _V8), more[g])
            undecided = builder.and_(undecided, alive)
            any_open = builder.or_(any_open, undecided)
            for state, value in zip(states[g], (p, undecided, result), strict=True):
                state.add_incoming(value, loop)
            final.append((undecided, result))
        next_pair = builder.add(pair, _constant(1))
        pair.add_incoming(next_pair, loop)
        left = _llvm(builder, "llvm.vector.reduce.or.v8i64", _I64, any_open)
        undone = builder.icmp_unsigned("!=", left, _constant(0))
        more_pairs = builder.icmp_unsigned("<", next_pair, last_pair)
        builder.cbranch(builder.and_(undone, more_pairs), loop, done)
        builder.position_at_end(done)
        for g in groups:
            _store(builder, final[g][0], address(4, g))
            _store(builder, final[g][1], address(5, g))
        return left

    return types.uint64(types.intp, *[types.uint64] * 3), codegen


@njit(nogil=True, cache=True)
def _digits(p_bits, level):
    """Binary digits level + 1 ... level + 64 of a double in [0, 1] given by its bits, the first in the highest bit.

    1 is taken as 0.111..., which every number below 1 is smaller than.
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
_SHORT = np.float64(2.0**-11).view(np.uint64)  # from here up to 1, p has no digit after the 64th


@njit(nogil=True, cache=True)
def _is_long(p_bits, level):
    """Whether p has digits after level + 64."""
    if p_bits == _ONE:
        return True
    return 0 < p_bits < _SHORT and level < 1024


@njit(nogil=True, cache=True)
def bernoulli(p_bits, streams, first_word, key0, key1, out):
    """Independent Bernoulli streams, exact to the last bit of p: (streams, words) from word `first_word` on.

    The random words are Threefry2x64 of the key (key0, key1) and the counter (stream, word << PAIR_BITS | level // 2).
    """
    n_streams, n_words = out.shape
    total = n_streams * n_words
    out_flat = out.reshape(total)
    lanes = np.zeros((6, PANEL), np.uint64)
    ps = np.zeros(PANEL, np.uint64)
    stream = word = 0
    for start in range(0, total, PANEL):
        size = min(PANEL, total - start)
        any_long = False
        i = 0
        while i < size:
            run = min(n_words - word, size - i)
            p = p_bits[stream]
            digits = _digits(p, 0)
            any_long |= _is_long(p, 0)
            counter0 = streams[stream] + key0
            counter1 = (uint64(first_word + word) << uint64(PAIR_BITS)) + key1
            for r in range(i, i + run):
                lanes[0, r] = counter0
                lanes[1, r] = counter1
                lanes[2, r] = digits
                ps[r] = p
                counter1 += uint64(1 << PAIR_BITS)
            i += run
            word += run
            if word == n_words:
                word = 0
                stream += 1
        for i in range(size):
            lanes[3, i] = ~uint64(0) if any_long and _is_long(ps[i], 0) else uint64(0)
        for block in range(0, size, BLOCK):
            level = 0
            while _bernoulli_block(lanes.ctypes.data + 8 * block, key0, key1, uint64(level)):
                level += 64
                for i in range(block, block + BLOCK):
                    lanes[2, i] = _digits(ps[i], level)
                    lanes[3, i] = ~uint64(0) if _is_long(ps[i], level) else uint64(0)
        for i in range(size):
            out_flat[start + i] = lanes[5, i]


@njit(nogil=True, cache=True)
def bernoulli_sequence(key0, key1, first_word, out):
    """The uniform numbers of stream 0 from word `first_word` on, rounded toward 0 to doubles.

    No double lies between such a number and the exact one, so `number < p` decides every double p exactly.
    """
    digits = np.empty(1076, np.uint64)
    for w in range((out.size + 63) // 64):
        counter = uint64(first_word + w) << uint64(PAIR_BITS)
        drawn = 0
        for lane in range(min(64, out.size - 64 * w)):
            mantissa = uint64(0)
            depth = 0
            while mantissa < uint64(2**52) and depth < 1074:
                if depth == drawn:
                    digits[drawn], digits[drawn + 1] = threefry(key0, key1, uint64(0), counter | uint64(drawn // 2))
                    drawn += 2
                mantissa = mantissa << uint64(1) | (digits[depth] >> uint64(lane)) & uint64(1)
                depth += 1
            out[64 * w + lane] = math.ldexp(float(mantissa), -depth)


@njit(nogil=True, cache=True)
def lfsr(state, tap_mask, width, left, out):
    """out.size states of a Fibonacci LFSR from `state` on, over 2**width."""
    mask = (uint64(1) << uint64(width)) - uint64(1)
    scale = math.ldexp(1.0, -width)
    for i in range(out.size):
        out[i] = float(state) * scale
        feedback = uint64(popcount_word(state & tap_mask)) & uint64(1)
        state = (state << uint64(1) | feedback) & mask if left else state >> uint64(1) | feedback << uint64(width - 1)


@njit(nogil=True, cache=True)
def threshold_table(order, out):
    """out[k], k = 0..len(order): the packed stream whose ones are at the k places order[:k]."""
    out[0] = 0
    for k in range(order.size):
        out[k + 1] = out[k]
        out[k + 1, order[k] >> 6] |= uint64(1) << uint64(order[k] & 63)


@njit(nogil=True, cache=True)
def look_up(p, numbers, guide, table, first, out):
    """out[s, first : first + table words] = the row of `table` for the count of numbers < p[s].

    numbers: sorted. guide[j] = the count of numbers below j / (len(guide) - 1), where the search for p starts.
    """
    scale = float(guide.size - 1)
    n_words = table.shape[1]
    for s in range(p.size):
        k = guide[int(p[s] * scale)]
        while k < numbers.size and numbers[k] < p[s]:
            k += 1
        for w in range(n_words):
            out[s, first + w] = table[k, w]


# the names of the reference


def jit_pack_bits(bitstream: NDArray[Any], packed_arr: Words) -> None:
    """Pack bits into a given array of words.

    Parameters
    ----------
    bitstream : array of bool or integers, shape (..., N)
        Zeros and ones.
    packed_arr : ndarray of uint64, shape (..., ceil(N / 64))
        Filled with the packed bits, LSB first.

    Raises
    ------
    BitstreamError
        If the output does not fit, before anything is written; or if there is anything but 0 and 1.
    """
    from .vector_ops import pack_bitstream, words_for

    bits = as_numpy(bitstream, "bits")
    shape = (*bits.shape[:-1], words_for(bits.shape[-1])) if bits.ndim else ()
    _check_output(packed_arr, shape)
    if packed_arr.dtype.kind != "u" or packed_arr.dtype.itemsize != 8:
        raise BitstreamError(f"packed words are uint64, but the output is {packed_arr.dtype}")
    packed_arr[...] = pack_bitstream(bitstream)


def jit_vec_mac(packed_weights: Words, packed_inputs: Words, outputs: NDArray[Any]) -> None:
    """Multiply-accumulate into a given array: the ones of weight AND input, summed over the inputs of a neuron.

    Parameters
    ----------
    packed_weights : ndarray of uint64, shape (n_neurons, n_inputs, n_words)
    packed_inputs : ndarray of uint64, shape (n_inputs, n_words) or (batch, n_inputs, n_words)
    outputs : ndarray, shape (n_neurons,) or (batch, n_neurons)
        Filled with the counts; its dtype must hold the largest possible count exactly.

    Raises
    ------
    BitstreamError
        If the operands or the output do not fit, before anything is written.
    """
    from .vector_ops import check_mac, vec_mac

    weights, inputs = (as_numpy(p, "packed words") for p in (packed_weights, packed_inputs))
    check_mac(weights, inputs, "and", None)
    _check_output(outputs, (*inputs.shape[:-2], len(weights)))
    largest = WORD * weights.shape[1] * weights.shape[2]
    kind = outputs.dtype.kind
    holds = (
        np.iinfo(outputs.dtype).max if kind in "iu" else 2 ** (np.finfo(outputs.dtype).nmant + 1) if kind == "f" else 0
    )
    if holds < largest:
        raise BitstreamError(f"a count can be {largest}, more than the output's {outputs.dtype} holds")
    outputs[...] = vec_mac(weights, inputs)


def _check_output(output: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(output, np.ndarray):
        raise BitstreamError(f"the output is a NumPy array to fill, not {type(output).__name__}")
    if output.shape != shape:
        raise BitstreamError(f"the output has shape {output.shape}, but the result has {shape}")
    if not output.flags.writeable:
        raise BitstreamError("the output is read-only")

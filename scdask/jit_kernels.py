"""Numba kernels over one chunk of packed words.

The two public names fill an array that the caller gives; everything else is what `vector_ops` runs.
A kernel takes words of the machine's byte order: `mac` of any strides and alignment, `popcount` contiguous ones of any
alignment, the others what `readonly` gives, so that each is compiled once, for read-only arrays, which any array can be
viewed as. LLVM's vectoriser prefers 256-bit registers on many AVX-512 machines and gives up half of the speed there, so
the inner loops are explicit vectors.
"""

from __future__ import annotations

import math
from functools import cache, wraps
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import int64, njit, types, uint64, vectorize
from numba.core import cgutils
from numba.extending import intrinsic

from ._dispatch import as_numpy
from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

WORD = 64  # bits in a word
LANES = 8  # words in a vector
BLOCK = 16  # words whose levels `bernoulli` draws together
# Binary digits that a bit of `bernoulli` takes: a word draws digits until all its bits are decided.
DIGITS = sum(1 - (1 - 2.0**-level) ** WORD for level in range(64))
PANEL = 16 * BLOCK  # words that it prepares together: a vector load right after narrow stores would stall
ROW = PANEL + LANES  # words between its rows: room to store whole vectors
FIRST_LEVELS = 8  # that it draws for all words: one bit in 256 is undecided after them, and a word in five
AHEAD = 512  # bytes that a prefetch is ahead of its load
ROUNDS = 13  # of Threefry2x64: the fewest that Random123 calls Crush-resistant
PAIR_BITS = 10  # of a Threefry counter hold the pair of levels: a double has 1074 levels at the most
ONES = np.uint64(2**64 - 1)

_I64 = ir.IntType(64)
_V8 = ir.VectorType(_I64, LANES)
_BYTES = ir.VectorType(ir.IntType(8), WORD)
_BITS = ir.VectorType(ir.IntType(1), WORD)


def _kernel(func: Callable[..., Any]) -> Any:
    """Compile at the first call, without the GIL; kept on disk for later processes, where there is a place for it."""
    try:
        return njit(nogil=True, cache=True)(func)
    except RuntimeError:  # neither the installation nor the user's cache folder can be written to
        return njit(nogil=True)(func)


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels want their inputs: C-contiguous, aligned, native, read-only."""
    if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
        array = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    view = array.view()
    view.flags.writeable = False
    return view


def empty_words(shape: tuple[int, ...]) -> Words:
    """An uninitialised array of words that starts on a cache line, where vector stores are fastest."""
    size = math.prod(shape)
    buffer = np.empty(size + LANES, np.uint64)
    start = -(_address(buffer) // 8) % LANES
    return buffer[start : start + size].reshape(shape)


@_kernel
def _address(array):
    """Where an array starts, six times as quick as array.ctypes.data outside of a kernel."""
    return int64(array.ctypes.data)


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


def _load(builder: Any, address: Any, kind: Any = _V8, align: int = 1) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _store(builder: Any, value: Any, address: Any, align: int = 8) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _prefetch(builder: Any, address: Any) -> None:
    """Ask for the cache line that a stream of loads at `address` will come to: hardware alone looks less far ahead."""
    flag = ir.IntType(32)
    place = builder.inttoptr(builder.add(address, _constant(AHEAD)), ir.IntType(8).as_pointer())
    _llvm(builder, "llvm.prefetch.p0", ir.VoidType(), place, *(flag(v) for v in (0, 2, 1)))  # read, second level, data


def _llvm(builder: Any, name: str, result: Any, *args: Any) -> Any:
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


def _has_avx512(context: Any) -> bool:
    """Whether the processor that Numba compiles for has AVX-512."""
    return "+avx512f" in context.codegen().magic_tuple()[2]


def _popcount(builder: Any, vector: Any) -> Any:
    """Ones of each lane."""
    return _llvm(builder, "llvm.ctpop.v8i64", _V8, vector)


def _lanes(builder: Any, a: Any, b: Any, lanes: Iterable[int]) -> Any:
    """Some lanes of two vectors, those of b after those of a."""
    chosen = list(lanes)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


def _sums(builder: Any, vectors: list[Any]) -> Any:
    """The sums of 1, 2, 4 or 8 vectors of 8 lanes, as one vector: halves are added, two vectors at a time."""
    cells, lanes = 1, LANES  # in each vector
    while lanes > 1:
        merged = []
        for pair in (vectors[i : i + 2] for i in range(0, len(vectors), 2)):
            starts = [cell * lanes for cell in range(cells * len(pair))]
            low = [start + lane for start in starts for lane in range(lanes // 2)]
            high = [lane + lanes // 2 for lane in low]
            merged.append(builder.add(*(_lanes(builder, pair[0], pair[-1], half) for half in (low, high))))
        cells, lanes, vectors = cells * len(pair), lanes // 2, merged
    return vectors[0]


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
            bits = _load(builder, here, _BYTES)
            word = builder.bitcast(builder.icmp_unsigned("!=", bits, zero), _I64)
            _store(builder, word, builder.add(target, builder.mul(loop.index, _constant(8))))
            builder.store(builder.or_(builder.load(seen), builder.bitcast(bits, _V8)), seen)
        return _llvm(builder, "llvm.vector.reduce.or.v8i64", _I64, builder.load(seen))

    return types.uint64(types.intp, types.intp, types.intp), codegen


@_kernel
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


@_kernel
def unpack(words, out):
    """Unpack (streams, words) into uint8 (streams, length)."""
    streams, length = out.shape
    full = length // 64
    for s in range(streams):
        _unpack_words(words.ctypes.data + 8 * s * words.shape[1], out.ctypes.data + s * length, full)
        for t in range(64 * full, length):
            out[s, t] = (words[s, full] >> uint64(t % 64)) & uint64(1)


# gates


def _gate(signature: str) -> Callable[..., Any]:
    """A ufunc that is compiled at the first call: at the import, all would wait who use no gate."""

    def decorate(func: Callable[..., Any]) -> Any:
        @cache
        def ufunc() -> Any:
            try:
                return vectorize([signature], cache=True)(func)
            except RuntimeError:
                return vectorize([signature])(func)

        @wraps(func)
        def gate(*words: Any) -> Any:
            return ufunc()(*words)

        return gate

    return decorate


@_gate("uint64(uint64, uint64)")
def xnor_word(a, b):
    """XNOR of words."""
    return ~(a ^ b)


@_gate("uint64(uint64, uint64, uint64)")
def mux_word(select, a, b):
    """The bits of `a` where `select` is 1, else those of `b`."""
    return (select & a) | (~select & b)


# popcount


def _popcount_vectors(far: bool) -> Any:
    """Count the ones of vectors, four at a time; with prefetches if the words are far, not in a cache of the core."""

    @intrinsic
    def count_vectors(typing_context, address, n_vectors):
        def codegen(context, builder, signature, args):
            address, n_vectors = args
            totals = [cgutils.alloca_once_value(builder, ir.Constant(_V8, [0] * LANES)) for _ in range(4)]

            def count(here: Any, total: Any) -> None:
                builder.store(builder.add(builder.load(total), _popcount(builder, _load(builder, here))), total)

            quads = builder.lshr(n_vectors, _constant(2))
            with cgutils.for_range(builder, quads) as loop:
                here = builder.add(address, builder.mul(loop.index, _constant(4 * 64)))
                for q in range(4):
                    place = builder.add(here, _constant(64 * q))
                    if far:
                        _prefetch(builder, place)
                    count(place, totals[q])
            done = builder.shl(quads, _constant(2))
            with cgutils.for_range_slice(builder, done, n_vectors, _constant(1), _I64) as (index, _):
                count(builder.add(address, builder.mul(index, _constant(64))), totals[0])
            total = builder.load(totals[0])
            for other in totals[1:]:
                total = builder.add(total, builder.load(other))
            return _sum(builder, total)

        return types.int64(types.intp, types.intp), codegen

    return count_vectors


_count_near, _count_far = _popcount_vectors(far=False), _popcount_vectors(far=True)


@intrinsic
def _popcount_at(typing_context, address):
    def codegen(context, builder, signature, args):
        return builder.ctpop(_load(builder, args[0], _I64))

    return types.int64(types.intp), codegen


@_kernel
def _popcount_rows(words, n_words, out):
    if n_words == 1:
        for s in range(out.size):
            out[s] = _popcount_at(words + 8 * s)
        return
    vectors = n_words // 8
    far = out.size * n_words > 2**17
    for s in range(out.size):
        row = words + 8 * s * n_words
        total = 0
        if vectors:
            total = _count_far(row, vectors) if far else _count_near(row, vectors)
        for w in range(8 * vectors, n_words):
            total += _popcount_at(row + 8 * w)
        out[s] = total


def popcount(words: Words, out: NDArray[np.int64]) -> None:
    """Ones of each row of contiguous words, at any alignment, into (rows,)."""
    _popcount_rows(words.ctypes.data, words.shape[-1], out)


# multiply-accumulate


def _carry(context: Any, builder: Any, t: Any, s: Any, ones: Any) -> Any:
    """The majority of `ones` and two products, where t = ones ^ one product and s = t ^ the other."""
    if _has_avx512(context):  # LLVM does not find the instruction
        truth = ir.Constant(ir.IntType(32), 0b00111010)
        return _llvm(builder, "llvm.x86.avx512.pternlog.q.512", _V8, t, s, ones, truth)
    return builder.or_(builder.and_(t, builder.not_(s)), builder.and_(builder.not_(t), ones))


def _tile(rows: int, columns: int, xor: bool) -> Any:
    """A register tile of the binary matrix product: rows x columns accumulators that stay in registers."""

    @intrinsic
    def tile(typing_context, x, w, out, words, x_stride, w_stride, out_stride):
        """out[i, j] += ones of gate(x[i], w[j]) over `words` words (8 or more before x + words); byte strides.

        A carry-save adder halves the popcounts: of two products and the ones left over, it keeps the sum bit, and
        counts the carries, which are worth two. On AVX-512 that is 2.5 instructions a vector of products instead of 3.
        """

        def codegen(context, builder, signature, args):
            x, w, out, words, x_stride, w_stride, out_stride = args
            x_rows = [builder.add(x, builder.mul(_constant(i), x_stride)) for i in range(rows)]
            w_rows = [builder.add(w, builder.mul(_constant(j), w_stride)) for j in range(columns)]

            def step(places: Any, ones: Any, carries: Any) -> Any:
                """Add the products of the vectors at two places, each with the lanes to keep of it, or None for all."""

                def load(row: Any, at: Any, keep: Any) -> Any:
                    vector = _load(builder, builder.add(row, at))
                    return vector if keep is None else builder.and_(vector, keep)

                gate = builder.xor if xor else builder.and_
                ws = [[load(row, at, keep) for row in w_rows] for at, keep in places]
                # For AND, one masked operand is enough.
                xs = [[load(row, at, keep if xor else None) for row in x_rows] for at, keep in places]
                new_ones, new_carries = [], []
                for cell, (i, j) in enumerate(product(range(rows), range(columns))):
                    t = builder.xor(ones[cell], gate(xs[0][i], ws[0][j]))
                    s = builder.xor(t, gate(xs[1][i], ws[1][j]))
                    new_ones.append(s)
                    carried = _popcount(builder, _carry(context, builder, t, s, ones[cell]))
                    new_carries.append(builder.add(carries[cell], carried))
                return new_ones, new_carries

            # Whole pairs of vectors, except for the last 1 to 16 words.
            size = builder.shl(words, _constant(3))
            whole = builder.and_(builder.sub(size, _constant(1)), _constant(-128))
            entry, head = builder.block, builder.append_basic_block("head")
            body, rest = builder.append_basic_block("body"), builder.append_basic_block("rest")
            builder.branch(head)
            builder.position_at_end(head)
            at = builder.phi(_I64)
            at.add_incoming(_constant(0), entry)
            ones, carries = ([builder.phi(_V8) for _ in range(rows * columns)] for _ in range(2))
            for value in ones + carries:
                value.add_incoming(_splat(builder, 0), entry)
            builder.cbranch(builder.icmp_signed("<", at, whole), body, rest)
            builder.position_at_end(body)
            places = [(at, None), (builder.add(at, _constant(64)), None)]
            for row, (place, _) in product(w_rows if rows == 1 else [], places):
                _prefetch(builder, builder.add(row, place))
            new = step(places, ones, carries)
            for value, now in zip(ones + carries, chain(*new), strict=True):
                value.add_incoming(now, body)
            at.add_incoming(builder.add(at, _constant(128)), body)
            builder.branch(head)
            builder.position_at_end(rest)
            # The last eight words, of which the lanes not counted yet are kept, and before them a vector, if any.
            last = builder.sub(size, _constant(64))
            left = builder.lshr(builder.sub(size, whole), _constant(3))
            two = builder.icmp_signed(">", left, _constant(8))
            in_last = builder.select(two, builder.sub(left, _constant(8)), left)
            lane = ir.Constant(_V8, list(range(LANES)))
            keep = builder.icmp_unsigned(">=", lane, _splat(builder, builder.sub(_constant(8), in_last)))
            before = (builder.select(two, whole, last), _splat(builder, builder.sext(two, _I64)))
            ones, carries = step([before, (last, builder.sext(keep, _V8))], ones, carries)
            counts = [
                builder.add(_popcount(builder, one), builder.shl(carried, _splat(builder, 1)))
                for one, carried in zip(ones, carries, strict=True)
            ]
            sums = _sums(builder, counts)
            for i in range(rows):
                row = _lanes(builder, sums, sums, range(columns * i, columns * (i + 1)))
                here = builder.add(out, builder.mul(_constant(i), out_stride))
                _store(builder, builder.add(_load(builder, here, row.type), row), here)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return tile


_and24, _and14, _and21, _and11 = (_tile(r, c, xor=False) for r, c in ((2, 4), (1, 4), (2, 1), (1, 1)))
_xor24, _xor14, _xor21, _xor11 = (_tile(r, c, xor=True) for r, c in ((2, 4), (1, 4), (2, 1), (1, 1)))


@_kernel
def _add_tiles(xor, x, x_row, rows, w, w_row, columns, words, out, out_row):
    """out[b, n] += ones of gate(x[b], w[n]), given the addresses of the first row of each and the bytes of a row."""
    n = 0
    while n < columns:
        wide = n + 4 <= columns
        b = 0
        while b < rows:
            tall = b + 2 <= rows
            xb, wn, here = x + b * x_row, w + n * w_row, out + b * out_row + 8 * n
            if xor:
                if tall and wide:
                    _xor24(xb, wn, here, words, x_row, w_row, out_row)
                elif wide:
                    _xor14(xb, wn, here, words, x_row, w_row, out_row)
                elif tall:
                    _xor21(xb, wn, here, words, x_row, w_row, out_row)
                else:
                    _xor11(xb, wn, here, words, x_row, w_row, out_row)
            elif tall and wide:
                _and24(xb, wn, here, words, x_row, w_row, out_row)
            elif wide:
                _and14(xb, wn, here, words, x_row, w_row, out_row)
            elif tall:
                _and21(xb, wn, here, words, x_row, w_row, out_row)
            else:
                _and11(xb, wn, here, words, x_row, w_row, out_row)
            b += 2 if tall else 1
        n += 4 if wide else 1


@intrinsic
def _copy_words(typing_context, target, source, words):
    def codegen(context, builder, signature, args):
        target, source = (builder.inttoptr(address, _I64.as_pointer()) for address in args[:2])
        cgutils.raw_memcpy(builder, target, source, args[2], _constant(8))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@_kernel
def _gather(source, strides, rows, n_words, first, size, block):
    """Copy words first ... first + size of rows of any strides to the rows of a block, with 0 up to eight words."""
    block_row = 8 * block.shape[1]
    if strides[2] == 8 and strides[1] == 8 * n_words:
        for r in range(rows):
            _copy_words(block.ctypes.data + r * block_row, source + r * strides[0] + 8 * first, size)
    else:
        for start in range(0, rows, 64):
            target = block.ctypes.data + start * block_row
            here = source + start * strides[0]
            some = min(64, rows - start)
            for j in range(first, first + size):
                word = here + j // n_words * strides[1] + j % n_words * strides[2]
                for r in range(some):
                    _copy_words(target + r * block_row, word + r * strides[0], 1)
                target += 8
    for r in range(rows):
        for j in range(size, LANES):
            block[r, j] = 0


@_kernel
def _mac_where_it_is(x, x_row, w, w_row, words, xor, out):
    batch, neurons = out.shape
    first = 0
    while first < words:
        size = min(8192, words - first)
        if words - first - size < LANES:  # a tile takes at least eight words
            size = words - first
        here = int64(out.ctypes.data)
        _add_tiles(xor, x + 8 * first, x_row, batch, w + 8 * first, w_row, neurons, size, here, 8 * neurons)
        first += size


@_kernel
def _mac_in_blocks(x, x_strides, w, w_strides, n_words, words, xor, x_block, w_block, out):
    batch, neurons = out.shape
    group, panel, longest = len(x_block), len(w_block), x_block.shape[1] - LANES
    x_row, w_row = 8 * x_block.shape[1], 8 * w_block.shape[1]
    for b in range(0, batch, group):
        rows = min(group, batch - b)
        for first in range(0, words, longest):
            size = min(longest, words - first)
            _gather(x + b * x_strides[0], x_strides, rows, n_words, first, size, x_block)
            for n in range(0, neurons, panel):
                columns = min(panel, neurons - n)
                _gather(w + n * w_strides[0], w_strides, columns, n_words, first, size, w_block)
                _add_tiles(
                    xor,
                    int64(x_block.ctypes.data),
                    x_row,
                    rows,
                    int64(w_block.ctypes.data),
                    w_row,
                    columns,
                    max(size, LANES),
                    int64(out.ctypes.data) + 8 * (b * neurons + n),
                    8 * neurons,
                )


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of x[b] AND (or XOR) w[n]; x (batch, inputs, words), w (neurons, inputs, words).

    The operands may have any strides, and any alignment, as what Dask receives from another worker has. Blocks of them
    are copied to where tiles find them aligned and in the first-level cache; but where one operand has few rows,
    copying would cost more than it saves.
    """
    _, n_inputs, n_words = w.shape
    words = n_inputs * n_words
    (x_at, x_strides), (w_at, w_strides) = ((a.ctypes.data, a.strides) for a in (x, w))
    whole_rows = all(strides[1:] == (8 * n_words, 8) for strides in (x_strides, w_strides))
    if whole_rows and words >= LANES and min(len(x), len(w)) <= 12:
        _mac_where_it_is(x_at, x_strides[0], w_at, w_strides[0], words, xor, out)
        return
    panel = 64 if w_strides[0] == 8 else 4  # in Fortran order rows are neighbours
    row = max(LANES, min(512, words)) + LANES  # the gap keeps rows from falling on the same lines of the cache
    x_block, w_block = empty_words((min(128, len(x)), row)), empty_words((panel, row))
    _mac_in_blocks(x_at, x_strides, w_at, w_strides, n_words, words, xor, x_block, w_block, out)


# encode


@_kernel
def _rotate(x, n):
    return (x << uint64(n)) | (x >> uint64(64 - n))


ROTATIONS = (16, 42, 12, 31, 16, 32, 24, 21)  # of Threefry2x64, from Random123 (Salmon et al., SC 2011)
PARITY = 0x1BD11BDAA9FC1A22


@_kernel
def threefry(key0, key1, counter0, counter1):
    """Threefry2x64-13 of one counter: two random words."""
    keys = (key0, key1, uint64(PARITY) ^ key0 ^ key1)
    x0 = counter0 + key0
    x1 = counter1 + key1
    for i in range(ROUNDS):
        x0 += x1
        x1 = _rotate(x1, ROTATIONS[i % 8]) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 += keys[j % 3]
            x1 += keys[(j + 1) % 3] + uint64(j)
    return x0, x1


def _threefry(builder: Any, keys: list[Any], x0: Any, x1: Any) -> list[Any]:
    """`threefry` of vectors of counters to which the key is already added."""
    for i in range(ROUNDS):
        x0 = builder.add(x0, x1)
        turned = _llvm(builder, "llvm.fshl.v8i64", _V8, x1, x1, _splat(builder, ROTATIONS[i % 8]))
        x1 = builder.xor(turned, x0)
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = builder.add(x0, keys[j % 3])
            x1 = builder.add(x1, builder.add(keys[(j + 1) % 3], _splat(builder, j)))
    return [x0, x1]


@intrinsic
def _fill_lanes(typing_context, lanes, words, counter0, counter1, digits):
    """Fill the first three rows of lanes for consecutive words of a stream, and up to seven places more."""

    def codegen(context, builder, signature, args):
        lanes, words, counter0, counter1, digits = args
        places = ir.Constant(_V8, [i << PAIR_BITS for i in range(LANES)])
        last = builder.add(_splat(builder, counter1), places)
        with cgutils.for_range_slice(builder, _constant(0), words, _constant(LANES), _I64) as (index, _):
            here = builder.add(lanes, builder.shl(index, _constant(3)))
            along = builder.add(last, _splat(builder, builder.shl(index, _constant(PAIR_BITS))))
            for row, vector in enumerate((_splat(builder, counter0), along, _splat(builder, digits))):
                _store(builder, vector, builder.add(here, _constant(8 * ROW * row)))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, *[types.uint64] * 3), codegen


@intrinsic
def _bernoulli_block(typing_context, lanes, key0, key1, level, levels):
    """Draw some levels, an even number, from an even level on, for BLOCK words.

    `lanes` is the address of a column of uint64[6, ROW], a column a word: the two Threefry counters with the key
    added, the next binary digits of p, the undecided and the one bits so far, which level 0 starts afresh, and the
    place in the panel. A bit compares the digits of a uniform number with those of p from the highest on. The first
    that differs decides it: a one where p has the 1. Where p has no digits left, the number is not smaller: the bit
    stays 0.
    """

    def codegen(context, builder, signature, args):
        lanes, key0, key1, level, levels = args
        first_pair = builder.lshr(level, _constant(1))
        last_pair = builder.add(first_pair, builder.lshr(levels, _constant(1)))
        groups = range(BLOCK // LANES)

        def address(row: int, g: int) -> Any:
            return builder.add(lanes, _constant(8 * (ROW * row + LANES * g)))

        rows = [[_load(builder, address(row, g)) for g in groups] for row in range(5)]
        counters0, counters1 = rows[:2]
        key2 = builder.xor(builder.xor(_constant(PARITY), key0), key1)
        keys = [_splat(builder, key) for key in (key0, key1, key2)]
        ones = _splat(builder, -1)
        resumed = _splat(builder, builder.sext(builder.icmp_unsigned("!=", level, _constant(0)), _I64))
        for g in groups:
            rows[3][g] = builder.or_(rows[3][g], builder.xor(resumed, ones))
            rows[4][g] = builder.and_(rows[4][g], resumed)

        entry, loop = builder.block, builder.append_basic_block("pairs")
        done = builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        pair = builder.phi(_I64)
        pair.add_incoming(first_pair, entry)
        states = [[builder.phi(_V8) for _ in range(3)] for _ in groups]
        for g in groups:
            p, undecided, result = states[g]
            for number in _threefry(builder, keys, counters0[g], builder.add(counters1[g], _splat(builder, pair))):
                digit = builder.ashr(p, _splat(builder, 63))
                one = builder.and_(builder.and_(undecided, digit), builder.xor(number, ones))
                result = builder.or_(result, one)
                undecided = builder.and_(undecided, builder.xor(builder.xor(number, digit), ones))
                p = builder.shl(p, _splat(builder, 1))
            for before, state, value in zip(rows[2:], states[g], (p, undecided, result), strict=True):
                state.add_incoming(before[g], entry)
                state.add_incoming(value, loop)
                before[g] = value
        next_pair = builder.add(pair, _constant(1))
        pair.add_incoming(next_pair, loop)
        builder.cbranch(builder.icmp_unsigned("<", next_pair, last_pair), loop, done)
        builder.position_at_end(done)
        for i, g in product((2, 3, 4), groups):
            _store(builder, rows[i][g], address(i, g))
        return context.get_dummy_value()

    return types.void(types.intp, *[types.uint64] * 4), codegen


def _store_some(context: Any, builder: Any, vector: Any, keep: Any, address: Any) -> None:
    """Store the kept lanes side by side; lanes after them, up to eight, may be overwritten."""
    if _has_avx512(context):  # where some chips take a hundred cycles for the general form
        nothing = ir.Constant(_V8, ir.Undefined)
        together = _llvm(builder, "llvm.x86.avx512.mask.compress.v8i64", _V8, vector, nothing, keep)
        _store(builder, together, address)
    else:
        place = builder.inttoptr(address, _I64.as_pointer())
        _llvm(builder, "llvm.masked.compressstore.v8i64", ir.VoidType(), vector, place, keep)


@intrinsic
def _keep_undecided(typing_context, lanes, kept, size, more):
    """Move the columns that draw on to the front of `kept`, which may be `lanes`; return how many they are.

    Of the first `size` columns, they have undecided bits, and digits of p to decide them, or `more` is not 0.
    """

    def codegen(context, builder, signature, args):
        lanes, kept, size, more = args
        count = cgutils.alloca_once_value(builder, _constant(0))
        zero = _splat(builder, 0)
        with cgutils.for_range_slice(builder, _constant(0), size, _constant(LANES), _I64) as (index, _):
            here = builder.add(lanes, builder.shl(index, _constant(3)))
            rows = [_load(builder, builder.add(here, _constant(8 * ROW * row))) for row in range(6)]
            inside = builder.icmp_signed(
                "<", ir.Constant(_V8, list(range(LANES))), _splat(builder, builder.sub(size, index))
            )
            digits = builder.icmp_unsigned("!=", builder.or_(rows[2], _splat(builder, more)), zero)
            keep = builder.and_(builder.and_(inside, digits), builder.icmp_unsigned("!=", rows[3], zero))
            to = builder.add(kept, builder.shl(builder.load(count), _constant(3)))
            for row, vector in enumerate(rows):
                _store_some(context, builder, vector, keep, builder.add(to, _constant(8 * ROW * row)))
            ones = builder.ctpop(builder.bitcast(keep, ir.IntType(8)))
            builder.store(builder.add(builder.load(count), builder.zext(ones, _I64)), count)
        return builder.load(count)

    return types.int64(types.intp, types.intp, types.intp, types.uint64), codegen


@_kernel
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
_SHORT = np.float64(2.0**-11).view(np.uint64)  # from here up, p < 1 has no digit after the 64th


@_kernel
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


@_kernel
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


@_kernel
def lfsr(state, tap_mask, width, left, out):
    """out.size states of a Fibonacci LFSR from `state` on, over 2**width."""
    mask = (uint64(1) << uint64(width)) - uint64(1)
    scale = math.ldexp(1.0, -width)
    for i in range(out.size):
        out[i] = float(state) * scale
        feedback = uint64(popcount_word(state & tap_mask)) & uint64(1)
        state = (state << uint64(1) | feedback) & mask if left else state >> uint64(1) | feedback << uint64(width - 1)


@_kernel
def threshold_table(order, out):
    """out[k], k = 0..len(order): the packed stream whose ones are at the k places order[:k]."""
    for w in range(out.shape[1]):
        out[0, w] = 0
    for k in range(order.size):
        for w in range(out.shape[1]):
            out[k + 1, w] = out[k, w]
        out[k + 1, order[k] >> 6] |= uint64(1) << uint64(order[k] & 63)


@intrinsic
def _copy_row(typing_context, target, source, words):
    """Copy eight or more words, whole vectors first."""

    def codegen(context, builder, signature, args):
        target, source, words = args

        def copy(at: Any) -> None:
            _store(builder, _load(builder, builder.add(source, at)), builder.add(target, at))

        size = builder.shl(words, _constant(3))
        last = builder.sub(size, _constant(64))
        with cgutils.for_range_slice(builder, _constant(0), last, _constant(64), _I64) as (at, _):
            copy(at)
        copy(last)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@_kernel
def look_up(p, numbers, guide, stride, table, first, out):
    """out[s, first : first + table words] = the row of `table` for the count of numbers < p[s].

    numbers: sorted. guide[j]: the count of numbers below j / (len(guide) - 1), where a binary search for p starts, by
    `stride`, a power of two; at most 2 * stride - 1 numbers lie between two counts, and as many above 1 at the end.
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
            _copy_row(row, table.ctypes.data + 8 * k * n_words, n_words)


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

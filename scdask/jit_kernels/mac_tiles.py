"""Multiply-accumulate by gates and popcounts of vectors, in register tiles."""

from __future__ import annotations

from itertools import chain, product
from typing import TYPE_CHECKING, Any

from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.llvm import (
    I64,
    LANES,
    V8,
    add_by_tree,
    address_of,
    carry,
    compiled,
    constant,
    copy_far_words,
    copy_word,
    empty_words,
    lane_ones,
    load,
    pick_lanes,
    prefetch,
    register_lanes,
    shuffled_bytes,
    splat,
    store,
    sum_of,
    sums_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.llvm import Words


def _tile(rows: int, columns: int, xor: bool) -> Any:
    """A register tile of the binary matrix product: rows x columns accumulators that stay in registers."""

    @intrinsic
    def tile(typing_context, x, w, out, width, x_stride, w_stride, out_stride):
        """out[i, j] += ones of gate(x[i], w[j]) over `width` words, at least 8; strides are in bytes.

        A carry-save adder halves the popcounts: of two products and the ones left over it keeps the sum bits, and
        counts the carries, which are worth two. On AVX-512 that is 2.5 instructions a vector of products instead of 3.
        """

        def codegen(context, builder, signature, args):
            x, w, out, width, x_stride, w_stride, out_stride = args
            x_rows = [builder.add(x, builder.mul(constant(i), x_stride)) for i in range(rows)]
            w_rows = [builder.add(w, builder.mul(constant(j), w_stride)) for j in range(columns)]

            def step(offsets: Any, ones: Any, carries: Any) -> Any:
                """Add the products of two vectors, given as (offset, lanes to keep, or None for all)."""

                def kept(row: Any, at: Any, keep: Any) -> Any:
                    vector = load(builder, builder.add(row, at))
                    return vector if keep is None else builder.and_(vector, keep)

                gate = builder.xor if xor else builder.and_
                ws = [[kept(row, at, keep) for row in w_rows] for at, keep in offsets]
                # For AND, one masked operand is enough.
                xs = [[kept(row, at, keep if xor else None) for row in x_rows] for at, keep in offsets]
                new_ones, new_carries = [], []
                for cell, (i, j) in enumerate(product(range(rows), range(columns))):
                    t = builder.xor(ones[cell], gate(xs[0][i], ws[0][j]))
                    s = builder.xor(t, gate(xs[1][i], ws[1][j]))
                    new_ones.append(s)
                    carried = lane_ones(builder, carry(builder, t, s, ones[cell]))
                    new_carries.append(builder.add(carries[cell], carried))
                return new_ones, new_carries

            # The loop takes whole pairs of vectors, and leaves the last 1 to 16 words.
            size = builder.shl(width, constant(3))
            whole = builder.and_(builder.sub(size, constant(1)), constant(-128))
            entry, head = builder.block, builder.append_basic_block("head")
            body, rest = builder.append_basic_block("body"), builder.append_basic_block("rest")
            builder.branch(head)
            builder.position_at_end(head)
            at = builder.phi(I64)
            at.add_incoming(constant(0), entry)
            ones, carries = ([builder.phi(V8) for _ in range(rows * columns)] for _ in range(2))
            for value in ones + carries:
                value.add_incoming(splat(builder, 0), entry)
            builder.cbranch(builder.icmp_signed("<", at, whole), body, rest)
            builder.position_at_end(body)
            offsets = [(at, None), (builder.add(at, constant(64)), None)]
            for row, (offset, _) in product(w_rows if rows == 1 else [], offsets):
                prefetch(builder, builder.add(row, offset))
            new = step(offsets, ones, carries)
            for value, now in zip(ones + carries, chain(*new), strict=True):
                value.add_incoming(now, body)
            at.add_incoming(builder.add(at, constant(128)), body)
            builder.branch(head)
            builder.position_at_end(rest)
            # The last vector keeps only the lanes that are not counted yet. The vector before it may be left too.
            last = builder.sub(size, constant(64))
            left = builder.lshr(builder.sub(size, whole), constant(3))
            two = builder.icmp_signed(">", left, constant(8))
            in_last = builder.select(two, builder.sub(left, constant(8)), left)
            lane = ir.Constant(V8, list(range(LANES)))
            keep = builder.icmp_unsigned(">=", lane, splat(builder, builder.sub(constant(8), in_last)))
            before = (builder.select(two, whole, last), splat(builder, builder.sext(two, I64)))
            ones, carries = step([before, (last, builder.sext(keep, V8))], ones, carries)
            counts = [
                builder.add(lane_ones(builder, one), builder.shl(carried, splat(builder, 1)))
                for one, carried in zip(ones, carries, strict=True)
            ]
            sums = sums_of(builder, counts)
            for i in range(rows):
                row = pick_lanes(builder, sums, sums, range(columns * i, columns * (i + 1)))
                here = builder.add(out, builder.mul(constant(i), out_stride))
                store(builder, builder.add(load(builder, here, row.type), row), here)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return tile


_and24, _and14, _and21, _and11 = (_tile(r, c, xor=False) for r, c in ((2, 4), (1, 4), (2, 1), (1, 1)))


_xor24, _xor14, _xor21, _xor11 = (_tile(r, c, xor=True) for r, c in ((2, 4), (1, 4), (2, 1), (1, 1)))


def _pair(xor: bool) -> Any:
    """The kernel for a pair of rows, where registers are too few for a tile, or have no count of their ones."""

    @intrinsic
    def pair(typing_context, x, w, out, width):
        """Out += ones of gate(x, w) over `width` words."""

        def codegen(context, builder, signature, args):
            x, w, out, width = args
            lanes = register_lanes()
            kind, zero = ir.VectorType(I64, lanes), splat(builder, 0, lanes)
            kept = [cgutils.alloca_once_value(builder, zero) for _ in range(4)]
            total = cgutils.alloca_once_value(builder, zero)
            scalar = cgutils.alloca_once_value(builder, constant(0))

            def gated(at: Any, kind: Any) -> Any:
                rows = (load(builder, builder.add(row, builder.shl(at, constant(3))), kind) for row in (x, w))
                return (builder.xor if xor else builder.and_)(*rows)

            def add(variable: Any, ones: Any) -> None:
                builder.store(builder.add(builder.load(variable), ones), variable)

            whole, most = (builder.and_(width, constant(-size)) for size in (16 * lanes, lanes))
            with cgutils.for_range_slice(builder, constant(0), whole, constant(16 * lanes), I64) as (at, _):
                for line in range(0, 16 * lanes, 8):
                    prefetch(builder, builder.add(w, builder.shl(builder.add(at, constant(line)), constant(3))))
                vectors = [gated(builder.add(at, constant(lanes * i)), kind) for i in range(16)]
                add(total, lane_ones(builder, add_by_tree(builder, kept, vectors)))
            for variable in reversed(kept):
                double = builder.shl(builder.load(total), splat(builder, 1, lanes))
                builder.store(builder.add(double, lane_ones(builder, builder.load(variable))), total)
            with cgutils.for_range_slice(builder, whole, most, constant(lanes), I64) as (at, _):
                add(total, lane_ones(builder, gated(at, kind)))
            with cgutils.for_range_slice(builder, most, width, constant(1), I64) as (at, _):
                add(scalar, builder.ctpop(gated(at, I64)))
            ones = builder.add(builder.load(scalar), sum_of(builder, builder.load(total)))
            store(builder, builder.add(load(builder, out, I64), ones), out)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 4), codegen

    return pair


_and_pair, _xor_pair = _pair(xor=False), _pair(xor=True)


@compiled
def _add_pairs(xor, x, x_row, rows, w, w_row, columns, width, out, out_row):
    """What `_add_tiles` does, a pair of rows at a time."""
    for n in range(columns):
        for b in range(rows):
            xb, wn, here = x + b * x_row, w + n * w_row, out + b * out_row + 8 * n
            if xor:
                _xor_pair(xb, wn, here, width)
            else:
                _and_pair(xb, wn, here, width)


@compiled
def _add_tiles(xor, x, x_row, rows, w, w_row, columns, width, out, out_row):
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
                    _xor24(xb, wn, here, width, x_row, w_row, out_row)
                elif wide:
                    _xor14(xb, wn, here, width, x_row, w_row, out_row)
                elif tall:
                    _xor21(xb, wn, here, width, x_row, w_row, out_row)
                else:
                    _xor11(xb, wn, here, width, x_row, w_row, out_row)
            elif tall and wide:
                _and24(xb, wn, here, width, x_row, w_row, out_row)
            elif wide:
                _and14(xb, wn, here, width, x_row, w_row, out_row)
            elif tall:
                _and21(xb, wn, here, width, x_row, w_row, out_row)
            else:
                _and11(xb, wn, here, width, x_row, w_row, out_row)
            b += 2 if tall else 1
        n += 4 if wide else 1


@compiled
def gather(source, strides, rows, n_words, first, size, block, filled):
    """Copy `size` words, from `first` on, of rows of any strides to rows of a block, with 0 up to `filled` words."""
    block_row = 8 * block.shape[1]
    if size >= LANES and strides[2] == 8 and strides[1] == 8 * n_words:
        for r in range(rows):
            copy_far_words(block.ctypes.data + r * block_row, source + r * strides[0] + 8 * first, size)
    else:
        for start in range(0, rows, 64):
            target = block.ctypes.data + start * block_row
            here = source + start * strides[0]
            some = min(64, rows - start)
            for j in range(first, first + size):
                word = here + j // n_words * strides[1] + j % n_words * strides[2]
                for r in range(some):
                    copy_word(target + r * block_row, word + r * strides[0])
                target += 8
    for r in range(rows):
        for j in range(size, filled):
            block[r, j] = 0


@compiled
def _mac_uncopied(tiles, x, x_row, w, w_row, width, xor, out):
    batch, neurons = out.shape
    longest = 8192 if tiles else 1024
    first = 0
    while first < width:
        size = min(longest, width - first)
        if width - first - size < LANES:  # A tile takes at least eight words.
            size = width - first
        here, xb, wn = int64(out.ctypes.data), x + 8 * first, w + 8 * first
        if tiles:
            _add_tiles(xor, xb, x_row, batch, wn, w_row, neurons, size, here, 8 * neurons)
        else:
            _add_pairs(xor, xb, x_row, batch, wn, w_row, neurons, size, here, 8 * neurons)
        first += size


@compiled
def _mac_in_blocks(tiles, x, x_strides, w, w_strides, n_words, width, xor, x_block, w_block, out):
    batch, neurons = out.shape
    group, panel, longest = len(x_block), len(w_block), x_block.shape[1] - LANES
    x_row, w_row = 8 * x_block.shape[1], 8 * w_block.shape[1]
    for b in range(0, batch, group):
        rows = min(group, batch - b)
        for first in range(0, width, longest):
            size = min(longest, width - first)
            gather(x + b * x_strides[0], x_strides, rows, n_words, first, size, x_block, LANES)
            for n in range(0, neurons, panel):
                columns = min(panel, neurons - n)
                gather(w + n * w_strides[0], w_strides, columns, n_words, first, size, w_block, LANES)
                xb, wn, most = int64(x_block.ctypes.data), int64(w_block.ctypes.data), max(size, LANES)
                here = int64(out.ctypes.data) + 8 * (b * neurons + n)
                if tiles:
                    _add_tiles(xor, xb, x_row, rows, wn, w_row, columns, most, here, 8 * neurons)
                else:
                    _add_pairs(xor, xb, x_row, rows, wn, w_row, columns, most, here, 8 * neurons)


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of x[b] AND (or XOR) w[n]; x (batch, inputs, words), w (neurons, inputs, words).

    The operands may have any strides, and any alignment, like arrays that Dask receives from another worker. Blocks of
    them are copied, so that tiles find them aligned and in the first-level cache. Where one operand has few rows they
    are not, because copying would cost more than it saves.
    """
    _, n_inputs, n_words = w.shape
    width = n_inputs * n_words
    x_at, w_at = (address_of(a) if a.flags.carray else a.ctypes.data for a in (x, w))
    x_strides, w_strides = x.strides, w.strides
    tiles = not shuffled_bytes()
    whole_rows = x_strides[1:] == w_strides[1:] == (8 * n_words, 8)
    if whole_rows and width >= LANES and min(len(x), len(w)) <= 12:
        _mac_uncopied(tiles, x_at, x_strides[0], w_at, w_strides[0], width, xor, out)
        return
    panel = 64 if w_strides[0] == 8 else 4  # In Fortran order neighbouring rows lie side by side.
    row = max(LANES, min(512, width)) + LANES  # The gap keeps rows from falling on the same lines of the cache.
    group = min(128, len(x))
    blocks = empty_words((group + panel, row))
    x_block, w_block = blocks[:group], blocks[group:]
    _mac_in_blocks(tiles, x_at, x_strides, w_at, w_strides, n_words, width, xor, x_block, w_block, out)

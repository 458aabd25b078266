"""Multiply-accumulate by gates and popcounts of vectors, in register tiles."""

from __future__ import annotations

from itertools import chain, product
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..core.llvm import (
    I64,
    LANES,
    V8,
    compiled,
    constant,
    load,
    pick_lanes,
    prefetch,
    splat,
    store,
    sums_of,
)
from ..core.ones import carry, lane_ones


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


@compiled
def add_tiles(xor, x, x_row, rows, w, w_row, columns, width, out, out_row):
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

"""Multiply-accumulate by tables of nibbles: an instruction looks up the counts of 32 rows for two others.

The method of the four Russians (Arlazarov, Dinic, Kronrod, Faradzhev 1970) in registers. Four bits of a row are a
number below 16. For four bits of another row a table of 16 bytes has the ones of the gate of both, and one of two rows
has them in the low and in the high half of each byte. A byte shuffle looks up 16 or 32 rows at once, in place of a gate
and a popcount of each pair of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import int64, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.llvm import (
    I64,
    compiled,
    constant,
    empty_words,
    load,
    pick_lanes,
    shuffled_bytes,
    store,
)
from ..core.ones import add_looked_up
from .mac_blocks import gather, located, operand_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words

GROUPS = 48  # nibbles of three words: their counts, at most 4 each, fit in a byte
LONGEST = 48  # words of a row that are laid out together
ROW = LONGEST + 4  # words from row to row, which spread over the lines of the cache
RUN = 65_535 // (4 * GROUPS) * 3 // LONGEST * LONGEST  # words until the 16-bit counts must be emptied
LANE_ROWS, TABLE_ROWS = 512, 128  # rows whose 16-bit counts stay in the second-level cache
PAIRS = 16  # pairs of rows whose counts stay in the first-level cache
TALL = 4  # vectors of rows in registers

I8, I16 = ir.IntType(8), ir.IntType(16)


def _tables(gate: np.ufunc) -> NDArray[np.uint8]:
    """For each two nibbles b of a byte, the table of ones of gate(i, b), for i below 16, in the halves of its bytes."""
    nibbles = np.arange(16)
    ones: NDArray[np.uint8] = np.bitwise_count(gate.outer(nibbles, nibbles))
    return (ones[None, :, :] | ones[:, None, :] << np.uint8(4)).reshape(256, 16)


TABLES = {False: _tables(np.bitwise_and), True: _tables(np.bitwise_xor)}


@intrinsic
def _lay_out_lanes(typing_context, source, n_pairs, target, stride):
    """Write the nibbles of a vector of rows: those at one place of all rows side by side, `stride` bytes a place."""

    def codegen(context, builder, signature, args):
        source, n_pairs, target, stride = args
        lanes = shuffled_bytes()
        kind = ir.VectorType(I8, lanes)
        low = ir.Constant(kind, [15] * lanes)
        four = ir.Constant(kind, [4] * lanes)
        with cgutils.for_range(builder, n_pairs) as loop:
            here = builder.add(source, builder.shl(loop.index, constant(4)))
            rows = []
            for r in range(16):
                halves = []
                for row in range(r, lanes, 16):
                    at = builder.add(here, constant(8 * ROW * row))
                    halves.append(load(builder, at, ir.VectorType(I8, 16)))
                rows.append(pick_lanes(builder, halves[0], halves[-1], range(lanes)))
            # Four rounds of interleaving turn 16 rows of 16 bytes into 16 columns, in each half of the vectors.
            orders = [
                [half + start + i // 2 + lanes * (i % 2) for half in range(0, lanes, 16) for i in range(16)]
                for start in (0, 8)
            ]
            for _ in range(4):
                rows = [pick_lanes(builder, rows[i], rows[i + 8], order) for i in range(8) for order in orders]
            to = builder.add(target, builder.mul(builder.shl(loop.index, constant(5)), stride))
            for column, vector in enumerate(rows):
                for nibble, half in enumerate((builder.and_(vector, low), builder.lshr(vector, four))):
                    store(builder, half, builder.add(to, builder.mul(constant(2 * column + nibble), stride)), align=1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


@intrinsic
def _lay_out_tables(typing_context, first, second, n_words, target):
    """Write where in `TABLES` the table of each two nibbles of two rows is, as 16-bit offsets."""

    def codegen(context, builder, signature, args):
        first, second, n_words, target = args
        kind = ir.VectorType(I8, 8)
        low, high, four = (ir.Constant(kind, [value] * 8) for value in (15, 240, 4))
        with cgutils.for_range(builder, n_words) as loop:
            at = builder.shl(loop.index, constant(3))
            a, b = (load(builder, builder.add(row, at), kind) for row in (first, second))
            lows = builder.or_(builder.and_(a, low), builder.shl(b, four))
            highs = builder.or_(builder.lshr(a, four), builder.and_(b, high))
            both = pick_lanes(builder, lows, highs, [i // 2 + 8 * (i % 2) for i in range(16)])
            wide = ir.VectorType(I16, 16)
            offsets = builder.shl(builder.zext(both, wide), ir.Constant(wide, [4] * 16))
            store(builder, offsets, builder.add(target, builder.shl(loop.index, constant(5))), align=1)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


def _counter(tall: int) -> Any:
    """The kernel for `tall` vectors of rows."""

    @intrinsic
    def count(typing_context, lanes, offsets, offset_stride, n_pairs, table, counts, count_stride):
        """Add the counts of 48 nibbles of a panel of rows, and of each of many pairs of rows, to 16-bit counts.

        A pair has the counts of its first row, then those of its second; of a vector of rows, the even ones, then the
        odd ones.
        """

        def codegen(context, builder, signature, args):
            panel, offsets, offset_stride, n_pairs, table, counts, count_stride = args
            lanes = shuffled_bytes()
            kind, wide = ir.VectorType(I8, lanes), ir.VectorType(I16, lanes // 2)
            with cgutils.for_range(builder, n_pairs) as pair:
                mine = builder.add(offsets, builder.mul(pair.index, offset_stride))
                entry, body = builder.block, builder.append_basic_block("triples")
                done = builder.append_basic_block("counted")
                builder.branch(body)
                builder.position_at_end(body)
                step = builder.phi(I64)
                step.add_incoming(constant(0), entry)
                totals = [[builder.phi(kind) for _ in range(tall)] for _ in range(2)]
                for total in totals[0] + totals[1]:
                    total.add_incoming(ir.Constant(kind, [0] * lanes), entry)
                here = builder.add(panel, builder.mul(step, constant(3 * lanes * tall)))
                at = builder.add(mine, builder.mul(step, constant(6)))
                tables = []
                for nibble in range(3):
                    offset = builder.zext(load(builder, builder.add(at, constant(2 * nibble)), I16), I64)
                    half = load(builder, builder.add(table, offset), ir.VectorType(I8, 16))
                    tables.append(pick_lanes(builder, half, half, [i % 16 for i in range(lanes)]))
                for r in range(tall):
                    places = [constant(lanes * (tall * nibble + r)) for nibble in range(3)]
                    rows = [load(builder, builder.add(here, place), kind) for place in places]
                    before = [totals[side][r] for side in range(2)]
                    for side, new in enumerate(add_looked_up(builder, tables, rows, before)):
                        totals[side][r].add_incoming(new, body)
                        totals[side][r] = new
                next_step = builder.add(step, constant(1))
                step.add_incoming(next_step, body)
                builder.cbranch(builder.icmp_unsigned("<", next_step, constant(GROUPS // 3)), body, done)
                builder.position_at_end(done)
                to = builder.add(counts, builder.mul(pair.index, count_stride))
                for side in range(2):
                    for r, total in enumerate(totals[side]):
                        words = builder.bitcast(total, wide)
                        even = builder.and_(words, ir.Constant(wide, [255] * (lanes // 2)))
                        odd = builder.lshr(words, ir.Constant(wide, [8] * (lanes // 2)))
                        for parity, value in enumerate((even, odd)):
                            place = constant(lanes * (2 * (side * tall + r) + parity))
                            here = builder.add(to, place)
                            store(builder, builder.add(load(builder, here, wide), value), here, align=1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), codegen

    return count


_count_tall, _count_short = _counter(TALL), _counter(1)


@compiled
def _add_counts(counts, first, tall, lanes, out, at, rows, stride, n_tables, table_stride):
    """out[at + row * stride + table * table_stride] += the 16-bit counts of a panel that begins at vector `first`."""
    for table in range(n_tables):
        here = at + table * table_stride
        for r in range(min(tall, -(-rows // lanes))):
            vector = 2 * lanes * first + (table % 2 * tall + r) * lanes
            for i in range(min(lanes, rows - r * lanes)):
                out[here] += counts[table // 2, vector + i % 2 * (lanes // 2) + i // 2]
                here += stride


@compiled
def _lay_out_panel(a, start, rows, first, size, block, tall, panel):
    """Lay out a part of some rows, in `tall` vectors."""
    lanes = len(block)
    for r in range(tall):
        gather(a, start + r * lanes, min(lanes, rows - r * lanes), first, size, block, size + 3)
        _lay_out_lanes(block.ctypes.data, (size + 3) // 2, panel.ctypes.data + r * lanes, tall * lanes)


@compiled
def _count_panel(panel, steps, tall, lanes, offsets, n_pairs, table, counts, count_stride):
    """Add the counts of a panel to those at an address, of a few pairs of rows after the other."""
    stride = 2 * offsets.shape[1]
    for pair in range(0, n_pairs, PAIRS):
        some = min(PAIRS, n_pairs - pair)
        to = counts + count_stride * pair
        for step in range(steps):
            at = panel.ctypes.data + step * GROUPS * tall * lanes
            which = offsets.ctypes.data + step * 2 * GROUPS + stride * pair
            if tall == TALL:
                _count_tall(at, which, stride, some, table, to, count_stride)
            else:
                _count_short(at, which, stride, some, table, to, count_stride)


@compiled
def _mac(a, a_out, b, b_out, width, table, scratch, out):
    """out[i * a_out + j * b_out] += the ones of the gate of row i of a, which lie in lanes, and row j of b."""
    a_at, b_at = located(*a), located(*b)
    a_rows, b_rows = len(a_at[1]), len(b_at[1])
    a_block, b_block, panel, offsets, counts = scratch
    group, lanes = len(b_block), len(a_block)
    most = counts.shape[1] // 2  # rows in lanes whose counts are kept
    count_stride = 2 * counts.shape[1]
    for a0, b0 in [(i, j) for i in range(0, a_rows, most) for j in range(0, b_rows, group)]:
        in_lanes, in_tables = min(most, a_rows - a0), min(group, b_rows - b0)
        n_pairs = (in_tables + 1) // 2
        counts[:n_pairs] = 0
        for first in range(0, width, LONGEST):
            size = min(LONGEST, width - first)
            steps = (size + 2) // 3
            gather(b_at, b0, in_tables, first, size, b_block, size + 2)
            for pair in range(n_pairs):
                row = int64(b_block.ctypes.data) + 16 * ROW * pair
                other = row + 8 * ROW if 2 * pair + 1 < in_tables else row
                _lay_out_tables(row, other, 3 * steps, offsets.ctypes.data + 2 * offsets.shape[1] * pair)
            emptied = first + size == width or (first + size) % RUN == 0
            v = 0
            while v * lanes < in_lanes:
                start = a0 + v * lanes
                tall = TALL if (v + TALL) * lanes < in_lanes + lanes else 1
                rows = min(tall * lanes, in_lanes - v * lanes)
                _lay_out_panel(a_at, start, rows, first, size, a_block, tall, panel)
                to = int64(counts.ctypes.data) + 4 * lanes * v
                _count_panel(panel, steps, tall, lanes, offsets, n_pairs, table, to, count_stride)
                if emptied:
                    at = start * a_out + b0 * b_out
                    _add_counts(counts, v, tall, lanes, out, at, rows, a_out, in_tables, b_out)
                v += tall
            if emptied:
                counts[:n_pairs] = 0


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of row b of x AND (or XOR) row n of w, of operands as `mac.mac` has them."""
    lanes = shuffled_bytes()
    rows, neurons = out.shape
    width = w.shape[1] * w.shape[2]
    in_lanes, in_tables, a, b, a_out, b_out = rows, neurons, x, w, neurons, 1
    if _cost(neurons, rows) <= _cost(rows, neurons):
        in_lanes, in_tables, a, b, a_out, b_out = neurons, rows, w, x, 1, neurons
    group, most = min(TABLE_ROWS, in_tables), min(LANE_ROWS, -(-in_lanes // lanes) * lanes)
    scratch = (
        empty_words((lanes, ROW)),
        empty_words((group, ROW)),
        empty_words((2 * (LONGEST + 2) * TALL * lanes,)),
        empty_words((-(-group // 2), 4 * LONGEST)).view(np.uint16),
        empty_words((-(-group // 2), most // 2)).view(np.uint16),
    )
    _mac(operand_of(a), a_out, operand_of(b), b_out, width, TABLES[xor].ctypes.data, scratch, out.reshape(-1))


def _cost(in_lanes: int, in_tables: int) -> int:
    """The time for a word of each row, in units of that for a pair of rows; laying a row out takes eleven of them."""
    lanes = -(-in_lanes // shuffled_bytes()) * shuffled_bytes()
    tables = in_tables + in_tables % 2
    return lanes * tables + 11 * (lanes + tables)


def pays(rows: int, others: int, width: int) -> bool:
    """Whether tables are quicker than register tiles, which take 2.5 units for a pair of words, and start sooner."""
    cost = min(_cost(rows, others), _cost(others, rows))
    return 2 * cost * width + 320_000 < 5 * rows * others * width

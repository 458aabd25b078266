"""Adders that count: the ones of each bit are counted by full adders, and accumulators of several rows step at once.

A full adder works on a bit of all bits of a vector: counts are kept as words of binary digits, the *planes*, and no bit
is unpacked until an accumulator takes a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import (
    I64,
    address_of,
    call_llvm,
    compiled,
    constant,
    empty_words,
    load,
    readonly,
    register_lanes,
    store,
)
from ..core.ones import add_by_tree
from ..core.words import WORD
from ..vector_ops.adders import check_start, digits_of
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROWS, LANES = 16, register_lanes()
TILE = 32  # words of a row whose counts are kept at a time
HALF = 32  # bits that are stepped through in one go
BYTES, WIDE = (0,) * 8, (0,) * HALF  # the bits of a field that holds a count
I32 = ir.IntType(32)
VECTOR = ir.VectorType(I32, ROWS)


@implements(contract.accumulate)
def accumulate(
    words: NDArray[np.uint64],
    start: NDArray[Any],
    *,
    scale: int,
    offset: int,
    low: int,
    high: int,
    worth: int,
    digits: int,
    length: int,
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    *lead, _, n_words = words.shape
    out = empty_words((*lead, n_words))
    check_start(start, low, high)
    states = np.array(np.broadcast_to(start, lead), np.int32, order="C")
    if out.size:
        numbers = np.array([scale, offset, low, high], np.int32)
        accumulate_rows(words, out, states.reshape(-1), numbers, worth, digits, length)
    return out, states


def accumulate_rows(
    words: NDArray[np.uint64],
    out: NDArray[np.uint64],
    states: NDArray[np.int32],
    numbers: NDArray[np.int32],
    worth: int,
    digits: int,
    length: int,
) -> None:
    """Write the contiguous outputs of adders of words (..., n, n_words), from flat `states`, which become the last."""
    words, rows = _addresses(words)
    n, n_words = words.shape[-2:]
    n_planes = digits_of(n, digits) + worth - 1
    planes = np.zeros((min(ROWS, rows.size), n_planes, TILE), np.uint64)
    fields = BYTES if n_planes <= len(BYTES) else WIDE
    at = rows, words.strides[-2], address_of(out), address_of(numbers)
    _accumulate(*at, n, n_words, digits, worth - 1, planes, fields, states, length)


def _addresses(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The words, copied if those of a stream are apart, and the address of each row of streams."""
    if words.strides[-1] != 8:
        words = np.ascontiguousarray(words)
    rows = np.array(words.ctypes.data)
    for size, step in zip(words.shape[:-2], words.strides, strict=False):
        rows = rows[..., None] + step * np.arange(size)
    return words, readonly(rows.reshape(-1))


@implements(contract.count_columns)
def count_columns(words: NDArray[np.uint64], digits: int, total: int) -> NDArray[np.uint64]:
    *lead, n, n_words = words.shape
    planes = np.zeros((*lead, total, n_words), np.uint64)
    if planes.size:
        words, rows = _addresses(words)
        _count_rows(rows, words.strides[-2], n, n_words, digits, planes.reshape(-1, total, n_words))
    return planes


def _adder(level: int) -> Any:
    """A function that adds 2**level rows of words to planes."""

    @intrinsic
    def add(typing_context, address, step, planes, apart, n_planes, n_words):
        """Add rows, `step` bytes after each other, to planes `apart` bytes after each other."""

        def codegen(context, builder, signature, args):
            address, step, planes, apart, n_planes, n_words = args
            rows = [builder.add(address, builder.mul(step, constant(i))) for i in range(2**level)]
            own = [builder.add(planes, builder.mul(apart, constant(k))) for k in range(level + 1)]

            def body(offset: Any, lanes: int) -> None:
                kind = ir.VectorType(I64, lanes)
                values = [load(builder, builder.add(row, offset), kind) for row in rows]
                if level:
                    places = [builder.add(plane, offset) for plane in own[:-1]]
                    kept = [cgutils.alloca_once_value(builder, load(builder, place, kind)) for place in places]
                    values = [add_by_tree(builder, kept, values)]
                    for place, digit in zip(places, kept, strict=True):
                        store(builder, builder.load(digit), place)
                carried = cgutils.alloca_once_value(builder, values[0])
                with cgutils.for_range(builder, builder.sub(n_planes, constant(level))) as loop:
                    place = builder.add(builder.add(own[-1], offset), builder.mul(loop.index, apart))
                    digit, carry = load(builder, place, kind), builder.load(carried)
                    store(builder, builder.xor(digit, carry), place)
                    builder.store(builder.and_(digit, carry), carried)

            whole = builder.and_(n_words, constant(-LANES))
            for start, stop, lanes in ((constant(0), whole, LANES), (whole, n_words, 1)):
                with cgutils.for_range_slice(builder, start, stop, constant(lanes), I64) as (index, _):
                    body(builder.shl(index, constant(3)), lanes)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 6), codegen

    return add


_add_16, _add_8, _add_4, _add_2, _add_1 = (_adder(level) for level in (4, 3, 2, 1, 0))


@compiled
def _add_columns(address, n, step, digits, planes, apart, n_planes, n_words):
    """Add n streams, `step` bytes after each other, to planes; stream i counts 2 ** (i % digits)."""
    count = n // digits
    for digit in range(digits):
        row = address + digit * step
        to, left = planes + digit * apart, n_planes - digit
        for _ in range(count // 16):
            _add_16(row, digits * step, to, apart, left, n_words)
            row += 16 * digits * step
        if count & 8:
            _add_8(row, digits * step, to, apart, left, n_words)
            row += 8 * digits * step
        if count & 4:
            _add_4(row, digits * step, to, apart, left, n_words)
            row += 4 * digits * step
        if count & 2:
            _add_2(row, digits * step, to, apart, left, n_words)
            row += 2 * digits * step
        if count & 1:
            _add_1(row, digits * step, to, apart, left, n_words)


@compiled
def _count_rows(rows, step, n, n_words, digits, planes):
    for r in range(rows.size):
        _add_columns(rows[r], n, step, digits, planes[r].ctypes.data, 8 * n_words, planes.shape[1], n_words)


@intrinsic
def _step(typing_context, planes, rows, n_planes, fields, bits, out, row_bytes, states, numbers):
    """Run the accumulators of up to ROWS rows through bits of their counts, whose planes are TILE words long."""

    def codegen(context, builder, signature, args):
        planes, rows, n_planes, _, bits, out, row_bytes, states, numbers = args
        width = signature.args[3].count
        apart = constant(8 * TILE)
        last = builder.sub(rows, constant(1))
        sources, targets, at = [], [], []
        for lane in range(ROWS):  # Lanes past the last row do what its lane does.
            row = builder.select(builder.icmp_signed("<", constant(lane), rows), constant(lane), last)
            sources.append(builder.add(planes, builder.mul(row, builder.mul(n_planes, apart))))
            targets.append(builder.add(out, builder.mul(row, row_bytes)))
            at.append(builder.add(states, builder.shl(row, constant(2))))

        def gathered(places: list[Any]) -> Any:
            vector = ir.Constant(VECTOR, ir.Undefined)
            for lane, place in enumerate(places):
                vector = builder.insert_element(vector, load(builder, place, I32, 4), I32(lane))
            return vector

        def scattered(vector: Any, places: list[Any]) -> None:
            for lane, place in enumerate(places):
                store(builder, builder.extract_element(vector, I32(lane)), place, 4)

        def everywhere(value: Any) -> Any:
            vector = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, I32(0))
            return builder.shuffle_vector(vector, vector, ir.Constant(VECTOR, [0] * ROWS))

        def same(value: int) -> Any:
            return ir.Constant(VECTOR, [value] * ROWS)

        def number(i: int) -> Any:
            return everywhere(load(builder, builder.add(numbers, constant(4 * i)), I32, 4))

        scale, offset, low, high = map(number, range(4))
        below, none = builder.sub(scale, same(1)), same(0)
        state = cgutils.alloca_once_value(builder, gathered(at))
        added = cgutils.alloca_once(builder, ir.ArrayType(VECTOR, HALF))
        ones = same(sum(1 << place for place in range(0, HALF, width)))

        def half(here: Any, steps: Any) -> None:
            """Take up to HALF steps: those of the bits at some bytes of the rows."""
            counts = [cgutils.alloca_once_value(builder, none) for _ in range(width)]
            with cgutils.for_range(builder, n_planes) as loop:  # from the highest digit down
                plane = builder.mul(builder.sub(builder.sub(n_planes, constant(1)), loop.index), apart)
                words = gathered([builder.add(builder.add(source, plane), here) for source in sources])
                for j, count in enumerate(counts):
                    digit = builder.and_(builder.lshr(words, same(j)), ones)
                    builder.store(builder.or_(builder.shl(builder.load(count), same(1)), digit), count)
            for j, count in enumerate(counts):
                fields = builder.load(count)
                for place in range(0, HALF, width):
                    field = builder.lshr(fields, same(place))
                    field = builder.and_(field, same(2**width - 1)) if width < HALF else field
                    builder.store(builder.sub(field, offset), cgutils.gep(builder, added, 0, j + place))
            written = cgutils.alloca_once_value(builder, none)
            with cgutils.for_range(builder, steps) as loop:
                value = builder.add(builder.load(state), builder.load(cgutils.gep(builder, added, 0, loop.index)))
                enough = builder.sext(builder.icmp_signed(">", value, below), VECTOR)
                value = builder.sub(value, builder.and_(enough, scale))
                value = call_llvm(builder, f"llvm.smin.v{ROWS}i32", VECTOR, value, high)
                builder.store(call_llvm(builder, f"llvm.smax.v{ROWS}i32", VECTOR, value, low), state)
                builder.store(builder.sub(builder.shl(builder.load(written), same(1)), enough), written)
            turned = call_llvm(builder, f"llvm.bitreverse.v{ROWS}i32", VECTOR, builder.load(written))
            unused = everywhere(builder.trunc(builder.sub(constant(HALF), steps), I32))
            scattered(builder.lshr(turned, unused), [builder.add(target, here) for target in targets])

        whole, rest = builder.ashr(bits, constant(5)), builder.and_(bits, constant(HALF - 1))
        with cgutils.for_range(builder, whole) as loop:
            half(builder.shl(loop.index, constant(2)), constant(HALF))
        with builder.if_then(builder.icmp_signed("!=", rest, constant(0))):
            half(builder.shl(whole, constant(2)), rest)
        scattered(builder.load(state), at)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3, fields, *[types.intp] * 5), codegen


@compiled
def _accumulate(at, step, out, numbers, n, n_words, digits, place, planes, fields, states, length):
    """Accumulate rows at addresses; plane `place` is that of the counts' lowest digit."""
    size, n_planes = 8 * n_words, planes.shape[1]
    apart = 8 * TILE
    for first in range(0, states.size, len(planes)):
        rows = min(len(planes), states.size - first)
        for begin in range(0, n_words, TILE):
            count = min(TILE, n_words - begin)
            planes[:] = 0
            for r in range(rows):
                row = at[first + r] + 8 * begin
                to = planes[r, place:].ctypes.data
                _add_columns(row, n, step, digits, to, apart, n_planes - place, count)
            here = out + first * size + 8 * begin
            bits = min(WORD * count, length - WORD * begin)
            if bits & (WORD - 1):
                for r in range(rows):
                    _clear(here + r * size + 8 * (count - 1))
            kept = states.ctypes.data + 4 * first
            _step(planes.ctypes.data, rows, n_planes, fields, bits, here, size, kept, numbers)


@intrinsic
def _clear(typing_context, address):
    def codegen(context, builder, signature, args):
        store(builder, constant(0), args[0])
        return context.get_dummy_value()

    return types.void(types.intp), codegen

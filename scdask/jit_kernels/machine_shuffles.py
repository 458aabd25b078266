"""Machines of few states: a register holds the states of as many streams as it has bytes, and byte shuffles do a step.

A shuffle looks each byte up in a table of 16. The number of an entry has the inputs in its low bits and the state above
them; where there are more than 16, several tables are looked up, of which one has the entry.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..core.llvm import I64, call_llvm, compiled, constant, copy_word, load, pick_lanes, splat, store, target_has

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ..core.machines import Machine

TOGETHER = 32 if target_has("avx2") else 16 if target_has("ssse3") else 0  # streams of a register
LANES = TOGETHER // 8
ENTRIES = 16
MOST_TABLES = {1: 2, 2: 4, 3: 4}  # by the number of inputs: with more, look-ups of several steps at once are quicker
TILE = 8  # words of a row, a cache line, that are turned at a time: rows may lie where a cache keeps few at once
BYTE, I32 = ir.IntType(8), ir.IntType(32)
BYTES, WORDS, TABLE = ir.VectorType(BYTE, TOGETHER or 8), ir.VectorType(I64, LANES or 1), ir.VectorType(BYTE, ENTRIES)
_AGAIN = [i % ENTRIES for i in range(TOGETHER)]


@lru_cache(maxsize=64)
def tables(machine: Machine) -> NDArray[np.uint8]:
    """The next states, and for each output and step of a byte its bit, (1 + 8 m, tables, 16); none if they are many."""
    k = machine.inputs
    count = -(-(machine.states << k) // ENTRIES)
    if count > MOST_TABLES[k] or not TOGETHER:
        return np.empty(0, np.uint8)
    entries = np.zeros((1 + 8 * machine.outputs, count * ENTRIES), np.uint8)
    used = machine.states << k
    entries[0, :used] = machine.single_steps >> 16
    for j in range(machine.outputs):
        for step in range(8):
            entries[1 + 8 * j + step, :used] = (machine.single_steps >> j & 1) << step
    return entries.reshape(-1)


def _bytes(builder: Any, words: Any) -> Any:
    return builder.bitcast(words, BYTES)


def _each(value: int) -> Any:
    """A vector with the value in each byte."""
    return ir.Constant(BYTES, [value] * TOGETHER)


def _transpose(builder: Any, words: list[Any]) -> list[Any]:
    """Eight vectors of words as eight by eight bytes in each lane, transposed (Warren: Hacker's Delight, 7-3)."""
    words = list(words)
    for apart, mask in ((4, 0x00000000FFFFFFFF), (2, 0x0000FFFF0000FFFF), (1, 0x00FF00FF00FF00FF)):
        by, kept = splat(builder, 8 * apart, LANES), splat(builder, mask, LANES)
        for i in range(8):
            if i & apart:
                continue
            a, b = words[i], words[i + apart]
            swapped = builder.and_(builder.xor(builder.lshr(a, by), b), kept)
            words[i + apart] = builder.xor(b, swapped)
            words[i] = builder.xor(a, builder.shl(swapped, by))
    return words


def _across(builder: Any, vectors: list[Any]) -> list[Any]:
    """As many vectors as each has words, transposed."""
    if LANES == 2:
        a, b = vectors
        return [pick_lanes(builder, a, b, (i, i + 2)) for i in range(2)]
    pairs = (vectors[:2], vectors[2:])
    halves = [[pick_lanes(builder, a, b, lanes) for a, b in pairs] for lanes in ((0, 4, 2, 6), (1, 5, 3, 7))]
    return [pick_lanes(builder, a, b, lanes) for lanes in ((0, 1, 4, 5), (2, 3, 6, 7)) for a, b in halves]


def _shuffler(several: bool) -> Any:
    """A function that runs a machine by look-ups in one table or in several."""

    @intrinsic
    def shuffle(typing_context, tables, count, places, inputs, outputs, states, n_words):
        """Run a machine over up to TILE words of TOGETHER rows, whose operands and outputs lie at some places."""

        def codegen(context, builder, signature, args):
            tables, count, places, _, _, states, n_words = args
            k, m = signature.args[3].count, signature.args[4].count
            name = "llvm.x86.avx2.pshuf.b" if TOGETHER == 32 else "llvm.x86.ssse3.pshuf.b.128"
            row_bytes = builder.mul(count, constant(ENTRIES))
            buffers = [cgutils.alloca_once(builder, WORDS, size=8 * TILE) for _ in range(k + m)]

            def look_up(number: int, which: Any, at: Any) -> Any:
                place = builder.add(tables, builder.add(builder.mul(row_bytes, constant(number)), which))
                table = load(builder, place, TABLE)
                return call_llvm(builder, name, BYTES, pick_lanes(builder, table, table, _AGAIN), at)

            def step(at: Any, t: int) -> list[Any]:
                """The next states, and the bits written, of entries."""
                numbers = [0, *(1 + 8 * j + t for j in range(m))]
                if not several:
                    return [look_up(number, constant(0), at) for number in numbers]
                found = [cgutils.alloca_once_value(builder, _each(0)) for _ in numbers]
                high = builder.and_(at, _each(0x30))
                with cgutils.for_range(builder, count) as loop:
                    which = builder.shl(loop.index, constant(4))
                    first = builder.insert_element(_each(0), builder.trunc(which, BYTE), ir.Constant(I32, 0))
                    wide = pick_lanes(builder, first, first, [0] * TOGETHER)
                    here = builder.sext(builder.icmp_unsigned("==", high, wide), BYTES)
                    for number, total in zip(numbers, found, strict=True):
                        chosen = builder.and_(look_up(number, which, at), here)
                        builder.store(builder.or_(builder.load(total), chosen), total)
                return [builder.load(total) for total in found]

            def blocks(operand: int) -> Iterator[tuple[list[Any], list[Any]]]:
                """The addresses of LANES rows of a square of words, and where its columns are kept."""
                for q in range(8):
                    numbers = range(TOGETHER * operand + LANES * q, TOGETHER * operand + LANES * (q + 1))
                    at = [load(builder, builder.add(places, constant(8 * number)), I64) for number in numbers]
                    for w in range(0, TILE, LANES):
                        kept = [builder.gep(buffers[operand], [constant(8 * (w + i) + q)]) for i in range(LANES)]
                        yield [builder.add(place, constant(8 * w)) for place in at], kept

            def octets(operand: int, word: Any) -> list[Any]:
                """Where the bytes of a word of all rows are kept."""
                first = builder.shl(word, constant(3))
                return [builder.gep(buffers[operand], [builder.or_(first, constant(q))]) for q in range(8)]

            for i in range(k):
                for at, kept in blocks(i):
                    found = _across(builder, [load(builder, place, WORDS) for place in at])
                    for vector, target in zip(found, kept, strict=True):
                        builder.store(vector, target)
            state = cgutils.alloca_once_value(builder, load(builder, states, BYTES))
            with cgutils.for_range(builder, n_words) as loop:
                for i in range(k):
                    kept = octets(i, loop.index)
                    for vector, target in zip(_transpose(builder, list(map(builder.load, kept))), kept, strict=True):
                        builder.store(vector, target)
                with cgutils.for_range(builder, constant(8)) as octet:
                    at = builder.or_(builder.shl(loop.index, constant(3)), octet.index)
                    given = [builder.load(builder.gep(buffers[i], [at])) for i in range(k)]
                    current = builder.load(state)
                    written = [_each(0)] * m
                    for t in range(8):
                        entry = current
                        for i, words in enumerate(given):
                            by = splat(builder, abs(t - i), LANES)
                            moved = builder.lshr(words, by) if t > i else builder.shl(words, by)
                            entry = builder.or_(entry, builder.and_(_bytes(builder, moved), _each(1 << i)))
                        current, *bits = step(entry, t)
                        written = [builder.or_(done, new) for done, new in zip(written, bits, strict=True)]
                    builder.store(current, state)
                    for j, out in enumerate(written):
                        builder.store(builder.bitcast(out, WORDS), builder.gep(buffers[k + j], [at]))
                for j in range(m):
                    kept = octets(k + j, loop.index)
                    for vector, target in zip(_transpose(builder, list(map(builder.load, kept))), kept, strict=True):
                        builder.store(vector, target)
            for j in range(m):
                for at, kept in blocks(k + j):
                    for vector, place in zip(_across(builder, list(map(builder.load, kept))), at, strict=True):
                        store(builder, vector, place)
            store(builder, builder.load(state), states, 1)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3, inputs, outputs, *[types.intp] * 2), codegen

    return shuffle


_shuffle_one, _shuffle_several = _shuffler(several=False), _shuffler(several=True)


@compiled
def run_shuffles(tables, places, inputs, outputs, states, n_words):
    """Run a machine of few states over whole words of rows; return how many, from the first on, were run."""
    k, m, size = len(inputs), len(outputs), states.size
    count = tables.size // (ENTRIES * (1 + 8 * m))
    at, beside = np.empty((k + m, TOGETHER), np.int64), np.empty((k + m, TOGETHER, TILE), np.uint64)
    buffer = np.empty(TOGETHER, np.uint8)
    done = 0
    while size - done >= TOGETHER // 4:
        for i in range(TOGETHER):  # Byte i of lane g has the state of row LANES * i + g.
            buffer[8 * (i % LANES) + i // LANES] = states[min(done + i, size - 1)] << k
        for w in range(0, n_words, TILE):
            n = min(TILE, n_words - w)
            for j in range(k + m):
                for i in range(TOGETHER):
                    place = places[j, min(done + i, size - 1)] + 8 * w
                    at[j, i] = place
                    if n < TILE:  # A whole tile would reach past the end of the row.
                        at[j, i] = beside.ctypes.data + 8 * TILE * (TOGETHER * j + i)
                        for v in range(n if j < k else 0):
                            copy_word(at[j, i] + 8 * v, place + 8 * v)
            arguments = (tables.ctypes.data, count, at.ctypes.data)
            if count == 1:
                _shuffle_one(*arguments, inputs, outputs, buffer.ctypes.data, n)
            else:
                _shuffle_several(*arguments, inputs, outputs, buffer.ctypes.data, n)
            if n < TILE:
                for j in range(k, k + m):
                    for i in range(min(TOGETHER, size - done)):
                        for v in range(n):
                            copy_word(places[j, done + i] + 8 * (w + v), at[j, i] + 8 * v)
        for i in range(min(TOGETHER, size - done)):
            states[done + i] = buffer[8 * (i % LANES) + i // LANES] >> k
        done = min(done + TOGETHER, size)
    return done

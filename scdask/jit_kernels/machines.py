"""Machines: several steps a look-up; or many streams a look-up (`machine_shuffles`); or all bits of a word at once.

The last is for machines of two states. A state is then a bit, and a step makes it (keep & q) ^ set, whatever the
machine. Such steps compose to another one, so that log2(64) shifts give all states in a word, as in an adder with carry
look-ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types, uint32, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import I64, compiled, constant, empty_words, load, readonly, register_lanes, splat, store
from ..core.machines import AT_ONCE
from ..core.words import WORD
from . import machine_shuffles
from .device import implements
from .machine_shuffles import run_shuffles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.machines import Machine

TOGETHER = 4  # streams that take turns, because each look-up waits for the one before it
TILE = 256  # words of a stream whose states are kept at a time
LANES = register_lanes()
BYTE, I32 = ir.IntType(8), ir.IntType(32)


@implements(contract.run_machine)
def run_machine(
    machine: Machine, start: NDArray[Any], *words: NDArray[np.uint64], length: int
) -> tuple[NDArray[Any], ...]:
    shape = np.broadcast_shapes(*(operand.shape for operand in words))
    outputs = tuple(empty_words(shape) for _ in range(machine.outputs))
    states = np.array(np.broadcast_to(machine.check_states(start), shape[:-1]), order="C")
    run_streams(constants(machine), words, outputs, states, length)
    return *outputs, states


def constants(machine: Machine) -> tuple[NDArray[Any], ...]:
    """What the kernels know of a machine."""
    if machine.states == 2:
        return (machine.polynomials,)
    return machine.look_ups, machine.single_steps, machine_shuffles.tables(machine)


def run_streams(
    constants: tuple[NDArray[Any], ...],
    words: tuple[NDArray[np.uint64], ...],
    outputs: tuple[NDArray[np.uint64], ...],
    states: NDArray[np.uint8],
    length: int,
) -> None:
    """Run a machine from contiguous `states`, which become the final ones, and write its outputs, contiguous too."""
    if not outputs[0].size:
        return
    operands = [_with_whole_rows(operand) for operand in words]
    places = readonly(np.array([_rows(operand, states.shape) for operand in (*operands, *outputs)]))
    inputs, written, flat = (0,) * len(words), (0,) * len(outputs), states.reshape(-1)
    tables = tuple(map(readonly, constants))
    if len(tables) == 1:
        _run_two_states(*tables, places, inputs, written, flat, length)
        return
    *look_ups, shuffles = tables
    done = run_shuffles(shuffles, places, inputs, written, flat, length // WORD) if shuffles.size else 0
    _run_look_ups(*look_ups, places, inputs, written, flat, length, done)


def _with_whole_rows(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words, copied only if those of a stream do not follow one another."""
    return words if words.strides[-1] == words.itemsize else np.ascontiguousarray(words)


def _rows(words: NDArray[np.uint64], lead: tuple[int, ...]) -> NDArray[np.int64]:
    """The addresses of the streams, repeated where they broadcast to `lead`."""
    rows: Any = words.__array_interface__["data"][0]
    for n, stride in zip(words.shape[:-1], words.strides[:-1], strict=True):
        rows = np.expand_dims(rows, -1) + np.arange(n) * stride
    return np.broadcast_to(rows, lead).reshape(-1)


def _places(builder: Any, places: Any, size: Any, row: Any, count: int) -> list[Any]:
    """The addresses of a row's operands and outputs, `count` in all, of `size` rows."""
    here = builder.add(places, builder.shl(row, constant(3)))
    return [load(builder, builder.add(here, builder.mul(size, constant(8 * i))), I64) for i in range(count)]


def _of_words(builder: Any, places: list[Any], offset: Any, kind: Any = I64) -> list[Any]:
    return [load(builder, builder.add(place, offset), kind) for place in places]


@intrinsic
def _look_up(typing_context, table, places, size, rows, inputs, outputs, states, n_words):
    """Run a machine over whole words of TOGETHER rows of `size`, given by their numbers."""

    def codegen(context, builder, signature, args):
        table, places, size, rows, _, _, states, n_words = args
        k, m = signature.args[4].count, signature.args[5].count
        n = AT_ONCE[k]
        low = constant((2**n - 1) * 0x0101010101010101)
        streams = []
        for row in cgutils.unpack_tuple(builder, rows, TOGETHER):
            found = _places(builder, places, size, row, k + m)
            at = builder.inttoptr(builder.add(states, row), BYTE.as_pointer())
            state = builder.shl(builder.zext(builder.load(at), I64), constant(n * k))
            streams.append((found[:k], found[k:], at, cgutils.alloca_once_value(builder, state)))

        def columns(given: list[Any]) -> list[Any]:
            """The bits of steps 8 b + n j and those after it are byte b of word j, input after input."""
            words = []
            for j in range(8 // n):
                word = constant(0)
                for i, of in enumerate(given):
                    part = builder.and_(builder.lshr(of, constant(n * j)), low)
                    word = builder.or_(word, builder.shl(part, constant(n * i)))
                words.append(word)
            return words

        with cgutils.for_range(builder, n_words) as loop:
            offset = builder.shl(loop.index, constant(3))
            bits = [columns(_of_words(builder, stream[0], offset)) for stream in streams]
            current = [builder.load(stream[3]) for stream in streams]
            written = [[constant(0)] * m for _ in streams]
            for step in range(0, WORD, n):
                b, j = step // 8, step % 8 // n
                for s in range(TOGETHER):
                    octet = builder.and_(builder.lshr(bits[s][j], constant(8 * b)), constant(2 ** (n * k) - 1))
                    place = builder.add(table, builder.shl(builder.or_(current[s], octet), constant(2)))
                    entry = builder.zext(load(builder, place, I32, 4), I64)
                    current[s] = builder.lshr(entry, constant(16))
                    for i in range(m):
                        top = builder.shl(builder.lshr(entry, constant(n * i)), constant(WORD - n))
                        written[s][i] = builder.or_(builder.lshr(written[s][i], constant(n)), top)
            for s, (_, targets, _, state) in enumerate(streams):
                builder.store(current[s], state)
                for word, target in zip(written[s], targets, strict=True):
                    store(builder, word, builder.add(target, offset))
        for _, _, at, state in streams:
            builder.store(builder.trunc(builder.lshr(builder.load(state), constant(n * k)), BYTE), at)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3, rows, inputs, outputs, *[types.intp] * 2), codegen


@intrinsic
def _word_at(typing_context, address):
    def codegen(context, builder, signature, args):
        return load(builder, args[0], I64)

    return types.uint64(types.intp), codegen


@intrinsic
def _put_word(typing_context, word, address):
    def codegen(context, builder, signature, args):
        store(builder, *args)
        return context.get_dummy_value()

    return types.void(types.uint64, types.intp), codegen


@compiled
def _run_look_ups(table, single_steps, places, inputs, outputs, states, length, done):
    """Run a machine of any number of states, whose first `done` rows have run, but for their last bits."""
    size, n_words, rest = states.size, length // WORD, length % WORD
    k, m = len(inputs), len(outputs)
    for r in range(done, size, TOGETHER):
        rows = (r, min(r + 1, size - 1), min(r + 2, size - 1), min(r + 3, size - 1))
        _look_up(table.ctypes.data, places.ctypes.data, size, rows, inputs, outputs, states.ctypes.data, n_words)
    if rest == 0:
        return
    for r in range(size):
        state = uint32(states[r]) << k
        first = second = uint64(0)
        for t in range(rest):
            column = uint32(0)
            for i in range(k):
                word = _word_at(places[i, r] + 8 * n_words)
                column |= uint32(word >> uint64(t) & uint64(1)) << i
            entry = single_steps[state | column]
            first |= uint64(entry & 1) << uint64(t)
            second |= uint64(entry >> 1 & 1) << uint64(t)
            state = entry >> 16
        _put_word(first, places[k, r] + 8 * n_words)
        if m == 2:
            _put_word(second, places[k + 1, r] + 8 * n_words)
        states[r] = state >> k


def _polynomial(builder: Any, coefficients: list[Any], words: list[Any]) -> Any:
    """A row of `Machine.polynomials`, of vectors of words."""
    total = coefficients[0]
    for i, coefficient in enumerate(coefficients):
        product = coefficient
        for word in (word for bit, word in enumerate(words) if i >> bit & 1):
            product = builder.and_(product, word)
        total = builder.xor(total, product) if i else product
    return total


def _by_vectors(builder: Any, n_words: Any, body: Any) -> None:
    """Call body(offset in bytes, lanes) for vectors of words, and then for single words."""
    whole = builder.and_(n_words, constant(-LANES))
    for start, stop, lanes in ((constant(0), whole, LANES), (whole, n_words, 1)):
        with cgutils.for_range_slice(builder, start, stop, constant(lanes), I64) as (index, _):
            body(builder.shl(index, constant(3)), lanes)


def _coefficients(builder: Any, polynomials: Any, row: int, k: int) -> list[Any]:
    return [load(builder, builder.add(polynomials, constant(8 * (row * 2**k + i))), I64) for i in range(2**k)]


@intrinsic
def _compose(typing_context, polynomials, places, size, row, inputs, first, n_words, keep, set_):
    """Write the keep and the set of the steps from the beginning of a word to each of its bits."""

    def codegen(context, builder, signature, args):
        polynomials, places, size, row, _, first, n_words, keep, set_ = args
        k = signature.args[4].count
        begin = builder.shl(first, constant(3))
        found = [builder.add(place, begin) for place in _places(builder, places, size, row, k)]
        coefficients = [_coefficients(builder, polynomials, i, k) for i in range(2)]

        def body(offset: Any, lanes: int) -> None:
            words = _of_words(builder, found, offset, ir.VectorType(I64, lanes))
            kept, put = (_polynomial(builder, [splat(builder, c, lanes) for c in of], words) for of in coefficients)
            for distance in (1, 2, 4, 8, 16, 32):
                by = splat(builder, distance, lanes)
                put = builder.xor(put, builder.and_(builder.shl(put, by), kept))
                before = builder.or_(builder.shl(kept, by), splat(builder, 2**distance - 1, lanes))
                kept = builder.and_(kept, before)
            store(builder, kept, builder.add(keep, offset))
            store(builder, put, builder.add(set_, offset))

        _by_vectors(builder, n_words, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, inputs, *[types.intp] * 4), codegen


@intrinsic
def _write(typing_context, polynomials, places, size, row, inputs, outputs, first, n_words, states):
    """Write the outputs of words, given the state before each of their bits."""

    def codegen(context, builder, signature, args):
        polynomials, places, size, row, _, _, first, n_words, states = args
        k, m = signature.args[4].count, signature.args[5].count
        begin = builder.shl(first, constant(3))
        found = [builder.add(place, begin) for place in _places(builder, places, size, row, k + m)]
        coefficients = [_coefficients(builder, polynomials, i, k) for i in range(2, 2 + 2 * m)]

        def body(offset: Any, lanes: int) -> None:
            kind = ir.VectorType(I64, lanes)
            words = _of_words(builder, found[:k], offset, kind)
            state = load(builder, builder.add(states, offset), kind)
            for i, target in enumerate(found[k:]):
                with_, without = (
                    _polynomial(builder, [splat(builder, c, lanes) for c in of], words)
                    for of in coefficients[2 * i : 2 * i + 2]
                )
                word = builder.xor(builder.and_(with_, state), without)
                store(builder, word, builder.add(target, offset))

        _by_vectors(builder, n_words, body)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4, inputs, outputs, *[types.intp] * 3), codegen


@compiled
def _run_two_states(polynomials, places, inputs, outputs, states, length):
    """Run a machine of two states."""
    size, n_words = states.size, -(-length // WORD)
    keep, set_ = np.empty(TILE, np.uint64), np.empty(TILE, np.uint64)
    at = polynomials.ctypes.data, places.ctypes.data
    buffers = keep.ctypes.data, set_.ctypes.data
    for r in range(size):
        state = uint64(states[r])
        for first in range(0, n_words, TILE):
            n = min(TILE, n_words - first)
            _compose(at[0], at[1], size, r, inputs, first, n, buffers[0], buffers[1])
            for w in range(n):
                after = keep[w] & (uint64(0) - state) ^ set_[w]
                set_[w] = after << uint64(1) | state
                if first + w == n_words - 1:
                    after <<= uint64(-length % WORD)
                state = after >> uint64(WORD - 1)
            _write(at[0], at[1], size, r, inputs, outputs, first, n, buffers[1])
        states[r] = state
    if length % WORD:
        mask = (uint64(1) << uint64(length % WORD)) - uint64(1)
        for i in range(len(outputs)):
            for r in range(size):
                place = places[len(inputs) + i, r] + 8 * (n_words - 1)
                _put_word(_word_at(place) & mask, place)

"""The limits of this machine, as one thread measures them: the speed of a kernel is a share of them."""

from __future__ import annotations

import ctypes
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from .core.digits import DIGITS
from .core.llvm import (
    I64,
    LANES,
    V8,
    address_of,
    compiled,
    constant,
    empty_words,
    load,
    prefetch,
    register_lanes,
    seeded_vectors,
    sfc64_vectors,
    shuffled_bytes,
    splat,
    sum_of,
)
from .core.ones import add_by_tree, add_looked_up, lane_ones, sum_bytes
from .core.words import WORD

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR = 2**19  # bytes that stay in a second-level cache
FAR = 2**28  # bytes that mostly lie in memory
DRAWN = math.ceil(DIGITS)  # digits of a word
SIMD = ("sse4.2", "popcnt", "avx2", "avx512f", "avx512bw", "avx512vpopcntdq", "neon", "sve")


def simd() -> list[str]:
    """The instruction sets that matter here and that this processor has, in the order of `SIMD`."""
    features = binding.get_host_cpu_features()
    return [name for name in SIMD if features.get(name)]


@dataclass(frozen=True)
class Limits:
    """What a thread can do in a second: bit operations (AND, popcount and add), random digits, bytes.

    Bit operations are those of the quickest `form` that is known, on words in the first-level cache, and
    `arithmetic_of_two` are those of two threads at once: less than twice as many where they share a core. Bytes are
    written to a new array, as the results of our functions are.
    """

    arithmetic: float
    arithmetic_of_two: float
    form: str
    digits: float
    read_near: float
    read_far: float
    write_near: float
    write_far: float


def _tree(depth: int, beside: int) -> tuple[Any, int]:
    """A form of gate and count, and the bits that a step of it takes: trees of carry-save adders in two registers.

    `beside` words of each step are counted by the scalar instruction, which other units than those of vectors run.
    """
    lanes = register_lanes()
    kind = ir.VectorType(I64, lanes)

    @intrinsic
    def run(typing_context, address, n):
        def codegen(context, builder, signature, args):
            zero = splat(builder, 0, lanes)
            kept = [[cgutils.alloca_once_value(builder, zero) for _ in range(depth)] for _ in range(2)]
            totals = [cgutils.alloca_once_value(builder, zero) for _ in range(2)]
            scalar = cgutils.alloca_once_value(builder, constant(0))
            with cgutils.for_range(builder, args[1]) as loop:
                here = builder.add(args[0], builder.shl(builder.and_(loop.index, constant(7)), constant(6)))
                other = builder.add(here, constant(1024))
                for cell in range(2):
                    places = [constant(8 * lanes * (2**depth * cell + i)) for i in range(2**depth)]
                    gated = [
                        builder.and_(*(load(builder, builder.add(row, at), kind) for row in (here, other)))
                        for at in places
                    ]
                    counted = lane_ones(builder, add_by_tree(builder, kept[cell], gated) if depth else gated[0])
                    builder.store(builder.add(builder.load(totals[cell]), counted), totals[cell])
                for i in range(beside):
                    at = constant(8 * i)
                    word = builder.and_(*(load(builder, builder.add(row, at), I64) for row in (here, other)))
                    builder.store(builder.add(builder.load(scalar), builder.ctpop(word)), scalar)
            total = builder.load(scalar)
            for variable in [*totals, *kept[0], *kept[1]]:
                total = builder.add(total, sum_of(builder, builder.load(variable)))
            return total

        return types.int64(types.intp, types.intp), codegen

    return run, WORD * (2 * 2**depth * lanes + beside)


def _look_ups() -> tuple[Any, int]:
    """A form of gate and count, and the bits that a step of it takes: look-ups of nibbles, as of `mac_tables`."""
    size = shuffled_bytes()
    kind = ir.VectorType(ir.IntType(8), size)

    @intrinsic
    def run(typing_context, address, n):
        def codegen(context, builder, signature, args):
            zero = ir.Constant(kind, [0] * size)
            totals = [[cgutils.alloca_once_value(builder, zero) for _ in range(2)] for _ in range(4)]
            with cgutils.for_range(builder, args[1]) as loop:
                here = builder.add(args[0], builder.shl(builder.and_(loop.index, constant(7)), constant(6)))
                tables = [load(builder, builder.add(here, constant(size * i)), kind) for i in range(3)]
                for cell, variables in enumerate(totals):
                    places = [constant(1024 + size * (3 * cell + i)) for i in range(3)]
                    rows = [load(builder, builder.add(here, at), kind) for at in places]
                    now = add_looked_up(builder, tables, rows, [builder.load(v) for v in variables])
                    for variable, value in zip(variables, now, strict=True):
                        builder.store(value, variable)
            total = constant(0)
            for variable in (v for variables in totals for v in variables):
                total = builder.add(total, sum_of(builder, sum_bytes(builder, builder.load(variable))))
            return total

        return types.int64(types.intp, types.intp), codegen

    return run, 4 * 3 * 4 * size * 2


@cache
def _forms() -> dict[str, tuple[Any, int]]:
    """The forms of gate and count that are tried, compiled."""
    forms = {f"tree of depth {depth}": _tree(depth, 0) for depth in range(5)}
    forms |= {f"tree of depth {depth} and scalar": _tree(depth, 2**depth) for depth in (3, 4)}
    if shuffled_bytes():
        forms["look-ups"] = _look_ups()
    return {name: (njit(nogil=True)(_caller(run)), bits) for name, (run, bits) in forms.items()}


def _caller(run: Any) -> Any:
    def call(address, n):
        return run(address, n)

    return call


def arithmetic_forms(seconds: float = 0.1) -> dict[str, float]:
    """The bit operations a second of each form of gate and count that is known, on words in the first-level cache."""
    return {name: _form_rate(name, 1, seconds) for name in _forms()}


def _form_rate(name: str, threads: int, seconds: float) -> float:
    """The bit operations a second of a form on so many threads at once."""
    run, bits = _forms()[name]
    words = empty_words((512,))
    words.fill(0x0F0F)
    address, steps = address_of(words), 200_000
    with ThreadPoolExecutor(threads) as pool:

        def run_all() -> None:
            for _ in pool.map(run, [address] * threads, [steps] * threads):
                pass

        return best_rate(run_all, threads * steps * bits, seconds)


@intrinsic
def _digits(typing_context, n):
    """Random digits: of each of two registers in a step, a start, and as many digits as a word takes on average."""

    def codegen(context, builder, signature, args):
        keys = [splat(builder, key, 2 * LANES) for key in (1, 2, 3)]
        total = cgutils.alloca_once_value(builder, splat(builder, 0, 2 * LANES))
        with cgutils.for_range(builder, args[0]) as loop:
            counters = [splat(builder, value, 2 * LANES) for value in (1, loop.index)]
            state = seeded_vectors(builder, keys, *counters)
            for level in range(DRAWN):
                number, state = sfc64_vectors(builder, state, splat(builder, level + 1, 2 * LANES))
                builder.store(builder.xor(builder.load(total), number), total)
        return sum_of(builder, builder.load(total))

    return types.int64(types.intp), codegen


def _reader(far: bool) -> Any:
    @intrinsic
    def read(typing_context, address, n):
        """The OR of n times four vectors: of neighbours, or of four streams, which memory gives more of at once."""

        def codegen(context, builder, signature, args):
            totals = [cgutils.alloca_once_value(builder, ir.Constant(V8, [0] * 8)) for _ in range(4)]
            step, apart = (constant(64), builder.shl(args[1], constant(6))) if far else (constant(256), constant(64))
            with cgutils.for_range(builder, args[1]) as loop:
                for i, total in enumerate(totals):
                    offset = builder.add(builder.mul(loop.index, step), builder.mul(apart, constant(i)))
                    here = builder.add(args[0], offset)
                    if far:
                        prefetch(builder, here)
                    builder.store(builder.or_(builder.load(total), load(builder, here)), total)
            total = builder.load(totals[0])
            for other in totals[1:]:
                total = builder.or_(total, builder.load(other))
            return sum_of(builder, total)

        return types.int64(types.intp, types.intp), codegen

    return read


_read_near, _read_far = _reader(far=False), _reader(far=True)


@compiled
def digits(n):
    return _digits(n)


@compiled
def read(words, far):
    n = words.size // 32
    return _read_far(words.ctypes.data, n) if far else _read_near(words.ctypes.data, n)


def best_rate(run: Callable[[], object], work: float, seconds: float = 0.2) -> float:
    """The rate of the quickest of many calls, in units of work a second."""
    run()
    least = float("inf")
    end = perf_counter() + seconds
    while perf_counter() < end:
        start = perf_counter()
        run()
        least = min(least, perf_counter() - start)
    return work / least


def _fill_new(size: int) -> None:
    array = empty_words((size // 8,))
    ctypes.memset(array.ctypes.data, 0, size)


def measure_limits() -> Limits:
    """Measure the limits, which takes two seconds."""
    steps = 20_000
    forms = arithmetic_forms()
    best = max(forms, key=forms.__getitem__)
    rates = {}
    for distance, size in (("near", NEAR), ("far", FAR)):
        source = empty_words((size // 8,))
        source.fill(1)
        rates[f"read_{distance}"] = best_rate(partial(read, source, distance == "far"), size)
        rates[f"write_{distance}"] = best_rate(partial(_fill_new, size), size)
    return Limits(
        arithmetic=forms[best],
        arithmetic_of_two=_form_rate(best, 2, 0.2),
        form=best,
        digits=best_rate(partial(digits, steps), steps * DRAWN * 2 * LANES * WORD),
        **rates,
    )

"""The limits of this machine, as one thread measures them: the speed of a kernel is a share of them."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .core.llvm import (
    V8,
    carry,
    compiled,
    constant,
    empty_words,
    lane_ones,
    load,
    prefetch,
    splat,
    sum_of,
    threefry_vectors,
)
from .core.words import WORD

if TYPE_CHECKING:
    from collections.abc import Callable

NEAR = 2**19  # bytes that stay in a second-level cache
FAR = 2**28  # bytes that mostly lie in memory
CELLS = 8  # accumulators of the arithmetic
SIMD = ("sse4.2", "popcnt", "avx2", "avx512f", "avx512bw", "avx512vpopcntdq", "neon", "sve")


def simd() -> list[str]:
    """The instruction sets that matter here and that this processor has, in the order of `SIMD`."""
    features = binding.get_host_cpu_features()
    return [name for name in SIMD if features.get(name)]


@dataclass(frozen=True)
class Limits:
    """What a thread can do in a second: bit operations (AND, popcount and add, no loads), random digits, bytes.

    Bytes are written to a new array, as the results of our functions are.
    """

    arithmetic: float
    digits: float
    read_near: float
    read_far: float
    write_near: float
    write_far: float


@intrinsic
def _arithmetic(typing_context, n):
    """The arithmetic of a MAC tile on registers: two products a cell and step."""

    def codegen(context, builder, signature, args):
        state = [[cgutils.alloca_once_value(builder, splat(builder, i + 1)) for i in range(CELLS)] for _ in range(2)]
        with cgutils.for_range(builder, args[0]) as loop:
            a = splat(builder, loop.index)
            b = builder.add(a, splat(builder, 7))
            for ones, carries in zip(*state, strict=True):
                before = builder.load(ones)
                t = builder.xor(before, a)
                s = builder.xor(t, b)
                counted = lane_ones(builder, carry(context, builder, t, s, before))
                builder.store(s, ones)
                builder.store(builder.add(builder.load(carries), counted), carries)
        total = splat(builder, 0)
        for ones, carries in zip(*state, strict=True):
            total = builder.add(total, builder.add(builder.load(ones), builder.load(carries)))
        return sum_of(builder, total)

    return types.int64(types.intp), codegen


@intrinsic
def _digits(typing_context, n):
    """Random digits: four vectors of Threefry counters in each step."""

    def codegen(context, builder, signature, args):
        keys = [splat(builder, key) for key in (1, 2, 3)]
        totals = [cgutils.alloca_once_value(builder, splat(builder, 0)) for _ in range(4)]
        with cgutils.for_range(builder, args[0]) as loop:
            for i, total in enumerate(totals):
                x0, x1 = threefry_vectors(builder, keys, splat(builder, i), splat(builder, loop.index))
                builder.store(builder.xor(builder.load(total), builder.xor(x0, x1)), total)
        total = builder.load(totals[0])
        for other in totals[1:]:
            total = builder.xor(total, builder.load(other))
        return sum_of(builder, total)

    return types.int64(types.intp), codegen


def _reader(far: bool) -> Any:
    @intrinsic
    def read(typing_context, address, n):
        """The OR of n times four vectors."""

        def codegen(context, builder, signature, args):
            totals = [cgutils.alloca_once_value(builder, ir.Constant(V8, [0] * 8)) for _ in range(4)]
            with cgutils.for_range(builder, args[1]) as loop:
                for i, total in enumerate(totals):
                    offset = builder.add(builder.mul(loop.index, constant(256)), constant(64 * i))
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
def arithmetic(n):
    return _arithmetic(n)


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
    rates = {}
    for distance, size in (("near", NEAR), ("far", FAR)):
        source = empty_words((size // 8,))
        source.fill(1)
        rates[f"read_{distance}"] = best_rate(partial(read, source, distance == "far"), size)
        rates[f"write_{distance}"] = best_rate(partial(_fill_new, size), size)
    return Limits(
        arithmetic=best_rate(partial(arithmetic, steps), steps * CELLS * 2 * 8 * WORD),
        digits=best_rate(partial(digits, steps), steps * 4 * 2 * 8 * WORD),
        **rates,
    )

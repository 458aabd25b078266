"""The pieces of LLVM that count ones: of words, of registers, and of trees of carry-save adders."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I64, V8, call_llvm, target_has


@intrinsic
def popcount_word(typing_context, word):
    """The ones of a word."""
    return types.int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


def lane_ones(builder: Any, vector: Any) -> Any:
    """The ones of each lane."""
    return call_llvm(builder, f"llvm.ctpop.v{vector.type.count}i64", vector.type, vector)


def carry(builder: Any, t: Any, s: Any, ones: Any) -> Any:
    """The majority of `ones` and two products, where t = ones ^ one product and s = t ^ the other."""
    if t.type.count == 8 and target_has("avx512f"):  # LLVM does not find this instruction by itself.
        truth = ir.Constant(ir.IntType(32), 0b00111010)
        return call_llvm(builder, "llvm.x86.avx512.pternlog.q.512", V8, t, s, ones, truth)
    return builder.or_(builder.and_(t, builder.not_(s)), builder.and_(builder.not_(t), ones))


def add_by_tree(builder: Any, kept: list[Any], values: list[Any]) -> Any:
    """Add 2 ** n vectors of bits to the sum bits in the n variables of `kept`, and return the carry, worth 2 ** n.

    A carry-save adder leaves the sum bits of three vectors and their carries, which are worth two; a tree of them
    leaves one vector in 2 ** n whose ones are to be counted (Harley and Seal, in Warren: Hacker's Delight, 2nd ed.,
    5-1).
    """
    if len(values) > 2:
        half = len(values) // 2
        values = [add_by_tree(builder, kept[:-1], values[:half]), add_by_tree(builder, kept[:-1], values[half:])]
    ones = builder.load(kept[-1])
    t = builder.xor(ones, values[0])
    s = builder.xor(t, values[1])
    builder.store(s, kept[-1])
    return carry(builder, t, s, ones)


def byte_ones(builder: Any, words: Any) -> Any:
    """The ones of each byte of a register."""
    kind = ir.VectorType(ir.IntType(8), 8 * words.type.count)
    return call_llvm(builder, f"llvm.ctpop.v{kind.count}i8", kind, builder.bitcast(words, kind))


def sum_bytes(builder: Any, octets: Any) -> Any:
    """The sum of the bytes of each word of a register of `shuffled_bytes()`."""
    name, lanes = ("avx2.psad.bw", 4) if octets.type.count == 32 else ("sse2.psad.bw", 2)
    zero = ir.Constant(octets.type, [0] * octets.type.count)
    return call_llvm(builder, f"llvm.x86.{name}", ir.VectorType(I64, lanes), octets, zero)


def add_looked_up(builder: Any, tables: list[Any], rows: list[Any], totals: list[Any]) -> list[Any]:
    """Add the counts of three nibbles of rows, in tables for two other rows, to the two totals of bytes."""
    size = totals[0].type.count
    name = "llvm.x86.avx2.pshuf.b" if size == 32 else "llvm.x86.ssse3.pshuf.b.128"
    found = [call_llvm(builder, name, t.type, t, row) for t, row in zip(tables, rows, strict=True)]
    both = builder.add(builder.add(found[0], found[1]), found[2])
    wide = ir.VectorType(ir.IntType(16), size // 2)
    shifted = builder.lshr(builder.bitcast(both, wide), ir.Constant(wide, [4] * wide.count))
    low = ir.Constant(both.type, [15] * size)
    halves = (both, builder.bitcast(shifted, both.type))
    return [builder.add(total, builder.and_(half, low)) for total, half in zip(totals, halves, strict=True)]

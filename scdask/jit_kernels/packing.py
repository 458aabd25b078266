"""Packing and unpacking of bits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from ..core import contract
from ..core.llvm import BITS, BYTES, I64, LANES, V8, call_llvm, compiled, constant, empty_words, load, readonly, store
from ..core.words import WORD, tail_mask, words_for
from ..errors import BitstreamError
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray


@implements(contract.pack)
def pack(bits: NDArray[Any]) -> NDArray[np.uint64]:
    length, given = bits.shape[-1], bits
    out = empty_words((*bits.shape[:-1], words_for(length)))
    if bits.itemsize > 1:
        if ((bits != 0) & (bits != 1)).any():
            raise _not_bits(bits)
        bits = bits.astype(np.uint8)
    if out.size:
        rows = readonly(bits.view(np.uint8).reshape(-1, length))
        if pack_rows(rows, out.reshape(len(rows), -1)) > 1 and given.dtype != bool:
            raise _not_bits(given)
    return out


def _not_bits(bits: NDArray[Any]) -> BitstreamError:
    index = tuple(int(i) for i in np.argwhere((bits != 0) & (bits != 1))[0])
    return BitstreamError(f"a bitstream holds only 0 and 1, but there is {bits[index]} at {index}")


@implements(contract.unpack)
def unpack(words: NDArray[np.uint64], length: int) -> NDArray[np.uint8]:
    streams = math.prod(words.shape[:-1])
    out = empty_words((-(-streams * length // 8),)).view(np.uint8)[: streams * length].reshape(streams, length)
    if out.size:
        unpack_rows(readonly(words.reshape(streams, -1)), out)
    return out.reshape(*words.shape[:-1], length)


@implements(contract.check_tail)
def check_tail(words: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    if length % WORD:
        padding = words[..., -1] & ~tail_mask(length)
        if padding.any():
            stream = tuple(int(i) for i in np.argwhere(padding)[0])
            raise BitstreamError(f"stream {stream} of {length} bits has ones in its padding, past bit {length - 1}")
    return words


@intrinsic
def _pack_words(typing_context, source, target, n_words):
    """Pack 64 * n_words bytes (one compare a word, vptestmb on AVX-512); return the OR of all bytes as 8 bytes."""

    def codegen(context, builder, signature, args):
        source, target, n_words = args
        seen = cgutils.alloca_once_value(builder, ir.Constant(V8, [0] * LANES))
        zero = ir.Constant(BYTES, [0] * WORD)
        with cgutils.for_range(builder, n_words) as loop:
            here = builder.add(source, builder.mul(loop.index, constant(WORD)))
            bits = load(builder, here, BYTES)
            word = builder.bitcast(builder.icmp_unsigned("!=", bits, zero), I64)
            store(builder, word, builder.add(target, builder.mul(loop.index, constant(8))))
            builder.store(builder.or_(builder.load(seen), builder.bitcast(bits, V8)), seen)
        return call_llvm(builder, "llvm.vector.reduce.or.v8i64", I64, builder.load(seen))

    return types.uint64(types.intp, types.intp, types.intp), codegen


@compiled
def pack_rows(bits, out):
    """Pack uint8 (streams, length) into (streams, words); return the OR of all bytes, above 1 if one was no bit."""
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
            word = load(builder, builder.add(source, builder.mul(loop.index, constant(8))), I64)
            bits = builder.zext(builder.bitcast(word, BITS), BYTES)
            store(builder, bits, builder.add(target, builder.mul(loop.index, constant(WORD))), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


@compiled
def unpack_rows(words, out):
    """Unpack (streams, words) into uint8 (streams, length)."""
    streams, length = out.shape
    full = length // 64
    for s in range(streams):
        _unpack_words(words.ctypes.data + 8 * s * words.shape[1], out.ctypes.data + s * length, full)
        for t in range(64 * full, length):
            out[s, t] = (words[s, full] >> uint64(t % 64)) & uint64(1)

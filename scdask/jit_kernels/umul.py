"""Bits at the ones of masks: PDEP of BMI2, or steps of shifts where the processor has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit, types, uint64
from numba.extending import intrinsic

from ..core.llvm import I64, call_llvm, compiled, empty_words, readonly, target_has
from ..core.ones import popcount_word
from ..vector_ops import umul
from .device import implements

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@implements(umul.deposit)
def deposit(masks: NDArray[np.uint64], words: NDArray[np.uint64], first: NDArray[np.int64]) -> NDArray[np.uint64]:
    out = empty_words(masks.shape)
    if out.size:
        rows = first.size
        given = readonly(masks.reshape(rows, -1)), readonly(words.reshape(rows, -1)), readonly(first.reshape(-1))
        _deposit(*given, out.reshape(rows, -1))
    return out


@intrinsic
def _pdep(typing_context, bits, mask):
    def codegen(context, builder, signature, args):
        return call_llvm(builder, "llvm.x86.bmi.pdep.64", I64, *args)

    return types.uint64(types.uint64, types.uint64), codegen


_expand = _pdep if target_has("bmi2") else njit(umul.expand)


@compiled
def _deposit(masks, words, first, out):
    last = uint64(words.shape[1] - 1)
    for r in range(out.shape[0]):
        at = uint64(first[r])
        for w in range(out.shape[1]):
            mask = masks[r, w]
            place, shift = at >> uint64(6), at & uint64(63)
            low = words[r, min(place, last)] >> shift
            high = words[r, min(place + uint64(1), last)] << uint64(1) << (uint64(63) - shift)
            out[r, w] = _expand(low | high, mask)
            at += uint64(popcount_word(mask))

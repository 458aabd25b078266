"""Packing and unpacking of bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import contract
from ..core.words import WORD, tail_mask, words_for
from .device import cupy, implements
from .launch import launch_over


@implements(contract.pack)
def pack(bits: Any) -> Any:
    given, bits = bits, cupy.ascontiguousarray(bits)
    if bits.dtype.itemsize > 1:
        if bool(((bits != 0) & (bits != 1)).any()):
            contract.pack(given.get())  # This raises an error that says where.
        bits = bits.astype(np.uint8)
    *lead, length = bits.shape
    rows, n_words = math.prod(lead), words_for(length)
    out, other = cupy.empty((*lead, n_words), np.uint64), cupy.zeros(1, np.int32)
    if out.size:
        launch_over("pack", 8 * out.size, bits, rows, length, n_words, out, other)
        if bits.dtype != np.bool and bool(other[0]):
            contract.pack(given.get())
    return out


@implements(contract.unpack)
def unpack(words: Any, length: int) -> Any:
    words = cupy.ascontiguousarray(words)
    *lead, n_words = words.shape
    rows = math.prod(lead)
    out = cupy.empty((rows, length), np.uint8)
    if out.size:
        launch_over("unpack", rows * -(-length // 8), words, rows, length, n_words, out)
    return out.reshape(*lead, length)


@implements(contract.check_tail)
def check_tail(words: Any, length: int) -> Any:
    if length % WORD and bool((words[..., -1] & ~tail_mask(length)).any()):
        contract.check_tail(words.get(), length)  # This raises an error that says where.
    return words

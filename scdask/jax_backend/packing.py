"""Packing and unpacking of bits."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import numpy as np

from ..core import contract
from ..core.llvm import readonly
from ..core.words import WORD, tail_mask, words_for
from ..jit_kernels.packing import pack_rows, unpack_rows
from .device import implements, jitted, jnp, known, uncut
from .ffi import on_cpus

MANY = 2**16  # bits from which on packing or unpacking them pays a call of Python


@implements(contract.pack)
def pack(bits: Any) -> Any:
    words, other = _pack(bits if bits.dtype.itemsize == 1 else _in_bytes(bits))
    if known(other):
        contract.pack(np.asarray(bits))  # This raises an error that says where.
    return words


@jitted
def _in_bytes(bits: Any) -> Any:
    """The bits as bytes, with 2 for all but 0 and 1."""
    return jnp.where((bits == 0) | (bits == 1), bits, 2).astype(np.uint8)


def _pack_on_cpu(bits: Any, words: Any, other: Any) -> None:
    rows = readonly(bits.view(np.uint8).reshape(-1, bits.shape[-1]))
    other[...] = pack_rows(rows, words.reshape(len(rows), -1)) > 1


@on_cpus("pack", _pack_on_cpu, lambda bits: bits.size >= MANY)
def _pack(bits: Any) -> tuple[Any, Any]:
    """The words, and whether there was anything but 0 and 1."""
    *lead, length = bits.shape
    n_words = words_for(length)
    padding = [*[(0, 0)] * len(lead), (0, WORD * n_words - length)]
    bits = jnp.pad(bits, padding).reshape(*lead, n_words, WORD)

    def gathered(chosen: Any) -> Any:
        return reduce(operator.or_, [chosen[..., i].astype(np.uint64) << np.uint64(i) for i in range(WORD)])

    return gathered(bits != 0), (gathered((bits != 0) & (bits != 1)) != 0).any()


def _unpack_on_cpu(words: Any, bits: Any) -> None:
    rows = readonly(words.reshape(-1, words.shape[-1]))
    unpack_rows(rows, bits.reshape(len(rows), -1))


@implements(contract.unpack)
def unpack(words: Any, length: int) -> Any:
    return _unpack(words, length=length)


@on_cpus("unpack", _unpack_on_cpu, lambda words, length: WORD * words.size >= MANY)
def _unpack(words: Any, *, length: int) -> Any:
    bits = (words[..., None] >> np.arange(WORD, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
    return bits.reshape(*words.shape[:-1], WORD * words.shape[-1])[..., :length]


@implements(contract.check_tail)
def check_tail(words: Any, length: int) -> Any:
    uncut(words)
    if length % WORD and known(_dirty(words, ~tail_mask(length))):
        contract.check_tail(np.asarray(words), length)  # This raises an error that says where.
    return words


@jitted
def _dirty(words: Any, padding: Any) -> Any:
    return (words[..., -1] & padding).any()

"""Packing and unpacking of bits."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import Any

import numpy as np

from ..core import contract
from ..core.words import WORD, tail_mask, words_for
from .device import implements, jitted, jnp, known, uncut


@implements(contract.pack)
def pack(bits: Any) -> Any:
    words, other = _pack(bits)
    if known(other):
        contract.pack(np.asarray(bits))  # This raises an error that says where.
    return words


@jitted
def _pack(bits: Any) -> tuple[Any, Any]:
    """The words, and whether there was anything but 0 and 1."""
    *lead, length = bits.shape
    n_words = words_for(length)
    padding = [*[(0, 0)] * len(lead), (0, WORD * n_words - length)]
    bits = jnp.pad(bits, padding).reshape(*lead, n_words, WORD)

    def gathered(chosen: Any) -> Any:
        return reduce(operator.or_, [chosen[..., i].astype(np.uint64) << np.uint64(i) for i in range(WORD)])

    return gathered(bits != 0), (gathered((bits != 0) & (bits != 1)) != 0).any()


@implements(contract.unpack)
@partial(jitted, static_argnums=1)
def unpack(words: Any, length: int) -> Any:
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

"""Adders that count: XLA adds bit-sliced counts, and steps through the bits of all rows at once."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..core import contract
from ..core.words import WORD, words_for
from ..jit_kernels.adders import accumulate_rows
from ..vector_ops.adders import check_start, columns
from .device import as_jax, implements, jax, jnp, lax, varying_as
from .ffi import on_cpus, spread

MANY = 2**14  # bits from which on adding them pays a call of Python
PART = 2**14  # words that a thread adds at least


@implements(contract.accumulate)
def accumulate(
    words: Any, start: Any, *, scale: int, offset: int, low: int, high: int, worth: int, digits: int, length: int
) -> tuple[Any, Any]:
    words, start = as_jax(words), as_jax(start)
    if not isinstance(start, jax.core.Tracer):
        check_start(np.asarray(start), low, high)
    first = jnp.broadcast_to(start.astype(np.int32), words.shape[:-2])
    numbers = np.array([scale, offset, low, high, worth, digits, length], np.int64)
    return tuple(_accumulate(words, first, numbers, digits=digits, length=length))


def _on_cpu(words: Any, start: Any, numbers: Any, out: Any, states: Any) -> None:
    *limits, worth, digits, length = numbers.reshape(-1).tolist()
    rows = np.broadcast_to(words, (*states.shape, *words.shape[-2:])).reshape(-1, *words.shape[-2:])
    states[...] = start
    written, last = out.reshape(len(rows), -1), states.reshape(-1)

    def add(part: slice) -> None:
        accumulate_rows(rows[part], written[part], last[part], np.array(limits, np.int32), worth, digits, length)

    spread(add, len(rows), PART // rows[0].size + 1)


def _pays(words: Any, start: Any, numbers: Any, digits: int, length: int) -> bool:
    return bool(WORD * prod(words.shape) >= MANY)


@on_cpus("accumulate", _on_cpu, _pays)
def _accumulate(words: Any, start: Any, numbers: Any, *, digits: int, length: int) -> Any:
    """Words and accumulators; the numbers are the scale, the offset, the lowest, the highest, the worth and so on."""
    scale, offset, low, high, worth = (numbers[i].astype(np.int32) for i in range(5))
    if not words.shape[-1]:
        return words[..., 0, :], start
    planes = [jnp.moveaxis(plane, -1, 0) for plane in columns(words, digits)]
    bits = np.minimum(WORD, length - WORD * np.arange(words_for(length))).astype(np.uint64)

    def add_word(states: Any, word: Any) -> tuple[Any, Any]:
        bits, *planes = word

        def step(t: Any, carried: Any) -> tuple[Any, Any]:
            states, out = carried
            there = t < bits
            ones = [(plane >> t & np.uint64(1)).astype(np.int32) << k for k, plane in enumerate(planes)]
            value = states + worth * sum(ones) - offset
            enough = (value >= scale) & there
            value = jnp.clip(value - jnp.where(enough, scale, 0), low, high)
            return jnp.where(there, value, states), out | enough.astype(np.uint64) << t

        return lax.fori_loop(np.uint64(0), np.uint64(WORD), step, (states, planes[0] & np.uint64(0)))

    last, out = lax.scan(add_word, varying_as(start, words), (bits, *planes))
    return jnp.moveaxis(out, 0, -1), last

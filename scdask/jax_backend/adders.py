"""Adders that count: XLA adds bit-sliced counts, and steps through the bits of all rows at once."""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from math import prod
from typing import Any

import numpy as np

from ..core import contract
from ..core.words import WORD, words_for
from ..jit_kernels.adders import accumulate_rows
from ..vector_ops.adders import check_start
from .device import as_jax, implements, jax, jitted, jnp, lax, varying_as
from .ffi import on_cpus, spread

MANY = 2**14  # bits from which on adding them pays a call of Python
PART = 2**14  # words that a thread adds at least


@implements(contract.count_columns)
@partial(jitted, static_argnums=(1, 2))
def count_columns(words: Any, digits: int, total: int) -> Any:
    found = _columns(words, digits)[:total]
    return jnp.stack([*found, *[jnp.zeros_like(found[0])] * (total - len(found))], -2)


def _columns(words: Any, digits: int) -> list[Any]:
    """The digits of the counts, each (..., n_words), by full adders of the streams of one half with the other's."""
    return [plane[..., 0, :] for plane in _sum([words[..., digit::digits, :] for digit in range(digits)])]


def _sum(number: list[Any]) -> list[Any]:
    """The digits of the sum along the rows, as one row."""
    rows = number[0].shape[-2]
    if rows < 2:
        return number
    parts = slice(rows // 2), slice(rows // 2, rows // 2 * 2)
    total = _sum(_added(*([plane[..., part, :] for plane in number] for part in parts)))
    return _added(total, [plane[..., -1:, :] for plane in number]) if rows % 2 else total


def _added(a: list[Any], b: list[Any]) -> list[Any]:
    """The digits of a + b, of which b has no more than a."""
    total, carry = [], None
    for digit, other in zip_longest(a, b):
        addends = [bits for bits in (other, carry) if bits is not None]
        carry = None
        for bits in addends:
            both = digit & bits
            carry = both if carry is None else carry | both
            digit = digit ^ bits
        total.append(digit)
    return total if carry is None else [*total, carry]


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
    planes = [jnp.moveaxis(plane, -1, 0) for plane in _columns(words, digits)]
    bits = np.minimum(WORD, length - WORD * np.arange(words_for(length))).astype(np.uint64)

    def add_word(states: Any, word: Any) -> Any:
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

"""Multiply-accumulate: XLA fuses gate, popcount and sum, so that no product is stored."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from .counting import ones_along
from .device import as_jax, implements, jitted, jnp, lax, varying_as

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.words import MacGate

UNROLL = 16  # words that a step of a MAC counts: more would spill registers, fewer would wait for sums in memory
FEW_ROWS = 2  # With up to this many rows, a MAC sums along the words; with more, it sums across the rows.


@implements(contract.gate_counts)
def gate_counts(weights: Any, inputs: Any, gate: MacGate, total: int | None = None) -> Any:
    counts = _mac(as_jax(weights), as_jax(inputs), gate == "xnor")
    return counts if total is None else total - counts


@partial(jitted, static_argnums=2)
def _mac(weights: Any, inputs: Any, xor: bool) -> Any:
    """The counts of AND or XOR of all pairs of rows."""
    size = weights.shape[1] * weights.shape[2]
    w, x = (words.reshape(*words.shape[:-2], size) for words in (weights, inputs))
    gate = lax.bitwise_xor if xor else lax.bitwise_and

    def one(row: Any, rows: Any) -> Any:
        return ones_along(jnp.broadcast_to(row, rows.shape), rows, gate=gate)

    if x.ndim == 1:
        return one(x, w)
    if not (len(x) and len(w)):
        return jnp.zeros((len(x), len(w)), np.int64)
    if len(x) <= FEW_ROWS:
        return jnp.stack([one(row, w) for row in x])
    if len(w) <= FEW_ROWS:
        return jnp.stack([one(row, x) for row in w], axis=1)
    return _across(w, x, gate) if len(w) >= len(x) else _across(x, w, gate).T


def _across(wide: Any, narrow: Any, gate: Callable[..., Any]) -> Any:
    """The counts (narrow, wide): vectors go along the rows of `wide`, and each step adds up a few words of each."""
    steps = -(-wide.shape[1] // UNROLL)
    padding = [(0, 0), (0, steps * UNROLL - wide.shape[1])]
    columns = [jnp.pad(rows, padding).T.reshape(steps, UNROLL, len(rows)) for rows in (wide, narrow)]

    def step(counts: Any, words: list[Any]) -> tuple[Any, None]:
        shape = counts.shape
        ones = [
            lax.population_count(gate(jnp.broadcast_to(a[None, :], shape), jnp.broadcast_to(b[:, None], shape)))
            for a, b in zip(*words, strict=True)
        ]
        return counts + reduce(operator.add, ones).astype(np.int64), None

    start = varying_as(jnp.zeros((len(narrow), len(wide)), np.int64), wide, narrow)
    return lax.scan(step, start, columns)[0]

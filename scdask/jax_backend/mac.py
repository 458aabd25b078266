"""Multiply-accumulate. Where XLA compiles it, gate, popcount and sum are fused, so that no product is stored."""

from __future__ import annotations

import operator
from functools import partial, reduce
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..jit_kernels.mac import mac
from .counting import ones_along
from .device import as_jax, implements, jnp, lax, varying_as
from .ffi import on_cpus, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.words import MacGate

UNROLL = 16  # words that a step of a MAC counts: more would spill registers, fewer would wait for sums in memory
FEW_ROWS = 2  # With up to this many rows, a MAC sums along the words; with more, it sums across the rows.
PART = 2**22  # pairs of words that a thread counts at least
MANY = 2**18  # pairs of words from which on counting them pays a call of Python


@implements(contract.gate_counts)
def gate_counts(weights: Any, inputs: Any, gate: MacGate, total: int | None = None) -> Any:
    counts = (_xor if gate == "xnor" else _and)(as_jax(weights), as_jax(inputs))
    return counts if total is None else total - counts


def _mac_on_cpu(xor: bool, weights: Any, inputs: Any, counts: Any) -> None:
    counts[...] = 0
    lead = weights.ndim - 3
    if inputs.ndim == lead + 2:
        inputs, counts = inputs[..., None, :, :], counts[..., None, :]
    if prod(weights.shape[:lead]) == 1:
        x, w = inputs.reshape(-1, *inputs.shape[-2:]), weights.reshape(weights.shape[-3:])
        out = counts.reshape(len(x), len(w))
        if len(x) > 1:
            spread(lambda part: mac(x[part], w, xor, out[part]), len(x), PART // w.size + 1)
        else:
            spread(lambda part: mac(x, w[part], xor, out[:, part]), len(w), PART // x.size + 1)
        return
    weights, inputs = (np.broadcast_to(a, counts.shape[:lead] + a.shape[lead:]) for a in (weights, inputs))
    for at in np.ndindex(counts.shape[:lead]):
        mac(inputs[at], weights[at], xor, counts[at])


def _pays(weights: Any, inputs: Any) -> bool:
    return bool(weights.size * prod(inputs.shape[:-2]) >= MANY)


@on_cpus("mac_and", partial(_mac_on_cpu, False), _pays)
def _and(weights: Any, inputs: Any) -> Any:
    return _mac(weights, inputs, lax.bitwise_and)


@on_cpus("mac_xor", partial(_mac_on_cpu, True), _pays)
def _xor(weights: Any, inputs: Any) -> Any:
    return _mac(weights, inputs, lax.bitwise_xor)


def _mac(weights: Any, inputs: Any, gate: Callable[..., Any]) -> Any:
    """The counts of a gate of all pairs of rows."""
    size = weights.shape[1] * weights.shape[2]
    w, x = (words.reshape(*words.shape[:-2], size) for words in (weights, inputs))

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

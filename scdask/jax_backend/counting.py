"""The ones of words and of streams."""

from __future__ import annotations

import operator
from functools import reduce
from inspect import unwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.words import WORD
from ..vector_ops.counting import prefix_ones as prefix_ones_of
from ..vector_ops.counting import total_ones as total_ones_of
from ..vector_ops.counting import watched_tile as watched_tile_of
from .device import implements, jitted, lax

if TYPE_CHECKING:
    from collections.abc import Callable

SLICES = 8  # slices of a row whose popcounts are added up first, because XLA is slow at sums along vectors
LANES = 8  # words in a vector


@implements(contract.word_ones)
@jitted
def word_ones(words: Any) -> Any:
    return lax.population_count(words).astype(np.uint8)


@implements(contract.stream_ones)
@jitted
def stream_ones(words: Any) -> Any:
    return ones_along(words)


@implements(total_ones_of)
@jitted
def total_ones(words: Any) -> Any:
    return ones_along(words).sum(dtype=np.int64)


# They are many small operations, each of which XLA would compile by itself.
implements(prefix_ones_of)(jitted(unwrap(prefix_ones_of), static_argnames="at"))
implements(watched_tile_of)(jitted(unwrap(watched_tile_of), static_argnames="length"))


def ones_along(*operands: Any, gate: Callable[..., Any] = lambda words: words) -> Any:
    """The ones of gate(*operands) along the last axis, counted in SLICES slices of it at once."""
    width = operands[0].shape[-1]
    sums = np.int32 if WORD * width < 2**31 else np.int64  # XLA adds up int32 faster.
    size = width // SLICES
    parts = [slice(i * size, (i + 1) * size) for i in range(SLICES if size >= LANES else 0)]
    rest = slice(parts[-1].stop if parts else 0, width)

    def count(part: slice) -> Any:
        return lax.population_count(gate(*(words[..., part] for words in operands))).astype(sums)

    total = count(rest).sum(axis=-1, dtype=sums)
    if parts:
        total += reduce(operator.add, map(count, parts)).sum(axis=-1, dtype=sums)
    return total.astype(np.int64)

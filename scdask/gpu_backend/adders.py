"""Adders that count: a thread counts the ones of a word's bits, and a thread steps an accumulator."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..core import contract
from ..vector_ops.adders import check_start, digits_of
from .device import cupy, implements
from .launch import launch_over


@implements(contract.accumulate)
def accumulate(
    words: Any, start: Any, *, scale: int, offset: int, low: int, high: int, worth: int, digits: int, length: int
) -> tuple[Any, Any]:
    words = cupy.asarray(words)
    *lead, n, n_words = words.shape
    first = contract.on_host(start)
    check_start(first, low, high)
    states = cupy.asarray(np.broadcast_to(first, lead).astype(np.int32))
    out = cupy.empty((*lead, n_words), np.uint64)
    if out.size:
        planes = count_columns(words, digits, digits_of(n, digits))
        numbers = map(np.int32, (scale, offset, low, high, worth))
        launch_over("accumulate", states.size, planes, states.size, planes.shape[-2], length, *numbers, out, states)
    return out, states


@implements(contract.count_columns)
def count_columns(words: Any, digits: int, total: int) -> Any:
    words = cupy.ascontiguousarray(words)
    *lead, n, n_words = words.shape
    planes = cupy.empty((*lead, total, n_words), np.uint64)
    rows = prod(lead)
    if planes.size:
        launch_over("count_columns", rows * n_words, words, rows, n, n_words, digits, total, planes)
    return planes

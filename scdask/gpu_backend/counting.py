"""The ones of words and of streams."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core import contract
from .device import cupy, implements
from .launch import BLOCKS, THREADS, WARP, launch_over, multiprocessors


@implements(contract.word_ones)
def word_ones(words: Any) -> Any:
    words = cupy.ascontiguousarray(words)
    out = cupy.empty(words.shape, np.uint8)
    if out.size:
        launch_over("popcount_words", words.size, words, words.size, out)
    return out


@implements(contract.stream_ones)
def stream_ones(words: Any) -> Any:
    words = cupy.ascontiguousarray(words)
    *lead, n_words = words.shape
    rows = math.prod(lead)
    if not words.size:
        return cupy.zeros(tuple(lead), np.int64)
    lanes = min(WARP, 1 << (n_words - 1).bit_length())
    busy = BLOCKS * THREADS * multiprocessors()
    parts = max(1, min(busy // (rows * WARP), n_words // (16 * WARP)))
    out = (cupy.empty if parts == 1 else cupy.zeros)(tuple(lead), np.int64)
    launch_over("popcount_streams", rows * parts * lanes, words, rows, n_words, np.int32(lanes), parts, out)
    return out

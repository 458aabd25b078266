"""Threefry2x64-13, the counter-based generator behind `Bernoulli`.

Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .words import WORD

ROUNDS = 13  # Random123 calls no fewer rounds Crush-resistant.
ROTATIONS = (16, 42, 12, 31, 16, 32, 24, 21)
PARITY = 0x1BD11BDAA9FC1A22
PAIR_BITS = 10  # bits of a counter that number a pair of levels, of which a double has at most 1074 / 2
# Binary digits that a bit of a Bernoulli stream takes on average: a word draws digits until all its bits are decided.
DIGITS = sum(1 - (1 - 2.0**-level) ** WORD for level in range(64))


def threefry(key0: Any, key1: Any, counter0: Any, counter1: Any) -> Any:
    """The two random words of a key and a counter. Numba compiles it and JAX traces it."""
    keys = (key0, key1, np.uint64(PARITY) ^ key0 ^ key1)
    x0, x1 = counter0 + key0, counter1 + key1
    for i in range(ROUNDS):
        x0 = x0 + x1
        turn = ROTATIONS[i % 8]
        x1 = (x1 << np.uint64(turn) | x1 >> np.uint64(64 - turn)) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = x0 + keys[j % 3]
            x1 = x1 + (keys[(j + 1) % 3] + np.uint64(j))
    return x0, x1

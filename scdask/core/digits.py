"""The random digits behind `Bernoulli`: a counter-based generator seeds a quick one for each word of each stream.

Threefry2x64-13 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011) makes two random
words of a key and a counter. They are the state from which SFC64 (Doty-Humphrey: PractRand; it is also in NumPy) draws
a word for each binary digit, in a quarter of the instructions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .words import WORD

ROUNDS = 13  # Random123 calls no fewer rounds Crush-resistant.
ROTATIONS = (16, 42, 12, 31, 16, 32, 24, 21)
PARITY = 0x1BD11BDAA9FC1A22
LEVELS = 64  # binary digits of the uniform numbers
# Binary digits that a bit of a Bernoulli stream takes on average: a word draws digits until all its bits are decided.
DIGITS = sum(1 - (1 - 2.0**-level) ** WORD for level in range(LEVELS))


def threefry(key0: Any, key1: Any, counter0: Any, counter1: Any) -> Any:
    """The two random words of a key and a counter. Numba compiles it and JAX traces it."""
    keys = (key0, key1, np.uint64(PARITY) ^ key0 ^ key1)
    x0, x1 = counter0 + key0, counter1 + key1
    for i in range(ROUNDS):
        x0 = x0 + x1
        turn = ROTATIONS[i % 8]
        x1 = (x1 << np.uint64(turn) | x1 >> np.uint64(WORD - turn)) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = x0 + keys[j % 3]
            x1 = x1 + (keys[(j + 1) % 3] + np.uint64(j))
    return x0, x1


def state_of(a: Any, b: Any) -> Any:
    """The state of SFC64 that two random words begin."""
    return a, b, a ^ (b << np.uint64(24) | b >> np.uint64(WORD - 24))


def sfc64(state: Any, count: Any) -> Any:
    """The word of a state, and the next state; `count` goes up from 1."""
    a, b, c = state
    number = a + b + count
    turned = c << np.uint64(24) | c >> np.uint64(WORD - 24)
    return number, (b ^ b >> np.uint64(11), c + (c << np.uint64(3)), turned + number)

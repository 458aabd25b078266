"""Random bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import uint64

from ..core.digits import LEVELS, sfc64, state_of, threefry
from ..core.llvm import compiled
from ..core.words import WORD
from .base import SNG, flag, integer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, repr=False)
class Bernoulli(SNG):
    """Independent random bits: each compares the probability with a uniform number of 64 binary digits of its own.

    A bit is 1 with the probability p, rounded up to a multiple of 2**-64; from 2**-12 on that is p itself. The digits
    of the numbers of 64 neighbouring bits are words of SFC64 [2]_, a quick generator, which each word of a stream
    starts anew from two words of Threefry2x64-13, a counter-based one [1]_: its key is (seed, shared), its counter the
    number of the stream and of the word. So every bit is a pure function of (seed, stream, position), whatever the
    chunks, the worker or the machine.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1. Element i of two arrays encoded with equal seeds has the same random numbers in both: give
        operands that are to be independent seeds of their own.
    shared : bool
        False: each element of an array has its own independent stream, numbered in C order.
        True: all compare one sequence, so that all are fully correlated.

    References
    ----------
    .. [1] Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011.
    .. [2] Doty-Humphrey: PractRand, 2014; NumPy has it as `numpy.random.SFC64`.
    """

    seed: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", integer("a seed", self.seed, 0, 2**64 - 1))
        object.__setattr__(self, "shared", flag("shared", self.shared))

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """The numbers of the shared sequence, rounded toward 0 to doubles, which decides every double exactly."""
        out = np.empty(stop - start)
        _fill_bernoulli(*self._key, start // WORD, out)
        return out

    @property
    def own(self) -> bool:
        """Whether each element has its own stream."""
        return not self.shared

    def key(self) -> tuple[np.uint64, np.uint64] | None:
        """The Threefry key, if each element has its own stream."""
        return None if self.shared else self._key

    @property
    def _key(self) -> tuple[np.uint64, np.uint64]:
        return np.uint64(self.seed), np.uint64(self.shared)


@dataclass(frozen=True, repr=False)
class BitsOfUse(Bernoulli):
    """Random bits for one use, 1 to 2**32, that no `Bernoulli` of any seed has: the key is (seed, 2 use + shared).

    What draws bits beside those of a stream, such as faults, has them from here: with the seed of the stream they would
    correlate with it.
    """

    use: int = 1

    @property
    def _key(self) -> tuple[np.uint64, np.uint64]:
        return np.uint64(self.seed), np.uint64(2 * self.use + self.shared)


threefry_word, _state_of, _sfc64 = compiled(threefry), compiled(state_of), compiled(sfc64)


@compiled
def _fill_bernoulli(key0, key1, first_word, out):
    """The uniform numbers of stream 0 from word `first_word` on, rounded toward 0 to doubles.

    No double lies between such a number and the exact one, so `number < p` decides every double p exactly.
    """
    digits = np.empty(LEVELS, np.uint64)
    for w in range((out.size + 63) // 64):
        a, b = threefry_word(key0, key1, uint64(0), uint64(first_word + w))
        state = _state_of(a, b)
        drawn = 0
        for lane in range(min(64, out.size - 64 * w)):
            mantissa = uint64(0)
            depth = 0
            while mantissa < uint64(2**52) and depth < LEVELS:
                if depth == drawn:
                    drawn += 1
                    digits[depth], state = _sfc64(state, uint64(drawn))
                mantissa = mantissa << uint64(1) | (digits[depth] >> uint64(lane)) & uint64(1)
                depth += 1
            out[64 * w + lane] = math.ldexp(float(mantissa), -depth)

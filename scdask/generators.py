"""Stochastic number generators.

A generator is a small frozen value, and it decides how streams correlate: streams encoded with equal generators compare
the same random numbers, so that they overlap as much as they can (SCC = +1). Generators that differ give streams that
do not, as far as the numbers of the two are independent.

=====================================  ========================================================  ==================
generator                              numbers                                                   one sequence for
=====================================  ========================================================  ==================
``Bernoulli(seed=0)``                  random (Threefry2x64 counter), exact to the last bit of   each element
                                       a float64
``Bernoulli(seed=0, shared=True)``     the same                                                  all elements
``LFSR(16, (16, 14, 13, 11),``         states of a Fibonacci register                            all elements
``seed=0xACE1, shift="left")``
``Sobol(dimension=1)``                 a dimension of the Sobol sequence                         all elements
``Halton(base=3)``                     radical inverses in a prime base                          all elements
``VanDerCorput()``                     radical inverses in base 2                                all elements
``Thermometer()``                      0, 1/N, 2/N, ...: unary code                              all elements
=====================================  ========================================================  ==================

Generators are values, and equal ones correlate, however they were made. That also holds for the default of `encode`,
`Bernoulli(seed=0)`: give the operands of a gate different seeds.

>>> from scdask import Sobol, encode, scc
>>> Sobol(1) == Sobol(dimension=1)
True
>>> a, b, c = (encode(0.5, 256, sng=sng) for sng in (Sobol(1), Sobol(1), Sobol(2)))
>>> float(scc(a, b)), float(scc(a, c))
(1.0, 0.0)

A generator of your own is a frozen dataclass that inherits from `SNG` and has `numbers`, which depend on nothing but
their arguments. All elements share its numbers:

>>> from dataclasses import dataclass
>>> import numpy as np
>>> from scdask import SNG
>>> @dataclass(frozen=True)
... class Weyl(SNG):
...     def numbers(self, length, start, stop):
...         return np.arange(start, stop) * 0.6180339887498949 % 1
>>> encode([0.25, 0.5], 1024, sng=Weyl()).popcount()
array([258, 512])
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numba import uint64

from .core.llvm import compiled, empty_words, popcount_word
from .core.threefry import PAIR_BITS
from .core.threefry import threefry as _threefry
from .core.words import WORD, words_for
from .errors import BitstreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LFSR", "SNG", "Bernoulli", "Halton", "Sobol", "Thermometer", "VanDerCorput"]

SOBOL = Lock()  # SciPy 1.14 reads its table at the first Sobol sequence, and other threads would find half of it.


class SNG(ABC):
    """A stochastic number generator: what a probability is compared with, bit by bit."""

    longest: ClassVar[int] = 2**53  # bits of the longest stream

    @abstractmethod
    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Numbers in [0, 1) of bits `start` to `stop` of a stream of `length` bits; `start` a multiple of 64."""

    def drawn(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """The `numbers`, once they are known to be as many as asked for, in [0, 1), and none -0."""
        numbers = np.asarray(self.numbers(length, start, stop), np.float64)
        if numbers.shape != (stop - start,) or not ((numbers >= 0) & (numbers < 1)).all():
            raise BitstreamError(f"{self} does not give {stop - start} numbers from 0 up to 1")
        return numbers + 0.0

    def key(self) -> tuple[np.uint64, np.uint64] | None:
        """The Threefry key, if each element has numbers of its own; None if all compare one sequence."""
        return None

    def table(self, length: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any]]:
        """All streams of a shared sequence, bits `start` to `stop`, and what finds the stream of a probability.

        n numbers make only n + 1 different streams: row k of the last array, packed, has its ones at the k smallest
        numbers, and is the stream of all p that k numbers are below. The results before it are the `numbers`, `guide`
        and `stride` of `jit_kernels.encoding.look_up`.
        """
        return _table(self, length, start, stop)


@lru_cache(maxsize=16)
def _table(sng: SNG, length: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any]]:
    numbers = sng.drawn(length, start, stop)
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    cells = 2 << len(order).bit_length()
    guide = np.searchsorted(ranked, np.arange(cells + 1) / cells)
    stride = 1 << int(np.diff(guide).max()).bit_length() - 1
    rows = empty_words((len(order) + 1, words_for(len(order))))
    _fill_table(order, rows)
    return np.append(ranked, np.full(2 * stride, 2.0)), guide, stride, rows


@compiled
def _fill_table(order, out):
    """out[k], k = 0..len(order): the packed stream whose ones are at the k positions order[:k]."""
    for w in range(out.shape[1]):
        out[0, w] = 0
    for k in range(order.size):
        for w in range(out.shape[1]):
            out[k + 1, w] = out[k, w]
        out[k + 1, order[k] >> 6] |= uint64(1) << uint64(order[k] & 63)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise BitstreamError(f"{name} is an integer from {low} to {high}, not {value!r}")
    return int(value)


@dataclass(frozen=True)
class Bernoulli(SNG):
    """Independent random bits, exact to the last bit of a float64 probability.

    The random words come from Threefry2x64-13, a counter-based generator [1]_: the key is (seed, shared), the counter
    is the number of the stream, of the word, and of the binary digit. So every bit is a pure function of
    (seed, stream, position), whatever the chunks, the worker or the machine.

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
    """

    seed: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _integer("a seed", self.seed, 0, 2**64 - 1))
        object.__setattr__(self, "shared", bool(self.shared))

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """The numbers of the shared sequence, rounded toward 0 to doubles, which decides every double exactly."""
        out = np.empty(stop - start)
        _fill_bernoulli(np.uint64(self.seed), np.uint64(self.shared), start // WORD, out)
        return out

    def key(self) -> tuple[np.uint64, np.uint64] | None:
        """The Threefry key, if each element has its own stream."""
        return None if self.shared else (np.uint64(self.seed), np.uint64(0))


threefry = compiled(_threefry)


@compiled
def _fill_bernoulli(key0, key1, first_word, out):
    """The uniform numbers of stream 0 from word `first_word` on, rounded toward 0 to doubles.

    No double lies between such a number and the exact one, so `number < p` decides every double p exactly.
    """
    digits = np.empty(1076, np.uint64)
    for w in range((out.size + 63) // 64):
        counter = uint64(first_word + w) << uint64(PAIR_BITS)
        drawn = 0
        for lane in range(min(64, out.size - 64 * w)):
            mantissa = uint64(0)
            depth = 0
            while mantissa < uint64(2**52) and depth < 1074:
                if depth == drawn:
                    digits[drawn], digits[drawn + 1] = threefry(key0, key1, uint64(0), counter | uint64(drawn // 2))
                    drawn += 2
                mantissa = mantissa << uint64(1) | (digits[depth] >> uint64(lane)) & uint64(1)
                depth += 1
            out[64 * w + lane] = math.ldexp(float(mantissa), -depth)


@dataclass(frozen=True)
class LFSR(SNG):
    """A Fibonacci linear-feedback shift register, one sequence shared by all elements.

    Its numbers are the states, from the seed on, over 2**width. State 0 never appears: over a full period of
    2**width - 1 a threshold of X states gives X - 1 ones.

    Parameters
    ----------
    width : int
        2 to 53 bits.
    taps : tuple of int
        The exponents of the feedback polynomial, 1 to width, with width among them. (16, 14, 13, 11) and
        (16, 5, 3, 2), (8, 6, 5, 4), (4, 3) have the full period.
    seed : int
        The first state, 1 to 2**width - 1.
    shift : {"left", "right"}
    """

    width: int = 16
    taps: tuple[int, ...] = (16, 14, 13, 11)
    seed: int = 0xACE1
    shift: Literal["left", "right"] = "left"

    def __post_init__(self) -> None:
        width = _integer("the width of an LFSR", self.width, 2, 53)
        taps = tuple(_integer("a tap", tap, 1, width) for tap in np.atleast_1d(np.array(self.taps, object)))
        if width not in taps or len(set(taps)) < len(taps):
            raise BitstreamError(f"the taps of an LFSR are different and hold its width {width}, but they are {taps}")
        if self.shift not in ("left", "right"):
            raise BitstreamError(f'an LFSR shifts "left" or "right", not {self.shift!r}')
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "taps", taps)
        object.__setattr__(self, "seed", _integer("the seed of an LFSR", self.seed, 1, 2**width - 1))

    def _tap_mask(self) -> int:
        return sum(1 << (tap - 1 if self.shift == "left" else self.width - tap) for tap in self.taps)

    def _step(self, state: int) -> int:
        ones = (1 << self.width) - 1
        feedback = (state & self._tap_mask()).bit_count() & 1
        if self.shift == "left":
            return (state << 1 | feedback) & ones
        return state >> 1 | feedback << (self.width - 1)

    def _state(self, steps: int) -> int:
        """The state after some steps: a step is linear over GF(2), so it is a matrix, and powers of it are quick."""
        state = self.seed
        power = [self._step(1 << i) for i in range(self.width)]
        while steps:
            if steps & 1:
                state = _combine(power, state)
            power = [_combine(power, image) for image in power]
            steps >>= 1
        return state

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """States `start` to `stop`, over 2**width."""
        out = np.empty(stop - start)
        state, tap_mask = np.uint64(self._state(start)), np.uint64(self._tap_mask())
        _fill_lfsr(state, tap_mask, self.width, self.shift == "left", out)
        return out


def _combine(images: list[int], state: int) -> int:
    result = 0
    for bit, image in enumerate(images):
        if state >> bit & 1:
            result ^= image
    return result


@compiled
def _fill_lfsr(state, tap_mask, width, left, out):
    """out.size states of a Fibonacci LFSR from `state` on, over 2**width."""
    mask = (uint64(1) << uint64(width)) - uint64(1)
    scale = math.ldexp(1.0, -width)
    for i in range(out.size):
        out[i] = float(state) * scale
        feedback = uint64(popcount_word(state & tap_mask)) & uint64(1)
        state = (state << uint64(1) | feedback) & mask if left else state >> uint64(1) | feedback << uint64(width - 1)


@dataclass(frozen=True)
class Sobol(SNG):
    """One dimension of the unscrambled Sobol sequence, shared by all elements (scipy.stats.qmc, Joe and Kuo 2008).

    Streams of different dimensions multiply almost without error: exactly, for N = 1024 and p in steps of 1/32.

    Parameters
    ----------
    dimension : int
        1 to 21201. Dimension 1 is the van der Corput sequence in Gray-code order.
    """

    dimension: int = 1

    longest: ClassVar[int] = 2**32

    def __post_init__(self) -> None:
        object.__setattr__(self, "dimension", _integer("a Sobol dimension", self.dimension, 1, 21201))

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Points `start` to `stop`."""
        from scipy.stats import qmc

        with SOBOL:
            points = qmc.Sobol(self.dimension, scramble=False, bits=32)
        if start:
            points.fast_forward(start)
        # SciPy draws all dimensions up to ours, and warns about a first draw that is no power of two.
        draw = min(1 << (stop - start - 1).bit_length(), max(64, 2**24 >> self.dimension.bit_length()))
        columns = [points.random(draw)[:, -1] for _ in range(start, stop, draw)]
        return np.concatenate(columns)[: stop - start]


@dataclass(frozen=True)
class Halton(SNG):
    """The radical inverse in a prime base: one dimension of the Halton sequence, shared by all elements.

    Sequences of different bases are uncorrelated. The numbers are those of scipy.stats.qmc.

    Parameters
    ----------
    base : int
        A prime up to 541.
    """

    base: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", _integer("the base of a Halton sequence", self.base, 2, 541))
        if self.base not in _primes(self.base):
            raise BitstreamError(f"the base of a Halton sequence is prime, unlike {self.base}")

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Radical inverses of `start` to `stop`."""
        from scipy.stats import qmc

        points = qmc.Halton(len(_primes(self.base)), scramble=False)
        points.fast_forward(start)
        column: NDArray[np.float64] = points.random(stop - start)[:, -1]
        return column.copy()


def _primes(last: int) -> list[int]:
    return [n for n in range(2, last + 1) if all(n % d for d in range(2, math.isqrt(n) + 1))]


@dataclass(frozen=True)
class VanDerCorput(SNG):
    """The van der Corput sequence: the radical inverse in base 2, shared by all elements."""

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Radical inverses of `start` to `stop`."""
        return Halton(2).numbers(length, start, stop)


@dataclass(frozen=True)
class Thermometer(SNG):
    """Unary code: bit t is 1 where t / N < p, so that all ones come first. Shared by all elements."""

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Fractions t / length for t from `start` to `stop`."""
        return np.arange(start, stop) / length


# Generators for what goes over their kinds, such as benchmarks and the warm-up of workers.
SHARED = (Sobol(), LFSR(), Halton(), VanDerCorput())
OWN = (Bernoulli(),)

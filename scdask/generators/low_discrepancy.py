"""Sequences that fill the range evenly, and unary code: a stream has the nearest number of ones at every length."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
from numba import int64, uint32, uint64

from ..core import verilog
from ..core.checks import check_choice
from ..core.llvm import compiled
from ..errors import BitstreamError
from .base import SNG, integer
from .bernoulli import threefry_word

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rounding = Literal["nearest", "up"]

DIGITS = 32  # binary digits of a Sobol number
MOST_SORTED = 2**24


class _Even(SNG):
    """A sequence of which a stream takes the numbers themselves, or their ranks among its N first, in steps of 1/N."""

    rounding: Rounding
    longest: ClassVar[int] = 2**52

    def __post_init__(self) -> None:
        check_choice("the rounding of a generator", self.rounding, get_args(Rounding))

    def __getattr__(self, name: str) -> Any:
        if name == "rounding":  # 0.1.0 pickled generators without one, and rounded up.
            return "up"
        raise AttributeError(f"{type(self).__name__} has no {name}")

    @property
    def _ranked(self) -> bool:
        return self.rounding == "nearest"

    def _codes(self, length: int) -> NDArray[np.int64]:
        """What the numbers are in Verilog: integers in the same order."""
        raise NotImplementedError

    def _thresholds(self, p: NDArray[np.float64], length: int, bits: int) -> NDArray[np.int64]:
        integer("the length of a stream", length, 1, MOST_SORTED)
        codes = np.sort(self._codes(length))
        return np.append(codes, codes[-1] + 1)[np.searchsorted(np.sort(self.drawn(length, 0, length)), p)]


def _digits(length: int, base: int = 2) -> int:
    """How many digits the first `length` integers have, one at least."""
    digits = 1
    while base**digits < length:
        digits += 1
    return digits


def _counter(bits: int) -> list[str]:
    return [
        f"reg [{bits - 1}:0] count;",
        "",
        *verilog.clocked([f"count <= {bits}'d0;"], [f"count <= count + {bits}'d1;"]),
        "",
    ]


@dataclass(frozen=True, repr=False)
class Sobol(_Even):
    """One dimension of the Sobol sequence, shared by all elements (Joe and Kuo 2008, in Gray-code order).

    Streams of different dimensions multiply almost without error: exactly, for N = 1024 and p in steps of 1/32. Not
    all dimensions go together: see `scdask.independent`.

    Parameters
    ----------
    dimension : int
        1 to 21201. Dimension 1 is the van der Corput sequence in another order.
    seed : int, optional
        Scrambles the sequence by a digital shift: all numbers XOR one random word, that of the seed and the dimension.
        Streams keep their number of ones and exact products. The errors of gates vary from seed to seed, and give
        error bars; that of a single stream, which is the rounding of p, does not. 0 to 2**64 - 1.
    rounding : {"nearest", "up"}
        Of p: see `SNG`.

    References
    ----------
    Joe, Kuo: Constructing Sobol sequences with better two-dimensional projections. SIAM J. Sci. Comput. 30, 2008.
    L'Ecuyer, Lemieux: Recent advances in randomized quasi-Monte Carlo methods, 2002: the digital shift.
    """

    dimension: int = 1
    _: KW_ONLY
    seed: int | None = None
    rounding: Rounding = "nearest"

    longest: ClassVar[int] = 2**DIGITS

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "dimension", integer("a Sobol dimension", self.dimension, 1, 21201))
        if self.seed is not None:
            object.__setattr__(self, "seed", integer("a seed", self.seed, 0, 2**64 - 1))

    def _shift(self) -> int:
        if self.seed is None:
            return 0
        word, _ = threefry_word(*map(np.uint64, (self.seed, 2, self.dimension, 0)))
        return int(word) >> (64 - DIGITS)

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Points `start` to `stop`, or the middles of their ranks."""
        sequence = _directions(self.dimension), np.uint32(self._shift())
        points = np.empty(stop - start, np.uint32)
        _fill_sobol(*sequence, start, points)
        if not self._ranked:
            return np.ldexp(points.astype(np.float64), -DIGITS)
        ranks = np.empty(stop - start)
        _fill_sobol_ranks(*sequence, length, start, points, ranks)
        return (ranks + 0.5) / length

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        bits = _digits(length)
        directions = [f"{bits}'h{int(number) >> DIGITS - bits:x}" for number in _directions(self.dimension)[:bits]]
        return bits, [
            f"reg [{bits - 1}:0] count;",
            f"reg [{bits - 1}:0] point;",
            f"reg [{bits - 1}:0] direction;",
            "",
            "always @*",
            "    casez (count)",
            *(
                f"        {bits}'b{'?' * (bits - 1 - j)}0{'1' * j}: direction = {number};"
                for j, number in enumerate(directions[:-1])
            ),
            f"        default: direction = {directions[-1]};",
            "    endcase",
            "",
            *verilog.clocked(
                [f"count <= {bits}'d0;", f"point <= {bits}'h{self._shift() >> DIGITS - bits:x};"],
                [f"count <= count + {bits}'d1;", "point <= point ^ direction;"],
            ),
            "",
            "assign number = point;",
        ]

    def _codes(self, length: int) -> NDArray[np.int64]:
        points = np.empty(length, np.uint32)
        _fill_sobol(_directions(self.dimension), np.uint32(self._shift()), 0, points)
        return (points >> np.uint32(DIGITS - _digits(length))).astype(np.int64)


@lru_cache(maxsize=64)
def _directions(dimension: int) -> NDArray[np.uint32]:
    """The direction numbers of a dimension: number i is the XOR of those at the ones of the Gray code of i."""
    polynomial, first = _table()
    if dimension == 1:
        odd = [1] * DIGITS
    else:
        coefficients = int(polynomial[dimension - 1])
        degree = coefficients.bit_length() - 1
        odd = first[dimension - 1, :degree].tolist()
        for j in range(degree, DIGITS):
            odd.append(odd[j - degree])
            for k in range(1, degree + 1):
                if coefficients >> (degree - k) & 1:
                    odd[j] ^= odd[j - k] << k
    return np.array([number << (DIGITS - 1 - j) for j, number in enumerate(odd)], np.uint32)


@lru_cache(maxsize=1)
def _table() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Joe and Kuo's primitive polynomials and first numbers, from SciPy's file: `scipy.stats` takes long to import."""
    with files("scipy").joinpath("stats", "_sobol_direction_numbers.npz").open("rb") as file, np.load(file) as table:
        return table["poly"], table["vinit"]


@compiled
def _fill_sobol(directions, shift, start, out):
    """Points from `start` on, as integers."""
    gray = uint64(start) ^ uint64(start) >> uint64(1)
    x = shift
    for j in range(DIGITS):
        if gray >> uint64(j) & uint64(1):
            x ^= directions[j]
    for i in range(out.size):
        out[i] = x
        j = 0
        while j < DIGITS - 1 and not (uint64(start + i) + uint64(1)) >> uint64(j) & uint64(1):
            j += 1
        x ^= directions[j]


@compiled
def _fill_sobol_ranks(directions, shift, length, start, points, out):
    for i in range(out.size):
        out[i] = _sobol_rank(directions, shift, length, uint64(start + i), points[i])


@compiled
def _sobol_rank(directions, shift, length, index, x):
    """How many of the first `length` points are below point `index`, which is x.

    A run of 2**k points from a multiple of 2**k on has one point in each interval of length 2**-k. So the points of a
    run below x are as many as intervals below that of x, and one more if the point in the interval of x is below it.
    """
    rank = int64(0)
    base = uint64(0)
    for k in range(DIGITS, -1, -1):
        run = uint64(1) << uint64(k)
        if not uint64(length) & run:
            continue
        rank += int64(uint64(x) >> uint64(DIGITS - k))
        if not base <= index < base + run:
            y = shift
            gray = base ^ base >> uint64(1)
            for j in range(k, DIGITS):
                if gray >> uint64(j) & uint64(1):
                    y ^= directions[j]
            for j in range(k - 1, -1, -1):  # direction j has no digit past the one that it settles
                if (x ^ y) >> uint32(DIGITS - 1 - j) & uint32(1):
                    y ^= directions[j]
            rank += int64(y < x)
        base += run
    return rank


@dataclass(frozen=True, repr=False)
class Halton(_Even):
    """The radical inverse in a prime base: one dimension of the Halton sequence, shared by all elements.

    Number i has the digits of i in the base, mirrored at the point. Sequences of different small bases are nearly
    uncorrelated: see `scdask.independent`.

    Parameters
    ----------
    base : int
        A prime up to 541.
    rounding : {"nearest", "up"}
        Of p: see `SNG`.
    """

    base: int = 3
    _: KW_ONLY
    rounding: Rounding = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "base", integer("the base of a Halton sequence", self.base, 2, 541))
        if any(self.base % d == 0 for d in range(2, math.isqrt(self.base) + 1)):
            raise BitstreamError(f"the base of a Halton sequence is prime, unlike {self.base}")

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Radical inverses of `start` to `stop`, or the middles of their ranks."""
        out = np.empty(stop - start)
        if not self._ranked:
            _fill_radical_inverses(self.base, start, out)
            return out
        _fill_radical_ranks(self.base, length, start, out)
        return (out + 0.5) / length

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        digits, bits = _digits(length, self.base), _digits(self.base)
        names = [f"digit{k}" for k in range(digits)]
        last = [f"{name} == {bits}'d{self.base - 1}" for name in names]
        return digits * bits, [
            *(f"reg [{bits - 1}:0] {name};" for name in names),
            *(f"wire last{k} = {'' if k == 0 else f'last{k - 1} && '}{at_end};" for k, at_end in enumerate(last[:-1])),
            "",
            *verilog.clocked(
                [f"{name} <= {bits}'d0;" for name in names],
                [
                    f"{'' if k == 0 else f'if (last{k - 1}) '}{name} <= {at_end} ? {bits}'d0 : {name} + {bits}'d1;"
                    for k, (name, at_end) in enumerate(zip(names, last, strict=True))
                ],
            ),
            "",
            f"assign number = {{{', '.join(names)}}};",
        ]

    def _codes(self, length: int) -> NDArray[np.int64]:
        digits, bits = _digits(length, self.base), _digits(self.base)
        rest, codes = np.arange(length), np.zeros(length, np.int64)
        for _ in range(digits):
            codes = codes << bits | rest % self.base
            rest //= self.base
        return codes


@compiled
def _fill_radical_inverses(base, start, out):
    for i in range(out.size):
        rest = int64(start + i)
        mirrored, scale = int64(0), int64(1)
        while rest:
            mirrored = mirrored * base + rest % base
            scale *= base
            rest //= base
        out[i] = float(mirrored) / float(scale)


@compiled
def _fill_radical_ranks(base, length, start, out):
    """How many radical inverses of the first `length` are below each of those from `start` on.

    The indices below the length are runs: for each k and each digit c below digit k of the length, the indices with c
    at k, the digits of the length above it, and any below it. A run has one number in each interval of base**-k.
    """
    ends, digits = np.empty(64, np.int64), np.empty(64, np.int64)
    after = np.zeros(65, np.bool_)  # after[k]: whether the length, from digit k on, mirrored, is below the index
    size = 0
    rest = int64(length)
    while rest:
        ends[size] = rest % base
        rest //= base
        size += 1
    for i in range(out.size):
        rest = int64(start + i)
        for k in range(size):
            digits[k] = rest % base
            rest //= base
        for k in range(size - 1, -1, -1):
            after[k] = ends[k] < digits[k] or (ends[k] == digits[k] and after[k + 1])
        rank = interval = int64(0)
        for k in range(size):
            rank += ends[k] * interval + min(ends[k], digits[k])
            rank += int64(digits[k] < ends[k] and after[k + 1])
            interval = interval * base + digits[k]
        out[i] = rank


@dataclass(frozen=True, repr=False)
class VanDerCorput(_Even):
    """The van der Corput sequence: the radical inverse in base 2, shared by all elements.

    Parameters
    ----------
    rounding : {"nearest", "up"}
        Of p: see `SNG`.
    """

    _: KW_ONLY
    rounding: Rounding = "nearest"

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Radical inverses of `start` to `stop`, or the middles of their ranks."""
        return Halton(2, rounding=self.rounding).numbers(length, start, stop)

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        bits = _digits(length)
        reversed_bits = ", ".join(f"count[{bit}]" for bit in range(bits))
        return bits, [*_counter(bits), f"assign number = {{{reversed_bits}}};"]

    def _codes(self, length: int) -> NDArray[np.int64]:
        return Halton(2)._codes(length)


@dataclass(frozen=True, repr=False)
class Thermometer(_Even):
    """Unary code: all ones come first, as many as the integer nearest to p N. Shared by all elements.

    Parameters
    ----------
    rounding : {"nearest", "up"}
        Of p N: see `SNG`.
    """

    _: KW_ONLY
    rounding: Rounding = "nearest"

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Fractions (t + 1/2) / length for t from `start` to `stop`; rounded up, t / length."""
        return (np.arange(start, stop) + 0.5 * self._ranked) / length

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        bits = _digits(length)
        return bits, [*_counter(bits), "assign number = count;"]

    def _codes(self, length: int) -> NDArray[np.int64]:
        return np.arange(length)


for _kind in (Sobol, Halton, VanDerCorput, Thermometer):
    del _kind.rounding  # A dataclass leaves its default there, but what 0.1.0 pickled is to have none.

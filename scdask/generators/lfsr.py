"""Linear-feedback shift registers."""

from __future__ import annotations

import math
import warnings
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numba import uint64

from ..core import verilog
from ..core.checks import check_choice
from ..core.llvm import compiled
from ..core.ones import popcount_word
from ..errors import BitstreamError, ScdaskWarning
from .base import SNG, flag, integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEED = 0xACE1ACE1ACE1ACE1  # Its low bits are the default of a register, which few zeros lead.
GOLDEN = (5**0.5 - 1) / 2

# The taps that follow the width, of 2 to 53 bits: each register passes through all states but 0.
TAPS = (
    (1,),
    (2,),
    (3,),
    (3,),
    (5,),
    (6,),
    (6, 5, 4),
    (5,),
    (7,),
    (9,),
    (11, 10, 4),
    (12, 11, 8),
    (13, 12, 2),
    (14,),
    (14, 13, 11),
    (14,),
    (11,),
    (18, 17, 14),
    (17,),
    (19,),
    (21,),
    (18,),
    (23, 22, 17),
    (22,),
    (25, 24, 20),
    (26, 25, 22),
    (25,),
    (27,),
    (29, 28, 7),
    (28,),
    (31, 30, 10),
    (20,),
    (33, 32, 7),
    (33,),
    (25,),
    (36, 35, 28),
    (37, 35, 25),
    (35,),
    (39, 38, 5),
    (38,),
    (41, 40, 13),
    (42, 41, 31),
    (43, 41, 6),
    (44, 42, 41),
    (45, 43, 37),
    (42,),
    (47, 45, 20),
    (40,),
    (49, 48, 34),
    (50, 49, 23),
    (49,),
    (52, 51, 47),
)


@dataclass(frozen=True, repr=False)
class LFSR(SNG):
    """A Fibonacci linear-feedback shift register, one sequence shared by all elements, or one register an element.

    Its numbers are the states, from the seed on, over 2**width. State 0 never appears: over a full period of
    2**width - 1 a threshold of X states gives X - 1 ones. A register that is much wider than log2(N) is worse than
    random bits, because a stream sees a part of its period, and a state is much like the one before: notebook 02 has
    the figure.

    Parameters
    ----------
    width : int
        2 to 53 bits.
    taps : tuple of int, optional
        The exponents of the feedback polynomial, 1 to width, with width among them. Each width has default ones with
        the full period, such as (16, 14, 13, 11) and (8, 6, 5, 4); others with which are (16, 5, 3, 2). Taps without
        the full period are told of by a warning.
    seed : int, optional
        The first state, 1 to 2**width - 1. The default is 0xACE1, again and again, or the lowest bits of it.
    shift : {"left", "right"}
    spread : bool
        False: all elements share the sequence. True: each has a register of its own, with the same polynomial. That of
        element i, in C order, starts i jumps further on; a jump is the period over the golden ratio, so that starts
        lie far apart. More elements than the period has states share some of them: take a wider register.

    Warns
    -----
    ScdaskWarning
        If the taps do not have the full period.
    """

    width: int = 16
    taps: tuple[int, ...] | None = None
    seed: int | None = None
    shift: Literal["left", "right"] = "left"
    _: KW_ONLY
    spread: bool = False

    def __post_init__(self) -> None:
        width = integer("the width of an LFSR", self.width, 2, 53)
        given = (width, *TAPS[width - 2]) if self.taps is None else self.taps
        taps = tuple(integer("a tap", tap, 1, width) for tap in np.atleast_1d(np.array(given, object)))
        if width not in taps or len(set(taps)) < len(taps):
            raise BitstreamError(f"the taps of an LFSR are different and hold its width {width}, but they are {taps}")
        check_choice("the shift of an LFSR", self.shift, ("left", "right"))
        seed = SEED & 2**width - 1 if self.seed is None else self.seed
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "taps", taps)
        object.__setattr__(self, "seed", integer("the seed of an LFSR", seed, 1, 2**width - 1))
        object.__setattr__(self, "spread", flag("spread", self.spread))
        if not _has_full_period(width, taps):
            _warn_of_period(self)

    def _tap_mask(self) -> int:
        return sum(1 << (tap - 1 if self.shift == "left" else self.width - tap) for tap in self.taps or ())

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """States `start` to `stop`, over 2**width."""
        return self._numbers(start, stop, np.zeros(1, np.uint64)).reshape(-1)

    @property
    def own(self) -> bool:
        """Whether each element has a register of its own."""
        return self.spread

    def own_numbers(self, length: int, start: int, stop: int, streams: NDArray[np.uint64]) -> NDArray[np.float64]:
        """States of the registers of some elements, over 2**width."""
        return self._numbers(start, stop, streams)

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        if self.spread:
            raise BitstreamError(
                f"{self} has a register for each element; in Verilog each is an LFSR with its first state as the seed"
            )
        width, left = self.width, self.shift == "left"
        tapped = " ^ ".join(f"state[{bit}]" for bit in range(width - 1, -1, -1) if self._tap_mask() >> bit & 1)
        return width, [
            f"reg [{width - 1}:0] state;",
            f"wire feedback = {tapped};",
            "",
            *verilog.clocked(
                [f"state <= {width}'h{self.seed:x};"],
                [
                    f"state <= {{state[{width - 2}:0], feedback}};"
                    if left
                    else f"state <= {{feedback, state[{width - 1}:1]}};"
                ],
            ),
            "",
            "assign number = state;",
        ]

    def _thresholds(self, p: NDArray[np.float64], length: int, bits: int) -> NDArray[np.int64]:
        return np.ceil(np.ldexp(p, bits)).astype(np.int64)

    def _numbers(self, start: int, stop: int, streams: NDArray[np.uint64]) -> NDArray[np.float64]:
        period = 2**self.width - 1
        jump = round(period * GOLDEN)
        steps = np.array([start + int(stream) * jump % period for stream in streams], np.uint64)
        out = np.empty((len(streams), stop - start))
        mask, left = self._tap_mask(), self.shift == "left"
        powers, seed = _powers(mask, self.width, left), np.uint64(cast("int", self.seed))
        _fill_lfsr(seed, powers, steps, np.uint64(mask), self.width, left, out)
        return out


@lru_cache(maxsize=16)
def _powers(tap_mask: int, width: int, left: bool) -> NDArray[np.uint64]:
    """Row k: what becomes of each bit of a state in 2**k steps, up to the 64 bits that a number of steps has.

    A step is linear over GF(2), so that it is a matrix, and powers of it are quick.
    """

    def after_one(state: int) -> int:
        feedback = (state & tap_mask).bit_count() & 1
        return (state << 1 | feedback) & (1 << width) - 1 if left else state >> 1 | feedback << (width - 1)

    power = [after_one(1 << i) for i in range(width)]
    rows = [power]
    while len(rows) < 64:
        power = [_combine(power, image) for image in power]
        rows.append(power)
    return np.array(rows, np.uint64)


def _combine(images: list[int], state: int) -> int:
    result = 0
    for bit, image in enumerate(images):
        if state >> bit & 1:
            result ^= image
    return result


@compiled
def _fill_lfsr(seed, powers, steps, tap_mask, width, left, out):
    """States of a Fibonacci LFSR over 2**width: row i from the state on that comes steps[i] after the seed."""
    mask = (uint64(1) << uint64(width)) - uint64(1)
    scale = math.ldexp(1.0, -width)
    for i in range(len(steps)):
        state = seed
        for k in range(len(powers)):
            if steps[i] >> uint64(k) & uint64(1):
                image = uint64(0)
                for bit in range(width):
                    if state >> uint64(bit) & uint64(1):
                        image ^= powers[k, bit]
                state = image
        for t in range(out.shape[1]):
            out[i, t] = float(state) * scale
            feedback = uint64(popcount_word(state & tap_mask)) & uint64(1)
            if left:
                state = (state << uint64(1) | feedback) & mask
            else:
                state = state >> uint64(1) | feedback << uint64(width - 1)


@lru_cache(maxsize=64)
def _has_full_period(width: int, taps: tuple[int, ...]) -> bool:
    """Whether the feedback polynomial is primitive: x has the order 2**width - 1 modulo it, and no divisor of that."""
    if taps == (width, *TAPS[width - 2]):
        return True
    period = 2**width - 1
    polynomial = 1 | sum(1 << tap for tap in taps)
    return _power_of_x(period, polynomial, width) == 1 and all(
        _power_of_x(period // prime, polynomial, width) != 1 for prime in _prime_factors(period)
    )


def _power_of_x(exponent: int, polynomial: int, width: int) -> int:
    """x**exponent modulo a polynomial over GF(2), whose coefficients are bits."""

    def product(a: int, b: int) -> int:
        result = 0
        while b:
            result ^= a * (b & 1)
            a <<= 1
            a ^= polynomial * (a >> width & 1)
            b >>= 1
        return result

    result, square = 1, 2
    while exponent:
        if exponent & 1:
            result = product(result, square)
        square = product(square, square)
        exponent >>= 1
    return result


def _prime_factors(n: int) -> set[int]:
    factors, d = set(), 2
    while d * d <= n:
        while n % d == 0:
            factors.add(d)
            n //= d
        d += 1
    return factors | ({n} if n > 1 else set())


def _warn_of_period(lfsr: LFSR) -> None:
    most = 2**20
    states = lfsr.numbers(most, 0, min(most, 2**lfsr.width))
    again = np.flatnonzero(states[1:] == states[0])
    seen = f"{again[0] + 1}" if again.size else f"over {most}"
    warnings.warn(
        f"the taps {lfsr.taps} of an LFSR of {lfsr.width} bits do not have the full period: from the seed {lfsr.seed} "
        f"it passes through {seen} of {2**lfsr.width - 1} states",
        ScdaskWarning,
        stacklevel=4,
    )

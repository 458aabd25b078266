"""Division and square roots."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ..bitstream import check_alike, gate
from ..core.checks import check_choice, check_polarity
from ..core.machines import Machine, typed_cache
from ..errors import BitstreamError
from ..generators.base import integer
from ..machines import run
from .needs import needs_overlap, needs_random_bits

if TYPE_CHECKING:
    from ..bitstream import Bitstream
    from ..core.words import Polarity

DIVIDERS = ("cordiv", "iscbdiv")
ROOTS = ("emitting", "jk")
# The counters of `sqrt`: ones wait, up to 3 of them, and what makes a bipolar stream unipolar goes down to -3. With a
# register of 4 bits that is all the 256 states that a machine may have.
WAITING = LOWEST = 3


def divide(a: Bitstream, b: Bitstream, circuit: str = "cordiv") -> Bitstream:
    """The quotient a / b, for |a| <= |b|.

    "cordiv" [1]_ gives a bit of `a` where `b` is 1, and holds the last such bit where `b` is 0. It needs SCC = +1 of
    unipolar streams, as encoded with one generator with one sequence for all elements, not the default `Bernoulli`:
    then the ones of `a` are among those of `b`, of which they are the share a / b.

    "iscbdiv" [2]_ divides streams of any correlation. A synchronizer in front of the same divider keeps ones of `a`
    that come where `b` is 0, up to 3 of them, for ones of `b` that come alone. Where `b` is 0, the divider gives the
    last and the last but one quotient bit in turn. Of bipolar streams, counters part the signs from the magnitudes
    (`magnitude_machine`); the quotient of the magnitudes is made bipolar again, and gets the signs by XOR.

    Where |a| > |b|, the quotient is near 1 or -1. That of b = 0 has no meaning. The SCC of the result with `a` and `b`
    is not known.

    Parameters
    ----------
    a, b : Bitstream
        Of one length and polarity; shapes broadcast.
    circuit : {"cordiv", "iscbdiv"}

    Returns
    -------
    Bitstream
        Of the polarity of `a` and `b`.

    Raises
    ------
    BitstreamError
        If they differ in length or polarity, or are bipolar for "cordiv".

    Warns
    -----
    CorrelationWarning
        For "cordiv", if the generators of both are known, and the streams do not overlap.

    Notes
    -----
    The RMSE over all a <= b of 8 bits, or |a| <= |b|:

    ===================================  ========  =========  ========  =========
    ..                                   N = 256              N = 4096
    -----------------------------------  -------------------  -------------------
    streams                              "cordiv"  "iscbdiv"  "cordiv"  "iscbdiv"
    ===================================  ========  =========  ========  =========
    of ``Sobol(1)``                      0.035     0.026      0.035     0.025
    of one dimension of Sobol, any       0.026     0.014      0.026     0.014
    of dimensions d and d + 1            0.23      0.016      0.23      0.010
    of one generator of random bits      0.040     0.038      0.010     0.009
    of independent random bits           0.24      0.058      0.24      0.040
    of two LFSRs of 8 bits               0.24      0.085
    bipolar, of dimensions d and d + 1             0.073
    ===================================  ========  =========  ========  =========

    Of one Sobol sequence the error does not fall with N: a bit that is held was that of the number before, which in an
    even sequence tells something of the next. Random bits of one generator, ``Bernoulli(seed, shared=True)``, have no
    such floor.

    The authors measured 0.0491 and 0.0850 (bipolar) for Sobol with "iscbdiv", over all a and b and quotients cut at 1,
    and 0.0332 and 0.0442 for `sqrt`. That is what these circuits give for the points 1 to 256 of a sequence: without
    its point 0, streams of 1/256 have no ones.

    References
    ----------
    .. [1] Chen, Hayes: Design of division circuits for stochastic computing. ISVLSI 2016.
    .. [2] Wu, San Miguel: In-stream stochastic division and square root via correlation. DAC 2019.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> a, b, c = (encode(p, 256, sng=Sobol(d)) for p, d in ((0.25, 1), (0.5, 1), (0.5, 2)))
    >>> float(divide(a, b).decode()), float(divide(a, c, "iscbdiv").decode())
    (0.5, 0.49609375)

    0.2 / 0.8 is 0.2 with Sobol(1), at any length, and 0.25 in the long run with random bits:

    >>> from scdask import Bernoulli
    >>> for sng in (Sobol(1), Bernoulli(2, shared=True)):
    ...     pairs = [[encode(p, length, sng=sng) for p in (0.2, 0.8)] for length in (256, 2**16)]
    ...     print(sng, [round(float(divide(*pair).decode()), 3) for pair in pairs])
    Sobol(dimension=1) [0.199, 0.2]
    Bernoulli(seed=2, shared=True) [0.277, 0.249]
    """
    check_alike(a, b)
    check_choice("the circuit of a division", circuit, DIVIDERS)
    if circuit == "cordiv":
        _check_unipolar("cordiv", a, 'circuit="iscbdiv" divides bipolar ones')
        needs_overlap("cordiv", a, b)
        return _run(cordiv_machine(), a, b)
    if a.polarity == "unipolar":
        return _run(iscbdiv_machine(), a, b)
    (a_sign, a_size), (b_sign, b_size) = (run(magnitude_machine(), stream) for stream in (a, b))
    size = _run(_bipolar_machine(), _run(iscbdiv_machine(), a_size, b_size))
    return gate("xor", gate("xor", size, a_sign), b_sign)


def jk_divide(a: Bitstream, b: Bitstream) -> Bitstream:
    """The share a / (a + b) of unipolar streams: a JK flip-flop [1]_.

    A one of `a` sets it, one of `b` resets it, and ones of both toggle it. The bits must be random, as those of
    `Bernoulli`: a state depends on the bits before. How the streams correlate with each other does not matter: `a`
    alone decides when the flip-flop is set, and `b` when it is reset.

    Parameters
    ----------
    a, b : Bitstream
        Unipolar, of one length; shapes broadcast.

    Returns
    -------
    Bitstream
        Unipolar. Its SCC with `a` and `b` is not known.

    Raises
    ------
    BitstreamError
        If they differ in length, or are bipolar.

    Warns
    -----
    CorrelationWarning
        If the generator of a stream is known, and its bits are not random.

    Notes
    -----
    The variance of the result r is r (1 - r) (2 - a - b) / (a + b) / N: its bits correlate in time, and more so for
    small a + b. With bits of two Sobol dimensions it errs by 0.10 (RMSE), and with those of two LFSRs by 0.024, however
    long they are: the states of a register that follow each other have all bits but one in common.

    References
    ----------
    .. [1] Gaines: Stochastic computing systems. Advances in Information Systems Science 2, 1969.

    Examples
    --------
    >>> from scdask import Bernoulli, encode
    >>> a, b = (encode(p, 2**16, sng=Bernoulli(seed)) for seed, p in enumerate((0.2, 0.6)))
    >>> round(float(jk_divide(a, b).decode()), 2)
    0.25
    """
    check_alike(a, b)
    _check_unipolar("a JK flip-flop", a, "it has no bipolar form")
    needs_random_bits("jk_divide", a, b)
    return _run(jk_machine(), a, b)


def sqrt(x: Bitstream, circuit: str = "emitting") -> Bitstream:
    """The square root of x, 0 <= x <= 1 [1]_.

    Both circuits put ones into the stream of x, so many that it has y of them, and y = sqrt(x) solves the equation.

    "emitting" adds a stream of y (1 - y): NOT of the output, four bits late, AND the output. A counter keeps ones that
    come at once for later. So y = x + y (1 - y), and y y = x. Where streams are bipolar, a second counter makes the
    output unipolar for the AND.

    "jk" has a JK flip-flop whose J is the output, and whose K is 1: ones with the share y / (1 + y), which are OR-ed to
    the stream of x. So y = x + (1 - x) y / (1 + y).

    Parameters
    ----------
    x : Bitstream
        Not negative.
    circuit : {"emitting", "jk"}

    Returns
    -------
    Bitstream
        Of the polarity of `x`. Its SCC with `x` is not known.

    Raises
    ------
    BitstreamError
        If there is no such circuit.

    Notes
    -----
    The RMSE over all x of 8 bits at N = 256. With Sobol it does not fall with N:

    =================================  ==========  =====  ===================  =============
    streams                            "emitting"  "jk"   "emitting", bipolar  "jk", bipolar
    =================================  ==========  =====  ===================  =============
    of ``Sobol(1)``                    0.066       0.150  0.072                0.133
    of 100 dimensions of Sobol         0.034       0.084  0.040                0.138
    of random bits                     0.029       0.076  0.078                0.079
    of random bits, N = 4096           0.013       0.071  0.057                0.053
    =================================  ==========  =====  ===================  =============

    References
    ----------
    .. [1] Wu, San Miguel: In-stream stochastic division and square root via correlation. DAC 2019; Wu, Yin, San
       Miguel: In-stream correlation-based division and bit-inserting square root in stochastic computing. IEEE Design
       and Test 38, 2021: the emitting one.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> round(float(sqrt(encode(0.25, 1024, sng=Sobol(1))).decode()), 2)
    0.5
    """
    check_alike(x)
    return _run(sqrt_machine(circuit, x.polarity), x)


@cache
def cordiv_machine() -> Machine:
    """The machine of CORDIV: 2 states, the bit that it holds; it reads the dividend and the divisor."""

    def step(held: int, a: int, b: int) -> tuple[int, int]:
        held = a if b else held
        return held, held

    return Machine.from_step(step, states=2, inputs=2)


@typed_cache
def iscbdiv_machine(depth: int = 3) -> Machine:
    """The machine of ISCBDIV of unipolar streams; it reads the dividend and the divisor.

    Parameters
    ----------
    depth : int
        How many ones of the dividend wait for the divisor, 0 to 31.

    Returns
    -------
    Machine
        Of 8 (depth + 1) states: the ones that wait, the last two quotient bits where the divisor was 1, which are 1
        and 0 at first, and which of them is next.
    """
    waits = integer("the depth of a synchronizer", depth, 0, 31) + 1

    def step(state: int, a: int, b: int) -> tuple[int, int]:
        rest, waiting = divmod(state, waits)
        second, rest = divmod(rest, 4)
        if a and not b and waiting < waits - 1:
            waiting += 1
        elif b and not a and waiting:
            waiting -= 1
            a = 1
        younger, older = rest >> 1, rest & 1
        bit = a if b else older if second else younger
        if b:
            younger, older = bit, younger
        return waiting + waits * (2 * younger + older + 4 * (1 - second)), bit

    return Machine.from_step(step, states=8 * waits, inputs=2, start=2 * waits)


@cache
def jk_machine() -> Machine:
    """The machine of a JK flip-flop: 2 states; it reads J and K."""

    def step(held: int, j: int, k: int) -> tuple[int, int]:
        held = (1 - k) if held else j
        return held, held

    return Machine.from_step(step, states=2, inputs=2)


@cache
def magnitude_machine() -> Machine:
    """The machine that parts a bipolar stream: 24 states; it writes the sign, 1 where negative, and |x| unipolar.

    A counter of 8 states goes up at ones and down at zeros: the sign is that of its half. Another counts up where the
    bit has the sign and down where it has not, between -2 and 1, and each time that it gets to 1 it writes a one and is
    0 again.
    """

    def step(state: int, x: int) -> tuple[int, int, int]:
        counter, low = divmod(state, 3)
        counter = min(max(counter + 2 * x - 1, 0), 7)
        negative = int(counter < 4)
        low, bit = _to_unipolar(low, x ^ negative, lowest=2)
        return 3 * counter + low, negative, bit

    return Machine.from_step(step, states=24, start=3 * 4 + 2)


@cache
def sqrt_machine(circuit: str = "emitting", polarity: Polarity = "unipolar") -> Machine:
    """The machine of a square root: 64 states ("emitting") or 2 ("jk"), four times as many for bipolar streams.

    Parameters
    ----------
    circuit : {"emitting", "jk"}
    polarity : {"unipolar", "bipolar"}

    Returns
    -------
    Machine
    """
    check_choice("the circuit of a square root", circuit, ROOTS)
    check_polarity(polarity)
    lows = LOWEST + 1 if polarity == "bipolar" else 1

    def unipolar(low: int, bit: int) -> tuple[int, int]:
        return (low, bit) if polarity == "unipolar" else _to_unipolar(low, bit, LOWEST)

    def emitting(state: int, x: int) -> tuple[int, int]:
        rest, low = divmod(state, lows)
        waiting, late = divmod(rest, 16)
        waiting += x
        bit = int(waiting > 0)
        low, y = unipolar(low, bit)
        waiting = min(waiting - bit + (late & y & 1), WAITING)
        return low + lows * ((late >> 1 | (1 - bit) << 3) + 16 * waiting), bit

    def jk(state: int, x: int) -> tuple[int, int]:
        held, low = divmod(state, lows)
        bit = x | held
        low, y = unipolar(low, bit)
        return low + lows * (y & (1 - held)), bit

    if circuit == "jk":
        return Machine.from_step(jk, states=2 * lows, start=lows - 1)
    return Machine.from_step(emitting, states=16 * (WAITING + 1) * lows, start=lows - 1 + lows * 0b1010)


@cache
def _bipolar_machine() -> Machine:
    """The machine that makes a unipolar stream of x >= 0 a bipolar one: (x + 1) / 2 is a scaled sum with 1."""

    def step(rest: int, x: int) -> tuple[int, int]:
        total = rest + x + 1
        return total % 2, total // 2

    return Machine.from_step(step, states=2)


def _to_unipolar(low: int, bit: int, lowest: int) -> tuple[int, int]:
    """A step of the counter that makes a bipolar stream of x >= 0 a unipolar one: its next state, and the bit."""
    count = max(low - lowest + 2 * bit - 1, -lowest)
    return (lowest, 1) if count == 1 else (count + lowest, 0)


def _run(machine: Machine, *streams: Bitstream) -> Bitstream:
    result: Bitstream = run(machine, *streams)
    return result


def _check_unipolar(circuit: str, stream: Any, instead: str) -> None:
    if stream.polarity != "unipolar":
        raise BitstreamError(f"{circuit} divides unipolar streams, not {stream.polarity} ones; {instead}")

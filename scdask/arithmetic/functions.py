"""Functions of one stream by saturating counters: tanh, exp, the sigmoid, the absolute value, ReLU, a gain.

A counter goes up at ones and down at zeros, and stays at its ends. Of random bits of the bipolar value x it is in state
i of K with a probability that goes with r**i, r = (1 + x) / (1 - x) (a birth-death chain): what a function gives in
the long run is exact, and stands in its docstring as its steady state. At first the counter is at its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bitstream import check_alike
from ..core.machines import MOST_STATES, Machine, typed_cache
from ..errors import BitstreamError
from ..generators.base import integer
from ..machines import run
from .needs import needs_random_bits, needs_random_gain

if TYPE_CHECKING:
    from ..bitstream import Bitstream
    from ..core.words import Polarity


def stanh(x: Bitstream, states: int = 8) -> Bitstream:
    """Tanh(K x / 2) of a bipolar stream: a saturating counter of K states, and ones in its upper half [1]_.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of random bits (`Bernoulli`). Bits that alternate, as those of low-discrepancy sequences do, leave the
        counter where it is, and so do those of an `LFSR` often, for a state has all bits but one of the state before.
    states : int
        K, even, 2 to 256.

    Returns
    -------
    Bitstream
        Bipolar. Its SCC with `x` is not known.

    Raises
    ------
    BitstreamError
        If the stream is unipolar, or there is no such counter.

    Warns
    -----
    CorrelationWarning
        If the generator of the stream is known, and its bits are not random.

    Notes
    -----
    Its steady state is (r**(K/2) - 1) / (r**(K/2) + 1), which is off tanh by at most 0.0131 (K = 8), 0.0032 (16) and
    0.0008 (32). But the larger K, the longer the counter stays in a half, and the fewer independent bits there are: the
    RMSE over all x at N = 256 is 0.09 (K = 4), 0.13 (8) and 0.18 (16). For K = 8 it falls to 0.03 at N = 4096, and to
    0.01 at 65536. With ``LFSR(16)`` it does not: it is 0.07 at N = 256, and 0.13 at 4096 and at 65536.

    References
    ----------
    .. [1] Brown, Card: Stochastic neural computation I: computational elements. IEEE Trans. Computers 50, 2001.

    Examples
    --------
    >>> from scdask import Bernoulli, encode
    >>> x = encode(0.25, 2**16, polarity="bipolar", sng=Bernoulli(1))
    >>> round(float(stanh(x, states=8).decode()), 1)  # 0.7705 in the long run
    0.8
    """
    return _of_random("stanh", stanh_machine(states), x, "bipolar")


def sigmoid(x: Bitstream, states: int = 8) -> Bitstream:
    """1 / (1 + exp(-K x)) of a bipolar stream: the counter of `stanh`, whose stream is read as unipolar.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of random bits, as for `stanh`.
    states : int
        K, even, 2 to 256.

    Returns
    -------
    Bitstream
        Unipolar. Its SCC with `x` is not known.

    Raises
    ------
    BitstreamError
        If the stream is unipolar, or there is no such counter.

    Warns
    -----
    CorrelationWarning
        If the generator of the stream is known, and its bits are not random.

    Notes
    -----
    Its steady state is r**(K/2) / (r**(K/2) + 1); its errors are half of those of `stanh`. `stanh_machine` is its
    machine.

    Examples
    --------
    >>> from scdask import Bernoulli, encode
    >>> x = encode(0.25, 2**16, polarity="bipolar", sng=Bernoulli(1))
    >>> round(float(sigmoid(x, states=4).decode()), 2)  # 0.735 in the long run
    0.74
    """
    return _of_random("sigmoid", stanh_machine(states), x, "unipolar")


def sexp(x: Bitstream, states: int = 16, gain: int = 2) -> Bitstream:
    """Exp(-2 G x) of a bipolar stream of x > 0: a saturating counter of K states, and zeros in its last G [1]_.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of random bits, as for `stanh`. Where x <= 0 the result is near 1.
    states : int
        K, 2 to 256.
    gain : int
        G, 1 to K - 1.

    Returns
    -------
    Bitstream
        Unipolar. Its SCC with `x` is not known.

    Raises
    ------
    BitstreamError
        If the stream is unipolar, or there is no such counter.

    Warns
    -----
    CorrelationWarning
        If the generator of the stream is known, and its bits are not random.

    Notes
    -----
    Its steady state is (1 - r**(K - G)) / (1 - r**K), near r**-G unless x is near 0. The RMSE over x in [0, 1] at
    N = 256 is 0.08; the ones before the counter first gets to its last states are a part of it.

    References
    ----------
    .. [1] Brown, Card: Stochastic neural computation I: computational elements. IEEE Trans. Computers 50, 2001.

    Examples
    --------
    >>> from scdask import Bernoulli, encode
    >>> x = encode(0.25, 2**16, polarity="bipolar", sng=Bernoulli(1))
    >>> round(float(sexp(x, states=16, gain=2).decode()), 2)  # 0.360 in the long run
    0.35
    """
    return _of_random("sexp", sexp_machine(states, gain), x, "unipolar")


def abs(x: Bitstream, states: int = 8) -> Bitstream:  # noqa: A001
    """The absolute value |x| of a bipolar stream: its bits, inverted while a saturating counter is in its lower half.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of any generator.
    states : int
        K, even, 2 to 256.

    Returns
    -------
    Bitstream
        Bipolar. After the first bits it is `x` or NOT `x`, with an SCC of +1 or -1 with `x`.

    Raises
    ------
    BitstreamError
        If the stream is unipolar, or there is no such counter.

    Notes
    -----
    Its steady state is x (r**(K/2) - 1) / (r**(K/2) + 1), as that of the counter of Li and Lilja [1]_, which writes its
    parity in place of the bit. The RMSE at N = 256 is 0.046 with Sobol sequences, nearly all of it at x = 0, and 0.07
    with random bits.

    References
    ----------
    .. [1] Li, Lilja, Qian, Bazargan, Riedel: Computation on stochastic bit streams: digital image processing case
       studies. IEEE Trans. VLSI Systems 22, 2014.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> abs(encode([-0.5, 0.25], 256, polarity="bipolar", sng=Sobol(1))).decode()
    array([0.4921875, 0.25     ])
    """
    return _of_bipolar(abs_machine(states), x, "bipolar")


def relu(x: Bitstream, states: int = 16) -> Bitstream:
    """Max(x, 0) of a bipolar stream: its bits, with ones where the output would have more zeros than ones [1]_.

    A saturating counter of the output, up at its ones and down at its zeros, is at 0 where that is so.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of any generator.
    states : int
        K, 2 to 256.

    Returns
    -------
    Bitstream
        Bipolar. Where x > 0 it is `x` after the first bits, with an SCC of +1.

    Raises
    ------
    BitstreamError
        If the stream is unipolar, or there is no such counter.

    Notes
    -----
    In its steady state the counter is at 0 for the share s = 1 / (1 + 2 (1 + r + ... + r**(K-2)) / (1 - x)) of the
    time, and the result is s + (1 - s) x: too much by 1 / (2 K - 1) at x = 0, and by less elsewhere. The RMSE at
    N = 256 is 0.038 with random bits; with Sobol sequences it is the rounding of x.

    References
    ----------
    .. [1] Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> relu(encode([-0.5, 0.25], 256, polarity="bipolar", sng=Sobol(1))).decode()
    array([0.  , 0.25])
    """
    return _of_bipolar(relu_machine(states), x, "bipolar")


def linear_gain(x: Bitstream, k: Bitstream, states: int = 16) -> Bitstream:
    """The product g x, cut at -1 and 1, of a bipolar stream and a gain g = (1 + k) / (1 - k) >= 1 [1]_.

    In the lower half of its states a saturating counter goes down at a zero of `x` only where `k` has a one, and in the
    upper half it goes up at a one of `x` only where `k` has a one. It writes ones in its upper half.

    Parameters
    ----------
    x : Bitstream
        Bipolar, of random bits, as for `stanh`, or of an even sequence, such as Sobol(1).
    k : Bitstream
        Unipolar, of (g - 1) / (g + 1), and of bits that are random and independent of `x`; shapes broadcast.
    states : int
        K, even, 2 to 256.

    Returns
    -------
    Bitstream
        Bipolar. Its SCC with `x` is not known.

    Raises
    ------
    BitstreamError
        If the polarities are others, the lengths differ, or there is no such counter.

    Warns
    -----
    CorrelationWarning
        If the generators are known, and are equal, or neither makes random bits, or that of `x` is an `LFSR` or a
        `Thermometer`.

    Notes
    -----
    The steady state is that of a birth-death chain, whose ratio is r / k in the lower and r k in the upper half; where
    |g x| is near 1 more states make the corner sharper. The RMSE at N = 256 and g = 2 is 0.10, and 0.05
    for `x` of Sobol(1).

    References
    ----------
    .. [1] Li, Lilja, Qian, Bazargan, Riedel: Computation on stochastic bit streams: digital image processing case
       studies. IEEE Trans. VLSI Systems 22, 2014, after Brown and Card 2001.

    Examples
    --------
    >>> from scdask import Bernoulli, encode
    >>> x = encode([-0.2, 0.3, 0.9], 2**16, polarity="bipolar", sng=Bernoulli(1))
    >>> double = encode((2 - 1) / (2 + 1), 2**16, sng=Bernoulli(2))
    >>> linear_gain(x, double).decode().round(1)
    array([-0.4,  0.6,  1. ])
    """
    check_alike(x, k, polarity=False)
    if k.polarity != "unipolar":
        raise BitstreamError(f"a gain takes a unipolar stream of (g - 1) / (g + 1), not a {k.polarity} one")
    result = _of_bipolar(linear_gain_machine(states), x, "bipolar", k)
    needs_random_gain(x, k)
    return result


@typed_cache
def stanh_machine(states: int = 8) -> Machine:
    """The machine of `stanh` and `sigmoid`: a counter of K states, which starts in the middle."""
    half = _half(states)
    return Machine.from_step(lambda s, x: (_counted(s, x, states), int(s >= half)), states, start=half)


@typed_cache
def sexp_machine(states: int = 16, gain: int = 2) -> Machine:
    """The machine of `sexp`: a counter of K states, which starts in the middle."""
    states = integer("the states of a counter", states, 2, MOST_STATES)
    low = states - integer(f"the gain of a counter of {states} states", gain, 1, states - 1)
    return Machine.from_step(lambda s, x: (_counted(s, x, states), int(s < low)), states, start=states // 2)


@typed_cache
def abs_machine(states: int = 8) -> Machine:
    """The machine of `abs`: a counter of K states, which starts in the middle."""
    half = _half(states)
    return Machine.from_step(lambda s, x: (_counted(s, x, states), x ^ (s < half)), states, start=half)


@typed_cache
def relu_machine(states: int = 16) -> Machine:
    """The machine of `relu`: a counter of K states, which starts at 1, so that the first bit is that of the input."""
    states = integer("the states of a counter", states, 2, MOST_STATES)

    def step(s: int, x: int) -> tuple[int, int]:
        bit = x if s else 1
        return _counted(s, bit, states), bit

    return Machine.from_step(step, states, start=1)


@typed_cache
def linear_gain_machine(states: int = 16) -> Machine:
    """The machine of `linear_gain`: a counter of K states, which starts in the middle; it reads x and k."""
    half = _half(states)

    def step(s: int, x: int, k: int) -> tuple[int, int]:
        outward = x == (s >= half)
        return s if outward and not k else _counted(s, x, states), int(s >= half)

    return Machine.from_step(step, states, inputs=2, start=half)


def _counted(state: int, bit: int, states: int) -> int:
    return min(max(state + 2 * bit - 1, 0), states - 1)


def _half(states: int) -> int:
    if integer("the states of a counter", states, 2, MOST_STATES) % 2:
        raise BitstreamError(f"a counter with two halves has an even number of states, not {states}")
    return states // 2


def _of_bipolar(machine: Machine, x: Bitstream, polarity: Polarity, *others: Bitstream) -> Bitstream:
    check_alike(x)
    if x.polarity != "bipolar":
        raise BitstreamError(f"a counter of ones and zeros reads a bipolar stream, not a {x.polarity} one")
    result: Bitstream = run(machine, x, *others, polarity=polarity)
    return result


def _of_random(circuit: str, machine: Machine, x: Bitstream, polarity: Polarity) -> Bitstream:
    result = _of_bipolar(machine, x, polarity)
    needs_random_bits(circuit, x, stacklevel=3)
    return result

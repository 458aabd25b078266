"""Faults of circuits: bits that flip, wires that are stuck, bursts.

A bit of a stream is worth 1/N wherever it is, so that a fault does little harm; a bit of a binary number may be half of
it. At a rate of 1 % and N = 1024 the root mean square error of a stream of any number is at most .0105; that of uniform
numbers of 8 bits whose bits flip at the same rate is .058.

>>> import numpy as np
>>> import scdask as sc
>>> x = sc.encode(np.full(1000, 0.8), 1024, sng=sc.Sobol(1))
>>> y = sc.faults.flip(x, rate=0.1, seed=1)
>>> float(x.decode().mean()), round(float(y.decode().mean()), 3)
(0.7998046875, 0.74)

Faults are random bits of their own, whatever the streams were encoded with. They are a pure function of (seed, stream,
bit), streams being numbered in C order: the same in any chunking, on any worker, in any library. Equal seeds make the
same faults in arrays of one shape: give circuits that are to fail independently seeds that differ. All functions take
streams of both polarities, and lazy streams stay lazy, in the same chunks.

The streams within a network get faults by `SCSequential.with_faults`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bitstream import Bitstream, check_alike, gate, wrap_words
from .correlation import delay
from .generators import Thermometer
from .generators.base import flag, integer
from .generators.bernoulli import BitsOfUse
from .vector_ops.counting import stream_popcount
from .vector_ops.encoding import encode_beside

if TYPE_CHECKING:
    from .generators import SNG

__all__ = ["burst", "flip", "stuck_at"]

FLIP, STUCK, BURST = 1, 2, 3  # the uses of their random bits


def flip(stream: Bitstream, rate: Any, seed: int = 0) -> Bitstream:
    """Flip each bit with a probability: XOR with a Bernoulli stream of that rate.

    With p ones a bit before and a rate f, p (1 - 2 f) + f are expected; the root mean square error is
    sqrt(f**2 (1 - 2 p)**2 + f (1 - f) / N), twice that for bipolar numbers.

    Parameters
    ----------
    stream : Bitstream
    rate : float or array_like
        0 to 1, of a shape that broadcasts to that of the streams. 0 flips no bit, and 1 all.
    seed : int
        0 to 2**64 - 1.

    Returns
    -------
    Bitstream
        Of the same length and polarity.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, a rate is no probability (for a Dask array: when it is computed) or does not fit the
        streams, the seed is no such number, or the number of streams is not known.

    Examples
    --------
    >>> from scdask import encode
    >>> x = encode([0.0, 0.0, 0.0], 4096)
    >>> flip(x, [0, 0.25, 1]).decode().round(2)
    array([0.  , 0.24, 1.  ])
    """
    return gate("xor", stream, _random(stream, rate, BitsOfUse(seed, use=FLIP)))


def stuck_at(stream: Bitstream, value: int, rate: Any = 1.0, seed: int = 0, *, transient: bool = False) -> Bitstream:
    """Replace streams, or bits, by a constant: OR with faults for stuck-at-1, AND NOT for stuck-at-0.

    p (1 - f) + value f ones a bit are expected, with p before and a rate f.

    Parameters
    ----------
    stream : Bitstream
    value : {0, 1}
        At what a wire is stuck.
    rate : float or array_like
        0 to 1, of a shape that broadcasts to that of the streams: how probable the fault is. All are stuck by default.
    seed : int
        0 to 2**64 - 1.
    transient : bool
        False: a wire is stuck for good, so that a share of the streams becomes constant, and the others have no fault.
        True: each bit is stuck or not, by itself.

    Returns
    -------
    Bitstream
        Of the same length and polarity.

    Raises
    ------
    BitstreamError
        As for `flip`, or if the value is not 0 or 1.

    Examples
    --------
    >>> import numpy as np
    >>> from scdask import encode
    >>> x = encode(np.full(4, 0.5), 4096)
    >>> stuck_at(x, 1, 0.5, seed=3).decode().round(2)
    array([1.  , 0.5 , 1.  , 0.49])
    >>> stuck_at(x, 1, 0.5, seed=3, transient=True).decode().round(2)
    array([0.75, 0.75, 0.75, 0.74])
    """
    check_alike(stream)
    value, sng = integer("what a wire is stuck at", value, 0, 1), BitsOfUse(seed, use=STUCK)
    if flag("transient", transient):
        return _fixed(stream, _random(stream, rate, sng), value)
    wires = stream_popcount(_random(stream.bits[:1], rate, sng).words)
    return _fixed(stream, _random(stream, wires, Thermometer()), value)


def burst(stream: Bitstream, rate: Any, length: int, seed: int = 0, *, value: int | None = None) -> Bitstream:
    """Flip, or fix, all bits of bursts that begin at random.

    A burst begins at each bit with the probability f, and takes L bits, or those that are left; where two overlap they
    are one. Of the bits, about g = 1 - (1 - f)**L are within: all but the first L - 1, before which no burst begins,
    are so with this probability. p (1 - 2 g) + g ones a bit are then expected, with p before, or p (1 - g) + value g.

    Parameters
    ----------
    stream : Bitstream
    rate : float or array_like
        0 to 1, of a shape that broadcasts to that of the streams: how probable it is that a burst begins at a bit.
    length : int
        L, 1 or more bits.
    seed : int
        0 to 2**64 - 1.
    value : {None, 0, 1}
        None flips the bits of a burst; 0 or 1 is what they become.

    Returns
    -------
    Bitstream
        Of the same length and polarity.

    Raises
    ------
    BitstreamError
        As for `flip`, or if the length or the value is no such number.

    Examples
    --------
    >>> from scdask import encode
    >>> x = burst(encode(0.0, 64), 0.04, 8, seed=2)
    >>> "".join(map(str, x.unpack()))
    '0000000001111111100000000111111110000000000000000000000000000000'
    """
    check_alike(stream)
    bits = min(integer("the length of a burst", length, 1, 2**63), stream.length)
    if value is not None:
        value = integer("what the bits of a burst become", value, 0, 1)
    within, reach = _random(stream, rate, BitsOfUse(seed, use=BURST)), 1
    while reach < bits:
        step = min(reach, bits - reach)
        within, reach = within | delay(within, step), reach + step
    return gate("xor", stream, within) if value is None else _fixed(stream, within, value)


def _random(stream: Bitstream, rate: Any, sng: SNG) -> Bitstream:
    """A stream of each rate beside each of the streams."""
    check_alike(stream)
    return wrap_words(encode_beside(stream.words, rate, sng, stream.length), stream.length, stream.polarity)


def _fixed(stream: Bitstream, where: Bitstream, value: int) -> Bitstream:
    return gate("or", stream, where) if value else gate("and", stream, ~where)

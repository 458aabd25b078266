"""Circuits that make streams correlate, or stop doing so."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bitstream import Bitstream, check_alike, wrap_words
from ..core import contract
from ..core.checks import INTEGERS, check_encoding
from ..core.machines import Machine, typed_cache
from ..core.words import WORD, words_for
from ..errors import BitstreamError
from ..generators.base import integer
from ..generators.bernoulli import BitsOfUse
from ..machines import map_time, run
from ..vector_ops.encoding import encode_beside
from ..vector_ops.numbers import concatenate, divide
from ..vector_ops.packing import bits_between

if TYPE_CHECKING:
    from ..generators import SNG

DEEPEST = 127  # ones that a synchronizer, of up to 256 states, can keep
SHUFFLED_BY_MACHINE = (2, 4)  # depths of a shuffle buffer whose place a machine can read beside a stream
SHUFFLE = 16  # the first of the uses of random bits that choose a place of a shuffle buffer


@typed_cache
def synchronizer(depth: int = 1) -> Machine:
    """The machine of `synchronize`, of 2 depth + 1 states: how many ones of the first stream wait, less `depth`.

    Negative numbers are ones of the second stream. Where only one stream has a one, a one of the other that waits is
    written with it, or else it waits itself, if there is room.
    """
    depth = integer("the depth of a synchronizer", depth, 1, DEEPEST)

    def step(state: int, x: int, y: int) -> tuple[int, int, int]:
        before = state - depth
        waiting = before + x - y
        if x == y or abs(waiting) > depth:
            return state, x, y
        paired = int(abs(waiting) < abs(before))
        return waiting + depth, paired, paired

    return Machine.from_step(step, states=2 * depth + 1, inputs=2, start=depth)


@typed_cache
def desynchronizer(depth: int = 1) -> Machine:
    """The machine of `desynchronize`, of 2 depth + 2 states: how many ones wait, and, times depth + 1, of which stream.

    Where both streams have a one, one of them waits, if there is room, and is written where neither has one. When none
    waits any more, it is the turn of the other stream.
    """
    depth = integer("the depth of a desynchronizer", depth, 1, DEEPEST)

    def step(state: int, x: int, y: int) -> tuple[int, int, int]:
        turn, waiting = divmod(state, depth + 1)
        if x and y and waiting < depth:
            return state + 1, int(turn == 1), int(turn == 0)
        if not x and not y and waiting:
            following = state - 1 if waiting > 1 else (1 - turn) * (depth + 1)
            return following, int(turn == 0), int(turn == 1)
        return state, x, y

    return Machine.from_step(step, states=2 * (depth + 1), inputs=2)


@typed_cache
def shuffle_buffer(depth: int) -> Machine:
    """The machine of `decorrelate` for a depth of 2 or 4: its states are the bits in the buffer.

    After the stream it reads the bits of the place, the lowest one first.
    """
    if depth not in SHUFFLED_BY_MACHINE:
        raise BitstreamError(f"a machine holds a shuffle buffer of 2 or 4 bits, not {depth!r}")

    def step(state: int, x: int, *places: int) -> tuple[int, int]:
        at = sum(bit << i for i, bit in enumerate(places))
        return state & ~(1 << at) | x << at, state >> at & 1

    return Machine.from_step(step, states=2**depth, inputs=depth.bit_length(), start=0b1010 % 2**depth)


def synchronize(a: Bitstream, b: Bitstream, depth: int = 1) -> tuple[Bitstream, Bitstream]:
    """Make two streams overlap as much as they can (synchronizer, after [1]_).

    Ones that come alone wait, up to `depth` of them, for a one of the other stream, and leave with it.

    ========  ==============================================================================================
    circuit   a counter from -depth to depth of the ones that wait; `synchronizer(depth)` is the machine
    SCC       any comes in, near +1 comes out: at 4,096 bits Bernoulli streams of .6 and .45 have .84, .96 and
              1.00 after depths 1, 2 and 4
    error     up to depth ones still wait when a stream ends: of the two values one is off by up to depth / N
    ========  ==============================================================================================

    Parameters
    ----------
    a, b : Bitstream
        Of one length, and any polarity; shapes broadcast.
    depth : int
        Ones that can wait, 1 to 127.

    Returns
    -------
    a, b : Bitstream
        Of the broadcast shape, and the polarity of each. Lazy if one of the two is.

    Raises
    ------
    BitstreamError
        If they are no Bitstreams of one length, their shapes do not broadcast, or there is no such depth.

    References
    ----------
    .. [1] Lee, Alaghi, Ceze: Correlation manipulating circuits for stochastic computing. DATE 2018.

    Examples
    --------
    >>> from scdask import Bernoulli, encode, scc
    >>> a, b = (encode(p, 4096, sng=Bernoulli(seed)) for seed, p in enumerate((0.6, 0.45)))
    >>> c, d = synchronize(a, b, depth=4)
    >>> round(float(scc(a, b)), 2), round(float(scc(c, d)), 2)
    (0.02, 1.0)
    """
    return _both(synchronizer(depth), a, b)


def desynchronize(a: Bitstream, b: Bitstream, depth: int = 1) -> tuple[Bitstream, Bitstream]:
    """Make two streams overlap as little as they can (desynchronizer, after [1]_).

    Where both have a one, one of the two waits, up to `depth` of them, until neither has one. The streams take turns.

    ========  ==============================================================================================
    circuit   a counter from 0 to depth, and whose turn it is; `desynchronizer(depth)` is the machine
    SCC       any comes in, near -1 comes out: at 4,096 bits Bernoulli streams of .6 and .3 have -.61, -.80 and
              -.93 after depths 1, 2 and 4
    error     up to depth ones still wait when a stream ends: of the two values one is off by up to depth / N
    ========  ==============================================================================================

    Parameters
    ----------
    a, b : Bitstream
        Of one length, and any polarity; shapes broadcast.
    depth : int
        Ones that can wait, 1 to 127.

    Returns
    -------
    a, b : Bitstream
        Of the broadcast shape, and the polarity of each. Lazy if one of the two is.

    Raises
    ------
    BitstreamError
        As for `synchronize`.

    References
    ----------
    .. [1] Lee, Alaghi, Ceze: Correlation manipulating circuits for stochastic computing. DATE 2018.

    Examples
    --------
    OR then adds, up to 1:

    >>> from scdask import Sobol, encode
    >>> a, b = (encode(p, 256, sng=Sobol(1)) for p in (0.5, 0.25))
    >>> c, d = desynchronize(a, b, depth=8)
    >>> round(float((a | b).decode()), 2), round(float((c | d).decode()), 2)
    (0.5, 0.75)
    """
    return _both(desynchronizer(depth), a, b)


def _both(machine: Machine, a: Bitstream, b: Bitstream) -> tuple[Bitstream, Bitstream]:
    first, second = run(machine, a, b)
    return first, wrap_words(second.words, second.length, b.polarity)


def decorrelate(stream: Bitstream, depth: int = 4, seed: int = 0, *, shared: bool = False) -> Bitstream:
    """Put the bits of each stream into another order, so that it correlates with others less (shuffle buffer [1]_).

    The buffer holds `depth` bits. In a step the bit at a random place of it leaves, and the next bit of the stream
    takes its place.

    ========  ==============================================================================================
    circuit   depth flip-flops, and log2(depth) random bits a step; every second flip-flop begins with a one.
              `shuffle_buffer(depth)` is the machine for depths 2 and 4
    SCC       any comes in, near 0 comes out, the nearer the deeper: streams of one Sobol sequence, of .6 and .45,
              have 1 before, and at 4,096 bits -.15, -.09, -.05 and -.02 once one has passed depths 2, 4, 8 and
              16; +.22, +.05, +.02 and .00 once both have
    error     what is left in the buffer: the value is off by up to depth / 2 N
    ========  ==============================================================================================

    Parameters
    ----------
    stream : Bitstream
        Of any polarity. Of two streams that correlate it is enough to pass one; where both pass, give them seeds that
        differ.
    depth : int
        A power of 2 from 2 to 256.
    seed : int
        0 to 2**64 - 1. The places are random bits of their own, whatever the streams were encoded with, and a pure
        function of (seed, stream, bit), the same in any chunking and library.
    shared : bool
        False: each stream of the array has places of its own, so that those of this array do not correlate with each
        other either. True: all have the same places, so that they correlate as before.

    Returns
    -------
    Bitstream
        Of the same polarity. Lazy, in the same chunks, if the stream is.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, the depth or the seed is no such number, or the number of streams is not known.

    References
    ----------
    .. [1] Lee, Alaghi, Ceze: Correlation manipulating circuits for stochastic computing. DATE 2018.

    Examples
    --------
    >>> from scdask import Sobol, encode, scc
    >>> a, b = (encode(p, 4096, sng=Sobol(1)) for p in (0.6, 0.45))
    >>> [round(float(scc(x, b)), 2) for x in (a, decorrelate(a, 4, seed=1), decorrelate(a, 64, seed=1))]
    [1.0, -0.09, -0.01]
    """
    check_alike(stream)
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth not in [2**n for n in range(1, 9)]:
        raise BitstreamError(f"the depth of a shuffle buffer is a power of 2 from 2 to 256, not {depth!r}")
    places = []
    for use in range(SHUFFLE, SHUFFLE + int(depth).bit_length() - 1):
        words = encode_beside(stream.words, 0.5, BitsOfUse(seed, shared, use), stream.length)
        places.append(wrap_words(words, stream.length, "unipolar"))
    if depth in SHUFFLED_BY_MACHINE:
        shuffled: Bitstream = run(shuffle_buffer(depth), stream, *places)
    else:
        buffer = (np.arange(depth) % 2).astype(np.uint8).reshape(*[1] * stream.ndim, -1)
        shuffled = map_time(_shuffle, stream, *places, state=buffer)
    return shuffled


@cache
def _flip_flop() -> Machine:
    """A flip-flop that takes x where it is enabled, and then writes the bit that it held."""
    return Machine.from_step(lambda q, x, enable: (x if enable else q, q & enable), states=2, inputs=2)


def _shuffle(words: Any, *places: Any, state: Any, length: int) -> tuple[Any, Any]:
    enables = [contract.gate("not", places[0]), places[0]]
    for bits in places[1:]:
        enables = [
            contract.gate("and", enable, half) for half in (contract.gate("not", bits), bits) for enable in enables
        ]
    out, last = None, []
    for i, enable in enumerate(enables):
        bit, held = contract.run_machine(_flip_flop(), state[..., i], words, enable, length=length)
        out = bit if out is None else contract.gate("or", out, bit)
        last.append(held[..., None])
    return out, concatenate(*last, axis=state.ndim - 1)


def delay(stream: Bitstream, bits: int, *, rotate: bool = False) -> Bitstream:
    """Each stream some bits later (isolators [1]_).

    ========  ==============================================================================================
    circuit   a chain of flip-flops
    SCC       of streams of random bits, which do not correlate in time, with their delayed selves: near 0. Those
              of low-discrepancy sequences do correlate in time: see the example
    error     the last bits are lost, and 0 comes first: up to bits / N. None with `rotate`
    ========  ==============================================================================================

    Parameters
    ----------
    stream : Bitstream
        Of any polarity.
    bits : int
        By how much, 0 or more.
    rotate : bool
        Whether the last bits of a stream come first, in place of 0.

    Returns
    -------
    Bitstream
        Of the same length and polarity. Lazy, in the same chunks, if the stream is.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, or there is no such number of bits.

    References
    ----------
    .. [1] Ting and Hayes: Isolation-based decorrelation of stochastic circuits. ICCD 2016.

    Examples
    --------
    A square is the product of a stream with itself, some bits later. It is 0.25 here, and needs random bits:

    >>> from scdask import Bernoulli, VanDerCorput, encode
    >>> x, y = (encode(0.5, 2**16, sng=sng) for sng in (Bernoulli(1), VanDerCorput()))
    >>> round(float((x & delay(x, 1)).decode()), 2), round(float((y & delay(y, 1)).decode()), 2)
    (0.25, 0.0)
    """
    check_alike(stream)
    if isinstance(bits, bool) or not isinstance(bits, INTEGERS) or bits < 0:
        raise BitstreamError(f"a delay is an integer from 0 on, not {bits!r}")
    by = int(bits) % stream.length if rotate else min(int(bits), stream.length)
    if not by:
        return wrap_words(stream.words, stream.length, stream.polarity)
    n_words = words_for(by)
    before = np.zeros((*[1] * stream.ndim, n_words), np.uint64)
    if rotate:
        first = stream.length - WORD * n_words
        if first >= 0:
            before = bits_between(stream.words, first, stream.length)
        else:  # The words hold fewer bits than are asked for; those that come first are not used.
            before = map_time(partial(_later, bits=-first), _whole_words(stream), state=before[..., :1]).words
    later: Bitstream = map_time(partial(_later, bits=by), stream, state=before)
    return later


def _whole_words(stream: Bitstream) -> Bitstream:
    return wrap_words(stream.words, WORD * words_for(stream.length), stream.polarity)


def _later(words: Any, state: Any, length: int, bits: int) -> tuple[Any, Any]:
    """The words `bits` later, after the words of the state, and the last of all words."""
    joined = concatenate(state, words, axis=words.ndim - 1)
    n_words = state.shape[-1]
    start = WORD * n_words - bits
    return bits_between(joined, start, start + length), contract.gate("mask", joined[..., -n_words:])


def regenerate(stream: Bitstream, sng: SNG) -> Bitstream:
    """Count the ones of each stream, and encode the number again with another generator.

    ========  ==============================================================================================
    circuit   a counter, and the comparator of the generator; it takes N steps before the first bit comes out
    SCC       any comes in; what comes out correlates as streams of `sng` do
    error     that of encoding: none with `Sobol`, `Halton`, `VanDerCorput` and `Thermometer`, which have exactly as
              many ones; they are the dearest circuit, and the only one that makes random streams even again
    ========  ==============================================================================================

    Parameters
    ----------
    stream : Bitstream
        Of any polarity.
    sng : SNG
        The stochastic number generator.

    Returns
    -------
    Bitstream
        Of the same length and polarity. Lazy, in the same chunks, if the stream is; a chunk of it waits for all bits of
        its streams.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, or the generator is none or cannot make such streams.

    Examples
    --------
    >>> from scdask import Sobol, encode, scc
    >>> a, b = (encode(p, 256, sng=Sobol(1)) for p in (0.5, 0.25))
    >>> c = regenerate(b, Sobol(2))
    >>> float(scc(a, b)), float(scc(a, c)), float(c.decode())
    (1.0, 0.0, 0.25)
    """
    check_alike(stream)
    check_encoding(stream.length, sng)
    share = contract.exactly(_share, stream.popcount(), length=stream.length)
    return wrap_words(encode_beside(stream.words, share, sng, stream.length), stream.length, stream.polarity, sng)


def _share(ones: Any, length: int) -> Any:
    return divide(ones, length)

"""Shapes of arrays of bitstreams: streams put together, side by side, and picked by a mask.

They do what NumPy's functions of these names do, with whole streams in place of numbers, in the library of the words;
lazy streams stay lazy. Axes are those of the streams: -1 is the last of them, not that of the bits.

>>> import numpy as np
>>> import scdask as sc
>>> a, b = (sc.encode(np.full(4, p), 256, sng=sc.Sobol(1)) for p in (0.25, 0.75))
>>> sc.stack([a, b], axis=-1).shape, sc.concatenate([a, b]).shape, sc.reshape(a, (2, -1)).shape
((4, 2), (8,), (2, 2))
>>> sc.where(np.array([True, False, False, True]), a, b).decode()
array([0.25, 0.75, 0.75, 0.25])

Parts of the streams in time are `stream.bits[start:stop]`:

>>> first, second = a.bits[:100], a.bits[100:]
>>> first.length, second.length, np.concatenate([first.unpack(), second.unpack()], axis=-1).shape
(100, 156, (4, 256))
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from .bitstream import Bitstream, check_alike, wrap_words
from .core.checks import as_array
from .errors import BitstreamError
from .vector_ops.gates import gate
from .vector_ops.numbers import concatenate as concatenated
from .vector_ops.numbers import filled

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["broadcast_to", "concatenate", "reshape", "stack", "where"]


def stack(streams: Sequence[Bitstream], axis: int = 0) -> Bitstream:
    """Streams of one shape, side by side along a new axis.

    Parameters
    ----------
    streams : sequence of Bitstream
        Of one length, polarity and shape.
    axis : int
        Where the new axis is in the shape of the result; negative ones count from its end.

    Returns
    -------
    Bitstream
        Lazy if one of the streams is.

    Raises
    ------
    BitstreamError
        If there is none, they do not fit each other, or there is no such axis.

    Examples
    --------
    >>> from scdask import encode
    >>> stack([encode([0.1, 0.2, 0.3], 64), encode([0.4, 0.5, 0.6], 64)], axis=1).shape
    (3, 2)
    """
    given = _together(streams)
    at = number_of_axis(axis, given[0].ndim + 1)
    for stream in given[1:]:
        if not _same(stream.shape, given[0].shape):
            raise BitstreamError(f"streams of one shape are stacked, not of {given[0].shape} and {stream.shape}")
    index = (*[slice(None)] * at, None)
    return concatenate([stream[index] for stream in given], axis=at)


def concatenate(streams: Sequence[Bitstream], axis: int = 0) -> Bitstream:
    """Arrays of streams, one after the other along an axis.

    Parameters
    ----------
    streams : sequence of Bitstream
        Of one length and polarity, and of one shape but for the axis.
    axis : int
        Of the array of streams; negative ones count from its end.

    Returns
    -------
    Bitstream
        Lazy if one of the streams is.

    Raises
    ------
    BitstreamError
        If there is none, they do not fit each other, or there is no such axis.

    Examples
    --------
    >>> from scdask import encode
    >>> concatenate([encode([0.1, 0.2], 64), encode([0.3], 64)]).shape
    (3,)
    """
    given = _together(streams)
    at = number_of_axis(axis, given[0].ndim)
    first = given[0].shape
    for stream in given[1:]:
        shape = stream.shape
        if stream.ndim != len(first) or not _same((*shape[:at], *shape[at + 1 :]), (*first[:at], *first[at + 1 :])):
            raise BitstreamError(f"streams of shapes {first} and {shape} do not fit together along axis {at}")
    words = concatenated(*(stream.words for stream in given), axis=at)
    return wrap_words(words, given[0].length, given[0].polarity, _generator(given))


def reshape(stream: Bitstream, shape: int | tuple[int, ...]) -> Bitstream:
    """The same streams, in C order, in an array of another shape.

    Parameters
    ----------
    stream : Bitstream
    shape : int or tuple of int
        One of them may be -1: as many as are left.

    Returns
    -------
    Bitstream

    Raises
    ------
    BitstreamError
        If the shape has another number of streams, or that number is not known.

    Examples
    --------
    >>> from scdask import encode
    >>> reshape(encode([0.1, 0.2, 0.3, 0.4], 64), (2, -1)).shape
    (2, 2)
    """
    check_alike(stream)
    return stream.reshape(shape)


def broadcast_to(stream: Bitstream, shape: int | tuple[int, ...]) -> Bitstream:
    """The streams repeated along new axes and those of length 1, without a copy where the library needs none.

    Parameters
    ----------
    stream : Bitstream
    shape : int or tuple of int

    Returns
    -------
    Bitstream
        Its words may be read-only.

    Raises
    ------
    BitstreamError
        If the streams do not broadcast to the shape.

    Examples
    --------
    >>> from scdask import encode
    >>> broadcast_to(encode([[0.1], [0.2]], 64), (3, 2, 4)).shape
    (3, 2, 4)
    """
    check_alike(stream)
    return stream.broadcast_to(shape)


def where(mask: Any, a: Bitstream, b: Bitstream) -> Bitstream:
    """The streams of `a` where the mask is true, and those of `b` elsewhere.

    Parameters
    ----------
    mask : array_like or array of bool
        It broadcasts with the streams, one element a stream. (A multiplexer, `mux`, chooses bit by bit.)
    a, b : Bitstream
        Of one length and polarity; shapes broadcast.

    Returns
    -------
    Bitstream
        Lazy if one of the three is.

    Raises
    ------
    BitstreamError
        If the mask is not of bool, or they do not fit each other.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> low, high = (encode(p, 64, sng=Sobol(1)) for p in (0.25, 0.75))
    >>> where([True, False], low, high).decode()
    array([0.25, 0.75])
    """
    check_alike(a, b)
    chosen = as_array(mask, "mask")
    if chosen.dtype != np.bool:
        raise BitstreamError(f"a mask is of bool, not {chosen.dtype}")
    words = gate("mux", filled(chosen, a.words.shape[-1]), a.words, b.words)
    return wrap_words(words, a.length, a.polarity, _generator((a, b)))


def _together(streams: Sequence[Bitstream]) -> tuple[Bitstream, ...]:
    """The streams, once they are known to be some, and alike."""
    try:
        given = () if isinstance(streams, Bitstream) else tuple(streams)
    except TypeError:
        given = ()
    if not given:
        raise BitstreamError(f"a sequence of Bitstreams, one at least, is put together, not {streams!r}")
    check_alike(*given)
    return given


def number_of_axis(axis: Any, ndim: int) -> int:
    """The axis of streams, counted from the first."""
    try:
        at = operator.index(axis)
    except (TypeError, ValueError):
        raise BitstreamError(f"an axis is an integer, not {axis!r}") from None
    if not -ndim <= at < ndim:
        raise BitstreamError(f"there is no axis {at}: the streams have {ndim} axes")
    return at % ndim


def _same(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two shapes are equal where both are known."""
    return len(shape) == len(other) and all(
        n == m or np.isnan(n) or np.isnan(m) for n, m in zip(shape, other, strict=True)
    )


def _generator(streams: Sequence[Bitstream]) -> Any:
    """The generator of all streams, None if they have several, or one that numbers them."""
    first = streams[0].sng
    return first if first and not first.own and all(stream.sng == first for stream in streams) else None

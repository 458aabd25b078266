"""Sorting networks of streams at SCC = +1: a comparator is an AND and an OR."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bitstream import wrap_words
from ..core import contract
from ..errors import BitstreamError
from ..manipulation import number_of_axis
from ..vector_ops.numbers import along, concatenate
from .needs import check_one_array, needs_one_sequence

if TYPE_CHECKING:
    from ..bitstream import Bitstream

    Network = tuple[tuple[int, int], ...]

# Smith's median of a 3 x 3 window: columns are sorted, then the largest of the first, the median of the second and the
# smallest of the third ones have the median of all as theirs. Nothing that is known needs less than 19.
MEDIAN_OF_9 = (
    *((0, 1), (1, 2), (0, 1), (3, 4), (4, 5), (3, 4), (6, 7), (7, 8), (6, 7)),
    *((0, 3), (3, 6), (5, 8), (2, 5), (1, 4), (4, 7), (1, 4), (2, 4), (4, 6), (2, 4)),
)  # fmt: skip


def sort(streams: Bitstream, axis: int = -1) -> Bitstream:
    """Streams in ascending order along an axis: Batcher's odd-even merge sort [1]_.

    Parameters
    ----------
    streams : Bitstream
        At SCC = +1 with each other along the axis, and of any polarity: those of one generator with one sequence for
        all elements, such as ``Sobol(1)`` or ``Bernoulli(shared=True)``. The default `Bernoulli` gives each element
        numbers of its own: such streams are independent, and what comes out is not in them.
    axis : int
        Of the array of streams; negative ones count from its end. Chunks of lazy streams are put together along it,
        and stay as they are along all others, and in time.

    Returns
    -------
    Bitstream
        Of the same shape: the streams themselves, in order, and so at SCC = +1.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, there is no such axis, or its length is not known.

    Warns
    -----
    CorrelationWarning
        If the generator of the streams is known, and gives each element numbers of its own.

    Notes
    -----
    A comparator of two streams gives their AND, which is the smaller, and their OR. Of n = 2**k streams the network has
    (k**2 - k + 4) 2**(k - 2) - 1 of them. Streams at a smaller SCC keep the number of all their ones, but give less
    than the smallest, and more than the largest.

    References
    ----------
    .. [1] Batcher: Sorting networks and their applications. AFIPS Spring Joint Computer Conference 1968.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> sort(encode([0.5, 0.125, 0.75, 0.25], 256, sng=Sobol(1))).decode()
    array([0.125, 0.25 , 0.5  , 0.75 ])
    """
    at, n = _checked("sort", streams, axis)
    words = along(partial(_sorted, sorting_network(n)), streams.words, at, keeps=True) if n > 1 else streams.words
    return wrap_words(words, streams.length, streams.polarity)


def median(streams: Bitstream, axis: int = -1) -> Bitstream:
    """The median along an axis of an odd number of streams: a sorting network, as far as it needs it.

    Parameters
    ----------
    streams : Bitstream
        As for `sort`.
    axis : int
        Of the array of streams, as for `sort`.

    Returns
    -------
    Bitstream
        Without the axis: at each place the stream itself that is the median, and so at SCC = +1 with the others.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, there is no such axis, or the number of streams along it is even or not known.

    Warns
    -----
    CorrelationWarning
        As `sort`.

    Notes
    -----
    For 9 streams, as of a window of 3 x 3 pixels, it has 19 comparators. It is exact at SCC = +1: the median of images
    of 8 bits at N = 256, thermometer or one Sobol sequence, is that of the pixels. Of three independent streams it is
    off by 0.09 (RMSE) at any length.

    Examples
    --------
    >>> from scdask import Thermometer, encode
    >>> window = encode([[0.5, 0.125, 0.75], [0.25, 1, 0]], 256, sng=Thermometer())
    >>> median(window, axis=1).decode()
    array([0.5 , 0.25])
    """
    at, n = _checked("median", streams, axis)
    if n % 2 == 0:
        raise BitstreamError(f"the median is that of an odd number of streams, not of {n}")
    words = along(partial(_median, median_network(n)), streams.words, at, keeps=False)
    return wrap_words(words, streams.length, streams.polarity)


@cache
def sorting_network(n: int) -> Network:
    """Batcher's network: the pairs of lanes that comparators get in turn, the smaller of which goes to the first.

    That of any n is that of the next power of two without the lanes from n on: in these the largest would stay.
    """
    pairs = []
    merged = 1
    while merged < n:
        distance = merged
        while distance:
            for first in range(distance % merged, n - distance, 2 * distance):
                for i in range(first, min(first + distance, n - distance)):
                    if i // (2 * merged) == (i + distance) // (2 * merged):
                        pairs.append((i, i + distance))  # noqa: PERF401
            distance //= 2
        merged *= 2
    return tuple(pairs)


@cache
def median_network(n: int) -> Network:
    """The comparators of a sorting network of n lanes that have something to do with the lane in the middle."""
    if n == 9:
        return MEDIAN_OF_9
    needed, kept = {n // 2}, []
    for pair in reversed(sorting_network(n)):
        if needed & {*pair}:
            needed |= {*pair}
            kept.append(pair)
    return tuple(reversed(kept))


def _compared(network: Network, words: Any, axis: int) -> list[Any]:
    """The lanes along an axis, after the comparators."""
    lead = (slice(None),) * axis
    lanes = [words[(*lead, i)] for i in range(words.shape[axis])]
    for i, j in network:
        lanes[i], lanes[j] = (contract.gate(kind, lanes[i], lanes[j]) for kind in ("and", "or"))
    return lanes


def _sorted(network: Network, words: Any, axis: int) -> Any:
    lanes = _compared(network, words, axis)
    return concatenate(*(lane[(*(slice(None),) * axis, None)] for lane in lanes), axis=axis)


def _median(network: Network, words: Any, axis: int) -> Any:
    return _compared(network, words, axis)[words.shape[axis] // 2]


def _checked(circuit: str, streams: Bitstream, axis: int) -> tuple[int, int]:
    """The axis, counted from the first, and its length."""
    check_one_array(streams, axis)
    at = number_of_axis(axis, streams.ndim)
    n = streams.shape[at]
    if np.isnan(n):
        raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
    if n > 1:
        needs_one_sequence(circuit, streams, stacklevel=3)
    return at, n

"""Encoding of numbers as packed streams, and what its kernels share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_real, check_encoding, check_polarity
from ..core.dispatch import DASK, backend_of, composed
from ..core.words import WORD, Part
from ..errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.words import Polarity
    from ..generators import SNG

OWN_NUMBERS = 2**21  # numbers drawn at once where each stream has its own; they take 16 MiB
SEGMENT = 4096  # bits of a shared sequence that one look-up table serves; it takes 2 MiB


def encode_words(values: Any, sng: SNG, length: int, polarity: Polarity = "unipolar") -> Any:
    """Encode real numbers as packed streams: a bit is 1 where the generator's number is below the probability.

    Parameters
    ----------
    values : array_like of float, any shape
        In [0, 1] for unipolar, [-1, 1] for bipolar streams.
    sng : SNG
        The stochastic number generator.
    length : int
        Length of a stream in bits.
    polarity : {"unipolar", "bipolar"}

    Returns
    -------
    array of uint64, shape (*values.shape, n_words)

    Raises
    ------
    BitstreamError
        If a value is outside its range or NaN, or is not real, or the generator cannot make such streams.
    """
    check_polarity(polarity)
    length = check_encoding(length, sng)
    given = as_real(values, "values to encode")
    return contract.encode_part(given, sng, length, polarity, Part.all_of(given.shape, length))


def encode_beside(words: Any, p: Any, sng: SNG, length: int) -> Any:
    """A stream for each of the streams of `words`: in their library and, if they are lazy, in their chunks.

    Parameters
    ----------
    words : array of uint64, shape (..., n_words)
        The streams, of which only the shape counts.
    p : array_like of float
        The probabilities, of a shape that broadcasts to that of the streams.
    sng : SNG
    length : int
        Length of a stream in bits.

    Returns
    -------
    array of uint64, of the shape of `words`

    Raises
    ------
    BitstreamError
        If a probability is outside 0 to 1, the shapes do not fit, the number of streams is not known, or the generator
        cannot make such streams.
    """
    length = check_encoding(length, sng)
    given = as_real(p, "probabilities")
    shape = words.shape[:-1]
    pairs = zip(reversed(given.shape), reversed(shape), strict=False)
    if given.ndim > len(shape) or any(n not in (1, m) and n == n and m == m for n, m in pairs):
        raise BitstreamError(f"probabilities of shape {given.shape} and streams of shape {shape} do not broadcast")
    if backend_of(given) is not DASK:
        contract.probabilities(given, "unipolar")  # What is in memory can be refused at once.
    return beside(words, given, sng, length)


@composed
def beside(words: Any, p: Any, sng: SNG, length: int) -> Any:
    """`encode_beside` of what is known to fit."""
    values = contract.exactly(_for_each, words[..., 0], p)
    return contract.encode_part(values, sng, length, "unipolar", Part.all_of(values.shape, length))


def _for_each(words: Any, p: Any) -> Any:
    return 0.0 * words + p


def table_spans(streams: int, length: int, part: Part) -> Iterator[tuple[int, int]]:
    """The bits that each look-up table serves: fewer where a table would cost more than the few look-ups in it."""
    segment = min(SEGMENT, max(SEGMENT // 8, 1 << streams.bit_length()))
    start, last = WORD * part.first, min(WORD * part.last, length)
    while start < last:
        yield start, min(start + segment, last)
        start += segment


def own_tiles(sng: SNG, length: int, part: Part) -> Iterator[tuple[tuple[slice, slice], Any]]:
    """Where each tile of a part is, over (streams, words), and the numbers of its streams, each its own."""
    streams = stream_numbers(part).reshape(-1)
    n_words = part.last - part.first
    width = min(n_words, OWN_NUMBERS // WORD)
    height = OWN_NUMBERS // (WORD * width)
    for row in range(0, len(streams), height):
        for word in range(0, n_words, width):
            last = min(word + width, n_words)
            start, stop = WORD * (part.first + word), min(WORD * (part.first + last), length)
            numbers = sng.drawn(length, start, stop, streams[row : row + height])
            yield (slice(row, row + len(numbers)), slice(word, last)), numbers


def stream_numbers(part: Part, xp: Any = np) -> Any:
    """The numbers of the streams of a part, in C order of all streams, as uint64 of the library xp."""
    if not part.region:
        return xp.zeros((), np.uint64)
    *outer, last = part.region
    numbers = _along(last, xp)
    stride = 1
    for along, below in zip(reversed(outer), reversed(part.shape), strict=False):
        stride *= below
        steps = _along(along, xp) * np.uint64(stride)
        numbers = numbers + steps.reshape(-1, *[1] * numbers.ndim)
    return numbers


def _along(where: Any, xp: Any) -> Any:
    return xp.arange(where.start, where.stop, dtype=np.uint64) if isinstance(where, slice) else xp.asarray(where)

"""The ones of packed words: of each word, of each stream, of all."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_words
from ..core.dispatch import composed
from ..core.words import ONES, WORD, tail_mask
from ..errors import BitstreamError
from .numbers import concatenate

if TYPE_CHECKING:
    from collections.abc import Sequence

TILE = 2**20  # bits whose running counts are in memory at a time


def popcount(packed: Any) -> Any:
    """Ones in each word.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    array of uint8, of the same shape
    """
    return contract.word_ones(as_words(packed))


def stream_popcount(packed: Any) -> Any:
    """Ones in each stream: the accumulative parallel counter.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    array of int64, shape (...)
    """
    return contract.stream_ones(as_words(packed))


def prefix_popcount(packed: Any, at: Sequence[int]) -> Any:
    """Ones in the first bits of each stream, for several numbers of bits, all in one pass.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    at : sequence of int, length n
        Numbers of bits, from 1 to 64 n_words.

    Returns
    -------
    array of int64, shape (..., n)

    Raises
    ------
    BitstreamError
        If the words are not uint64, or a number is none of their bits.

    Examples
    --------
    >>> import numpy as np
    >>> prefix_popcount(np.array([0b1011, 2**64 - 1], np.uint64), [3, 64, 70])
    array([2, 3, 9])
    """
    words = as_words(packed)
    return prefix_ones(words, check_prefixes(at, WORD * words.shape[-1]))


def check_prefixes(at: Any, length: int) -> tuple[int, ...]:
    """The numbers of bits as a tuple, if there are so many in a stream of `length` bits."""
    bits = np.asarray(at)
    if bits.ndim != 1 or (bits.dtype.kind not in "iu" and bits.size) or ((bits < 1) | (bits > length)).any():
        raise BitstreamError(
            f"streams of {length} bits are read at a sequence of integers from 1 to {length}, such as [1], not {at!r}"
        )
    return tuple(bits.tolist())


@composed
def prefix_ones(words: Any, at: tuple[int, ...]) -> Any:
    """`prefix_popcount` of what is known to fit; 0 bits have no ones."""
    last = np.array([max(bits - 1, 0) // WORD for bits in at], np.intp)
    after = np.array([~tail_mask(bits) if bits else ONES for bits in at], np.uint64)
    ones = contract.word_ones(words).cumsum(axis=-1, dtype=np.int64)
    unread = contract.gate("and", contract.pick(words, (Ellipsis, last)), after)
    return contract.pick(ones, (Ellipsis, last)) - contract.word_ones(unread)


@composed
def watched(words: Any, watch: Any, length: int) -> Any:
    """Go on looking for the last bit at which the running share of ones is outside of a band.

    Parameters
    ----------
    words : array of uint64, shape (..., n_words)
    watch : array of float64, shape (..., 5)
        The ends of the band; the bits before these, the ones among them, and the bits up to the last one at which the
        share was outside, or 0.
    length : int
        The bits in these words.

    Returns
    -------
    array of float64, shape (..., 5)
        The same, after these bits.
    """
    n_words = words.shape[-1]
    step = max(1, TILE // (WORD * max(1, prod(words.shape[:-1]))))
    for first in range(0, n_words, step):
        watch = watched_tile(words[..., first : first + step], watch, min(WORD * step, length - WORD * first))
    return watch


@composed
def watched_tile(words: Any, watch: Any, length: int) -> Any:
    """`watched` of so few bits that their running counts may all be in memory."""
    low, high, before, ones, last = (watch[..., i : i + 1] for i in range(5))
    bits = contract.unpack(words, length)
    seen = ones + bits.cumsum(axis=-1, dtype=np.float64)
    places = before + (bits | 1).cumsum(axis=-1, dtype=np.float64)
    outside = places * ~((seen >= low * places) & (seen <= high * places))
    last = concatenate(last, outside, axis=words.ndim - 1).max(axis=-1, keepdims=True)
    return concatenate(low, high, places[..., -1:], seen[..., -1:], last, axis=words.ndim - 1)


def vec_popcount(packed: Any) -> Any:
    """Ones in the whole array.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    int, or a lazy int64 scalar for a Dask array
    """
    return total_ones(as_words(packed))


@composed
def total_ones(words: Any) -> Any:
    """The ones of all words, as an int where that is known."""
    return int(contract.stream_ones(words.reshape(1, words.size))[0])

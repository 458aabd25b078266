"""The ones of packed words: of each word, of each stream, of all."""

from __future__ import annotations

from typing import Any

from ..core import contract
from ..core.checks import as_words
from ..core.dispatch import composed


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

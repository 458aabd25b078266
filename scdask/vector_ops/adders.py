"""Adders that count the ones of streams at each bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import contract
from ..core.checks import as_array, as_words, check_length, kind_of
from ..core.dispatch import composed
from ..errors import BitstreamError
from .machines import check_fits

LARGEST = 2**29  # what numbers of an adder are at most, so that their sums fit 32 bits


def accumulate(
    packed: Any,
    *,
    scale: int,
    offset: int = 0,
    low: int,
    high: int,
    worth: int = 1,
    digits: int = 1,
    length: int,
    start: Any = 0,
) -> tuple[Any, Any]:
    """Add streams by an accumulator.

    At each bit the accumulator gets worth * ones - offset, with the ones of the n streams there. If it then holds
    `scale` or more, the output is 1 and `scale` is subtracted. Last it is clipped to low ... high.

    Parameters
    ----------
    packed : array of uint64, shape (..., n, n_words)
        The n streams, n >= 1, are on the axis before the words.
    scale, offset, low, high : int
    worth : {1, 2}
        2 counts in halves of a one.
    digits : int
        Stream i counts 2 ** (i % digits); n is a multiple of it.
    length : int
        Length of a stream in bits; padding is never stepped through.
    start : int or array of int
        The accumulators before the first bit, from `low` to `high`, of a shape that broadcasts to (...).

    Returns
    -------
    output : array of uint64, shape (..., n_words)
        Its padding is 0.
    accumulators : array of int32, shape (...)
        After the last bit.

    Raises
    ------
    BitstreamError
        If the words, the length or the start do not fit, or the numbers are too large.
    """
    words = as_words(packed)
    if words.ndim < 2 or np.isnan(words.shape[-2]) or not words.shape[-2] or words.shape[-2] % digits:
        raise BitstreamError(f"an adder takes words (..., n, n_words) with n streams, n >= 1, not {words.shape}")
    length = check_length(length, words.shape[-1])
    most = max(abs(scale), abs(offset), abs(low), abs(high), worth * words.shape[-2] * 2 ** (digits - 1))
    if most > LARGEST:
        raise BitstreamError(f"the numbers of an adder and its ones at a bit are {LARGEST} at most, not {most}")
    given = as_array(start, "start")
    if kind_of(given) not in "iu":
        raise BitstreamError(f"an accumulator is an integer from {low} to {high}, not of {given.dtype}")
    check_fits("accumulators", given.shape, words.shape[:-2])
    numbers = {"scale": scale, "offset": offset, "low": low, "high": high, "worth": worth, "digits": digits}
    out, last = contract.accumulate(words, given, length=length, **numbers)
    return out, last


def check_start(start: Any, low: int, high: int) -> None:
    """Raise unless all accumulators on the host are from `low` to `high`."""
    wrong = start[(start < low) | (start > high)]
    if wrong.size:
        raise BitstreamError(f"an accumulator is an integer from {low} to {high}, not {wrong.flat[0]}")


def digits_of(n: int, digits: int = 1) -> int:
    """How many binary digits the count at a bit may have, of n rows of which row i counts 2 ** (i % digits)."""
    return max(1, int(n // digits * (2**digits - 1)).bit_length())


@composed
def before_words(words: Any, axis: int) -> Any:
    """The words with an axis of streams moved to the place before that of the words."""
    order = [i for i in range(words.ndim - 1) if i != axis]
    return words.transpose(*order, axis, words.ndim - 1)

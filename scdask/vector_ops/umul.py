"""Multiplication by numbers whose generator goes on only where the other operand asks for a bit (uMUL)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_real, as_words, check_encoding, check_length, check_polarity
from ..core.dispatch import NUMPY, backend_of, composed
from ..core.words import WORD, Part
from ..errors import BitstreamError
from .numbers import broadcast_to

if TYPE_CHECKING:
    from ..core.words import Polarity
    from ..generators import SNG


def expand(bits: Any, mask: Any) -> Any:
    """The lowest bits, in their order, at the ones of the mask: PDEP of words, or of arrays of them.

    Bits move to the left by powers of two, the longest way first: by 2**i where the number of zeros below their place
    has bit i (Warren: Hacker's Delight, 2nd ed., 7-5).
    """
    moves = []
    kept, zeros = mask, ~mask << np.uint64(1)
    for i in range(6):
        odd = zeros
        for j in range(6):
            odd = odd ^ (odd << np.uint64(2**j))  # whether the zeros below a bit are odd in number
        moved = odd & kept
        kept = (kept ^ moved) | (moved >> np.uint64(2**i))
        zeros = zeros & ~odd
        moves.append(moved)
    for i in range(5, -1, -1):
        shifted = bits << np.uint64(2**i)
        bits = (bits & ~moves[i]) | (shifted & moves[i])
    return bits & mask


@composed
def deposit(masks: Any, words: Any, first: Any) -> Any:
    """The bits of streams, one after the other, at the ones of masks.

    Masks (..., n), words (..., m) of the same leading axes, and `first`, int64, the bits to begin with; the words have
    all bits that are asked for.
    """
    ones = contract.word_ones(masks).astype(np.int64)
    begin = first[..., None] + ones.cumsum(-1) - ones
    place, shift = begin // WORD, (begin % WORD).astype(np.uint64)
    flat, m = words.reshape(-1), words.shape[-1]
    each = first[..., None] * 0 + 1
    rows = (each.reshape(-1).cumsum(0).reshape(each.shape) - 1) * m
    low = flat[rows + place.clip(0, m - 1)] >> shift
    high = flat[rows + (place + 1).clip(0, m - 1)] << np.uint64(1) << (np.uint64(WORD - 1) - shift)
    return expand(low | high, masks)


def umul_words(packed: Any, values: Any, sng: SNG, length: int, polarity: Polarity = "unipolar") -> Any:
    """The products of streams and numbers, by uMUL: `scdask.arithmetic.umul` of words.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    values : array_like of float
        Of a shape that broadcasts with that of the streams.
    sng : SNG
        Its numbers are compared with the values.
    length : int
        Length of a stream in bits.
    polarity : {"unipolar", "bipolar"}

    Returns
    -------
    array of uint64, shape (..., n_words)

    Raises
    ------
    BitstreamError
        If the words or the length do not fit, the shapes do not broadcast, or a value is outside its range.
    """
    check_polarity(polarity)
    words, given = as_words(packed), as_real(values, "values to multiply by")
    length = check_encoding(check_length(length, words.shape[-1]), sng)
    try:
        np.broadcast_shapes(words.shape[:-1], given.shape)
    except ValueError:
        raise BitstreamError(f"streams of shape {words.shape[:-1]} and {given.shape} values do not broadcast") from None
    return products(words, given, sng, length, polarity)


@composed
def products(words: Any, values: Any, sng: SNG, length: int, polarity: Polarity) -> Any:
    """`umul_words` of arrays that are known to fit."""
    none = words[..., 0].astype(np.int64) * 0
    numbers = contract.encode_part(values, sng, length, polarity, Part.all_of(values.shape, length))
    taken = taken_by(words, numbers, none)
    if polarity == "unipolar":
        return taken
    others = contract.gate("not", words, length=length)
    return taken | taken_by(others, contract.gate("not", numbers), none)


@composed
def taken_by(masks: Any, numbers: Any, first: Any) -> Any:
    """`deposit` of the streams of numbers at the ones of masks, of leading axes that broadcast."""
    if backend_of(numbers) is NUMPY:
        numbers = (backend_of(masks) or NUMPY).from_numpy(numbers)
    shape = np.broadcast_shapes(masks.shape[:-1], numbers.shape[:-1])
    masks, numbers = (broadcast_to(each, (*shape, each.shape[-1])) for each in (masks, numbers))
    return deposit(masks, numbers, broadcast_to(first, shape))

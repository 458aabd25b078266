"""Packing and unpacking of bits, and the padding after them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import contract
from ..core.checks import as_bits, as_words, check_length, unpacked_shape
from ..core.dispatch import composed
from ..core.words import WORD, words_for
from .numbers import concatenate


def pack_bitstream(bitstream: Any) -> Any:
    """Pack the bits on the last axis into uint64 words, LSB first.

    Parameters
    ----------
    bitstream : array_like of bool or integers, shape (..., N)
        Zeros and ones.

    Returns
    -------
    ndarray or dask Array of uint64, shape (..., ceil(N / 64))

    Raises
    ------
    BitstreamError
        If there is anything but 0 and 1 (for a Dask array: when it is computed), or no axis.

    Examples
    --------
    >>> pack_bitstream([1, 0, 1, 1])
    array([13], dtype=uint64)
    """
    return contract.pack(as_bits(bitstream))


def unpack_bitstream(packed: Any, original_length: int, original_shape: tuple[int, ...] | None = None) -> Any:
    """Unpack words into one byte a bit.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    original_length : int
        Length of one stream in bits; n_words must be ceil(original_length / 64).
    original_shape : tuple of int, optional
        Shape of the result; it wins over `original_length`, which then follows from it and the number of streams.

    Returns
    -------
    ndarray or dask Array of uint8, shape (..., original_length) or `original_shape`

    Raises
    ------
    BitstreamError
        If the words are not uint64 or are not those of such a stream.
    """
    words = as_words(packed)
    length, shape = unpacked_shape(words.shape, original_length, original_shape)
    bits = contract.unpack(words, length)
    return bits if original_shape is None else bits.reshape(shape)


@composed
def bits_between(words: Any, start: int, stop: int) -> Any:
    """The words of the bits from `start` up to `stop` of streams that have them, with a padding of 0."""
    first, shift = divmod(start, WORD)
    n = words_for(stop - start)
    if not shift:
        return contract.gate("mask", words[..., first : first + n], length=stop - start)
    return shifted(words[..., first : first + n], words[..., first + 1 : first + 1 + n], shift, stop - start)


@composed
def shifted(low: Any, high: Any, shift: int, length: int) -> Any:
    """Streams of `length` bits that begin `shift` bits on in the words of `low`, and go on in those of `high`.

    These are the words after those of `low`; the last is not there if no bit of it is needed.
    """
    out, carried, n = low >> np.uint64(shift), high << np.uint64(WORD - shift), high.shape[-1]
    if n < low.shape[-1]:
        out, last = out[..., :n], out[..., n:]
        return contract.gate("mask", concatenate(out | carried, last, axis=low.ndim - 1), length=length)
    return contract.gate("mask", out | carried, length=length)


def check_tail(packed: Any, length: int) -> Any:
    """The words themselves, once their padding is known to be 0.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int
        Length of a stream in bits.

    Raises
    ------
    BitstreamError
        If a bit at or past `length` is 1, or the length does not fit the words.
    """
    words = as_words(packed)
    return contract.check_tail(words, check_length(length, words.shape[-1]))


def mask_tail(packed: Any, length: int) -> Any:
    """The words with their padding cleared.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int
        Length of a stream in bits.

    Returns
    -------
    array of uint64, of the same shape

    Raises
    ------
    BitstreamError
        If the words are not uint64, or the length does not fit them.
    """
    words = as_words(packed)
    return contract.gate("mask", words, length=check_length(length, words.shape[-1]))

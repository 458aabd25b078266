"""Packing and unpacking of bits, and the padding after them."""

from __future__ import annotations

from typing import Any

from ..core import contract
from ..core.checks import as_bits, as_words, check_length, unpacked_shape


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

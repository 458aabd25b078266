"""Arithmetic, indices and transfers that each library does in its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_array
from ..core.contract import exactly, on_host
from ..core.dispatch import DASK, composed
from ..core.words import ONES

if TYPE_CHECKING:
    from collections.abc import Callable


@composed
def in_64_bits(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Call func(*arrays, **options) while the library of the arrays keeps 64 bits."""
    return func(*arrays, **options)


@composed
def divide(a: Any, b: Any) -> Any:
    """The quotient, rounded to the nearest float64."""
    return a / b


@composed
def largest(weights: Any) -> Any:
    """The largest |weight|, or 1 if all are 0."""
    return exactly(_largest, weights)


def _largest(weights: Any) -> Any:
    return or_one(abs(weights).max() if weights.size else np.float64(0))


def or_one(value: Any) -> Any:
    """The value, or 1 for 0."""
    return value + (value == 0)


@composed
def concatenate(*arrays: Any, axis: int = 0) -> Any:
    """The arrays, one after the other along an axis."""
    return np.concatenate(arrays, axis)


@composed
def along(func: Callable[..., Any], words: Any, axis: int, keeps: bool) -> Any:
    """func(words, axis=axis), whose result keeps that axis or lacks it; Dask blocks have it whole."""
    return func(words, axis=axis)


@composed
def broadcast_to(array: Any, shape: tuple[int, ...]) -> Any:
    """The array repeated to a shape that it is known to broadcast to."""
    return np.broadcast_to(array, shape)


@composed
def reshape(words: Any, shape: tuple[int, ...]) -> Any:
    """The streams in another shape that they fill; the last axis stays."""
    return words.reshape(shape)


@composed
def pad(array: Any, widths: tuple[tuple[int, int], ...]) -> Any:
    """The array with so many zeros before and after it along each axis."""
    return np.pad(array, widths)


@composed
def of_samples(func: Callable[..., Any], array: Any, shape: tuple[int, ...]) -> Any:
    """func(array, start), float64 with a shape for each sample; `start` is the number of the first sample.

    Samples are along the first axis. For Dask arrays each chunk of whole samples is a task.
    """
    return func(array, 0)


@composed
def resizable(array: Any) -> Any:
    """The array where kernels take any number of rows at once: on the host, if they are compiled for each shape."""
    return array


@composed
def filled(mask: Any, n_words: int) -> Any:
    """Words of only ones where a mask is true, of only zeros elsewhere."""
    return broadcast_to(mask.astype(np.uint64)[..., None] * ONES, (*mask.shape, n_words))


def plain_index(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index with all its arrays, except those of Dask, as NumPy arrays."""
    return tuple(
        on_host(as_array(part, "an index"))[()] if hasattr(part, "dtype") and not hasattr(part, "dask") else part
        for part in index
    )


def as_dask(array: Any, chunks: Any = None) -> Any:
    """The array as a Dask array with blocks of its own library, by default one block."""
    return DASK.load().as_dask(array, chunks)


def to_host(arr: Any) -> Any:
    """Bring an array back from a device as a NumPy array.

    Parameters
    ----------
    arr : array_like, cupy.ndarray, jax.Array, dask Array of such blocks, or Bitstream

    Returns
    -------
    ndarray, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype; read-only if it comes from JAX. A NumPy array is returned as it is.
    """
    if hasattr(type(arr), "map_words"):
        return arr.map_words(to_host)
    return arr if isinstance(arr, np.memmap | np.generic) else on_host(as_array(arr, "what comes from a device"))

"""Arithmetic, block by block."""

from __future__ import annotations

from functools import partial
from string import ascii_letters
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask import delayed

from ..core import contract
from ..errors import BitstreamError
from ..vector_ops import numbers
from .blocks import (
    aligned,
    axes_of,
    blockwise,
    in_chunk,
    is_numpy,
    like_blocks,
    matched,
    nothing,
    reduce_blocks,
    without_empty_chunks,
)
from .compat import ArraySliceDep
from .device import as_dask, implements
from .sizes import check_known

if TYPE_CHECKING:
    from collections.abc import Callable


@implements(contract.exactly)
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> da.Array:
    operands = [as_dask(a) for a in arrays]
    chunks, pairs = aligned(operands)
    axes = axes_of(max(operands, key=lambda a: a.ndim))
    each = matched(partial(contract.exactly, func, **options), operands)
    return blockwise("sc-scale", each, axes, *pairs, adjust_chunks=chunks, dtype=np.float64)


@implements(numbers.largest)
def largest(weights: da.Array) -> da.Array:
    most = partial(contract.exactly, _most)
    top = reduce_blocks("sc-largest", weights, most, most, most, axis=None, dtype=np.dtype(np.float64))
    return exactly(numbers.or_one, top)


def _most(weights: Any, axis: Any, keepdims: bool) -> Any:
    sizes = abs(weights)
    return (sizes.max if sizes.size else sizes.sum)(axis=axis, keepdims=keepdims)


@implements(numbers.concatenate)
def concatenate(*arrays: Any, axis: int = 0) -> da.Array:
    lazy = [without_empty_chunks(as_dask(array)) for array in arrays]
    if any(np.isnan(n) for array in lazy for i, n in enumerate(array.shape) if i != axis):
        raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
    like = next((array for array in lazy if not is_numpy(array._meta)), None)
    if like is not None:
        lazy = [like_blocks(array, like) if is_numpy(array._meta) else array for array in lazy]
    return da.concatenate(lazy, axis=axis, allow_unknown_chunksizes=True)


@implements(numbers.along)
def along(func: Callable[..., Any], words: da.Array, axis: int, keeps: bool) -> da.Array:
    whole = words if words.numblocks[axis] == 1 else words.rechunk({axis: -1})
    axes = axes_of(whole)
    left = axes if keeps else axes[:axis] + axes[axis + 1 :]
    each = partial(_along_block, partial(numbers.along, func, axis=axis, keeps=keeps))
    return blockwise("sc-along", each, left, whole, axes, dtype=words.dtype)


def _along_block(func: Callable[..., Any], block: Any) -> Any:
    if isinstance(block, list):  # Dask puts the block into a list if the axis is not in the result.
        (block,) = block
    return func(block)


@implements(numbers.of_samples)
def of_samples(func: Callable[..., Any], array: da.Array, shape: tuple[int, ...]) -> da.Array:
    check_known(array)
    whole = without_empty_chunks(array).rechunk(dict.fromkeys(range(1, array.ndim), -1))
    if 0 in array.shape:
        return nothing((array.shape[0], *shape), array)
    axes, new = "a" + ascii_letters[1 : array.ndim], ascii_letters[26 : 26 + len(shape)]
    return blockwise(
        "sc-samples",
        _samples_block,
        "a" + new,
        delayed(func, pure=True),  # so that a worker gets it once, and not with each task
        None,
        whole,
        axes,
        ArraySliceDep(whole.chunks[:1]),
        "a",
        new_axes=dict(zip(new, shape, strict=True)),
        concatenate=True,
        dtype=np.float64,
    )


def _samples_block(func: Callable[..., Any], block: Any, samples: tuple[slice]) -> Any:
    return in_chunk(func, samples, block, samples[0].start)


@implements(numbers.broadcast_to)
def broadcast_to(array: da.Array, shape: tuple[int, ...]) -> da.Array:
    known = (((1,),) * (len(shape) - array.ndim)) + array.chunks
    chunks = tuple(sizes if sum(sizes) == n else (n,) for sizes, n in zip(known, shape, strict=True))
    axes = ascii_letters[: len(shape)]
    adjusted = dict(zip(axes, chunks, strict=True))
    arrays = (array, axes[len(shape) - array.ndim :], ArraySliceDep(chunks), axes)
    return blockwise("sc-broadcast", _broadcast_block, axes, *arrays, adjust_chunks=adjusted, dtype=array.dtype)


def _broadcast_block(block: Any, region: tuple[slice, ...]) -> Any:
    return numbers.broadcast_to(block, tuple(along.stop - along.start for along in region))


@implements(numbers.filled)
def filled(mask: da.Array, n_words: int) -> da.Array:
    axes = ascii_letters[: mask.ndim + 1]
    fill = partial(numbers.filled, n_words=n_words)
    return blockwise("sc-where", fill, axes, mask, axes[:-1], new_axes={axes[-1]: n_words}, dtype=np.uint64)


@implements(numbers.reshape)
def reshape(words: da.Array, shape: tuple[int, ...]) -> da.Array:
    if 0 in shape:
        return nothing(shape, words)
    words = without_empty_chunks(words)
    try:
        return words.reshape(shape)
    except NotImplementedError:  # Dask merges axes or splits one.
        return words.reshape(-1, words.shape[-1]).reshape(shape)


@implements(contract.on_host)
def on_host(array: da.Array) -> da.Array:
    # This does not look at the meta, because some of Dask's functions lose a DeviceMeta.
    return array.map_blocks(contract.on_host, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype))

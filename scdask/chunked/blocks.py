"""Graphs of kernels over blocks: what all operations on Dask arrays are made of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np

from ..core.dispatch import BACKENDS, NUMPY, DeviceMeta, backend_of
from ..core.words import bits_in
from ..errors import BitstreamError
from ..vector_ops.numbers import concatenate, in_64_bits
from .compat import ArraySliceDep, meta_from_array, unify_chunks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SPLIT_EVERY = 16


def is_numpy(meta: Any) -> bool:
    """Whether blocks of this meta are NumPy arrays."""
    return isinstance(meta, np.ndarray | np.generic) and not isinstance(meta, DeviceMeta)


def meta_of(arrays: Iterable[Any], ndim: int, dtype: Any) -> Any:
    """An empty array of the library of the results, which is NumPy only where all blocks are NumPy arrays."""
    metas = [array._meta for array in arrays if isinstance(array, da.Array)]
    like = next((meta for meta in metas if not is_numpy(meta)), metas[0])
    return in_64_bits(partial(meta_from_array, ndim=ndim, dtype=dtype), like)


def blockwise(kind: str, func: Callable[..., Any], out: str, *args: Any, dtype: Any, **kwargs: Any) -> da.Array:
    """`da.blockwise` over arrays whose chunks agree, with our task name and no trial run for the meta."""
    meta = meta_of(args, len(out), dtype)
    return da.blockwise(func, out, *args, token=kind, dtype=dtype, meta=meta, align_arrays=False, **kwargs)


def axes_of(array: Any) -> str:
    """A letter for each axis, counted from the last one, so that "z" is always the axis of words."""
    return "abcdefghijklmnopqrstuvwxyz"[26 - array.ndim :]


def in_chunk(func: Callable[..., Any], region: tuple[slice, ...], *args: Any, **kwargs: Any) -> Any:
    """Call a function on a block, so that its errors say where the block is."""
    try:
        return func(*args, **kwargs)
    except BitstreamError as error:
        chunk = ", ".join(f"{along.start}:{along.stop}" for along in region)
        raise BitstreamError(f"{error} in the chunk [{chunk}]") from None


def joined(block: Any, axis: int) -> Any:
    """The blocks along an axis as one; Dask nests them in lists, one for each axis that is not in the result.

    Told to concatenate them itself, it would copy a single block too.
    """
    if not isinstance(block, list):
        return block
    blocks = [joined(part, axis) for part in block]
    return concatenate(*blocks, axis=axis) if len(blocks) > 1 else blocks[0]


def check_block(block: Any, region: tuple[slice, ...]) -> None:
    """Raise unless a block has the shape that Dask was told."""
    promised = tuple(along.stop - along.start for along in region)
    if block.shape != promised:
        raise BitstreamError(f"a block has the shape {block.shape}, but the Dask array says {promised}")


def compute_once(array: da.Array) -> da.Array:
    """The array with tasks that Dask does not fuse into each task that uses them, where they would run again."""
    (done,) = dask.optimize(array)
    return done


def aligned(arrays: list[da.Array]) -> tuple[dict[str, tuple[int, ...]], list[Any]]:
    """The chunks of each axis of the arrays' broadcast, and the aligned arrays, each followed by its axes."""
    chunks, found = unified(*((a, axes_of(a)) for a in arrays))
    return chunks, [x for a in found for x in (a, axes_of(a))]


def without_empty_chunks(array: da.Array) -> da.Array:
    """The array without chunks of length 0 beside others."""
    if all(0 not in sizes or len(sizes) == 1 for sizes in array.chunks):
        return array
    return array.rechunk({axis: tuple(filter(None, sizes)) or (0,) for axis, sizes in enumerate(array.chunks)})


def unified(*pairs: tuple[da.Array, str]) -> tuple[dict[str, tuple[int, ...]], list[da.Array]]:
    """`unify_chunks` of arrays and their axes, for chunks without streams and of unknown lengths too.

    Dask takes chunks (0, 1) for those of an axis that broadcasts: chunks without streams are left out.
    """
    pairs = tuple((without_empty_chunks(array), axes) for array, axes in pairs)
    for group in _unknown(*pairs):
        ends = [pairs[i][0].chunks[axis] for i, axis in group]
        if not np.isnan([sum(sizes) for sizes in ends]).all() or len(set(map(len, ends))) > 1:
            raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
    chunks, arrays = unify_chunks(*(x for pair in pairs for x in pair))
    return chunks, arrays


def _unknown(*pairs: tuple[da.Array, str]) -> list[list[tuple[int, int]]]:
    """The axes whose length is not known: for each those of the arrays, by their numbers, that do not broadcast it."""
    groups: dict[str, list[tuple[int, int]]] = {}
    for i, (array, axes) in enumerate(pairs):
        for axis, name in enumerate(axes):
            if array.shape[axis] != 1:
                groups.setdefault(name, []).append((i, axis))
    return [group for group in groups.values() if any(np.isnan(pairs[i][0].shape[axis]) for i, axis in group)]


def matched(func: Callable[..., Any], arrays: list[da.Array]) -> Callable[..., Any]:
    """The function of a block of each array, which first compares the lengths that only the blocks know."""
    groups = [group for group in _unknown(*((a, axes_of(a)) for a in arrays)) if len(group) > 1]
    return partial(_matched, func, groups) if groups else func


def _matched(func: Callable[..., Any], groups: list[list[tuple[int, int]]], *blocks: Any, **kwargs: Any) -> Any:
    for group in groups:
        lengths = {blocks[i].shape[axis]: None for i, axis in group}
        if len(lengths) > 1:
            raise BitstreamError(f"chunks of {' and '.join(map(str, lengths))} streams do not combine")
    return func(*blocks, **kwargs)


def like_blocks(array: da.Array, other: da.Array) -> da.Array:
    """Convert the NumPy blocks of an array to the library of another array's blocks."""
    meta = meta_of([other], array.ndim, array.dtype)
    backend = backend_of(meta) or NUMPY
    return array.map_blocks(_block_of, dtype=array.dtype, meta=meta, backend=backend.name)


def _block_of(block: Any, backend: str) -> Any:
    return BACKENDS[backend].from_numpy(block)


def nothing(shape: tuple[int, ...], like: da.Array) -> da.Array:
    """An array of a shape that holds no element, with a block of the library of another array's blocks."""
    empty = da.zeros(shape, dtype=like.dtype, chunks=-1)
    return empty if is_numpy(like._meta) else like_blocks(empty, like)


def word_regions(packed: da.Array) -> Iterator[slice]:
    """The range of words that each chunk along the last axis holds."""
    stop = 0
    for n in packed.chunks[-1]:
        start, stop = stop, stop + n
        yield slice(start, stop)


def over_words(
    kind: str,
    func: Callable[..., Any],
    operands: list[Any],
    length: int,
    dtype: Any,
    adjust_chunks: dict[str, tuple[int, ...]] | None = None,
) -> da.Array:
    """Call `func(*blocks, length)` for all blocks, where `length` is the number of a stream's bits in the block."""
    axes = axes_of(max(operands, key=lambda a: a.ndim))
    chunks, pairs = aligned(operands)
    return blockwise(
        kind,
        partial(_length_block, func),
        axes,
        ArraySliceDep(tuple(chunks[axis] for axis in axes)),
        axes,
        *pairs,
        length=length,
        adjust_chunks=chunks | (adjust_chunks or {}),
        dtype=dtype,
    )


def _length_block(func: Callable[..., Any], region: tuple[slice, ...], *blocks: Any, length: int) -> Any:
    return in_chunk(func, region, *blocks, bits_in(region[-1].start, region[-1].stop, length))


def sum_blocks(kind: str, array: da.Array, chunk: Callable[..., Any], axis: Any, total: int | None = None) -> da.Array:
    """Sum what `chunk` makes of each block over `axis` in a tree; with `total`, the result is total - sum."""
    axes = tuple(range(array.ndim) if axis is None else np.atleast_1d(axis).tolist())
    aggregate = partial(add, total=total)
    if all(array.numblocks[a] == 1 for a in axes):  # The task that counts a single block can finish it.
        names = axes_of(array)
        kept = "".join(name for a, name in enumerate(names) if a not in axes)
        return blockwise(kind, partial(_sum_block, chunk, aggregate, axes), kept, array, names, dtype=np.int64)
    return reduce_blocks(
        kind,
        array,
        chunk,
        add,
        aggregate,
        axis=axis,
        dtype=np.dtype(np.int64),
        split_every=SPLIT_EVERY if axis is None else dict.fromkeys(axes, SPLIT_EVERY),
    )


def reduce_blocks(
    kind: str, array: da.Array, chunk: Callable[..., Any], combine: Any, aggregate: Any, *, axis: Any, **kwargs: Any
) -> da.Array:
    """`da.reduction` with our task name and meta; as it changes the dtype of the meta, JAX must keep 64 bits."""
    reduce = partial(da.reduction, array, chunk=chunk, combine=combine, aggregate=aggregate, axis=axis, **kwargs)
    meta = meta_of([array], 0 if axis is None else array.ndim - np.size(axis), kwargs["dtype"])
    return in_64_bits(lambda meta: reduce(name=kind, meta=meta), meta)


def _sum_block(chunk: Callable[..., Any], aggregate: Callable[..., Any], axes: tuple[int, ...], block: Any) -> Any:
    while isinstance(block, list):  # Dask puts the block into a list for each axis that is summed.
        (block,) = block
    return aggregate(chunk(block, axis=axes, keepdims=True), axis=axes, keepdims=False)


def _sum(counts: Any, axis: Any, keepdims: bool, total: int | None = None) -> Any:
    ones = counts.sum(axis=axis, keepdims=keepdims)
    return ones if total is None else total - ones


add = partial(in_64_bits, _sum)


def as_they_are(counts: Any, axis: Any, keepdims: bool) -> Any:
    """The counts of a block themselves, where they only have to be added up."""
    return counts

"""Indexing by NumPy's rules, which Dask follows in part: an index is taken to pieces that both understand alike."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np

from ..core import contract
from ..errors import BitstreamError
from ..vector_ops import numbers
from .blocks import is_numpy, like_blocks, nothing
from .device import implements

ALL = slice(None)
UNKNOWN = 2**31 - 1  # stands for the length of an axis that is not known


@implements(contract.pick)
def pick(words: da.Array, index: tuple[Any, ...]) -> da.Array:
    parts = [_simple(part) for part in numbers.plain_index(index)]
    arrays = [part for part in parts if isinstance(part, np.ndarray | da.Array)]
    if len(arrays) > 1 and any(isinstance(part, da.Array) for part in arrays):
        raise BitstreamError("a lazy array is an index beside slices and integers, not beside other arrays: compute it")
    _refuse(words.shape, parts)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = [..., *[ALL] * (words.ndim - sum(map(_axes, parts)))]

    basic: list[Any] = []  # a slice or an integer for each axis of the words
    left = 0  # axes that they leave
    kept: list[int | None] = []  # those that no array picks from, and None for new ones
    picks: list[tuple[int, Any]] = []  # the others, with the arrays
    shapes: list[tuple[int, ...]] = []
    places: list[int] = []  # where the index has arrays or integers
    put = 0  # how many axes come before those of the arrays
    for place, part in enumerate(parts):
        if part is None or part is Ellipsis:  # Also an Ellipsis of no axes parts arrays from each other.
            kept += [None] * (part is None)
            continue
        n = _axes(part)
        lengths = words.shape[len(basic) : len(basic) + n]
        if isinstance(part, slice):
            kept.append(left)
            basic.append(_within(part, *lengths))
            left += 1
            continue
        put = put if places else len(kept)
        places.append(place)
        if isinstance(part, int):
            basic.append(part + (part < 0) * _known(*lengths))
            continue
        if isinstance(part, da.Array):
            picks.append((left, _lazy_index(part, lengths)))
        elif part.dtype == np.bool:
            _known(*lengths)
            indices = np.atleast_1d(part).nonzero()
            shapes.append(indices[0].shape)
            picks += [(left + i, along) for i, along in enumerate(indices[:n])]
        else:
            shapes.append(part.shape)
            picks.append((left, part.astype(np.intp) % max(1, _known(*lengths))))
        basic += [ALL] * n
        left += n
    found = words[tuple(basic)]
    if len(arrays) == 0:
        return found[tuple(None if axis is None else ALL for axis in kept)]
    if any(b - a > 1 for a, b in pairwise(places)):
        put = 0
    if isinstance(arrays[0], da.Array):
        return _placed(*_gathered_lazily(found, *picks[0]), kept, put)
    return _placed(*_gathered(found, picks, np.broadcast_shapes(*shapes)), kept, put)


def _simple(part: Any) -> Any:
    """A part of an index as None, an Ellipsis, a slice, an int or an array."""
    if part is None or part is Ellipsis or isinstance(part, slice | da.Array):
        return part
    found = np.asarray(part)
    if found.ndim == 0 and found.dtype.kind in "iu":
        return int(found)
    return found if found.size or hasattr(part, "dtype") else found.astype(np.intp)


def _axes(part: Any) -> int:
    """The number of axes that a part of an index stands for."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if hasattr(part, "dtype") and part.dtype == np.bool else 1


def _refuse(shape: tuple[int, ...], parts: list[Any]) -> None:
    """Let NumPy say what is wrong with an index, for an array whose elements take no memory."""
    probe = np.empty((*(UNKNOWN if np.isnan(n) else n for n in shape[:-1]), 0), np.bool)
    index = tuple(stand_in for part in parts for stand_in in _stand_ins(part))
    try:
        probe[index]
    except IndexError as error:
        if str(UNKNOWN) not in str(error):
            raise
        _known(math.nan)


def _stand_ins(part: Any) -> list[Any]:
    """The part of an index itself; for a lazy array, whose values are not known, arrays without any."""
    if not isinstance(part, da.Array):
        return [part]
    return [np.zeros(0, np.intp if part.dtype == np.bool else part.dtype)] * _axes(part)


def _known(*lengths: float) -> int:
    """The length of an axis, once those of all are known."""
    if np.isnan(lengths).any():
        raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() before indexing")
    return int(lengths[0]) if lengths else 0


def _within(part: slice, n: float) -> slice:
    """The slice with ends that are inside the axis, where Dask and NumPy agree."""
    if part == ALL:
        return part
    along = range(_known(n))[part]
    if len(along) < 2:  # A step may be too large for the library of the blocks.
        return slice(along.start, along.start + 1) if along else slice(0, 0)
    return slice(along.start, None if along.stop < 0 else along.stop, along.step)


def _lazy_index(index: da.Array, lengths: tuple[float, ...]) -> da.Array:
    """A lazy array of integers that are checked when they are there, or a mask that fits the axes."""
    if index.dtype != np.bool:
        check = partial(_checked, n=_known(*lengths))
        return index.map_blocks(check, dtype=np.intp, meta=np.empty((0,) * index.ndim, np.intp))
    if not index.ndim:
        raise BitstreamError("a lazy mask has an axis or more: compute one that has none")
    for axis, (n, size) in enumerate(zip(lengths, index.shape, strict=True)):
        if index.ndim > 1 or np.isnan(n) != np.isnan(size):
            _known(n, size)
        if n != size and not np.isnan(n):
            raise IndexError(f"a mask of shape {index.shape} does not fit streams of {n} along its axis {axis}")
    return index


def _checked(index: Any, n: int) -> Any:
    index = index.astype(np.intp)
    wrong = index[(index < -n) | (index >= n)]
    if wrong.size:
        raise IndexError(f"index {wrong.flat[0]} is out of bounds for an axis of {n} streams")
    return index % max(1, n)


def _taken(words: da.Array, axis: int, index: Any) -> da.Array:
    """The words at an index of one axis, which is an array, along one axis of theirs."""
    if is_numpy(words._meta):
        return words[(ALL,) * axis + (index,)]
    # Dask gathers with np.take, which JAX refuses, and in which CuPy wraps indices around.
    return like_blocks(contract.on_host(words)[(ALL,) * axis + (index,)], words)


def _gathered_lazily(words: da.Array, axis: int, index: da.Array) -> tuple[da.Array, int, int]:
    """What a lazy array picks, where its axes begin, and how many they are."""
    before, after = words.shape[:axis], words.shape[axis + _axes(index) :]
    if index.dtype == np.bool:
        if index.ndim > 1:
            words, index = numbers.reshape(words, (*before, index.size, *after)), index.ravel()
        return _taken(words, axis, index), axis, 1
    picked = _taken(words, axis, index.ravel())
    if index.ndim == 0:
        picked = picked[(ALL,) * axis + (0,)]
    if index.ndim > 1:
        picked = numbers.reshape(picked, (*before, *index.shape, *after))
    return picked, axis, index.ndim


def _gathered(words: da.Array, picks: list[tuple[int, Any]], shape: tuple[int, ...]) -> tuple[da.Array, int, int]:
    """What arrays that broadcast to a shape pick, where their axes begin, and how many they are."""
    if not picks:
        return words[None][: shape[0]], 0, 1
    axes = [axis for axis, _ in picks]
    others = tuple(n for axis, n in enumerate(words.shape) if axis not in axes)
    if 0 in shape:
        return nothing((*shape, *others), words), 0, len(shape)
    if len(picks) == 1:
        ((axis, index),) = picks
        picked = _taken(words, axis, np.broadcast_to(index, shape).ravel())
        if len(shape) > 1:
            picked = numbers.reshape(picked, (*others[:axis], *shape, *others[axis:]))
        return picked, axis, len(shape)
    index = [ALL] * words.ndim
    for axis, along in picks:
        index[axis] = np.broadcast_to(along, shape)
    if is_numpy(words._meta):
        return words.vindex[tuple(index)], 0, len(shape)
    return like_blocks(contract.on_host(words).vindex[tuple(index)], words), 0, len(shape)


def _placed(words: da.Array, begin: int, n: int, kept: list[int | None], put: int) -> da.Array:
    """The words with the axes of the arrays after the first `put` others, and with the new axes."""
    here = list(range(begin, begin + n))
    others = iter([axis for axis in range(words.ndim) if axis not in here])
    order: list[int | None] = [None if axis is None else next(others) for axis in kept]
    order[put:put] = here
    axes = [axis for axis in order if axis is not None]
    if axes != sorted(axes):
        words = words.transpose(axes)
    return words[tuple(None if axis is None else ALL for axis in order)]

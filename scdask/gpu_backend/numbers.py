"""Arithmetic and indexing, by NumPy's rules."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..vector_ops.numbers import plain_index
from ..vector_ops.products import brought_together as brought_together_of
from .device import cupy, implements, to_device

if TYPE_CHECKING:
    from collections.abc import Callable


@implements(brought_together_of)
def brought_together(weights: Any, inputs: Any) -> tuple[Any, Any]:
    return to_device(weights), to_device(inputs)


@implements(contract.exactly)
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    return func(*(to_device(array) if isinstance(array, np.ndarray) else array for array in arrays), **options)


@implements(contract.pick)
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    known = plain_index(index)
    np.broadcast_to(False, words.shape)[known]  # This raises an IndexError where CuPy would wrap around.
    return words[tuple(chain.from_iterable(map(_index_arrays, known)))]


def _index_arrays(part: Any) -> list[Any]:
    """An index in the form that CuPy takes: arrays are on the device, and a mask becomes arrays of integers."""
    if not isinstance(part, np.ndarray | list):
        return [part]
    found = np.asarray(part)
    if found.dtype == np.bool and found.ndim:
        return [cupy.asarray(indices) for indices in found.nonzero()]
    return [cupy.asarray(found.astype(np.intp))]

"""Arithmetic, block by block."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..vector_ops import numbers
from .blocks import aligned, axes_of, blockwise, matched, reduce_blocks
from .device import as_dask, implements

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da


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


@implements(contract.on_host)
def on_host(array: da.Array) -> da.Array:
    # This does not look at the meta, because some of Dask's functions lose a DeviceMeta.
    return array.map_blocks(contract.on_host, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype))

"""Gates, block by block."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..vector_ops.gates import gate as gate_words
from .blocks import aligned, axes_of, blockwise, matched, over_words
from .device import as_dask, implements

if TYPE_CHECKING:
    import dask.array as da


@implements(contract.gate)
def gate(kind: str, *operands: Any, length: int | None = None) -> da.Array:
    arrays = [as_dask(operand) for operand in operands]
    if length is not None:
        return over_words(f"sc-{kind}", matched(partial(_gate_block, kind), arrays), arrays, length, np.uint64)
    chunks, pairs = aligned(arrays)
    axes = axes_of(max(arrays, key=lambda a: a.ndim))
    each = matched(partial(gate_words, kind), arrays)
    return blockwise(f"sc-{kind}", each, axes, *pairs, adjust_chunks=chunks, dtype=np.uint64)


def _gate_block(kind: str, *words_and_length: Any) -> Any:
    *words, length = words_and_length
    return gate_words(kind, *words, length=length)

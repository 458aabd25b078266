"""Multiply-accumulate: a product for each pair of blocks, and a tree that adds the products up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_words, check_mac
from .blocks import as_they_are, blockwise, compute_once, sum_blocks, unified
from .device import as_dask, implements

if TYPE_CHECKING:
    import dask.array as da

    from ..core.words import MacGate


@implements(contract.gate_counts)
def gate_counts(weights: Any, inputs: Any, gate: MacGate, total: int | None = None) -> da.Array:
    weights, inputs = as_dask(weights), as_dask(inputs)
    batch = "b" if inputs.ndim == 3 else ""
    _, (weights, inputs) = unified((weights, "nik"), (inputs, batch + "ik"))
    if batch and inputs.numblocks[0] > 1:
        weights = compute_once(weights)
    if weights.numblocks[0] > 1:
        inputs = compute_once(inputs)
    counts = blockwise(
        "sc-mac",
        _mac_block,
        batch + "nik",
        weights,
        "nik",
        inputs,
        batch + "ik",
        gate=gate,
        adjust_chunks={"i": 1, "k": 1},
        dtype=np.int64,
    )
    return sum_blocks("sc-mac", counts, as_they_are, (counts.ndim - 2, counts.ndim - 1), total)


def _mac_block(weights: Any, inputs: Any, gate: MacGate) -> Any:
    weights, inputs = as_words(weights), as_words(inputs)
    check_mac(weights, inputs, "and", None)
    return contract.gate_counts(weights, inputs, gate)[..., None, None]

"""Multiply-accumulate: a binary matrix product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..core import contract
from ..core.llvm import shuffled_bytes
from . import mac_blocks, mac_tables
from .device import implements

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words
    from ..core.words import MacGate


@implements(contract.gate_counts)
def gate_counts(weights: Words, inputs: Words, gate: MacGate, total: int | None = None) -> NDArray[np.int64]:
    batch = inputs if inputs.ndim == 3 else inputs[None]
    counts = np.zeros((len(batch), len(weights)), np.int64)
    if counts.size and weights.size:
        mac(batch, weights, gate == "xnor", counts)
    if total is not None:
        np.subtract(total, counts, out=counts)
    return counts if inputs.ndim == 3 else counts[0]


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of row b of x AND (or XOR) row n of w, of w (neurons, inputs, words).

    x is (batch, inputs, words), or windows (batch, rows, columns, kernel rows, kernel columns, channels, words), which
    are numbered in C order. The operands may have any strides, and any alignment, like arrays that Dask receives from
    another worker.
    """
    by = mac_tables if shuffled_bytes() and mac_tables.pays(len(out), len(w), w[0].size) else mac_blocks
    by.mac(x, w, xor, out)

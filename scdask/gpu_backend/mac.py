"""Multiply-accumulate: on the 1-bit tensor cores where there are many rows, else by popcounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from .counting import stream_ones
from .device import cupy, implements
from .launch import NULL, launch, multiprocessors, properties

if TYPE_CHECKING:
    from ..core.words import MacGate

FEW_ROWS = 4  # With up to this many rows, a MAC without tensor cores is as fast as memory.
TENSOR_TILE = 128  # rows of both operands in a block of the tensor-core kernel
LONGEST_PART = 2**24  # most words of a row whose counts fit 32 bits in every thread
PART_ALIGNMENT = 8  # words of which the length of a part is a multiple


@implements(contract.gate_counts)
def gate_counts(weights: Any, inputs: Any, gate: MacGate, total: int | None = None) -> Any:
    width = weights.shape[1] * weights.shape[2]
    shape = (*inputs.shape[:-2], len(weights))
    if not width or 0 in shape:
        counts = cupy.zeros(shape, np.int64)
    else:
        w, x = (cupy.ascontiguousarray(cupy.asarray(words)).reshape(-1, width) for words in (weights, inputs))
        tensor_cores = min(len(w), len(x)) > FEW_ROWS and properties(cupy.cuda.Device().id)[1]
        counts = _mac(x, w, gate == "xnor", tensor_cores).reshape(shape)
    return counts if total is None else total - counts


def _mac(x: Any, w: Any, xor: bool, tensor_cores: bool) -> Any:
    """The counts (rows of x, rows of w) of AND or XOR of rows of words."""
    (rows_x, width), rows_w = x.shape, len(w)
    if tensor_cores:
        tiles, threads = -(-rows_x // TENSOR_TILE) * -(-rows_w // TENSOR_TILE), 256
        parts, part_words = _parts(width, tiles, 2 * multiprocessors(), 128)
    else:
        rows = 1 if rows_x == 1 else 4
        tiles, threads = -(-rows_x // rows) * -(-rows_w // 4), 128
        parts, part_words = _parts(width, tiles, 8 * multiprocessors(), 1024)
    counts = (cupy.empty if parts == 1 else cupy.zeros)((rows_x, rows_w), np.int64)
    pairs = width % 2 == 0 and all(words.data.ptr % 16 == 0 for words in (x, w))
    operands = (x, rows_x, w, rows_w, width, parts, part_words)
    if tensor_cores:
        ones = [stream_ones(words) if xor else NULL for words in (x, w)]
        name, last = f"mac_tensor_{16 if pairs else 8}", (*ones, counts)
    else:
        name, last = f"mac_tile_{rows}_{2 if pairs else 1}", (np.int32(xor), counts)
    launch(name, min(tiles * parts, 2**30), threads, *operands, *last)
    return counts


def _parts(width: int, tiles: int, blocks: int, shortest: int) -> tuple[int, int]:
    """The parts of a row, and the words of each, so that `blocks` blocks have work and no count overflows."""
    wanted = max(1, min(blocks // tiles, width // shortest), -(-width // LONGEST_PART))
    part_words = -(-width // wanted)
    part_words = -(-part_words // PART_ALIGNMENT) * PART_ALIGNMENT
    return -(-width // part_words), part_words

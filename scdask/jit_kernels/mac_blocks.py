"""Multiply-accumulate in blocks of rows and register tiles, whatever the strides of the operands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import int64

from ..core.llvm import (
    LANES,
    address_of,
    compiled,
    copy_far_words,
    copy_word,
    empty_words,
)
from .mac_tiles import add_tiles

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core.llvm import Words


@compiled
def gather(source, strides, rows, n_words, first, size, block, filled):
    """Copy `size` words, from `first` on, of rows of any strides to rows of a block, with 0 up to `filled` words."""
    block_row = 8 * block.shape[1]
    if size >= LANES and strides[2] == 8 and strides[1] == 8 * n_words:
        for r in range(rows):
            copy_far_words(block.ctypes.data + r * block_row, source + r * strides[0] + 8 * first, size)
    else:
        for start in range(0, rows, 64):
            target = block.ctypes.data + start * block_row
            here = source + start * strides[0]
            some = min(64, rows - start)
            for j in range(first, first + size):
                word = here + j // n_words * strides[1] + j % n_words * strides[2]
                for r in range(some):
                    copy_word(target + r * block_row, word + r * strides[0])
                target += 8
    for r in range(rows):
        for j in range(size, filled):
            block[r, j] = 0


@compiled
def _mac_uncopied(x, x_row, w, w_row, width, xor, out):
    batch, neurons = out.shape
    first = 0
    while first < width:
        size = min(8192, width - first)
        if width - first - size < LANES:  # A tile takes at least eight words.
            size = width - first
        here, xb, wn = int64(out.ctypes.data), x + 8 * first, w + 8 * first
        add_tiles(xor, xb, x_row, batch, wn, w_row, neurons, size, here, 8 * neurons)
        first += size


@compiled
def _mac_in_blocks(x, x_strides, w, w_strides, n_words, width, xor, x_block, w_block, out):
    batch, neurons = out.shape
    group, panel, longest = len(x_block), len(w_block), x_block.shape[1] - LANES
    x_row, w_row = 8 * x_block.shape[1], 8 * w_block.shape[1]
    for b in range(0, batch, group):
        rows = min(group, batch - b)
        for first in range(0, width, longest):
            size = min(longest, width - first)
            gather(x + b * x_strides[0], x_strides, rows, n_words, first, size, x_block, LANES)
            for n in range(0, neurons, panel):
                columns = min(panel, neurons - n)
                gather(w + n * w_strides[0], w_strides, columns, n_words, first, size, w_block, LANES)
                xb, wn, most = int64(x_block.ctypes.data), int64(w_block.ctypes.data), max(size, LANES)
                here = int64(out.ctypes.data) + 8 * (b * neurons + n)
                add_tiles(xor, xb, x_row, rows, wn, w_row, columns, most, here, 8 * neurons)


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of x[b] AND (or XOR) w[n]; x (batch, inputs, words), w (neurons, inputs, words).

    The operands may have any strides, and any alignment, like arrays that Dask receives from another worker. Blocks of
    them are copied, so that tiles find them aligned and in the first-level cache. Where one operand has few rows they
    are not, because copying would cost more than it saves.
    """
    _, n_inputs, n_words = w.shape
    width = n_inputs * n_words
    x_at, w_at = (address_of(a) if a.flags.carray else a.ctypes.data for a in (x, w))
    x_strides, w_strides = x.strides, w.strides
    whole_rows = x_strides[1:] == w_strides[1:] == (8 * n_words, 8)
    if whole_rows and width >= LANES and min(len(x), len(w)) <= 12:
        _mac_uncopied(x_at, x_strides[0], w_at, w_strides[0], width, xor, out)
        return
    panel = 64 if w_strides[0] == 8 else 4  # In Fortran order neighbouring rows lie side by side.
    row = max(LANES, min(512, width)) + LANES  # The gap keeps rows from falling on the same lines of the cache.
    group = min(128, len(x))
    blocks = empty_words((group + panel, row))
    x_block, w_block = blocks[:group], blocks[group:]
    _mac_in_blocks(x_at, x_strides, w_at, w_strides, n_words, width, xor, x_block, w_block, out)

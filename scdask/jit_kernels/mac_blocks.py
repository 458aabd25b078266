"""Multiply-accumulate in blocks of rows and register tiles, whatever the strides of the operands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
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
    from numpy.typing import NDArray

    from ..core.llvm import Words


@compiled
def offsets(shape, strides):
    """Where the elements of three axes are, in C order."""
    found = np.empty(shape[0] * shape[1] * shape[2], np.int64)
    n = 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            at = i * strides[0] + j * strides[1]
            for _ in range(shape[2]):
                found[n] = at
                n += 1
                at += strides[2]
    return found


@compiled
def located(address, shape, strides, run_shape, run_strides, run_words, word_stride):
    """An operand of `operand_of` with the offset of each row, and of each run of its words."""
    return address, offsets(shape, strides), offsets(run_shape, run_strides), run_words, word_stride


@compiled
def gather(operand, start, rows, first, size, block, filled):
    """Copy `size` words, from `first` on, of rows of an operand to rows of a block, with 0 up to `filled` words."""
    address, row_offsets, runs, run_words, word_stride = operand
    block_row = 8 * block.shape[1]
    target = int64(block.ctypes.data)
    near = word_stride == 8 and run_words >= LANES
    last = first + size
    while first < last:
        run, at = first // run_words, first % run_words
        some = min(run_words - at, last - first) if near else last - first
        if near and some >= LANES:
            source = address + runs[run] + 8 * at
            for r in range(rows):
                copy_far_words(target + r * block_row, source + row_offsets[start + r], some)
        else:
            for begin in range(0, rows, 64):
                for j in range(some):
                    word = address + runs[(first + j) // run_words] + (first + j) % run_words * word_stride
                    for r in range(begin, min(begin + 64, rows)):
                        copy_word(target + r * block_row + 8 * j, word + row_offsets[start + r])
        first += some
        target += 8 * some
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
def _mac_in_blocks(x, w, width, xor, x_block, w_block, out):
    batch, neurons = out.shape
    x_at, w_at = located(*x), located(*w)
    group, panel, longest = len(x_block), len(w_block), x_block.shape[1] - LANES
    x_row, w_row = 8 * x_block.shape[1], 8 * w_block.shape[1]
    for b in range(0, batch, group):
        rows = min(group, batch - b)
        for first in range(0, width, longest):
            size = min(longest, width - first)
            gather(x_at, b, rows, first, size, x_block, LANES)
            for n in range(0, neurons, panel):
                columns = min(panel, neurons - n)
                gather(w_at, n, columns, first, size, w_block, LANES)
                xb, wn, most = int64(x_block.ctypes.data), int64(w_block.ctypes.data), max(size, LANES)
                here = int64(out.ctypes.data) + 8 * (b * neurons + n)
                add_tiles(xor, xb, x_row, rows, wn, w_row, columns, most, here, 8 * neurons)


def operand_of(array: Words) -> tuple[Any, ...]:
    """An operand of a MAC as kernels take it: its address, and three axes of rows, which have three of runs of words.

    Words at equal distances are a run. The array is of rows (rows, inputs, words), or of windows (batch, rows, columns,
    kernel rows, kernel columns, channels, words), whose channels are contiguous.
    """
    address = address_of(array) if array.flags.carray else array.ctypes.data
    if array.ndim == 7:
        _, _, _, *taps, channels, n_words = array.shape
        shape, strides = array.shape[:3], array.strides[:3]
        size, steps = channels * n_words, array.strides[3:5]
        if steps[1] == 8 * size:
            return address, shape, strides, (1, 1, taps[0]), (0, 0, steps[0]), taps[1] * size, 8
        return address, shape, strides, (1, *taps), (0, *steps), size, 8
    (rows, n_inputs, n_words), (row, step, word) = array.shape, array.strides
    shape, strides = (1, 1, rows), (0, 0, row)
    if n_words == 1 or step == word * n_words:
        return address, shape, strides, (1, 1, 1), (0, 0, 0), n_inputs * n_words, step // n_words
    return address, shape, strides, (1, 1, n_inputs), (0, 0, step), n_words, word


def mac(x: Words, w: Words, xor: bool, out: NDArray[np.int64]) -> None:
    """out[b, n] += ones of row b of x AND (or XOR) row n of w, of operands as `mac.mac` has them.

    Blocks of the operands are copied, so that tiles find them aligned and in the first-level cache. Where one operand
    has few rows they are not, because copying would cost more than it saves.
    """
    _, n_inputs, n_words = w.shape
    width = n_inputs * n_words
    whole_rows = x.strides[1:] == w.strides[1:] == (8 * n_words, 8)
    if whole_rows and width >= LANES and min(len(x), len(w)) <= 12:
        x_at, w_at = (address_of(a) if a.flags.carray else a.ctypes.data for a in (x, w))
        _mac_uncopied(x_at, x.strides[0], w_at, w.strides[0], width, xor, out)
        return
    panel = 64 if w.strides[0] == 8 else 4  # In Fortran order neighbouring rows lie side by side.
    row = max(LANES, min(512, width)) + LANES  # The gap keeps rows from falling on the same lines of the cache.
    group = min(128, len(out))
    blocks = empty_words((group + panel, row))
    _mac_in_blocks(operand_of(x), operand_of(w), width, xor, blocks[:group], blocks[group:], out)

"""Gates: one kernel for all of them, over operands that broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core import contract
from ..core.words import ONES, tail_mask
from .device import cupy, implements
from .launch import KINDS, NULL, launch_over

LEADING_AXES = 3  # axes before that of the words that the kernel takes


@implements(contract.gate)
def gate(kind: str, *operands: Any, length: int | None = None) -> Any:
    operands = tuple(cupy.ascontiguousarray(cupy.asarray(words)) for words in operands)
    shape = np.broadcast_shapes(*(words.shape for words in operands))
    last = ONES if length is None else tail_mask(length)
    out = cupy.empty(shape, np.uint64)
    if not out.size:
        return out
    axes = _merged_axes(operands, shape, last == ONES)
    if len(axes) > LEADING_AXES + 1:
        operands = tuple(cupy.ascontiguousarray(cupy.broadcast_to(words, shape)) for words in operands)
        axes = _merged_axes(operands, shape, last == ONES)
    *leading, (n_words, _) = axes
    leading += [(1, (0,) * len(operands))] * (LEADING_AXES - len(leading))
    sources: list[Any] = []
    for i, words in enumerate(operands):
        sources += [words, *(steps[i] for _, steps in leading)]
    sources += [NULL, 0, 0, 0] * (3 - len(operands))
    lengths = [n for n, _ in leading]
    launch_over("gate", out.size, np.int32(KINDS.index(kind)), *sources, *lengths, n_words, last, out)
    return out


def _merged_axes(
    operands: tuple[Any, ...], shape: tuple[int, ...], with_words: bool
) -> list[tuple[int, tuple[int, ...]]]:
    """The axes as (length, steps in words of each operand); axes that are one axis in all operands are merged."""
    merged = [(shape[-1], (1,) * len(operands))]
    for axis in range(2, len(shape) + 1):
        n = shape[-axis]
        steps = tuple(
            words.strides[-axis] // 8 if words.ndim >= axis and words.shape[-axis] > 1 else 0 for words in operands
        )
        inner, inner_steps = merged[0]
        if n == 1:
            continue
        if steps == tuple(inner * step for step in inner_steps) and (len(merged) > 1 or with_words):
            merged[0] = (n * inner, inner_steps)
        else:
            merged.insert(0, (n, steps))
    return merged

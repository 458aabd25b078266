"""Gates: NumPy computes those that are one of its operations, and Numba fuses the others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.gates import GATES
from ..core.llvm import compiled_ufunc
from ..core.words import WORD, tail_mask
from .device import implements

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_TAILS = tuple(np.array([tail_mask(length) for length in range(WORD)])[:, None])  # NumPy masks by an array sooner.


@implements(contract.gate)
def gate(kind: str, *operands: NDArray[np.uint64], length: int | None = None) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = _function(kind)(*operands)
    if length is not None and length % WORD:
        last = words[..., -1:]
        last &= _TAILS[length % WORD]
    return words


@cache
def _function(kind: str) -> Callable[..., Any]:
    """The function of a gate, compiled at its first use, so that nobody waits for gates that are not used."""
    row = GATES[kind]
    if row.steps == 1:
        return row.function
    function: Callable[..., Any] = compiled_ufunc(row.function, f"uint64({', '.join(['uint64'] * len(row.inputs))})")
    return function

"""Gates: NumPy computes those that are one of its operations, and Numba fuses the others."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from ..core import contract
from ..core.gates import GATES
from ..core.llvm import compiled_ufunc
from ..core.words import WORD, tail_mask
from .device import implements

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


@implements(contract.gate)
def gate(kind: str, *operands: NDArray[np.uint64], length: int | None = None) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = _function(kind)(*operands)
    if length is not None and length % WORD:
        words[..., -1] &= tail_mask(length)
    return words


@cache
def _function(kind: str) -> Callable[..., Any]:
    """The function of a gate, compiled at its first use, so that nobody waits for gates that are not used."""
    row = GATES[kind]
    if row.steps == 1:
        return row.function
    function: Callable[..., Any] = compiled_ufunc(row.function, f"uint64({', '.join(['uint64'] * len(row.inputs))})")
    return function

"""Gates: XLA fuses each with the mask of the padding."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..core import contract
from ..core.gates import GATES
from ..core.words import WORD, tail_mask
from .device import as_jax, implements, jitted


@implements(contract.gate)
def gate(kind: str, *operands: Any, length: int | None = None) -> Any:
    operands = tuple(map(as_jax, operands))
    if length is None or length % WORD == 0:
        return _gate(kind, *operands)
    kept = np.full(operands[0].shape[-1], ~np.uint64(0))
    kept[-1:] = tail_mask(length)
    return _masked_gate(kind, kept, *operands)


@partial(jitted, static_argnums=0)
def _gate(kind: str, *operands: Any) -> Any:
    return GATES[kind].function(*operands)


@partial(jitted, static_argnums=0)
def _masked_gate(kind: str, kept: Any, *operands: Any) -> Any:
    return GATES[kind].function(*operands) & kept

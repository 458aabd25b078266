"""Machines: a thread a stream, several steps a look-up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from .device import cupy, implements
from .launch import NULL, launch_over

if TYPE_CHECKING:
    from ..core.machines import Machine


@implements(contract.run_machine)
def run_machine(machine: Machine, start: Any, *words: Any, length: int) -> tuple[Any, ...]:
    operands = [cupy.ascontiguousarray(cupy.asarray(operand)) for operand in words]
    shape = np.broadcast_shapes(*(operand.shape for operand in operands))
    lead = shape[:-1]
    first = machine.check_states(start.get() if isinstance(start, cupy.ndarray) else np.asarray(start))
    states = cupy.asarray(np.array(np.broadcast_to(first, lead), order="C"))
    outputs = tuple(cupy.empty(shape, np.uint64) for _ in range(machine.outputs))
    if not outputs[0].size:
        return *outputs, states
    given: list[Any] = []
    for operand in operands:
        own = operand.shape[:-1]
        rows = cupy.arange(math.prod(own), dtype=np.int64).reshape(own)
        given += [operand, cupy.ascontiguousarray(cupy.broadcast_to(rows, lead))]
    given += [NULL] * (6 - len(given))
    tables = cupy.asarray(machine.look_ups), cupy.asarray(machine.single_steps)
    kinds = np.int32(machine.inputs), np.int32(machine.outputs)
    second = outputs[1] if machine.outputs == 2 else NULL
    launch_over(
        "run_machine", states.size, *tables, *kinds, *given, states.size, length, shape[-1], states, outputs[0], second
    )
    return *outputs, states

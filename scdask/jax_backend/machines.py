"""Machines: a scan over words, of look-ups of several steps at once; on CPUs the kernels for NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.machines import AT_ONCE
from ..core.words import WORD
from ..jit_kernels.machines import constants, run_streams
from .device import implements, jax, jnp, lax, varying_as
from .ffi import on_cpus

if TYPE_CHECKING:
    from ..core.machines import Machine

MANY = 2**16  # steps from which on running them pays a call of Python


@implements(contract.run_machine)
def run_machine(machine: Machine, start: Any, *words: Any, length: int) -> tuple[Any, ...]:
    if not isinstance(start, jax.core.Tracer):
        start = machine.check_states(np.asarray(start))
    shape = np.broadcast_shapes(*(operand.shape for operand in words))
    states = jnp.clip(jnp.asarray(start, np.int64), 0, machine.states - 1).astype(np.uint8)
    # As all have the axes of the result, `jax.vmap` can add one in front of all.
    states, operands = _with_axes(states, len(shape) - 1), [_with_axes(operand, len(shape)) for operand in words]
    tables = constants(machine)
    options = np.array([len(tables), len(operands), length])
    found: tuple[Any, ...] = _run(options, states, *tables, *operands, machine=machine, length=length)
    return found


def _with_axes(array: Any, ndim: int) -> Any:
    return jnp.reshape(array, (*[1] * (ndim - array.ndim), *array.shape))


def _run_on_cpu(options: Any, states: Any, *arrays: Any) -> None:
    n_tables, n_words, length = map(int, options.reshape(-1))
    tables = tuple(table.reshape(-1) for table in arrays[:n_tables])
    *outputs, last = arrays[n_tables + n_words :]
    last[...] = states
    run_streams(tables, arrays[n_tables : n_tables + n_words], tuple(outputs), last, length)


def _pays(options: Any, states: Any, *arrays: Any, machine: Machine, length: int) -> bool:
    rows = np.broadcast_shapes(*(array.shape[:-1] for array in arrays[-machine.inputs :]))
    return length * int(np.prod(rows)) >= MANY


@on_cpus("machine", _run_on_cpu, _pays)
def _run(options: Any, states: Any, *arrays: Any, machine: Machine, length: int) -> tuple[Any, ...]:
    """Run a machine over the last arrays, from states of as many axes."""
    words = arrays[-machine.inputs :]
    shape = np.broadcast_shapes(*(operand.shape for operand in words))
    k, m, n = machine.inputs, machine.outputs, AT_ONCE[machine.inputs]
    whole, rest = divmod(length, WORD)
    along = jnp.moveaxis(jnp.stack([jnp.broadcast_to(operand, shape) for operand in words]), -1, 0)
    states = jnp.broadcast_to(states, shape[:-1]).astype(np.uint32)

    def steps(table: Any, n: int, count: int, current: Any, given: Any) -> tuple[Any, Any]:
        """The states after `count` steps of words (k, ...), n at once, and the words written (m, ...)."""
        low = np.uint64(2**n - 1)

        def step(i: Any, carried: Any) -> Any:
            current, written = carried
            at = (i * n).astype(np.uint64)
            bits = sum(((given[j] >> at) & low).astype(np.uint32) << np.uint32(j * n) for j in range(k))
            entry = jnp.asarray(table)[current << np.uint32(n * k) | bits]
            out = [(entry >> np.uint32(j * n)).astype(np.uint64) & low for j in range(m)]
            return entry >> np.uint32(16 + n * k), written | jnp.stack(out) << at

        nothing = varying_as(jnp.zeros((m, *given.shape[1:]), np.uint64), given)
        state, written = lax.fori_loop(0, count // n, step, (current, nothing))
        return state, written

    def word(current: Any, given: Any) -> tuple[Any, Any]:
        return steps(machine.look_ups, n, WORD, current, given)

    states, written = lax.scan(word, varying_as(states, along), along[:whole])
    if rest:
        states, last = steps(machine.single_steps, 1, rest, states, along[whole])
        written = jnp.concatenate([written, last[None]])
    return *(jnp.moveaxis(written[:, j], 0, -1) for j in range(m)), states.astype(np.uint8)

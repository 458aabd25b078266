"""Finite-state machines over packed words."""

from __future__ import annotations

from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_array, as_words, check_length, check_operands, kind_of
from ..core.contract import on_host
from ..core.dispatch import NUMPY, backend_of, composed
from ..core.machines import Machine
from ..core.words import WORD
from ..errors import BitstreamError
from .numbers import broadcast_to

if TYPE_CHECKING:
    from collections.abc import Callable


def run_machine(machine: Machine, *packed: Any, length: int, start: Any = None) -> tuple[Any, ...]:
    """Run a machine over streams.

    Parameters
    ----------
    machine : Machine
    *packed : array of uint64, each (..., n_words)
        As many as the machine has inputs. The word axes must match; leading axes broadcast.
    length : int
        Length of a stream in bits; padding is never stepped through.
    start : int or array of int, optional
        The state in which a stream begins, of a shape that broadcasts to that of the streams. By default that of the
        machine.

    Returns
    -------
    outputs : array of uint64, shape (..., n_words), one or two
        The streams that the machine writes; their padding is 0.
    states : array of uint8, shape (...)
        The state after the last bit.

    Raises
    ------
    BitstreamError
        If the number of streams, the words, the length or the states do not fit.
    """
    check_machine(machine, len(packed))
    operands = tuple(map(as_words, packed))
    check_operands(*operands)
    length = check_length(length, operands[0].shape[-1])
    states = start_states(machine, start, _streams_shape(operands))
    return tuple(contract.run_machine(machine, states, *operands, length=length))


def check_machine(machine: Any, inputs: int) -> None:
    """Raise unless it is a machine with so many inputs."""
    if not isinstance(machine, Machine):
        raise BitstreamError(f"a machine is a scdask.Machine, not {machine!r}")
    if machine.inputs != inputs:
        raise BitstreamError(f"{machine} reads as many streams as it has inputs, not {inputs}")


def start_states(machine: Machine, start: Any, shape: tuple[int, ...]) -> Any:
    """The states in which streams of a shape begin, as a number or an array, once they are known to fit the streams."""
    if start is None:
        return np.uint8(machine.start)
    states = as_array(start, "start")
    if kind_of(states) not in "iu":
        raise BitstreamError(f"a state is an integer from 0 to {machine.states - 1}, not of {states.dtype}")
    check_fits("states", states.shape, shape)
    return states


def _streams_shape(operands: tuple[Any, ...]) -> tuple[int, ...]:
    """The shape of the streams of operands that broadcast, NaN where it is not known."""
    known = [tuple(1 if np.isnan(n) else n for n in words.shape[:-1]) for words in operands]
    shape = list(np.broadcast_shapes(*known))
    for words in operands:
        for i, n in enumerate(reversed(words.shape[:-1]), 1):
            shape[-i] = n if np.isnan(n) else shape[-i]
    return tuple(shape)


def check_fits(what: str, shape: tuple[int, ...], streams: tuple[int, ...]) -> None:
    """Raise unless a shape broadcasts to that of the streams, as far as both are known."""
    pairs = zip(reversed(shape), reversed(streams), strict=False)
    if len(shape) > len(streams) or any(n not in (1, m) and n == n and m == m for n, m in pairs):
        raise BitstreamError(f"{what} of shape {shape} and streams of shape {streams} do not broadcast")


def map_words(kernel: Callable[..., Any], *packed: Any, length: int, state: Any = None, outputs: int = 1) -> Any:
    """Call a function on words along time: `scdask.map_time` of words.

    Parameters
    ----------
    kernel : callable
    *packed : array of uint64, each (..., n_words)
        The word axes must match; leading axes broadcast.
    length : int
        Length of a stream in bits.
    state : array_like, optional
        The first state.
    outputs : int
        How many arrays of words the kernel returns.

    Returns
    -------
    outputs : array of uint64, shape (..., n_words)
        As many as there are outputs; their padding is 0.
    state : array, or None without a state
        The state after the last bit.

    Raises
    ------
    BitstreamError
        If the words, the state, or what the kernel returns do not fit.
    """
    check_kernel(kernel, len(packed), outputs)
    operands = tuple(map(as_words, packed))
    check_operands(*operands)
    length = check_length(length, operands[0].shape[-1])
    shape = _streams_shape(operands)
    carried = None if state is None else as_array(state, "state")
    if carried is not None:
        lead = carried.shape[: len(shape)] if carried.ndim >= len(shape) else carried.shape
        check_fits("a state", lead, shape)
    return mapped(kernel, *operands, length=length, state=carried, outputs=int(outputs))


def check_kernel(kernel: Any, inputs: int, outputs: Any) -> None:
    """Raise unless it is a function, of one stream at least, that writes one at least."""
    if not callable(kernel):
        raise BitstreamError(f"a kernel is a function of words, not {kernel!r}")
    if not inputs or isinstance(outputs, bool) or not isinstance(outputs, int | np.integer) or outputs < 1:
        raise BitstreamError(f"a kernel takes one stream at least, and writes one, not {inputs} and {outputs!r}")


@composed
def mapped(kernel: Callable[..., Any], *words: Any, length: int, state: Any, outputs: int) -> Any:
    """`map_words` of arrays that are known to fit."""
    shape = np.broadcast_shapes(*(operand.shape for operand in words))
    given = [broadcast_to(operand, shape) for operand in words]
    if state is None:
        found, following = kernel(*given, length=length), None
    else:
        if backend_of(state) is NUMPY:
            state = (backend_of(given[0]) or NUMPY).from_numpy(state)
        if state.ndim <= len(shape) - 1:
            state = broadcast_to(state, shape[:-1])
        else:
            state = broadcast_to(state, (*shape[:-1], *state.shape[len(shape) - 1 :]))
        pair = kernel(*given, state=state, length=length)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise BitstreamError(f"a kernel with a state returns words and the next state, not {type(pair).__name__}")
        found, following = pair
        if np.shape(following) != state.shape or getattr(following, "dtype", None) != state.dtype:
            what = f"{getattr(following, 'dtype', type(following).__name__)} {np.shape(following)}"
            raise BitstreamError(
                f"a kernel keeps the type and the shape of its state, {state.dtype} {state.shape}, not {what}"
            )
    written = (found,) if outputs == 1 else found
    if not isinstance(written, tuple) or len(written) != outputs:
        what = f"{len(written)}" if isinstance(written, tuple) else type(found).__name__
        raise BitstreamError(f"a kernel with {outputs} outputs returns a tuple of them, not {what}")
    for each in written:
        if getattr(each, "shape", None) != shape or each.dtype != np.uint64:
            what = f"{each.dtype} {each.shape}" if hasattr(each, "dtype") else type(each).__name__
            raise BitstreamError(f"a kernel returns words, uint64 {shape}, as it gets them, not {what}")
    return *(contract.gate("mask", as_words(each), length=length) for each in written), following


SUFFIX = 8  # words at the end of streams that are run first to find what all of their words do to a state


def state_map(machine: Machine, *words: Any, length: int) -> Any:
    """The states in which streams end, one for each state in which they may begin: uint8 (..., S).

    Most machines forget where they began after some steps: the last words alone tell of most streams. Those of the
    others are run from all states, or, if the machine is a saturating counter or holds a value, from the first and the
    last: a counter takes s to s + d, within the states in which these end.
    """
    states = machine.states
    starts = range(states) if machine.shifts is None else sorted({0, states - 1})
    shape = np.broadcast_shapes(*(operand.shape for operand in words))
    n_words = shape[-1]
    operands = [broadcast_to(operand, shape) for operand in words]

    def ends(operands: list[Any], length: int) -> list[Any]:
        found = (contract.run_machine(machine, np.uint8(start), *operands, length=length)[-1] for start in starts)
        return [on_host(states) for states in found]

    last = min(SUFFIX, n_words)
    found = ends([operand[..., n_words - last :] for operand in operands], length - WORD * (n_words - last))
    result = np.array(np.broadcast_to(found[0][..., None], (*shape[:-1], states)))
    open_ = np.any([each != found[0] for each in found], axis=0)
    if open_.any():
        left = [operand[open_] for operand in operands]
        found = ends(left, length)
        result[open_] = np.stack(found, -1) if machine.shifts is None else _clamped(machine, left, found, length)
    return result


def _clamped(machine: Machine, operands: list[Any], ends: list[Any], length: int) -> Any:
    """The state map of a counter, given where its first and its last state end."""
    coefficients = machine.shifts.copy()  # type: ignore[union-attr]
    for i in range(machine.inputs):  # Now sums over the subsets of inputs that are 1: a polynomial over them.
        pairs = coefficients.reshape(-1, 2, 2**i)
        pairs[:, 1] -= pairs[:, 0]
    shift = np.full(ends[0].shape, coefficients[0] * length)
    for i, coefficient in enumerate(coefficients):
        if i and coefficient:
            chosen = [operand for bit, operand in enumerate(operands) if i >> bit & 1]
            both = reduce(partial(contract.gate, "and"), chosen)
            shift += coefficient * on_host(contract.stream_ones(both))
    states = np.arange(machine.states) + shift[..., None]
    return np.clip(states, ends[0][..., None], ends[-1][..., None]).astype(np.uint8)

"""Machines and functions along time: a block begins in the states in which the block before it ends.

Blocks of one row run one after the other, from state to state. Where that would leave threads idle, because there are
few rows, what each block does to each state is found first (`state_map`): then only these maps, of a byte a state, are
handed on, and the blocks of a row run at once.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, product
from operator import itemgetter
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from dask.system import CPU_COUNT

from ..core import contract
from ..core.words import bits_in
from ..vector_ops.machines import map_words, mapped, run_machine, state_map
from .blocks import axes_of, blockwise, in_chunk, matched, meta_of, unified
from .compat import ArraySliceDep
from .device import as_dask, implements

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.machines import Machine

COUNTER_COST = 1.25  # what a block takes with its map, if its streams soon forget how they began, over that without


@implements(contract.run_machine)
def run(machine: Machine, start: Any, *words: Any, length: int) -> tuple[da.Array, ...]:
    cost = 1 + machine.states if machine.shifts is None else COUNTER_COST
    block, maps, after = (partial(func, machine) for func in (_run_block, _map_block, _next_states))
    return Scan("sc-machine", block, length, machine.outputs, np.uint8, maps, cost, after).over(words, start)


def _run_block(machine: Machine, *words_and_start: Any, length: int) -> Any:
    *words, start = words_and_start
    return run_machine(machine, *words, length=length, start=start)


def _map_block(machine: Machine, *words: Any, length: int) -> Any:
    return state_map(machine, *words, length=length)


def _next_states(machine: Machine, maps: Any, states: Any) -> Any:
    now = np.broadcast_to(machine.check_states(contract.on_host(states)), maps.shape[:-1])
    return np.take_along_axis(maps, now[..., None].astype(np.intp), -1)[..., 0]


@implements(mapped)
def map_blocks(kernel: Callable[..., Any], *words: Any, length: int, state: Any, outputs: int) -> tuple[Any, ...]:
    name = f"sc-{getattr(kernel, '__name__', 'map').strip('<>_')}"
    dtype = getattr(state, "dtype", None)
    return Scan(name, partial(_kernel_block, kernel, outputs), length, outputs, dtype).over(words, state)


def _kernel_block(kernel: Callable[..., Any], outputs: int, *words_and_state: Any, length: int) -> Any:
    *words, state = words_and_state
    return map_words(kernel, *words, length=length, state=state, outputs=outputs)


@dataclass(frozen=True)
class Scan:
    """What is done to blocks along time.

    Parameters
    ----------
    name : str
        The name of the tasks.
    func : callable
        func(*blocks, state, length=bits) gives the outputs of a block and its last state.
    length : int
        Bits of a stream.
    outputs : int
    dtype : data-type
        Of the states.
    maps : callable, optional
        maps(*blocks, length=bits) gives what a block does to its state.
    cost : float
        The time that a block takes with its map, over that without.
    after : callable, optional
        after(map, states) gives the states after a block.
    forgets : bool
        Whether each block begins in the first state.
    placed : bool
        Whether `func` is told where a block is, as `region`.
    """

    name: str
    func: Callable[..., Any]
    length: int
    outputs: int
    dtype: Any
    maps: Callable[..., Any] | None = None
    cost: float = 0
    after: Callable[..., Any] | None = None
    forgets: bool = False
    placed: bool = False

    def over(self, words: tuple[Any, ...], state: Any, summed: bool = False) -> tuple[Any, ...]:
        """The outputs for words, from a state that is None, an array or a scalar, and the last states.

        If an axis is summed, it is the one before that of the words, and has one chunk.
        """
        arrays = [as_dask(operand) for operand in words]
        scan = replace(self, func=matched(self.func, arrays))
        pairs = [(array, axes_of(array)) for array in arrays]
        if summed:
            pairs = [(array, names[1:-1] + "0z") for array, names in pairs]
        axes = max((names for _, names in pairs), key=len).replace("0", "")
        if _in_blocks(state):
            more = max(0, state.ndim - len(axes) + 1)
            names = axes[len(axes) - 1 - state.ndim + more : -1] + ascii_uppercase[:more]
            whole = dict.fromkeys(range(state.ndim - more, state.ndim), -1)
            pairs.append((as_dask(state).rechunk(whole), names))
        chunks, found = unified(*pairs)
        operands = list(zip(found, (names for _, names in pairs), strict=True))
        last = axes[:-1] + "".join(filter(str.isupper, operands[-1][1]))
        if state is None or len(chunks["z"]) == 1 or self.forgets:
            return scan._at_once(operands, state, axes, last, chunks)
        return scan._in_turn(operands, state, axes, last, chunks)

    def _at_once(self, operands: Any, state: Any, axes: str, last: str, chunks: Any) -> tuple[Any, ...]:
        """All blocks by themselves, because time is not chunked, or nothing is handed on."""
        if not _in_blocks(state):
            operands = [*operands, (state, None)]
        region = ArraySliceDep(tuple(chunks[axis] for axis in axes)), axes
        block = partial(_block, self.func, self.length, self.placed)
        given = [x for pair in (region, *operands) for x in pair]
        sizes = {axis: chunks[axis] for axis in axes}
        both = blockwise(self.name, block, axes, *given, adjust_chunks=sizes, dtype=np.uint64)
        results = [blockwise(self.name, itemgetter(i), axes, both, axes, dtype=np.uint64) for i in range(self.outputs)]
        if state is None:
            return *results, None
        added = {axis: chunks[axis] for axis in last if axis.isupper()}
        return *results, blockwise(self.name, _last, last, both, axes, new_axes=added, dtype=self.dtype)

    def _in_turn(self, operands: Any, state: Any, axes: str, last: str, chunks: Any) -> tuple[Any, ...]:
        """Blocks that each need the state of the one before."""
        found = [array for array, _ in operands]
        lead, times = axes[:-1], len(chunks["z"])
        regions = {axis: _slices(chunks[axis]) for axis in axes}
        maps = self.maps if self.cost * math.prod(len(chunks[axis]) for axis in lead) < _threads() else None
        first = operands.pop() if _in_blocks(state) else None
        token = tokenize(self, maps is None, [array.name for array in found], None if first else state)
        run, mapped, states, end = (f"{self.name}{part}-{token}" for part in ("", "-map", "-states", "-last"))
        rest = (0,) * (len(last) - len(lead))
        graph: dict[Any, Any] = {}
        ends: dict[Any, Any] = {}
        for row in product(*(range(len(chunks[axis])) for axis in lead)):
            place = dict(zip(lead, row, strict=True))
            before = _key(first, place) if first else state
            for t in range(times):
                place["z"] = t
                region = tuple(regions[axis][place[axis]] for axis in axes)
                blocks = [_key(operand, place) for operand in operands]
                graph[run, *row, t] = (partial(_block, self.func, self.length, self.placed, region), *blocks, before)
                after: Any = (itemgetter(-1), (run, *row, t))
                if maps and t + 1 < times:
                    graph[mapped, *row, t] = (partial(_block, maps, self.length, False, region), *blocks)
                    after = (self.after, (mapped, *row, t), before)
                before = (states, *row, t)
                graph[before] = after
            ends[end, *row, *rest] = before
        layers = HighLevelGraph.from_collections(run, graph, dependencies=found)

        def array(name: str, keys: dict[Any, Any], axes: str, dtype: Any) -> da.Array:
            along = HighLevelGraph(layers.layers | {name: keys}, layers.dependencies | {name: {run}})
            meta = meta_of(found, len(axes), dtype)
            return da.Array(along, name, tuple(chunks[axis] for axis in axes), meta=meta, dtype=dtype)

        results = []
        for i in range(self.outputs):
            name = f"{self.name}-{i}-{token}"
            picked = {(name, *key[1:]): (itemgetter(i), key) for key in graph if key[0] == run}
            results.append(array(name, picked, axes, np.uint64))
        return *results, array(end, ends, last, self.dtype)


def _in_blocks(state: Any) -> bool:
    """Whether a state is cut into blocks as the streams are, and no value that all blocks are given."""
    return state is not None and (state.ndim > 0 or isinstance(state, da.Array))


def _slices(sizes: tuple[int, ...]) -> list[slice]:
    stops = list(accumulate(sizes))
    return [slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]


def _key(operand: tuple[da.Array, str], place: dict[str, int]) -> tuple[Any, ...]:
    """The block of an array at a place, of which it may not have all axes."""
    array, axes = operand
    return array.name, *(place.get(axis, 0) if n > 1 else 0 for axis, n in zip(axes, array.numblocks, strict=True))


def _block(func: Callable[..., Any], length: int, placed: bool, region: tuple[slice, ...], *blocks: Any) -> Any:
    bits = bits_in(region[-1].start, region[-1].stop, length)
    of_block = partial(func, length=bits, region=region) if placed else partial(func, length=bits)
    return in_chunk(of_block, region, *map(_alone, blocks))


def _last(both: Any) -> Any:
    while isinstance(both, list):
        both = both[-1]
    return both[-1]


def _alone(block: Any) -> Any:
    """A block without the lists into which Dask puts it for axes that the result does not have."""
    while isinstance(block, list):
        (block,) = block
    return block


def _threads() -> int:
    """The number of tasks that can run at once: of the threads of the cluster in use, or of this process."""
    distributed = sys.modules.get("distributed.client")
    client = distributed._get_global_client() if distributed else None
    if client is not None and not client.asynchronous:
        return sum(client.nthreads().values())
    return int(dask.config.get("num_workers", None) or CPU_COUNT)

"""Cells that are graphs: those of a wave become one graph, in which what they share is there once."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .cells import lazy, named, told, value_of
from .grid import Found, Share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cells import Given
    from .grid import Cell, Setting


@dataclass
class Wave:
    """The graph of some cells, the key of each, and what needs no graph."""

    graph: dict[Any, Any] = field(default_factory=dict)
    keys: dict[Cell, Any] = field(default_factory=dict)
    found: list[Found] = field(default_factory=list)
    shared: set[Any] = field(default_factory=set)  # keys of what several cells need, where their ways part
    tasks_alone: int = 0  # tasks, if each cell had a graph of its own


def wave_of(given: Given, cells: Sequence[tuple[Cell, Setting]], name: str) -> Wave:
    """Ask the function for the collections of cells, and put them together."""
    wave = Wave()
    parts: dict[Cell, dict[str, Any]] = {}
    collections: list[Any] = []
    for cell, setting in cells:
        try:
            results = named(given(setting))
            if lazy(results):
                parts[cell] = {name: _part(result, collections) for name, result in results.items()}
            else:
                values = {name: value_of(name, result) for name, result in results.items()}
                wave.found.append(Found(cell, values, "", math.nan))
        except Exception as error:
            wave.found.append(Found(cell, {}, told(error), math.nan))
    wave.graph = _together(collections)
    for cell, of_cell in parts.items():
        _finished(wave, f"{name}-{'-'.join(map(str, cell))}", cell, of_cell)
    _look_for_shared(wave)
    return wave


@dataclass(frozen=True)
class _Lazy:
    """Where the blocks of a collection are among the arguments of a task, and what makes one result of them."""

    finalize: Any
    extra: tuple[Any, ...]
    blocks: Any  # keys in lists of lists


def _part(result: Any, collections: list[Any]) -> Any:
    """What stands for a result until it is computed: truth values are counted where they are."""
    from dask.base import is_dask_collection

    if not is_dask_collection(result):
        return result
    if isinstance(dtype := getattr(result, "dtype", None), np.dtype) and dtype.kind == "b":
        import dask.array as da

        samples = result.size if not math.isnan(result.size) else _part(da.ones_like(result, int).sum(), collections)
        return Share(_part(result.sum(), collections), samples)
    finalize, extra = result.__dask_postcompute__()
    part = _Lazy(finalize, tuple(extra), result.__dask_keys__())
    collections.append(result)
    return part


def _together(collections: Sequence[Any]) -> dict[Any, Any]:
    """One graph of many collections, optimized as a whole: optimized one by one, each would have its own blocks."""
    from dask.core import flatten
    from dask.highlevelgraph import HighLevelGraph

    groups: dict[Any, list[Any]] = {}
    graph: dict[Any, Any] = {}
    for collection in collections:
        layers = collection.__dask_graph__()
        if isinstance(layers, HighLevelGraph):
            groups.setdefault(getattr(collection, "__dask_optimize__", None), []).append(collection)
        else:
            graph.update(layers)
    for optimize, alike in groups.items():
        merged = HighLevelGraph.merge(*(collection.__dask_graph__() for collection in alike))
        keys = [key for collection in alike for key in flatten(collection.__dask_keys__())]
        graph.update(optimize(merged, keys) if optimize else merged)
    return graph


def _finished(wave: Wave, key: str, cell: Cell, parts: dict[str, Any]) -> None:
    """Add the task that makes the results of a cell of its blocks."""
    from dask._task_spec import Task, TaskRef
    from dask.core import flatten

    blocks: list[Any] = []

    def numbered(part: Any) -> Any:
        if isinstance(part, Share):
            return Share(numbered(part.right), numbered(part.samples))
        if not isinstance(part, _Lazy):
            return part
        first = len(blocks)
        blocks.extend(flatten([part.blocks]))
        numbers = iter(range(first, len(blocks)))
        return _Lazy(part.finalize, part.extra, _renamed(part.blocks, numbers))

    plan = {name: numbered(part) for name, part in parts.items()}
    wave.graph[key] = Task(key, _finish, cell, _Plan(plan), *map(TaskRef, blocks))
    wave.keys[cell] = key


@dataclass(frozen=True)
class _Plan:
    """Parts by name, which Dask is not to look into."""

    parts: dict[str, Any]


def _renamed(keys: Any, numbers: Any) -> Any:
    return [_renamed(key, numbers) for key in keys] if isinstance(keys, list) else next(numbers)


def _finish(cell: Cell, plan: _Plan, *blocks: Any) -> Found:
    def computed(part: Any) -> Any:
        if isinstance(part, Share):
            return Share(int(computed(part.right)), int(computed(part.samples)))
        return part.finalize(_filled(part.blocks, blocks), *part.extra) if isinstance(part, _Lazy) else part

    try:
        values = {name: value_of(name, computed(part)) for name, part in plan.parts.items()}
    except Exception as error:
        return Found(cell, {}, told(error), math.nan)
    return Found(cell, values, "", math.nan)


def _filled(numbers: Any, blocks: Sequence[Any]) -> Any:
    return [_filled(number, blocks) for number in numbers] if isinstance(numbers, list) else blocks[numbers]


def _look_for_shared(wave: Wave) -> None:
    """Count in how many cells each task is, and find those after which their ways part."""
    from dask.core import get_dependencies

    needs = {key: get_dependencies(wave.graph, key) for key in wave.graph}
    users: Counter[Any] = Counter()
    for key in wave.keys.values():
        seen, left = {key}, [key]
        while left:
            new = needs[left.pop()] - seen
            seen |= new
            left += new
        users.update(seen)
    wave.tasks_alone = users.total()
    wave.graph = {key: task for key, task in wave.graph.items() if key in users}
    wave.shared = {need for key in wave.graph for need in needs[key] if users[need] > max(1, users[key])}

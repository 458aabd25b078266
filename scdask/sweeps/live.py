"""The figure of a campaign that runs, as an event for the page of the dashboard."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .dataset import summary_of
from .grid import DONE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .grid import Grid
    from .plan import Plan

LINES = 7  # of the figure at most
POINTS = 40  # of a line
WIDE = 8  # the last number over the first, from which on an axis is logarithmic


def figure_of(plan: Plan, grid: Grid) -> dict[str, Any] | None:
    """Means and intervals over one axis, in a line for each value of the next one.

    Parameters
    ----------
    plan : Plan
    grid : Grid

    Returns
    -------
    dict, optional
        None if there is no number yet, or no axis but that of repeats. `metric` and `x` are names, `at` the values of
        the axes that are not shown, `ticks` the labels of the axis, and `lines` has a dict each: its `label`, and lists
        over the axis, which are `x`, `mean`, `low` and `high`. The `x` are places on the paper: logarithms of numbers
        that span far, and mere counts for texts.
    """
    names = [name for name in plan.names if name != plan.repeats and len(plan.labels[name]) > 1]
    metrics = [name for name, metric in grid.metrics.items() if not metric.own_shape(len(grid.axes))]
    if not names or not metrics:
        return None
    metric = next((name for name in metrics if name in plan.until), metrics[0])
    numeric = [name for name in names if all(type(label) in (int, float) for label in plan.labels[name])]
    over = "length" if "length" in numeric else [*numeric, *names][0]
    each = next((name for name in names if name != over), None)
    labels = {name: plan.labels[name][:1] for name in plan.names}
    labels[over] = _some(sorted(plan.labels[over]) if over in numeric else plan.labels[over])
    if each is not None:
        labels[each] = plan.labels[each][:LINES]
    if plan.repeats is not None:
        labels[plan.repeats] = plan.labels[plan.repeats]
    pick = np.ix_(*(axis.places(labels[axis.name]) for axis in grid.axes))
    order = [axis.name for axis in grid.axes]
    first = [order.index(name) for name in (each, over, plan.repeats) if name is not None]
    turned = first + [i for i in range(len(order)) if i not in first]
    shape = len(labels[each]) if each is not None else 1, len(labels[over]), -1

    def picked(array: NDArray[Any]) -> NDArray[Any]:
        return array[pick].transpose(turned).reshape(shape)

    done = picked(grid.state) == DONE
    shown = grid.metrics[metric]
    samples = None if shown.samples is None else np.where(done, picked(shown.samples), 0)
    values = np.where(done, picked(shown.values), np.nan)
    if plan.repeats is None:  # The last axis has one place, and is none.
        values, done = values[..., 0], done[..., 0]
        samples = None if samples is None else samples[..., 0]
    found = summary_of(values, samples, done, 2 if plan.repeats else None, plan.kind)
    return {
        "metric": metric,
        "x": over,
        "ticks": list(map(str, labels[over])),
        "at": {name: labels[name][0] for name in names if name not in (over, each)},
        "lines": [
            {
                "label": f"{each}={labels[each][i]}" if each is not None else metric,
                "x": _places(labels[over]) if over in numeric else list(range(len(labels[over]))),
                **{end: found[end][i].tolist() for end in ("mean", "low", "high")},
            }
            for i in range(shape[0])
        ],
    }


def _some(labels: list[Any]) -> list[Any]:
    """So many labels that a figure has room for, the first and the last among them."""
    places = np.unique(np.linspace(0, len(labels) - 1, min(POINTS, len(labels))).round().astype(int))
    return [labels[place] for place in places]


def _places(numbers: list[float]) -> list[float]:
    """Where numbers are on an axis, which is logarithmic if they span far."""
    if numbers[0] > 0 and numbers[-1] >= WIDE * numbers[0]:
        return [math.log2(number) for number in numbers]
    return numbers

"""The result of a campaign: an xarray Dataset with an interval beside each mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from .grid import DONE, Axis, own_dimensions
from .intervals import of_mean, of_shares, wilson
from .store import UNITS, path_of, read_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from .grid import Grid
    from .intervals import Kind


def dataset_of(
    grid: Grid,
    labels: Mapping[str, list[Any]],
    repeats: str | None,
    asked: NDArray[np.bool_],
    kind: Kind,
    units: Mapping[str, str],
    attributes: Mapping[str, Any],
) -> Any:
    """The Dataset of the cells that were asked for, as `sweep` returns it.

    Parameters
    ----------
    grid : Grid
    labels : mapping of str to list
        Those of each axis, in the order of the result.
    repeats : str, optional
        The axis over which means are taken.
    asked : ndarray of bool, of the shape of the labels
        Which cells are part of the campaign.
    kind : {"t", "bootstrap"}
    units : mapping of str to str
        Units of metrics and axes.
    attributes : mapping
        Those of the Dataset.
    """
    names = list(labels)
    axes = [axis.name for axis in grid.axes]
    pick = np.ix_(*(axis.places(labels[axis.name]) for axis in grid.axes))
    order = [axes.index(name) for name in names]

    def picked(array: NDArray[Any]) -> NDArray[Any]:
        part = array[pick]
        return part.transpose(*order, *range(len(order), part.ndim))

    def about(name: str) -> dict[str, str]:
        return UNITS.get(name, {}) | ({"units": units[name]} if name in units else {})

    done = (picked(grid.state) == DONE) & asked
    rows = [name for name in names if name != repeats]
    along = names.index(repeats) if repeats else None
    variables: dict[str, Any] = {}
    for name, metric in grid.metrics.items():
        values = picked(metric.values)
        values[~done] = np.nan
        own = own_dimensions(name, values.ndim - len(names))
        variables[name] = ([*names, *own], values, about(name))
        samples = None if metric.samples is None else np.where(done, picked(metric.samples), 0)
        for end, array in summary_of(values, samples, done, along, kind).items():
            unit = {k: v for k, v in about(name).items() if k == "units" and end != "samples"}
            dims = rows + own if array.ndim > len(rows) else rows
            variables[f"{name}_{end}"] = (dims, array, unit | {"long_name": f"{name}, {TEXTS[end]}"})
    variables["seconds"] = (names, np.where(asked, picked(grid.seconds), np.nan), UNITS["seconds"])
    errors = np.where(asked, picked(grid.error_array()).astype(object), "").astype(str)
    variables["error"] = (names, errors, {"long_name": "why a cell failed"})
    coordinates = {name: (name, Axis(name, []).coordinate(of), about(name)) for name, of in labels.items()}
    return require("xarray", "sweeps").Dataset(variables, coordinates, dict(attributes))


def open_sweep(store: Any) -> Any:
    """The results that a store holds so far, also while jobs write to it.

    Parameters
    ----------
    store : path
        What `sweep` was given as `store=`.

    Returns
    -------
    xarray.Dataset
        Of all cells that any job was asked for, as `sweep` returns it. The attribute `jobs` says what ran where.

    Raises
    ------
    SweepError
        If there is no such store.
    """
    grid, known = read_store(path_of(store))
    show, jobs = known["show"], known["jobs"]
    labels = {axis.name: axis.labels for axis in grid.axes}
    attributes = {
        "function": known["about"].get("function", ""),
        "jobs": [", ".join(f"{name} {value}" for name, value in job.items()) for job in jobs],
        **show.get("attributes", {}),
    }
    asked = grid.state > 0
    return dataset_of(grid, labels, show["repeats"], asked, show["interval"], show["units"], attributes)


TEXTS = {
    "mean": "mean",
    "low": "lower end of the 95 % interval of the mean",
    "high": "upper end of the 95 % interval of the mean",
    "samples": "number of samples",
}


def summary_of(
    values: NDArray[np.float64],
    samples: NDArray[np.int64] | None,
    done: NDArray[np.bool_],
    axis: int | None,
    kind: Kind,
) -> dict[str, NDArray[Any]]:
    """Mean, interval and number of samples of each row, over the axis of repeats if there is one."""
    repeated = axis is not None
    if axis is None:  # Each cell is the only one of its row.
        axis = done.ndim
        values, done = np.expand_dims(values, axis), np.expand_dims(done, axis)
        samples = None if samples is None else np.expand_dims(samples, axis)
    if samples is not None:
        of_each = np.moveaxis(np.rint(np.nan_to_num(values) * samples), axis, -1)
        right, count = of_each.sum(axis=-1), samples.sum(axis=axis)
        low, high = of_shares(of_each, np.moveaxis(samples, axis, -1)) if repeated else wilson(right, count)
        with np.errstate(invalid="ignore"):
            return {"mean": right / count, "low": low, "high": high, "samples": count}
    moved = np.moveaxis(values, axis, -1)
    there = ~np.isnan(moved)
    low, high = of_mean(moved, kind)
    with np.errstate(invalid="ignore"):
        mean = np.where(there, moved, 0).sum(axis=-1) / there.sum(axis=-1)
    samples = done.sum(axis=axis) if moved.ndim > done.ndim else there.sum(axis=-1)
    return {"mean": mean, "low": low, "high": high, "samples": samples}

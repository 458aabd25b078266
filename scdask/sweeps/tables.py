"""Tables of a campaign: a row a setting for a CSV file, and means with half of their intervals for readers."""

from __future__ import annotations

import itertools
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ..plotting.sweeps import metric_of, roles_of

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDS = ("mean", "low", "high", "samples")
NAMES = {"length": "N", "sng": "generator"}


def in_order(dataset: Any) -> Any:
    """The results with axes of numbers in their order; a store has them in the order in which they were asked for."""
    numeric = [name for name in dataset.dims if name in dataset.coords and dataset[name].dtype.kind in "iuf"]
    return dataset.sortby(numeric)


def rows_of(dataset: Any) -> Any:
    """A row for each setting that has results, with its axes, and mean, interval and samples of each number.

    Returns
    -------
    pandas.DataFrame
    """
    names = metrics_of(dataset)
    frame = dataset[[f"{name}_{end}" for name in names for end in ENDS]].reset_coords(drop=True).to_dataframe()
    there = (frame[[f"{name}_samples" for name in names]] > 0).any(axis=1)
    return frame[there].reset_index()


def metrics_of(dataset: Any) -> list[str]:
    """The metrics that are one number a cell, the main one first."""
    names = [str(name).removesuffix("_mean") for name in dataset if str(name).endswith("_mean")]
    plain = [name for name in names if set(dataset[f"{name}_mean"].dims) <= set(dataset.coords)]
    return sorted(plain, key=lambda name: name != dataset.attrs.get("metric"))


def crossed(dataset: Any) -> tuple[list[str], list[list[str]]]:
    """A table for readers: of the main metric, with a column for each value of the axis x, if that has numbers.

    Otherwise there is a column for each metric. Rows are those of the other axes that have several values.

    Returns
    -------
    head : list of str
    rows : list of list of str
        Means, with half of the width of their interval.
    """
    metric = metric_of(dataset)
    x = roles_of(dataset, metric).x
    dims = [name for name in dataset[f"{metric}_mean"].dims if dataset.sizes[name] > 1]
    if x is None or dataset[x].dtype.kind not in "iuf":
        columns: list[tuple[str, dict[str, Any], str]] = [(name, {}, name) for name in metrics_of(dataset)]
    else:
        dims.remove(x)
        columns = [(f"{NAMES.get(x, x)} = {value:g}", {x: value}, metric) for value in dataset[x].values]
    axes = dims or [""]
    head = [*(NAMES.get(name, name) for name in axes), *(text for text, _, _ in columns)]
    rows = []
    for setting in itertools.product(*(dataset[name].values for name in dims)):
        row = dataset.sel(dict(zip(dims, setting, strict=True))).squeeze()
        cells = [[float(row.sel(at)[f"{name}_{end}"]) for end in ENDS[:3]] for _, at, name in columns]
        rows.append([*(map(_text, setting) if dims else [metric]), *(with_half(*cell) for cell in cells)])
    return head, rows


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, np.floating) else str(value)


def with_half(mean: float, low: float, high: float) -> str:
    """A mean with half of the width of its interval, to one digit of that, or two if the first is 1."""
    half = (high - low) / 2
    if math.isnan(mean):
        return ""
    if not half > 0:  # There is one value, or all are equal.
        return f"{mean:.4g}"
    digits = max(0, math.ceil(-math.log10(half / 2)))
    if digits > 6:
        return f"{mean:.4g} ± {half:.1g}"
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, whose columns are one below the other, the first one to the left."""
    texts = [[cell.replace("|", "\\|") for cell in row] for row in (head, *rows)]
    widths = np.array([[len(cell) for cell in row] for row in texts]).max(axis=0)
    texts.insert(1, ["-" * int(widths[0]), *("-" * (int(width) - 1) + ":" for width in widths[1:])])
    lines = []
    for first, *others in texts:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def renewed(page: str, name: str, table: str) -> str:
    """A page in Markdown, whose table between the lines `<!-- sweep NAME -->` and `<!-- end sweep -->` is this one."""
    lines = rf"(^<!-- sweep {re.escape(name)} -->\n).*?(^<!-- end sweep -->$)"
    return re.sub(lines, lambda found: f"{found[1]}{table}{found[2]}", page, flags=re.DOTALL | re.MULTILINE)

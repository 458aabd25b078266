"""What runs on a worker: cells one after the other, and what their results are."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import reason
from ..core.contract import on_host
from ..errors import SweepError
from .grid import Found, Share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .grid import Cell, Setting

LAZY = "lazy"  # in place of an error: the function gives collections, whose tasks are to be shared
ALONE = "value"  # what a result without a name is called


class Given:
    """The function of a campaign, and what it is given beside the setting."""

    def __init__(self, function: Callable[..., Any], *data: Any) -> None:
        self.function, self.data = function, data

    def __call__(self, setting: Setting) -> Any:
        """What the function gives for a setting."""
        return self.function(*self.data, **setting)


def run_cells(given: Given, cells: Sequence[tuple[Cell, Setting]], *, probe: bool = False) -> list[Found]:
    """Compute cells, one after the other; of the error of one nothing comes but its name.

    With `probe`, a cell whose function gives Dask collections is not computed, and comes back as LAZY.
    """
    return [run_cell(given, cell, setting, probe=probe) for cell, setting in cells]


def run_cell(given: Given, cell: Cell, setting: Setting, *, probe: bool = False) -> Found:
    """Compute one cell."""
    start = perf_counter()
    values: dict[str, Any] = {}
    error = ""
    try:
        results = named(given(setting))
        if lazy(results):
            if probe:
                return Found(cell, {}, LAZY, 0.0)
            import dask

            (results,) = dask.compute(results, scheduler="synchronous")
        values = {name: value_of(name, result) for name, result in results.items()}
    except BaseException as caught:  # A SystemExit would end the thread, and nobody would learn of the cell.
        error = told(caught)
    return Found(cell, values, error, perf_counter() - start)


def named(results: Any) -> dict[str, Any]:
    """The results of a cell by name."""
    if not isinstance(results, Mapping):
        return {ALONE: results}
    for name in results:
        if not isinstance(name, str) or not name.isidentifier():
            raise SweepError(f"a metric is called by a name such as rmse, not {name!r}")
    if not results:
        raise SweepError("a cell gives a number or more, not none")
    return dict(results)


def lazy(results: dict[str, Any]) -> bool:
    """Whether any of the results is a Dask collection."""
    from dask.base import is_dask_collection

    return any(map(is_dask_collection, results.values()))


def value_of(name: str, result: Any) -> Any:
    """A result as a `Share`, if it is truth values, and else as an array of float64 or one number."""
    if isinstance(result, Share):
        return result
    if type(result) is int:  # NumPy has none that is as large as it may be
        return float(result)
    if hasattr(result, "to_numpy"):  # of xarray or pandas
        result = result.to_numpy()
    array = np.asarray(on_host(result) if hasattr(result, "shape") else result)
    if array.dtype == bool:
        return Share(int(np.count_nonzero(array)), array.size)
    if array.dtype.kind not in "iuf":
        raise SweepError(f"{name} is a number, an array of numbers or of truth values, not {_kind(result, array)}")
    return array.astype(np.float64) if array.ndim else float(array)  # which travels with less ado


def _kind(result: Any, array: Any) -> str:
    return f"an array of {array.dtype}" if array.ndim and array.dtype != object else f"a {type(result).__name__}"


def told(error: BaseException) -> str:
    """An error as a line of text, which UTF-8 can hold."""
    name = type(error).__name__
    try:
        text = f"{name}: {reason(error)}" if isinstance(error, Exception) else name
    except Exception:  # It has no text.
        return name
    return text.encode(errors="replace").decode()

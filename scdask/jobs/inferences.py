"""What an inference in stochastic computing is, what it found, and how that is shown and written."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from math import isclose
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .. import _html
from .._files import refused_as
from ..errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from ..core.words import Mode

    Length = int | tuple[int, ...]

OF_CYCLES = ("mean_cycles", "median_cycles", "undecided")  # what results.json says of an early exit besides
LOST = 0.02  # of the accuracy, from which on early exit is told to be too early


@dataclass(frozen=True)
class Setting:
    """One inference: the generators by name, the length of the streams, the seed and the mode of the products.

    The length is one number, or a tuple of one for each layer that encodes.
    """

    sng: str
    length: Length
    seed: int
    mode: Mode


@dataclass(frozen=True)
class Early(Setting):
    """An inference that goes on with a sample only until it is decided, by a rule such as "margin=0.99"."""

    stop: str


@dataclass(frozen=True)
class Result(Setting):
    """The result of one inference. An SC operation is one gate on one pair of bits, counted."""

    accuracy: float
    seconds: float
    sc_operations: int

    @property
    def sc_operations_per_second(self) -> float:
        """SC operations a second, encoding and scheduling included."""
        return self.sc_operations / self.seconds


@dataclass(frozen=True)
class EarlyResult(Early):
    """The result of an inference with early exit: how many samples took how many cycles, in pairs of both."""

    accuracy: float
    cycles_histogram: tuple[tuple[int, int], ...]
    seconds: float

    @property
    def samples(self) -> int:
        """How many samples there were."""
        return sum(count for _, count in self.cycles_histogram)

    @property
    def mean_cycles(self) -> float:
        """The mean over the samples."""
        return sum(cycles * count for cycles, count in self.cycles_histogram) / self.samples

    @property
    def median_cycles(self) -> int:
        """The least number of cycles that is enough for half of the samples."""
        done = accumulate(count for _, count in self.cycles_histogram)
        return next(n for (n, _), d in zip(self.cycles_histogram, done, strict=True) if 2 * d >= self.samples)

    @property
    def undecided(self) -> float:
        """The share of the samples that took all cycles."""
        return dict(self.cycles_histogram).get(most_cycles(self.length), 0) / self.samples


class Results(Sequence[Result]):
    """The results of inferences with one network, shown as a table in a notebook.

    Parameters
    ----------
    results : iterable of Result
        Such as `run` yields.
    float_accuracy : float
        The accuracy of the same weights in floating point.
    score : str
        What the accuracy is: "R²" of a regression, else "accuracy".
    """

    def __init__(self, results: Iterable[Result], float_accuracy: float, score: str = "accuracy") -> None:
        self._results = tuple(results)
        self.float_accuracy = float_accuracy
        self.score = score

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        picked = self._results[index]
        return Results(picked, self.float_accuracy, self.score) if isinstance(picked, tuple) else picked

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"Results({list(self._results)}, float_accuracy={self.float_accuracy:.4f})"

    @property
    def columns(self) -> tuple[str, ...]:
        """The head of the table."""
        return ("SNG", "N", "seeds", self.score, "vs float", "Gbitop/s", "time (s)")

    @property
    def title(self) -> str:
        """The title of the table."""
        return ", ".join(["SC inference", *({result.mode for result in self} if not _several(self) else ())])

    @property
    def note(self) -> str:
        """What the columns of the table mean."""
        return (
            f"Float {self.score} {self.float_accuracy:.4f}. SNG: stochastic number generator. N: bits of a stream. "
            "Gbitop/s: 10^9 pairs of bits gated and counted a second, encoding and Dask's time included."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row a mode, generator and length, with mean and standard deviation over the seeds."""
        groups: dict[tuple[str, Length], list[Result]] = defaultdict(list)
        for result, name in zip(self, names(self), strict=True):
            groups[name, result.length].append(result)
        return [_row(name, runs, self.float_accuracy) for (name, _), runs in groups.items()]

    def _repr_html_(self) -> str:
        return _html.table(self.title, self.columns, self.rows(), self.note)


def _several(results: Iterable[Setting]) -> bool:
    return len({result.mode for result in results}) > 1


def names(results: Sequence[Setting]) -> list[str]:
    """For each result its generator, and its mode if there are several."""
    several = _several(results)
    return [f"{result.sng} {result.mode}" if several else result.sng for result in results]


def _row(name: str, runs: list[Result], float_accuracy: float) -> tuple[str, ...]:
    accuracies = [r.accuracy for r in runs]
    seconds = sum(r.seconds for r in runs) or float("nan")
    return (
        name,
        length_text(runs[0].length),
        str(len(runs)),
        _mean_text(accuracies),
        f"{mean(accuracies) - float_accuracy:+.4f}",
        f"{sum(r.sc_operations for r in runs) / seconds / 1e9:.2f}",
        f"{seconds:.3f}",
    )


def _mean_text(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def early_columns(score: str) -> tuple[str, ...]:
    """The head of the table of `early_rows`."""
    return ("SNG", "rule", score, "cycles", "median", "full", "s")


def early_rows(results: Sequence[EarlyResult]) -> list[tuple[str, ...]]:
    """A table of early exit: a row a mode, generator and rule, with mean and standard deviation over the seeds."""
    groups: dict[tuple[str, Length, str], list[EarlyResult]] = defaultdict(list)
    for result, name in zip(results, names(results), strict=True):
        groups[name, result.length, result.stop].append(result)
    return [
        (
            name,
            stop,
            _mean_text([r.accuracy for r in runs]),
            f"{mean(r.mean_cycles for r in runs):.1f}",
            f"{mean(r.median_cycles for r in runs):.0f}",
            f"{100 * mean(r.undecided for r in runs):.1f} %",
            f"{sum(r.seconds for r in runs):.2f}",
        )
        for (name, _, stop), runs in groups.items()
    ]


def early_note(early: Sequence[EarlyResult], plain: Sequence[Result]) -> str:
    """What the columns of `early_rows` mean, and whether a rule stops too early."""
    whole = {(r.sng, r.mode, r.seed, r.length): r.accuracy for r in plain}
    lost = [whole.get((r.sng, r.mode, r.seed, r.length), r.accuracy) - r.accuracy for r in early]
    note = "cycles: mean. full: samples that took all cycles. s: seconds."
    if max(lost, default=0) <= LOST:
        return note
    return (
        f"{note} A rule loses {max(lost):.2f} against all cycles: margins of few bits mislead. Begin later, such as "
        "margin=.9@64, or wait for a label that stays: margin=.9+stability=2."
    )


def length_text(length: Length) -> str:
    """A length as the command line takes it: 256, or 64/256 for the lengths of two layers."""
    return "/".join(map(str, length)) if isinstance(length, tuple) else str(length)


def most_cycles(length: Length) -> int:
    """The length of the longest streams."""
    return max(length) if isinstance(length, tuple) else length


def read_results(folder: Path, asked: Iterable[Setting], about: Mapping[str, Any]) -> dict[Setting, Any]:
    """What results.json of a folder, and those of the parts in it, say of the settings that are asked for.

    Parameters
    ----------
    folder : Path
    asked : iterable of Setting
    about : dict
        What a results.json says first, such as the version of scdask and the name of the job.

    Returns
    -------
    dict of Setting to Result or EarlyResult

    Raises
    ------
    BitstreamError
        If there is no such file, one is of another job, or has a setting that is not asked for.
    """
    settings, found = set(asked), {}
    files = [folder / "results.json", *sorted(folder.glob("part-*-of-*/results.json"))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise BitstreamError(f"there is no {folder / 'results.json'} to resume from, nor one of a part")
    for file in files:
        with refused_as(f"{file} is no results.json of scdask infer"):
            report = json.loads(file.read_text())
            theirs = {name: report[name] for name in about}
            results = [_read(Setting, Result, result) for result in report["results"]]
            results += [_read(Early, EarlyResult, result) for result in report["early_exit"]]
            for name, value in about.items():
                same = isclose(value, theirs[name], rel_tol=1e-6) if name == "float_accuracy" else value == theirs[name]
                if not same:
                    raise BitstreamError(f"{file} is of another job: its {name} is {theirs[name]}, not {value}")
            for setting, result in results:
                if setting not in settings:
                    of = f"{setting.sng}, {length_text(setting.length)} cycles, seed {setting.seed}, {setting.mode}"
                    raise BitstreamError(f"{file} is of another job: it has {of}, which is not asked for")
                found[setting] = result
    return found


def _read(setting: type[Setting], result: type[Any], told: dict[str, Any]) -> tuple[Setting, Any]:
    """A setting and its result, as results.json tells them."""
    values = {field.name: told[field.name] for field in fields(result)}
    if isinstance(values["length"], list):
        values["length"] = tuple(values["length"])
    if "cycles_histogram" in values:
        values["cycles_histogram"] = tuple(map(tuple, values["cycles_histogram"]))
    return setting(**{field.name: values[field.name] for field in fields(setting)}), result(**values)


def save_predictions(
    file: Any,
    kind: str,
    y: NDArray[Any],
    predictions: Mapping[Setting, NDArray[Any]],
    cycles: Mapping[Setting, NDArray[Any]] | None = None,
) -> None:
    """Write what was predicted to a binary file, of the kind "csv" or "npz".

    Parameters
    ----------
    file : binary file object
    kind : str
        "npz": `label`, as y, `prediction` (settings, *shape of y), `cycles` (settings, samples), and of each setting
        its `sng`, `length`, `seed`, `mode` and `stop` (settings,), the rule of early exit, if any. "csv": a row a
        sample, with its number, its label, and a column a setting; of an early exit another one with the cycles.
        Several labels or numbers have spaces between them.
    y : ndarray, shape (samples,) or (samples, n_outputs)
        What is right.
    predictions, cycles : dict of Setting to ndarray
        As `infer` and `infer_early` fill them.
    """
    taken = cycles or {}
    if kind == "npz":
        given = list(predictions)
        lengths = [s.length if isinstance(s.length, int) else length_text(s.length) for s in given]
        of_all = [taken.get(s, np.full(len(y), most_cycles(s.length))) for s in given]
        np.savez(
            file,
            label=y,
            prediction=np.array(list(predictions.values())),
            cycles=np.array(of_all),
            sng=np.array([s.sng for s in given]),
            length=np.array(lengths),
            seed=np.array([s.seed for s in given]),
            mode=np.array([s.mode for s in given]),
            stop=np.array([s.stop if isinstance(s, Early) else "" for s in given]),
        )
        return
    columns: dict[str, Any] = {"sample": range(len(y)), "label": _cells(y)}
    for setting, labels in predictions.items():
        name = f"{setting.sng} N={length_text(setting.length)} seed={setting.seed} {setting.mode}"
        if isinstance(setting, Early):
            name = f"{name} {setting.stop}"
        columns[name] = _cells(labels)
        if setting in taken:
            columns[f"cycles of {name}"] = taken[setting].tolist()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    file.write(text.getvalue().encode())


def _cells(labels: NDArray[Any]) -> list[Any]:
    """A cell for each sample."""
    cells: list[Any] = labels.tolist()
    return cells if labels.ndim == 1 else [" ".join(map(str, row)) for row in cells]

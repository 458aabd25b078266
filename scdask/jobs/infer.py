"""SC inference of a trained perceptron: accuracy for each generator, length and seed."""

from __future__ import annotations

import csv
import io
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, overload

import dask.array as da
import numpy as np

from .. import _html
from ..chunked.sizes import MAC_RATE, task_bits
from ..core.checks import check_encoding
from ..core.dispatch import BACKENDS
from ..errors import BitstreamError, CorrelationWarning
from ..generators import LFSR, SNG, Bernoulli, Halton, Sobol, VanDerCorput
from .names import SNGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from ..computing import Place
    from ..core.words import Mode
    from ..layers import SCMLP


@dataclass(frozen=True)
class Setting:
    """One inference: the generators by name, the length of the streams, the seed and the mode of the products."""

    sng: str
    length: int
    seed: int
    mode: Mode


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


class Results(Sequence[Result]):
    """The results of inferences in one mode with one perceptron, shown as a table in a notebook.

    Parameters
    ----------
    results : iterable of Result
        Such as `run` yields.
    float_accuracy : float
        The accuracy of the same weights in floating point.
    """

    COLUMNS = ("SNG", "N", "seeds", "accuracy", "vs float", "Gbitop/s", "time (s)")

    def __init__(self, results: Iterable[Result], float_accuracy: float) -> None:
        self._results = tuple(results)
        self.float_accuracy = float_accuracy
        modes = sorted({result.mode for result in self})
        if len(modes) > 1:
            raise BitstreamError(f"results are those of one mode, not of {' and '.join(modes)}")

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Result | Results:
        picked = self._results[index]
        return Results(picked, self.float_accuracy) if isinstance(picked, tuple) else picked

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"Results({list(self._results)}, float_accuracy={self.float_accuracy:.4f})"

    @property
    def title(self) -> str:
        """The title of the table."""
        return f"SC inference, {self[0].mode}" if self else "SC inference"

    @property
    def note(self) -> str:
        """What the columns of the table mean."""
        return (
            f"Float accuracy {self.float_accuracy:.4f}. SNG: stochastic number generator. N: bits of a stream. "
            "Gbitop/s: 10^9 pairs of bits gated and counted a second, encoding and Dask's time included."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table: a row of COLUMNS a generator and length, with mean and standard deviation over the seeds."""
        groups: dict[tuple[str, int], list[Result]] = defaultdict(list)
        for result in self:
            groups[result.sng, result.length].append(result)
        return [_row(runs, self.float_accuracy) for runs in groups.values()]

    def _repr_html_(self) -> str:
        return _html.table(self.title, self.COLUMNS, self.rows(), self.note)


def _row(runs: list[Result], float_accuracy: float) -> tuple[str, ...]:
    accuracies = [r.accuracy for r in runs]
    spread = f" ± {stdev(accuracies):.4f}" if len(runs) > 1 else ""
    seconds = sum(r.seconds for r in runs) or float("nan")
    return (
        runs[0].sng,
        str(runs[0].length),
        str(len(runs)),
        f"{mean(accuracies):.4f}{spread}",
        f"{mean(accuracies) - float_accuracy:+.4f}",
        f"{sum(r.sc_operations for r in runs) / seconds / 1e9:.2f}",
        f"{seconds:.3f}",
    )


def settings(
    sngs: Sequence[str], lengths: Sequence[int], mode: Mode, *, seed: int = 0, repeat: int = 1
) -> list[Setting]:
    """All combinations as settings; a generator without a seed comes once, however often the others are repeated."""
    for sng, length in product(sngs, lengths):
        for generator in generators(sng, seed, 1)[0]:
            check_encoding(length, generator)
    return [
        Setting(sng, length, seed + r, mode)
        for sng, length in product(sngs, lengths)
        for r in range(repeat if SNGS[sng] else 1)
    ]


def generators(name: str, seed: int, n_layers: int) -> list[tuple[SNG, SNG]]:
    """The (inputs, weights) generators of each layer.

    "sobol": dimensions 1 and 2, scrambled by the seed unless it is 0. "halton": bases 2 and 3. "lfsr": two registers of
    16 bits with different polynomials. "bernoulli": independent streams. "shared": one register for both, wrong
    on purpose: the operands are correlated.
    """
    x_lfsr = LFSR(seed=1 + (0xACE0 + 77 * seed) % 65535)
    w_lfsr = LFSR(taps=(16, 5, 3, 2), seed=1 + (0x1D0E + 131 * seed) % 65535)
    first = 2 * n_layers * seed
    pairs: dict[str, list[tuple[SNG, SNG]]] = {
        "sobol": [(Sobol(1, seed=seed or None), Sobol(2, seed=seed or None))] * n_layers,
        "halton": [(VanDerCorput(), Halton(3))] * n_layers,
        "lfsr": [(x_lfsr, w_lfsr)] * n_layers,
        "bernoulli": [(Bernoulli(first + 2 * i), Bernoulli(first + 2 * i + 1)) for i in range(n_layers)],
        "shared": [(x_lfsr, x_lfsr)] * n_layers,
    }
    return pairs[name]


def _streamed(model: SCMLP, setting: Setting) -> SCMLP:
    """The model with the generators and the mode of a setting."""
    pairs = generators(setting.sng, setting.seed, len(model.encoding_layers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorrelationWarning)  # "shared" correlates on purpose.
        return model.with_generators(pairs, setting.mode)


def infer(
    model: SCMLP,
    x: NDArray[Any],
    y: NDArray[Any],
    setting: Setting,
    place: Place,
    *,
    predictions: dict[Setting, NDArray[Any]] | None = None,
) -> Result:
    """Classify all inputs and compare with the labels.

    Parameters
    ----------
    model : SCMLP
    x : ndarray, shape (samples, n_inputs)
        In [0, 1].
    y : ndarray, shape (samples,)
        Labels.
    setting : Setting
    place : Place
        The scheduler that computes.
    predictions : dict, optional
        Is given the labels (samples,) that the model predicts, under the setting.
    """
    check_data(model, x, y)
    streamed = _streamed(model, setting)
    operations = setting.length * model.products
    operations *= 2 if setting.mode == "split" else 1
    rows = max(1, min(len(x), int(task_bits(MAC_RATE) / max(1, operations))))
    images = da.from_array(x, chunks=(rows, -1))
    if place.gpu:
        images = BACKENDS["cupy"].from_numpy(images)
    labels = streamed.predict(images, setting.length)
    start = time.perf_counter()
    if predictions is None:
        count = place.compute((labels == da.from_array(y, chunks=rows)).sum())
    else:
        predictions[setting] = place.compute(labels)
        count = (predictions[setting] == y).sum()
    seconds = time.perf_counter() - start
    return Result(**vars(setting), accuracy=int(count) / len(x), seconds=seconds, sc_operations=operations * len(x))


def run(
    model: SCMLP,
    x: NDArray[Any],
    y: NDArray[Any],
    settings: Iterable[Setting],
    place: Place,
    *,
    predictions: dict[Setting, NDArray[Any]] | None = None,
) -> Iterator[Result]:
    """Do one inference after the other, and yield each result when it is there; see `infer`.

    A few inputs are classified before, on every worker, so that the time of the first result is as that of the others.
    """
    todo = list(settings)
    check_data(model, x, y)
    shortest = {s.sng: s for s in sorted(todo, key=lambda setting: setting.length, reverse=True)}
    place.run_everywhere(partial(_classify_few, model, x[:16], list(shortest.values()), place.gpu))
    for setting in todo[:1]:
        infer(model, x[:1], y[:1], setting, place)
    for setting in todo:
        yield infer(model, x, y, setting, place, predictions=predictions)


def _classify_few(model: SCMLP, x: NDArray[Any], settings: list[Setting], gpu: bool) -> None:
    for setting in settings:
        streamed = _streamed(model, setting)
        for rows in (x[:1], x):  # Different kernels multiply few rows and many.
            streamed.predict(BACKENDS["cupy"].from_numpy(rows) if gpu else rows, setting.length)


def check_data(model: SCMLP, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Raise unless the data are inputs of the model, with a label each."""
    (n_inputs,) = model.input_shape
    if x.ndim != 2 or x.shape[1] != n_inputs or y.shape != x.shape[:1] or not len(x):
        raise BitstreamError(f"the data are x (samples, {n_inputs}) and y (samples,), not {x.shape} and {y.shape}")
    kinds = [labels.dtype.kind in "biuf" for labels in (y, model.classes)]
    alike = all(kinds) or y.dtype.kind == model.classes.dtype.kind != "V"
    unknown = y[~np.isin(y, model.classes)] if alike else y
    if unknown.size:
        classes = ", ".join(map(str, model.classes))
        raise BitstreamError(f"the data have the label {unknown[0]}, but the classes of the model are {classes}")


def save_predictions(file: Any, kind: str, y: NDArray[Any], predictions: Mapping[Setting, NDArray[Any]]) -> None:
    """Write the labels that were predicted to a binary file, of the kind "csv" or "npz".

    Parameters
    ----------
    file : binary file object
    kind : str
        "npz": `label` (samples,), `prediction` (settings, samples), and of each setting its `sng`, `length`, `seed` and
        `mode` (settings,). "csv": a row a sample, with its number, its label, and a column a setting.
    y : ndarray, shape (samples,)
        The right labels.
    predictions : dict of Setting to ndarray, shape (samples,)
    """
    if kind == "npz":
        arrays: dict[str, Any] = {"label": y, "prediction": np.array(list(predictions.values()))}
        for field in fields(Setting):
            arrays[field.name] = np.array([getattr(setting, field.name) for setting in predictions])
        np.savez(file, **arrays)
        return
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["sample", "label", *(f"{s.sng} N={s.length} seed={s.seed} {s.mode}" for s in predictions)])
    table.writerows(zip(range(len(y)), y.tolist(), *(labels.tolist() for labels in predictions.values()), strict=True))
    file.write(text.getvalue().encode())


def float_accuracy(model: SCMLP, x: NDArray[Any], y: NDArray[Any]) -> float:
    """The accuracy of the same weights in floating point."""
    check_data(model, x, y)
    return float(np.mean(model.predict_float(x) == y))

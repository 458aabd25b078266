"""The shortest streams that a network's layers can do with: a greedy search on calibration data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _html
from ..computing import compute
from ..core.checks import INTEGERS, as_host
from ..errors import BitstreamError
from .base import encodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from .network import SCSequential


@dataclass(frozen=True)
class Trial:
    """A try of the search.

    Parameters
    ----------
    lengths : tuple of int
        Bits of a stream of each layer that encodes.
    cycles : float
        What they cost, see `search_lengths`.
    accuracy : float
    taken : bool
        Whether the search went on from here.
    """

    lengths: tuple[int, ...]
    cycles: float
    accuracy: float
    taken: bool = False


@dataclass(frozen=True)
class Search:
    """What `search_lengths` has found, shown as a table of all that was tried.

    Parameters
    ----------
    target : float
        The accuracy that was asked for.
    trials : tuple of Trial
        Step by step, each step's own last.
    """

    COLUMNS = ("lengths", "cycles", "accuracy", "")

    target: float
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The last one that was taken."""
        return [trial for trial in self.trials if trial.taken][-1]

    @property
    def lengths(self) -> tuple[int, ...]:
        """The shortest lengths that were found, as `predict` takes them."""
        return self.best.lengths

    def rows(self) -> list[tuple[str, ...]]:
        """The table, a row of COLUMNS a try."""
        return [
            (
                ", ".join(f"{n:,}" for n in trial.lengths),
                f"{trial.cycles:,.6g}",
                f"{trial.accuracy:.4f}",
                "best" if trial is self.best else "taken" if trial.taken else "",
            )
            for trial in self.trials
        ]

    @property
    def note(self) -> str:
        """What the columns mean."""
        return (
            f"Target: an accuracy of {self.target:.4f}. Lengths: bits of a stream, a layer that encodes each. Cycles: "
            "their sum, or their mean weighted by products."
        )

    def __repr__(self) -> str:
        return f"Search of lengths\n{_html.plain(self.COLUMNS, self.rows())}\n{self.note}"

    def _repr_html_(self) -> str:
        return _html.table("Search of lengths", self.COLUMNS, self.rows(), self.note)


def search_lengths(
    network: SCSequential,
    x: Any,
    y: ArrayLike,
    accuracy: float | None = None,
    *,
    loss: float = 0.005,
    longest: int = 1024,
    shortest: int = 16,
    weighted: bool = False,
) -> Search:
    """Search, for each layer, the shortest streams with which a network is accurate enough on calibration data.

    The search is greedy. It starts with `longest` for all layers, halves in turn each layer's length, and goes on from
    the try that is the most accurate (of equal ones, the cheapest; then the first), until each further one would miss
    the target or the shortest length. It takes at most L**2 log2(longest / shortest) + 1 runs for L layers, and always
    finds the same. What it finds need not be the best there is, and says as much about other data as the data are many:
    the accuracy of n samples has a standard error of sqrt(a (1 - a) / n).

    Parameters
    ----------
    network : SCSequential
        Of classes or labels.
    x, y : array_like, shape (samples, *input_shape) and (samples,) or (samples, n)
        Calibration data with their labels. A Dask array `x` is computed at each try.
    accuracy : float, optional
        The least share of labels that are to be right.
    loss : float
        Where no accuracy is given, it is that in floating point less this.
    longest, shortest : int
        Bits of a stream.
    weighted : bool
        What counts as cost: False, the sum of the lengths, which is the time of circuits that take a layer after the
        other; True, their mean weighted by the products of each layer, which is the number of gates' operations.

    Returns
    -------
    Search
        Its `lengths` are for `network.predict(x, lengths=...)`; it shows what was tried.

    Raises
    ------
    BitstreamError
        If the longest streams miss the target, the data do not fit, or no layer encodes.
    """
    if network.readout == "values" or not network.encoding_layers:
        raise BitstreamError("lengths are searched for a network of classes or labels with layers that encode")
    for bits in (longest, shortest):
        if isinstance(bits, bool) or not isinstance(bits, INTEGERS) or bits < 1:
            raise BitstreamError(f"the length of a stream is an integer of at least 1, not {bits!r}")
    for name, value in (("accuracy", accuracy), ("loss", loss)):
        if value is not None and (not isinstance(value, float | int | np.number) or np.isnan(value)):
            raise BitstreamError(f"the {name} of a search is a number, not {value!r}")
    right = as_host(y, "y")
    if accuracy is None:
        accuracy = _share(network.predict_float(x), right) - loss
    costs = _costs(network, weighted)
    trials: list[Trial] = []
    start = _tried(network, x, right, costs, (int(longest),) * len(costs))
    if start.accuracy < accuracy:
        raise BitstreamError(
            f"streams of {longest} bits have an accuracy of {start.accuracy:.4f}, below the target {accuracy:.4f}"
        )
    best: Trial | None = start
    while best is not None:
        trials.append(Trial(best.lengths, best.cycles, best.accuracy, taken=True))
        nearby = [
            (*best.lengths[:i], n // 2, *best.lengths[i + 1 :])
            for i, n in enumerate(best.lengths)
            if n // 2 >= shortest
        ]
        tried = [_tried(network, x, right, costs, lengths) for lengths in nearby]
        enough = [trial for trial in tried if trial.accuracy >= accuracy]
        best = min(enough, key=lambda trial: (-trial.accuracy, trial.cycles), default=None)
        trials += [trial for trial in tried if trial is not best]
    return Search(float(accuracy), tuple(trials))


def _costs(network: SCSequential, weighted: bool) -> list[float]:
    if not weighted:
        return [1.0] * len(network.encoding_layers)
    products = [n.products(shape) for n, shape in zip(network.layers, network.shapes, strict=False) if encodes(n)]
    return [n / max(1, sum(products)) for n in products]


def _tried(network: SCSequential, x: Any, y: Any, costs: list[float], lengths: Sequence[int]) -> Trial:
    share = _share(network.predict(x, lengths=lengths), y)
    return Trial(tuple(lengths), sum(c * n for c, n in zip(costs, lengths, strict=True)), share)


def _share(predicted: Any, right: Any) -> float:
    (labels,) = compute(predicted, name="lengths")
    if labels.shape != right.shape or not right.size:
        raise BitstreamError(f"the calibration data need labels of shape {labels.shape}, not {right.shape}")
    return float(np.mean(labels == right))

"""The figures of the jobs, drawn with Matplotlib and without a screen."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .jobs.infer import Result


def accuracy_figure(results: Sequence[Result], float_accuracy: float, title: str) -> Any:
    """Accuracy against the length of the streams: a line a generator, its mean over the seeds, and their range.

    Parameters
    ----------
    results : sequence of Result
    float_accuracy : float
        Drawn as a dashed line.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = require("matplotlib.figure", "apps").Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(float_accuracy, color="black", linestyle="--", linewidth=1, label=f"float ({float_accuracy:.3f})")
    by_sng: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_sng[result.sng][result.length].append(result.accuracy)
    for sng, by_length in by_sng.items():
        lengths = sorted(by_length)
        means = [sum(by_length[n]) / len(by_length[n]) for n in lengths]
        (line,) = axes.plot(lengths, means, marker="o", label=sng)
        low, high = ([pick(by_length[n]) for n in lengths] for pick in (min, max))
        if low != high:
            axes.fill_between(lengths, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    ticks = sorted({result.length for result in results})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(n) for n in ticks])
    axes.minorticks_off()
    axes.set(xlabel="stream length N (bits)", ylabel="accuracy", title=title)
    axes.grid(alpha=0.3)
    axes.legend(title="number generator", loc="lower right")
    return figure

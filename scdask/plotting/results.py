"""Curves of results: accuracies of inferences, and the course of a training."""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

from .._extras import require
from ..errors import BitstreamError, printable
from .axes import BLUE, PLAIN, VERMILION, add_legend, axes_or_new, label_lengths, label_log_axis, line_styles
from .streams import plot_raster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

CURVE = ("mean_cycles", "accuracy")
RULES: tuple[dict[str, Any], ...] = (
    {"linestyle": "--"},
    {"linestyle": ":", "markerfacecolor": "white"},
    {"linestyle": "-.", "fillstyle": "left"},
)


class Result(Protocol):
    """What a figure reads of an inference."""

    @property
    def sng(self) -> str:
        """The generator, by name."""

    @property
    def mode(self) -> str:
        """How signed weights multiply."""

    @property
    def length(self) -> Any:
        """Bits of a stream, or a tuple of them, one for each layer."""

    @property
    def accuracy(self) -> float:
        """The share that was right."""


class EarlyResult(Result, Protocol):
    """What a figure reads of an inference with early exit."""

    @property
    def stop(self) -> str:
        """The rule, such as "margin=0.99"."""

    @property
    def mean_cycles(self) -> float:
        """The mean over the samples."""


class Course(Protocol):
    """What a figure reads of a training: a number for each epoch that is done."""

    @property
    def losses(self) -> Sequence[float]:
        """Means over each epoch, in nats."""

    @property
    def train_accuracies(self) -> Sequence[float]:
        """Shares that were right, over each epoch."""

    @property
    def test_accuracies(self) -> Sequence[float]:
        """Shares that were right after each epoch; empty without test data."""


def plot_accuracy(results: Iterable[Result], float_accuracy: float | None = None, *, ax: Any = None) -> Any:
    """Accuracy against the length of the streams: a line a generator, its mean over the seeds, and their range.

    Of several modes each has a line. Layers with lengths of their own are drawn where all have their mean.

    Parameters
    ----------
    results : iterable of Result
        Such as the `Results` of `scdask.jobs.infer`.
    float_accuracy : float, optional
        Drawn as a dashed line. By default that of the results, if they have one.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    exact, score = _about(results, float_accuracy)
    results = list(results)
    if not results:
        raise BitstreamError("a figure of accuracies takes at least one result, not 0")
    ax = axes_or_new(ax)
    if exact is not None:
        ax.axhline(exact, color="black", linestyle="--", linewidth=1, label=f"float ({exact:.3f})")
    name = _naming(results)
    for (line, by_length), style in zip(_by_length(results, name).items(), line_styles(), strict=False):
        lengths = sorted(by_length)
        ax.plot(lengths, [fmean(by_length[n]) for n in lengths], label=printable(line), **style)
        low, high = ([pick(by_length[n]) for n in lengths] for pick in (min, max))
        if low != high:
            ax.fill_between(lengths, low, high, color=style["color"], alpha=0.2, linewidth=0)
    label_lengths(ax, sorted({_mean_length(result) for result in results}))
    ax.set_ylabel(score)
    _name_generators(ax)
    return ax


def plot_early_exit(
    early: Iterable[EarlyResult], results: Iterable[Result] = (), float_accuracy: float | None = None, *, ax: Any = None
) -> Any:
    """Accuracy against the mean of the cycles that samples took: a mark a rule, a dashed line a generator and rule.

    Parameters
    ----------
    early : iterable of EarlyResult
        Such as `scdask.jobs.infer.infer_early` returns; of several seeds the mean is drawn.
    results : iterable of Result, optional
        Inferences with streams of a fixed length: a faint line a generator.
    float_accuracy : float, optional
        As for `plot_accuracy`.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    exact, score = _about(results, float_accuracy)
    early, results = list(early), list(results)
    if not early:
        raise BitstreamError("a figure of early exit takes at least one result of it, not 0")
    ax = axes_or_new(ax)
    if exact is not None:
        ax.axhline(exact, color="black", linestyle="--", linewidth=1, label=f"float ({exact:.3f})")
    name = _naming([*results, *early])
    styles = dict(zip(dict.fromkeys(map(name, [*results, *early])), line_styles(), strict=False))
    label = "streams of a fixed length"
    for line, by_length in _by_length(results, name).items():
        lengths = sorted(by_length)
        style = {**styles[line], "alpha": 0.45, "markersize": 3}
        ax.plot(lengths, [fmean(by_length[n]) for n in lengths], label=label, **style)
        label = "_"
    groups: dict[tuple[str, str], dict[str, list[EarlyResult]]] = defaultdict(lambda: defaultdict(list))
    for result in early:
        groups[name(result), _of_rule(result.stop, 0)][result.stop].append(result)
    marks = dict(zip(dict.fromkeys(rule for _, rule in groups), cycle(RULES), strict=False))
    for (line, rule), by_rule in groups.items():
        points = [[fmean(getattr(r, what) for r in runs) for runs in by_rule.values()] for what in CURVE]
        ax.plot(*points, label=printable(f"{line}, {rule}"), **styles[line] | marks[rule])
        for stop, x, y in zip(by_rule, *points, strict=True):
            number = printable(_of_rule(stop, 2))
            ax.annotate(number, (x, y), (4, -4), textcoords="offset points", va="top", fontsize="x-small", **PLAIN)
    label_lengths(ax, sorted({*map(_mean_length, results), *map(_mean_length, early)}))
    ax.set(xlabel="mean cycles of a sample", ylabel=score)
    _name_generators(ax)
    return ax


def _of_rule(stop: str, which: int) -> str:
    """The names of rules such as "margin=0.9+stability=2" (0), or their numbers (2)."""
    return "+".join(rule.partition("=")[which] for rule in stop.split("+"))


def _about(results: Any, float_accuracy: float | None) -> tuple[float | None, str]:
    """The score in floating point, and what it is."""
    exact = getattr(results, "float_accuracy", None) if float_accuracy is None else float_accuracy
    score = getattr(results, "score", "accuracy")
    return exact, "accuracy (share right)" if score == "accuracy" else score


def _naming(results: Sequence[Result]) -> Callable[[Result], str]:
    """How lines are named: by the generator, and by the mode if there are several."""
    several = len({result.mode for result in results}) > 1
    return lambda result: f"{result.sng} {result.mode}" if several else result.sng


def _by_length(results: Iterable[Result], name: Callable[[Result], str]) -> dict[str, dict[float, list[float]]]:
    """The accuracies by line and length."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        found[name(result)][_mean_length(result)].append(result.accuracy)
    return found


def _mean_length(result: Result) -> float:
    return fmean(result.length) if isinstance(result.length, tuple) else result.length


def _name_generators(ax: Any) -> None:
    add_legend(ax, title="number generator", loc="lower right")
    for text in ax.get_legend().get_texts():
        text.set(**PLAIN)


def plot_loss(state: Course, *, ax: Any = None) -> Any:
    """The loss of a training against the epoch, on a logarithmic axis.

    Parameters
    ----------
    state : scdask.snn.State
        After at least one epoch.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _epoch_axes(state, ax)
    ax.plot(range(1, len(state.losses) + 1), state.losses, color="black", marker=_few(state, "o"))
    if min(state.losses) > 0:
        ax.set_yscale("log")
        label_log_axis(ax.yaxis)
    ax.set_ylabel(f"training loss (nats{', log scale' * (ax.get_yscale() == 'log')})")
    return ax


def plot_training_accuracy(state: Course, *, ax: Any = None) -> Any:
    """The accuracies of a training against the epoch, and the last of them in the legend.

    Parameters
    ----------
    state : scdask.snn.State
        After at least one epoch.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    ax = _epoch_axes(state, ax)
    curves = {"training": state.train_accuracies, "test": state.test_accuracies}
    styles = ({"color": VERMILION, "linestyle": "--"}, {"color": BLUE, "linestyle": "-"})
    for (name, accuracies), style, marker in zip(curves.items(), styles, "so", strict=True):
        if accuracies:
            epochs = range(1, len(accuracies) + 1)
            ax.plot(epochs, accuracies, label=f"{name} ({accuracies[-1]:.3f})", marker=_few(state, marker), **style)
    ax.set_ylabel("accuracy (share right)")
    add_legend(ax, loc="lower right")
    return ax


def accuracy_figure(results: Iterable[Result], title: str, early: Sequence[EarlyResult] = ()) -> Any:
    """The figure of `scdask infer`, for a file: `plot_accuracy` with a title, and `plot_early_exit` beside it.

    Returns
    -------
    matplotlib.figure.Figure
    """
    size = (11, 4.5) if early else (7, 4.5)
    figure = require("matplotlib.figure", "apps").Figure(figsize=size, layout="constrained")
    first, *beside = figure.subplots(1, 1 + bool(early), sharey=True, squeeze=False)[0]
    plot_accuracy(results, ax=first).set_title(printable(title), **PLAIN)
    for ax in beside:
        plot_early_exit(early, results, ax=ax).set_title("early exit")
    return figure


def training_figure(state: Course, trains: Sequence[NDArray[Any]], title: str, sample: str) -> Any:
    """The figure of `scdask train`: loss, accuracy, and a raster of the spikes that one sample causes, for a file.

    Parameters
    ----------
    state : scdask.snn.State
    trains : sequence of ndarray, each (steps, n_neurons)
        Spikes, 0 and 1, of the inputs and of each hidden layer.
    title, sample : str
        The title of the figure, and what the sample is.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = require("matplotlib.figure", "apps").Figure(figsize=(10, 5.5), layout="constrained")
    figure.suptitle(printable(title), **PLAIN)
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.3))
    plot_loss(state, ax=figure.add_subplot(grid[0, 0])).set_xlabel("")
    plot_training_accuracy(state, ax=figure.add_subplot(grid[1, 0]))
    raster = grid[:, 1].subgridspec(len(trains), 1, height_ratios=[train.shape[1] ** 0.5 for train in trains])
    for i, train in enumerate(trains):
        ax = plot_raster(train, ax=figure.add_subplot(raster[i]))
        ax.set_ylabel("input" if i == 0 else f"neuron, layer {i}")
        if i == 0:
            ax.set_title(f"spikes: {sample}", fontsize="medium")
        if i < len(trains) - 1:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    return figure


def _epoch_axes(state: Course, ax: Any) -> Any:
    if not state.losses:
        raise BitstreamError("the curves of a training begin after its first epoch, but 0 are done")
    ax = axes_or_new(ax)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.3)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def _few(state: Course, marker: str) -> str:
    return marker if len(state.losses) < 10 else ""

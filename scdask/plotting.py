"""Figures, drawn with Matplotlib.

Every `plot_...` function draws on the given axes, or on those of a new figure, and returns them. Lines differ in colour
and in marker; the colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from . import vector_ops
from ._extras import require
from .bitstream import Bitstream
from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from .jobs.infer import Result, Results
    from .snn import State

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
MARKERS = "os^DvPX"  # one more than there are colours, so that pairs of them repeat late
DASHES = ("--", ":", "-.")
ZERO = "#DCE6EC"  # a bit that is 0
WIDEST, MOST = 256, 64  # bits and streams of a picture
NUMBERED = 8  # streams up to which a correlation matrix shows its numbers
READABLE = 4.5  # points of a letter
NARROW = 250  # points of the width of axes
SEPARATED = 32  # streams up to which a line is drawn between two of a picture


def plot_accuracy(results: Iterable[Result], float_accuracy: float | None = None, *, ax: Any = None) -> Any:
    """Accuracy against the length of the streams: a line a generator, its mean over the seeds, and their range.

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
    exact = getattr(results, "float_accuracy", None) if float_accuracy is None else float_accuracy
    results = list(results)
    if not results:
        raise BitstreamError("a figure of accuracies takes at least one result, not 0")
    ax = _axes(ax)
    if exact is not None:
        ax.axhline(exact, color="black", linestyle="--", linewidth=1, label=f"float ({exact:.3f})")
    by_sng: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        by_sng[result.sng][result.length].append(result.accuracy)
    for (sng, by_length), style in zip(by_sng.items(), _styles(), strict=False):
        lengths = sorted(by_length)
        ax.plot(lengths, [sum(by_length[n]) / len(by_length[n]) for n in lengths], label=sng, **style)
        low, high = ([pick(by_length[n]) for n in lengths] for pick in (min, max))
        if low != high:
            ax.fill_between(lengths, low, high, color=style["color"], alpha=0.2, linewidth=0)
    _length_axis(ax, [result.length for result in results])
    ax.set_ylabel("accuracy (share right)")
    _legend(ax, title="number generator", loc="lower right")
    return ax


def plot_rmse(
    lengths: ArrayLike,
    rmse: Mapping[str, ArrayLike],
    theory: Mapping[str, ArrayLike] | None = None,
    *,
    ax: Any = None,
) -> Any:
    """Root mean square error (RMSE) against the length of the streams, both on logarithmic axes.

    An error of exactly 0 is marked at the lower edge.

    Parameters
    ----------
    lengths : array_like of int, shape (n,)
    rmse : mapping of str to array_like, each (n,)
        Measured errors by their name: lines with markers.
    theory : mapping of str to array_like, each (n,), optional
        Expected errors by their formula: dashed lines.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    n = np.asarray(lengths)
    curves, formulas = (
        {name: np.asarray(values, np.float64) for name, values in given.items()} for given in (rmse, theory or {})
    )
    for name, values in (curves | formulas).items():
        if n.ndim != 1 or values.shape != n.shape:
            raise BitstreamError(f"lengths {n.shape} do not go with errors {values.shape} of {name}")
        if (values < 0).any():
            raise BitstreamError(f"a root mean square error is not negative, but {name} has {values.min():g}")
    ax = _axes(ax)
    ax.set_yscale("log")
    for (name, values), style in zip(curves.items(), _styles(), strict=False):
        ax.plot(n, np.where(values > 0, values, np.nan), label=name, **style)
        exact = n[values == 0]
        if exact.size:
            edge = ax.get_xaxis_transform()
            points = {"color": style["color"], "marker": style["marker"], "linestyle": "", "clip_on": False}
            ax.plot(exact, np.zeros(len(exact)), transform=edge, **points)
            ax.annotate("exactly 0", (exact[-1], 0), (-6, 4), edge, "offset points", ha="right", fontsize="small")
    for (name, values), dashes in zip(formulas.items(), cycle(DASHES), strict=False):
        ax.plot(n, values, color="black", linestyle=dashes, linewidth=1, label=name)
    _length_axis(ax, n.tolist())
    _plain_log_ticks(ax.yaxis)
    ax.set_ylabel("RMSE")
    _legend(ax)
    return ax


def plot_raster(spikes: Any, *, ax: Any = None) -> Any:
    """Spikes over time: a row a neuron, a mark a spike.

    Parameters
    ----------
    spikes : array of 0 and 1, shape (steps, n_neurons)
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    train = _on_host(spikes)
    if train.ndim != 2:
        raise BitstreamError(f"a raster is one of spikes (steps, n_neurons), not {train.shape}")
    ax = _axes(ax)
    steps, neurons = train.shape
    width = min(3.0, max(0.5, 0.6 * _points(ax)[0] / max(1, steps)))
    if neurons:
        ax.eventplot([row.nonzero()[0] for row in train.T], linelengths=0.8, linewidths=width, colors="black")
    ax.set(xlim=(-0.7, steps - 0.3), ylim=(-1, neurons), xlabel="time step", ylabel="neuron")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return ax


def plot_scc(matrix: Any, labels: Sequence[str] | None = None, *, ax: Any = None) -> Any:
    """A matrix of correlations (SCC), such as `scc_matrix` gives: blue for -1, white for 0, red for 1.

    Parameters
    ----------
    matrix : array of float, shape (n, n)
        -1 to 1. Its numbers are shown for up to 8 streams, if there is room for them.
    labels : sequence of str, optional
        Names of the n streams.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    values = _on_host(matrix)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or (labels is not None and len(labels) != len(values)):
        names = "" if labels is None else f" with {len(labels)} labels"
        raise BitstreamError(f"a correlation matrix is (n, n), with n labels if any, not {values.shape}{names}")
    ax = _axes(ax)
    image = ax.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.figure.colorbar(image, ax=ax, label="SCC", ticks=[-1, -0.5, 0, 0.5, 1])
    size = min(9.0, 0.2 * min(_points(ax)) / max(1, len(values)))
    if len(values) <= NUMBERED and size >= READABLE:
        for (row, column), value in np.ndenumerate(values):
            text = f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
            colour = "white" if abs(value) > 0.6 else "black"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
    if labels is not None:
        ax.set_xticks(range(len(values)), labels, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
        ax.set_yticks(range(len(values)), labels, parse_math=False)
    else:
        for axis in (ax.xaxis, ax.yaxis):
            axis.get_major_locator().set_params(integer=True)
        ax.set_xlabel("stream")
    ax.set_ylabel("stream")
    return ax


def plot_stream(stream: Bitstream, *, ax: Any = None) -> Any:
    """The bits as a picture: a row a stream, in C order, dark for 1.

    Of long streams the first 256 bits are shown, and of many the first 64; the labels of the axes say so. Only these
    are computed.

    Parameters
    ----------
    stream : Bitstream
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if not isinstance(stream, Bitstream):
        raise BitstreamError(f"the picture of a stream is that of a Bitstream, not {type(stream).__name__}")
    if any(np.isnan(n) for n in stream.shape):
        raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
    if not stream.size:
        raise BitstreamError(f"a picture takes at least one stream, but the shape is {stream.shape}")
    length = min(stream.length, WIDEST)
    words = stream.words[..., : vector_ops.words_for(length)]
    words = _on_host(words.reshape(stream.size, words.shape[-1])[:MOST])
    bits = vector_ops.unpack_bitstream(words, length)
    ax = _axes(ax, (7.0, 0.9 + 4 * len(bits) / MOST + 0.2 * min(len(bits), 4)))
    colours = require("matplotlib.colors", "apps").ListedColormap([ZERO, BLUE])
    extent = (-0.5, length - 0.5, len(bits) - 0.5, -0.5)
    ax.imshow(bits, colours, aspect="auto", vmin=0, vmax=1, extent=extent, interpolation_stage="rgba")
    if len(bits) <= SEPARATED:
        ax.hlines(np.arange(1, len(bits)) - 0.5, -0.5, length - 0.5, colors="white", linewidths=1)
    ax.set_xticks(range(0, length, 64 if length > 128 else 16 if length > 16 else 1))
    if len(bits) <= NUMBERED:
        ax.set_yticks(range(len(bits)))
    else:
        ax.yaxis.get_major_locator().set_params(integer=True)
    bits_shown = f"first {length} of {stream.length:,}; dark: 1" if stream.length > length else "dark: 1"
    streams_shown = f"\n(first {len(bits)} of {stream.size:,})" if stream.size > len(bits) else ""
    ax.set(xlabel=f"bit ({bits_shown})", ylabel=f"stream{streams_shown}")
    return ax


def plot_loss(state: State, *, ax: Any = None) -> Any:
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
        _plain_log_ticks(ax.yaxis)
    ax.set_ylabel(f"training loss (nats{', log scale' * (ax.get_yscale() == 'log')})")
    return ax


def plot_training_accuracy(state: State, *, ax: Any = None) -> Any:
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
    _legend(ax, loc="lower right")
    return ax


def accuracy_figure(results: Results, title: str) -> Any:
    """The figure of `scdask infer`: `plot_accuracy` with a title, for a file.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = require("matplotlib.figure", "apps").Figure(figsize=(7, 4.5), layout="constrained")
    plot_accuracy(results, ax=figure.add_subplot()).set_title(title)
    return figure


def training_figure(state: State, trains: Sequence[NDArray[Any]], title: str, sample: str) -> Any:
    """The figure of `scdask train`: loss, accuracy, and a raster of the spikes that one sample causes, for a file.

    Parameters
    ----------
    state : scdask.snn.State
    trains : sequence of ndarray, each (steps, n_neurons)
        Spikes, 0 and 1, of the inputs and of each hidden layer.
    title, sample : str
        Of the figure, and what the sample is.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = require("matplotlib.figure", "apps").Figure(figsize=(10, 5.5), layout="constrained")
    figure.suptitle(title)
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


def _axes(ax: Any, size: tuple[float, float] = (7.0, 4.5)) -> Any:
    if ax is None:
        _, ax = require("matplotlib.pyplot", "apps").subplots(figsize=size, layout="constrained")
    return ax


def _epoch_axes(state: State, ax: Any) -> Any:
    if not state.losses:
        raise BitstreamError("the curves of a training begin after its first epoch, but 0 are done")
    ax = _axes(ax)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.3)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return ax


def _few(state: State, marker: str) -> str:
    return marker if len(state.losses) < 10 else ""


def _styles() -> Iterator[dict[str, Any]]:
    return ({"color": colour, "marker": marker} for colour, marker in zip(cycle(COLOURS), cycle(MARKERS)))


def _legend(ax: Any, **options: Any) -> None:
    narrow = _points(ax)[0] < NARROW
    ax.legend(**options, fontsize="x-small" if narrow else None, title_fontsize="x-small" if narrow else None)


def _points(ax: Any) -> tuple[float, float]:
    """Width and height of the axes, before the labels around them take their room."""
    box = ax.get_window_extent()
    return box.width * 72 / ax.figure.dpi, box.height * 72 / ax.figure.dpi


def _length_axis(ax: Any, lengths: Sequence[int]) -> None:
    ticks = sorted(set(lengths))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [str(n) for n in ticks])
    ax.xaxis.minorticks_off()
    ax.set_xlabel("stream length N (bits)")
    ax.grid(alpha=0.3)


def _plain_log_ticks(axis: Any) -> None:
    """Label 1, 2 and 5 of each decade with plain numbers, however short the axis is."""
    ticker = require("matplotlib.ticker", "apps")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())


def _on_host(values: Any) -> NDArray[Any]:
    array = vector_ops.on_host(values) if hasattr(values, "dtype") else values
    return np.asarray(array.compute() if hasattr(array, "dask") else array)

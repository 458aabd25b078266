"""The figures of the jobs, drawn with Matplotlib and without a screen."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from ._extras import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

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


def training_figure(
    losses: Sequence[float],
    train_accuracies: Sequence[float],
    test_accuracies: Sequence[float],
    trains: Sequence[NDArray[Any]],
    title: str,
    sample: str,
) -> Any:
    """Loss and accuracy against the epoch, and a raster of the spikes that one sample causes.

    Parameters
    ----------
    losses, train_accuracies, test_accuracies : sequence of float
        One an epoch; losses in nats.
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
    sizes = [train.shape[1] for train in trains]
    grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.3))
    loss, accuracy = (figure.add_subplot(grid[row, 0]) for row in (0, 1))
    raster = grid[:, 1].subgridspec(len(trains), 1, height_ratios=[size**0.5 for size in sizes])
    epochs = range(1, len(losses) + 1)
    marker = "." if len(losses) < 10 else ""
    loss.plot(epochs, losses, color="black", marker=marker)
    loss.set(ylabel="training loss (nats)", yscale="log")
    accuracy.plot(
        epochs, train_accuracies, color="tab:gray", marker=marker, label=f"training ({train_accuracies[-1]:.3f})"
    )
    accuracy.plot(epochs, test_accuracies, color="tab:blue", marker=marker, label=f"test ({test_accuracies[-1]:.3f})")
    accuracy.set(xlabel="epoch", ylabel="accuracy")
    accuracy.legend(loc="lower right")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for i, train in enumerate(trains):
        axes = figure.add_subplot(raster[i])
        axes.eventplot([neuron.nonzero()[0] for neuron in train.T], linelengths=0.8, linewidths=3, colors=f"C{i}")
        axes.set(xlim=(-0.7, len(train) - 0.3), ylim=(-1, sizes[i]), ylabel="input" if i == 0 else f"neuron, layer {i}")
        if i == 0:
            axes.set_title(f"spikes: {sample}", fontsize="medium")
        if i == len(trains) - 1:
            axes.set_xlabel("time step")
        else:
            axes.tick_params(labelbottom=False)
    return figure

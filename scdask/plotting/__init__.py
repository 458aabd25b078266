"""Figures, drawn with Matplotlib (`pip install "scdask[apps]"`).

Every `plot_...` function draws on the Matplotlib axes that `ax=` names, or on those of a new figure, and returns them,
so that a caller can go on with them: `plot_loss(state).set_title("digits")`.

Of streams
    `plot_stream`, which `Bitstream.plot` calls, shows their bits, a row a stream; `plot_scc` a matrix of their
    correlations; `plot_rmse` their errors against their length; `plot_raster` the spikes of neurons, which are
    streams too. Arrays may be those of any library; of lazy streams only what is shown is computed.
Of results
    `plot_accuracy` shows what `scdask.jobs.infer` found out, and `plot_early_exit` how many cycles samples took;
    `plot_loss` and `plot_training_accuracy` show the course of a training (`scdask.snn`). `accuracy_figure` and
    `training_figure` are the figures that the command line writes.
Of campaigns
    `plot_sweep` shows the means that `scdask.sweep` found, with their intervals; `sweep_figure`, with a panel for each
    value of further axes, is the figure of `scdask sweep`.

Lines differ in colour and in marker; the colours are those of Okabe and Ito, which colour-blind people tell apart.
"""

from .results import accuracy_figure, plot_accuracy, plot_early_exit, plot_loss, plot_training_accuracy, training_figure
from .streams import plot_raster, plot_rmse, plot_scc, plot_stream
from .sweeps import plot_sweep, sweep_figure

__all__ = [
    "accuracy_figure",
    "plot_accuracy",
    "plot_early_exit",
    "plot_loss",
    "plot_raster",
    "plot_rmse",
    "plot_scc",
    "plot_stream",
    "plot_sweep",
    "plot_training_accuracy",
    "sweep_figure",
    "training_figure",
]

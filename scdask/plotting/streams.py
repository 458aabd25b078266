"""Pictures of streams: their bits, their spikes, their correlations, and their errors."""

from __future__ import annotations

import math
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from .._extras import require
from ..errors import BitstreamError
from .axes import BLUE, add_legend, axes_or_new, in_memory, label_lengths, label_log_axis, line_styles, size_in_points

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike

DASHES = ("--", ":", "-.")
ZERO = "#DCE6EC"  # the colour of a bit that is 0
WIDEST, MOST = 256, 64  # most bits and streams of a picture; the bits are whole words
SEPARATED = 32  # With up to this many streams, a picture has lines between them.
NUMBERED = 8  # With up to this many streams, a picture numbers each, and a correlation matrix shows its values.
READABLE = 4.5  # least size of a letter in points


@runtime_checkable
class Streams(Protocol):
    """What `plot_stream` reads of a `Bitstream`."""

    @property
    def words(self) -> Any:
        """Packed bits, shape (*shape, n_words), of any library."""

    @property
    def length(self) -> int:
        """Bits of a stream."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of streams."""


def plot_stream(stream: Streams, *, ax: Any = None) -> Any:
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
    if not isinstance(stream, Streams):
        raise BitstreamError(f"the picture of a stream is that of a Bitstream, not {type(stream).__name__}")
    if any(np.isnan(n) for n in stream.shape):
        raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
    size = math.prod(stream.shape)
    if not size:
        raise BitstreamError(f"a picture takes at least one stream, but the shape is {stream.shape}")
    length = min(stream.length, WIDEST)
    words = stream.words[..., : WIDEST // 64]
    words = np.ascontiguousarray(in_memory(words.reshape(size, words.shape[-1])[:MOST]), "<u8")
    bits = np.unpackbits(words.view(np.uint8), axis=-1, count=length, bitorder="little")
    ax = axes_or_new(ax, (7.0, 0.9 + 4 * len(bits) / MOST + 0.2 * min(len(bits), 4)))
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
    streams_shown = f"\n(first {len(bits)} of {size:,})" if size > len(bits) else ""
    ax.set(xlabel=f"bit ({bits_shown})", ylabel=f"stream{streams_shown}")
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
    values = in_memory(matrix)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or (labels is not None and len(labels) != len(values)):
        names = "" if labels is None else f" with {len(labels)} labels"
        raise BitstreamError(f"a correlation matrix is (n, n), with n labels if any, not {values.shape}{names}")
    ax = axes_or_new(ax)
    image = ax.imshow(values, vmin=-1, vmax=1, cmap="RdBu_r")
    ax.figure.colorbar(image, ax=ax, label="SCC", ticks=[-1, -0.5, 0, 0.5, 1])
    size = min(9.0, 0.2 * min(size_in_points(ax)) / max(1, len(values)))
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
    ax = axes_or_new(ax)
    ax.set_yscale("log")
    for (name, values), style in zip(curves.items(), line_styles(), strict=False):
        ax.plot(n, np.where(values > 0, values, np.nan), label=name, **style)
        exact = n[values == 0]
        if exact.size:
            edge = ax.get_xaxis_transform()
            points = {"color": style["color"], "marker": style["marker"], "linestyle": "", "clip_on": False}
            ax.plot(exact, np.zeros(len(exact)), transform=edge, **points)
            ax.annotate("exactly 0", (exact[-1], 0), (-6, 4), edge, "offset points", ha="right", fontsize="small")
    for (name, values), dashes in zip(formulas.items(), cycle(DASHES), strict=False):
        ax.plot(n, values, color="black", linestyle=dashes, linewidth=1, label=name)
    label_lengths(ax, n.tolist())
    label_log_axis(ax.yaxis)
    ax.set_ylabel("RMSE")
    add_legend(ax)
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
    train = in_memory(spikes)
    if train.ndim != 2:
        raise BitstreamError(f"a raster is one of spikes (steps, n_neurons), not {train.shape}")
    ax = axes_or_new(ax)
    steps, neurons = train.shape
    width = min(3.0, max(0.5, 0.6 * size_in_points(ax)[0] / max(1, steps)))
    if neurons:
        ax.eventplot([row.nonzero()[0] for row in train.T], linelengths=0.8, linewidths=width, colors="black")
    ax.set(xlim=(-0.7, steps - 0.3), ylim=(-1, neurons), xlabel="time step", ylabel="neuron")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return ax

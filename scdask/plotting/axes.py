"""Axes, and what all figures have in common: colours, marks, legends and ticks."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from .._extras import require
from ..core.checks import as_host

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
MARKERS = "os^DvPX"  # There is one more than there are colours, so that pairs of them repeat late.
PLAIN = {"parse_math": False, "usetex": False}  # options of a text that holds names of others, such as of files
NARROW = 250  # width in points below which the letters of a legend are small


def axes_or_new(ax: Any, size: tuple[float, float] = (7.0, 4.5)) -> Any:
    """The given axes, or else those of a new figure, whose size is in inches."""
    if ax is None:
        _, ax = require("matplotlib.pyplot", "apps").subplots(figsize=size, layout="constrained")
    return ax


def line_styles() -> Iterator[dict[str, Any]]:
    """Yield the colour and the marker of one line after the other, without an end."""
    return ({"color": colour, "marker": marker} for colour, marker in zip(cycle(COLOURS), cycle(MARKERS)))


def add_legend(ax: Any, **options: Any) -> None:
    """Add a legend, in small letters where the axes are narrow."""
    narrow = size_in_points(ax)[0] < NARROW
    ax.legend(**options, fontsize="x-small" if narrow else None, title_fontsize="x-small" if narrow else None)


def size_in_points(ax: Any) -> tuple[float, float]:
    """Width and height of the axes, before the labels around them take their room."""
    box = ax.get_window_extent()
    return box.width * 72 / ax.figure.dpi, box.height * 72 / ax.figure.dpi


def label_lengths(ax: Any, lengths: Sequence[float]) -> None:
    """Make the horizontal axis one of the lengths of streams, each of which has a tick."""
    ticks = sorted(set(lengths))
    ax.set_xscale("log", base=2)
    ax.set_xticks(ticks, [f"{n:g}" for n in ticks])
    ax.xaxis.minorticks_off()
    ax.set_xlabel("stream length N (bits)")
    ax.grid(alpha=0.3)


def label_log_axis(axis: Any) -> None:
    """Label 1, 2 and 5 of each decade with plain numbers, however short the axis is."""
    ticker = require("matplotlib.ticker", "apps")
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axis.set_minor_locator(ticker.NullLocator())


def in_memory(values: Any) -> NDArray[Any]:
    """The values as a NumPy array, from any library; computed if they are lazy."""
    return as_host(values, "what is drawn")

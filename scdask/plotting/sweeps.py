"""Figures of campaigns: lines with the bands of their intervals, or heat maps."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._extras import require
from ..errors import SweepError, printable
from .axes import COLOURS, PLAIN, add_legend, axes_or_new, label_lengths, label_log_axis, line_styles, size_in_points

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KINDS = ("lines", "heat map")
MOST_PANELS = 6
MOST_LINES = 12
MANY = len(COLOURS)  # values of two numeric axes from which on a heat map tells more than lines
WIDE = 30  # the ratio of the largest to the smallest value from which on an axis is logarithmic
BESIDE = 0.4  # of the room of a text on the axis x, over which marks of several lines are spread
LETTER = 8  # room of a letter in points
ALIKE = 0.1  # relative: theories that differ less are one line
BESIDES = {"theory": "theory of random bits", "binary_rmse": "binary numbers of 8 bits"}
LABELS = {"length": "stream length N (bits)", "sng": "number generator", "fault": "share of the bits that are flipped"}


class Roles(NamedTuple):
    """What the axes of a campaign are in its figure; one with one value is nothing."""

    x: str | None
    lines: str | None
    panels: tuple[str, ...]
    heat_map: bool


def roles(values: Mapping[str, Any], x: str | None = None, lines: str | None = None, kind: str | None = None) -> Roles:
    """Choose what the axes of a campaign are in its figure.

    Parameters
    ----------
    values : mapping of str to array_like
        The values of each axis, without that of the repeats.
    x, lines : str, optional
        The axes that are to be that. By default x is the length, or the first axis of numbers, or the last one; and
        lines the first of the others that has no numbers, or the first one.
    kind : {"lines", "heat map"}, optional
        By default a heat map if both have numbers, and each many.

    Raises
    ------
    SweepError
        If there is no axis of a name.
    """
    for what, name in (("x", x), ("lines", lines)):
        if name is not None and name not in values:
            raise SweepError(f"{what} is one of the axes {', '.join(values)}, not {name!r}")
    if kind not in (None, *KINDS):
        raise SweepError(f"kind is {' or '.join(map(repr, KINDS))}, not {kind!r}")
    if x is not None and x == lines:
        raise SweepError(f"x and lines are two axes, not both {x!r}")
    several = [name for name, of in values.items() if len(of) > 1 and name != lines]
    numeric = [name for name in several if _numeric(values[name])]
    if x is None:
        x = "length" if "length" in numeric else next(iter(numeric), several[-1] if several else None)
    rest = [name for name in several if name != x]
    if lines is None and rest:
        lines = next((name for name in rest if not _numeric(values[name])), rest[0])
    numbers = [name for name in (x, lines) if name is not None and _numeric(values[name])]
    many = len(numbers) == 2 and all(len(values[name]) > MANY for name in numbers)
    if kind == "heat map" and not all(name and len(values[name]) > 1 for name in (x, lines)):
        raise SweepError(f"a heat map has two axes of several values, and these have: {', '.join(several) or 'none'}")
    heat_map = kind == "heat map" or (kind is None and many)
    return Roles(x, lines, tuple(name for name in rest if name != lines), heat_map)


def plot_sweep(
    dataset: Any,
    metric: str | None = None,
    *,
    x: str | None = None,
    lines: str | None = None,
    kind: str | None = None,
    ax: Any = None,
) -> Any:
    """The means of a campaign over one of its axes, with their 95 % intervals: a line for each value of another.

    A dashed line is what floating point gives, if the campaign knows it, or a theory, if there is a metric of that
    name; a dotted one, of binary numbers, is the metric whose name begins with binary_.

    Parameters
    ----------
    dataset : xarray.Dataset
        What `scdask.sweep` returned, or `scdask.sweeps.open_sweep`; of its axes two at most have several values.
    metric : str, optional
        What is drawn. By default that of the attribute `metric`, or the first one.
    x, lines : str, optional
        The axes. By default those of the attributes, or x is the length, or the first axis of numbers.
    kind : {"lines", "heat map"}, optional
        By default lines, and a heat map of two axes that have more than six numbers each.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    SweepError
        If the campaign has no such metric or axis, or more axes than a figure.
    """
    metric = metric_of(dataset, metric)
    chosen = roles_of(dataset, metric, x, lines, kind)
    if chosen.panels:
        raise SweepError(
            f"the campaign has also the axis {chosen.panels[0]}: choose one of its values, as with "
            f"dataset.sel({chosen.panels[0]}=...)"
        )
    ax = axes_or_new(ax)
    _draw(ax, dataset, metric, chosen, dataset[f"{metric}_mean"].values)
    _add_legend(ax, chosen)
    return ax


def sweep_figure(
    dataset: Any,
    metric: str | None = None,
    *,
    x: str | None = None,
    lines: str | None = None,
    kind: str | None = None,
    title: str | None = None,
) -> Any:
    """The figure of `scdask sweep`, for a file: `plot_sweep` with a title, and a panel for each value of further axes.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SweepError
        As for `plot_sweep`, or if there are more than six panels.
    """
    metric = metric_of(dataset, metric)
    chosen = roles_of(dataset, metric, x, lines, kind)
    count = prod(dataset.sizes[name] for name in chosen.panels)
    if count > MOST_PANELS:
        raise SweepError(
            f"a panel for each {' and '.join(chosen.panels)} makes {count} panels, but {MOST_PANELS} are the most"
        )
    means = dataset[f"{metric}_mean"].values
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    size = (7, 4.5) if count == 1 else (4.2 * columns, 3.6 * rows)
    figure = require("matplotlib.figure", "apps").Figure(figsize=size, layout="constrained")
    figure.suptitle(printable(title or dataset.attrs.get("title", metric)), **PLAIN)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat
    for number, (setting, ax) in enumerate(zip(_settings(dataset, chosen.panels), panels, strict=False)):
        _draw(ax, dataset.sel(setting), metric, chosen, means)
        if setting:
            ax.set_title(printable(", ".join(f"{n} {_text(v)}" for n, v in setting.items())), size="medium", **PLAIN)
        if number % columns:
            ax.set_ylabel("")
        if number + columns < count:
            ax.set_xlabel("")
        else:
            ax.tick_params(labelbottom=True)
    for ax in panels:
        ax.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if count == 1 or chosen.heat_map:
        _add_legend(figure.axes[0], chosen)
    elif len(labels) > 1:
        legend = figure.legend(handles, labels, title=_title_of(chosen), loc="outside right center")
        _as_plain(legend)
    return figure


def metric_of(dataset: Any, metric: str | None = None) -> str:
    """The metric that is drawn: the one that is asked for, or that of the campaign, or the first that is a number."""
    names = [str(name).removesuffix("_mean") for name in dataset if str(name).endswith("_mean")]
    plain = [name for name in names if set(dataset[f"{name}_mean"].dims) <= set(dataset.coords)]
    chosen = metric or dataset.attrs.get("metric") or next(iter(plain), None)
    if chosen not in plain:
        raise SweepError(f"a figure shows one of the metrics {', '.join(plain) or '(there is none yet)'}, not {chosen}")
    return str(chosen)


def roles_of(
    dataset: Any, metric: str, x: str | None = None, lines: str | None = None, kind: str | None = None
) -> Roles:
    """What the axes of a campaign are in the figure of a metric: as is said, or as its attributes say."""
    attributes = dataset.attrs
    values = {name: dataset[name].values for name in dataset[f"{metric}_mean"].dims}
    x, lines = x or attributes.get("x"), lines or attributes.get("lines")
    return roles(values, x, lines, kind or attributes.get("kind"))


def _settings(dataset: Any, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """All combinations of the values of some axes."""
    for values in product(*(dataset[name].values for name in names)):
        yield dict(zip(names, values, strict=True))


def _draw(ax: Any, dataset: Any, metric: str, chosen: Roles, means: Any) -> None:
    """Draw a part of a campaign whose means, with those of the other parts, are these."""
    dataset, x = dataset.squeeze(), chosen.x or "campaign"
    if x not in dataset.dims:
        dataset = dataset.expand_dims(x)
    elif _numeric(dataset[x].values):
        dataset = dataset.sortby(x)
    if chosen.heat_map:
        _draw_heat_map(ax, dataset, metric, x, str(chosen.lines), means)
        return
    values = dataset[x].values if x in dataset.coords else np.array([""])
    places = values if _numeric(values) else np.arange(len(values))
    main = dataset.attrs.get("metric", metric) == metric
    reference = dataset.attrs.get("reference") if main else None
    if reference is not None:
        ax.axhline(reference, color="black", linestyle="--", linewidth=1, label=f"float ({reference:.3f})")
    lines = _lines(dataset, chosen.lines)
    if len(lines) > MOST_LINES:
        raise SweepError(f"a figure has {MOST_LINES} lines at most, and {chosen.lines} has {len(lines)} values")
    beside: dict[str, list[tuple[Any, str]]] = {
        name: [] for name in ("theory", f"binary_{metric}") if main and f"{name}_mean" in dataset and name != metric
    }
    for number, ((label, line), style) in enumerate(zip(lines, line_styles(), strict=False)):
        mean, low, high = (line[f"{metric}_{end}"].values for end in ("mean", "low", "high"))
        there = ~np.isnan(mean)
        if _numeric(values) and len(values) > 1:
            ax.plot(places[there], mean[there], label=printable(label), **style)
            ax.fill_between(places, low, high, color=style["color"], alpha=0.2, linewidth=0)
        else:
            ends = np.nan_to_num(np.abs([mean - low, high - mean]))
            shifted = places + (number - (len(lines) - 1) / 2) * BESIDE / len(lines)
            ax.errorbar(shifted, mean, ends, label=printable(label), linestyle="none", capsize=3, **style)
        for name in beside:
            beside[name].append((line[f"{name}_mean"].values, style["color"]))
    for name, curves in beside.items():
        first = curves[0][0]
        if all(np.allclose(curve, first, rtol=ALIKE, atol=0, equal_nan=True) for curve, _ in curves):
            curves = [(first, "black")]
        how = {"linestyle": "--" if name == "theory" else ":", "linewidth": 1}
        for curve, colour in curves:
            ax.plot(places, curve, color=colour, **how)
        ax.plot([], [], color="black", label=BESIDES.get(name, name), **how)
    _label_x(ax, x, values, places)
    if _wide(means):
        ax.set_yscale("log")
        label_log_axis(ax.yaxis)
    ax.set_ylabel(_name_of(dataset, metric))


def _add_legend(ax: Any, chosen: Roles) -> None:
    """Add a legend, if there is more than one line."""
    if len(ax.get_legend_handles_labels()[1]) > 1:
        add_legend(ax, title=_title_of(chosen))
        _as_plain(ax.get_legend())


def _title_of(chosen: Roles) -> str | None:
    return LABELS.get(chosen.lines, chosen.lines) if chosen.lines else None


def _as_plain(legend: Any) -> None:
    for text in legend.get_texts():
        text.set(**PLAIN)


def _lines(dataset: Any, axis: str | None) -> list[tuple[str, Any]]:
    if axis is None:
        return [("mean", dataset)]
    if axis not in dataset.dims:
        return [(_text(dataset[axis].item()), dataset)]
    return [(_text(value), dataset.sel({axis: value})) for value in dataset[axis].values]


def _label_x(ax: Any, name: str, values: Any, places: Any) -> None:
    if name == "length" and _numeric(values):
        label_lengths(ax, values)
        if len(values) > MANY:
            ax.set_xticks(*zip(*[(n, f"{n:g}") for n in values[:: -(-len(values) // MANY)]], strict=True))
        return
    ax.grid(alpha=0.3)
    if not _numeric(values):
        _set_ticks(ax, places, values)
        ax.set_xlabel("" if name == "campaign" else LABELS.get(name, name))
        return
    if _wide(values):
        ax.set_xscale("log")
        label_log_axis(ax.xaxis)
    elif values.min() == 0 and _wide(values[values > 0]):
        ax.set_xscale("symlog", linthresh=values[values > 0].min())
        _set_ticks(ax, values, values)
        ax.xaxis.minorticks_off()
    ax.set_xlabel(LABELS.get(name, name))


def _draw_heat_map(ax: Any, dataset: Any, metric: str, x: str, y: str, all_means: Any) -> None:
    if _numeric(dataset[y].values):
        dataset = dataset.sortby(y)
    means = dataset[f"{metric}_mean"].transpose(y, x).values
    colors = require("matplotlib.colors", "apps")
    shown = all_means[np.isfinite(all_means)]
    ends = (shown.min(), shown.max()) if shown.size else (0, 1)
    norm = (colors.LogNorm if _wide(shown) else colors.Normalize)(*ends)
    origin = "lower" if _numeric(dataset[y].values) else "upper"
    image = ax.imshow(means, aspect="auto", origin=origin, cmap="viridis", norm=norm)
    for name, axis in ((x, ax.xaxis), (y, ax.yaxis)):
        texts = [printable(_text(value)) for value in dataset[name].values]
        step = -(-len(texts) // MOST_LINES)
        axis.set_ticks(range(0, len(texts), step), texts[::step], **PLAIN)
        axis.set_label_text(LABELS.get(name, name))
    if means.size <= MOST_LINES * MANY:
        for (row, column), mean in np.ndenumerate(means):
            colour = "black" if image.norm(mean) > 0.6 else "white"
            text = "" if np.isnan(mean) else f"{mean:.3g}"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize="x-small")
    ax.figure.colorbar(image, ax=ax, label=_name_of(dataset, metric))


def _name_of(dataset: Any, metric: str) -> str:
    about = dataset[metric].attrs if metric in dataset else {}
    if metric == "accuracy":
        return "accuracy (share right)"
    unit = about.get("units", "1")
    name = about.get("long_name", metric)
    return name if unit == "1" else f"{name} ({unit})"


def _set_ticks(ax: Any, places: Any, values: Any) -> None:
    """Write values below their places, slanted where they would run into each other."""
    texts = [printable(_text(value)) for value in values]
    slanted = LETTER * sum(2 + len(text) for text in texts) > size_in_points(ax)[0]
    ax.set_xticks(
        places, texts, **({"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if slanted else {}), **PLAIN
    )


def _wide(values: Any) -> bool:
    """Whether values are above 0, and so far apart that only a logarithmic axis shows them all."""
    known = values[~np.isnan(values)]
    return bool(known.size and known.min() > 0 and known.max() > WIDE * known.min())


def _numeric(values: Any) -> bool:
    return bool(np.asarray(values).dtype.kind in "iuf")


def _text(value: Any) -> str:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return f"{value:g}" if number else str(value)

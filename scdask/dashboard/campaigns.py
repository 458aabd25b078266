"""The section of the page that shows campaigns."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from bokeh.layouts import column
from bokeh.models import ColumnDataSource, Div, FixedTicker, HoverTool, Legend, LegendItem
from bokeh.plotting import figure

from ..progress import duration_text, rate_text
from .parts import COLOURS, LINES, table, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .monitor import Campaign

COLUMNS = ("x", "mean", "low", "high")
TICKS = 10  # labels of an axis at most


class Campaigns:
    """How far the last campaign is, its figure so far, and a table of the ones before.

    Attributes
    ----------
    root : bokeh.models.Column
    """

    def __init__(self) -> None:
        self._title = Div(text=title("Campaign"))
        self._sources = [ColumnDataSource({name: [] for name in COLUMNS}) for _ in range(LINES)]
        self._plot, self._legend = _figure(self._sources)
        self._table = Div(sizing_mode="stretch_width")
        self.root = column(self._title, self._plot, self._table, sizing_mode="stretch_width")

    def update(self, campaigns: Sequence[Campaign]) -> bool:
        """Show campaigns, the last one told last; tell whether there is any."""
        if not campaigns:
            return False
        last = campaigns[-1]
        told = last.event
        parts = [f"{told['name']}: {told['done'] + told['failed']:,} of {told['total']:,} cells"]
        if told["failed"]:
            parts.append(f"{told['failed']:,} failed")
        if last.silent:
            parts.append(f"nothing heard for {duration_text(last.silent)}")
        elif not last.over:
            parts.append(f"{told['running']:,} running")
            if told["rate"] is not None:
                parts.append(rate_text(told["rate"], "cells"))
            if told["left"] is not None:
                parts.append(f"{duration_text(told['left'])} left")
        self._title.text = title("Campaign", ", ".join(parts))
        self._plot.visible = told["figure"] is not None
        if told["figure"] is not None:
            self._show(told["figure"])
        self._table.text = table("campaigns", [_row(each) for each in reversed(campaigns)])
        return True

    def _show(self, told: dict[str, Any]) -> None:
        lines = told["lines"]
        for i, source in enumerate(self._sources):
            source.data = _without_gaps(lines[i]) if i < len(lines) else {name: [] for name in COLUMNS}
            self._legend.items[i].label = {"value": lines[i]["label"] if i < len(lines) else ""}
            self._legend.items[i].visible = i < len(lines)
        at = "".join(f", {name}={value}" for name, value in told["at"].items())
        self._plot.title.text = f"{told['metric']} so far: mean and 95 % interval{at}"
        self._plot.xaxis.axis_label, self._plot.yaxis.axis_label = told["x"], told["metric"]
        every = -(-len(told["ticks"]) // TICKS)
        ticks = dict(list(zip(lines[0]["x"], told["ticks"], strict=True))[::every])
        self._plot.xaxis.ticker = FixedTicker(ticks=list(ticks))
        self._plot.xaxis.major_label_overrides = ticks


def _row(campaign: Campaign) -> dict[str, Any]:
    told = campaign.event
    left = "" if campaign.over or campaign.silent or told["left"] is None else duration_text(told["left"])
    return {
        "campaign": told["name"],
        "cells": f"{told['total']:,}",
        "done": f"{told['done']:,}",
        "failed": f"{told['failed']:,}",
        "running": "" if campaign.over or campaign.silent else f"{told['running']:,}",
        "time left": left,
    }


def _without_gaps(line: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The points of a line that are there; without an interval the band is as narrow as the line."""
    points = [point for point in zip(*(line[name] for name in COLUMNS), strict=True) if isfinite(point[1])]
    points = [(x, mean, *(end if isfinite(end) else mean for end in ends)) for x, mean, *ends in points]
    return dict(zip(COLUMNS, map(list, zip(*points, strict=True)), strict=True)) if points else {n: [] for n in COLUMNS}


def _figure(sources: Sequence[ColumnDataSource]) -> tuple[Any, Legend]:
    plot = figure(
        title="", height=280, sizing_mode="stretch_width", tools="", toolbar_location=None, min_border_left=60
    )
    items = []
    for source, colour in zip(sources, COLOURS, strict=True):
        band = plot.varea("x", "low", "high", source=source, color=colour, alpha=0.2)
        line = plot.line("x", "mean", source=source, color=colour, line_width=2)
        dots = plot.scatter("x", "mean", source=source, color=colour, size=5)
        items.append(LegendItem(label={"value": ""}, renderers=[line, dots, band]))
    legend = Legend(
        items=items, orientation="horizontal", ncols=LINES, label_text_font_size="11px", padding=0, margin=2
    )
    legend.border_line_alpha = 0
    plot.add_layout(legend, "below")
    plot.add_tools(HoverTool(tooltips=[("mean", "@mean"), ("95 % interval", "@low to @high")]))
    return plot, legend

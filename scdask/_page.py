"""The Bokeh document of the page `/scdask`, for each browser that opens it."""

from __future__ import annotations

import time
from html import escape
from math import nan
from typing import TYPE_CHECKING, Any

from bokeh.core.properties import without_property_validation
from bokeh.layouts import column, row
from bokeh.models import (
    ColumnDataSource,
    DataTable,
    Div,
    HoverTool,
    Legend,
    LegendItem,
    NumberFormatter,
    Range1d,
    StringFormatter,
    TableColumn,
)
from bokeh.plotting import figure
from dask.utils import format_bytes
from distributed.dashboard.components.scheduler import BOKEH_THEME, env

from .dashboard import HISTORY, SAMPLE_SECONDS, Monitor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bokeh.document import Document
    from distributed import Scheduler

    from .dashboard import Totals

UPDATE_MILLISECONDS = 1000
LINES = 7  # workers that have a line of their own: as many as there are colours that everybody tells apart
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")  # Okabe and Ito
GIGA = 1e9
MUTED = "#595959"


def show(scheduler: Scheduler, extra: dict[str, Any], doc: Document) -> None:
    """Fill a document, and keep it up to date while the page is open."""
    page = _Page(scheduler)
    page.update()
    doc.title = "scdask: Bitstreams"
    doc.add_root(page.root)
    doc.template = env.get_template("simple.html")
    doc.template_variables.update(extra)
    doc.theme = BOKEH_THEME

    async def update() -> None:
        page.update()
        await page.monitor.ask_for_limits()

    doc.add_periodic_callback(update, UPDATE_MILLISECONDS)


class _Page:
    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.monitor: Monitor = scheduler.plugins[Monitor.name]
        self.empty = Div(sizing_mode="stretch_width")
        self.cards = Div(sizing_mode="stretch_width")
        self.lines = [ColumnDataSource({"x": [], "y": [], "worker": []}) for _ in range(LINES + 1)]
        self.rates, self.legend = _rates(self.lines)
        self.operations = ColumnDataSource({name: [] for name in OPERATIONS})
        self.shares = _shares(self.operations)
        self.workers = ColumnDataSource({name: [] for name in WORKERS})
        self.epochs = ColumnDataSource({name: [] for name in ("epoch", "loss", "train", "test")})
        self.run = Div(text=_title("Training"))
        self.training = column(
            self.run, row(_losses(self.epochs), _accuracies(self.epochs), sizing_mode="stretch_width"),
            sizing_mode="stretch_width",
        )  # fmt: skip
        self.root = column(
            self.empty,
            self.cards,
            row(self.rates, self.shares, sizing_mode="stretch_width"),
            self.training,
            Div(text=_title("Operations", "since the cluster has this page")),
            _table(self.operations, OPERATIONS),
            Div(text=_title("Workers")),
            _table(self.workers, WORKERS),
            sizing_mode="stretch_width",
            styles={"padding": "8px 12px", "box-sizing": "border-box"},
        )

    @without_property_validation  # type: ignore[untyped-decorator]
    def update(self) -> None:
        """Show what the monitor has."""
        totals = self.monitor.totals()
        self.empty.text = "" if totals else _what_to_do(self.scheduler.address)
        self.empty.visible = not totals
        self._update_cards(totals)
        self._update_lines()
        self._update_operations(totals)
        self._update_workers()
        self._update_training()

    def _update_cards(self, totals: Totals) -> None:
        reports = self.monitor.reports.values()
        encoded = [total for (operation, _), total in totals.items() if operation == "encode"]
        figures = {
            "Speed now": _scaled(sum(report.rate for report in reports), "bitop/s"),
            "Bit operations": _scaled(sum(total.bitops for total in totals.values()), "bitop"),
            "Bits generated": _scaled(sum(total.bitops for total in encoded), "bit"),
            "Streams encoded": f"{sum(total.streams for total in encoded):,}",
            "Packed words held": format_bytes(sum(report.held for report in reports)),
            "Workers": f"{len(self.scheduler.workers)}",
            "Threads": f"{self.scheduler.total_nthreads}",
        }
        cards = "".join(
            f"<div style='min-width: 105px'><div style='color: {MUTED}; font-size: 12px'>{name}</div>"
            f"<div style='font-size: 20px; white-space: nowrap' data-figure='{name}'>{value}</div></div>"
            for name, value in figures.items()
        )
        self.cards.text = f"<div style='display: flex; flex-wrap: wrap; gap: 8px 26px'>{cards}</div>"

    def _update_lines(self) -> None:
        history, now = list(self.monitor.history), time.monotonic()
        reports = self.monitor.reports
        busiest = sorted(reports, key=lambda a: -sum(t.bitops for t in reports[a].totals.values()))[:LINES]
        shown = sorted(busiest, key=self._label)
        x = [then - now for then, _ in history]
        total = [sum(rates.values()) / GIGA for _, rates in history]
        self.lines[0].data = {"x": x, "y": total, "worker": ["all workers"] * len(x)}
        for place, lines in enumerate(self.lines[1:]):
            if place < len(shown):
                address = shown[place]
                y = [rates.get(address, nan) / GIGA for _, rates in history]
                lines.data = {"x": x, "y": y, "worker": [self._label(address)] * len(x)}
            else:
                lines.data = {"x": [], "y": [], "worker": []}
        names = ["all workers", *map(self._label, shown)]
        for item, name in zip(self.legend.items, [*names, *[""] * LINES], strict=False):
            item.label = {"value": name}
            item.visible = bool(name)

    def _update_operations(self, totals: Totals) -> None:
        shares = self.monitor.shares()
        rows = []
        for (operation, kernels), total in sorted(totals.items()):
            share = shares.get((operation, kernels), nan)
            rows.append(
                {
                    "name": f"{operation} ({kernels})",
                    "operation": operation,
                    "backend": kernels,
                    "bits": _scaled(total.bitops, "bit"),
                    "seconds": total.seconds,
                    "rate": total.bitops / total.seconds / GIGA if total.seconds else nan,
                    "percent": 100 * share,
                    "share": "" if share != share else f"{share:.0%}",
                }
            )
        self.operations.data = {name: [r[name] for r in rows] for name in OPERATIONS}
        names = [str(r["name"]) for r in reversed(rows)]
        if self.shares.y_range.factors != names:
            self.shares.y_range.factors = names
        most = max((p for p in self.operations.data["percent"] if p == p), default=0)
        self.shares.x_range.end = max(100, most) * 1.12

    def _update_workers(self) -> None:
        rows = []
        for address, worker in self.scheduler.workers.items():
            report = self.monitor.reports.get(address)
            totals = report.totals if report else {}
            rows.append(
                {
                    "worker": self._label(address),
                    "backend": ", ".join(sorted({kernels for _, kernels in totals})) or "nothing yet",
                    "simd": report.simd[-1] if report and report.simd else "",
                    "threads": worker.nthreads,
                    "rate": report.rate / GIGA if report else 0.0,
                    "bits": _scaled(sum(total.bitops for total in totals.values()), "bit"),
                    "held": format_bytes(report.held if report else 0),
                }
            )
        rows.sort(key=lambda r: str(r["worker"]))
        self.workers.data = {name: [r[name] for r in rows] for name in WORKERS}

    def _update_training(self) -> None:
        events = self.monitor.epochs()
        self.training.visible = bool(events)
        if events:
            last = events[-1]
            epochs = [event for event in events if event["run"] == last["run"]]
            self.run.text = _title("Training", f"epoch {last['epoch']} of {last['epochs']}")
            columns = {"epoch": "epoch", "loss": "loss", "train": "train_accuracy", "test": "test_accuracy"}
            self.epochs.data = {
                name: [nan if event[key] is None else event[key] for event in epochs] for name, key in columns.items()
            }

    def _label(self, address: str) -> str:
        worker = self.scheduler.workers.get(address)
        host = address.rpartition("/")[2]
        return host if worker is None or worker.name == address else f"{worker.name} at {host}"


# A column of a table: its title, how it is aligned or its number formatted, and its width; None for what only a figure
# shows.
Columns = dict[str, tuple[str, str, int] | None]
OPERATIONS: Columns = {
    "name": None,
    "operation": ("operation", "left", 100),
    "backend": ("backend", "left", 90),
    "bits": ("bits", "right", 110),
    "seconds": ("time in kernels (s)", "0,0.00", 130),
    "rate": ("speed of a thread (Gbit/s)", "0,0.0", 160),
    "percent": None,
    "share": ("share of the limit", "right", 120),
}
WORKERS: Columns = {
    "worker": ("worker", "left", 200),
    "backend": ("backend", "left", 90),
    "simd": ("SIMD", "left", 130),
    "threads": ("threads", "0", 60),
    "rate": ("speed now (Gbitop/s)", "0,0.0", 140),
    "bits": ("bits so far", "right", 110),
    "held": ("words held", "right", 100),
}


def _table(source: ColumnDataSource, columns: Columns) -> DataTable:
    shown = []
    for name, given in columns.items():
        if given is not None:
            title, style, width = given
            if style in ("left", "right"):
                formatter = StringFormatter(text_align=style)
            else:
                formatter = NumberFormatter(format=style, text_align="right", nan_format="")
            shown.append(TableColumn(field=name, title=title, formatter=formatter, width=width))
    return DataTable(
        source=source,
        columns=shown,
        index_position=None,
        autosize_mode="fit_viewport",
        sizing_mode="stretch_width",
        height=170,
        selectable=False,
    )


def _rates(lines: Sequence[ColumnDataSource]) -> tuple[Any, Legend]:
    plot = figure(
        title="Bit operations a second",
        height=260,
        sizing_mode="stretch_width",
        x_range=Range1d(-HISTORY * SAMPLE_SECONDS, 0),
        x_axis_label="time before now (s)",
        y_axis_label="Gbitop/s",
        tools="",
        min_border_left=60,
    )
    plot.y_range.start = 0
    items = []
    for source, colour, width in zip(lines, ("black", *COLOURS), (3, *[1.5] * LINES), strict=True):
        line = plot.line("x", "y", source=source, color=colour, line_width=width)
        items.append(LegendItem(label={"value": ""}, renderers=[line]))
    legend = Legend(items=items, location="top_left", label_text_font_size="11px", spacing=0, padding=4)
    legend.background_fill_alpha = 0.8
    plot.add_layout(legend)
    plot.add_tools(HoverTool(tooltips=[("worker", "@worker"), ("Gbitop/s", "@y{0.0}")]))
    return plot, legend


def _shares(operations: ColumnDataSource) -> Any:
    plot = figure(
        title="Kernels: share of the measured limit of the worker",
        height=260,
        sizing_mode="stretch_width",
        y_range=[],
        x_range=Range1d(0, 112),
        x_axis_label="time at the limit / time taken (%)",
        tools="",
    )
    plot.hbar(y="name", right="percent", height=0.6, source=operations, color=COLOURS[0])
    plot.text(
        x="percent",
        y="name",
        text="share",
        source=operations,
        x_offset=4,
        text_baseline="middle",
        text_font_size="12px",
    )
    plot.add_tools(HoverTool(tooltips=[("operation", "@name"), ("share", "@share"), ("Gbit/s a thread", "@rate{0.0}")]))
    return plot


def _losses(epochs: ColumnDataSource) -> Any:
    plot = figure(
        title="Loss",
        height=220,
        sizing_mode="stretch_width",
        y_axis_type="log",
        x_axis_label="epoch",
        y_axis_label="cross-entropy (nats)",
        tools="",
    )
    plot.line("epoch", "loss", source=epochs, color=COLOURS[0], line_width=2, legend_label="training")
    plot.scatter("epoch", "loss", source=epochs, color=COLOURS[0], size=6)
    return plot


def _accuracies(epochs: ColumnDataSource) -> Any:
    plot = figure(
        title="Accuracy",
        height=220,
        sizing_mode="stretch_width",
        x_axis_label="epoch",
        y_axis_label="share of images that are right",
        tools="",
    )
    for name, label, colour, marker in (
        ("train", "training", COLOURS[0], "circle"),
        ("test", "test", COLOURS[5], "square"),
    ):
        plot.line("epoch", name, source=epochs, color=colour, line_width=2, legend_label=label)
        plot.scatter("epoch", name, source=epochs, color=colour, size=6, marker=marker, legend_label=label)
    plot.legend.location = "bottom_right"
    return plot


def _title(text: str, note: str = "") -> str:
    return f"<b>{text}</b> <span style='color: {MUTED}'>{note}</span>"


def _scaled(number: float, unit: str) -> str:
    """The number with three digits and a prefix of SI."""
    for prefix, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return (
                f"{number / size:.3g} {prefix}{unit}"
                if number < 999.5 * size
                else f"{number / size:,.0f} {prefix}{unit}"
            )
    return f"{number:.0f} {unit}"


def _what_to_do(address: str) -> str:
    code = "background: #f2f2f2; padding: 2px 5px; border-radius: 3px"
    return (
        "<div style='border: 1px solid #bbb; border-radius: 6px; padding: 10px 14px; max-width: 900px'>"
        "<b>No bit operations yet.</b> They show here as soon as a task of this cluster runs a kernel of scdask. "
        f"With a client of <code>{escape(address)}</code> try<br>"
        f"<code style='{code}'>a, b = (sc.encode(da.full(10**6, 0.5), 1024, sng=sc.Bernoulli(seed)) for seed in (1, 2))"
        f"</code><br><code style='{code}'>sc.compute((a &amp; b).decode().mean())</code><br>"
        f"or run <code style='{code}'>scdask infer digits --scheduler {escape(address)}</code></div>"
    )

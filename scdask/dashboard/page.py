"""The Bokeh document of the page `/scdask`, for each browser that opens it."""

from __future__ import annotations

import time
from html import escape
from math import nan
from typing import TYPE_CHECKING, Any

from bokeh.core.properties import without_property_validation
from bokeh.layouts import column, row
from bokeh.models import (
    BasicTicker,
    ColumnDataSource,
    Div,
    HoverTool,
    Legend,
    LegendItem,
    LogTicker,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure
from dask.utils import format_bytes
from distributed.dashboard.components.scheduler import BOKEH_THEME, env

from .campaigns import Campaigns
from .monitor import Monitor
from .parts import COLOURS, LINES, MUTED, scaled, table, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bokeh.document import Document
    from distributed import Scheduler

    from .monitor import Totals

UPDATE_MILLISECONDS = 1000
GIGA = 1e9
SHORTEST = 60  # least seconds that the axis of time shows


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
        self.operations = ColumnDataSource({name: [] for name in ("name", "percent", "text")})
        self.shares = _shares(self.operations)
        self.operation_table = Div(sizing_mode="stretch_width")
        self.worker_table = Div(sizing_mode="stretch_width")
        self.epochs = ColumnDataSource({name: [] for name in ("epoch", "loss", "train", "test")})
        self.run = Div(text=title("Training"))
        losses = _epochs(self.epochs, "Loss", "cross-entropy (nats)", [("loss", "training")], "log")
        lines = [("train", "training"), ("test", "test")]
        accuracies = _epochs(self.epochs, "Accuracy", "share of images that are right", lines, "linear")
        accuracies.legend.location = "bottom_right"
        figures = row(losses, accuracies, sizing_mode="stretch_width")
        self.training = column(self.run, figures, sizing_mode="stretch_width")
        self.bins = ColumnDataSource({name: [] for name in ("left", "right", "share")})
        self.curve = ColumnDataSource({name: [] for name in ("cycles", "accuracy", "name", "size")})
        self.exit = Div(text=title("Early exit"))
        self.exit_table = Div(sizing_mode="stretch_width")
        figures = row(_bins(self.bins), _curve(self.curve), sizing_mode="stretch_width")
        self.exits = column(self.exit, figures, self.exit_table, sizing_mode="stretch_width")
        self.campaigns = Campaigns()
        self.root = column(
            self.empty,
            self.cards,
            row(self.rates, self.shares, sizing_mode="stretch_width"),
            Div(text=title("Operations", "since the page was added")),
            self.operation_table,
            Div(text=title("Workers")),
            self.worker_table,
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
        self._update_exits()
        if (
            self.campaigns.update(list(self.monitor.campaigns.values()))
            and self.campaigns.root not in self.root.children
        ):
            self.root.children.insert(2, self.campaigns.root)

    def _update_cards(self, totals: Totals) -> None:
        reports = self.monitor.reports.values()
        encoded = [total for (operation, _), total in totals.items() if operation == "encode"]
        figures = {
            "Speed now": scaled(sum(report.rate for report in reports), "bitop/s"),
            "Bit operations": scaled(sum(total.bitops for total in totals.values()), "bitop"),
            "Bits generated": scaled(sum(total.bitops for total in encoded), "bit"),
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
        self.rates.x_range.start = min(-SHORTEST, *x, 0)
        self.lines[0].data = {"x": x, "y": total, "worker": ["all workers"] * len(x)}
        for i, lines in enumerate(self.lines[1:]):
            if i < len(shown):
                address = shown[i]
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
        operations = sorted(totals)
        percent = [100 * shares.get(key, nan) for key in operations]
        # Only kernels of NumPy arrays have a share; workers measure their limits while the page is open.
        missing = {"numpy": "not measured yet"}
        texts = [
            missing.get(backend, "") if p != p else f"{p:.0f} %"
            for (_, backend), p in zip(operations, percent, strict=True)
        ]
        names = [f"{operation} ({backend})" for operation, backend in operations]
        self.operations.data = {"name": names, "percent": percent, "text": texts}
        if self.shares.y_range.factors != names[::-1]:
            self.shares.y_range.factors = names[::-1]
        self.shares.x_range.end = 1.12 * max(100, *(p for p in percent if p == p), 0)
        rows = [
            {
                "operation": key[0],
                "backend": key[1],
                "bits": scaled(totals[key].bitops, "bit"),
                "time in kernels": f"{totals[key].seconds:,.2f} s",
                "speed of a thread": scaled(totals[key].bitops / max(totals[key].seconds, 1e-9), "bit/s"),
                "share of the limit": text,
            }
            for key, text in zip(operations, texts, strict=True)
        ]
        self.operation_table.text = table("operations", rows)

    def _update_workers(self) -> None:
        rows = []
        for address, worker in self.scheduler.workers.items():
            report = self.monitor.reports.get(address)
            totals = report.totals if report else {}
            rows.append(
                {
                    "worker": self._label(address),
                    "backend": ", ".join(sorted({backend for _, backend in totals})) or "nothing yet",
                    "SIMD": report.simd[-1] if report and report.simd else "",
                    "threads": worker.nthreads,
                    "speed now": scaled(report.rate if report else 0, "bitop/s"),
                    "bits so far": scaled(sum(total.bitops for total in totals.values()), "bit"),
                    "words held": format_bytes(report.held if report else 0),
                }
            )
        rows.sort(key=lambda r: str(r["worker"]))
        self.worker_table.text = table("workers", rows)

    def _update_training(self) -> None:
        events = self.monitor.epochs()
        if events:
            last = events[-1]
            epochs = [event for event in events if event["run"] == last["run"]]
            self.run.text = title("Training", f"epoch {last['epoch']} of {last['epochs']}")
            columns = {"epoch": "epoch", "loss": "loss", "train": "train_accuracy", "test": "test_accuracy"}
            self.epochs.data = {
                name: [nan if event[key] is None else event[key] for event in epochs] for name, key in columns.items()
            }
            if self.training not in self.root.children:  # A log axis has no range before there is a loss.
                self.root.children.insert(3, self.training)

    def _update_exits(self) -> None:
        runs = list(self.monitor.exits.values())
        if not runs:
            return
        last = runs[-1]
        note = f"{last.name}: {last.samples:,} of {last.of:,} samples, up to {last.length:,} cycles"
        self.exit.text = title("Early exit", note)
        cycles = [n for n, _ in last.cycles]
        self.bins.data = {
            "left": [cycles[0] / 2, *cycles[:-1]],
            "right": cycles,
            "share": [100 * count / last.samples for _, count in last.cycles],
        }
        self.curve.data = {
            "cycles": [run.mean_cycles for run in runs],
            "accuracy": [run.accuracy for run in runs],
            "name": [run.name for run in runs],
            "size": [7] * (len(runs) - 1) + [12],
        }
        rows = [
            {
                "rule": run.name,
                "samples": f"{run.samples:,} of {run.of:,}",
                "mean cycles": f"{run.mean_cycles:,.1f} of {run.length:,}",
                "accuracy so far": f"{run.accuracy:.4f}" if run.accuracy == run.accuracy else "",
            }
            for run in reversed(runs)
        ]
        self.exit_table.text = table("early exit", rows)
        if self.exits not in self.root.children:
            self.root.children.insert(3, self.exits)

    def _label(self, address: str) -> str:
        worker = self.scheduler.workers.get(address)
        host = address.rpartition("/")[2]
        return host if worker is None or worker.name == address else f"{worker.name} at {host}"


def _rates(lines: Sequence[ColumnDataSource]) -> tuple[Any, Legend]:
    plot = figure(
        title="Bit operations a second",
        height=280,
        sizing_mode="stretch_width",
        x_range=Range1d(-SHORTEST, 0),
        x_axis_label="time before now (s)",
        y_axis_label="Gbitop/s",
        tools="",
        toolbar_location=None,
        min_border_left=60,
    )
    plot.y_range.start = 0
    items = []
    for source, colour, width in zip(lines, ("black", *COLOURS), (3, *[1.5] * LINES), strict=True):
        line = plot.line("x", "y", source=source, color=colour, line_width=width)
        items.append(LegendItem(label={"value": ""}, renderers=[line]))
    legend = Legend(items=items, orientation="horizontal", ncols=3, label_text_font_size="11px", padding=0, margin=2)
    legend.border_line_alpha = 0
    plot.add_layout(legend, "below")
    plot.add_tools(HoverTool(tooltips=[("worker", "@worker"), ("Gbitop/s", "@y{0.0}")]))
    return plot, legend


def _shares(operations: ColumnDataSource) -> Any:
    plot = figure(
        title="Share of the measured limit of the worker",
        height=260,
        sizing_mode="stretch_width",
        y_range=[],
        x_range=Range1d(0, 112),
        x_axis_label="time at the limit / time taken (%)",
        tools="",
        toolbar_location=None,
    )
    plot.hbar(y="name", right="percent", height=0.6, source=operations, color=COLOURS[0])
    plot.text(
        x="percent",
        y="name",
        text="text",
        source=operations,
        x_offset=4,
        text_baseline="middle",
        text_font_size="12px",
    )
    plot.add_tools(HoverTool(tooltips=[("operation", "@name"), ("share of the limit", "@text")]))
    return plot


def _epochs(source: ColumnDataSource, title: str, unit: str, lines: Sequence[tuple[str, str]], scale: str) -> Any:
    """Lines over epochs: a column of the source and a label for each."""
    plot = figure(
        title=title,
        height=220,
        sizing_mode="stretch_width",
        y_axis_type=scale,
        x_axis_label="epoch",
        y_axis_label=unit,
        tools="",
        toolbar_location=None,
    )
    plot.xaxis.ticker = BasicTicker(min_interval=1)
    styles = ((COLOURS[0], "circle"), (COLOURS[5], "square"))
    for (name, label), (colour, marker) in zip(lines, styles, strict=False):
        plot.line("epoch", name, source=source, color=colour, line_width=2, legend_label=label)
        plot.scatter("epoch", name, source=source, color=colour, size=6, marker=marker, legend_label=label)
    return plot


def _bins(source: ColumnDataSource) -> Any:
    """How many samples took so many cycles, or fewer down to the next bar."""
    plot = figure(
        title="Cycles that the samples took",
        height=220,
        sizing_mode="stretch_width",
        x_axis_type="log",
        x_axis_label="cycles",
        y_axis_label="share of the samples (%)",
        tools="",
        toolbar_location=None,
    )
    plot.y_range.start = 0
    _plain_ticks(plot)
    plot.quad(left="left", right="right", bottom=0, top="share", source=source, color=COLOURS[0], line_color="white")
    plot.add_tools(HoverTool(tooltips=[("cycles", "@right"), ("share of the samples", "@share{0.0} %")]))
    return plot


def _curve(source: ColumnDataSource) -> Any:
    """What each rule reaches; that which runs is large."""
    plot = figure(
        title="Accuracy by mean cycles, a mark a rule",
        height=220,
        sizing_mode="stretch_width",
        x_axis_type="log",
        x_axis_label="mean cycles",
        y_axis_label="share that is right",
        tools="",
        toolbar_location=None,
    )
    plot.y_range.default_span = 0.1  # of a single mark
    _plain_ticks(plot)
    plot.scatter("cycles", "accuracy", source=source, color=COLOURS[5], size="size")
    plot.add_tools(
        HoverTool(tooltips=[("rule", "@name"), ("mean cycles", "@cycles{0.0}"), ("accuracy", "@accuracy{0.0000}")])
    )
    return plot


def _plain_ticks(plot: Any) -> None:
    """Powers of 2 as numbers."""
    plot.xaxis.ticker = LogTicker(base=2)
    plot.xaxis.formatter = NumeralTickFormatter(format="0")


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

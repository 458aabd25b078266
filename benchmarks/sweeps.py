"""What a campaign costs beside its cells, and how many threads one scheduler keeps busy.

cells: 100,000 small cells, on threads and in a local cluster, with a store and without, beside plain loops.
sleepers: 10,000 cells of 100 ms on workers that sleep: for which share of the time, and what a task costs.
"""

import shutil
import tempfile
import threading
import time
from pathlib import Path

import click
import dask
import numpy as np
import psutil
from distributed import Client, LocalCluster
from rich.console import Console
from rich.table import Table

import scdask as sc
from scdask.cluster import open_scheduler
from scdask.computing import Place, as_place
from scdask.sweeps.campaign import Campaign
from scdask.sweeps.cells import Given
from scdask.sweeps.plan import Plan
from scdask.sweeps.store import Ledger, Store

PAIRS, LENGTH = 1000, 256


def product(p, seed):
    """The error of products of 1,000 pairs."""
    q = np.linspace(0, 1, PAIRS)
    x, y = (sc.encode(v, LENGTH, sng=sc.Bernoulli(2 * seed + i)) for i, v in enumerate((np.full(PAIRS, p), q)))
    return {"rmse": np.sqrt(np.mean(((x & y).decode() - p * q) ** 2))}


def sleeper(seed, pause):
    """A worker of a large cluster, as its scheduler sees it."""
    time.sleep(pause)
    return float(seed)


class Watched:
    """A campaign that is looked at every 10 ms while it runs, and the memory of this process."""

    def __init__(self, function, over, place, store=None):
        plan = Plan(over, "seed" if "seed" in over else None)
        ledger = Ledger(plan.axes)
        if store is not None:
            ledger = Store(store, plan.axes, {}, {"repeats": plan.repeats, "interval": "t", "units": {}})
        self.campaign = Campaign(plan, Given(function), ledger, place)
        self.peak, self.done, self._over = 0, [], threading.Event()
        thread = threading.Thread(target=self._look)
        self.start, cpu = time.perf_counter(), time.process_time()
        thread.start()
        self.campaign.run(lambda *args, **more: None)
        self.seconds, self.cpu = time.perf_counter() - self.start, time.process_time() - cpu
        self._over.set()
        thread.join()
        ledger.close()
        self.dataset = self.campaign.dataset("t", {})
        assert (ledger.grid.state == 1).all()

    def _look(self):
        process = psutil.Process()
        while not self._over.wait(0.01):
            self.done.append((time.perf_counter() - self.start, self.campaign.done_here))
            self.peak = max(self.peak, process.memory_info().rss)

    @property
    def first(self):
        """Seconds to the first result."""
        return next((then for then, done in self.done if done), self.seconds)

    def rates(self, parts=8):
        """Cells a second in each part of the time."""
        times, done = np.array([(0, 0), *self.done, (self.seconds, self.campaign.done_here)]).T
        edges = np.linspace(0, self.seconds, parts + 1)
        return np.diff(np.interp(edges, times, done)) / np.diff(edges)

    def stall(self):
        """The longest time without a result, after the first."""
        changes = [then for (then, done), (_, before) in zip(self.done[1:], self.done, strict=False) if done != before]
        return max(np.diff(changes), default=0)


def show(title, *columns, rows):
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row))
    Console(width=140).print(table)


@click.group()
def main():
    """Measure campaigns."""


@main.command()
@click.option("--number", default=100_000, show_default=True, help="Cells.")
@click.option("--loop", default=1000, show_default=True, help="Cells of the plain loops.")
@click.option("--threads", default=2, show_default=True)
@click.option("--on", type=click.Choice(["threads", "local"]), multiple=True, default=["threads", "local"])
@click.option("--stored", type=click.Choice(["no", "yes"]), multiple=True, default=["no", "yes"])
def cells(number, loop, threads, on, stored):
    """Small cells: an AND of 1,000 pairs of 256 bits."""
    over = {"p": [(i + 0.5) / 100 for i in range(100)], "seed": range(number // 100)}
    rows = []

    def loops(place, client):
        some = [dask.delayed(product)(0.3, seed) for seed in range(loop)]
        for name, each in (("plain loop", lambda: product(0.3, 0)), ("loop of dask.compute", None)):
            begin = time.perf_counter()
            for lazy in some:
                each() if each else dask.compute(lazy, scheduler=client or "threads")
            seconds = time.perf_counter() - begin
            rows.append((place, name, loop / seconds, *[""] * 6))

    def campaign(where, place, keep):
        folder = Path(tempfile.mkdtemp())
        found = Watched(product, over, place, folder / "found.zarr" if keep else None)
        shutil.rmtree(folder)
        name = "campaign, with a store" if keep else "campaign"
        rates = " ".join(f"{rate:.0f}" for rate in found.rates())
        peak, tasks = f"{found.peak / 2**20:.0f}", f"{found.campaign.tasks:,}"
        rows.append((where, name, number / found.seconds, found.first, found.stall(), rates, peak, tasks, found.cpu))

    product(0.3, 0)
    if "threads" in on:
        loops("threads", None)
        for keep in stored:
            campaign("threads", Place("threads", threads), keep == "yes")
    if "local" in on:
        with open_scheduler("local", workers=threads, threads=1) as place:
            place.wait_until_ready()
            loops("local", place.client)
            for keep in stored:
                campaign("local", place, keep == "yes")
    columns = "cells/s", "first (s)", "longest pause (s)", "cells/s in each eighth", "peak (MiB)", "tasks", "CPU (s)"
    show(f"{number:,} cells, {threads} threads", "where", "what", *columns, rows=rows)


@main.command()
@click.option("--number", default=10_000, show_default=True, help="Cells.")
@click.option("--seconds", default=0.1, show_default=True, help="Of a cell.")
@click.option("--threads", "counts", default=[64, 256], multiple=True, show_default=True)
@click.option("--processes", default=2, show_default=True)
def sleepers(number, seconds, counts, processes):
    """Cells that sleep, in clusters of so many threads."""
    rows = []
    for threads in counts:
        with (
            LocalCluster(
                n_workers=processes, threads_per_worker=threads // processes, dashboard_address=None, memory_limit=0
            ) as cluster,
            Client(cluster) as client,
        ):
            sc.sweep(sleeper, over={"pause": [0.01], "seed": range(2 * threads)}, scheduler=client)  # imports
            found = Watched(sleeper, {"pause": [seconds], "seed": range(number)}, as_place(client))
        busy = number * seconds / threads / found.seconds
        tasks = found.campaign.tasks
        rates = " ".join(f"{rate:.0f}" for rate in found.rates())
        each = 1e6 * found.cpu / number, 1e6 * found.cpu / tasks
        rows.append((str(threads), busy, found.seconds, found.first, rates, f"{tasks:,}", *each))
    columns = "busy", "s", "first (s)", "cells/s in each eighth", "tasks", "CPU a cell (us)", "CPU a task (us)"
    show(f"{number:,} cells of {seconds:g} s", "threads", *columns, rows=rows)


if __name__ == "__main__":
    main()

"""What counting costs: a task of 20 ms on a Dask worker, with and without the meter of the worker, in turns."""

import statistics
import time

import click
import numpy as np
from distributed import Client, LocalCluster, get_worker
from rich.console import Console
from rich.table import Table

from scdask import dashboard
from scdask.core import contract, metering
from scdask.jit_kernels import mac

SECONDS = 0.02


def task(rounds):
    """Times of a MAC of 20 ms, counted and not, and of counting alone."""
    rng = np.random.default_rng(0)
    weights, inputs = (rng.integers(0, 2**64, (n, 256, 16), dtype=np.uint64) for n in (64, 64))
    once = min(timed(mac.gate_counts, weights, inputs) for _ in range(10))
    weights = np.tile(weights, (max(1, round(SECONDS / once)), 1, 1))
    times = {"counted": [], "not counted": []}
    functions = [("counted", contract.gate_counts), ("not counted", mac.gate_counts)]
    for _ in range(rounds):
        functions.reverse()
        for name, function in functions:
            times[name].append(timed(function, weights, inputs))
    work = metering.accumulating(None, weights, inputs, "and")
    start = time.perf_counter()
    for _ in range(10_000):
        metering._tell(get_worker(), "numpy", work, 0.0)
    return times, (time.perf_counter() - start) / 10_000


def timed(function, weights, inputs):
    start = time.perf_counter()
    function(weights, inputs, "and")
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=200, show_default=True)
def main(rounds):
    """Measure it."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        dashboard.install(client)
        times, counting = client.submit(task, rounds, pure=False).result()
    table = Table("", "least", "median", title="A task of one MAC")
    for name, seconds in times.items():
        table.add_row(name, *(f"{1e3 * of(seconds):.3f} ms" for of in (min, statistics.median)))
    ratios = (of(times["counted"]) / of(times["not counted"]) for of in (min, statistics.median))
    table.add_row("ratio", *(f"{ratio:.4f}" for ratio in ratios))
    table.add_row("counting alone", f"{1e6 * counting:.1f} µs")
    Console().print(table)


if __name__ == "__main__":
    main()

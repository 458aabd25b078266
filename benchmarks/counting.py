"""What counting costs: a task of 20 ms on a Dask worker, with and without the meter of the worker, in turns."""

import statistics
import time

import click
import numpy as np
from distributed import Client, LocalCluster, get_worker
from rich.console import Console
from rich.table import Table

from scdask import _dispatch, dashboard, vector_ops

SECONDS = 0.02


def task(rounds):
    """Times of a MAC of 20 ms, counted and not, and of counting alone."""
    rng = np.random.default_rng(0)
    weights, inputs = (rng.integers(0, 2**64, (n, 256, 16), dtype=np.uint64) for n in (64, 64))
    call = vector_ops.gate_counts.__wrapped__
    vector_ops.gate_counts(weights, inputs, "and")
    once = min(timed(call, weights, inputs) for _ in range(10))
    calls = max(1, round(SECONDS / once))
    times = {"counted": [], "not counted": []}
    for _ in range(rounds):
        for name, function in (("counted", vector_ops.gate_counts), ("not counted", call)):
            times[name].append(sum(timed(function, weights, inputs) for _ in range(calls)))
    work = vector_ops._accumulating(None, weights, inputs, "and")
    start = time.perf_counter()
    for _ in range(10_000):
        _dispatch._tell(get_worker(), "numpy", work, 0.0)
    return times, calls, (time.perf_counter() - start) / 10_000


def timed(function, weights, inputs):
    start = time.perf_counter()
    function(weights, inputs, "and")
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", default=100, show_default=True)
def main(rounds):
    """Measure it."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        dashboard.install(client)
        times, calls, counting = client.submit(task, rounds, pure=False).result()
    table = Table("", "time (ms)", title=f"A task of {calls} MACs")
    for name, seconds in times.items():
        table.add_row(name, f"{1e3 * min(seconds):.3f}")
    table.add_row(
        "ratio of the medians", f"{statistics.median(times['counted']) / statistics.median(times['not counted']):.4f}"
    )
    table.add_row("counting, a call", f"{1e3 * counting:.4f}")
    table.add_row("share of a task of one call of 20 ms", f"{counting / SECONDS:.4%}")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Dask graphs against the kernels that they run, larger-than-memory stores, scaling and linearity.

Runs that are compared take turns, and the least time of each counts.
"""

import json
import math
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")  # workers that close complain of each other

import click
import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait
from rich.console import Console
from rich.table import Table

import scdask as sc
from scdask import vector_ops
from scdask.core.words import WORD

THREADS = 2


def least_times(runs, rounds=5):
    """The least time of each run; short ones are repeated each time, so that all find their own data in the caches."""
    least = dict.fromkeys(runs, math.inf)
    calls = {}
    for name, run in runs.items():
        run()
        calls[name] = max(1, int(0.02 / seconds(run, 1)))
    for _ in range(rounds):
        for name, run in runs.items():
            least[name] = min(least[name], seconds(run, calls[name]))
    return least


def seconds(run, calls):
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def random_words(*shape):
    return np.random.default_rng(0).integers(0, 2**64, shape, dtype=np.uint64)


def kernel_on_threads(w, x):
    """The kernel alone, the neurons in parts that threads take in turn."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = np.split(w, 4 * THREADS)
        return np.concatenate(list(pool.map(lambda part: vector_ops.vec_mac(part, x), parts)), axis=1)


def count_tasks(collection):
    (optimized,) = dask.optimize(collection)
    return len(dict(optimized.__dask_graph__()))


def local_cluster(workers, threads, memory="6GB"):
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=memory,
    )


@click.group(chain=True)
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows to a file too.")
@click.pass_context
def main(context, path):
    """Run some of the benchmarks: mac layer plan store scaling linear."""
    context.obj = []

    @context.call_on_close
    def show():
        if context.obj:
            table = Table("work", "measured", "compared", title="scdask graphs")
            for row in context.obj:
                table.add_row(row["work"], row["measured"], row.get("compared", ""))
            Console().print(table)
        if context.obj and path:
            path.write_text(json.dumps(context.obj, indent=2) + "\n")


def add(rows, work, measured, compared=""):
    """Add a row, and say at once that the work is done."""
    rows.append({"work": work, "measured": measured, "compared": compared})
    click.echo(f"{work}: {measured} {compared}", err=True)


@main.command()
@click.pass_obj
def mac(rows):
    """Multiply-accumulate with 1 GiB of packed weights, batch 64: Dask against the kernel on the same threads."""
    w, x = random_words(16384, 512, 16), random_words(64, 512, 16)
    raw = partial(kernel_on_threads, w, x)
    expected = raw()
    for name, chunks in (("default", "auto"), ("32 MiB", (512, -1, -1)), ("4 MiB", (64, -1, -1))):
        counts = vector_ops.vec_mac(da.from_array(w, chunks=chunks), x)
        run = partial(counts.compute, scheduler="threads", num_workers=THREADS)
        assert np.array_equal(run(), expected)
        report(rows, f"vec_mac, {name} chunks, threads", least_times({"raw": raw, "dask": run}), count_tasks(counts))
    for workers, threads in ((1, THREADS), (THREADS, 1)):
        for name, chunks in (("default", "auto"), ("32 MiB", (512, -1, -1)), ("4 MiB", (64, -1, -1))):
            with local_cluster(workers, threads) as cluster, Client(cluster):
                weights = da.from_array(w, chunks=chunks).persist()
                wait(weights)
                counts = vector_ops.vec_mac(weights, x)
                assert np.array_equal(counts.compute(), expected)
                times = least_times({"raw": raw, "dask": counts.compute})
                where = f"{workers} worker{'s' * (workers > 1)} of {threads} thread{'s' * (threads > 1)}"
                report(rows, f"vec_mac, {name} chunks, LocalCluster, {where}", times, count_tasks(counts))
                del weights, counts


def report(rows, work, times, tasks):
    raw, ours = times["raw"], times["dask"]
    over = f", {(ours - raw) / tasks * 1e3:.2f} ms over it a task" if ours > raw else ""
    measured = f"{ours * 1e3:.0f} ms in {tasks} tasks; kernel alone {raw * 1e3:.0f} ms{over}"
    add(rows, work, measured, f"{raw / ours:.2f} of the kernel's speed")


@main.command()
@click.pass_obj
def layer(rows):
    """A layer of 10,000 x 784 -> 512, N = 1024, split: encoding included, against the kernel alone."""
    rng = np.random.default_rng(0)
    x, w = rng.random((10_000, 784)), rng.normal(size=(512, 784))
    packed_w, packed_x = random_words(1024, 784, 16), random_words(512, 784, 16)
    raw = partial(kernel_on_threads, packed_w, packed_x)
    whole = len(x) / len(packed_x)  # that the kernel alone would take as long
    for x_sng, w_sng in ((sc.Sobol(1), sc.Sobol(2)), (sc.Bernoulli(1), sc.Bernoulli(2))):
        lazy = sc.matmul(da.from_array(x, chunks=(1000, -1)), w, 1024, x_sng=x_sng, w_sng=w_sng)
        run = partial(lazy.compute, scheduler="threads", num_workers=THREADS)
        times = least_times({"raw": raw, "dask": run}, rounds=2)
        times["raw"] *= whole
        report(rows, f"matmul, {type(x_sng).__name__}, threads", times, count_tasks(lazy))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    add(rows, "both layers", f"peak memory of the process {peak:.2f} GiB")


@main.command()
@click.pass_obj
def plan(rows):
    """Build and optimise the graph of an encoding in many blocks."""
    for blocks in (10_000, 100_000, 1_000_000):
        p = da.zeros((blocks, 64), chunks=(1, 64))
        start = time.perf_counter()
        with warnings.catch_warnings(action="ignore"):
            words = sc.encode(p, 1024).words
        built = time.perf_counter() - start
        measured = f"built in {built:.2f} s"
        if blocks < 1_000_000:
            dask.optimize(words)
            measured += f", optimised in {time.perf_counter() - start - built:.1f} s"
        add(rows, f"lazy encoding in {blocks:,} blocks", measured, "warned about" if blocks > 100_000 else "")


@main.command()
@click.option("--gigabytes", type=click.FloatRange(0.1), default=16.0, show_default=True)
@click.option("--folder", type=click.Path(exists=True, file_okay=False), help="Where to put the store for a while.")
@click.pass_obj
def store(rows, gigabytes, folder):
    """Popcount and MAC of streams in Zarr that are larger than the memory of their two workers."""
    neurons = int(gigabytes * 1e9 / (512 * 16 * 8)) // 512 * 512
    path = Path(tempfile.mkdtemp(dir=folder)) / "streams.zarr"
    x = random_words(4, 512, 16)
    try:
        with local_cluster(2, 1, "1GB") as cluster, Client(cluster) as client:
            pids = client.run(os.getpid)
            start = time.perf_counter()
            p = da.full((neurons, 512), 0.25, chunks=(512, -1))
            sc.encode(p, 1024, sng=sc.Bernoulli(1)).to_zarr(path)
            written = time.perf_counter() - start
            streams = sc.open_zarr(path)
            size = streams.words.nbytes
            add(rows, f"{size / 1e9:.1f} GB encoded and written to Zarr", f"{size / written / 1e9:.2f} GB/s")
            ones = {}
            runs = {
                "read": lambda: streams.words.map_blocks(first_word, dtype=np.uint64, chunks=(1, 1, 1)).compute(),
                "popcount": lambda: ones.update(total=int(streams.popcount().sum().compute())),
                "MAC, batch 4": lambda: vector_ops.vec_mac(streams.words, x).compute(),
            }
            peaks = dict.fromkeys(runs, 0)
            taken = {}
            for name, run in runs.items():
                taken[name] = math.inf
                for _ in range(2):
                    client.run(reset_peak)
                    taken[name] = min(taken[name], seconds(run, 1))
                    peaks[name] = max(peaks[name], *client.run(peak_bytes).values())
            spilled = sum(client.run(lambda dask_worker: dask_worker.data.spilled_total.disk).values())
            assert client.run(os.getpid) == pids, "a worker was restarted"
        expected = 0.25 * WORD * size / 8
        assert abs(ones["total"] - expected) < 6 * math.sqrt(0.75 * expected)
        for name, time_taken in taken.items():
            measured = (
                f"{size / time_taken / 1e9:.2f} GB/s, at most {peaks[name] / 1e9:.2f} GB a worker, "
                f"{spilled / 1e6:.0f} MB spilled, no worker restarted"
            )
            add(rows, f"Zarr, {name}, 2 workers of 1 GB", measured, f"{taken['read'] / time_taken:.2f} of reading")
    finally:
        shutil.rmtree(path.parent)


def first_word(block):
    return block[:1, :1, :1].copy()  # a view would keep the chunk


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes():
    line = next(n for n in Path("/proc/self/status").read_text().splitlines() if n.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@main.command()
@click.pass_obj
def scaling(rows):
    """Twice the work on twice the workers, each a process of one thread."""
    packed_w, packed_x = random_words(256, 784, 16), random_words(64, 784, 16)

    def kernels(count):
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda _: vector_ops.vec_mac(packed_w, packed_x), range(10 * count)))

    alone = least_times({count: partial(kernels, count) for count in (1, 2)}, rounds=10)
    w = np.random.default_rng(0).normal(size=(512, 784))
    times = {}
    for workers in (1, 2, 1, 2):
        with local_cluster(workers, 1) as cluster, Client(cluster):
            x = da.random.default_rng(0).random((2000 * workers, 784), chunks=(500, -1)).persist()
            wait(x)
            lazy = sc.matmul(x, w, 1024, x_sng=sc.Sobol(1), w_sng=sc.Sobol(2))
            taken = least_times({"run": lazy.compute}, rounds=3)["run"]
            times[workers] = min(times.get(workers, math.inf), taken)
    measured = f"{times[1]:.2f} s and {times[2]:.2f} s"
    add(rows, "matmul, 2000 rows a worker, 1 and 2 workers", measured, f"efficiency {times[1] / times[2]:.2f}")
    measured = f"{alone[1] * 1e3:.0f} ms and {alone[2] * 1e3:.0f} ms"
    add(rows, "the kernel alone, as much a thread, 1 and 2 threads", measured, f"efficiency {alone[1] / alone[2]:.2f}")


@main.command()
@click.option("--figure", type=click.Path(dir_okay=False), help="Draw the times.")
@click.pass_obj
def linear(rows, figure):
    """The time of a MAC against length, batch, neurons and inputs, over two decades each."""
    factors = [1, 2, 5, 10, 20, 50, 100]
    base = {"words": 16, "batch": 64, "neurons": 64, "inputs": 64}
    curves = {}
    for axis in base:
        runs = {}
        for factor in factors:
            size = base | {axis: base[axis] * factor}
            w = random_words(size["neurons"], size["inputs"], size["words"])
            x = random_words(size["batch"], size["inputs"], size["words"])
            runs[factor] = partial(vector_ops.vec_mac, w, x)
        times = least_times(runs, rounds=15)
        curves[axis] = [times[factor] for factor in factors]
        costs = np.array(curves[axis]) / factors
        off = np.abs(costs / costs[-1] - 1).max()
        measured = f"{curves[axis][0] * 1e3:.3f} to {curves[axis][-1] * 1e3:.1f} ms"
        add(rows, f"MAC, {base[axis]} to {base[axis] * factors[-1]} {axis}", measured, f"linear within {off:.0%}")
    if figure:
        draw(curves, factors, base, figure)


def draw(curves, factors, base, path):
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6, 6), sharex=True, height_ratios=(3, 2), layout="constrained")
    names = {"words": "words a stream", "batch": "batch", "neurons": "neurons", "inputs": "inputs"}
    for (axis, times), marker in zip(curves.items(), "osv^", strict=True):
        label = f"{names[axis]}: {base[axis]} to {base[axis] * factors[-1]}"
        top.loglog(factors, np.array(times) * 1e3, marker=marker, label=label)
        bottom.semilogx(factors, np.array(times) / factors / times[-1] * factors[-1], marker=marker)
    start = np.mean([times[-1] for times in curves.values()]) / factors[-1]
    top.loglog(factors, start * np.array(factors) * 1e3, "k:", label="linear")
    bottom.axhspan(0.9, 1.1, color="0.9", zorder=0, label="within 10%")
    bottom.legend(loc="lower right")
    bottom.set_xticks(factors, map(str, factors))
    top.set(ylabel="time (ms)", title="Multiply-accumulate, one thread")
    bottom.set(xlabel="size, over the smallest", ylabel="time over size,\nthe largest = 1", ylim=(0.5, 1.5))
    top.legend()
    fig.savefig(path, dpi=150)


if __name__ == "__main__":
    sys.exit(main())

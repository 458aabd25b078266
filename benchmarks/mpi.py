"""MPI: how fast the session starts and multiplies, and what a barrier burns. Each command launches its own ranks.

What is compared runs in turns, and the least time of each counts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from scdask import mpi_session, vector_ops

# of the MAC
N_INPUTS, N_WORDS, BATCH = 1024, 16, 64


@click.group()
def main():
    """Measure scdask in MPI."""


def launch(ranks, *args):
    """What rank programs print as JSON, one of which does."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    command = [mpiexec, "-n", ranks, sys.executable, __file__, *args]
    quiet = os.environ | {"DASK_LOGGING__DISTRIBUTED": "critical"}
    done = subprocess.run(list(map(str, command)), env=quiet, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def show(title, *columns, rows):
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.3g}" for value in row))
    Console(width=110).print(table)


@main.command()
@click.option("--ranks", default=4, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def start(ranks, rounds):
    """From imported packages to a cluster whose workers are all there."""
    ways = ("session", "session, plain tcp", "dask_mpi.initialize, plain tcp", "scdask mpi-run's cluster")
    least = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for way in ways:
            least[way] = min(least[way], launch(ranks, "start-once", way))
    first = least["session"]
    show(f"start at {ranks} ranks", "way", "s", "over the session", rows=[(w, s, s / first) for w, s in least.items()])


@main.command(hidden=True)
@click.argument("way")
def start_once(way):
    import dask_mpi
    from distributed import Client
    from mpi4py import MPI

    from scdask.mpi_driver.batch import mpi_cluster

    MPI.COMM_WORLD.Barrier()
    begin = time.perf_counter()
    if way.startswith("session"):
        with mpi_session(quiet=True, encrypted="plain" not in way) as mpi:
            if mpi.client:
                print(time.perf_counter() - begin)
    elif way.startswith("scdask"):
        with mpi_cluster():
            print(time.perf_counter() - begin)
    else:
        dask_mpi.initialize(dashboard_address="127.0.0.1:0", interface="lo")
        client = Client()
        client.wait_for_workers(MPI.COMM_WORLD.size - 2)
        print(time.perf_counter() - begin, flush=True)


@main.command()
@click.option("--gibibytes", default=1.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def mac(gibibytes, rounds):
    """Scatter packed weights, multiply them with a batch of inputs, gather the counts."""
    rows = []
    for ranks in (1, 2, 4):
        seconds = launch(ranks, "mac-once", gibibytes, rounds)
        for way, times in seconds.items():
            plain = seconds["plain mpi4py"]
            ratios = [plain[step] / times[step] for step in ("mac", "all")]
            rows.append((str(ranks), way, *times.values(), *ratios))
    columns = ("ranks", "way", "scatter (s)", "MAC and gather (s)", "all (s)", "MAC: share of plain", "all: share")
    show(f"{gibibytes:g} GiB of weights, batch {BATCH}, a thread a rank", *columns, rows=rows)


@main.command(hidden=True)
@click.argument("gibibytes", type=float)
@click.argument("rounds", type=int)
def mac_once(gibibytes, rounds):
    import dask.array as da
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    neurons = int(gibibytes * 2**30) // (N_INPUTS * N_WORDS * 8) // comm.size * comm.size
    random = np.random.default_rng(0)
    inputs = random.integers(0, 2**64, (BATCH, N_INPUTS, N_WORDS), dtype="u8")
    weights = random.integers(0, 2**64, (neurons, N_INPUTS, N_WORDS), dtype="u8") if comm.rank == 0 else None

    def plain():
        part = np.empty((neurons // comm.size, N_INPUTS, N_WORDS), "u8")
        comm.Scatter(weights, part)
        comm.Barrier()
        yield
        counts = np.ascontiguousarray(vector_ops.vec_mac(part, inputs).T)
        found = np.empty((neurons, BATCH), counts.dtype) if comm.rank == 0 else None
        comm.Gather(counts, found)
        yield found if found is None else found.T

    def session():
        lazy = mpi.scatter(weights)
        mpi.barrier()
        yield
        yield mpi.gather(vector_ops.vec_mac(lazy, everywhere))

    def scattered():
        lazy = None
        if mpi.client:
            parts = np.split(weights, comm.size)
            futures = [
                mpi.client.scatter(part, workers=[worker], hash=False)
                for part, worker in zip(parts, mpi._workers, strict=True)
            ]
            lazy = da.concatenate([da.from_delayed(f, parts[0].shape, "u8") for f in futures])
        mpi.barrier()
        yield
        yield mpi.client and vector_ops.vec_mac(lazy, everywhere).compute()
        mpi.barrier()

    ways = {"plain mpi4py": plain, "session": session, "client.scatter": scattered}
    least = {way: {"scatter": np.inf, "mac": np.inf, "all": np.inf} for way in ways}
    exact = None
    with mpi_session(quiet=True, threads=1) as mpi:
        vector_ops.vec_mac(np.zeros((64, N_INPUTS, N_WORDS), "u8"), inputs)  # compiles
        everywhere = inputs
        if mpi.client:
            future = mpi.client.scatter(inputs, broadcast=True)
            everywhere = da.from_delayed(future, inputs.shape, inputs.dtype)
        for _ in range(rounds):
            for way, run in ways.items():
                mpi.barrier()
                begin = time.perf_counter()
                steps = run()
                next(steps)
                middle = time.perf_counter()
                result = next(steps)
                end = time.perf_counter()
                list(steps)
                if comm.rank == 0:
                    exact = result if exact is None else exact
                    assert np.array_equal(result, exact)
                    found = {"scatter": middle - begin, "mac": end - middle, "all": end - begin}
                    least[way] = {step: min(least[way][step], found[step]) for step in found}
    if comm.rank == 0:
        print(json.dumps(least))


@main.command()
@click.option("--seconds", default=20, show_default=True)
def barrier(seconds):
    """The share of a core that a rank burns which waits in a barrier for another."""
    ways = ("MPIDriver.barrier", "mpi.barrier of a session", "MPI_Barrier")
    rows = [(way, f"{launch(2, 'barrier-once', way, seconds):.1%}") for way in ways]
    show(f"waiting {seconds} s", "barrier", "of a core", rows=rows)


@main.command(hidden=True)
@click.argument("way")
@click.argument("seconds", type=float)
def barrier_once(way, seconds):
    from mpi4py import MPI

    from scdask import MPIDriver

    with ExitStack() as stack:
        if way == "MPI_Barrier":
            wait = MPI.COMM_WORLD.Barrier
        elif way.startswith("mpi"):
            wait = stack.enter_context(mpi_session(quiet=True)).barrier
        else:
            wait = MPIDriver().barrier
        wait()
        if MPI.COMM_WORLD.rank:
            time.sleep(seconds)
        begin = time.process_time(), time.perf_counter()
        wait()
        if MPI.COMM_WORLD.rank == 0:
            print((time.process_time() - begin[0]) / (time.perf_counter() - begin[1]))


STEPS = {
    "start": "start of a session",
    "barrier": "barrier",
    "blocks": "from_blocks and gather",
    "local": "local",
    "exchange": "scatter_workload and gather_results",
}


@main.command()
@click.option("--ranks", default="8,16,32,64", show_default=True)
@click.option("--rounds", default=2, show_default=True)
def scale(ranks, rounds):
    """What ranks cost that share the cores of this machine, forked from a process that has imported everything."""
    counts = [int(count) for count in ranks.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SCDASK_TEMPORARY"] = folder
        found = [least_of(count, rounds) for count in counts]
    rows = []
    for name, what in [
        *STEPS.items(),
        *((f"root {name}", f"CPU s of rank 0: {what}") for name, what in STEPS.items()),
        ("idle", "CPU s a second, all idle"),
        ("root", "MiB of rank 0"),
        ("other", "MiB of another"),
        ("files", "open files of rank 0"),
    ]:
        values = [each[name] for each in found]
        rows.append((what, *values, np.polyfit(np.log(counts), np.log(values), 1)[0]))
    show("s, least of the rounds; the slope is the power of the ranks", "", *map(str, counts), "slope", rows=rows)


def least_of(ranks, rounds):
    """The least of some rounds of each figure, on ranks that are forked as those of the tests are."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import mpirun

    runs = [mpirun.forked(ranks, Path(__file__).resolve(), "scale-once", limit=900) for _ in range(rounds)]
    found = [json.loads(run.stdout) for run in runs]
    return {name: min(each[name] for each in found) for name in found[0]}


@main.command(hidden=True)
def scale_once():
    import psutil

    from scdask import MPIDriver

    process = psutil.Process()
    driver = MPIDriver()
    driver.barrier()
    before = process.memory_full_info().uss
    seconds = {}

    @contextmanager
    def timed(name):
        driver.barrier()
        begin, burnt = time.perf_counter(), time.process_time()
        yield
        burnt = time.process_time() - burnt  # A rank that waits would burn more.
        driver.barrier()
        for key, value in ((name, time.perf_counter() - begin), (f"root {name}", burnt)):
            seconds[key] = min(seconds.get(key, np.inf), value)

    def cpu():
        return driver.gather_results([sum(process.cpu_times()[:2])]).sum()

    with ExitStack() as stack:
        with timed("start"):
            mpi = stack.enter_context(mpi_session(quiet=True, threads=1))
        whole = np.arange(mpi.size * 2**13).reshape(-1, 2**10) if mpi.rank == 0 else None
        for _ in range(3):
            with timed("barrier"):
                pass
            with timed("blocks"):
                lazy = mpi.from_blocks(np.full((8, 2**10), mpi.rank))
                mpi.gather(lazy)
            with timed("local"):
                mpi.local(lazy + 1)
            with timed("exchange"):
                driver.gather_results(driver.scatter_workload(whole))
        burnt = cpu()
        time.sleep(5)
        burnt = cpu() - burnt
        memory = driver.gather_results([process.memory_full_info().uss - before]) / 2**20
        if mpi.rank == 0:
            found = {"idle": burnt / 5, "root": memory[0], "other": memory[1:].mean(), "files": process.num_fds()}
            print(json.dumps(seconds | {name: float(value) for name, value in found.items()}))


@main.command()
@click.option("--ranks", default=8, show_default=True)
@click.option("--gibibytes", default=4.0, show_default=True)
def large(ranks, gibibytes):
    """Scatter and gather much, with plain mpi4py in the same run; and the memory that it takes beside the arrays."""
    rows = launch(ranks, "large-once", gibibytes)
    columns = (
        "way",
        "scatter (s)",
        "gather (s)",
        "scatter over plain",
        "gather over plain",
        "MiB at the root",
        "MiB elsewhere",
    )
    show(f"{gibibytes:g} GiB, {ranks} ranks", *columns, rows=rows)


@main.command(hidden=True)
@click.argument("gibibytes", type=float)
def large_once(gibibytes):
    import resource

    from mpi4py import MPI

    from scdask import MPIDriver

    comm, driver = MPI.COMM_WORLD, MPIDriver()
    row = 2**20
    n_rows = int(gibibytes * 2**30) // row // comm.size * comm.size
    whole = np.ones((n_rows, row), np.uint8) if comm.rank == 0 else None
    row_type = MPI.BYTE.Create_contiguous(row).Commit()
    share = n_rows // comm.size

    def plain_scatter():
        part = np.empty((share, row), np.uint8)
        comm.Scatter([whole, share, row_type], [part, share, row_type])
        return part

    def plain_gather(part):
        back = np.empty_like(whole) if comm.rank == 0 else None
        comm.Gather([part, share, row_type], [back, share, row_type])
        return back

    ways = {
        "MPIDriver": (lambda: driver.scatter_workload(whole), driver.gather_results),
        "plain mpi4py": (plain_scatter, plain_gather),
    }
    seconds = {way: [np.inf, np.inf, 0, 0] for way in ways}
    for _ in range(2):
        for way, (scatter, gather) in ways.items():
            driver.barrier()
            begin = time.perf_counter()
            part = scatter()
            driver.barrier()
            middle = time.perf_counter()
            back = gather(part)
            driver.barrier()
            times = middle - begin, time.perf_counter() - middle
            assert comm.rank or back[:: n_rows // 7, ::997].all()
            del part, back
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            peaks = driver.gather_results([peak])
            if comm.rank == 0:
                least = [min(*pair) for pair in zip(seconds[way], times, strict=False)]
                memory = seconds[way][2:] if seconds[way][2] else [peaks[0], peaks[1:].max()]  # A peak stays.
                seconds[way] = [*least, *memory]
    if comm.rank == 0:
        first = seconds["plain mpi4py"]
        print(json.dumps([(way, *s[:2], s[0] / first[0], s[1] / first[1], *s[2:]) for way, s in seconds.items()]))


if __name__ == "__main__":
    main()

"""MPI over several hosts, which are namespaces of this machine: how jobs end when a rank, a host or a cable fails.

It needs root, and Linux; tests/hosts.sh makes the hosts.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import click
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # whose `hosts` is another than this file

VICTIM, ITS_HOST = 2, "h2"
PROMISED = 60  # seconds within which a job ends
LEFT_AFTER = 15  # further seconds after which nothing is left of it
LONG = 240  # seconds that a phase lasts which a fault ends, and in which a job must come to it
START_SECONDS = 20  # the limit of the start, where that is what ends a job
SHORT_CUT, SHORT_STOP = 12, 40  # seconds
ENDED = (
    "kill",
    "alone",
    "stop",
    "off",
    "cut",
    "cut-h1",
    "off-h1",
    "never",
    "mgmt0",
    "eth9",
    "lo",
)  # faults that do not pass
MEBIBYTES = 100  # of an exchange
RUNS = "8"  # of a job that a short fault meets
INFER = ["infer", "digits", "--quiet", "--sng", "bernoulli", "--scheduler"]


class Case(NamedTuple):
    fault: str
    phase: str
    mode: str

    def __str__(self):
        return f"{self.fault}/{self.phase}/{self.mode}"


# Every fault with every phase and every way to run, and each way with each phase that it has.
CASES = [
    Case(fault, phase, mode)
    for phase, modes in {
        "init": "kill:mpi-run stop:infer off:driver cut:session cut12:driver stop40:mpi-run slow:session never:infer",
        "first": "kill:driver stop:session off:infer cut:mpi-run cut12:infer stop40:driver slow:mpi-run never:driver",
        "computing": "kill:infer stop:mpi-run off:session cut:infer cut12:mpi-run stop40:infer "
        "cut:driver stop:infer cut:session cut12:infer cut-h1:session off-h1:mpi-run cut-h1:mpi-run "
        "alone:session alone:mpi-run",
        "exchange": "kill:driver stop:session off:mpi-run cut:driver cut12:session stop40:driver "
        "cut12:driver cut:session cut12:mpi-run flap:driver flap:session flap:mpi-run",
        "barrier": "kill:session stop:driver off:driver cut:driver cut12:driver stop40:session cut12:session "
        "cut-h1:driver alone:driver",
        "end": "kill:session stop:driver off:session cut:session cut12:driver stop40:mpi-run off:mpi-run cut12:session",
        "network": "mgmt0:session mgmt0:infer eth9:mpi-run eth9:session lo:mpi-run lo:infer",
    }.items()
    for fault, mode in (pair.split(":") for pair in modes.split())
]
LOSS = [
    Case("loss", phase, mode)
    for phase, mode in (("exchange", "driver"), ("exchange", "session"), ("computing", "infer"))
]


@click.group()
def main():
    """Try scdask on several hosts."""


# The program of the ranks


@main.command(hidden=True)
@click.argument("mode")
@click.argument("phase")
@click.argument("seconds", type=float)
@click.argument("interface")
def rank(mode, phase, seconds, interface):
    """Run a mode; in a phase all ranks say that they are there, and the victim is late by some seconds."""
    note("pid")
    for module in ("mpi_driver.batch", "cluster", "cli.infer", "jobs.infer"):  # Imports are no part of a phase.
        import_module(f"scdask.{module}")
    from scdask.mpi_driver.launch import load_mpi

    if phase in ("init", "network"):
        be_late(seconds if phase == "init" else 0)
    if phase == "first":
        load_mpi()
        be_late(seconds)
    chosen = [] if interface == "none" else ["--interface", interface]
    if mode == "driver":
        with_driver(phase, seconds)
    elif mode == "session":
        with_session(phase, seconds, None if interface == "none" else interface)
    else:
        from scdask.cli import main as scdask

        runs = "1" if phase != "computing" else RUNS if seconds < LONG else "400"
        job = [*INFER, "mpi", "--length", "256", "--repeat", runs, "--out", str(folder() / "out"), *chosen]
        script = ["mpi-run", *chosen, __file__, "script", phase, str(seconds)]
        sys.argv = ["scdask", *(job if mode == "infer" else script)]
        note_the_cluster() if mode == "infer" and phase == "computing" else None
        scdask()


def folder():
    return Path(os.environ["SCDASK_CASE"])


def number():
    return int(os.environ["PMI_RANK"])


def note(what):
    place = folder() / f"{what}-{number()}"
    place.with_suffix(".new").write_text(f"{socket.gethostname()} {os.getpid()}")
    place.with_suffix(".new").rename(place)


def be_late(seconds):
    note("there")
    if number() == VICTIM:
        time.sleep(seconds)


def note_the_cluster():
    """Have the client of a job, which has no place of its own for that, say that its cluster is there."""
    from scdask.mpi_driver import batch

    @contextmanager
    def noted(*args):
        with opened(*args) as found:
            note("there")
            yield found

    opened, batch.mpi_cluster = batch.mpi_cluster, noted


def right():
    print("right", flush=True)


def with_driver(phase, seconds):
    import numpy as np

    from scdask import MPIDriver

    driver = MPIDriver()
    here = driver.rank == driver.root
    whole = np.arange(MEBIBYTES * 2**17).reshape(-1, 2**10)

    def exchange(rows):
        back = driver.gather_results(driver.scatter_workload(rows if here else None) * 3)
        assert not here or np.array_equal(back, rows * 3)

    exchange(whole[:12])
    if phase in ("computing", "exchange"):
        note("there")
    end = time.monotonic() + seconds
    if phase == "computing":
        time.sleep(seconds)
    while phase == "exchange":
        exchange(whole)
        if not driver.scatter_workload(np.full(driver.size, time.monotonic() < end) if here else None)[0]:
            break
    if phase == "barrier":
        be_late(seconds)
    driver.barrier()
    exchange(whole[:12])
    if here:
        right()
    if phase == "end":
        be_late(seconds)


def with_session(phase, seconds, interface):
    import numpy as np

    from scdask import mpi_session

    whole = np.arange(MEBIBYTES * 2**17).reshape(-1, 2**10)

    def slowly(block):
        time.sleep(seconds if phase == "computing" else 0)
        return block * 3

    with mpi_session(quiet=True, interface=interface) as mpi:

        def exchange(rows):
            tripled = mpi.scatter(rows).map_blocks(slowly, dtype=rows.dtype)
            back = mpi.gather(tripled)
            assert mpi.rank or np.array_equal(back, rows * 3)

        if phase in ("computing", "exchange"):
            note("there")
        exchange(whole[:12])
        end = time.monotonic() + seconds
        while phase == "exchange":
            exchange(whole)
            if not mpi.local(mpi.scatter(np.full(mpi.size, time.monotonic() < end)))[0]:
                break
        if phase == "barrier":
            be_late(seconds)
        mpi.barrier()
        exchange(whole[:12])
        if mpi.client:
            right()
        if phase == "end":
            be_late(seconds)


@main.command(hidden=True)
@click.argument("phase")
@click.argument("seconds", type=float)
def script(phase, seconds):
    """A Dask script."""
    import dask.array as da
    import numpy as np
    from distributed import Client

    def slowly(block):
        time.sleep(seconds if phase == "computing" else 0)
        return block * 3

    side = int((MEBIBYTES * 2**17) ** 0.5) if phase == "exchange" else 64
    plain = np.arange(side * side).reshape(side, side)
    with Client() as client:
        lazy = da.arange(side * side, chunks=side * side // 4).reshape(side, side)
        if phase in ("computing", "exchange"):
            note("there")
        end = time.monotonic() + seconds
        while True:
            both = (lazy + lazy.T).rechunk((side // 4, side))
            summed = both.map_blocks(slowly, dtype=int).sum(axis=0).compute()
            assert np.array_equal(summed, (plain + plain.T).sum(axis=0) * 3)
            if phase != "exchange" or time.monotonic() > end:
                break
        if phase == "end":
            client.shutdown()
    if phase == "end":
        note("there")
        time.sleep(seconds)
    right()


# The cases


class Result(NamedTuple):
    case: Case
    seconds: float
    code: int | None
    said: list[str]
    others: int  # lines that are no sentence of ours
    left: list[str]
    right: bool

    @property
    def kept(self):
        """Whether the promise was."""
        if self.left or self.others or self.code is None:
            return False
        if self.case.fault in ENDED:
            by_launcher = self.case.fault in ("kill", "off", "off-h1")
            return self.code != 0 and self.seconds <= PROMISED and (by_launcher or 1 <= len(self.said) <= 2)
        return self.code == 0 and self.right and not self.said


@main.command()
@click.option("--only", default="*", help="Cases, such as cut/*/driver,*/init/*.")
@click.option("--at-once", default=2, show_default=True, help="Sets of hosts.")
@click.option("--logs", type=click.Path(path_type=Path), help="Folder for what the jobs print.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File for the results.")
def failures(only, at_once, logs, file):
    """Break a rank, a host or the network of jobs of six ranks on three hosts, and see how they end."""
    import hosts

    if why := hosts.why_not():
        raise click.ClickException(f"no hosts can be made here: {why}")
    cases = [
        case
        for case in CASES + (LOSS if has_netem() else [])
        if any(fnmatch(str(case), pattern) for pattern in only.split(","))
    ]
    if not has_netem():
        print("This kernel has no netem: no cases with delay and loss.", flush=True)
    results = []
    with ThreadPoolExecutor(at_once) as pool:
        for result in pool.map(lambda case: tried(case, logs), cases):
            results.append(result)
            print(json.dumps(result._asdict() | {"case": str(result.case), "kept": result.kept}), flush=True)
    if file:
        file.write_text(json.dumps([result._asdict() | {"kept": result.kept} for result in results], indent=1))
    table = Table("fault", "phase", "mode", "s", "exit", "what it says", "left", "as promised")
    for result in sorted(results):
        said = " | ".join(result.said) + (f" (+ {result.others} lines)" if result.others else "")
        code = "none" if result.code is None else str(result.code)
        how = "yes" if result.kept else "NO"
        table.add_row(*result.case, f"{result.seconds:.0f}", code, said, str(len(result.left)), how)
    Console(width=160).print(table)


def has_netem():
    import hosts

    with hosts.running() as made:
        try:
            made.do("disturb", ITS_HOST, "delay", "50ms", "loss", "5%")
        except subprocess.CalledProcessError:
            return False
    return True


def tried(case, logs):
    import hosts

    with ExitStack() as stack:
        made = stack.enter_context(hosts.running())
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree(ROOT / "tests" / "mpi", place / "mpi")
        passing = {"cut12": 30.0, "flap": 30.0, "stop40": 50.0, "slow": 15.0, "loss": 10.0}
        interface = case.fault if case.phase == "network" else "none"
        seconds = str(passing.get(case.fault, LONG))
        program = [sys.executable, __file__, "rank", case.mode, case.phase, seconds, interface]
        env = os.environ | {"SCDASK_CASE": str(place)}
        if case.phase in ("init", "first") and case.fault not in passing:
            env["DASK_SCDASK__START_SECONDS"] = str(START_SECONDS)
        if case.fault == "loss":
            made.do("disturb", ITS_HOST, "delay", "50ms", "loss", "5%")
        job = subprocess.Popen(
            [*map(str, made.mpiexec(6, *["-disable-auto-cleanup"] * (case.fault == "alone"), *program))],
            env=env,
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        reading = ThreadPoolExecutor(1).submit(job.communicate)
        ranks = wait_for(job, place, case)
        time.sleep(5 if case.mode == "infer" else 1)
        start = time.monotonic()
        strike(made, case.fault, ranks)
        with suppress(subprocess.TimeoutExpired):
            job.wait(LONG)
        spent, code = time.monotonic() - start, job.poll()
        end = time.monotonic() + LEFT_AFTER
        while (left := left_over(made)) and time.monotonic() < end:
            time.sleep(0.5)
        for line in left_over(made, of_launcher=True):
            with suppress(subprocess.SubprocessError):
                subprocess.run(made.on(line.split(":")[0], "kill", "-9", line.split()[1]), check=False)
        if code is None:
            job.kill()
        out, err = reading.result()
        if logs:
            logs.mkdir(exist_ok=True, parents=True)
            (logs / str(case).replace("/", "-")).write_text(f"{ranks}\n{out}\n---\n{err}\n---\n{left}\n")
        lines = [line for line in err.splitlines() if line.strip() and not launchers_own(line)]
        if (case.phase, case.mode) == ("network", "session"):  # The program shows an error as Python does.
            lines = [line for line in lines if line.startswith("scdask.errors.")]
        said = [line for line in lines if line.startswith(("scdask: ", "scdask.errors.", "Error: "))]
        is_right = "right" in out or (case.mode == "infer" and code == 0 and is_local_result(place / "out"))
        return Result(case, spent, code, said, len(lines) - len(said), left, is_right)


def wait_for(job, place, case):
    """The host and process of each rank, when all are in the phase."""
    by_client = case.mode in ("mpi-run", "infer") and case.phase in ("computing", "exchange", "end")
    end = time.monotonic() + LONG
    while len(list(place.glob("there-*[0-9]"))) < (1 if by_client else 6):
        if time.monotonic() > end or job.poll() is not None:
            break
        time.sleep(0.1)
    return {int(path.name[4:]): path.read_text().split() for path in sorted(place.glob("pid-*[0-9]"))}


def is_local_result(place):
    found, alone = (json.loads((each / "results.json").read_text())["results"] for each in (place, local_result()))
    return [each["accuracy"] for each in found] == [each["accuracy"] for each in alone][: len(found)]


@cache
def local_result():
    place = tempfile.mkdtemp()
    command = ["scdask", *INFER, "threads", "--length", "256", "--repeat", RUNS, "--out", place]
    subprocess.run(command, check=True)
    return Path(place)


def launchers_own(line):
    """Whether a line is mpiexec's, or that with which MPI aborts."""
    starts = (
        "[mpiexec@",
        "[proxy:",
        "===",
        "=  ",
        "YOUR APPLICATION",
        "This typically",
        "Please see",
        "Abort(",
        "application called",
    )
    return line.startswith(starts)


def strike(made, fault, ranks):
    def send(number, to):
        for host, process in to:
            subprocess.run(made.on(host, "kill", f"-{int(number)}", process), check=True)

    victim = ranks[VICTIM]
    if fault in ("kill", "alone"):
        send(signal.SIGKILL, [victim])
    elif fault == "stop":
        send(signal.SIGSTOP, [victim])
    elif fault == "stop40":
        send(signal.SIGSTOP, ranks.values())
        time.sleep(SHORT_STOP)
        send(signal.SIGCONT, ranks.values())
    elif fault in ("off", "off-h1"):
        made.do("kill", "h1" if fault == "off-h1" else ITS_HOST)
    elif fault in ("cut", "cut-h1"):
        made.do("cut", "h1" if fault == "cut-h1" else ITS_HOST)
    elif fault == "cut12":
        made.do("cut", ITS_HOST)
        time.sleep(SHORT_CUT)
        made.do("heal", ITS_HOST)
    elif fault == "flap":
        for _ in range(10):
            made.do("cut", ITS_HOST)
            time.sleep(0.5)
            made.do("heal", ITS_HOST)
            time.sleep(1.5)


def left_over(made, of_launcher=False):
    return [line for line in made.processes() if of_launcher or ("hydra_pmi_proxy" not in line and " Z" not in line)]


if __name__ == "__main__":
    main()

"""Slurm: batch scripts that run a job of scdask, and workers that are jobs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Security, Status

from .._extras import require
from ..dashboard import preloaded
from ..errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GRACE = 60  # seconds between the first signal and the time limit
START_SECONDS = 60  # time in which a worker must come once its job runs
POLL_SECONDS = 1
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "RESV_DEL_HOLD", "SUSPENDED"}


def batch_script(
    job: Sequence[str],
    *,
    ntasks: int,
    limit: str,
    nodes: int = 1,
    cpus_per_task: int = 1,
    mem: str | None = None,
    mem_per_cpu: str | None = None,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    gres: str | None = None,
    directives: Sequence[str] = (),
    launcher: str = "srun",
    mpi_type: str | None = None,
    setup: Sequence[str] = (),
) -> str:
    """A script for sbatch that runs `scdask` with the arguments of `job` in MPI, in the environment of this process.

    The `directives` are options of sbatch as they are written, such as "--exclusive".

    Raises
    ------
    SchedulerError
        If a line of `setup` is a directive, which Slurm ignores once the script has commands, or a directive is none.
    """
    for line in setup:
        if any(part.lstrip().startswith("#SBATCH") for part in line.splitlines()):
            raise SchedulerError(f"Slurm ignores {line.strip()!r} among the commands of a script: make it a directive")
    for directive in directives:
        if not re.fullmatch(r"--?[^\s=-].*", directive):
            raise SchedulerError(f"a directive is one option of sbatch, such as --exclusive, not {directive!r}")
    options = {
        "job-name": f"scdask-{job[0]}",
        "nodes": nodes,
        "ntasks": ntasks,
        "cpus-per-task": cpus_per_task,
        "time": limit,
        "mem": mem,
        "mem-per-cpu": mem_per_cpu,
        "partition": partition,
        "account": account,
        "qos": qos,
        "gres": gres,
        "signal": f"TERM@{GRACE}",
        "output": f"scdask-{job[0]}-%j.log",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines += [f"#SBATCH {directive}" for directive in directives]
    launch = ["mpiexec", "-n", str(ntasks)]
    if launcher == "srun":
        launch = ["srun", "--kill-on-bad-exit=1", f"--cpus-per-task={cpus_per_task}"]
        launch += [f"--mpi={mpi_type}"] if mpi_type else []
    command = [*launch, sys.executable, "-m", "scdask", *job, "--scheduler", "mpi"]
    path = f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH"
    return "\n".join(
        ["#!/bin/bash", *lines, "", "set -eo pipefail", path, *setup, "", f"exec {shlex.join(command)}", ""]
    )


def submit(script: Path) -> str:
    """Give a script to sbatch, and return the id of the job."""
    return _slurm("sbatch", "--parsable", str(script)).partition(";")[0]


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise SchedulerError(f"there is no {command[0]} here: is this machine part of a Slurm cluster?") from None
    except subprocess.CalledProcessError as error:
        raise SchedulerError(f"{command[0]} failed: {error.stderr.strip()}") from None
    return done.stdout.strip()


@contextmanager
def slurm_cluster(workers: int | None, threads: int | None, interface: str | None) -> Iterator[tuple[Client, str]]:
    """Start workers as jobs of Slurm, which talk TLS; yield the client and the address of the dashboard.

    It waits for the first worker, as long as a job waits in the queue.
    """
    cluster_of_jobs = require("dask_jobqueue", "slurm").SLURMCluster
    require("cryptography", "slurm")
    _slurm("squeue", "--version")
    options = dask.config.get("jobqueue.slurm")
    try:
        with preloaded():
            cluster = cluster_of_jobs(
                cores=threads or options["cores"] or 1,
                processes=1,
                memory=options["memory"] or "2 GiB",
                interface=interface or options["interface"],
                security=Security.temporary(),
                shared_temp_directory=options["shared-temp-directory"] or str(Path.cwd()),
                scheduler_options={"dashboard_address": "127.0.0.1:0"},
            )
    except Exception as error:  # The options are passed on to the script, the scheduler and the system as they are.
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise SchedulerError(f"Dask's options under jobqueue.slurm, or the interface, do not fit: {reason}") from error
    with cluster:
        _start_jobs(cluster, workers or 1)
        _wait_for_worker(cluster)
        with Client(cluster) as client:
            yield client, client.dashboard_link


def _start_jobs(cluster: Any, jobs: int) -> None:
    """Submit the jobs, as `cluster.scale` does, which tells nobody that one is refused."""

    async def start() -> None:
        while len(cluster.worker_spec) < jobs:
            cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster._correct_state()

    try:
        cluster.sync(start)
    except (RuntimeError, ValueError, OSError) as error:
        for worker in cluster.workers.values():
            worker.status = Status.failed  # The cluster asks for it as it closes.
        said = str(error).partition("stderr:\n")[2] or str(error)
        raise SchedulerError(f"sbatch refuses the job of a worker: {' '.join(said.split())}") from error


def _wait_for_worker(cluster: Any) -> None:
    started = None
    while not cluster.scheduler_info["workers"]:
        time.sleep(POLL_SECONDS)
        jobs = [worker.job_id for worker in cluster.workers.values()]
        states = set(_slurm("squeue", "--noheader", "--format=%T", f"--jobs={','.join(jobs)}").split())
        started = None if states & WAITING else started or time.monotonic()
        if started is not None and time.monotonic() - started > START_SECONDS:
            raise SchedulerError(
                f"no worker of job {', '.join(jobs)} has come after {START_SECONDS} seconds "
                f"(Slurm says: {', '.join(states) or 'ended'}); the job's slurm-*.out says why"
            )

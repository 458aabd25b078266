"""Slurm: batch scripts that run a job of scdask, and workers that are jobs."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, Status

from .._extras import require
from ..dashboard import preloaded
from ..errors import SchedulerError
from ..mpi_driver.credentials import new_security
from ..mpi_driver.ranks import RankWorker, dashboard_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GRACE = 60  # seconds between the first signal and the time limit
START_SECONDS = 60  # time in which a worker must come once its job runs
POLL_SECONDS = 1
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED"}
ALIVE = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED"}
# What a script runs on each node before the ranks start; its arguments are a new file, its folder and a Python.
LOOK = (
    'test -e "$0" && "$2" -c "import scdask" && exit; '
    'echo "$(hostname) does not share the folder $1, or lacks the environment of $2" >&2; exit 1'
)


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
    exclusive: bool = False,
    array: str | None = None,
    grace: int = GRACE,
    resume_from: str | None = None,
    requeue: bool = False,
    shared: bool = False,
    directives: Sequence[str] = (),
    launcher: str = "srun",
    mpi_type: str | None = None,
    setup: Sequence[str] = (),
) -> str:
    """A script for sbatch that runs `scdask` with the arguments of `job` in MPI, in the environment of this process.

    Parameters
    ----------
    job : sequence of str
        Arguments of `scdask`, such as ["infer", "digits"].
    ntasks, nodes, cpus_per_task : int
        Ranks, the nodes over which they are spread evenly, and the cores of each rank.
    limit : str
        The time limit, as Slurm writes it: "30" minutes, "2:00:00" or "1-0".
    mem, mem_per_cpu, partition, account, qos, gres : str, optional
        The options of sbatch of these names.
    exclusive : bool
        Whether the job shares its nodes with no other.
    array : str, optional
        Jobs that each do a part: "8", or "8%2" to run two of them at a time. Each is given --part K/8, unless they are
        `shared`.
    grace : int
        Seconds before the time limit at which the ranks get SIGTERM.
    resume_from : str, optional
        A file that shows that the job has begun; a part of an array has it in a folder of its own beside it. The job
        may be requeued then, and gets --resume where the file is there. Without it, Slurm is told not to requeue it.
    requeue : bool
        Whether it may be requeued without such a file.
    shared : bool
        Whether the jobs of an array have one store, which deals the work, so that all are given the same.
    directives : sequence of str
        Options of sbatch as they are written, such as "--reservation=mine".
    launcher : str
        "srun" or "mpiexec".
    mpi_type : str, optional
        What srun knows as --mpi.
    setup : sequence of str
        Commands to run first.

    Raises
    ------
    SchedulerError
        If a line of `setup` is a directive, which Slurm ignores once the script has commands, or a directive is none,
        or the time limit leaves no time before the signal.
    """
    for line in setup:
        if any(part.lstrip().startswith("#SBATCH") for part in line.splitlines()):
            raise SchedulerError(f"Slurm ignores {line.strip()!r} among the commands of a script: make it a directive")
    for directive in directives:
        if not re.fullmatch(r"--?[^\s=-].*", directive):
            raise SchedulerError(f"a directive is one option of sbatch, such as --exclusive, not {directive!r}")
    if 0 < (seconds := _seconds(limit)) <= grace:
        raise SchedulerError(
            f"a time limit of {seconds} seconds leaves none before the signal, which comes {grace} seconds earlier"
        )
    parts = array and not shared and array.partition("%")[0]
    requeue = requeue or resume_from is not None
    options = {
        "job-name": f"scdask-{job[0]}",
        "nodes": nodes,
        "ntasks": ntasks,
        "ntasks-per-node": -(-ntasks // nodes) if nodes > 1 else None,
        "cpus-per-task": cpus_per_task,
        "time": limit,
        "mem": mem,
        "mem-per-cpu": mem_per_cpu,
        "partition": partition,
        "account": account,
        "qos": qos,
        "gres": gres,
        "array": array and f"1-{array}",
        "signal": f"TERM@{grace}",
        "output": f"scdask-{job[0]}-{'%A_%a' if array else '%j'}.log",
        "open-mode": "append" if requeue else None,
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines += ["#SBATCH --exclusive"] if exclusive else []
    lines += [f"#SBATCH --{'requeue' if requeue else 'no-requeue'}"]
    lines += [f"#SBATCH {directive}" for directive in directives]
    commands = [
        "# The environment of scdask",
        f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        *setup,
    ]
    if nodes > 1:
        look = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--mpi=none", "--chdir=/"]
        look += ["sh", "-c", LOOK]
        commands += ["", "# All nodes must share this folder, and have this environment."]
        commands += ['file=$(mktemp "$PWD/.scdask-XXXXXX")']
        commands += [f'{shlex.join(look)} "$file" "$PWD" {shlex.quote(sys.executable)} || {{ rm "$file"; exit 1; }}']
        commands += ['rm "$file"']
    launch = ["mpiexec", "-n", str(ntasks)]
    if launcher == "srun":
        launch = ["srun", "--kill-on-bad-exit=1", f"--cpus-per-task={cpus_per_task}"]
        launch += [f"--mpi={mpi_type}"] if mpi_type else []
    if nodes > 1 and (launcher == "mpiexec" or ntasks % nodes):
        commands += [
            "unset SLURM_NTASKS_PER_NODE  # Otherwise srun, which mpiexec calls too, warns that ranks do not divide"
        ]
    command = shlex.join([*launch, sys.executable, "-m", "scdask", *job, "--scheduler", "mpi"])
    if parts:
        command += f' --part "$SLURM_ARRAY_TASK_ID/{parts}"'
    if resume_from:
        file = Path(resume_from)
        part = f'/part-"$SLURM_ARRAY_TASK_ID"-of-{parts}' if parts else ""
        begun = f"{shlex.quote(str(file.parent))}{part}/{shlex.quote(file.name)}"
        commands += [
            "",
            "# After a requeue it goes on from what is there.",
            f"resume=; [ ! -e {begun} ] || resume=--resume",
        ]
        command += " $resume"
    return "\n".join(["#!/bin/bash", *lines, "", "set -eo pipefail", *commands, "", f"exec {command}", ""])


def _seconds(limit: str) -> int:
    """A time limit of Slurm in seconds: minutes, minutes:seconds, hours:minutes:seconds, or days-hours:..."""
    days, dash, rest = limit.rpartition("-")
    numbers = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    return 60 * (60 * (24 * int(days or 0) + hours) + minutes) + seconds


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
    """Start workers as jobs of Slurm, which talk TLS and serve no HTTP; yield the client and the dashboard's address.

    It waits for the first worker, as long as a job waits in the queue.
    """
    cluster_of_jobs = _jobqueue().SLURMCluster
    require("cryptography", "slurm")
    _slurm("squeue", "--version")
    options = dask.config.get("jobqueue.slurm")
    folder = options["shared-temp-directory"] or str(Path.cwd())
    try:
        with preloaded():
            cluster = cluster_of_jobs(
                cores=threads or options["cores"] or 1,
                processes=1,
                memory=options["memory"] or "2 GiB",
                interface=interface or options["interface"],
                security=new_security(),
                shared_temp_directory=folder,
                scheduler_options={"dashboard_address": "127.0.0.1:0"},
                worker_extra_args=[
                    *options["worker-extra-args"],
                    "--no-dashboard",
                    f"--worker-class={RankWorker.__module__}.{RankWorker.__name__}",
                ],
            )
    except Exception as error:  # The options are passed on to the script, the scheduler and the system as they are.
        reason = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise SchedulerError(f"Dask's options under jobqueue.slurm, or the interface, do not fit: {reason}") from error
    with cluster:
        _start_jobs(cluster, workers or 1)
        _wait_for_worker(cluster, folder)
        with Client(cluster) as client:
            yield client, "{} (from elsewhere: {})".format(*dashboard_of(client))


def _jobqueue() -> Any:
    """dask_jobqueue, without the handler of Ctrl-C that its import sets."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return require("dask_jobqueue", "slurm")
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


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


def _wait_for_worker(cluster: Any, folder: str) -> None:
    started = None
    while not cluster.scheduler_info["workers"]:
        time.sleep(POLL_SECONDS)
        jobs = [worker.job_id for worker in cluster.workers.values()]
        states = _states(jobs)
        if {state for state, _ in states.values()} & WAITING:
            started = None
            continue
        started = started or time.monotonic()
        alive = {state for state, _ in states.values()} & ALIVE
        if (alive and time.monotonic() - started < START_SECONDS) or cluster.scheduler_info["workers"]:
            continue
        said = ", ".join(f"job {job} {state} on {node}" for job, (state, node) in states.items())
        logs = dask.config.get("jobqueue.slurm.log-directory")
        log = Path(logs or Path.cwd()) / f"{cluster.job_name if logs else 'slurm'}-{jobs[0]}.out"
        raise SchedulerError(
            f"no worker has come {f'after {START_SECONDS} seconds' if alive else 'of jobs that have ended'} (Slurm "
            f"says: {said}); {log} may say why. All nodes must share the environment of {sys.executable} and the "
            f"folder {folder}, in which the workers find their credentials"
        )


def _states(jobs: Sequence[str]) -> dict[str, tuple[str, str]]:
    """What Slurm says of jobs: the state of each, and its nodes."""
    told = _slurm("squeue", "--noheader", "--states=all", "--format=%i %T %N", f"--jobs={','.join(jobs)}")
    found = dict.fromkeys(jobs, ("ended", "a node"))
    for line in told.splitlines():
        job, state, *nodes = line.split()
        found[job] = state, " ".join(nodes) or "no node"
    return found

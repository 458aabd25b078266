"""`scdask mpi-run` and `scdask sbatch`: scripts and jobs in MPI, and in Slurm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..progress import stderr_console
from .infer import folder_of, infer, refuse_predictions, require_inputs, settings_of
from .options import FilePath, Matching
from .run import run
from .running import plain_errors, plain_os_errors, say, stoppable
from .sweep import README, changes_of, require_config, sweep
from .train import train

JOBS = {"infer": infer, "train": train, "run": run, "sweep": sweep}
SLURM_TIME = Matching("time", r"\d+(:\d\d?){0,2}|\d+-\d\d?(:\d\d?){0,2}")
SLURM_MEMORY = Matching("memory", r"\d+[KMGT]?")
SLURM_GRES = Matching("list of resources", r"[\w.:,=/+-]+")
SLURM_DIRECTIVE = Matching("option of sbatch", r"--?[^\s=-].*")
SLURM_NAME = Matching("name", r"[\w.,@+-]+")
SLURM_ARRAY = Matching("number of jobs, such as 8 or 8%2", r"[1-9]\d*(%[1-9]\d*)?")


@click.command("mpi-run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--threads", type=click.IntRange(1), help="Threads of each worker.")
@click.option("--interface", help="Network interface of the cluster, such as ib0.")
@click.argument("script", type=FilePath(exists=True, dir_okay=False))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def mpi_run(script: str, args: tuple[str, ...], threads: int | None, interface: str | None) -> None:
    """Run a Dask script in an MPI job.

    \b
    mpiexec -n 4 scdask mpi-run script.py --its options
    srun -n 4 --kill-on-bad-exit=1 scdask mpi-run script.py --its options

    One rank runs SCRIPT with its ARGS, and finds the other ranks as the cluster of its `Client()`. Of three ranks or
    more, rank 0 is the scheduler, rank 1 runs the script, and the others are workers; of one or two, all are workers,
    and rank 0 runs it.

    Our own jobs need no script: mpiexec -n 4 scdask infer digits --scheduler mpi. An MPI program whose ranks have their
    data already takes `scdask.mpi_session` instead, one that only scatters and gathers `scdask.MPIDriver`.

    An error that nobody catches, on any rank, ends the whole job with its exit code. The ranks talk TLS, with
    credentials that are made for the job and are on no disk. The dashboard is on the loopback device of the host of
    the scheduler, at `Client().dashboard_link`.

    It needs pip install "scdask[mpi]" and the MPI of your cluster; on a machine without one, pip install mpich.
    """
    with plain_errors(), stoppable():
        from ..mpi_driver.batch import run_script

        run_script(script, args, threads, interface)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("job", type=click.Choice(list(JOBS)))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("-N", "--nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes.")
@click.option("-n", "--ntasks", type=click.IntRange(1), required=True, help="Ranks.")
@click.option(
    "-t", "--time", "limit", type=SLURM_TIME, required=True, help="Time limit, such as 30 (minutes), 2:00:00 or 1-0."
)
@click.option("-c", "--cpus-per-task", type=click.IntRange(1), default=1, show_default=True, help="Cores of each rank.")
@click.option("--mem", type=SLURM_MEMORY, help="Memory of each node, such as 16G.")
@click.option("--mem-per-cpu", type=SLURM_MEMORY, help="Memory of each core, such as 2G, in place of --mem.")
@click.option("-p", "--partition", type=SLURM_NAME, help="Partition of the cluster.")
@click.option("-A", "--account", type=SLURM_NAME, help="Account that pays.")
@click.option("-q", "--qos", type=SLURM_NAME, help="Quality of service.")
@click.option("--gres", type=SLURM_GRES, help="Resources of each node, such as gpu:2.")
@click.option("--exclusive", is_flag=True, help="Share the nodes with no other job.")
@click.option(
    "--array",
    type=SLURM_ARRAY,
    metavar="JOBS[%AT_ONCE]",
    help="Deal the settings of infer, or the cells of sweep, to so many jobs, such as 8, or 8%2 to run two at a time; "
    "see above.",
)
@click.option(
    "--signal",
    "grace",
    type=click.IntRange(1, 65535),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="How long before the time limit the job is to stop in order.",
)
@click.option(
    "--requeue",
    is_flag=True,
    help="Let Slurm run infer, train or sweep again if it is preempted or a node is lost; see above.",
)
@click.option(
    "--directive",
    "directives",
    type=SLURM_DIRECTIVE,
    multiple=True,
    metavar="OPTION",
    help="Any other option of sbatch, such as --directive=--reservation=mine; again for more.",
)
@click.option(
    "--launcher",
    type=click.Choice(["srun", "mpiexec"]),
    default="srun",
    show_default=True,
    help="What starts the ranks.",
)
@click.option(
    "--mpi",
    "mpi_type",
    type=SLURM_NAME,
    help="What srun knows as --mpi: pmi2 for MPICH, pmix for Open MPI, cray_shasta; see srun --mpi=list. The site's "
    "choice without it.",
)
@click.option("--setup", multiple=True, help="A command to run first, such as 'module load mpich'; again for more.")
@click.option("--script", type=FilePath(dir_okay=False, path_type=Path), help="File to write; by default JOB.sbatch.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@click.option("--submit", is_flag=True, help="Submit it too.")
def sbatch(
    job: str,
    args: tuple[str, ...],
    script: Path | None,
    overwrite: bool,
    submit: bool,
    requeue: bool,
    **options: Any,
) -> None:
    """Write, and submit, a Slurm script that runs a job of scdask in MPI.

    \b
    scdask sbatch infer digits --repeat 3 -N 2 -n 8 -t 0:30:00 --submit
    scdask sbatch infer digits --repeat 100 -n 4 -t 30 --array 8 --submit

    The job is infer, train, run or sweep, ARGS what it takes, without --scheduler and --workers. The script,
    infer.sbatch here, runs it with --scheduler mpi, in the environment of this command and the folder from which it is
    submitted.
    What is no option of sbatch goes to the job, whose options are tried at once.

    All nodes must share that folder and the environment; a script for several nodes looks first, and names the node
    that lacks one of them. The ranks are spread over the nodes evenly. Where srun cannot start the ranks of your MPI,
    take --launcher mpiexec.

    A minute before the time limit, or the seconds of --signal, Slurm sends the signal on which a job stops in order,
    up to a minute earlier still; a training leaves a checkpoint, an inference the results it has, and --resume goes on
    from it. Such a job is FAILED with exit code 143. An mpiexec that starts its ranks without srun does not hand the
    signal on.

    Without --requeue Slurm is told not to run a job again. With it a job that lost a node, or was preempted, begins
    anew, goes on from what its folder holds, and appends to its log; so give each job an --out of its own. Where a
    preempted job is given time (GraceTime), it stops in order, as above: submit the same script again.

    Other options of sbatch go through --directive, such as --directive=--mail-type=END. Of three ranks or more one is
    the scheduler and one the client; the others are workers.

    With --array each job of infer does a part of the settings, dealt so that all take about as long, and writes to
    a folder of its own, such as results/part-3-of-8. The same infer with --resume, and without --part, then puts them
    together, and does what they have left.

    A sweep needs none of that: its store says what is left. Submit the script again, and it goes on; with --array the
    jobs share the store, each does cells that no other does, and more jobs may come at any time.
    """
    with plain_errors():
        from .._files import write_whole
        from ..cluster import slurm

        if options["nodes"] > options["ntasks"]:
            raise click.UsageError(f"{options['ntasks']} ranks cannot be on {options['nodes']} nodes")
        if options["mem"] and options["mem_per_cpu"]:
            raise click.UsageError("give --mem, for a node, or --mem-per-cpu")
        given = JOBS[job].make_context(f"scdask {job}", list(args)).params  # This refuses wrong options.
        scheduled = any(arg.partition("=")[0] == "--scheduler" for arg in args) and given["scheduler"] != "mpi"
        if scheduled or given["workers"] is not None:
            raise click.UsageError("a job in MPI takes no --scheduler and no --workers: its ranks are the workers")
        if given["keep"]:
            raise click.UsageError(
                "nobody presses Enter in a job of Slurm: --keep-open would last until its time limit"
            )
        if job == "infer":
            require_inputs(given["dataset"], given["model"], given["data"], given["network"])
        if job == "sweep":
            _check_sweep(given)
        elif options["array"]:
            _check_array(job, given, int(options["array"].partition("%")[0]))
        path = script or Path(f"{job}.sbatch")
        begun = _begun(job, given) if requeue and job != "sweep" else None
        text = slurm.batch_script([job, *args], resume_from=begun, requeue=requeue, shared=job == "sweep", **options)
        with plain_os_errors(path.parent):
            if not overwrite and path.exists() and path.read_bytes() != text.encode():
                raise click.UsageError(f"{path} is there already, and is another script: --overwrite replaces it")
            write_whole(path, lambda file: file.write(text.encode()))
        say(stderr_console(), f"Written: {path}")
        if submit:
            click.echo(f"Submitted: job {slurm.submit(path)}")


def _check_array(job: str, given: dict[str, Any], parts: int) -> None:
    """Raise a UsageError unless there is a setting for each job of an array."""
    if job != "infer":
        raise click.UsageError(f"--array deals the settings of infer or the cells of sweep, and {job} has none")
    if given["part"] or given["resume"]:
        raise click.UsageError("with --array the script says which --part a job does: leave out --part and --resume")
    refuse_predictions(given["predictions"], (1, parts), resume=False)
    settings_of(given, (1, parts))


def _check_sweep(given: dict[str, Any]) -> None:
    """Raise an error unless there is a campaign to run."""
    from ..sweeps.config import read_config

    if given["status"] or given["plot"]:
        raise click.UsageError("--status and --plot need no job of Slurm")
    changes = changes_of(given["over"], given["options"], given["until"], given["figure"])
    require_config(given["config"], changes, given["store"], given["only"])
    if given["config"] != README:
        read_config(given["config"], changes)


def _begun(job: str, given: dict[str, Any]) -> str:
    """The file that shows that a job has begun."""
    if job == "run":
        raise click.UsageError("--requeue is for infer and train: run has nothing to go on from")
    if given["resume"]:
        raise click.UsageError("with --requeue the script itself adds --resume, once there is something to go on from")
    if job == "infer":
        refuse_predictions(given["predictions"], None, resume=True)
        return str(folder_of(given["out"], given["part"]) / "results.json")
    return str(given["out"] / ("fine-tuned.npz" if given["model"] else "checkpoint.npz"))

import json
import os
import re
import subprocess
import sys
import time

import psutil
import pytest
from click.testing import CliRunner
from mpirun import LIMIT, PROGRAMS, environment, family, launch

from scdask import SchedulerError
from scdask.cli import main
from scdask.cluster.slurm import batch_script, submit

INFER = ["infer", "digits", "--sng", "sobol,lfsr", "--length", "64", "--quiet"]
LONG = ["infer", "digits", "--length", "4096", "--repeat", "100000"]


def write(*args, expect=0):
    result = CliRunner().invoke(main, ["sbatch", *map(str, args)])
    assert result.exit_code == expect, result.output
    return result.output


# the script


def test_a_script_says_what_it_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    resources = ["--nodes", 2, "--ntasks", 8, "--time", "1:00:00", "--cpus-per-task", 4, "--mem", "16G"]
    resources += ["--partition", "big", "--account", "me"]
    extra = ["--mpi", "pmi2", "--setup", "module load mpich", "--setup", "ulimit -c 0", "--script", "my job.sbatch"]
    output = write(*resources, *extra, "infer", "digits", "--out", "the results", "--repeat", 3)
    assert "Written: my job.sbatch" in output
    lines = (tmp_path / "my job.sbatch").read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert [line for line in lines if line.startswith("#SBATCH")] == [
        "#SBATCH --job-name=scdask-infer",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks=8",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --time=1:00:00",
        "#SBATCH --mem=16G",
        "#SBATCH --partition=big",
        "#SBATCH --account=me",
        "#SBATCH --signal=TERM@60",
        "#SBATCH --output=scdask-infer-%j.log",
    ]
    assert lines.index("module load mpich") < lines.index("ulimit -c 0") < len(lines) - 1
    assert lines[-1] == (
        f"exec srun --kill-on-bad-exit=1 --cpus-per-task=4 --mpi=pmi2 {sys.executable} -m scdask infer digits "
        "--out 'the results' --repeat 3 --scheduler mpi"
    )
    subprocess.run(["bash", "-n", "my job.sbatch"], check=True)


def test_another_launcher():
    script = batch_script(["train", "digits"], ntasks=4, limit="5", launcher="mpiexec")
    assert script.endswith(f"exec mpiexec -n 4 {sys.executable} -m scdask train digits --scheduler mpi\n")


def test_what_a_site_demands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    demanded = ["--mem-per-cpu", "2G", "--qos", "debug", "--gres", "gpu:a100:2"]
    write("infer", "digits", "-n", 2, "-t", 5, *demanded, "--directive=--exclusive", "--directive", "-C a&b")
    lines = (tmp_path / "infer.sbatch").read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    asked = ("--mem-per-cpu=2G", "--qos=debug", "--gres=gpu:a100:2", "--exclusive", "-C a&b")
    assert {f"#SBATCH {option}" for option in asked} <= set(lines[:first_command])


def test_a_script_that_is_there_is_not_replaced_in_silence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = ["infer", "digits", "-n", 2, "-t", 5]
    for _ in range(2):  # The same script may be written again.
        write(*job)
    edited = (tmp_path / "infer.sbatch").read_text() + "# by hand\n"
    (tmp_path / "infer.sbatch").write_text(edited)
    assert "infer.sbatch is there already, and is another script: --overwrite" in write(*job, expect=2)
    assert (tmp_path / "infer.sbatch").read_text() == edited
    write(*job, "--overwrite")
    assert "by hand" not in (tmp_path / "infer.sbatch").read_text()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"setup": ["module load mpich", "  #SBATCH --qos=debug"]}, "ignores '#SBATCH --qos=debug' among the commands"),
        ({"setup": ["true\n#SBATCH --qos=debug"]}, "among the commands of a script: make it a directive"),
        ({"directives": ["#SBATCH --qos=debug"]}, "a directive is one option of sbatch, such as --exclusive, not '#S"),
        ({"directives": ["--exclusive\nrm x"]}, "a directive is one option"),
        ({"directives": [""]}, "a directive is one option"),
    ],
)
def test_lines_that_slurm_would_not_see(given, message):
    with pytest.raises(SchedulerError, match=message):
        batch_script(["infer", "digits"], ntasks=2, limit="5", **given)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["infer", "digits"], "--ntasks"),
        (["infer", "digits", "-n", 4, "-t", 5, "--mem", "1G", "--mem-per-cpu", "1G"], "or --mem-per-cpu"),
        (["infer", "digits", "-n", 4, "-t", 5, "--keep-open"], "nobody presses Enter in a job of Slurm"),
        (["infer", "digits", "-n", 4, "-t", 5, "--directive", "exclusive"], "is no option of sbatch"),
        (["infer", "digits", "-n", 4, "-t", 5, "--gres", "gpu 2"], "is no list of resources"),
        (["infer", "digits", "-n", 4], "--time"),
        (["infer", "digits", "-n", 0, "-t", 5], "0"),
        (["bench", "-n", 4, "-t", 5], "bench"),
        (["infer", "letters", "-n", 4, "-t", 5], "letters"),
        (["infer", "digits", "-n", 4, "-t", 5, "--lenght", 16], "--lenght"),
        (["infer", "digits", "-n", 4, "-t", 5, "--length", "many"], "many"),
        (["infer", "digits", "-n", 4, "-t", "soon"], "soon"),
        (["infer", "digits", "-n", 4, "-t", 5, "--mem", "1 G\n#SBATCH --exclusive"], "is no memory"),
        (["infer", "-n", 4, "-t", 5], "give either the dataset"),
        (["infer", "digits", "-n", 4, "-t", 5, "--workers", 2], "its ranks are the workers"),
        (["train", "digits", "-n", 4, "-t", 5, "--scheduler", "threads"], "takes no --scheduler"),
        (["infer", "digits", "-n", 2, "-N", 4, "-t", 5], "2 ranks cannot be on 4 nodes"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert message in write(*args, expect=2)
    assert not list(tmp_path.iterdir())


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SchedulerError, match="there is no sbatch here"):
        submit(tmp_path / "x.sbatch")


# on a Slurm of one node


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    import one_node_slurm

    with one_node_slurm.running(tmp_path_factory.mktemp("slurm")) as environment:
        os.environ |= environment
        yield
        for name in environment:
            del os.environ[name]


needs_slurm = [pytest.mark.slow, *(pytest.mark.component(name) for name in ("slurm", "mpi", "apps"))]


def on_slurm(test):
    for mark in [*needs_slurm, pytest.mark.usefixtures("slurm")]:
        test = mark(test)
    return test


def submitted(folder, *args):
    """What `scdask sbatch` prints. The job has its environment, and outlives it."""
    command = ["scdask", "sbatch", *map(str, args)]
    options = {"cwd": folder, "env": environment(), "capture_output": True, "text": True, "timeout": LIMIT}
    done = subprocess.run(command, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def state_of(job):
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return re.search(r"JobState=(\S+)", shown)[1], re.search(r"ExitCode=(\S+)", shown)[1]


def wait_for_end(job, limit=120):
    end = time.monotonic() + limit
    while state_of(job)[0] in ("PENDING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < end, state_of(job)
        time.sleep(0.2)
    return state_of(job)


def accuracies(folder):
    return [r["accuracy"] for r in json.loads((folder / "results.json").read_text())["results"]]


@pytest.fixture(scope="module")
def local_accuracies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    result = CliRunner().invoke(main, [*INFER, "--out", str(folder), "--scheduler", "threads"])
    assert result.exit_code == 0, result.output
    return accuracies(folder)


@on_slurm
@pytest.mark.parametrize("launcher", ["srun", "mpiexec"])
def test_submit_and_read_the_results(tmp_path, local_accuracies, launcher):
    resources = ["--ntasks", 4, "--time", 5, "--launcher", launcher, "--mpi", "pmi2"]
    output = submitted(tmp_path, *INFER, *resources, "--out", "batch", "--submit")
    job = re.search(r"Submitted: job (\d+)", output)[1]
    assert wait_for_end(job) == ("COMPLETED", "0:0")
    assert (tmp_path / f"scdask-infer-{job}.log").read_text() == ""
    assert accuracies(tmp_path / "batch") == local_accuracies


def start_long_job(folder, launcher, mark):
    """Submit a job that goes on for hours, and wait until it computes."""
    os.environ["SCDASK_TEST"] = mark
    try:
        resources = ["--ntasks", "4", "--time", "5", "--launcher", launcher, "--mpi", "pmi2", "--submit"]
        command = [sys.executable, "-m", "scdask", "sbatch", *LONG, *resources]
        job = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()[-1]
    finally:
        del os.environ["SCDASK_TEST"]
    log = folder / f"scdask-infer-{job}.log"
    end = time.monotonic() + 120
    while not log.exists() or "Dask dashboard" not in log.read_text():
        assert time.monotonic() < end, state_of(job)
        time.sleep(0.2)
    time.sleep(3)
    assert state_of(job)[0] == "RUNNING"
    assert len(family(mark)) > 4
    return job, log


def nothing_is_left(mark):
    _, alive = psutil.wait_procs(family(mark), timeout=15)
    return not alive


def only_a_part_is_written(folder):
    """Whether a job has left no results, or those of its first settings, as far as it came."""
    files = list(folder.glob("results/*"))
    return all(file.name == "results.json" and json.loads(file.read_text())["settings_left"] for file in files)


@on_slurm
def test_cancel(tmp_path):
    mark = f"cancel-{os.getpid()}"
    job, log = start_long_job(tmp_path, "mpiexec", mark)
    subprocess.run(["scancel", job], check=True)
    assert wait_for_end(job)[0] == "CANCELLED"
    assert nothing_is_left(mark)
    assert {path.name for path in tmp_path.iterdir()} - {"results"} == {"infer.sbatch", log.name}
    assert only_a_part_is_written(tmp_path)


@on_slurm
def test_the_signal_before_the_time_limit(tmp_path):
    """What --signal=TERM@60 has Slurm do."""
    mark = f"term-{os.getpid()}"
    job, log = start_long_job(tmp_path, "srun", mark)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    assert wait_for_end(job) == ("FAILED", "143:0")
    assert nothing_is_left(mark)
    assert "Stopped by SIGTERM." in log.read_text()
    assert only_a_part_is_written(tmp_path)


@on_slurm
@pytest.mark.parametrize("program", ["driver.py", "session.py"])
def test_srun(program):
    done = launch("srun", "-n", 3, "--mpi=pmi2", sys.executable, PROGRAMS / program)
    assert done.returncode == 0
    assert done.stdout.count("fine") == 3


@on_slurm
@pytest.mark.parametrize(
    ("what", "culprit"),
    [("raise", 1), ("kill", 0)],
)
def test_failures_under_srun(what, culprit):
    """Without --kill-on-bad-exit; the exit code of srun is the highest of all ranks."""
    done = launch("srun", "-n", 3, "--mpi=pmi2", sys.executable, PROGRAMS / "failures.py", what, culprit)
    assert "done" not in done.stdout
    assert done.returncode != 0


@on_slurm
def test_a_script_that_dies_under_srun():
    import mpirun

    command = ["srun", "-n", 4, "--mpi=pmi2", "scdask", "mpi-run", PROGRAMS / "script.py", "wait"]
    with mpirun.started(*command) as job:
        assert "up" in job.stdout.readline()
        mpirun.rank_processes(job.mark)[1].kill()
        assert mpirun.finish(job, 100).returncode != 0


@on_slurm
def test_ranks_that_do_not_know_each_other_under_srun():
    done = launch("srun", "-n", 2, "--mpi=none", sys.executable, "-c", "import scdask; scdask.MPIDriver()")
    assert done.returncode == 1
    assert "one of 2 that were launched together" in done.stderr


@on_slurm
def test_a_batch_script_is_no_rank():
    """Slurm says the number of tasks there too."""
    command = f"{sys.executable} -c 'import scdask; print(scdask.MPIDriver().size)'"
    done = launch("sbatch", "-n", 4, "--wait", "--output=/dev/null", f"--wrap={command}")
    assert done.returncode == 0


@on_slurm
def test_workers_that_are_jobs(tmp_path, local_accuracies):
    where = ["--scheduler", "slurm", "--workers", 2, "--interface", "lo"]
    assert launch("scdask", *INFER, "--out", "slurm", *where, cwd=tmp_path).returncode == 0
    assert accuracies(tmp_path / "slurm") == local_accuracies
    assert not [path for path in tmp_path.rglob("*") if ".pem" in path.name or ".crt" in path.name]
    end = time.monotonic() + 20
    while subprocess.run(["squeue", "--noheader"], capture_output=True, check=True).stdout:
        assert time.monotonic() < end
        time.sleep(0.2)

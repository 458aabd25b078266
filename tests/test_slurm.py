import json
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
from click.testing import CliRunner
from mpirun import LIMIT, PROGRAMS, environment, finish, launch, started

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
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH --time=1:00:00",
        "#SBATCH --mem=16G",
        "#SBATCH --partition=big",
        "#SBATCH --account=me",
        "#SBATCH --signal=TERM@60",
        "#SBATCH --output=scdask-infer-%j.log",
        "#SBATCH --no-requeue",
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


@pytest.mark.parametrize(("ntasks", "nodes", "most"), [(6, 3, 2), (7, 3, 3), (5, 4, 2), (3, 3, 1)])
def test_ranks_are_spread_over_the_nodes(ntasks, nodes, most):
    script = batch_script(["infer", "digits"], ntasks=ntasks, nodes=nodes, limit="5")
    assert f"#SBATCH --ntasks-per-node={most}\n" in script
    assert ("unset SLURM_NTASKS_PER_NODE" in script) == bool(ntasks % nodes)


def test_an_array_that_may_be_requeued(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["--array", "8%2", "--requeue", "--exclusive", "--signal", 120, "--out", "the results"]
    write("infer", "digits", "-n", 2, "-t", 5, *asked)
    lines = (tmp_path / "infer.sbatch").read_text().splitlines()
    directives = ("array=1-8%2", "requeue", "exclusive", "signal=TERM@120", "open-mode=append")
    assert {f"#SBATCH --{directive}" for directive in (*directives, "output=scdask-infer-%A_%a.log")} <= set(lines)
    assert "#SBATCH --no-requeue" not in lines
    assert lines[-1].endswith(' --scheduler mpi --part "$SLURM_ARRAY_TASK_ID/8" $resume')
    begun = tmp_path / "the results" / "part-3-of-8" / "results.json"
    commands = "\n".join([*lines[:-1], 'echo "<$resume>"'])
    for expected in ("<>", "<--resume>"):
        done = subprocess.run(
            ["bash", "-c", commands], env=os.environ | {"SLURM_ARRAY_TASK_ID": "3"}, capture_output=True
        )
        assert done.stdout.decode() == f"{expected}\n"
        begun.parent.mkdir(parents=True, exist_ok=True)
        begun.touch()


def test_jobs_that_share_the_store_of_a_campaign(tmp_path, monkeypatch):
    """They need no parts, and nothing to go on from: the store says what is left."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('job = "product"\n[over]\nlength = [16]\n')
    asked = ["sweep", "mine.toml", "--over", "length=16,64", "-n", 2, "-t", 5]
    write(*asked, "--array", 8, "--requeue")
    text = (tmp_path / "sweep.sbatch").read_text()
    assert {"#SBATCH --array=1-8", "#SBATCH --requeue", "#SBATCH --open-mode=append"} <= {*text.splitlines()}
    assert text.endswith("-m scdask sweep mine.toml --over length=16,64 --scheduler mpi\n")
    assert "resume" not in text
    write(*asked, "--overwrite")
    assert "#SBATCH --no-requeue\n" in (tmp_path / "sweep.sbatch").read_text()


def test_what_shows_that_a_training_has_begun(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("train", "digits", "-n", 2, "-t", 5, "--requeue")
    assert "[ ! -e trained/checkpoint.npz ]" in (tmp_path / "train.sbatch").read_text()


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
        ({"limit": "1"}, "a time limit of 60 seconds leaves none before the signal, which comes 60 seconds earlier"),
        ({"limit": "0-0:01", "grace": 300}, "a time limit of 60 seconds"),
        ({"limit": "1:00:00", "grace": 3600}, "a time limit of 3600 seconds"),
    ],
)
def test_scripts_that_slurm_would_not_understand(given, message):
    with pytest.raises(SchedulerError, match=message):
        batch_script(["infer", "digits"], **{"ntasks": 2, "limit": "5"} | given)


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
        (["infer", "digits", "-n", 4, "-t", 5, "--array", "1-8"], "is no number of jobs, such as 8 or 8%2"),
        (["infer", "digits", "-n", 4, "-t", 5, "--array", 13], "12 settings cannot be 13 parts"),
        (["infer", "digits", "-n", 4, "-t", 5, "--array", 2, "--resume"], "leave out --part and --resume"),
        (
            ["infer", "digits", "-n", 4, "-t", 5, "--requeue", "--predictions", "x.csv"],
            "go with no --part and no --res",
        ),
        (
            ["train", "digits", "-n", 4, "-t", 5, "--array", 2],
            "the settings of infer or the cells of sweep, and train has",
        ),
        (["train", "digits", "-n", 4, "-t", 5, "--requeue", "--resume"], "the script itself adds --resume"),
        (["run", "edges", __file__, "-n", 4, "-t", 5, "--requeue"], "run has nothing to go on from"),
        (["sweep", "-n", 4, "-t", 5], "give a file CONFIG.toml, or one of"),
        (["sweep", "--status", "found.zarr", "-n", 4, "-t", 5], "--status and --plot need no job of Slurm"),
        (["infer", "digits", "-n", 4, "-t", 5, "--signal", 0], "0"),
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


def test_ctrl_c_is_left_to_the_job():
    """Dask-jobqueue's import takes it."""
    code = """if True:
        import signal, threading
        from scdask.cluster import slurm
        before = signal.getsignal(signal.SIGINT)
        slurm._jobqueue()
        assert signal.getsignal(signal.SIGINT) is before
        """
    subprocess.run([sys.executable, "-c", code], check=True)


# on a Slurm of three nodes


@pytest.fixture(scope="module")
def cluster():
    import hosts

    with hosts.running() as made:
        yield made


@pytest.fixture(scope="module")
def slurm(cluster, tmp_path_factory):
    import slurms

    with slurms.running(tmp_path_factory.mktemp("slurm"), cluster) as environment:
        os.environ |= environment
        yield cluster
        for name in environment:
            del os.environ[name]


needs_slurm = [pytest.mark.slow, *(pytest.mark.component(name) for name in ("slurm", "hosts", "mpi", "apps"))]
NODES = ["--nodes", "3"]


def on_slurm(test):
    for mark in [*needs_slurm, pytest.mark.usefixtures("slurm")]:
        test = mark(test)
    return test


def done_on(cluster, host, *command, **options):
    """A command that has to succeed."""
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": LIMIT} | options
    done = subprocess.run([str(part) for part in cluster.on(host, *command)], **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def submitted(cluster, folder, *args, **env):
    """The id of a job of `scdask sbatch`. The job has its environment, and outlives it."""
    said = done_on(cluster, "h0", "scdask", "sbatch", *args, "--submit", cwd=folder, env=environment() | env)
    return re.search(r"Submitted: job (\d+)", said)[1]


def state_of(cluster, job):
    shown = done_on(cluster, "h0", "scontrol", "show", "job", job)
    return re.search(r"JobState=(\S+)", shown)[1], re.search(r"ExitCode=(\S+)", shown)[1]


def wait_until(condition, limit=3 * LIMIT, every=0.2):
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(every)
    return found


def end_of(cluster, job):
    """The state and exit code of a job at its end; nothing of it is left on any node."""
    going_on = ("PENDING", "RUNNING", "COMPLETING", "REQUEUED")
    wait_until(lambda: state_of(cluster, job)[0] not in going_on)
    wait_until(lambda: not [line for line in cluster.processes() if "python" in line], 15)
    return state_of(cluster, job)


def results(folder):
    """Without what the clock says."""
    return [
        {name: value for name, value in result.items() if "second" not in name}
        for result in json.loads((folder / "results.json").read_text())["results"]
    ]


@pytest.fixture(scope="module")
def local_results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    result = CliRunner().invoke(main, [*INFER, "--out", str(folder), "--scheduler", "threads"])
    assert result.exit_code == 0, result.output
    return results(folder)


@on_slurm
@pytest.mark.parametrize(("launcher", "ntasks"), [("srun", 4), ("mpiexec", 3)])
def test_submit_and_read_the_results(slurm, tmp_path, local_results, launcher, ntasks):
    resources = [*NODES, "--ntasks", ntasks, "--time", 15, "--launcher", launcher, "--mpi", "pmi2"]
    job = submitted(slurm, tmp_path, *INFER, *resources, "--out", "batch")
    assert end_of(slurm, job) == ("COMPLETED", "0:0")
    assert (tmp_path / f"scdask-infer-{job}.log").read_text() == ""
    assert results(tmp_path / "batch") == local_results


def start_long_job(cluster, folder, launcher):
    """Submit a job that goes on for hours, and wait until it computes."""
    resources = [*NODES, "--ntasks", 3, "--time", 15, "--launcher", launcher, "--mpi", "pmi2"]
    job = submitted(cluster, folder, *LONG, *resources)
    log = folder / f"scdask-infer-{job}.log"
    wait_until(lambda: list(folder.glob("results/results.json")))
    assert {line[:2] for line in cluster.processes() if "--scheduler mpi" in line} == {"h1", "h2", "h3"}
    return job, log


def only_a_part_is_written(folder):
    """Whether a job has left the results of its first settings, as far as it came."""
    (file,) = folder.glob("results/*")
    return file.name == "results.json" and json.loads(file.read_text())["settings_left"]


@on_slurm
def test_cancel(slurm, tmp_path):
    job, log = start_long_job(slurm, tmp_path, "mpiexec")
    done_on(slurm, "h0", "scancel", job)
    assert end_of(slurm, job)[0] == "CANCELLED"
    assert {path.name for path in tmp_path.iterdir()} == {"infer.sbatch", log.name, "results"}
    assert only_a_part_is_written(tmp_path)


@on_slurm
def test_the_signal_before_the_time_limit(slurm, tmp_path):
    """What --signal=TERM@60 has Slurm do."""
    job, log = start_long_job(slurm, tmp_path, "srun")
    done_on(slurm, "h0", "scancel", "--signal=TERM", job)
    assert end_of(slurm, job) == ("FAILED", "143:0")
    assert "Stopped by SIGTERM." in log.read_text()
    assert only_a_part_is_written(tmp_path)


@on_slurm
def test_an_array_of_which_a_job_is_requeued(slurm, tmp_path):
    """It goes on from what it has, and the parts give what one job does."""
    job = ["infer", "digits", "--sng", "sobol", "--length", "2048,64", "--repeat", 16, "--quiet"]
    ids = submitted(slurm, tmp_path, *job, "--ntasks", 1, "--time", 5, "--array", 2, "--requeue", "--mpi", "pmi2")
    first = tmp_path / "results" / "part-1-of-2" / "results.json"
    wait_until(first.exists)
    done_on(slurm, "h0", "scontrol", "requeue", f"{ids}_1")
    before = json.loads(first.read_text())
    for part in (1, 2):
        assert end_of(slurm, f"{ids}_{part}") == ("COMPLETED", "0:0")
    after = json.loads(first.read_text())
    assert 0 < len(before["results"]) < len(after["results"]) == 16
    kept = [result for result in after["results"] if result in before["results"]]
    assert len(kept) == len(before["results"])  # with their seconds
    for args in (["--resume"], ["--out", "whole"]):
        command = ["scdask", *map(str, job), "--scheduler", "threads", *args]
        subprocess.run(command, cwd=tmp_path, env=environment(), check=True)
    assert results(tmp_path / "results") == results(tmp_path / "whole")
    assert (tmp_path / "results" / "accuracy.png").is_file()


@on_slurm
@pytest.mark.component("zarr")
def test_a_campaign_of_several_jobs_goes_on_in_the_next(slurm, tmp_path):
    (tmp_path / "mine.toml").write_text(
        'job = "product"\npairs = 20000\n[over]\nsng = ["bernoulli"]\nlength = [64]\nseed = 300\n'
    )
    job = ["sweep", "mine.toml", "--ntasks", 1, "--time", 5, "--array", 2, "--mpi", "pmi2", "--overwrite"]
    ids = submitted(slurm, tmp_path, *job)
    store = tmp_path / "results" / "mine.zarr"
    wait_until((store / "rmse").exists)
    done_on(slurm, "h0", "scancel", "--signal=TERM", ids)
    ends = {end_of(slurm, f"{ids}_{number}") for number in (1, 2)}
    assert ends == {("FAILED", "143:0")}
    before = CliRunner().invoke(main, ["sweep", "--status", str(store)]).output
    done = int(re.search(r"(\d+) of 300 cells done", before)[1])
    assert 0 < done < 300
    assert "no job at work" in before
    ids = submitted(slurm, tmp_path, *job)
    for number in (1, 2):
        assert end_of(slurm, f"{ids}_{number}") == ("COMPLETED", "0:0")
    logs = [(tmp_path / f"scdask-sweep-{ids}_{number}.log").read_text() for number in (1, 2)]
    counts = [int(re.search(r"300 cells: (\d+) computed now", log)[1]) for log in logs]
    assert sum(counts) == 300 - done
    assert (tmp_path / "results" / "mine.png").is_file()


@on_slurm
def test_a_folder_that_a_node_lacks(slurm, tmp_path):
    slurm.do("own", "h2", tmp_path)
    try:
        job = submitted(slurm, tmp_path, *INFER, *NODES, "--ntasks", 6, "--time", 5)
        assert end_of(slurm, job)[0] == "FAILED"
        log = (tmp_path / f"scdask-infer-{job}.log").read_text()
        assert f"h2 does not share the folder {tmp_path}, or lacks the environment of " in log
        assert log.count("does not share") == 1
        assert not list(tmp_path.glob(".scdask-*"))
        slurm.do("own", "h1", tmp_path)
        command = slurm.on("h0", "scdask", *INFER, "--scheduler", "slurm", "--workers", "2", "--threads", "4")
        done = launch(*command, cwd=tmp_path)
        assert done.returncode == 1
        assert "no worker has come of jobs that have ended" in done.stderr
        assert "FAILED on h1" in done.stderr
        assert f"and the folder {tmp_path}, in which the workers find their credentials" in done.stderr
    finally:
        for host in ("h1", "h2"):
            subprocess.run(slurm.on(host, "umount", tmp_path), check=False)


@on_slurm
def test_srun(slurm):
    done = launch(*slurm.on("h0", "srun", "-n", 3, "--mpi=pmi2", sys.executable, PROGRAMS / "driver.py"))
    assert done.returncode == 0
    assert done.stdout.count("fine") == 3


@on_slurm
@pytest.mark.parametrize(
    ("what", "culprit"),
    [("raise", 1), ("kill", 0)],
)
def test_failures_under_srun(slurm, what, culprit):
    """Without --kill-on-bad-exit; the exit code of srun is the highest of all ranks."""
    program = [sys.executable, PROGRAMS / "failures.py", what, culprit]
    done = launch(*slurm.on("h0", "srun", "-n", 3, "--mpi=pmi2", *program))
    assert "done" not in done.stdout
    assert done.returncode != 0


@on_slurm
def test_a_script_that_dies_under_srun(slurm):
    import mpirun

    command = ["srun", "-n", 4, "--mpi=pmi2", "scdask", "mpi-run", PROGRAMS / "script.py", "wait"]
    with mpirun.started(*slurm.on("h0", *command)) as job:
        assert "up" in job.stdout.readline()
        mpirun.rank_processes(job.mark)[1].kill()
        assert mpirun.finish(job, 100).returncode != 0


@on_slurm
def test_ranks_that_do_not_know_each_other_under_srun(slurm):
    program = [sys.executable, "-c", "import scdask; scdask.MPIDriver()"]
    done = launch(*slurm.on("h0", "srun", "-n", 2, "--mpi=none", *program))
    assert done.returncode == 1
    assert "one of 2 that were launched together" in done.stderr


@on_slurm
def test_a_batch_script_is_no_rank(slurm):
    """Slurm says the number of tasks there too."""
    command = f"{sys.executable} -c 'import scdask; print(scdask.MPIDriver().size)'"
    done_on(slurm, "h0", "sbatch", "-n", 4, "--wait", "--output=/dev/null", f"--wrap={command}")


WORKERS = ["--scheduler", "slurm", "--workers", "3", "--threads", "4", "--interface", "ib0"]  # one a node


@on_slurm
def test_workers_that_are_jobs(slurm, tmp_path, local_results):
    done = launch(*slurm.on("h0", "scdask", *INFER, "--out", "slurm", *WORKERS), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert results(tmp_path / "slurm") == local_results
    no_job_is_left(slurm, tmp_path)


@on_slurm
def test_ctrl_c_cancels_the_jobs_of_workers(slurm, tmp_path):
    with started(*slurm.on("h0", "scdask", *LONG, *WORKERS), cwd=tmp_path) as job:
        said = ""
        while "Dask dashboard" not in said:
            said = job.stderr.readline()
            assert said, job.communicate()
        wait_until(lambda: list(tmp_path.glob("results/results.json")))
        assert "http://127.0.0.1:" in said
        assert "@h0)" in said  # the line for ssh
        for host in ("h1", "h2", "h3"):
            heard = done_on(slurm, host, "ss", "--no-header", "--tcp", "--listening", "--numeric", "--processes")
            ours = [line.split()[3] for line in heard.splitlines() if "python" in line]
            assert ours
            assert all(address.startswith("10.78.") for address in ours)
        (program,) = psutil.Process(job.pid).children()  # of nsenter
        program.send_signal(signal.SIGINT)
        done = finish(job)
        assert done.returncode == 130
        assert "Stopped by SIGINT." in done.stderr
        assert only_a_part_is_written(tmp_path)
    no_job_is_left(slurm, tmp_path)


def no_job_is_left(cluster, folder):
    assert not [path for path in folder.rglob("*") if ".pem" in path.name or ".crt" in path.name]
    wait_until(lambda: not done_on(cluster, "h0", "squeue", "--noheader"), 20)
    wait_until(lambda: not [line for line in cluster.processes() if "python" in line], 15)

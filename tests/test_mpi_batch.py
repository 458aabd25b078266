import json
import signal
import time

import numpy as np
import pytest
from mpirun import LIMIT, PROGRAMS, finish, fork, forked, rank_processes, ranks, started
from slow import slow
from test_mpi_driver import wait_for

from scdask import SCMLP

pytestmark = [pytest.mark.component("mpi"), pytest.mark.component("apps")]
INFER = ["infer", "digits", "--sng", "sobol,lfsr,bernoulli", "--length", "64", "--quiet"]


def results(folder):
    return [
        {name: value for name, value in result.items() if "second" not in name}
        for result in json.loads((folder / "results.json").read_text())["results"]
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The option of a network that needs no training; tests of Slurm train one."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("model") / "model.npz"
    weights, biases = [rng.normal(size=(32, 64)), rng.normal(size=(10, 32))], [np.zeros(32), np.zeros(10)]
    SCMLP.from_arrays(weights, biases, calibration=rng.random((50, 64))).save(path)
    return ["--model", path]


@pytest.fixture(scope="module")
def local_results(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("local")
    forked(1, "scdask", *INFER, *model, "--scheduler", "threads", "--out", folder)
    return results(folder)


@pytest.mark.parametrize(("launch", "n"), [(forked, 1), (forked, 3)])
def test_infer(tmp_path, model, local_results, launch, n):
    """The job is the local one, bit for bit, and quiet."""
    done = launch(n, "scdask", *INFER, *model, "--scheduler", "mpi", "--out", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert results(tmp_path) == local_results
    report = json.loads((tmp_path / "results.json").read_text())
    assert (report["scheduler"], report["cpu_seconds_of"]) == ("mpi", "all processes")
    assert report["cpu_seconds"] > 0


@pytest.mark.parametrize(("n", "args"), [(2, ["start"]), slow(3, [*INFER, "--scheduler", "mpi"])])
def test_what_a_rank_loads(tmp_path, n, args):
    done = ranks(n, "imports.py", *args, cwd=tmp_path)
    assert (done.returncode, done.stdout.count("fine")) == (0, n)


def test_the_dashboard_and_how_to_reach_it(tmp_path, model):
    done = forked(3, "scdask", *INFER[:-1], *model, "--sng", "sobol", "--scheduler", "mpi", "--out", tmp_path)
    assert done.stderr.startswith("Dask dashboard: http://127.0.0.1:")
    assert "(from elsewhere: ssh -N -L " in done.stderr
    assert len(done.stderr.splitlines()) < 10


@pytest.mark.parametrize(
    ("launch", "n", "options", "code", "message"),
    [
        (ranks, 2, ["--out", __file__], 2, "is a file"),
        (forked, 4, ["--out", f"{__file__}/x"], 1, "cannot write to"),
        (forked, 2, ["--model", __file__], 1, "npz"),
        (forked, 2, ["--workers", "2"], 1, "its ranks"),
        (forked, 4, ["--interface", "eth77"], 1, "no network interface eth77"),
    ],
)
def test_errors(tmp_path, model, launch, n, options, code, message):
    done = launch(n, "scdask", *INFER, *model, "--scheduler", "mpi", "--out", tmp_path, *options)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def mpi_run(n, *args, launch=forked, **options):
    return launch(n, "scdask", "mpi-run", PROGRAMS / "script.py", *args, **options)


@pytest.mark.parametrize(("launch", "n"), [(forked, 1), (forked, 2), (forked, 4)])
def test_a_script(launch, n):
    done = mpi_run(n, "one", "--two", launch=launch)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"up {max(n - 2, 1) if n > 2 else n}" in done.stdout
    assert done.stdout.endswith(f"done ['one', '--two'] {PROGRAMS / 'script.py'}\n")


@pytest.mark.parametrize(("what", "code", "message"), [("raise", 1, "ValueError: the script"), slow("die", None, "")])
def test_a_script_that_fails(what, code, message):
    check_end(mpi_run(3, what, launch=ranks), code, message)


@pytest.mark.parametrize(
    ("n", "what", "code", "message"),
    [
        (4, "exit", 3, ""),
        slow(2, "exit in task", 4, ""),
        (4, "exit in task", 4, ""),
        (4, "raise in task", 1, "ZeroDivisionError"),
        slow(2, "die", None, ""),
        (4, "die", None, ""),
        slow(4, "task", None, ""),
    ],
)
def test_the_other_ranks_notice_it(n, what, code, message):
    """Without a launcher that ends the job because a rank has ended."""
    check_end(mpi_run(n, what, patient=True), code, message)


def check_end(done, code, message):
    assert done.returncode == code if code else done.returncode != 0
    assert message in done.stderr
    assert "done" not in done.stdout


@pytest.mark.parametrize(("n", "what"), [slow(1, "leave open"), (4, "leave open"), (4, "close")])
def test_a_script_that_does_not_tidy_up(n, what):
    done = mpi_run(n, what)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_that_closes_its_cluster():
    done = mpi_run(4, "shutdown")
    assert done.returncode == 0
    assert "done" in done.stdout


@pytest.mark.parametrize(("n", "number"), [slow(2, signal.SIGTERM), (4, signal.SIGTERM), slow(4, signal.SIGINT)])
def test_signals_to_the_launcher(n, number):
    with started("mpiexec", "-n", n, "scdask", "mpi-run", PROGRAMS / "script.py", "wait") as job:
        wait_for(job, "up", 1)
        time.sleep(0.5)
        job.send_signal(number)
        start = time.monotonic()
        done = finish(job)
        assert done.returncode == 128 + number
        assert f"Stopped by {number.name}." in done.stderr
        assert time.monotonic() - start < 10


SCRIPT = ["scdask", "mpi-run", PROGRAMS / "script.py", "wait"]
MPIEXEC = ["mpiexec", "-disable-auto-cleanup", "-n", 4, *SCRIPT]
FORKED = fork(4, *SCRIPT, patient=True)


@pytest.mark.parametrize(("command", "rank"), [(MPIEXEC, 0), slow(FORKED, 1), (FORKED, 3)], ids=["mpiexec-0", "1", "3"])
def test_a_killed_rank_ends_a_job_whose_launcher_does_not_care(command, rank):
    with started(*command) as job:
        wait_for(job, "up", 1)
        time.sleep(0.5)
        rank_processes(job.mark)[rank].kill()
        assert finish(job, 2 * LIMIT).returncode != 0


def test_ports_that_are_taken(tmp_path):
    """Dask's usual ports do not matter."""
    import socket

    with socket.socket() as scheduler, socket.socket() as dashboard:
        for taken, port in ((scheduler, 8786), (dashboard, 8787)):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
        assert mpi_run(3).returncode == 0


def test_a_job_without_the_packages(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import sys; sys.modules['dask_mpi'] = None; from scdask.cli import main; main()")
    done = forked(2, program, *INFER, "--scheduler", "mpi", "--out", tmp_path)
    assert done.returncode == 1
    assert "pip install 'scdask[mpi]' brings it" in done.stderr

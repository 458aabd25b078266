"""MPI jobs over three hosts of two ranks each."""

import json
import time

import hosts
import numpy as np
import pytest
from mpirun import PROGRAMS, finish, forked, launch, started
from test_mpi_driver import wait_for

pytestmark = [pytest.mark.component("hosts"), pytest.mark.slow]


@pytest.fixture(scope="module")
def three():
    with hosts.running() as made:
        yield made


def test_driver_and_session(three):
    done = launch(*three.mpiexec(6, "python", PROGRAMS / "hosts.py"))
    assert done.returncode == 0
    assert done.stdout.count("fine") == 6


INFER = "infer digits --sng sobol,lfsr --length 64 --quiet"
TRAIN = "train digits --epochs 1 --hidden 20 --quiet"


def commands(folder, scheduler):
    both = f"{INFER} --out {folder}/i --scheduler {scheduler} then {TRAIN} --out {folder}/t --scheduler {scheduler}"
    return PROGRAMS / "commands.py", *both.split()


def found(folder):
    """The accuracies of an inference, and the weights of a training."""
    accuracies = [each["accuracy"] for each in json.loads((folder / "i" / "results.json").read_text())["results"]]
    with np.load(folder / "t" / "weights.npz") as weights:
        return accuracies, {name: weights[name].tobytes() for name in weights.files}


@pytest.mark.component("jax")
def test_infer_train_and_a_script(three, tmp_path):
    """The jobs are the local ones, bit for bit."""
    local = forked(1, *commands(tmp_path / "local", "threads"))
    script = "then", "mpi-run", PROGRAMS / "script.py", "--its", "option"
    done = launch(*three.mpiexec(6, "python", *commands(tmp_path / "mpi", "mpi"), *script))
    assert (local.returncode, done.returncode, done.stderr) == (0, 0, "")
    assert "up 4" in done.stdout
    assert "done ['--its', 'option']" in done.stdout
    assert found(tmp_path / "mpi") == found(tmp_path / "local")


def job_on(three, lost_seconds, *arguments):
    return started(
        *three.mpiexec(6, "python", PROGRAMS / "failures.py", *arguments), DASK_SCDASK__LOST_SECONDS=lost_seconds
    )


def test_a_cut_cable_ends_a_driver(three):
    """Also on the host that is cut off."""
    with job_on(three, 6, "wait", 2, "driver") as job:
        wait_for(job, "up", 6)
        three.do("cut", "h2")
        try:
            assert job.wait(60) == 1
            end = time.monotonic() + 30
            while any("failures.py" in line for line in three.processes()):
                assert time.monotonic() < end
                time.sleep(0.5)
        finally:
            three.do("heal", "h2")
        assert "scdask: rank 4 on h3 has not heard rank 3 on h2 for 6 seconds" in finish(job).stderr


def test_a_cable_that_is_out_for_a_short_time_ends_nothing(three):
    """After 12 seconds MPICH would end in a segmentation fault, as it sends for the first time."""
    with job_on(three, 30, "pause", 2, "driver") as job:
        wait_for(job, "up", 6)
        three.do("cut", "h2")
        time.sleep(12)
        three.do("heal", "h2")
        done = finish(job)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("done") == 6

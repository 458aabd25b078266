"""MPI jobs over three hosts of two ranks each."""

import time

import hosts
import pytest
from mpirun import PROGRAMS, finish, launch, rank_processes, started
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


def test_a_stopped_rank_ends_a_session(three):
    with job_on(three, 6, "wait", -1) as job:
        wait_for(job, "up", 6)
        rank_processes(job.mark)[2].suspend()
        done = finish(job)
    assert done.returncode == 1
    assert "scdask: rank 3 on h2 has not heard rank 2 on h2 for 6 seconds" in done.stderr

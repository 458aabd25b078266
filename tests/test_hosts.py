"""MPI jobs over three hosts of two ranks each."""

import hosts
import pytest
from mpirun import PROGRAMS, launch

pytestmark = [pytest.mark.component("hosts"), pytest.mark.slow]


@pytest.fixture(scope="module")
def three():
    with hosts.running() as made:
        yield made


def test_driver_and_session(three):
    done = launch(*three.mpiexec(6, "python", PROGRAMS / "hosts.py"))
    assert done.returncode == 0
    assert done.stdout.count("fine") == 6

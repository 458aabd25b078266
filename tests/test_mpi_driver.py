import pytest
from mpirun import ranks

pytestmark = pytest.mark.component("mpi")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8])
def test_driver(n):
    done = ranks(n, "driver.py", "jax")
    assert done.returncode == 0
    assert done.stdout.count("fine") == n

"""Six ranks on three hosts: each scatters, gathers and is a Dask worker; a wrong value ends the job with 1."""

import socket

import numpy as np
import psutil
import pytest

import scdask as sc
from scdask import MPIDriver, WorldError, mpi_session
from scdask.mpi_driver import driver as driver_module

driver_module.PIECE = 2**20  # Each rank gets more than one message of the largest array.

NETWORKS = {"eth0": "10.77.0.1", "ib0": "10.78.0.1"}


def round_trips():
    driver = MPIDriver(root=3)
    here = driver.rank == driver.root
    for shape, dtype in (((10,), "i8"), ((0, 3), "f4"), ((3, 2), "u1"), ((1,), "M8[s]"), ((7, 2**18), "u8")):
        whole = np.arange(np.prod(shape)).astype(dtype).reshape(shape)
        part = driver.scatter_workload(whole if here else None)
        np.testing.assert_array_equal(part, np.array_split(whole, driver.size)[driver.rank])
        back = driver.gather_results(part)
        assert back.dtype == whole.dtype
        assert here or back.shape == (0, *shape[1:])
        assert not here or back.tobytes() == whole.tobytes()
    with pytest.raises(sc.BitstreamError, match=r"rank 3 has f.*, rank 1 has i"):
        driver.gather_results(np.zeros(2, "i8" if driver.rank == 1 else "f8"))
    driver.barrier()


def in_a_session(mpi):
    p = np.linspace(0, 1, 11)
    whole = sc.encode(p, 200, sng=sc.Bernoulli(1))
    lazy = mpi.scatter(whole if mpi.rank == 0 else None)
    mine = mpi.local(~lazy)
    rows = np.array_split(np.arange(11), mpi.size)[mpi.rank]
    np.testing.assert_array_equal(mine.words, (~whole[rows[0] : rows[-1] + 1]).words)
    both = mpi.gather(lazy ^ mpi.from_blocks(mine))
    assert both.decode().tolist() == [1.0] * (11 if mpi.rank == 0 else 0)
    weights = np.random.default_rng(0).integers(0, 2**64, (37, 4, 5), dtype="u8")
    counts = mpi.gather(sc.vector_ops.vec_mac(mpi.scatter(weights if mpi.rank == 0 else None), weights[0]))
    if mpi.rank == 0:
        np.testing.assert_array_equal(counts, sc.vector_ops.vec_mac(weights, weights[0]))
    mpi.barrier()


def listening():
    return {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}


round_trips()
of_mpi = listening()
host = int(socket.gethostname()[1:])
for where in ({}, {"interface": "ib0"}, {"host": f"h{host}-ib0"}):
    with mpi_session(quiet=True, **where) as mpi:
        network = NETWORKS["ib0" if where else "eth0"]
        # the dashboard is on loopback
        assert sorted({place.ip for place in listening() - of_mpi}) == (
            [f"{network}1", "127.0.0.1"] if mpi.rank == 0 else [f"{network}{host}"]
        )
        in_a_session(mpi)
for where, message in (
    ({"interface": "ib7"}, "no network interface ib7, only lo, "),
    ({"interface": "lo"}, "has the address 127.0.0.1, which other hosts cannot reach"),
    ({"interface": "mgmt0"}, "cannot reach rank 0 on h1 at 10.79.1.1"),
):
    with pytest.raises(WorldError, match=message), mpi_session(quiet=True, **where):
        pass
print("fine", flush=True)

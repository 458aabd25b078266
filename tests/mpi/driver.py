"""Every rank scatters, gathers and waits; a wrong value or a missing error ends the job with 1."""

import sys
import time
from itertools import product

import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import BitstreamError, MPIDriver, UnsupportedArrayError, WorldError

DTYPES = ["u1", "i8", ">u4", "f2", "f8", "c16", "?", "M8[s]", "S5", "U3", "V7", "u8, (2,)f4"]
SHAPES = [(10,), (7, 3), (3, 2, 5), (2, 2), (1,), (0, 4), (5, 0), (0,), (16, 1, 1)]


def check_round_trip(driver, whole):
    here = driver.rank == driver.root
    before = whole.copy()
    part = driver.scatter_workload(whole if here else None)
    np.testing.assert_array_equal(part, np.array_split(whole, driver.size)[driver.rank])
    assert part.dtype == whole.dtype
    assert part.flags.writeable or driver.size == 1
    back = driver.gather_results(part)
    assert back.dtype == whole.dtype
    assert back.shape == (whole.shape if here else (0, *whole.shape[1:]))
    assert not here or back.tobytes() == whole.tobytes()
    assert before.tobytes() == whole.tobytes()


def round_trips(driver):
    for shape, name in [*product(SHAPES, ["i8"]), *product([(7, 3), (0, 4)], DTYPES)]:
        dtype = np.dtype(name)
        raw = np.random.default_rng(1).bytes(int(np.prod(shape)) * dtype.itemsize)
        whole = np.frombuffer(raw, np.uint8)
        whole = whole % 2 == 1 if dtype.kind == "b" else whole
        if dtype.kind == "U":
            whole = np.full(shape, "aé", dtype)
        else:
            whole = np.ascontiguousarray(whole).view(np.uint8)[: len(raw)].view(dtype).reshape(shape)
        check_round_trip(driver, whole)
    for whole in (np.asfortranarray(np.arange(35).reshape(7, 5)), np.arange(40)[::-3], np.arange(24).reshape(4, 6).T):
        check_round_trip(driver, whole)


def uneven_gather(driver):
    counts = [3 * rank % 4 for rank in range(driver.size)]
    back = driver.gather_results(np.full((counts[driver.rank], 2), driver.rank))
    if driver.rank == driver.root:
        assert back[:, 0].tolist() == [rank for rank, count in enumerate(counts) for _ in range(count)]


def streams(driver):
    p = np.linspace(0, 1, 22).reshape(11, 2)
    whole = sc.encode(p, 130, polarity="bipolar", sng=sc.Bernoulli(3))
    here = driver.rank == driver.root
    part = driver.scatter_workload(whole if here else None)
    assert (part.length, part.polarity) == (130, "bipolar")
    assert part.shape == (len(np.array_split(p, driver.size)[driver.rank]), 2)
    back = driver.gather_results(~part)
    assert back.shape == ((11, 2) if here else (0, 2))
    if here:
        np.testing.assert_array_equal(back.words, (~whole).words)
    words = driver.scatter_workload(whole.words if here else None)
    np.testing.assert_array_equal(words, part.words)


def other_kinds(driver):
    here = driver.rank == driver.root
    assert driver.scatter_workload(list(range(5)) if here else None).dtype == int
    part = driver.scatter_workload(da.arange(9, chunks=2) if here else None)
    assert part.tolist() == np.array_split(np.arange(9), driver.size)[driver.rank].tolist()
    lazy = driver.scatter_workload(sc.encode(np.full(9, 0.5), 64, sng=sc.Sobol(1), chunks=(2, -1)) if here else None)
    assert lazy.popcount().tolist() == [32] * len(part)
    if "jax" in sys.argv:
        import jax

        from scdask.jax_backend import to_jax

        part = driver.scatter_workload(to_jax(np.arange(9, dtype="u8") << 40) if here else None)
        assert isinstance(part, jax.Array)
        back = driver.gather_results(part)
        assert isinstance(back, jax.Array)
        assert back.tolist() == ([i << 40 for i in range(9)] if here else [])


def errors(driver):
    here = driver.rank == driver.root
    for wrong, error, message in (
        (np.array([object()]), UnsupportedArrayError, "object"),
        (np.float64(1), BitstreamError, "axis"),
        (5, BitstreamError, "axis"),
        (None, UnsupportedArrayError, "object"),
        ([[1], [2, 3]], BitstreamError, "rectangular"),
        (np.ma.masked_array([1, 2], [0, 1]), UnsupportedArrayError, "MaskedArray"),
        (sc.encode(0.5, 64), BitstreamError, "axis"),
    ):
        with pytest.raises(error, match=message):
            driver.scatter_workload(wrong if here else None)
        last = driver.rank == driver.size - 1
        with pytest.raises((error, BitstreamError)):
            driver.gather_results(wrong if last else np.zeros((2, 2)))
    if driver.size > 1:
        for odd in (np.zeros((2, 3)), np.zeros(2), np.zeros((2, 2), "f4"), sc.encode(np.full((2, 2), 0.5), 64)):
            with pytest.raises(BitstreamError, match="do not fit"):
                driver.gather_results(odd if driver.rank == 1 else np.zeros((2, 2)))
        with pytest.raises(WorldError, match="all ranks are to call the same"):
            driver.barrier() if driver.rank == 1 else driver.gather_results(np.zeros(2))
        with pytest.raises(WorldError, match="the same for all"):
            MPIDriver(root=driver.rank)
    for root in (-1, driver.size, 10**20, 1.5):
        with pytest.raises(WorldError, match="one rank of"):
            MPIDriver(root=root)
    with pytest.raises(WorldError, match="Intracomm"):
        MPIDriver("world")


def barriers(driver):
    start = time.perf_counter()
    if driver.rank == driver.size - 1:
        time.sleep(0.5)
    driver.barrier()
    assert time.perf_counter() - start >= 0.4 or driver.size == 1 or driver.rank == driver.size - 1


def sub_communicators():
    from mpi4py import MPI

    half = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank % 2)
    driver = MPIDriver(half)
    assert MPI.Comm.Compare(driver.comm, half) == MPI.CONGRUENT
    part = driver.scatter_workload(np.arange(5) if driver.rank == 0 else None)
    assert part.tolist() == np.array_split(np.arange(5), half.size)[half.rank].tolist()
    for _ in range(3000 if driver.size < 3 else 1):  # an MPI library has some 2000 communicators
        MPIDriver(half)


if __name__ == "__main__":
    assert sc.mpi_driver.HAS_MPI
    assert "mpi4py.MPI" not in sys.modules
    for root in sorted({0, MPIDriver().size - 1}):
        driver = MPIDriver(root=root)
        round_trips(driver)
        uneven_gather(driver)
        streams(driver)
        other_kinds(driver)
        errors(driver)
        barriers(driver)
    sub_communicators()
    print(f"rank {driver.rank} of {driver.size}: fine", flush=True)

"""Every rank is an MPI program and a Dask worker; a wrong value or a missing error ends the job with 1."""

import gc
import sys
import time

import dask
import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import BitstreamError, UnsupportedArrayError, WorldError, mpi_session, vector_ops


def blocks(mpi):
    block = np.full((mpi.rank + 2, 3), mpi.rank, "u8")
    whole = np.concatenate([np.full((rank + 2, 3), rank, "u8") for rank in range(mpi.size)])
    lazy = mpi.from_blocks(block)
    assert isinstance(lazy, da.Array)
    assert lazy.shape == whole.shape
    assert lazy.chunks[0] == tuple(rank + 2 for rank in range(mpi.size))
    result = mpi.gather(lazy * 2)
    assert result.shape == (whole.shape if mpi.rank == 0 else (0, 3))
    assert result.dtype == "u8"
    if mpi.rank == 0:
        np.testing.assert_array_equal(result, whole * 2)
        np.testing.assert_array_equal(lazy.compute(), whole)
        assert int(mpi.client.compute(lazy.sum()).result()) == whole.sum()
    elif not mpi.client:
        with pytest.raises(WorldError, match="only rank 0"):
            lazy.compute(scheduler="synchronous")
    mine = mpi.local(lazy + 1)
    np.testing.assert_array_equal(mine, block + 1)
    mine[:] = 99
    again = mpi.local(lazy)
    np.testing.assert_array_equal(again, block)
    assert not np.may_share_memory(again, block)
    even = mpi.local(lazy.rechunk((2, -1)))
    np.testing.assert_array_equal(even, np.array_split(whole, mpi.size)[mpi.rank])


KEPT = []


def holds_the_block_itself(dask_worker):
    import __main__  # that of this process: a function is sent with a copy of what it refers to

    return any(value is __main__.KEPT[0] for value in dask_worker.data.values())


def where_they_are(mpi):
    """Blocks stay on their ranks, uncopied, and are forgotten with the lazy array."""
    from scdask.mpi_driver.session import _LANDED, _LENT

    block = np.arange(1000) + mpi.rank
    lazy = mpi.from_blocks(block)
    mpi.gather(lazy.sum())
    if mpi.rank == 0:
        from distributed import futures_of

        holders = mpi.client.who_has(futures_of(lazy))
        assert sorted(holder for (holder,) in holders.values()) == sorted(mpi._workers)
        assert len({holder for (holder,) in holders.values()}) == mpi.size

        KEPT.append(block)
        assert mpi.client.run(holds_the_block_itself, workers=[mpi._workers[0]]) == {mpi._workers[0]: True}
        KEPT.clear()
    references = sys.getrefcount(block)
    mpi.barrier()
    del lazy
    gc.collect()
    time.sleep(0.5)
    mpi.barrier()
    assert sys.getrefcount(block) < references
    assert not _LENT
    assert not _LANDED


def streams(mpi):
    p = np.linspace(0, 1, 11)
    whole = sc.encode(p, 200, sng=sc.Bernoulli(1))
    part = np.array_split(p, mpi.size)[mpi.rank]
    offset = sum(map(len, np.array_split(p, mpi.size)[: mpi.rank]))
    lazy = mpi.scatter(whole if mpi.rank == 0 else None)
    assert (lazy.length, lazy.shape) == (200, (11,))
    mine = mpi.local(~lazy)
    np.testing.assert_array_equal(mine.words, (~whole[offset : offset + len(part)]).words)
    again = mpi.from_blocks(mine)
    both = mpi.gather(lazy ^ again)
    assert (both.length, both.polarity) == (200, "unipolar")
    if mpi.rank == 0:
        assert both.decode().tolist() == [1.0] * 11
    else:
        assert both.shape == (0,)


def multiply(mpi):
    """The MAC of neurons that are spread over the ranks is that of NumPy."""
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 2**64, (37, 16, 5), dtype="u8")
    inputs = rng.integers(0, 2**64, (16, 5), dtype="u8")
    lazy = mpi.scatter(weights if mpi.rank == 0 else None)
    result = mpi.gather(vector_ops.vec_mac(lazy, inputs))
    mine = mpi.local(vector_ops.vec_mac(lazy, inputs))
    exact = vector_ops.vec_mac(weights, inputs)
    np.testing.assert_array_equal(mine, np.array_split(exact, mpi.size)[mpi.rank])
    if mpi.rank == 0:
        np.testing.assert_array_equal(result, exact)


def few_rows(mpi):
    for n_rows in (0, 1, mpi.size - 1):
        whole = np.arange(2 * n_rows).reshape(n_rows, 2)
        lazy = mpi.scatter(whole if mpi.rank == 0 else None)
        assert lazy.shape == (n_rows, 2)
        result = mpi.gather(lazy)
        assert result.tolist() == (whole.tolist() if mpi.rank == 0 else [])
        np.testing.assert_array_equal(mpi.local(lazy), np.array_split(whole, mpi.size)[mpi.rank])
        if n_rows:
            largest = mpi.gather(lazy.max())
            assert mpi.rank or largest == whole.max()


def lazy_ones(mpi):
    lazy = mpi.scatter(da.arange(10, chunks=4) ** 2 if mpi.rank == 0 else None)
    np.testing.assert_array_equal(mpi.local(lazy), np.array_split(np.arange(10) ** 2, mpi.size)[mpi.rank])
    total = mpi.gather(dask.delayed(sum)([1, 2, 3]) if mpi.rank == 0 else None)
    assert total == (6 if mpi.rank == 0 else None)
    kind = mpi.gather(dask.delayed(np.dtype)("f4") if mpi.rank == 0 else None)
    assert kind == (np.dtype("f4") if mpi.rank == 0 else None)
    mine = mpi.from_blocks(np.array([mpi.rank, 3], ">u4"))
    inside = mpi.gather(dask.delayed(list)([mine.to_delayed()[0]]) if mpi.rank == 0 else None)
    if mpi.rank == 0:
        inside[0][:] = 99
    whole = mpi.gather(mine)
    assert whole.dtype == ">u4"
    assert whole.tolist() == ([number for rank in range(mpi.size) for number in (rank, 3)] if mpi.rank == 0 else [])
    mean = mpi.gather(lazy.mean())
    assert mean == 28.5 if mpi.rank == 0 else mean.shape == (0,)


def fail(i):
    raise ZeroDivisionError(f"task {i}")


def errors(mpi):
    first = mpi.rank == 0
    with pytest.raises(ZeroDivisionError, match="task 7"):
        mpi.gather(dask.delayed(fail)(7) if first else None)
    with pytest.raises(BitstreamError, match="Dask collection, not ndarray"):
        mpi.gather(np.zeros(3) if first else None)
    many = da.ones(2 * mpi.size, chunks=1)
    for wrong in (np.zeros(3), da.zeros(()), dask.delayed(1), many[many > 0]):
        with pytest.raises(BitstreamError):
            mpi.local(wrong if first else None)
    with pytest.raises(UnsupportedArrayError, match="object"):
        mpi.scatter(np.array([None]) if first else None)
    with pytest.raises(BitstreamError, match="axis"):
        mpi.from_blocks(np.float64(1))
    if mpi.size > 1:
        with pytest.raises(BitstreamError, match="do not fit"):
            mpi.from_blocks(np.zeros((2, mpi.rank)))
        with pytest.raises(WorldError, match="all ranks are to call the same"):
            mpi.barrier() if first else mpi.gather()
        with pytest.raises(WorldError, match="all ranks are to call the same"):
            mpi.barrier() if first else mpi.from_blocks(np.zeros(2))
        with pytest.raises(WorldError, match="all ranks are to call the same"):
            sc.MPIDriver().scatter_workload(np.zeros(2)) if first else mpi.scatter()


def slow(i):
    time.sleep(0.05)
    return i


def barriers(mpi):
    """A barrier waits for what the root's client has submitted, and for the ranks."""
    futures = [mpi.client.submit(slow, i) for i in range(10)] if mpi.client else []
    if mpi.rank == mpi.size - 1:
        time.sleep(0.3)
    mpi.barrier()
    assert all(future.done() for future in futures)
    kept = mpi.from_blocks(np.array([mpi.rank]))
    mpi.barrier()
    assert len(kept) == mpi.size


def of_jax(mpi):
    import jax

    from scdask.jax_backend import to_jax

    lazy = mpi.from_blocks(to_jax(np.array([[mpi.rank, 1 << 40]], "u8")))
    mine = mpi.local(lazy)
    assert isinstance(mine, jax.Array)
    assert mine.tolist() == [[mpi.rank, 1 << 40]]
    whole = mpi.gather(lazy)
    assert whole.tolist() == ([[rank, 1 << 40] for rank in range(mpi.size)] if mpi.rank == 0 else [])


def arrays_of_mpi(mpi):
    """Tasks and the program of a rank share its memory and its MPI."""
    if mpi.size > 1:
        from mpi4py import MPI

        assert MPI.COMM_WORLD.allreduce(1) == mpi.size
    driver = sc.MPIDriver()
    assert driver.gather_results([mpi.rank]).tolist() == (list(range(mpi.size)) if mpi.rank == 0 else [])


if __name__ == "__main__":
    with mpi_session() as mpi:
        for check in (blocks, where_they_are, streams, multiply, few_rows, lazy_ones, errors, barriers, arrays_of_mpi):
            check(mpi)
        if "jax" in sys.argv:
            of_jax(mpi)
    with mpi_session(quiet=True, encrypted=False, interface="lo", threads=2, memory_limit="1 GB") as mpi:
        blocks(mpi)
        if mpi.client:
            assert mpi.client.scheduler.address.startswith("tcp://127.0.0.1:")
            assert set(mpi.client.nthreads().values()) == {2}
    print(f"rank {mpi.rank} of {mpi.size}: fine", flush=True)

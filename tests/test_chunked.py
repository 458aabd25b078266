import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scdask as sc
from scdask import Sobol, vector_ops


def random_chunks(rng, shape):
    cuts = [np.sort(rng.choice(np.arange(1, n), rng.integers(0, n), replace=False)) for n in shape]
    return tuple(tuple(np.diff([0, *cut, n]).tolist()) for cut, n in zip(cuts, shape, strict=True))


def names(collection):
    return {(key if isinstance(key, str) else key[0]).rsplit("-", 1)[0] for key in collection.__dask_graph__()}


@pytest.fixture
def no_compute():
    """Fail if anything is computed."""

    def refuse(*args, **kwargs):
        raise AssertionError("a graph was computed while it was built")

    with dask.config.set(scheduler=refuse):
        yield


@given(st.integers(0, 2**32 - 1))
def test_results_do_not_depend_on_chunks(seed):
    rng = np.random.default_rng(seed)
    n, b, i, length = (int(rng.integers(1, high)) for high in (6, 6, 6, 300))
    w, x = (vector_ops.pack_bitstream(rng.integers(0, 2, (m, i, length))) for m in (n, b))
    lazy_w, lazy_x = (da.from_array(a, chunks=random_chunks(rng, a.shape)) for a in (w, x))
    for func, arrays in [
        (vector_ops.vec_mac, (w, x)),
        (lambda w, x: vector_ops.vec_mac(w, x, "xnor", length), (w, x)),
        (lambda w, x: vector_ops.vec_mac(w, x[0]), (w, x)),
        (lambda w, x: vector_ops.vec_xnor(w[:1], x, length), (w, x)),
        (lambda w, x: vector_ops.vec_mux(w[0], x, w[:1]), (w, x)),
        (lambda w, x: vector_ops.vec_not(w, length), (w, x)),
        (lambda w, x: vector_ops.stream_popcount(x), (w, x)),
        (lambda w, x: vector_ops.vec_popcount(w), (w, x)),
        (lambda w, x: vector_ops.unpack_bitstream(w, length), (w, x)),
        (lambda w, x: vector_ops.pack_bitstream(vector_ops.unpack_bitstream(w, length)), (w, x)),
        (lambda w, x: vector_ops.check_tail(w, length), (w, x)),
    ]:
        lazy = func(lazy_w, lazy_x)
        expected = func(*arrays)
        assert lazy.shape == np.shape(expected)
        np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), expected)


def test_nothing_is_computed_while_a_graph_is_built(no_compute):
    p = da.random.random((8, 6), chunks=(4, 3))
    stream = sc.encode(p, 200, sng=Sobol(1))
    other = sc.encode(p, 200, sng=Sobol(2), chunks=(8, 6, 2))
    for lazy, shape, dtype in [
        ((stream & other).words, (8, 6, 4), np.uint64),
        ((~stream).words, (8, 6, 4), np.uint64),
        (sc.mux(stream, other, stream).popcount(), (8, 6), np.int64),
        (stream.decode(), (8, 6), np.float64),
        (stream.unpack(), (8, 6, 200), np.uint8),
        (vector_ops.pack_bitstream(stream.unpack()), (8, 6, 4), np.uint64),
        (vector_ops.popcount(stream.words), (8, 6, 4), np.uint8),
        (vector_ops.vec_popcount(stream.words), (), np.int64),
        (vector_ops.vec_mac(other[None, 0].words, stream[0].words), (1,), np.int64),
        (sc.matmul(p, da.random.random((5, 6)) - 0.5, 200), (8, 5), np.float64),
        (sc.matmul(p, np.ones((5, 6)), 200, mode="bipolar"), (8, 5), np.float64),
    ]:
        assert isinstance(lazy, da.Array)
        assert lazy.shape == shape
        assert lazy.dtype == dtype
        assert isinstance(lazy._meta, np.ndarray | np.generic)
        assert lazy._meta.dtype == dtype


def test_numpy_and_dask_mix():
    rng = np.random.default_rng(1)
    a, b = (rng.integers(0, 2**64, (3, 2), dtype=np.uint64) for _ in range(2))
    for pair in [(da.from_array(a), b), (a, da.from_array(b))]:
        result = vector_ops.vec_and(*pair)
        assert isinstance(result, da.Array)
        np.testing.assert_array_equal(result.compute(), a & b)
        np.testing.assert_array_equal(
            vector_ops.vec_mac(pair[0][None], pair[1]).compute(), [np.bitwise_count(a & b).sum()]
        )
    result = vector_ops.vec_and(a_packed=a, b_packed=da.from_array(b))
    assert isinstance(result, da.Array)


def test_tasks_have_readable_names():
    p = sc.encode(da.from_array(np.zeros((4, 4)), chunks=2), 200, sng=Sobol(1))
    assert names(p) >= {"sc-encode"}
    assert names(p & p) >= {"sc-and"}
    assert names(p.popcount()) >= {"sc-popcount", "sc-popcount-aggregate"}
    product = sc.matmul(da.from_array(np.zeros((4, 6)), chunks=2), np.ones((3, 6)), 200)
    assert names(product) >= {"sc-encode", "sc-mac", "sc-mac-aggregate"}


def count_tasks(collection, part):
    (optimized,) = dask.optimize(collection)
    return sum(part in str(key[0]) for key in optimized.__dask_graph__())


def test_encoded_inputs_are_not_encoded_again_for_each_block():
    calls = []

    def counted(block):
        calls.append(block.shape)
        return block

    p = da.from_array(np.full((6, 8), 0.5), chunks=(2, 4))
    counted_p = p.map_blocks(counted, dtype=float, meta=np.empty((0, 0)))
    x = sc.encode(counted_p, 128, sng=Sobol(1)).words
    w = sc.encode(np.full((9, 8), 0.5), 128, sng=Sobol(2), chunks=(3, 4, 2)).words
    counts = vector_ops.vec_mac(w, x)
    calls.clear()
    counts.compute(scheduler="synchronous")
    assert len(calls) == 6


def test_a_layer_encodes_its_weights_once():
    calls = []

    def counted(block):
        calls.append(block.shape)
        return block

    w = da.from_array(np.full((9, 8), 0.5), chunks=(9, 4)).map_blocks(counted, dtype=float, meta=np.empty((0, 0)))
    x = da.from_array(np.full((6, 8), 0.5), chunks=(2, 4))
    product = vector_ops.encode_mac(w, x, Sobol(1), Sobol(2), 128, "split")
    calls.clear()
    product.compute(scheduler="synchronous")
    assert len(calls) == 2


def test_chunks_in_memory_are_never_written_to(cluster):
    rng = np.random.default_rng(2)
    words = vector_ops.pack_bitstream(rng.integers(0, 2, (4, 3, 100)))
    kept = cluster.persist(da.from_array(words, chunks=(2, 3, 1)))
    with cluster.as_current():
        for result in (
            vector_ops.vec_not(kept, 100),
            vector_ops.vec_xnor(kept, kept, 100),
            vector_ops.vec_mac(kept, kept, "xnor", 100),
            vector_ops.stream_popcount(kept),
        ):
            result.compute()
        np.testing.assert_array_equal(kept.compute(), words)


def test_a_killed_worker_does_not_change_the_result():
    from distributed import Client, LocalCluster

    p = np.random.default_rng(3).random((64, 32))
    w = np.random.default_rng(4).normal(size=(16, 32))
    expected = sc.matmul(p, w, 2048)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        future = client.compute(sc.matmul(da.from_array(p, chunks=(1, 32)), w, 2048))
        next(iter(cluster.workers.values())).process.process.kill()
        np.testing.assert_array_equal(future.result(timeout=60), expected)


def test_array_expressions_are_refused():
    import subprocess
    import sys

    code = "import scdask.chunked"
    environment = {"DASK_ARRAY__QUERY_PLANNING": "True", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "array.query-planning" in done.stderr

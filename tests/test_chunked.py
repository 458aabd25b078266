import os
import signal
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from dask.array.core import PerformanceWarning
from hypothesis import given, settings
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


@pytest.mark.filterwarnings("ignore:Increasing number of chunks")
@settings(max_examples=20)
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
    assert names(p.popcount()) >= {"sc-popcount"}
    assert names(p.rechunk((2, 2, 1)).popcount()) >= {"sc-popcount", "sc-popcount-aggregate"}
    product = sc.matmul(da.from_array(np.zeros((4, 6)), chunks=2), np.ones((3, 6)), 200)
    assert names(product) >= {"sc-encode", "sc-mac", "sc-mac-aggregate"}


def test_very_many_blocks_are_warned_about_with_larger_chunks():
    p = da.zeros((1_000_000, 64), chunks=(1, 64))
    with pytest.warns(PerformanceWarning, match=r"1,000,000 blocks.* chunks=\(\d{4,}, 64, 16\).* \d+ blocks") as caught:
        x = sc.encode(p, 1024)
    assert caught[0].filename == __file__
    assert x.words.npartitions == 1_000_000


def test_what_cannot_be_chunked_better_is_not_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sc.encode(np.full(4, 0.5), 2**50, chunks=(-1, 2**27)).words.npartitions > 100_000
        w = da.full((2, 101_000), 0.5, chunks=(2, 1000))
        sc.matmul(w, w, 64, x_sng=Sobol(1), w_sng=Sobol(2))


def test_a_mac_takes_one_task_a_block_of_whole_neurons():
    w = da.ones((12, 5, 2), dtype=np.uint64, chunks=(2, -1, -1)).persist(scheduler="synchronous")
    x = np.ones((3, 5, 2), np.uint64)
    for counts in (vector_ops.vec_mac(w, x), vector_ops.vec_mac(w, x, "xnor", 100)):
        (optimized,) = dask.optimize(counts)
        assert sum(name.startswith("sc-mac") for name, *_ in optimized.__dask_graph__()) == 6
    np.testing.assert_array_equal(vector_ops.vec_mac(w, x).compute(), np.full((3, 12), 10))


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


@pytest.mark.slow
def test_a_killed_worker_does_not_change_the_result():
    from distributed import Client, LocalCluster

    p = np.random.default_rng(3).random((64, 32))
    w = np.random.default_rng(4).normal(size=(16, 32))
    expected = sc.matmul(p, w, 2048)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        future = client.compute(sc.matmul(da.from_array(p, chunks=(2, 32)), w, 2048))
        os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)
        np.testing.assert_array_equal(future.result(timeout=60), expected)


def test_array_expressions_are_refused():
    import subprocess
    import sys

    code = "import scdask.chunked"
    environment = {"DASK_ARRAY__QUERY_PLANNING": "True", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "array.query-planning" in done.stderr


@pytest.mark.filterwarnings("ignore:Increasing number of chunks")
@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_gates_broadcast_lazily_as_eagerly(seed):
    rng = np.random.default_rng(seed)
    full = tuple(int(n) for n in rng.integers(1, 4, rng.integers(1, 4)))
    length = int(rng.integers(1, 200))

    def operand():
        shape = tuple(1 if rng.random() < 0.4 else n for n in full)[rng.integers(0, len(full) + 1) :]
        return vector_ops.pack_bitstream(rng.integers(0, 2, (*shape, length)))

    eager = [operand() for _ in range(3)]
    lazy = [da.from_array(a, chunks=random_chunks(rng, a.shape)) if rng.random() < 0.8 else a for a in eager]
    lazy[0] = da.asarray(lazy[0])
    for gate, count in [(vector_ops.vec_and, 2), (vector_ops.vec_mux, 3), (vector_ops.vec_xnor, 2)]:
        more = {"length": length} if gate is vector_ops.vec_xnor else {}
        for order in (slice(None, count), slice(count - 1, None, -1)):
            expected, result = gate(*eager[order], **more), gate(*lazy[order], **more)
            assert result.shape == expected.shape
            if isinstance(result, da.Array):
                assert result.chunks == da.core.normalize_chunks(result.chunks, expected.shape)
                result = result.compute(scheduler="synchronous")
            np.testing.assert_array_equal(result, expected)


def test_broadcast_streams_have_all_their_elements():
    a = sc.encode(da.from_array(np.full(1, 0.5)), 64, sng=Sobol(1))
    b = sc.encode(da.from_array(np.linspace(0, 1, 4)), 64, sng=Sobol(2))
    assert (a & b).shape == (4,)
    np.testing.assert_array_equal((a & b)[3].decode().compute(), 0.5)


def test_blocks_that_are_not_what_dask_was_told():
    promised = {"dtype": np.uint64, "chunks": (3, 4, 2**20), "meta": np.empty((0, 0, 0), np.uint64)}
    short = da.map_blocks(lambda: np.ones((3, 4, 1), np.uint64), **promised)
    inputs = da.ones((4, 2**20), dtype=np.uint64, chunks=-1)
    counts = vector_ops.vec_mac(short, inputs)
    with pytest.raises(sc.BitstreamError, match="a MAC takes"):
        counts.compute(scheduler="synchronous")
    for make in (lambda b: b.astype(float), lambda b: np.ma.masked_array(b)):
        false = da.ones((1, 1, 8), dtype=np.uint64, chunks=-1).map_blocks(make, dtype=np.uint64)
        with pytest.raises(sc.ScdaskError, match=r"float64|MaskedArray"):
            vector_ops.vec_mac(false, np.ones((1, 8), np.uint64)).compute(scheduler="synchronous")


def test_unknown_chunk_sizes():
    keep = da.from_array(np.array([0, 0, 0, 1, 1, 1], bool), chunks=3)
    eager = sc.encode(np.linspace(0, 1, 6), 200, sng=Sobol(1))[3:]
    lazy = sc.encode(np.linspace(0, 1, 6), 200, sng=Sobol(1), chunks=(3, 2))[keep]
    assert np.isnan(lazy.size)
    assert "nan" in lazy._repr_html_()
    for func in (lambda s: ~s, lambda s: s & s, lambda s: sc.xnor(s, s), lambda s: sc.mux(s, s, s)):
        np.testing.assert_array_equal(func(lazy).words.compute(), func(eager).words)
    np.testing.assert_array_equal(lazy.unpack().compute(), eager.unpack())
    np.testing.assert_array_equal(sc.Bitstream(lazy.words, 200).decode().compute(), eager.decode())
    with pytest.raises(sc.BitstreamError, match="compute_chunk_sizes"):
        lazy.to_zarr("never")
    x = da.random.random((6, 4), chunks=3)
    with pytest.raises(sc.BitstreamError, match="compute_chunk_sizes"):
        sc.matmul(x[x.sum(axis=1) > 0], np.ones((2, 4)), 64)


def test_dirty_padding_is_found_with_its_chunk():
    words = np.zeros((4, 6, 2), np.uint64)
    words[3, 5, 1] = 2**40
    lazy = vector_ops.check_tail(da.from_array(words, chunks=(2, 3, 1)), 100)
    with pytest.raises(sc.BitstreamError, match=r"stream \(1, 2\).* in the chunk \[2:4, 3:6, 1:2\]"):
        lazy.compute()

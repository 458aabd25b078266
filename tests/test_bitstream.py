import copy
import io
import json
import pickle
import re
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import scdask as sc
from scdask import Bitstream, BitstreamError, MissingBackendError, Sobol, _stores, vector_ops

A, B = Sobol(1), Sobol(2)


def streams(shape=(3, 4), length=100, polarity="unipolar", lazy=False, seed=0, backend=None):
    bits = np.random.default_rng(seed).integers(0, 2, (*shape, length), dtype=np.uint8)
    words = vector_ops.pack_bitstream(bits)
    if lazy:
        words = da.from_array(words, chunks=1)
    if backend:
        words = backend.array(words)
    return Bitstream(words, length, polarity), bits


@pytest.mark.parametrize(
    ("gate", "second", "ones"),
    [
        (lambda a, b: a & b, B, 96),
        (lambda a, b: a | b, B, 224),
        (sc.xnor, B, 128),
        (lambda a, b: a & b, A, 128),
        (lambda a, b: a | b, A, 192),
        (lambda a, b: a ^ b, A, 64),
    ],
)
@pytest.mark.parametrize("chunks", [None, 1])
def test_published_gate_counts(gate, second, ones, chunks):
    a, b = sc.encode(0.75, 256, sng=A, chunks=chunks), sc.encode(0.5, 256, sng=second, chunks=chunks)
    count = gate(a, b).popcount()
    assert (count if chunks is None else count.compute()) == ones


def test_mux_needs_a_select_of_its_own():
    a, b = sc.encode(0.75, 1024, sng=Sobol(1)), sc.encode(0.25, 1024, sng=Sobol(2))
    half = sc.encode(0.5, 1024, sng=Sobol(3))
    assert sc.mux(half, a, b).decode() == pytest.approx(0.5, abs=0.01)
    assert sc.mux(sc.encode(0.5, 1024, sng=Sobol(1)), a, b).decode() == pytest.approx(0.625, abs=0.01)


def test_mux_takes_a_select_of_any_polarity():
    a, b = (sc.encode(v, 1024, sng=sng, polarity="bipolar") for v, sng in ((0.5, Sobol(1)), (-0.5, Sobol(2))))
    select = sc.encode(0.5, 1024, sng=Sobol(3))
    assert sc.mux(select, a, b).polarity == "bipolar"
    assert sc.mux(select, a, b).decode() == pytest.approx(0, abs=0.02)


def test_operators_act_on_the_bits(backend):
    (a, x), (b, y) = streams(backend=backend), streams((4,), backend=backend, seed=1)
    for result, expected in [
        (a & b, x & y),
        (a | b, x | y),
        (a ^ b, x ^ y),
        (~a, 1 - x),
        (sc.xnor(a, b), 1 - (x ^ y)),
        (sc.mux(a, b, a), np.where(x, y, x)),
    ]:
        assert isinstance(result, Bitstream)
        assert (result.shape, result.length, result.polarity) == ((3, 4), 100, "unipolar")
        assert dask.is_dask_collection(result) == backend.lazy
        for found, right in [
            (result.unpack(), expected),
            (result.popcount(), expected.sum(axis=-1)),
            (result.decode(), expected.mean(axis=-1)),
        ]:
            np.testing.assert_array_equal(backend.host(found), right)
        (done,) = dask.compute(result)
        backend.check_type(done.words)
        vector_ops.check_tail(done.words, 100)


def test_decode_of_both_polarities(backend):
    values = np.linspace(-1, 1, 9)
    bipolar = sc.encode(backend.array(values), 64, sng=A, polarity="bipolar")
    assert bipolar.decode().dtype == np.float64
    np.testing.assert_array_equal(backend.host(bipolar.decode()), values)
    np.testing.assert_array_equal(backend.host((~bipolar).decode()), -values)
    np.testing.assert_array_equal(backend.host(sc.decode(bipolar)), values)
    np.testing.assert_array_equal(backend.host(Bitstream(bipolar.words, 64).decode()), (values + 1) / 2)


def test_popcounts_are_int64():
    one = sc.encode(0.5, 100, sng=A)
    assert one.popcount() == 50
    assert one.popcount().dtype == np.int64
    assert sc.encode([0.5], 100, sng=A).popcount().dtype == np.int64
    lazy = sc.encode([0.5], 100, sng=A, chunks=1).popcount()
    assert (lazy.dtype, lazy.shape) == (np.int64, (1,))


@pytest.mark.parametrize("lazy", [False, True])
@given(st.data())
def test_indexing_picks_streams_as_numpy_does(lazy, data):
    stream, bits = streams((3, 4, 2), lazy=lazy)
    index = data.draw(basic_indices((3, 4, 2), allow_newaxis=True))
    picked = stream[index]
    parts = index if isinstance(index, tuple) else (index,)
    expected = bits[(*parts, slice(None)) if Ellipsis in parts else (*parts, ..., slice(None))]
    assert picked.shape == expected.shape[:-1]
    np.testing.assert_array_equal(picked.compute().unpack(), expected)


def test_indexing_never_reaches_the_words():
    stream, bits = streams()
    np.testing.assert_array_equal(stream[[2, 0]].unpack(), bits[[2, 0]])
    np.testing.assert_array_equal(stream[bits[..., 0] == 1].unpack(), bits[bits[..., 0] == 1])
    with pytest.raises(IndexError):
        stream[0, 0, 0]
    with pytest.raises(IndexError):
        sc.encode(0.5, 100)[0]


def test_shapes():
    stream, _ = streams((3, 4), 100)
    assert (stream.shape, stream.ndim, stream.size, len(stream), stream.nbytes) == ((3, 4), 2, 12, 3, 192)
    assert stream.chunks is None
    assert repr(stream) == "Bitstream(shape=(3, 4), length=100, polarity='unipolar')"
    with pytest.raises(TypeError, match="length"):
        len(stream[0, 0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (sc.encode(0.5, 101), "length 100 and 101"),
        (sc.encode(0.5, 100, polarity="bipolar"), "polarity unipolar and bipolar"),
    ],
)
def test_different_streams_do_not_combine(other, message):
    stream = sc.encode(0.5, 100)
    for gate in (lambda a, b: a & b, lambda a, b: a | b, lambda a, b: a ^ b, sc.xnor, lambda a, b: sc.mux(a, a, b)):
        with pytest.raises(BitstreamError, match=message):
            gate(stream, other)


def test_gates_take_nothing_but_bitstreams():
    stream = sc.encode([0.5], 100)
    for other in (1, stream.words, [1], None):
        for gate in (lambda a, b: a & b, lambda a, b: b & a):
            with pytest.raises(TypeError):
                gate(stream, other)
        with pytest.raises(BitstreamError, match=type(other).__name__):
            sc.xnor(stream, other)


@pytest.mark.parametrize(
    ("words", "length", "polarity", "message"),
    [
        ([1], 64, "unipolar", "int64"),
        (np.uint64([1]), 65, "unipolar", "1 words hold 1 to 64 bits"),
        (np.uint64([]), 0, "unipolar", "at least one bit"),
        (np.uint64([1]), 64.0, "unipolar", "integer"),
        (np.uint64([1]), 64, "tripolar", "'tripolar'"),
        (np.uint64([[0], [2**10]]), 10, "unipolar", r"stream \(1,\) of 10 bits has ones in its padding"),
    ],
)
def test_a_bitstream_is_checked(words, length, polarity, message):
    with pytest.raises(BitstreamError, match=message):
        Bitstream(words, length, polarity)


def test_lazy_words_are_checked_when_they_are_computed():
    dirty = Bitstream(da.from_array(np.uint64([[0, 0], [0, 2**20]]), chunks=1), 80)
    with pytest.raises(BitstreamError, match=r"ones in its padding.* in the chunk"):
        dirty.compute()


def test_a_bitstream_is_frozen():
    stream = sc.encode([0.5], 100)
    with pytest.raises(AttributeError):
        stream.length = 5
    with pytest.raises(TypeError):
        stream[0] = stream[0]


# as a Dask collection


def test_the_collection_protocol(cluster):
    lazy = sc.encode(np.linspace(0, 1, 12).reshape(3, 4), 200, sng=A, chunks=(2, 2, 3))
    eager = sc.encode(np.linspace(0, 1, 12).reshape(3, 4), 200, sng=A)
    assert dask.is_dask_collection(lazy)
    assert not dask.is_dask_collection(eager)
    together, mean = dask.compute(lazy, lazy.decode().mean())
    np.testing.assert_array_equal(together.words, eager.words)
    assert mean == pytest.approx(0.5, abs=0.01)
    for beside in dask.compute(lazy, eager):
        np.testing.assert_array_equal(beside.words, eager.words)
    for persisted in (lazy.persist(), dask.persist(lazy)[0], cluster.persist(lazy)):
        assert persisted.chunks == lazy.chunks
        assert len(persisted.__dask_graph__()) == lazy.words.npartitions
    (optimized,) = dask.optimize(lazy)
    np.testing.assert_array_equal(optimized.compute().words, eager.words)
    result = cluster.compute(lazy).result()
    np.testing.assert_array_equal(result.words, eager.words)
    assert dask.base.tokenize(eager) == dask.base.tokenize(Bitstream(eager.words, 200))
    assert dask.base.tokenize(eager) != dask.base.tokenize(Bitstream(eager.words, 200, "bipolar"))
    assert eager.compute() is eager
    assert eager.persist() is eager


@pytest.mark.parametrize("lazy", [False, True])
def test_copies(lazy):
    stream, bits = streams(lazy=lazy)
    for same in (pickle.loads(pickle.dumps(stream)), copy.deepcopy(stream), copy.copy(stream)):
        assert same.length == 100
        np.testing.assert_array_equal(same.compute().unpack(), bits)


@pytest.mark.parametrize("lazy", [False, True])
def test_rechunk(lazy):
    stream, bits = streams(lazy=lazy)
    again = stream.rechunk((3, 2, -1))
    assert again.chunks == stream.rechunk((3, 2)).chunks == ((3,), (2, 2), (2,))
    np.testing.assert_array_equal(again.compute().unpack(), bits)


def test_html():
    eager, lazy = streams()[0], streams(lazy=True)[0]
    for stream in (eager, lazy):
        html = stream._repr_html_()
        for text in ("(3, 4)", "100 bits", "unipolar", "192 bytes", "not known"):
            assert text in html
    assert "<svg" in lazy._repr_html_()
    assert "<svg" not in eager._repr_html_()
    assert "Sobol(dimension=1)" in sc.encode([0.5], 10, sng=A)._repr_html_()
    assert "1.2 MiB (1,250,000 bytes)" in sc.encode(np.zeros(1250), 8000)._repr_html_()
    for odd in (lazy[:0], lazy[0, 0], lazy[lazy.popcount() > 50], eager[..., None, None]):
        assert "100 bits" in odd._repr_html_()


def test_html_has_the_colours_of_the_page():
    import re

    html = streams(lazy=True)[0]._repr_html_()
    assert "rgb(" not in html
    assert not re.search(r"color: *(#|black|white)", html)
    assert all("currentColor" in text for text in re.findall("<text [^>]*>", html))


def test_html_is_escaped():
    class Odd(Sobol):
        def __repr__(self):
            return "<script>"

    html = sc.encode([0.5], 10, sng=Odd())._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


def test_the_generator_is_kept_where_the_streams_are(backend):
    stream = sc.encode(backend.array([0.25, 0.5, 0.75]), 100, sng=A)
    kept = [
        stream,
        stream[1:],
        stream[0],
        stream.rechunk(2),
        stream.compute(),
        stream.persist(),
        sc.bitstream.to_host(stream),
    ]
    kept += [
        *dask.compute(stream),
        *dask.persist(stream),
        pickle.loads(pickle.dumps(stream)),
        copy.copy(stream),
        *stream,
    ]
    assert all(same.sng == A for same in kept)
    for other in (stream & stream, ~stream, sc.xnor(stream, stream), sc.mux(stream, stream, stream)):
        assert other.sng is None
    assert Bitstream(stream.words, 100).sng is None
    assert dask.base.tokenize(stream) == dask.base.tokenize(sc.bitstream.wrap_words(stream.words, 100, "unipolar"))
    assert "sng" not in repr(stream)


@pytest.mark.component("jax")
def test_the_generator_is_no_part_of_a_pytree():
    import jax

    from scdask.jax_backend import to_jax

    a, b = (to_jax(sc.encode([0.5], 100, sng=sng)) for sng in (A, B))
    assert (a.sng, b.sng) == (A, B)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert jax.tree.map(lambda words: words, a).sng is None


# Zarr


@pytest.mark.component("zarr")
@pytest.mark.parametrize(
    "make",
    [
        lambda: streams((5, 4), 300)[0],
        lambda: streams((5, 4), 300, "bipolar", lazy=True)[0].rechunk((2, 3, 4)),
        lambda: streams((5, 4), 300, lazy=True)[0].rechunk(((1, 3, 1), (4,), (2, 1, 2))),
        lambda: sc.encode(0.5, 10),
        lambda: sc.encode(np.zeros((0, 3)), 10),
        lambda: sc.encode(0.5, 10**5, chunks=500),
    ],
)
def test_zarr_round_trip(tmp_path, make):
    stream = make()
    stream.to_zarr(tmp_path / "s.zarr")
    back = sc.open_zarr(tmp_path / "s.zarr")
    assert dask.is_dask_collection(back)
    assert (back.length, back.polarity, back.shape) == (stream.length, stream.polarity, stream.shape)
    np.testing.assert_array_equal(back.compute().words, stream.compute().words)


@pytest.mark.component("zarr")
def test_zarr_is_uncompressed_and_chunk_for_chunk(tmp_path):
    import zarr

    stream = streams((6, 4), 300, lazy=True)[0].rechunk((2, 4, 5))
    stream.to_zarr(str(tmp_path / "s.zarr"))
    array = zarr.open_array(tmp_path / "s.zarr", mode="r")
    assert array.chunks == (2, 4, 5)
    assert array.compressors == ()
    attributes = array.attrs["scdask"]
    assert attributes == {
        "format": 1,
        "length": 300,
        "polarity": "unipolar",
        "id": attributes["id"],
        "all_chunks": True,
    }
    assert sc.open_zarr(str(tmp_path / "s.zarr")).chunks == stream.chunks


@pytest.mark.component("zarr")
def test_zarr_shows_its_progress(tmp_path, monkeypatch):
    stream = streams(lazy=True)[0]
    shown = io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    stream.to_zarr(tmp_path / "quiet.zarr")
    assert shown.getvalue() == ""
    stream.to_zarr(tmp_path / "s.zarr", progress=True)
    assert re.fullmatch(r"to-zarr: (\d+)/\1 tasks, .*\n", shown.getvalue())
    assert sc.open_zarr(tmp_path / "s.zarr").popcount().compute().tolist() == stream.popcount().compute().tolist()


@pytest.mark.component("zarr")
def test_zarr_through_processes(tmp_path, cluster):
    stream = sc.encode(np.linspace(0, 1, 20), 1000, chunks=(7, 4))
    with cluster.as_current():
        stream.to_zarr(tmp_path / "s.zarr")
        back = sc.open_zarr(tmp_path / "s.zarr").compute()
    np.testing.assert_array_equal(back.words, sc.encode(np.linspace(0, 1, 20), 1000).words)


@pytest.mark.component("zarr")
def test_a_store_is_replaced_only_on_request(tmp_path):
    sc.encode(0.5, 10).to_zarr(tmp_path / "s.zarr")
    with pytest.raises(BitstreamError, match="overwrite"):
        sc.encode(0.25, 10).to_zarr(tmp_path / "s.zarr")
    assert sc.open_zarr(tmp_path / "s.zarr").popcount().compute() == sc.encode(0.5, 10).popcount()
    sc.encode([1.0], 70).to_zarr(tmp_path / "s.zarr", overwrite=True)
    assert sc.open_zarr(tmp_path / "s.zarr").popcount().compute() == [70]


@pytest.mark.component("zarr")
def test_stores_that_are_not_ours(tmp_path):
    import zarr

    with pytest.raises(BitstreamError, match="holds no Zarr array"):
        sc.open_zarr(tmp_path / "nothing")
    zarr.create_array(tmp_path / "foreign", shape=(2,), dtype="u8")
    with pytest.raises(BitstreamError, match="not written by scdask"):
        sc.open_zarr(tmp_path / "foreign")
    for changes, message in [
        ({"format": 2}, "format 2"),
        ({"length": 500}, "words hold"),
        ({"polarity": "x"}, "'x'"),
    ]:
        sc.encode([0.5], 10).to_zarr(tmp_path / "ours", overwrite=True)
        array = zarr.open_array(tmp_path / "ours")
        array.attrs["scdask"] = array.attrs["scdask"] | changes
        with pytest.raises(BitstreamError, match=message):
            sc.open_zarr(tmp_path / "ours")


@pytest.mark.component("zarr")
def test_a_half_written_store_is_refused(tmp_path):
    from zarr.storage import MemoryStore

    broken, store = sc.encode(da.from_array(np.array([0.5, np.nan]), chunks=1), 10), MemoryStore()
    with pytest.raises(BitstreamError, match="nan"):
        broken.to_zarr(store)
    with pytest.raises(BitstreamError, match="not to its end"):
        sc.open_zarr(store)
    with dask.config.set(scheduler="sync"), pytest.raises(BitstreamError, match="nan"):
        broken.to_zarr(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.component("zarr")
def test_a_task_that_goes_on_after_the_failure_of_another_leaves_nothing(tmp_path, monkeypatch):
    import zarr

    def write_late(self, region, block):
        _stores._discard(tmp_path / "s.zarr")
        write(self, region, block)

    write = zarr.Array.__setitem__
    monkeypatch.setattr(zarr.Array, "__setitem__", write_late)
    array = zarr.create_array(tmp_path / "s.zarr", shape=(2,), dtype="u8")
    _stores._Shared(array, tmp_path / "s.zarr")[slice(0, 2)] = 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.component("zarr")
def test_a_store_may_be_replaced_by_what_is_read_from_it(tmp_path):
    store = tmp_path / "s.zarr"
    sc.encode([0.25, 1.0], 64, sng=A).to_zarr(store)
    before = sc.open_zarr(store)
    (~before).to_zarr(store, overwrite=True)
    after = sc.open_zarr(store)
    assert after.decode().compute().tolist() == [0.75, 0.0]
    assert after.words.name != before.words.name
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]
    broken = sc.encode(da.from_array(np.array([np.nan])), 64)
    with pytest.raises(BitstreamError, match="nan"):
        broken.to_zarr(store, overwrite=True)
    assert sc.open_zarr(store).decode().compute().tolist() == [0.75, 0.0]
    assert [p.name for p in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.component("zarr")
def test_nothing_but_arrays_is_replaced(tmp_path):
    import zarr

    stream = sc.encode([0.5], 64)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        with pytest.raises(BitstreamError, match="not replaced"):
            stream.to_zarr(tmp_path / name, overwrite=True)
    assert (tmp_path / "folder" / "precious").exists()
    with pytest.raises(BitstreamError, match="there already"):
        stream.to_zarr(tmp_path / "file")
    zarr.create_group(tmp_path / "group")
    with pytest.raises(BitstreamError, match="there already"):
        stream.to_zarr(tmp_path / "group")
    with pytest.raises(BitstreamError, match="not replaced"):
        stream.to_zarr(tmp_path / "group", overwrite=True)
    with pytest.raises(BitstreamError, match="not None"):
        stream.to_zarr(None)
    stream.to_zarr(tmp_path / "array")
    (tmp_path / "link").symlink_to(tmp_path / "array")
    (~stream).to_zarr(tmp_path / "link", overwrite=True)
    assert sc.open_zarr(tmp_path / "array").popcount().compute() == (~stream).popcount()
    with pytest.raises(BitstreamError, match="at a path"):
        stream.to_zarr(zarr.storage.MemoryStore(), overwrite=True)


@pytest.mark.component("zarr")
def test_a_store_in_memory():
    from zarr.storage import MemoryStore

    store = MemoryStore()
    streams(lazy=True)[0].to_zarr(store)
    np.testing.assert_array_equal(sc.open_zarr(store).compute().words, streams()[0].words)


@pytest.mark.component("zarr")
def test_stores_that_other_processes_do_not_see(tmp_path, monkeypatch, cluster):
    from zarr.storage import LoggingStore, MemoryStore, StorePath, ZipStore

    stream = sc.encode(da.arange(8, chunks=2) / 8, 128, sng=A)
    in_memory = [
        MemoryStore(),
        {},
        "memory://never",
        ZipStore(tmp_path / "s.zip", mode="w"),
        StorePath(MemoryStore(), "a"),
        LoggingStore(MemoryStore()),
    ]
    with cluster.as_current():
        for store in in_memory:
            with pytest.raises(BitstreamError, match=r"^a Dask cluster cannot write to .* memory of this process"):
                stream.to_zarr(store)
    for elsewhere in ("processes", ProcessPoolExecutor(1)):
        with dask.config.set(scheduler=elsewhere), pytest.raises(BitstreamError, match="Dask's scheduler of processes"):
            stream.to_zarr(MemoryStore())
    with dask.config.set(scheduler=ThreadPoolExecutor(1)):
        stream.to_zarr(in_memory[2])
        assert sc.open_zarr(in_memory[2]).decode().compute().tolist() == [i / 8 for i in range(8)]

    def forgets(self, region, block):
        pass

    # A store of another kind that loses chunks is not marked as whole.
    monkeypatch.setattr("zarr.Array.__setitem__", forgets)
    with pytest.raises(BitstreamError, match="got 0 of 4 chunks"):
        stream.to_zarr(in_memory[0])
    with pytest.raises(BitstreamError, match="not to its end"):
        sc.open_zarr(in_memory[0])


@pytest.mark.component("zarr")
def test_a_folder_that_workers_do_not_see(tmp_path, monkeypatch):
    def elsewhere(self, region, block):
        return remote(_stores._Shared(self.array, tmp_path / "another machine"), region, block)

    remote = _stores._Shared.__setitem__
    monkeypatch.setattr(_stores._Shared, "__setitem__", elsewhere)
    with pytest.raises(BitstreamError, match="take a folder that all workers share"):
        streams(lazy=True)[0].to_zarr(tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.component("zarr")
def test_places_of_stores(tmp_path, monkeypatch):
    import zarr

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    stream = sc.encode([0.5], 64)
    local = zarr.storage.LocalStore
    for place, there in [
        ("~/home.zarr", "home.zarr"),
        (Path("~") / "path.zarr", "path.zarr"),
        (f"file://{tmp_path}/url.zarr", "url.zarr"),
        ("relative.zarr", "relative.zarr"),
        (local(tmp_path / "object.zarr"), "object.zarr"),
        (zarr.storage.StorePath(local(tmp_path), "new/within.zarr"), "new/within.zarr"),
    ]:
        stream.to_zarr(place)
        assert (tmp_path / there / "zarr.json").exists()
        for same in (place, tmp_path / there):
            assert sc.open_zarr(same).popcount().compute() == stream.popcount()
    array = zarr.open_array(tmp_path / "url.zarr")
    for wrong, message in [
        ("", "the path is ''"),
        ("a\0b", "is no path"),
        (b"bytes", "cannot hold a Zarr array"),
        (7, "cannot hold"),
        (array, r"not an open zarr\.Array"),
        ("nonsense://bucket/a", "nonsense://bucket/a cannot hold"),
        (".", "there already"),
        ("/", "there already"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            stream.to_zarr(wrong)
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "s3fs", None)
        for use in (stream.to_zarr, sc.open_zarr):
            with pytest.raises(
                MissingBackendError, match=r"^s3://bucket/a needs a package that is not installed: .*s3fs"
            ):
                use("s3://bucket/a")


@pytest.mark.component("zarr")
def test_a_lost_chunk_is_no_zeros(tmp_path):
    stream = sc.encode(np.zeros(6), 64, chunks=(2,))
    stream.to_zarr(tmp_path / "s.zarr")
    assert sc.open_zarr(tmp_path / "s.zarr").popcount().compute().tolist() == [0] * 6
    lost = tmp_path / "s.zarr/c/1/0"
    contents = lost.read_bytes()
    lost.unlink()
    back = sc.open_zarr(tmp_path / "s.zarr")
    assert back[4:].popcount().compute().tolist() == [0, 0]
    for part in (back, back[3], back[[0, 2]]):
        with pytest.raises(BitstreamError, match=r"the chunk \[.*\] of .*s\.zarr is lost"):
            part.compute()
    lost.write_bytes(contents[:3])
    with pytest.raises(BitstreamError, match=r"s\.zarr cannot be read"):
        back.compute()


@pytest.mark.component("zarr")
@pytest.mark.parametrize("at_once", [True, False])
def test_one_array_or_the_other_is_always_at_the_path(tmp_path, monkeypatch, at_once):
    """Whether or not the file system lets two folders change places in one step."""
    if not at_once:
        monkeypatch.setattr(_stores, "_exchange", lambda new, path: False)
    old, new = sc.encode([0.5], 64), sc.encode([0.25], 64)
    store = tmp_path / "s.zarr"

    def killed_after(self, target):
        moved = rename(self, target)
        if self == store:
            raise KeyboardInterrupt
        return moved

    old.to_zarr(store)
    rename = Path.rename
    with monkeypatch.context() as kill:
        kill.setattr(Path, "rename", killed_after)
        with pytest.raises(KeyboardInterrupt) if not at_once else nullcontext():
            new.to_zarr(store, overwrite=True)
    assert sc.open_zarr(store).popcount().compute() == (new if at_once else old).popcount()
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]
    with monkeypatch.context() as kill:
        kill.setattr(_stores, "_discard", lambda folder: None)  # as one that is killed leaves its folder
        with pytest.raises(BitstreamError, match="nan"):
            sc.encode(da.from_array([np.nan]), 64).to_zarr(store, overwrite=True)
    with _stores._folder_beside(store) as used:
        assert sorted(tmp_path.iterdir()) == [used, store]
        new.to_zarr(store, overwrite=True)  # It leaves alone what another writes.
        assert sorted(tmp_path.iterdir()) == [used, store]
        used.rmdir()

    def write(ones):
        for _ in range(5):
            sc.encode([ones / 8], 64, sng=sc.Thermometer()).to_zarr(store, overwrite=True)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, (2, 4, 6)))
    assert sc.open_zarr(store).popcount().compute() in ([16], [32], [48])
    assert [path.name for path in tmp_path.iterdir()] == ["s.zarr"]

    def first(ones):
        try:
            sc.encode([ones / 8], 64, sng=sc.Thermometer()).to_zarr(tmp_path / "t.zarr")
        except BitstreamError as error:
            return "there already" in str(error)
        return "written"

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(first, (2, 4, 6)), key=str) == [True, True, "written"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr", "t.zarr"]


@pytest.mark.component("zarr")
def test_metadata_that_others_broke(tmp_path):
    store = tmp_path / "s.zarr"
    sc.encode([0.5] * 4, 64, chunks=(2,)).to_zarr(store)
    good = json.loads((store / "zarr.json").read_text())
    ours = good["attributes"]["scdask"]
    broken = [
        "3",
        "null",
        "[]",
        "{",
        "[" * 100_000,
        '{"a":' * 50_000,
        *(
            json.dumps(good | change)
            for change in (
                {"shape": [10**12, 1]},
                {"shape": "x"},
                {"shape": []},
                {"shape": None},
                {"attributes": [1]},
                {"codecs": [{"name": "\x1b[31m"}]},
                {"codecs": 3},
                {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 1]}}},
                {"chunk_grid": 7},
                {"data_type": "float64"},
                {"data_type": {"name": {}}},
                {"fill_value": "x"},
            )
        ),
        *(
            json.dumps(good | {"attributes": {"scdask": ours | change}})
            for change in ({"length": [1]}, {"length": 10**30}, {"length": "64"}, {"polarity": {}}, {"format": []})
        ),
    ]
    for text in broken:
        (store / "zarr.json").write_text(text)
        with pytest.raises(BitstreamError) as caught:
            sc.open_zarr(store)
        assert len(str(caught.value)) < 800, text[:80]
        assert str(caught.value).isprintable(), text[:80]


def test_a_bitstream_is_a_sequence_but_no_array():
    stream, bits = streams((3,))
    np.testing.assert_array_equal([s.unpack() for s in stream], bits)
    with pytest.raises(TypeError):
        list(stream[0])
    with pytest.raises(TypeError, match=r"\.unpack\(\)"):
        np.asarray(stream)
    with pytest.raises(TypeError):
        vector_ops.vec_and(stream, stream)


@pytest.mark.parametrize("lazy_mask", [False, True])
def test_a_mask_over_all_axes_of_a_lazy_bitstream(lazy_mask):
    stream, bits = streams(lazy=True)
    mask = bits[..., 0] == 1
    picked = stream[da.from_array(mask, chunks=2) if lazy_mask else mask]
    np.testing.assert_array_equal(picked.compute().unpack(), bits[mask])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64])
def test_a_length_of_any_integer_type(kind):
    with pytest.raises(BitstreamError, match="padding"):
        Bitstream(np.full((1, 2), 2**64 - 1, np.uint64), kind(100))
    stream = sc.encode([0.3], kind(100), sng=A)
    assert type(stream.length) is int
    np.testing.assert_array_equal(stream.words, sc.encode([0.3], 100, sng=A).words)


def test_words_that_do_not_fit_are_refused_before_a_kernel_reads_them():
    stream = sc.encode([0.5, 0.25], 200, sng=Sobol(1))
    short, wrong = stream.map_words(lambda w: w[..., :1]), stream.map_words(lambda w: w.astype(np.uint8))
    for call in (short.unpack, lambda: ~short, lambda: sc.xnor(short, short)):
        with pytest.raises(BitstreamError, match="1 words hold 1 to 64 bits"):
            call()
    for call in (wrong.popcount, wrong.unpack, wrong.decode, lambda: wrong & wrong, lambda: sc.scc(wrong, stream)):
        with pytest.raises(BitstreamError, match="uint64, not uint8"):
            call()

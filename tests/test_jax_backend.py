import copy
import os
import pickle
import subprocess
import sys

import dask
import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow import slow

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, vector_ops
from scdask import jax_backend as backend
from scdask.jax_backend import encoding, ffi, mac, packing, to_host, to_jax

COUNTER = sc.Machine.from_step(lambda s, x: (min(max(s + 2 * x - 1, 0), 199), int(s >= 100)), states=200)


@pytest.fixture
def rng():
    return np.random.default_rng(21)


def words_of(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


@pytest.fixture
def by_kernels(monkeypatch):
    """Have them serve arrays of any size, with three threads that share the work."""
    for family in (encoding, mac, packing):
        monkeypatch.setattr(family, "MANY", 1)
        monkeypatch.setattr(family, "PART", 1, raising=False)
    monkeypatch.setattr(encoding, "MANY_ROWS", 1)
    monkeypatch.setattr(ffi, "CPU_COUNT", 3)


@pytest.fixture(params=[False, True], ids=["XLA", "kernels"])
def by_either(request):
    if request.param:
        request.getfixturevalue("by_kernels")


# moving arrays


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">u8", ">f4"])
def test_arrays_go_and_come_back_bit_for_bit(rng, dtype):
    values = rng.integers(0, 2**64, 40, dtype=np.uint64).view("u1").astype(dtype).reshape(4, -1)
    there = to_jax(values)
    assert isinstance(there, jax.Array)
    assert there.dtype == np.dtype(dtype).newbyteorder("=")
    back = to_host(there)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, values)
    assert to_jax(there) is there
    assert to_host(values) is values


def test_a_jax_array_is_a_copy(rng):
    words = words_of(rng, 1000)
    there = to_jax(words)
    words[:] = 0
    assert to_host(there).all()


def test_lazy_arrays_move_block_by_block(rng):
    words = words_of(rng, 6, 4)
    lazy = to_jax(da.from_array(words, chunks=(2, 3)))
    assert isinstance(lazy._meta, jax.Array)
    assert lazy._meta.dtype == lazy.dtype == np.uint64
    assert isinstance(lazy.compute(), jax.Array)
    back = to_host(lazy)
    assert isinstance(back._meta, np.ndarray)
    assert type(back.compute()) is np.ndarray
    np.testing.assert_array_equal(back, words)


def test_what_jax_has_no_arrays_for():
    with pytest.raises(sc.UnsupportedArrayError, match="MaskedArray"):
        to_jax(np.ma.masked_array([1, 2]))
    for values in (["a"], [None], np.array("2020", "M8[D]"), da.from_array(np.array(["a"]))):
        with pytest.raises(sc.UnsupportedArrayError, match="no arrays of"):
            to_jax(values)


def test_words_survive_pickle_and_copies(rng):
    words = words_of(rng, 3, 5)
    there = to_jax(words)
    for copied in (pickle.loads(pickle.dumps(there)), copy.deepcopy(there), copy.copy(there)):
        assert isinstance(copied, jax.Array)
        assert copied.dtype == np.uint64
        np.testing.assert_array_equal(to_host(copied), words)
    both = to_jax(np.array([1 + 1e-12j]))
    np.testing.assert_array_equal(to_host(pickle.loads(pickle.dumps(both))), to_host(both))
    single = jnp.arange(3.0)
    assert pickle.loads(pickle.dumps(single)).dtype == single.dtype


def test_dask_knows_their_size(rng):
    from dask.sizeof import sizeof

    assert sizeof(to_jax(words_of(rng, 1000))) == 8000


# 64 bits, whatever the setting

EVERYTHING = """
import warnings
import jax, numpy as np, dask.array as da
import scdask as sc
from scdask import vector_ops as vo
from scdask.jax_backend import to_jax, to_host

def results(move):
    rng = np.random.default_rng(1)
    bits = move(rng.integers(0, 2, (4, 6, 100), dtype=np.uint8))
    words = vo.pack_bitstream(bits)
    p, weights = move(rng.random((4, 6))), rng.normal(size=(2, 6))  # even: halves have one shape, compiled once
    stream = sc.encode(p, 100, sng=sc.Bernoulli(3), polarity="bipolar")
    yield words
    yield vo.unpack_bitstream(words, 100)
    yield vo.check_tail(words, 100)
    yield vo.mask_tail(vo.vec_not(words), 100)
    yield vo.vec_and(words, words[0])
    yield vo.vec_or(words, words[0])
    yield vo.vec_xor(words, words[0])
    yield vo.vec_xnor(words, words[0], 100)
    yield vo.vec_mux(words, words[0], words[1])
    yield vo.popcount(words)
    yield vo.stream_popcount(words)
    yield vo.vec_popcount(words)
    yield vo.vec_mac(words, words[0])
    yield vo.vec_mac(words, words, "xnor", 100)
    for sng in (sc.Bernoulli(3), sc.Bernoulli(3, shared=True), sc.Sobol(2), sc.LFSR()):
        yield sc.encode(p, 100, sng=sng).words
    yield (~stream).decode()
    yield sc.xnor(stream, sc.encode(p[0], 100, sng=sc.Sobol(1), polarity="bipolar")).decode()
    for mode in ("split", "bipolar"):
        yield sc.matmul(p, weights, 100, mode=mode)

def lazily(array):
    return da.from_array(array, chunks=tuple(max(1, -(-n // 2)) for n in array.shape))
"""


# What XLA has compiled in one process serves another only under the same flags.
CACHE = {name: value for name, value in os.environ.items() if name.startswith(("JAX_", "XLA_"))}


def in_a_fresh_process(code, **environment):
    command = [sys.executable, "-W", "error", "-c", EVERYTHING + code]
    done = subprocess.run(
        command, env={"PATH": "", **CACHE, **environment}, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_results_are_those_of_numpy_under_either_setting():
    in_a_fresh_process(
        """
assert jax.config.jax_enable_x64
for wide in (True, False):
    jax.config.update("jax_enable_x64", wide)
    for found, right in zip(results(to_jax), results(np.asarray), strict=True):
        assert isinstance(found, jax.Array)
        assert found.dtype == np.asarray(right).dtype, (found.dtype, right)
        np.testing.assert_array_equal(to_host(found), right)
    assert jax.config.jax_enable_x64 == wide
    assert jax.numpy.arange(2).dtype == (np.int64 if wide else np.int32)
""",
        JAX_ENABLE_X64="1",
    )


@pytest.mark.slow
def test_results_of_workers_are_those_of_numpy():
    in_a_fresh_process(
        """
from distributed import Client, LocalCluster

def compare():
    for found, right in zip(results(lambda a: to_jax(lazily(a))), results(np.asarray), strict=True):
        assert found.dtype == found._meta.dtype == np.asarray(right).dtype
        found = found.compute()
        assert isinstance(found, jax.Array), type(found)
        assert found.dtype == np.asarray(right).dtype
        np.testing.assert_array_equal(to_host(found), right)

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=2, host="127.0.0.1", dashboard_address=":0") as cluster:
        with Client(cluster) as client:
            compare()
            assert not any(client.run(lambda: __import__("jax").config.jax_enable_x64).values())
    assert not jax.config.jax_enable_x64
"""
    )


def test_words_go_from_worker_to_worker(cluster, rng):
    words = words_of(rng, 8, 6)
    kept = cluster.persist(to_jax(da.from_array(words, chunks=(2, 6))))
    moved = cluster.compute(kept.rechunk((8, 3))).result()
    assert isinstance(moved, jax.Array)
    np.testing.assert_array_equal(to_host(moved), words)
    kept = cluster.scatter(to_jax(words), broadcast=True).result()
    np.testing.assert_array_equal(to_host(kept), words)


def test_words_cut_to_32_bits_are_refused(rng):
    cut = jnp.zeros((2, 3), jnp.uint32)
    for func in (vector_ops.vec_popcount, vector_ops.vec_not, lambda w: Bitstream(w, 150)):
        with pytest.raises(BitstreamError, match="uint64, not uint32: to_jax keeps"):
            func(cut)


# under jit and vmap


def test_everything_under_jit(rng):
    bits = jnp.asarray(rng.integers(0, 2, (4, 6, 100), dtype=np.uint8))
    words = vector_ops.pack_bitstream(bits)
    p = to_jax(rng.random((4, 6)))
    for func, array in [
        (vector_ops.pack_bitstream, bits),
        (backend.jax_pack_bitstream, bits),
        (lambda w: vector_ops.unpack_bitstream(w, 100), words),
        (lambda w: vector_ops.check_tail(w, 100), words),
        (lambda w: vector_ops.mask_tail(w, 70), words),
        (lambda w: vector_ops.vec_not(w, 100), words),
        (lambda w: vector_ops.vec_xnor(w, w[0], 100), words),
        (lambda w: vector_ops.vec_mux(w, w[0], w[1]), words),
        (lambda w: backend.jax_vec_and(w, w[0]), words),
        (backend.jax_popcount, words),
        (vector_ops.stream_popcount, words),
        (vector_ops.vec_popcount, words),
        (lambda w: backend.jax_vec_mac(w, w[0]), words),
        (lambda w: vector_ops.vec_mac(w, w, "xnor", 100), words),
        (lambda p: vector_ops.encode_words(p, Bernoulli(3), 100), p),
        (lambda p: vector_ops.encode_words(p, Sobol(1), 100), p),
        (lambda p: vector_ops.encode_mac(p, p, Sobol(1), Sobol(2), 100, "split"), p),
        (lambda p: (sc.encode(p, 100, sng=Sobol(1)) & sc.encode(p, 100, sng=Sobol(2))).decode(), p),
        (lambda p: sc.matmul(p, p, 100, mode="bipolar"), p),
        (lambda w: vector_ops.umul.umul_words(w, 0.3, Sobol(1), 100), vector_ops.mask_tail(words, 100)),
        (lambda s: vector_ops.run_machine(COUNTER, words[0], length=100, start=s)[1], jnp.int8([0, 3, 99, 127, 1, 2])),
    ]:
        expected = np.asarray(to_host(func(to_host(array))))
        compiled = jax.jit(func)(array)
        assert compiled.dtype == expected.dtype
        np.testing.assert_allclose(to_host(compiled), expected, rtol=1e-14 if expected.dtype == float else 0)


def test_everything_under_vmap(rng):
    bits = jnp.asarray(rng.integers(0, 2, (4, 6, 100), dtype=np.uint8))
    words = vector_ops.pack_bitstream(bits)
    p = to_jax(rng.random((4, 6)))
    for func, array in [
        (vector_ops.pack_bitstream, bits),
        (lambda w: vector_ops.unpack_bitstream(w, 100), words),
        (lambda w: vector_ops.vec_not(w, 100), words),
        (lambda w: vector_ops.vec_xnor(w, w[0], 100), words),
        (vector_ops.stream_popcount, words),
        (vector_ops.vec_popcount, words),
        (lambda w: vector_ops.vec_mac(words, w), words),
        (lambda w: vector_ops.vec_mac(w[None], words, "xnor", 100), words),
        (lambda p: vector_ops.encode_words(p, Bernoulli(3), 100), p),
        (lambda p: sc.encode(p, 100, sng=Sobol(1)).decode(), p),
    ]:
        expected = np.stack([to_host(func(part)) for part in to_host(array)])
        np.testing.assert_array_equal(to_host(jax.jit(jax.vmap(func))(array)), expected)
    for func, array in [(vector_ops.pack_bitstream, bits), (lambda w: vector_ops.vec_mac(words, w), words)]:
        np.testing.assert_array_equal(to_host(jax.vmap(func)(array)), np.stack([to_host(func(part)) for part in array]))


def test_a_bitstream_goes_through_jit(rng):
    a, b = (sc.encode(to_jax(rng.random(5)), 100, sng=Sobol(d)) for d in (1, 2))
    product = jax.jit(lambda a, b: ~(a & b))(a, b)
    assert isinstance(product, Bitstream)
    assert (product.length, product.polarity, product.shape) == (100, "unipolar", (5,))
    np.testing.assert_array_equal(to_host(product.words), to_host((~(a & b)).words))
    with pytest.raises(BitstreamError, match="length"):
        jax.jit(lambda a, b: a & b)(a, sc.encode(to_jax(np.zeros(5)), 101))


def test_numpy_streams_keep_their_bits_on_the_way_into_jax(rng):
    stream = sc.encode(rng.random(3), 100, sng=Sobol(1))
    for moved in (
        jax.jit(lambda s: s)(stream),
        jax.device_put(stream),
        jax.tree.map(jnp.asarray, stream),
        to_jax(stream),
    ):
        assert isinstance(moved.words, jax.Array)
        np.testing.assert_array_equal(to_host(moved).words, stream.words)
    with pytest.raises(BitstreamError, match="cut off"):
        jax.tree.map(lambda words: jnp.asarray(np.asarray(words)), stream)


def test_long_streams_compile_quickly(rng):
    p = to_jax(rng.random(5))
    lowered = jax.jit(lambda p: sc.encode(p, 2**18, sng=Sobol(1)).popcount()).lower(p).as_text()
    assert lowered.count("\n") < 2000


@pytest.mark.usefixtures("by_either")
def test_values_that_cannot_be_looked_at_are_taken_into_range():
    p = np.array([-1, 2, np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.5])
    for sng in (Bernoulli(1), Sobol(1)):
        ones = jax.jit(lambda p, sng=sng: sc.encode(p, 4096, sng=sng).popcount())(to_jax(p))
        assert to_host(ones)[:7].tolist() == [0, 4096, 0, 0, 4096, 0, 0]
    assert to_host(jax.jit(vector_ops.pack_bitstream)(jnp.array([2, 0, -1]))).tolist() == [5]


# values and types


@pytest.mark.usefixtures("by_either")
def test_small_floats_are_not_taken_for_zero():
    for dtype, values in [
        ("f4", [1e-45, 1e-40, 0, 2.0**-126]),
        ("f8", [5e-324, 1e-310, 0, 1e-300]),
        ("f2", [6e-8, 0, 1e-7, 1]),
    ]:
        p = np.array(values, dtype)
        np.testing.assert_array_equal(to_host(vector_ops.as_weights(to_jax(-p))), -p.astype(np.float64))
        for sng in (Sobol(1), Bernoulli(1)):
            expected = sc.encode(p, 64, sng=sng).words
            np.testing.assert_array_equal(to_host(sc.encode(to_jax(p), 64, sng=sng).words), expected)


def test_small_weights_are_not_taken_for_zero():
    x = np.array([[0.5, 0.75]])
    below = sc.encode(to_jax(np.array([-1e-320])), 64, sng=Bernoulli(1))
    assert to_host(below.popcount()).tolist() == [0]  # It is taken for 0, as on the host.
    sng = sc.Thermometer()
    for weights in ([[1, 5e-324]], [[1, -1e-310]], [[1e-310, -2e-310]], [[1.7e308, 1e-10]]):
        for mode in ("split", "bipolar"):
            expected = sc.matmul(x, np.array(weights), 100, mode=mode, x_sng=sng, w_sng=sng)
            given = to_jax(np.array(weights))
            for inputs, other in (
                (to_jax(x), given),
                (to_jax(x), np.array(weights)),
                (to_jax(da.from_array(x)), given),
            ):
                found = sc.matmul(inputs, other, 100, mode=mode, x_sng=sng, w_sng=sng)
                np.testing.assert_array_equal(to_host(found), expected)
    np.testing.assert_array_equal(to_host(sc.matmul(x, given, 100, mode=mode, x_sng=sng, w_sng=sng)), expected)


@pytest.mark.parametrize("dtype", ["bfloat16", slow("float16"), slow("float32"), slow("int8"), "bool"])
def test_jax_types_of_real_numbers(dtype):
    p = jnp.asarray([0, 1, 1], dtype)
    assert to_host(sc.encode(p, 100, sng=Sobol(1)).popcount()).tolist() == [0, 100, 100]
    x = jnp.asarray([[0.375]], dtype)
    assert to_host(sc.encode(x, 64, sng=Sobol(1), chunks=1).decode()).compute() == x
    for given in (x, to_jax(da.from_array(np.asarray(x)))):
        (found,) = dask.compute(to_host(sc.SCDense([[1.0]], [0.0])(given, 64)))
        assert found == x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vector_ops.pack_bitstream(jnp.array([[0, 1], [1, 7]])), r"there is 7 at \(1, 1\)"),
        (lambda: vector_ops.pack_bitstream(jnp.array([0.5])), "float32"),
        (lambda: vector_ops.pack_bitstream(jnp.array([0, 1], "int4")), "int4"),
        (lambda: sc.encode(jnp.array([0.5, 1.5]), 64), r"0 to 1, but there is 1.5 at \(1,\)"),
        (lambda: sc.encode(jnp.array([jnp.nan]), 64), "nan"),
        (lambda: sc.encode(jnp.array([1j]), 64), "complex64"),
        (lambda: sc.encode(jax.random.key(0), 64), "key<fry>"),
        (lambda: vector_ops.vec_not(jax.random.key(0)), "key<fry>"),
        (lambda: vector_ops.pack_bitstream(jnp.array([0, 2], "uint8")), r"there is 2 at"),
        (lambda: sc.encode(jnp.array([0.5, 1.5]), 64, chunks=1), "1.5"),
        (lambda: vector_ops.as_weights(jnp.array([jnp.inf])), r"finite, but there is inf at \(0,\)"),
        (lambda: Bitstream(to_jax(np.array([2**63], np.uint64)), 63), r"stream \(\) of 63 bits has ones"),
        (lambda: vector_ops.vec_and(to_jax(np.zeros(2, np.uint64)), np.zeros(3, np.uint64)), "2 and 3 words"),
        (lambda: vector_ops.vec_and(to_jax(np.zeros(2, np.uint64)), np.zeros(2)), "float64"),
        (lambda: backend.jax_vec_mac(np.zeros((1, 4, 1), np.uint64), np.zeros((2, 1), np.uint64)), "a MAC takes"),
    ],
)
def test_bad_input_is_a_sentence(make, message):
    with pytest.raises(BitstreamError, match=message):
        make()


def test_numpy_joins_jax_and_all_join_dask(rng):
    a, b = words_of(rng, 3, 2), words_of(rng, 3, 2)
    for left, right in [(to_jax(a), b), (a, to_jax(b)), (a.astype(">u8"), to_jax(b))]:
        both = vector_ops.vec_and(left, right)
        assert isinstance(both, jax.Array)
        np.testing.assert_array_equal(to_host(both), a & b)
    for left, right in [(da.from_array(a), to_jax(b)), (to_jax(a), da.from_array(b)), (to_jax(da.from_array(a)), b)]:
        both = vector_ops.vec_and(left, right)
        assert isinstance(both, da.Array)
        assert isinstance(both._meta, jax.Array)
        both = both.compute()
        assert isinstance(both, jax.Array)
        np.testing.assert_array_equal(to_host(both), a & b)


FORMS = [(40, 1, 9, 9), (2, 30, 7, 11), (33, 5, 3, 40), (5, 33, 3, 1)]


@pytest.mark.parametrize(
    ("gate", "n", "b", "i", "n_words"),
    [("xnor", *FORMS[0]), *(("and", *form) for form in FORMS), *(slow("xnor", *form) for form in FORMS[1:])],
)
def test_every_form_of_the_mac(rng, gate, n, b, i, n_words):
    w, x = words_of(rng, n, i, n_words), words_of(rng, b, i, n_words)
    expected = vector_ops.vec_mac(w, x, gate, 64 * n_words)
    found = vector_ops.vec_mac(to_jax(w), to_jax(x), gate, 64 * n_words)
    np.testing.assert_array_equal(to_host(found), expected)
    if b == 1:
        np.testing.assert_array_equal(
            to_host(vector_ops.vec_mac(to_jax(w), to_jax(x[0]), gate, 64 * n_words)), expected[0]
        )


@pytest.mark.parametrize("batch", [1, 64])
def test_no_product_is_stored(batch):
    with jax.enable_x64(True):
        w, x = jnp.zeros((64, 256, 16), jnp.uint64), jnp.zeros((batch, 256, 16), jnp.uint64)
        memory = jax.jit(vector_ops.vec_mac).lower(w, x).compile().memory_analysis()
    products = 64 * batch * 256 * 16 * 8
    assert memory.temp_size_in_bytes < products / 10


# kernels for NumPy arrays in the programs that XLA runs on CPUs


SERVED = {
    "pack": (vector_ops.pack_bitstream, ("u1", 5, 100)),
    "pack integers": (vector_ops.pack_bitstream, ("i4", 5, 100)),
    "pack bool": (vector_ops.pack_bitstream, ("?", 100)),
    "unpack": (lambda words: vector_ops.unpack_bitstream(words, 100), ("u8", 5, 2)),
    "MAC": (vector_ops.vec_mac, ("u8", 5, 7, 2), ("u8", 4, 7, 2)),
    "MAC of one input": (vector_ops.vec_mac, ("u8", 5, 7, 2), ("u8", 7, 2)),
    "MAC of XNOR": (lambda w, x: vector_ops.vec_mac(w, x, "xnor", 128), ("u8", 5, 7, 2), ("u8", 4, 7, 2)),
    "Bernoulli": (lambda p: vector_ops.encode_words(p, Bernoulli(3), 100), ("f8", 5)),
    "Bernoulli, bipolar": (lambda p: vector_ops.encode_words(p, Bernoulli(3), 128, "bipolar"), ("f4", 2, 3)),
    "Sobol": (lambda p: vector_ops.encode_words(p, Sobol(1), 1000), ("f8", 5)),
}


def operands(rng, *lead, types):
    for dtype, *shape in types:
        shape = (*lead, *shape)
        if dtype == "u8":
            yield words_of(rng, *shape)
        else:
            yield (rng.random(shape) if dtype[0] == "f" else rng.integers(0, 2, shape)).astype(dtype)


@pytest.mark.parametrize(
    "name",
    [slow(name) if name in ("pack integers", "MAC of one input", "Bernoulli, bipolar") else name for name in SERVED],
)
@pytest.mark.usefixtures("by_kernels")
def test_kernels_give_the_same_eagerly_under_jit_and_vmap(rng, name):
    func, *types = SERVED[name]
    arrays = list(operands(rng, 2, 3, types=types))
    expected = np.stack([[func(*(a[i, j] for a in arrays)) for j in range(3)] for i in range(2)])
    one, several, every = ([to_jax(a[at]) for a in arrays] for at in ((0, 0), 0, ...))
    traced = jax.jit(func).trace(*one)
    for platform in ("cpu", "cuda", "tpu"):
        assert ("@scdask_" in traced.lower(lowering_platforms=(platform,)).as_text()) == (platform == "cpu")
    for run in (func, jax.jit(func)):
        found = run(*one)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(to_host(found), expected[0, 0])
    turned = [to_jax(np.moveaxis(a[0], 0, 1)) for a in arrays]
    np.testing.assert_array_equal(to_host(jax.vmap(func, in_axes=1)(*turned)), expected[0])
    np.testing.assert_array_equal(to_host(jax.jit(jax.vmap(jax.vmap(func)))(*every)), expected)
    scanned = jax.jit(lambda *arrays: jax.lax.scan(lambda _, row: (0, func(*row)), 0, arrays)[1])(*several)
    np.testing.assert_array_equal(to_host(scanned), expected[0])
    none = [to_jax(a[0, :0]) for a in arrays]
    assert jax.vmap(func)(*none).shape == (0, *expected.shape[2:])


@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("shape", [(4, 7, 2), (7, 2)])
def test_a_mac_under_vmap_along_either_operand(rng, shape):
    w, x = words_of(rng, 3, 5, 7, 2), words_of(rng, 2, *shape)
    mac_of = vector_ops.vec_mac
    for in_axes, given, expected in [
        ((None, 0), (w[0], x), [mac_of(w[0], b) for b in x]),
        ((0, None), (w, x[0]), [mac_of(a, x[0]) for a in w]),
    ]:
        np.testing.assert_array_equal(to_host(jax.vmap(mac_of, in_axes)(*map(to_jax, given))), expected)
    every = jax.vmap(jax.vmap(mac_of, (None, 0)), (0, None))(to_jax(w), to_jax(x))
    np.testing.assert_array_equal(to_host(every), [[mac_of(a, b) for b in x] for a in w])


@pytest.mark.usefixtures("by_kernels")
def test_kernels_on_two_devices(rng):
    p, w, x = rng.random(8), words_of(rng, 5, 7, 2), words_of(rng, 8, 7, 2)
    expected = vector_ops.vec_mac(w, x)
    split, whole = jax.sharding.PartitionSpec("rows"), jax.sharding.PartitionSpec()

    def multiplied(w, x):
        counts = vector_ops.vec_mac(w, x)
        return counts, jax.lax.psum(counts.sum(dtype=np.int64), "rows")

    mapped = jax.shard_map(multiplied, mesh=rows().mesh, in_specs=(whole, split), out_specs=(split, whole))
    with jax.enable_x64(True):
        for _ in range(5):
            counts, total = jax.jit(mapped)(to_jax(w), to_jax(x))
            np.testing.assert_array_equal(counts, expected)
            assert total == expected.sum()
    drawn = jax.shard_map(SERVED["Bernoulli"][0], mesh=rows().mesh, in_specs=split, out_specs=split)
    halves = [SERVED["Bernoulli"][0](half) for half in np.split(p, 2)]
    np.testing.assert_array_equal(to_host(drawn(to_jax(p))), np.concatenate(halves))
    for device in (rows(), jax.devices()[1]):
        for func in (vector_ops.vec_mac, jax.jit(vector_ops.vec_mac)):
            found = (
                func(to_jax(w), to_jax(x, device)) if device == rows() else func(to_jax(w, device), to_jax(x, device))
            )
            np.testing.assert_array_equal(to_host(found), expected)
            assert found.sharding.device_set == (set(jax.devices()) if device == rows() else {device})


@pytest.mark.usefixtures("by_kernels")
def test_kernels_and_values_that_are_none_of_a_stream(rng):
    bits = np.zeros((3, 100), np.uint8)
    bits[1, 70] = 7
    with pytest.raises(BitstreamError, match=r"there is 7 at \(1, 70\)"):
        vector_ops.pack_bitstream(to_jax(bits))
    with pytest.raises(BitstreamError, match=r"0 to 1, but there is 1.5 at \(0,\)"):
        sc.encode(to_jax(np.array([1.5, 0.5])), 64)
    np.testing.assert_array_equal(
        to_host(jax.jit(vector_ops.pack_bitstream)(to_jax(bits))), vector_ops.pack_bitstream(bits != 0)
    )
    assert to_host(jax.vmap(vector_ops.pack_bitstream)(jnp.array([[2, 0, -1]]))).tolist() == [[5]]


@pytest.mark.usefixtures("by_kernels")
def test_bits_do_not_vary_with_the_probabilities_that_they_were_drawn_for():
    with jax.enable_x64(True):
        for sng in (Bernoulli(1), Sobol(1)):
            mean = lambda p, sng=sng: sc.encode(p, 64, sng=sng).decode().mean()  # noqa: E731
            assert not jax.grad(mean)(jnp.full(4, 0.5)).any()


@pytest.mark.parametrize("seed", [2**53 + 1, 2**63, 2**64 - 1])
@pytest.mark.usefixtures("by_kernels")
def test_kernels_take_seeds_of_64_bits(seed):
    p, sng = np.array([0.3, 0.5]), Bernoulli(seed)
    np.testing.assert_array_equal(to_host(sc.encode(to_jax(p), 100, sng=sng).words), sc.encode(p, 100, sng=sng).words)


def test_small_arrays_are_left_to_xla(rng):
    words = to_jax(words_of(rng, 4))
    assert "scdask" not in jax.jit(lambda w: vector_ops.unpack_bitstream(w, 256)).lower(words).as_text()


def test_an_error_in_a_kernel_is_one_of_jax():
    fails = ffi.on_cpus("fails", lambda array, result: 1 / 0, lambda array: True)(lambda array: array + 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="ZeroDivisionError: division by zero"):
        jax.block_until_ready(fails(to_jax(np.zeros(3, np.uint8))))


def test_xla_computes_by_itself_where_it_takes_no_kernels(monkeypatch):
    def added(name):
        served = ffi.on_cpus(name, lambda array, result: 1 / 0, lambda array: True)(lambda array: array + 1)
        return served(to_jax(np.zeros(3, np.uint8))).tolist()

    def without_cpus(name):
        raise RuntimeError(f"Unknown backend {name}")

    with monkeypatch.context() as patch:
        patch.setattr(jax, "devices", without_cpus)
        assert added("without_cpus") == [1, 1, 1]
    monkeypatch.setattr(ffi, "VERSION", (0, 0))
    with pytest.warns(RuntimeWarning, match=r"XLA computes by itself.*API version \(0\.0\)"):
        assert added("of_an_older_version") == [1, 1, 1]


# streams of JAX words


def test_chunks_of_a_jax_array_are_jax_arrays(rng):
    p = to_jax(rng.random((6, 4)))
    eager = sc.encode(p, 200, sng=Sobol(1))
    for lazy in (
        eager.rechunk((2, 4)),
        sc.encode(p, 200, sng=Sobol(1), chunks=(2, 3)),
        eager.rechunk((3, 2)).rechunk(4),
    ):
        assert isinstance(lazy.words._meta, jax.Array)
        done = lazy.compute()
        assert isinstance(done.words, jax.Array)
        np.testing.assert_array_equal(to_host(done.words), to_host(eager.words))
    (kept,) = dask.persist(eager.rechunk((2, 4)))
    assert isinstance(kept[1:5].compute().words, jax.Array)


def test_indexing(rng):
    stream = sc.encode(to_jax(rng.random((6, 4))), 200, sng=Sobol(1))
    host = Bitstream(to_host(stream.words), 200)
    mask = rng.random((6, 4)) < 0.5
    for index in (0, -1, slice(1, 4), (slice(None), 2), [3, 1], mask, (..., 0), None):
        np.testing.assert_array_equal(to_host(stream[index].words), host[index].words)
    assert len(list(stream)) == 6


def test_indexing_lazy_streams(rng):
    stream = sc.encode(to_jax(da.from_array(rng.random((6, 4)), chunks=(2, 3))), 200, sng=Sobol(1))
    host = Bitstream(to_host(stream.words).compute(), 200)
    mask = rng.random((6, 4)) < 0.5
    for index in (0, slice(1, 4), [3, 1], mask, mask[:, 0], jnp.array([2, 0]), jnp.asarray(mask[:, 0]), jnp.int32(2)):
        picked = stream[index].compute().words
        assert isinstance(picked, jax.Array)
        np.testing.assert_array_equal(to_host(picked), host[to_host(index) if hasattr(index, "dtype") else index].words)
    for streams in (stream, stream.compute()):
        for index in (6, [0, 6], (0, 4)):
            with pytest.raises(IndexError):
                streams[index]


@pytest.mark.component("zarr")
@pytest.mark.parametrize("lazy", [False, True])
def test_zarr(tmp_path, rng, lazy):
    stream = sc.encode(to_jax(rng.random((6, 4))), 200, sng=Sobol(1))
    (stream.rechunk((2, 4)) if lazy else stream).to_zarr(tmp_path / "a.zarr")
    read = sc.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(read.words, to_host(stream.words))
    assert isinstance(to_jax(read.words).compute(), jax.Array)


# neurons


def test_a_lif_step_is_its_formula(rng):
    v, current, noise = (rng.normal(size=(3, 50)).astype(np.float32) for _ in range(3))
    after, spikes = backend.jax_lif_step(v, current, -0.1, 0.2, 0.5, 0.3, 1.5, 0.1 * noise)
    moved = v + (-0.1 - v) * np.float32(0.3) + current * np.float32(1.5) + np.float32(0.1) * noise
    assert spikes.dtype == np.uint8
    assert after.dtype == np.float32
    np.testing.assert_array_equal(spikes, moved >= 0.5)
    np.testing.assert_allclose(after, np.where(moved >= 0.5, 0.2, moved), rtol=1e-5, atol=1e-6)
    at = backend.jax_lif_step(jnp.ones(1), jnp.zeros(1), 0.0, 0.0, 1.0, 0.0, 1.0, 0.0)
    assert (float(at[0][0]), int(at[1][0])) == (0, 1)


def test_alpha_is_lost_in_a_step_and_kept_in_a_forward_pass():
    v, _ = backend.jax_lif_step(jnp.full(1, 0.5), jnp.zeros(1), 0.0, 0.0, 1.0, 0.9, 1.0, 0.0)
    assert float(v[0]) == pytest.approx(0.05)
    for steps, expected in [(1, 0.5), (2, 0.95), (3, 0)]:  # 0.5 a step, 0.9 of it kept, a spike at 1.355
        _, v = backend.jax_forward_pass([jnp.ones((1, 1))], jnp.full(1, 0.5), steps)
        assert float(v[0]) == pytest.approx(expected)


def by_hand(weights, x, n_steps, v_rest=0.0, v_reset=0.0, v_threshold=1.0, alpha=0.9):
    potentials = [np.full((*x.shape[:-1], len(w)), v_rest) for w in weights]
    trains = [[] for _ in weights]
    for _ in range(n_steps):
        below = x
        for layer, w in enumerate(weights):
            v = v_rest + alpha * (potentials[layer] - v_rest) + below @ w.T
            below = (v >= v_threshold).astype(float)
            potentials[layer] = np.where(below, v_reset, v)
            trains[layer].append(below)
    return [np.stack(train) for train in trains], potentials[-1]


@pytest.mark.parametrize("options", [{}, {"v_rest": -0.1, "v_reset": 0.2, "v_threshold": 0.7, "alpha": 0.8}])
@pytest.mark.parametrize("shape", [(5,), (4, 5), (2, 3, 5)])
def test_a_forward_pass_is_its_formula(rng, options, shape):
    weights = [rng.normal(0, 0.5, (7, 5)), rng.normal(0, 0.7, (3, 7))]
    x = rng.random(shape)
    with jax.enable_x64(True):
        spikes, v = backend.jax_forward_pass(weights, x, 12, **options)
    expected, last = by_hand(weights, x, 12, **options)
    for train, right in zip(spikes, expected, strict=True):
        assert train.shape == right.shape
        np.testing.assert_array_equal(train, right)
    np.testing.assert_allclose(v, last, atol=1e-12)


def test_potentials_decay_toward_rest():
    _, v = backend.jax_forward_pass([jnp.zeros((1, 1))], jnp.zeros((1, 1)), 100, v_rest=0.5, v_reset=0.5)
    assert float(v[0, 0]) == 0.5
    spikes, v = backend.jax_forward_pass([jnp.eye(1)], jnp.ones((1, 1)), 3, v_rest=0.5, v_reset=-1.0, v_threshold=1.1)
    assert spikes[0].ravel().tolist() == [1, 0, 1]
    assert float(v[0, 0]) == -1


def test_the_loop_over_time_is_compiled_once(rng):
    weights, x = [rng.normal(size=(7, 5))], rng.random((4, 5))
    sizes = [len(str(jax.make_jaxpr(lambda x, n=n: backend.jax_forward_pass(weights, x, n))(x))) for n in (10, 10_000)]
    assert sizes[1] < sizes[0] + 100


def test_gradients_of_a_forward_pass_are_those_of_the_fast_sigmoid():
    slope = jax.grad(lambda v: backend.spike(v, 10.0))
    for v in (-1.0, -0.1, 0.0, 0.3):
        assert float(slope(v)) == pytest.approx(1 / (1 + 10 * abs(v)) ** 2)
    assert float(backend.spike(0.0, 10.0)) == 1
    rate = lambda w: backend.jax_forward_pass([w], jnp.ones(1), 20)[0][0].mean()  # noqa: E731
    assert float(jax.grad(rate)(jnp.full((1, 1), 0.3))[0, 0]) > 0


def test_a_training_step_is_gradient_descent(rng):
    weights = [rng.normal(0, 0.5, (7, 5)), rng.normal(0, 0.7, (3, 7))]
    x, labels = rng.random((6, 5)), np.array([0, 1, 2, 1, 0, 2])
    with jax.enable_x64(True):
        spikes, _ = by_hand(weights, x, 10)
        rates = spikes[-1].mean(axis=0)
        chosen = np.log(np.exp(rates) / np.exp(rates).sum(axis=1, keepdims=True))[np.arange(6), labels]
        new, loss = backend.jax_surrogate_gradient_step(weights, x, labels, 10, 0.5, 10.0)
        assert float(loss) == pytest.approx(-chosen.mean())
        steps = [np.asarray(n) - w for n, w in zip(new, weights, strict=True)]
        assert all(np.abs(step).max() > 0 for step in steps)
        twice, _ = backend.jax_surrogate_gradient_step(weights, x, np.eye(3)[labels], 10, 1.0, 10.0)
        for n, w, step in zip(twice, weights, steps, strict=True):
            np.testing.assert_allclose(np.asarray(n) - w, 2 * step, rtol=1e-9, atol=1e-15)
        step = jax.jit(backend.jax_surrogate_gradient_step, static_argnums=(3, 5))
        np.testing.assert_allclose(step(weights, x, labels, 10, 0.5, 10.0)[1], loss)


@pytest.mark.parametrize("dtype", ["i1", slow("u1"), "u8"])
def test_labels_of_any_integer_type(dtype):
    weights, x = [np.linspace(-1, 1, 600).reshape(300, 2)], np.ones((1, 2))
    labels = np.array([1], dtype)
    expected = backend.jax_surrogate_gradient_step(weights, x, np.eye(300)[[1]], 5)
    for step in (backend.jax_surrogate_gradient_step, jax.jit(backend.jax_surrogate_gradient_step, static_argnums=3)):
        for found, right in zip(jax.tree.leaves(step(weights, x, labels, 5)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(found, right)
    with pytest.raises(BitstreamError, match="0 to 99"):
        backend.jax_surrogate_gradient_step([np.ones((100, 2))], x, np.array([100], dtype), 5)


def test_neurons_have_the_precision_of_jax(rng):
    weights, x = [to_jax(rng.normal(size=(3, 4)))], to_jax(rng.random((2, 4)))
    assert x.dtype == np.float64
    spikes, v = backend.jax_forward_pass(weights, x, 5, np.float64(0.1))
    after, _ = backend.jax_lif_step(x, x, 0.0, 0.0, 1.0, 0.1, 1.0, np.float64(0.0))
    new, loss = backend.jax_surrogate_gradient_step(weights, x, np.eye(3)[:2], 5, np.float64(0.1))
    assert {a.dtype for a in (spikes[0], v, after, *new)} == {np.dtype(np.float32)}
    longer, _ = backend.jax_lif_step(np.longdouble(0.5), np.zeros((), ">f8"), 0.0, 0.0, 1.0, 0.1, 1.0, 0.0)
    np.testing.assert_array_equal(longer, np.float32(0.45))
    assert type(loss) is float
    with jax.enable_x64(True):
        single = [jnp.ones((3, 4), jnp.float32)]
        new, _ = backend.jax_surrogate_gradient_step(single, jnp.ones((2, 4)), jnp.eye(3)[:2], 5, np.float64(0.1))
        assert new[0].dtype == np.float32


def test_a_potential_that_overflows_is_reset():
    spikes, v = backend.jax_forward_pass([np.array([[3e38]], "f4")], np.array([2.0], "f4"), 3)
    assert spikes[0].ravel().tolist() == [1, 1, 1]
    assert float(v[0]) == 0


def test_training_steps_learn(rng):
    centres = rng.random((3, 8)) < 0.5
    labels = rng.integers(0, 3, 60)
    x = np.clip(centres[labels] + rng.normal(0, 0.1, (60, 8)), 0, 1)
    weights = [jnp.asarray(rng.normal(0, 0.5, (20, 8))), jnp.asarray(rng.normal(0, 0.3, (3, 20)))]
    losses = []
    for _ in range(200):
        weights, loss = backend.jax_surrogate_gradient_step(weights, x, labels, lr=1.0)
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.2
    spikes, _ = backend.jax_forward_pass(weights, x, 25)
    assert np.mean(np.asarray(spikes[-1]).sum(axis=0).argmax(axis=1) == labels) > 0.9


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: backend.jax_forward_pass([], np.ones(2), 3), "one a layer, not an empty one"),
        (lambda: backend.jax_forward_pass(None, np.ones(2), 3), "one a layer, not NoneType"),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(2), np.array(2.5)), "at least 1, not array"),
        (
            lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(2), 3, np.zeros(3)),
            r"are numbers, not an array \(3,\)",
        ),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(2), 3, 1j), "complex"),
        (lambda: backend.jax_lif_step(np.ones(3), np.ones(2), 0, 0, 1, 0.1, 1, 0), r"but not \(3,\), \(2,\)"),
        (lambda: backend.jax_lif_step("a", 1, 0, 0, 1, 0.1, 1, 0), "real numbers, not <U1"),
        (
            lambda: backend.jax_surrogate_gradient_step([np.ones((3, 4))], np.ones((0, 4)), np.ones(0, int)),
            r"not \(0, 4\)",
        ),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(4), 3), r"layer 0 takes weights \(n_neurons, 4\)"),
        (lambda: backend.jax_forward_pass([np.ones((3, 2)), np.ones((2, 2))], np.ones(2), 3), "layer 1"),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(2), 0), "at least 1, not 0"),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], np.ones(2), 2.5), "not 2.5"),
        (lambda: backend.jax_forward_pass([np.ones((3, 2))], 1j * np.ones(2), 1), "complex"),
        (lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones(2), np.ones(3)), r"\(batch, 3\)"),
        (lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones((2, 2)), [[1, 0], [1]]), "rectangular"),
        (lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones((1, 2)), ["a"]), "integers, not <U1"),
        (lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones((4, 2)), np.ones(4)), "integers"),
        (lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones((4, 2)), np.ones((4, 2))), r"\(4, 2\)"),
        (
            lambda: backend.jax_surrogate_gradient_step([np.ones((3, 2))], np.ones((4, 2)), np.arange(4)),
            "are 0 to 2, but there are 0 to 3",
        ),
    ],
)
def test_networks_that_do_not_fit(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: backend.jax_lif_step([0.0, np.nan], 1, 0, 0, 1, 0.1, 1, 0),
            "v is finite as float32, but there is nan",
        ),
        (lambda: backend.jax_lif_step(0.0, np.inf, 0, 0, 1, 0.1, 1, 0), "I_t is finite .* inf"),
        (lambda: backend.jax_lif_step(0.0, 1, 0, 0, 1, [0.5, -0.1], 1, 0), r"alpha is from 0 to 1 .* -0\.1"),
        (lambda: backend.jax_lif_step(0.0, 1, 0, 0, 1, 1.5, 1, 0), r"alpha is from 0 to 1 .* 1\.5"),
        (lambda: backend.jax_lif_step(0.0, 1, 0, 0, 1, np.nan, 1, 0), "alpha is from 0 to 1 .* nan"),
        (lambda: backend.jax_lif_step(0.0, 1, 0, 0, 1, 0.1, 1e39, 0), "resistance is finite as float32"),
        (lambda: backend.jax_forward_pass([np.ones((1, 1)), [[np.nan]]], np.ones(1), 3), r"weights\[1\] is finite"),
        (lambda: backend.jax_forward_pass([np.ones((1, 1))], to_jax([-np.inf]), 3), "x is finite .* -inf"),
        (lambda: backend.jax_forward_pass([np.ones((1, 1))], np.ones(1), 3, v_threshold=np.nan), "v_threshold"),
        (lambda: backend.jax_forward_pass([np.ones((1, 1))], np.ones(1), 3, alpha=-0.5), "alpha is from 0 to 1"),
        (lambda: descend(lr=np.nan), "lr is a finite number of at least 0, not nan"),
        (lambda: descend(lr=-1.0), "lr is a finite number"),
        (lambda: descend(beta=-1), "beta is a finite number of at least 0, not -1"),
        (lambda: descend(beta=np.inf), "beta is .* not inf"),
        (lambda: descend(beta="steep"), "beta is .* not 'steep'"),
        (lambda: descend(np.array([[0.5, np.nan]])), "targets is finite"),
    ],
)
def test_values_of_neurons_are_checked_outside_of_traces(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()


def descend(targets=np.array([0]), **options):
    return backend.jax_surrogate_gradient_step([np.ones((2, 1))], np.ones((1, 1)), targets, 3, **options)


def test_values_that_a_trace_hides_are_computed_with():
    step = jax.jit(lambda v: backend.jax_lif_step(v, 0, 0, 0, 1, 0.1, 1, 0)[0])
    assert np.isnan(step(jnp.array([np.nan]))).all()


# several devices: conftest.py gives JAX two


def rows():
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("rows",))
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("rows"))


def test_everything_under_shard_map(rng):
    p, w = rng.random((8, 6)), rng.normal(size=(5, 6))
    split = jax.sharding.PartitionSpec("rows")
    spikes = jax.sharding.PartitionSpec(None, "rows")
    for func, out in [
        (lambda p: sc.encode(p, 100, sng=Bernoulli(3)).popcount(), split),
        (lambda p: sc.matmul(p, w, 100), split),
        (lambda p: backend.jax_forward_pass([w], p, 4)[0][0], spikes),
    ]:
        mapped = jax.jit(jax.shard_map(func, mesh=rows().mesh, in_specs=split, out_specs=out))(to_jax(p))
        halves = [np.asarray(func(to_jax(half))) for half in np.split(p, 2)]
        np.testing.assert_allclose(to_host(mapped), np.concatenate(halves, axis=out.index("rows")), rtol=1e-12)
    weights, x, steps = [jnp.asarray(w, np.float32)], jnp.asarray(p, np.float32), 5
    step = lambda x, y: backend.jax_surrogate_gradient_step(weights, x, y, steps)[1][None]  # noqa: E731
    mapped = jax.shard_map(step, mesh=rows().mesh, in_specs=(split, split), out_specs=split)
    assert jax.jit(mapped)(x, jnp.arange(8) % 5).shape == (2,)


@pytest.mark.parametrize("where", ["second", "rows"])
def test_results_stay_where_the_input_is(rng, where):
    device = jax.devices()[1] if where == "second" else rows()
    devices = {jax.devices()[1]} if where == "second" else set(jax.devices())
    p, w = rng.random((8, 6)), rng.normal(size=(5, 6))
    past = p.copy()
    past[0, 0] = np.nextafter(1, 2)
    for func in [
        lambda p: sc.encode(p, 100, sng=Bernoulli(3)).words,
        lambda p: sc.encode(p, 100, sng=Sobol(1))[[0, 3]].bits[3:80].decode(),
        lambda p: sc.scc_matrix(sc.encode(p[:, 0], 100, sng=Sobol(1))),
        lambda p: sc.SCDense(w, np.ones(5), 2.0, mode="bipolar")(p, 100),
    ]:
        for values in (p, past):
            found = func(to_jax(values, device))
            assert found.sharding.device_set == devices
            np.testing.assert_array_equal(to_host(found), func(values))
    assert set(backend.jax_forward_pass([w], to_jax(p, device), 3)[1].devices()) == devices


def test_streams_move_between_devices_with_all_their_bits(rng, tmp_path):
    first, second = jax.devices()
    stream = sc.encode(to_jax(rng.random(8)), 128, sng=Sobol(1))
    words = to_host(stream.words)
    for device in (second, rows(), first):
        moved = to_jax(to_jax(to_jax(stream, rows()), device), device=device)
        assert moved.words.sharding == (device if device == rows() else jax.sharding.SingleDeviceSharding(device))
        np.testing.assert_array_equal(to_host(moved.words), words)
        np.testing.assert_array_equal(to_jax(words, device), words)
    lazy = to_jax(da.from_array(words, chunks=4), second)
    assert lazy.blocks[0].compute().devices() == {second}
    for call, error, message in [
        (lambda: to_jax(stream, first) & to_jax(stream, second), sc.MixedArrayError, "arrays on several devices"),
        (lambda: sc.scc(to_jax(stream, first), to_jax(stream, second)), sc.MixedArrayError, "to_jax"),
        (lambda: to_jax(np.ones(7), rows()), BitstreamError, r"an array of shape \(7,\) does not go to"),
        (lambda: to_jax(np.ones(7), "gpu"), BitstreamError, "does not go to gpu"),
    ]:
        with pytest.raises(error, match=message):
            call()


def test_what_jax_has_cut_on_the_way_is_refused_everywhere(rng):
    p = to_jax(rng.random(8), rows())
    stream, second = sc.encode(p, 128, sng=Sobol(1)), jax.devices()[1]
    if np.asarray(jax.device_put(stream.words, second)).dtype == np.uint64:
        return  # JAX does not cut any more.
    cut = jax.device_put(stream.words, second)
    for call in (
        lambda: jax.device_put(stream, second),
        lambda: stream.map_words(lambda words: jax.device_put(words, second)).decode(),
        lambda: stream.map_words(lambda words: jax.device_put(words, second))[0].unpack(),
        lambda: vector_ops.divide(jax.device_put(p, second), 2.0),
        lambda: Bitstream(cut, 128),
        lambda: vector_ops.popcount(cut),
        lambda: vector_ops.vec_and(cut, cut),
        lambda: to_host(cut),
        lambda: to_jax(cut, jax.devices()[0]),
        lambda: pickle.dumps(cut),
        lambda: da.from_array(to_host(cut)),
        lambda: sc.encode(jax.device_put(p, second), 64),
        lambda: sc.matmul(jax.device_put(to_jax(np.ones((2, 6)), rows()), second), np.ones((5, 6)), 64),
        lambda: backend.jax_lif_step(jax.device_put(p, second), 0, 0, 0, 1, 0.1, 1, 0),
    ):
        with pytest.raises(BitstreamError, match=r"JAX has cut off half of the bits .*: to_jax\(array, device\) moves"):
            call()

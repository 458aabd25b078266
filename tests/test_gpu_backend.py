import ast
import ctypes
import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import conftest
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slow import slow

import scdask as sc
from scdask import Bernoulli, BitstreamError, Sobol, gpu_backend, vector_ops
from scdask.core import contract
from scdask.errors import MissingBackendError, MixedArrayError, SchedulerError, UnsupportedArrayError
from scdask.gpu_backend import launch, mac, to_device, to_host

TESTS = Path(__file__).parent
ON_HOST = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import cupy_on_host; cupy_on_host.install()\n"
NO_CUPY = "import sys; sys.modules['cupy'] = None\n"
EVERYWHERE = [pytest.param(None, marks=mark, id=mark.name) for mark in (pytest.mark.gpu, pytest.mark.cuda_on_host)]


@pytest.fixture(params=EVERYWHERE)
def cupy(request):
    """CuPy, on a GPU or on the host."""
    import cupy

    return cupy


@pytest.fixture
def rng():
    return np.random.default_rng(31)


def words_of(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def run(code, *options):
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


# the source


@pytest.fixture(scope="module")
def nvrtc():
    folders = importlib.util.find_spec("nvidia").submodule_search_locations
    libraries = [path for folder in folders for path in Path(folder).rglob("libnvrtc.so.*")]
    assert libraries, "the nvidia-cuda-nvrtc wheel has no libnvrtc"
    return ctypes.CDLL(str(max(libraries, key=lambda path: int(path.suffix[1:]))))


def log_of(nvrtc, program):
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    return log.value.decode()


@pytest.mark.component("nvrtc")
@pytest.mark.parametrize("architecture", ["sm_75", slow("sm_80"), "sm_90", slow("sm_120")])
def test_the_source_compiles(nvrtc, architecture):
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), launch.source().encode(), b"kernels.cu", 0, None, None)
    options = [b"--std=c++17", b"--gpu-architecture=" + architecture.encode(), b"--ptxas-options=-v"]
    failure = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    log = log_of(nvrtc, program)
    assert not failure, log
    assert "warning" not in log
    compiled = set(re.findall(r"Compiling entry function '(\w+)'", log))
    tensor = {name for name in compiled if name.startswith("mac_tensor")}
    assert tensor == (set() if architecture == "sm_75" else {"mac_tensor_8", "mac_tensor_16"})
    assert {"pack", "unpack", "gate", "popcount_words", "popcount_streams", "bernoulli", "look_up"} <= compiled
    assert {f"mac_tile_{rows}_{vector}" for rows in (1, 4) for vector in (1, 2)} <= compiled
    if architecture in ("sm_80", "sm_90"):
        spills = re.findall(r"(\d+) bytes spill", log)
        assert spills
        assert not any(map(int, spills))


def attributes_of_cupy(path):
    """The dotted names under `cupy` that a source file uses."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id == "cupy":
            names.add(".".join(reversed(parts)))
    return names - {"cuda.Device.id"}


@pytest.mark.component("cupy")
def test_cupy_has_what_is_used_of_it():
    names = set().union(*map(attributes_of_cupy, Path(gpu_backend.__file__).parent.glob("*.py")))
    assert {"RawModule", "ascontiguousarray", "cuda.Device"} <= names
    run(f"import cupy, operator\nfor name in {sorted(names)}: operator.attrgetter(name)(cupy)")
    used = "shape dtype ndim size strides flags data device get reshape astype any all sum max clip __array_ufunc__"
    run(f"import cupy\nfor name in {used.split()}: getattr(cupy.ndarray, name)")
    run("import cupy\nfor name in ['compute_capability', 'attributes', 'id']: getattr(cupy.cuda.Device, name)")


# without a GPU

FALLBACK = """
import warnings
import numpy as np, dask.array as da
from scdask import Bitstream, encode, gpu_backend as g
assert not g.HAS_CUPY and g.xp is np
bits = np.ones((2, 70), np.uint8)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    words = g.gpu_pack_bitstream(bits)
    assert type(words) is np.ndarray and g.to_device(words) is words
    assert g.gpu_vec_and(words, words).tolist() == words.tolist() == [[2**64 - 1, 63]] * 2
    assert g.gpu_popcount(words).tolist() == [[64, 6]] * 2
    assert g.gpu_vec_mac(words[None], words).tolist() == [140]
    assert type(g.to_device(encode([0.5], 64)).words) is np.ndarray
    assert type(g.to_host(g.to_device(da.from_array(words, chunks=1))).compute()) is np.ndarray
assert len(caught) == 1, caught
print(caught[0].category.__name__, caught[0].message)
"""


GRAPH = """
import scdask as sc
p = g.to_device(da.from_array(np.linspace(0, 1, 5), chunks=2))
x, y = (sc.encode(p, 256, sng=sc.Sobol(d)) for d in (1, 2))
product = sc.matmul(p[:, None], np.ones((1, 1)), 256)
print((x & y).words, g.to_host((x & y).decode()).compute(), g.to_host(product).compute().ravel())
"""


def test_without_cupy_arrays_stay_on_the_host_with_one_warning_and_graphs_are_built():
    warned, *shown = run(NO_CUPY + FALLBACK + GRAPH).splitlines()
    assert warned.startswith("RuntimeWarning CuPy is not installed (pip install 'scdask[gpu-cuda13]'): arrays stay on")
    assert "chunktype=scdask.DeviceMeta" in shown[0]
    assert "[0.     0.0625 0.25   0.5625 1.    ] [0.   0.25 0.5  0.75 1.  ]" in shown[0]


@pytest.mark.component("cupy")
@pytest.mark.skipif(conftest.HAS_GPU, reason="a GPU is there")
def test_without_a_gpu_cupy_is_not_enough():
    assert run(FALLBACK).startswith("RuntimeWarning CuPy finds no CUDA device: arrays stay on the host")


CLIENT = """
import numpy as np, dask, dask.array as da
from distributed import Client, LocalCluster
import scdask as sc
from scdask import gpu_backend as g

rng = np.random.default_rng(0)
p = rng.random((6, 5))
lazy = da.from_array(p, chunks=(2, 3))
x = sc.encode(g.to_device(lazy), 200, sng=sc.Sobol(1))
y = sc.encode(g.to_device(lazy), 200, sng=sc.Bernoulli(3))
moved = sc.encode(lazy, 200).words.map_blocks(g.to_device)
plain_x = sc.encode(p, 200, sng=sc.Sobol(1))
plain = plain_x & sc.encode(p, 200, sng=sc.Bernoulli(3))
product = sc.matmul(g.to_device(lazy), p, 200)
for array in (x.words, y.words, (x & y).words, (~x)[1:, [0, 2]].words, x.decode(), x[1].decode(), product):
    assert type(array._meta).__name__ == "DeviceMeta", array
    assert array._meta.dtype == array.dtype and array._meta.ndim == array.ndim
assert "DeviceMeta" in repr(x.words)
assert type(g.to_device(np.empty((0, 3)))) is np.ndarray
kinds = moved.map_blocks(lambda block: np.array([[[type(block).__module__]]]), dtype="U20", chunks=(1, 1, 1))
results = {
    "gate": (g.to_host((x & y)).words, plain.words),
    "index": (g.to_host((x & y)[1:, [0, 2]]).words, plain[1:, [0, 2]].words),
    "decoded": (g.to_host((x & y).decode()), plain.decode()),
    "total": (g.to_host(sc.vector_ops.vec_popcount((x & y).words)), plain.popcount().sum()),
    "mean": (g.to_host((x & y).decode()).mean(), plain.decode().mean()),
    "sum": (g.to_host((x & y).popcount().sum()), plain.popcount().sum()),
    "one": (g.to_host((x & y)[1, 2].decode()), plain[1, 2].decode()),
    "largest": (g.to_host((x & y).popcount().max(axis=1)), plain.popcount().max(axis=1)),
    "joined": (g.to_host(da.concatenate([x.words, moved])), np.concatenate([plain_x.words, sc.encode(p, 200).words])),
    "scalar": (g.to_host(sc.encode(g.to_device(da.asarray(0.5)), 64)).words, sc.encode(0.5, 64).words),
    "empty": (g.to_host(g.to_device(da.zeros((0, 3)))), np.zeros((0, 3))),
    "masked": (g.to_host((x & y)[lazy > 0.5]).words, plain[p > 0.5].words),
    "packed": (g.to_host(moved), sc.encode(p, 200).words),
    "product": (g.to_host(sc.matmul(g.to_device(lazy), p, 200)), sc.matmul(p, p, 200)),
    "mac": (g.to_host(sc.vector_ops.vec_mac(moved, moved)), sc.vector_ops.vec_mac(*2 * [sc.encode(p, 200).words])),
}
if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", preload=[PRELOAD]
    ) as cluster, Client(cluster) as client:
        assert set(kinds.compute().ravel()) == {"cupy"}
        computed = dask.compute(*[result for result, _ in results.values()])
        for (name, (_, wanted)), found in zip(results.items(), computed, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12 if name == "mean" else 0, err_msg=name)
        persisted = g.to_host(x.persist()).words
        np.testing.assert_array_equal(persisted.compute(), g.to_host(x.words).compute())
print("done")
"""


@pytest.mark.cuda_on_host
def test_a_client_without_a_gpu_builds_graphs_for_workers_that_have_one():
    assert "done" in run(NO_CUPY + f"PRELOAD = {ON_HOST!r}\n" + CLIENT)


# moving arrays


@pytest.mark.parametrize("dtype", ["?", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", ">u8", ">f4"])
def test_arrays_go_and_come_back_bit_for_bit(cupy, rng, dtype):
    values = words_of(rng, 40).view("u1").astype(dtype).reshape(4, -1)
    there = to_device(values)
    assert isinstance(there, cupy.ndarray)
    assert there.dtype == np.dtype(dtype).newbyteorder("=")
    assert to_device(there) is there
    back = to_host(there)
    assert type(back) is np.ndarray
    np.testing.assert_array_equal(back, values)
    assert to_host(values) is values


def test_a_device_array_is_a_copy(cupy, rng):
    words = words_of(rng, 100)
    there = to_device(words)
    words[:] = 0
    assert to_host(there).all()


def test_lists_and_streams_move_too(cupy):
    assert to_host(to_device([1.5, 2])).tolist() == [1.5, 2]
    stream = to_device(sc.encode([0.25, 0.5], 128, sng=Sobol(1)))
    assert isinstance(stream.words, cupy.ndarray)
    assert to_host(stream).popcount().tolist() == [32, 64]


@pytest.mark.component("jax")
def test_arrays_of_jax_move_too(cupy, rng):
    from scdask import jax_backend

    words = words_of(rng, 3, 4)
    np.testing.assert_array_equal(to_host(to_device(jax_backend.to_jax(words))), words)
    with pytest.raises(MixedArrayError):
        vector_ops.vec_and(jax_backend.to_jax(words), to_device(words))


@pytest.mark.parametrize("values", ["text", [None], np.array(["2020"], "M8[D]"), np.zeros(2, "g"), np.ma.ones(2)])
def test_what_is_no_array_of_numbers_stays(values):
    with pytest.raises(UnsupportedArrayError):
        to_device(values)


def test_lazy_arrays_move_block_by_block(cupy, rng):
    words = words_of(rng, 6, 4)
    lazy = to_device(da.from_array(words, chunks=(2, 3)))
    assert isinstance(lazy._meta, cupy.ndarray)
    assert isinstance(lazy.compute(), cupy.ndarray)
    back = to_host(lazy)
    assert type(back._meta) is np.ndarray
    np.testing.assert_array_equal(back.compute(), words)


@pytest.mark.component("zarr")
def test_streams_are_stored_and_pickled(cupy, tmp_path):
    stream = to_device(sc.encode(np.linspace(0, 1, 7), 100))
    copy = pickle.loads(pickle.dumps(stream))
    assert isinstance(copy.words, cupy.ndarray)
    stream.to_zarr(tmp_path / "eager.zarr")
    stream.rechunk((3,)).to_zarr(tmp_path / "lazy.zarr")
    for stored in (copy, sc.open_zarr(tmp_path / "eager.zarr").compute(), sc.open_zarr(tmp_path / "lazy.zarr")):
        np.testing.assert_array_equal(to_host(stored.words), to_host(stream.words))


def test_arrays_on_several_devices_do_not_mix(cupy, rng, monkeypatch):
    small, large = to_device(words_of(rng, 3)), to_device(words_of(rng, 2, 3))
    if conftest.HAS_GPU:
        pytest.skip("needs two GPUs, or none")
    devices = [cupy.cuda.Device(0), cupy.cuda.Device(1)]
    monkeypatch.setattr(cupy.ndarray, "device", property(lambda array: devices[array.ndim - 1]))
    with pytest.raises(MixedArrayError, match=r"gate was given arrays on the devices \[0, 1\]"):
        vector_ops.vec_and(small, large)


def test_the_names_of_the_reference(cupy, rng):
    bits = rng.integers(0, 2, (3, 2, 100), dtype=np.uint8)
    words = gpu_backend.gpu_pack_bitstream(bits)
    assert isinstance(words, cupy.ndarray)
    plain = vector_ops.pack_bitstream(bits)
    np.testing.assert_array_equal(to_host(words), plain)
    np.testing.assert_array_equal(to_host(gpu_backend.gpu_vec_and(words, plain[0])), plain & plain[0])
    np.testing.assert_array_equal(to_host(gpu_backend.gpu_popcount(plain)), np.bitwise_count(plain))
    np.testing.assert_array_equal(
        to_host(gpu_backend.gpu_vec_mac(plain, words[0])), vector_ops.vec_mac(plain, plain[0])
    )


# kernels


@given(st.integers(1, 5), st.integers(1, 200), st.sampled_from(["?", "u1", "i8"]), st.data())
def test_pack_and_unpack_any_length(cupy, rows, length, dtype, data):
    bits = np.array(data.draw(st.lists(st.booleans(), min_size=rows * length, max_size=rows * length)))
    bits = bits.astype(dtype).reshape(rows, length)
    words = vector_ops.pack_bitstream(to_device(bits))
    np.testing.assert_array_equal(to_host(words), vector_ops.pack_bitstream(bits))
    np.testing.assert_array_equal(to_host(vector_ops.unpack_bitstream(words, length)), bits)


def test_pack_takes_any_memory_layout(cupy, rng):
    bits = rng.integers(0, 2, (6, 304), dtype=np.uint8)
    there = to_device(bits)
    for cut in (np.s_[::2, ::3], np.s_[::-1], np.s_[:, 1:], np.s_[0], np.s_[1:, 8:]):
        np.testing.assert_array_equal(
            to_host(vector_ops.pack_bitstream(there[cut])), vector_ops.pack_bitstream(bits[cut])
        )
    flat = to_device(np.append(0, bits[0]).astype(np.uint8))[1:]  # at an odd address
    np.testing.assert_array_equal(to_host(vector_ops.pack_bitstream(flat)), vector_ops.pack_bitstream(bits[0]))


def test_a_true_of_any_byte_is_one(cupy):
    odd = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert to_host(vector_ops.pack_bitstream(to_device(odd))).tolist() == [0b1110]


@pytest.mark.parametrize("bits", [np.array([0, 1, 2], np.uint8), np.array([1, 0, 256]), np.array([0, 0, -1])])
def test_pack_says_where_there_is_no_bit(cupy, bits):
    with pytest.raises(BitstreamError, match=r"(2|256|-1) at \(2,\)"):
        vector_ops.pack_bitstream(to_device(bits))


shapes = st.lists(st.integers(1, 3), max_size=6)


@given(shapes, shapes, shapes, st.integers(1, 4), st.integers(1, 64), st.integers(0, 2**32), st.booleans())
def test_gates_broadcast_as_numpy_does(cupy, a, b, c, n_words, used, seed, permuted):
    rng = np.random.default_rng(seed)
    length = 64 * (n_words - 1) + used
    whole = [3 if i % 2 else 2 for i in range(6)]
    operands = []
    for axes in (a, b, c):
        shape = [1 if n == 1 else m for n, m in zip(axes, whole[6 - len(axes) :], strict=True)]
        operands.append(vector_ops.mask_tail(words_of(rng, *shape, n_words), length))
    x, y, z = map(to_device, operands)
    if permuted and x.ndim > 2:
        operands[0] = operands[0].transpose(1, 0, *range(2, x.ndim))
        x = x.transpose(1, 0, *range(2, x.ndim))
        y = z = x
        operands[1:] = [operands[0]] * 2
    for name in ("vec_and", "vec_or", "vec_xor", "vec_xnor"):
        gate = getattr(vector_ops, name)
        np.testing.assert_array_equal(to_host(gate(x, y)), gate(*operands[:2]))
    np.testing.assert_array_equal(
        to_host(vector_ops.vec_xnor(x, y, length)), vector_ops.vec_xnor(*operands[:2], length)
    )
    np.testing.assert_array_equal(to_host(vector_ops.vec_not(z, length)), vector_ops.vec_not(operands[2], length))
    np.testing.assert_array_equal(to_host(vector_ops.vec_mux(x, y, z)), vector_ops.vec_mux(*operands))


@pytest.mark.parametrize(
    "shape", [(1, 1), (5, 2), (3, 33), (70, 1), (1, 5000), (2, 3, 1030), (0, 4), (4, 0), (3000, 3)]
)
def test_streams_are_counted_whatever_their_number_and_length(cupy, rng, shape):
    words = words_of(rng, *shape)
    there = to_device(words)
    np.testing.assert_array_equal(to_host(vector_ops.stream_popcount(there)), np.bitwise_count(words).sum(-1, np.int64))
    np.testing.assert_array_equal(to_host(vector_ops.popcount(there)), np.bitwise_count(words))
    assert vector_ops.vec_popcount(there) == np.bitwise_count(words).sum(dtype=np.int64)


@pytest.mark.parametrize(
    "cupy",
    [pytest.param(None, marks=pytest.mark.gpu), pytest.param(None, marks=[pytest.mark.cuda_on_host, pytest.mark.slow])],
    indirect=True,
)
def test_more_ones_than_32_bits_hold(cupy):
    n_words = 2**26
    words = to_device(np.full((1, 1, n_words), 2**64 - 1, np.uint64))
    assert vector_ops.vec_popcount(words) == 2**32
    assert to_host(vector_ops.vec_mac(words, words[0])).tolist() == [2**32]
    assert to_host(vector_ops.vec_mac(words, words[0], gate="xnor", length=64 * n_words)).tolist() == [2**32]


@pytest.mark.parametrize("tiles", [1, 7, 1000])
@pytest.mark.parametrize("width", [1, 8, 9, 1000, 2**24, 2**24 + 1, 2**34])
def test_no_part_of_a_row_is_too_long_for_32_bits(tiles, width):
    for wanted in (1, 300):
        parts, part_words = mac._parts(width, tiles, wanted, 128)
        assert 1 <= part_words <= 2**24 + 8
        assert (parts - 1) * part_words < width <= parts * part_words
        assert part_words % 8 == 0
        assert parts == 1 or part_words >= 128


MACS = [
    (tensor_cores, *shape)
    for tensor_cores in (False, True)
    for shape in [(1, 1, 1), (3, 2, 5), (4, 4, 64), (1, 9, 700), (5, 1, 33), (9, 6, 131), (22, 17, 40)]
] + [(True, 130, 140, 40), (True, 257, 64, 17)]


@pytest.mark.parametrize("gate", ["and", "xnor"])
@pytest.mark.parametrize(("tensor_cores", "batch", "neurons", "width"), MACS)
def test_both_kinds_of_kernel_multiply_and_accumulate(
    cupy, rng, monkeypatch, gate, batch, neurons, width, tensor_cores
):
    if tensor_cores and not launch.properties(cupy.cuda.Device().id)[1]:
        pytest.skip("needs a GPU with 1-bit tensor cores")
    x, w = words_of(rng, batch, width), words_of(rng, neurons, width)
    wanted = contract.gate_counts(w[:, None], x[:, None], gate)
    whole = [to_device(words) for words in (x, w)]
    shifted = [to_device(np.append(np.uint64(0), words))[1:].reshape(words.shape) for words in (x, w)]
    for there in (whole, shifted):
        np.testing.assert_array_equal(to_host(mac._mac(*there, gate == "xnor", tensor_cores)), wanted)
    monkeypatch.setattr(mac, "LONGEST_PART", 16)
    np.testing.assert_array_equal(to_host(mac._mac(*whole, gate == "xnor", tensor_cores)), wanted)


def test_the_shape_chooses_the_kernel(cupy, rng, monkeypatch):
    chosen = []
    run_kernel = launch.launch
    monkeypatch.setattr(mac, "launch", lambda name, *args: (chosen.append(name), run_kernel(name, *args))[1])
    for batch, neurons, words in [(1, 8, 2), (1, 8, 3), (4, 8, 2), (8, 4, 3), (8, 8, 2), (8, 8, 3)]:
        w, x = words_of(rng, neurons, 1, words), words_of(rng, batch, 1, words)
        np.testing.assert_array_equal(to_host(vector_ops.vec_mac(to_device(w), to_device(x))), vector_ops.vec_mac(w, x))
    tensor = launch.properties(cupy.cuda.Device().id)[1]
    large = ["mac_tensor_16", "mac_tensor_8"] if tensor else ["mac_tile_4_2", "mac_tile_4_1"]
    assert chosen == ["mac_tile_1_2", "mac_tile_1_1", "mac_tile_4_2", "mac_tile_4_1", *large]


def test_old_gpus_do_without_tensor_cores(cupy, rng, monkeypatch):
    monkeypatch.setattr(mac, "properties", lambda device: (2, False))
    w, x = words_of(rng, 6, 3, 5), words_of(rng, 9, 3, 5)
    np.testing.assert_array_equal(to_host(vector_ops.vec_mac(to_device(w), to_device(x))), vector_ops.vec_mac(w, x))


TINY = [0.0, -0.0, 5e-324, 1e-310, 2.0**-60, 0.1, 1 / 3, 0.5, np.nextafter(1, 0), 1.0]


@pytest.mark.parametrize("length", [1, 64, 1000])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_bernoulli_streams_are_those_of_the_host(cupy, length, dtype):
    p = np.array(TINY * 3, dtype).reshape(3, -1)
    for seed in (0, 1, 2**64 - 1):
        ours = sc.encode(to_device(p), length, sng=Bernoulli(seed))
        np.testing.assert_array_equal(to_host(ours.words), sc.encode(p, length, sng=Bernoulli(seed)).words)


def test_long_streams_are_looked_up_in_several_tables(cupy):
    p = np.linspace(-1, 1, 50)
    for sng in (Sobol(3), sc.LFSR(), sc.Halton(5), sc.Thermometer(), Bernoulli(4, shared=True)):
        ours = sc.encode(to_device(p), 10000, polarity="bipolar", sng=sng)
        np.testing.assert_array_equal(to_host(ours.words), sc.encode(p, 10000, polarity="bipolar", sng=sng).words)


@pytest.mark.parametrize("p", [[0.5, -0.1], [0.5, np.nan], [0.5, 1.5]])
def test_values_out_of_range_are_named(cupy, p):
    with pytest.raises(BitstreamError, match=r"at \(1,\)"):
        sc.encode(to_device(p), 64)
    with pytest.raises(BitstreamError, match=r"finite, but there is inf at \(1, 0\)"):
        sc.matmul(to_device([[0.5]]), to_device([[1.0], [np.inf]]), 64)


def test_indices_out_of_range_do_not_wrap_around(cupy):
    stream = to_device(sc.encode([0.25, 0.5], 64))
    with pytest.raises(IndexError):
        stream[[0, 2]]
    assert to_host(stream[to_device([1, 0, -1])]).shape == (3,)


def test_streams_anywhere_are_picked_by_indices_anywhere(cupy, rng):
    plain = sc.encode(rng.random((4, 5)), 100)
    places, mask = np.array([2, 0]), rng.random((4, 5)) > 0.5
    for index in (places, mask, (slice(None), places), (mask[:, 0], 1)):
        parts = index if isinstance(index, tuple) else (index,)
        wanted = plain[index].words
        for move in (to_device, lambda array: da.from_array(array, chunks=2), lambda array: array):
            moved = tuple(move(part) if isinstance(part, np.ndarray) else part for part in parts)
            moved = moved if isinstance(index, tuple) else moved[0]
            for stream in (plain, to_device(plain), plain.rechunk((2, 3)), to_device(plain.rechunk((2, 3)))):
                if isinstance(stream.words, da.Array) or not any(
                    isinstance(part, da.Array) for part in (*parts, moved)
                ):
                    picked = stream[moved].compute()
                    assert type(picked.words) is type(stream.compute().words)
                    np.testing.assert_array_equal(to_host(picked.words), wanted)


# where jobs run


@pytest.mark.component("apps")
def test_the_cuda_scheduler_starts_a_cluster_of_gpu_workers(cupy, rng, monkeypatch, tmp_path):
    import json

    from click.testing import CliRunner
    from distributed import LocalCluster

    from scdask.cli import main

    asked = []

    def cluster(**options):
        asked.append(dict(options))
        options["preload"] = [*options["preload"], *([] if conftest.HAS_GPU else [ON_HOST])]
        return LocalCluster(**options)

    if not conftest.HAS_GPU or not importlib.util.find_spec("dask_cuda"):
        monkeypatch.setitem(sys.modules, "dask_cuda", SimpleNamespace(LocalCUDACluster=cluster))
    x = rng.random((60, 8))
    model = sc.SCMLP.from_arrays([rng.normal(size=(6, 8))], [np.zeros(6)], calibration=x)
    model.save(tmp_path / "model.npz")
    np.savez(tmp_path / "data.npz", x=x, y=model.predict_float(x))
    given = ["infer", "--model", str(tmp_path / "model.npz"), "--data", str(tmp_path / "data.npz"), "--quiet"]
    for scheduler in ("cuda", "threads"):
        command = [*given, *f"--length 64 --sng sobol,bernoulli --scheduler {scheduler} --out".split()]
        result = CliRunner().invoke(main, [*command, str(tmp_path / scheduler)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    found = {name: json.loads((tmp_path / name / "results.json").read_text()) for name in ("cuda", "threads")}
    assert found["cuda"]["scheduler"] == "cuda"
    accuracies = [[row["accuracy"] for row in found[name]["results"]] for name in found]
    assert accuracies[0] == accuracies[1]
    assert min(accuracies[0]) < 1
    if not conftest.HAS_GPU:
        assert [(options["n_workers"], options["threads_per_worker"]) for options in asked] == [(1, 1)]


@pytest.mark.parametrize("gpu", [True, False])
def test_a_place_with_gpus_computes_there(cupy, rng, monkeypatch, gpu):
    from scdask.cluster import Place
    from scdask.jobs.infer import Setting, infer

    launched = []
    find = launch._compiled
    monkeypatch.setattr(launch, "_compiled", lambda name: (launched.append(name), find(name))[1])
    x = rng.random((20, 8))
    model = sc.SCMLP.from_arrays([rng.normal(size=(6, 8))], [np.zeros(6)], calibration=x)
    result = infer(model, x, model.predict(x, 64), Setting("sobol", 64, 0, "split"), Place("here", 1, gpu=gpu))
    assert result.accuracy == 1
    assert set(launched) == ({"look_up", "mac_tensor_16"} if gpu else set())


def test_there_is_no_cuda_cluster_without_enough_gpus(cupy):
    from scdask.cluster import open_scheduler

    with (
        pytest.raises(SchedulerError, match="a worker needs a GPU of its own, but CuPy finds"),
        open_scheduler("cuda", 99),
    ):
        pass


@pytest.mark.parametrize("package", ["cupy", "dask_cuda"])
def test_a_cuda_cluster_says_what_to_install(cupy, monkeypatch, package):
    from scdask.cluster import open_scheduler

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingBackendError, match=rf"{package} is not installed.*gpu-cuda13"), open_scheduler("cuda"):
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", [pytest.param("", marks=pytest.mark.gpu), pytest.param(ON_HOST, marks=pytest.mark.cuda_on_host)]
)
def test_the_benchmark_runs(start, tmp_path):
    import json

    path = tmp_path / "rows.json"
    printed = run(
        start
        + f"import sys; sys.modules['sc_neurocore'] = None; sys.path.insert(0, {str(TESTS.parent / 'benchmarks')!r})\n"
        f"import gpu; gpu.main(['--shrink', '1024', '--json', {str(path)!r}], standalone_mode=False)"
    )
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 13
    lines = printed.splitlines()[2:]
    assert [line.partition(": ")[0] for line in lines] == [row["case"] for row in rows]
    assert all(row["seconds"] > 0 for row in rows)


BARE = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in MISSING else super().find_spec(name, path, target)

sys.meta_path = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_tests_on_a_gpu_need_cupy_pytest_and_hypothesis_alone(monkeypatch):
    missing = {*conftest.COMPONENTS.values(), "jax", "jaxlib", "matplotlib", "bokeh", "mpi4py", "cryptography", "xdist"}
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # Plugins of other packages would import them.
    monkeypatch.delenv("SCDASK_REQUIRE", raising=False)
    options = ["-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider", str(TESTS)]
    found = run(f"import sys; sys.argv[1:] = {options}; MISSING = {missing - {'cupy'}}" + BARE).strip().splitlines()
    assert re.match(r"5\d\d/\d+ tests collected", found[-1])
    files = {name.partition("::")[0].rpartition("/")[2] for name in found if "::" in name}
    assert {"test_vector_ops.py", "test_encoding.py", "test_gpu_backend.py"} <= files


def test_info_says_what_there_is(cupy):
    from click.testing import CliRunner

    from scdask.cli import main

    assert "works on" in CliRunner().invoke(main, ["info"]).output.split("CuPy arrays")[1].splitlines()[0]

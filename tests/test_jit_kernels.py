import errno
import importlib.util
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from llvmlite import binding
from slow import slow

from scdask.core import llvm
from scdask.core.digits import sfc64, threefry
from scdask.errors import BitstreamError
from scdask.jit_kernels import jit_pack_bits, jit_vec_mac, mac_tables
from scdask.jobs.machine import LEVELS, this_machine
from scdask.vector_ops import stream_popcount, vec_mac, vec_popcount


@pytest.fixture
def rng():
    return np.random.default_rng(6)


@pytest.mark.parametrize("shape", [(1,), (64,), (100,), (4096,), (3, 100)])
def test_jit_pack_bits_fills_its_output(rng, shape):
    bits = rng.integers(0, 2, shape, dtype=np.uint8)
    out = np.full((*shape[:-1], -(-shape[-1] // 64)), 2**64 - 1, np.uint64)
    assert jit_pack_bits(bits, out) is None
    assert out.reshape(-1, out.shape[-1]).tolist() == [reference.pack(row) for row in bits.reshape(-1, shape[-1])]


def test_jit_pack_bits_fills_strided_and_foreign_outputs(rng):
    bits = rng.integers(0, 2, 100, dtype=np.uint8)
    strided = np.zeros(4, np.uint64)
    jit_pack_bits(bits, strided[::2])
    swapped = np.zeros(2, ">u8")
    jit_pack_bits(bits, swapped)
    assert strided.tolist()[::2] == swapped.tolist() == reference.pack(bits)
    assert strided.tolist()[1::2] == [0, 0]


@pytest.mark.parametrize(
    ("bits", "out", "message"),
    [
        (np.ones(4096, np.uint8), np.zeros(1, np.uint64), r"\(1,\), but the result has \(64,\)"),
        (np.ones(100, np.uint8), np.zeros(1, np.uint64), r"\(1,\), but the result has \(2,\)"),
        (np.ones(10, np.uint8), np.zeros(2, np.uint64), r"\(2,\), but the result has \(1,\)"),
        (np.ones(10, np.uint8), np.zeros(1, np.uint32), "uint32"),
        (np.ones(10, np.uint8), [0], "list"),
        (np.full(10, 2, np.uint8), np.zeros(1, np.uint64), r"2 at \(0,\)"),
        (np.ones(()), np.zeros((), np.uint64), "float64"),
    ],
)
def test_jit_pack_bits_refuses(bits, out, message):
    with pytest.raises(BitstreamError, match=message):
        jit_pack_bits(bits, out)
    assert not np.any(out)


def test_a_read_only_output_is_refused():
    out = np.zeros(1, np.uint64)
    out.flags.writeable = False
    with pytest.raises(BitstreamError, match="read-only"):
        jit_pack_bits(np.ones(10, np.uint8), out)


@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.int32, np.uint16, np.float64, np.float32])
def test_jit_vec_mac_fills_its_output(rng, dtype):
    weights = rng.integers(0, 2**64, (5, 4, 3), dtype=np.uint64)
    inputs = rng.integers(0, 2**64, (2, 4, 3), dtype=np.uint64)
    expected = np.bitwise_count(weights & inputs[:, None]).sum(axis=(2, 3))
    out = np.full(5, 7, dtype)
    assert jit_vec_mac(weights, inputs[1], out) is None
    np.testing.assert_array_equal(out, expected[1])
    batch = np.full((2, 5), 7, dtype)
    jit_vec_mac(weights, inputs, batch)
    np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize(
    ("weights", "inputs", "out", "message"),
    [
        ((1, 4, 1), (2, 1), np.zeros(1, np.int64), "n_inputs"),
        ((1, 4, 1), (4, 1), np.zeros(1, np.uint8), "256, more than the output's uint8"),
        ((1, 4, 1), (4, 1), np.zeros(1, bool), "256, more than the output's bool"),
        ((1, 600, 1), (600, 1), np.zeros(1, np.float16), "38400, more than the output's float16"),
        ((1, 4, 1), (4, 1), np.zeros(2, np.int64), r"\(2,\), but the result has \(1,\)"),
        ((1, 4, 1), (3, 4, 1), np.zeros(1, np.int64), r"\(1,\), but the result has \(3, 1\)"),
    ],
)
def test_jit_vec_mac_refuses(weights, inputs, out, message):
    with pytest.raises(BitstreamError, match=message):
        jit_vec_mac(np.ones(weights, np.uint64), np.ones(inputs, np.uint64), out)
    assert not np.any(out)


KNOWN_ANSWERS = [  # threefry2x64, 13 rounds, of Random123's known-answer tests
    ((0, 0), (0, 0), (0xF167B032C3B480BD, 0xE91F9FEE4B7A6FB5)),
    ((2**64 - 1,) * 2, (2**64 - 1,) * 2, (0xCCDEC5C917A874B1, 0x4DF53ABCA26CEB01)),
    (
        (0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x243F6A8885A308D3, 0x13198A2E03707344),
        (0xC3AAC71561042993, 0x3FE7AE8801AFF316),
    ),
]


@pytest.mark.parametrize(("key", "counter", "answer"), KNOWN_ANSWERS)
def test_threefry_gives_the_known_answers(key, counter, answer):
    with np.errstate(over="ignore"):
        assert threefry(*(np.uint64(k) for k in (*key, *counter))) == answer
    assert reference.threefry2x64_13(key, counter) == answer


@pytest.mark.parametrize("state", [(1, 2, 3), (2**64 - 1, 2**63, 0x0123456789ABCDEF)])
def test_sfc64_is_that_of_numpy(state):
    theirs = np.random.SFC64()
    theirs.state = {**theirs.state, "state": {"state": np.array([*state, 1], np.uint64)}}
    expected = theirs.random_raw(64).tolist()
    assert list(reference.sfc64(*state)) == expected
    words, now = [], tuple(map(np.uint64, state))
    with np.errstate(over="ignore"):
        for count in range(1, 65):
            word, now = sfc64(now, np.uint64(count))
            words.append(int(word))
    assert words == expected


KERNELS = """
import numpy as np
import scdask as sc
from scdask import vector_ops
w = sc.encode(np.linspace(0, 1, 60).reshape(15, 4), 100, sng=sc.Bernoulli(1)).words
x = sc.encode(np.linspace(0, 1, 60).reshape(15, 4), 100, sng=sc.LFSR()).words
print(vector_ops.vec_mac(w, x).sum(), vector_ops.vec_xnor(w, x, 100).sum(), vector_ops.vec_popcount(w))
print(vector_ops.unpack_bitstream(vector_ops.pack_bitstream(vector_ops.unpack_bitstream(w, 100)), 100).sum())
"""
THREADS = """
from threading import Barrier, Thread
import numpy as np
from scdask import vector_ops
words, ones, barrier = np.arange(8, dtype=np.uint64), [], Barrier(8)
def count():
    barrier.wait()
    ones.append(int(vector_ops.stream_popcount(vector_ops.vec_xnor(words, words, 500))))
    assert (vector_ops.vec_mux(words, words[::-1], words) == (words & words[::-1]) | (~words & words)).all()
threads = [Thread(target=count) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(ones)
"""
COUNTED = f"{[500] * 8}\n"


def start(folder, code):
    """Run code whose compiled kernels can be kept in a folder only, as that of the cache or of the user."""
    environment = os.environ | {"HOME": str(folder), "NUMBA_CACHE_DIR": str(folder)}
    if PLACES in code:
        del environment["NUMBA_CACHE_DIR"]
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def kept(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nb?")}


def test_threads_and_processes_may_compile_at_once_and_later_ones_do_not(tmp_path):
    first, second = map(finish, [start(tmp_path, THREADS), start(tmp_path, THREADS)])
    before = kept(tmp_path)
    assert before
    assert first == second == finish(start(tmp_path, THREADS)) == COUNTED
    assert kept(tmp_path) == before


PLACES = 'import numba.core.caching as c\nplaces = getattr(c, "CacheImpl", None) or c._CacheImpl'
READ_ONLY = f"""
{PLACES}
def refuse(self):
    raise OSError("read-only file system")
(beside,) = (p for p in places._locator_classes if p.__name__.strip("_") == "InTreeCacheLocator")
beside.ensure_cache_path = refuse
"""


@pytest.mark.parametrize(("code", "some"), [(THREADS, 2), slow(KERNELS, 6)], ids=["some", "more"])
def test_a_read_only_installation_caches_in_the_users_folder(tmp_path, code, some):
    first = finish(start(tmp_path, READ_ONLY + code))
    before = kept(tmp_path)
    assert len({path for path in before if path.suffix == ".nbc"}) >= some
    assert finish(start(tmp_path, READ_ONLY + code)) == first
    assert kept(tmp_path) == before


def test_no_place_for_a_cache_is_one_warning(tmp_path):
    code = f"""
{PLACES}
import warnings
places._locator_classes = []
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    exec({THREADS!r})
(warning,) = told
assert "not kept, so each process compiles them anew" in str(warning.message)
"""
    assert finish(start(tmp_path, code)) == COUNTED
    assert not kept(tmp_path)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Compiles a function, whose cache lies in a folder, and gives what it returns."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(llvm, "_told", [])
    monkeypatch.setattr("numba.core.config.CACHE_DIR", "")
    (tmp_path / "counting_for_a_test.py").write_text("def add(a, b):\n    return a + b\n")
    spec = importlib.util.spec_from_file_location("counting_for_a_test", tmp_path / "counting_for_a_test.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "counting_for_a_test", module)
    spec.loader.exec_module(module)
    return lambda: (llvm.compiled(module.add)(1, 2), int(llvm.compiled_ufunc(module.add, "int64(int64, int64)")(3, 4)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize("spoil", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: bytes(64)])
def test_half_written_files_of_the_cache_are_replaced(tmp_path, counted, kind, spoil):
    assert counted() == (3, 7)
    files = list(tmp_path.rglob(f"*.{kind}"))
    assert files
    for file in files:
        file.write_bytes(spoil(file.read_bytes()))
    assert counted() == (3, 7)
    before = kept(tmp_path)
    assert counted() == (3, 7)
    assert kept(tmp_path) == before  # They were whole.


def test_a_full_disk_is_one_warning(tmp_path, counted, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._open_for_write", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as told:
        assert counted() == (3, 7)
    assert len(told) == 1


def words(rng, *shape):
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def counts_of(x, w, gate):
    x, w = (a.reshape(len(a), -1) for a in (x, w))
    return np.stack([np.bitwise_count(gate(w, row)).sum(axis=1, dtype=np.int64) for row in x])


STRIDES = {
    "contiguous": lambda a: a,
    "Fortran order": np.asfortranarray,
    "every second word": lambda a: np.repeat(a, 2, 2)[..., ::2],
    "backwards": lambda a: a[::-1, :, ::-1].copy()[::-1, :, ::-1],
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint64, a.size, 1).reshape(a.shape) if a.size else a,
}


@pytest.mark.skipif(not llvm.shuffled_bytes(), reason="this processor counts the ones of vectors by itself")
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 150), st.integers(1, 9), st.integers(1, 12)),
    st.sampled_from([np.bitwise_and, np.bitwise_xor]),
    st.tuples(st.sampled_from([*STRIDES]), st.sampled_from([*STRIDES])),
    st.integers(0, 2**32),
)
def test_macs_by_tables_have_the_counts_of_numpy(shape, gate, orders, seed):
    rows, others, n_inputs, n_words = shape
    rng = np.random.default_rng(seed)
    x, w = words(rng, rows, n_inputs, n_words), words(rng, others, n_inputs, n_words)
    expected = counts_of(x, w, gate) + 5
    x, w = (STRIDES[order](a) for order, a in zip(orders, (x, w), strict=True))
    counts = np.full(expected.shape, 5, np.int64)
    mac_tables.mac(x, w, gate is np.bitwise_xor, counts)
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.skipif(not llvm.shuffled_bytes(), reason="this processor counts the ones of vectors by itself")
@pytest.mark.parametrize(("rows", "others", "n_words"), [(3, 2, 3000), (130, 600, 50)])
def test_macs_by_tables_do_not_overflow(rows, others, n_words):
    """Rows of ones only: their 16-bit counts are emptied in time, and those of many rows are kept apart."""
    x, w = np.full((rows, 1, n_words), 2**64 - 1, np.uint64), np.full((others, n_words, 1), 2**64 - 1, np.uint64)
    w[1] = 0
    counts = np.zeros((rows, others), np.int64)
    mac_tables.mac(x, w.reshape(others, 1, n_words), False, counts)
    assert (counts[:, 1] == 0).all()
    assert (np.delete(counts, 1, axis=1) == 64 * n_words).all()


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (40, 64, 10, 16), (20, 100, 3, 65)])
def test_macs_choose_a_form_and_have_its_counts(rng, shape):
    rows, others, n_inputs, n_words = shape
    x, w = words(rng, rows, n_inputs, n_words), words(rng, others, n_inputs, n_words)
    np.testing.assert_array_equal(vec_mac(w, x), counts_of(x, w, np.bitwise_and))
    total = 64 * n_inputs * n_words
    np.testing.assert_array_equal(vec_mac(w, x, "xnor", 64 * n_words), total - counts_of(x, w, np.bitwise_xor))


@pytest.mark.parametrize("n_words", [1, 2, 3, 4, 7, 16, 31, 63, 64, 65, 130, 1000])
def test_ones_of_rows_of_any_size(rng, n_words):
    rows = words(rng, 7, n_words)
    rows[0], rows[1] = 2**64 - 1, 0
    np.testing.assert_array_equal(stream_popcount(rows), np.bitwise_count(rows).sum(axis=1, dtype=np.int64))
    assert vec_popcount(rows) == int(np.bitwise_count(rows).sum())


LEVELED = """
import hashlib
import numpy as np
import scdask as sc
from scdask import vector_ops
from scdask.vector_ops.umul import umul_words
digest = hashlib.sha256()
p = np.linspace(0, 1, 4000).reshape(80, 50)
for sng in (sc.Bernoulli(1), sc.Bernoulli(1, shared=True), sc.Sobol(2), sc.LFSR()):
    for length in (64, 600, 1000):
        stream = sc.encode(p, length, sng=sng)
        bits = stream.unpack()
        for array in (stream.words, stream.popcount(), bits, vector_ops.pack_bitstream(bits)):
            digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(np.ascontiguousarray(vector_ops.vec_mac(stream.words, stream.words[:30])).tobytes())
    digest.update(np.ascontiguousarray(vector_ops.vec_mac(stream.words[:3], stream.words[3:5], "xnor", 1000)).tobytes())
    digest.update(np.ascontiguousarray(vector_ops.vec_xnor(stream.words, stream.words[::-1], 1000)).tobytes())
    tables = np.random.default_rng(1)
    for states, inputs in ((2, 2), (5, 1), (9, 2)):
        machine = sc.Machine(*(tables.integers(0, n, (states, 2**inputs)) for n in (states, 2)))
        for array in vector_ops.run_machine(machine, *[stream.words, stream.words[::-1]][:inputs], length=1000):
            digest.update(array.tobytes())
    digest.update(umul_words(stream.words, p, sng, 1000).tobytes())
print(digest.hexdigest())
"""


def at_level(level, code, **variables):
    """Run code whose kernels are compiled for a level of instructions."""
    known = list(LEVELS)
    features = ",".join(f"+{feature}" for name in known[: known.index(level) + 1] for feature in LEVELS[name])
    environment = os.environ | {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": features} | variables
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)


@pytest.fixture(scope="module")
def leveled():
    """What the kernels of this process's level give."""
    return subprocess.check_output([sys.executable, "-c", LEVELED], text=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are those of x86-64")
@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_of_instructions_gives_the_same(leveled, level):
    if level == this_machine().compiled_for.partition(" ")[0]:
        pytest.skip("the kernels of this process are compiled for it")
    if not all(binding.get_host_cpu_features().get(feature) for feature in LEVELS[level]):
        pytest.skip(f"this processor has no {level}")
    assert at_level(level, LEVELED) == leveled


FOR_AVX512 = """
from numba import types as t
from scdask.jit_kernels import counting, encoding, mac_tiles
i, u = t.int64, t.uint64
lines, table = (t.Array(u, n, "C", readonly=True) for n in (1, 2))
out = t.Array(u, 2, "C")
for func, args in (
    (mac_tiles.add_tiles, (t.boolean, *[i] * 9)),
    (counting._count_by_vectors, (i, i, t.Array(i, 1, "C"))),
    (encoding.bernoulli, (lines, lines, i, u, u, out)),
):
    func.compile(args)
    (code,) = func.inspect_asm().values()
    print(func.__name__, "zmm" in code, "vpternlog" in code, "vpopcntq" in code)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels are those of x86-64")
@pytest.mark.slow
def test_kernels_compile_for_avx_512(tmp_path):
    code = "import os\nos.environ['NUMBA_CPU_FEATURES'] += ',+avx512vpopcntdq'\n" + FOR_AVX512
    found = at_level("x86-64-v4", code, NUMBA_CACHE_DIR=str(tmp_path))  # What is cached has no code to look at.
    assert [line.split()[:2] for line in found.splitlines()] == [
        ["add_tiles", "True"],
        ["_count_by_vectors", "True"],
        ["bernoulli", "True"],
    ]
    assert found.splitlines()[0].endswith("True True")


WARMED = """
from scdask.cluster import warm_up
from scdask.core.llvm import shuffled_bytes
from scdask.jit_kernels import encoding, mac_blocks, mac_tables
warm_up()
used = [encoding.bernoulli, encoding.look_up, mac_blocks._mac_uncopied, mac_blocks._mac_in_blocks]
used += [mac_tables._mac] * (shuffled_bytes() > 0)
print([func.__name__ for func in used if not func.signatures])
"""


def test_workers_warm_up_each_form_of_a_mac():
    assert subprocess.check_output([sys.executable, "-c", WARMED], text=True) == "[]\n"

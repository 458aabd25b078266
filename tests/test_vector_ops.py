import dask.array as da
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from scdask import vector_ops as vo
from scdask.errors import BitstreamError, UnsupportedArrayError

GATES = {
    vo.vec_and: lambda a, b: a & b,
    vo.vec_or: lambda a, b: a | b,
    vo.vec_xor: lambda a, b: a ^ b,
    vo.vec_xnor: lambda a, b: 1 - (a ^ b),
}
LENGTHS = [1, 63, 64, 65, 1000, 4097]


def bits_of(rng, *shape):
    return rng.integers(0, 2, shape, dtype=np.uint8)


@pytest.fixture
def rng():
    return np.random.default_rng(5)


# packing


@given(st.lists(st.integers(0, 1), max_size=300))
def test_pack_is_lsb_first(bits):
    packed = vo.pack_bitstream(bits)
    assert packed.dtype == np.uint64
    assert packed.tolist() == reference.pack(bits)


@pytest.mark.parametrize("length", LENGTHS)
def test_pack_and_unpack_round_trip(rng, length):
    bits = bits_of(rng, 3, 4, length)
    words = vo.pack_bitstream(bits)
    assert words.tolist() == [[reference.pack(row) for row in plane] for plane in bits]
    np.testing.assert_array_equal(vo.unpack_bitstream(words, length), bits)


@pytest.mark.parametrize("length", [0, 1, 64, 1000])
def test_every_backend_packs_and_unpacks(backend, rng, length):
    bits = bits_of(rng, 3, 4, length)
    packed = vo.pack_bitstream(backend.array(bits))
    assert packed.shape == (3, 4, -(-length // 64))
    assert packed.dtype == np.uint64
    words = backend.host(packed)
    assert words.tolist() == [[reference.pack(row) for row in plane] for plane in bits]
    back = vo.unpack_bitstream(backend.array(words), length)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(backend.host(back), bits)


@given(arrays(np.uint64, st.tuples(st.integers(0, 3), st.integers(0, 4))), st.data())
def test_unpack_is_lsb_first(words, data):
    n = words.shape[1]
    length = data.draw(st.integers(64 * n - 63, 64 * n)) if n else 0
    expected = [reference.unpack(row, length) for row in words]
    assert vo.unpack_bitstream(words, length).tolist() == expected


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", ">i2", "u4", "i8", ">u8"])
def test_pack_takes_every_integer_type(rng, dtype):
    bits = bits_of(rng, 2, 70)
    np.testing.assert_array_equal(vo.pack_bitstream(bits.astype(dtype)), vo.pack_bitstream(bits))


def test_a_true_of_any_byte_is_one():
    odd = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert vo.pack_bitstream(odd).tolist() == [0b1110]


def test_pack_takes_any_memory_layout(rng):
    bits = bits_of(rng, 6, 300)
    unaligned = np.frombuffer(b"x" + bits.astype("<i4").tobytes(), np.uint8)[1:].view("<i4").reshape(6, 300)
    assert not unaligned.flags.aligned
    for view in (bits[::2, ::3], bits[::-1], bits.T, np.broadcast_to(bits[0], (4, 300)), unaligned):
        packed = vo.pack_bitstream(view)
        assert packed.tolist() == [reference.pack(row) for row in view]


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        ([2, 2, 2], "2 at (0,)"),
        ([0.9, 0.9], "float64"),
        ([-1, 1, -1], "-1 at (0,)"),
        (np.array([0, 1, -1], np.int8), "-1 at (2,)"),
        (np.array([[0] * 64, [0] * 63 + [3]], np.uint8), "3 at (1, 63)"),
        (np.array([0, 256]), "256 at (1,)"),
        (["a"], "<U1"),
        ([None], "object"),
        ([1 + 0j], "complex"),
        ([[1], [1, 0]], "rectangular"),
        (1, "none: "),
        (np.array(["2020"], "M8[D]"), "datetime64"),
    ],
)
def test_pack_refuses_what_is_no_bit(bits, found):
    with pytest.raises(BitstreamError, match=found.replace("(", r"\(").replace(")", r"\)")):
        vo.pack_bitstream(bits)


def test_pack_of_a_lazy_array_says_where_the_bad_bit_is():
    bits = np.zeros((4, 256), np.uint8)
    bits[3, 200] = 7
    lazy = vo.pack_bitstream(da.from_array(bits, chunks=(2, 128)))
    with pytest.raises(BitstreamError, match=r"7 at \(1, 72\) in the chunk \[2:4, 128:256\]"):
        lazy.compute()


def test_the_length_is_that_of_one_stream(backend, rng):
    bits = bits_of(rng, 2, 100)
    words = backend.array(vo.pack_bitstream(bits))
    assert backend.host(vo.unpack_bitstream(words, 100)).shape == (2, 100)


def test_original_shape_wins(backend, rng):
    bits = bits_of(rng, 2, 100)
    words = backend.array(vo.pack_bitstream(bits))
    np.testing.assert_array_equal(backend.host(vo.unpack_bitstream(words, 7, (2, 100))), bits)
    np.testing.assert_array_equal(backend.host(vo.unpack_bitstream(words, 7, (200,))), bits.ravel())
    np.testing.assert_array_equal(
        backend.host(vo.unpack_bitstream(words[0], 7, original_shape=(10, 10))), bits[0].reshape(10, 10)
    )


@pytest.mark.parametrize("shape", [(2, 99, 3), (201,), (2, 1000), (-1, 100), (0, 100)])
def test_original_shape_must_fit(backend, shape):
    with pytest.raises(BitstreamError, match=r"2 streams|hold"):
        vo.unpack_bitstream(backend.array(np.zeros((2, 2), np.uint64)), 100, shape)


@pytest.mark.parametrize("length", [1000, 65, 0, -1, 10.0, True, None, "10"])
def test_unpack_refuses_a_length_that_does_not_fit(backend, length):
    words = backend.array(vo.pack_bitstream([1] * 10))
    with pytest.raises(BitstreamError, match=r"hold 1 to 64 bits|is an integer"):
        vo.unpack_bitstream(words, length)


# gates


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("gate", GATES, ids=lambda g: g.__name__)
def test_gates(backend, rng, gate, length):
    a, b = bits_of(rng, 3, 1, length), bits_of(rng, 4, length)
    packed = [backend.array(vo.pack_bitstream(x)) for x in (a, b)]
    padded = {"length": length} if gate is vo.vec_xnor else {}
    result = gate(*packed, **padded)
    assert result.shape == (3, 4, -(-length // 64))
    np.testing.assert_array_equal(backend.host(result), vo.pack_bitstream(GATES[gate](a, b)))


@pytest.mark.parametrize("length", LENGTHS)
def test_not_and_mux(backend, rng, length):
    s, a, b = (bits_of(rng, 5, length) for _ in range(3))
    packed = [backend.array(vo.pack_bitstream(x)) for x in (s, a, b)]
    np.testing.assert_array_equal(backend.host(vo.vec_not(packed[1], length)), vo.pack_bitstream(1 - a))
    np.testing.assert_array_equal(backend.host(vo.vec_mux(*packed)), vo.pack_bitstream(np.where(s, a, b)))


@pytest.mark.parametrize("length", LENGTHS)
def test_mask_tail_clears_the_padding(backend, length):
    n_words = -(-length // 64)
    full = backend.array(np.full((2, n_words), 2**64 - 1, np.uint64))
    expected = vo.pack_bitstream(np.ones((2, length), np.uint8))
    np.testing.assert_array_equal(backend.host(vo.mask_tail(full, length)), expected)
    assert (backend.host(full) == 2**64 - 1).all()
    with pytest.raises(BitstreamError, match="words hold"):
        vo.mask_tail(full, 64 * n_words + 1)


def test_padding_never_counts(backend):
    zeros = backend.array(vo.pack_bitstream([0] * 100))
    assert backend.host(vo.vec_popcount(vo.vec_not(zeros, length=100))) == 100
    ones = backend.array(vo.pack_bitstream([1] * 10))
    assert backend.host(vo.vec_popcount(vo.vec_xnor(ones, ones, length=10))) == 10


def test_without_a_length_every_bit_of_a_word_counts(backend):
    zeros = backend.array(vo.pack_bitstream([0] * 100))
    assert backend.host(vo.vec_popcount(vo.vec_not(zeros))) == 128
    assert backend.host(vo.vec_popcount(vo.vec_xnor(zeros, zeros))) == 128


@pytest.mark.parametrize("gate", [*GATES, vo.vec_mux], ids=lambda g: g.__name__)
def test_gates_refuse_operands_that_do_not_fit(backend, gate):
    words = [backend.array(np.zeros(s, np.uint64)) for s in [(1,), (2,), (3, 2), (4, 2)]]
    rest = [words[1]] if gate is vo.vec_mux else []
    with pytest.raises(BitstreamError, match="1 and 2"):
        gate(words[0], words[1], *rest)
    with pytest.raises(BitstreamError, match=r"streams of shapes \(3,\) and \(4,\)"):
        gate(words[2], words[3], *rest)
    for bad in (np.zeros(2, np.int64), np.zeros(2), np.zeros(2, bool)):
        with pytest.raises(BitstreamError, match=str(bad.dtype)):
            gate(backend.array(bad), words[1], *rest)
    with pytest.raises(BitstreamError, match="no axis"):
        gate(backend.array(np.uint64(5)), words[1], *rest)


def test_inputs_are_never_written_to(rng):
    bits = bits_of(rng, 2, 3, 100)
    words = vo.pack_bitstream(bits)
    before = bits.copy(), words.copy()
    vo.vec_not(words, 100), vo.vec_xnor(words, words, 100), vo.vec_mux(words, words, words)
    vo.vec_mac(words, words, "xnor", 100), vo.stream_popcount(words), vo.unpack_bitstream(words, 100)
    vo.pack_bitstream(bits), vo.check_tail(words, 100)
    np.testing.assert_array_equal(bits, before[0])
    np.testing.assert_array_equal(words, before[1])


def test_big_endian_words(rng):
    bits = bits_of(rng, 3, 200)
    words = vo.pack_bitstream(bits).astype(">u8")
    assert vo.vec_popcount(words) == bits.sum()
    assert vo.vec_and(words, words).dtype == np.uint64
    np.testing.assert_array_equal(vo.unpack_bitstream(words, 200), bits)
    np.testing.assert_array_equal(vo.vec_xnor(words, words, 200), vo.pack_bitstream(np.ones_like(bits)))
    np.testing.assert_array_equal(vo.vec_mac(words[None], words), [bits.sum()])


# counting


@pytest.mark.parametrize("n_words", [0, 1, 8, 33])
def test_popcounts(backend, rng, n_words):
    words = rng.integers(0, 2**64, (3, 5, n_words), dtype=np.uint64)
    each = [[reference.ones(row) for row in plane] for plane in words]
    given = backend.array(words)
    a_word = vo.popcount(given)
    assert a_word.dtype == np.uint8
    assert backend.host(a_word).tolist() == [[[int(w).bit_count() for w in r] for r in p] for p in words]
    a_stream = vo.stream_popcount(given)
    assert a_stream.dtype == np.int64
    assert a_stream.shape == (3, 5)
    assert backend.host(a_stream).tolist() == each
    assert backend.host(vo.vec_popcount(given)) == sum(map(sum, each))


def test_streams_of_any_length_are_counted(rng):
    for n_words in range(100):
        words = rng.integers(0, 2**64, (3, n_words), dtype=np.uint64)
        assert vo.stream_popcount(words).tolist() == [reference.ones(row) for row in words]


def test_total_popcount_is_an_int():
    assert type(vo.vec_popcount(np.array([255, 1], np.uint64))) is int


@pytest.mark.parametrize("count", [vo.popcount, vo.stream_popcount, vo.vec_popcount], ids=lambda f: f.__name__)
def test_popcount_names_a_wrong_dtype(backend, count):
    with pytest.raises(BitstreamError, match="uint64, not uint8"):
        count(backend.array(np.array([255], np.uint8)))


# multiply-accumulate


@pytest.mark.parametrize("gate", ["and", "xnor"])
@pytest.mark.parametrize(
    ("batch", "neurons", "inputs", "length"),
    [
        (1, 1, 1, 1),
        (6, 9, 1, 130),
        (9, 2, 3, 513),
        (3, 0, 2, 9),
        (0, 3, 2, 9),
    ],
)
def test_mac(backend, rng, gate, batch, neurons, inputs, length):
    w, x = bits_of(rng, neurons, inputs, length), bits_of(rng, batch, inputs, length)
    expected = np.array(reference.mac(w, x, gate, length), np.int64).reshape(batch, neurons)
    weights, batched = (backend.array(vo.pack_bitstream(a)) for a in (w, x))
    counts = vo.vec_mac(weights, batched, gate, length)
    assert counts.dtype == np.int64
    assert counts.shape == (batch, neurons)
    np.testing.assert_array_equal(backend.host(counts), expected)
    if batch:
        one = vo.vec_mac(weights, batched[0], gate=gate, length=length)
        assert one.shape == (neurons,)
        np.testing.assert_array_equal(backend.host(one), expected[0])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (r, w)
        for r in (1, 4, 7, 13, 130)
        for w in (1, 3, 509, 511, 512, 513, 519, 520, 521, 1030, 8199)
        if r * w < 10**6
    ],
)
def test_mac_at_the_edges_of_its_tiles_and_blocks(rng, rows, words):
    w = rng.integers(0, 2**64, (rows, 1, words), dtype=np.uint64)
    x = rng.integers(0, 2**64, (rows + 1, 1, words), dtype=np.uint64)
    both = np.bitwise_count(x[:, None] & w[None]).sum(axis=(2, 3), dtype=np.int64)
    np.testing.assert_array_equal(vo.vec_mac(w, x), both)
    differ = np.bitwise_count(x[:, None] ^ w[None]).sum(axis=(2, 3), dtype=np.int64)
    np.testing.assert_array_equal(vo.vec_mac(w, x, "xnor", 64 * words), 64 * words - differ)


def test_counts_are_signed(rng):
    w, x = (vo.pack_bitstream(bits_of(rng, 4, 3, 64)) for _ in range(2))
    assert (vo.vec_mac(w, x) - vo.vec_mac(w, ~x)).min() < 0


LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every second row": lambda a: np.repeat(a, 2, 0)[::2],
    "every third word": lambda a: np.repeat(a, 3, 2)[..., ::3],
    "backwards": lambda a: a[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
    "inputs last": lambda a: a.transpose(0, 2, 1).copy().transpose(0, 2, 1),
    "unaligned": lambda a: np.frombuffer(b"xyz" + a.tobytes(), a.dtype, offset=3).reshape(a.shape),
    "big-endian": lambda a: a.astype(">u8"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("batch", "neurons"), [(1, 6), (14, 5), (13, 37)])
def test_mac_of_any_memory_layout(rng, layout, batch, neurons):
    w = rng.integers(0, 2**64, (neurons, 71, 9), dtype=np.uint64)
    x = rng.integers(0, 2**64, (batch, 71, 9), dtype=np.uint64)
    expected = np.bitwise_count(x[:, None] & w).sum(axis=(2, 3), dtype=np.int64)
    changed = LAYOUTS[layout]
    np.testing.assert_array_equal(vo.vec_mac(changed(w), changed(x)), expected)
    np.testing.assert_array_equal(vo.vec_mac(changed(w), x), expected)
    np.testing.assert_array_equal(vo.vec_mac(w, changed(x)), expected)


def test_mac_of_one_input_repeated(rng):
    w, x = (rng.integers(0, 2**64, (n, 6, 10), dtype=np.uint64) for n in (20, 1))
    repeated = np.broadcast_to(x, (30, 6, 10))
    np.testing.assert_array_equal(vo.vec_mac(w, repeated), np.repeat(vo.vec_mac(w, x), 30, 0))


@pytest.mark.parametrize("n_words", [1, 2, 24, 33])
def test_popcounts_of_arrays_larger_than_a_cache(rng, n_words):
    words = rng.integers(0, 2**64, (2**18 // n_words, n_words), dtype=np.uint64)
    ones = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    np.testing.assert_array_equal(vo.stream_popcount(words), ones)
    assert vo.vec_popcount(words) == ones.sum()


@pytest.mark.parametrize(
    ("weights", "inputs"),
    [((1, 4, 1), (2, 1)), ((1, 4, 1), (4, 2)), ((4, 1), (4, 1)), ((1, 4, 1), (4,)), ((1, 4, 1), (2, 3, 4, 1))],
)
def test_mac_refuses_shapes_that_do_not_fit(backend, weights, inputs):
    weights, inputs = (backend.array(np.zeros(s, np.uint64)) for s in (weights, inputs))
    with pytest.raises(BitstreamError, match=r"n_neurons, n_inputs, n_words"):
        vo.vec_mac(weights, inputs)


def test_mac_refuses_other_gates_lengths_and_dirty_padding(backend):
    clean = backend.array(np.zeros((2, 3, 1), np.uint64))
    dirty = backend.array(np.full((2, 3, 1), 2**63, np.uint64))
    with pytest.raises(BitstreamError, match="'or'"):
        vo.vec_mac(clean, clean, gate="or")
    with pytest.raises(BitstreamError, match="counts padding"):
        vo.vec_mac(clean, clean, gate="xnor")
    with pytest.raises(BitstreamError, match="hold 1 to 64 bits"):
        vo.vec_mac(clean, clean, gate="xnor", length=65)
    for gate in ("and", "xnor"):
        with pytest.raises(BitstreamError, match="padding"):
            backend.host(vo.vec_mac(clean, dirty, gate, 63))


def test_unknown_arrays_are_named():
    class Tensor:
        dtype = np.dtype(np.uint64)
        shape = (1,)

    for func, name in ((vo.vec_popcount, "packed words"), (vo.pack_bitstream, "bits")):
        with pytest.raises(UnsupportedArrayError, match=f"{name}: scdask has no kernels for .*Tensor"):
            func(Tensor())
    with pytest.raises(UnsupportedArrayError, match="MaskedArray"):
        vo.pack_bitstream(np.ma.masked_array([0, 1], mask=[True, False]))


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_a_length_may_be_any_integer(backend, rng, kind):
    bits = bits_of(rng, 2, 100)
    words = backend.array(vo.pack_bitstream(bits))
    np.testing.assert_array_equal(backend.host(vo.vec_not(words, kind(100))), vo.pack_bitstream(1 - bits))
    np.testing.assert_array_equal(backend.host(vo.unpack_bitstream(words, kind(100))), bits)
    counts = backend.host(vo.vec_mac(words[None], words, "xnor", kind(100)))
    assert counts.dtype == np.int64
    assert counts.tolist() == [200]
    dirty = backend.array(np.full((1, 2), 2**64 - 1, np.uint64))
    with pytest.raises(BitstreamError, match="padding"):
        backend.host(vo.check_tail(dirty, kind(100)))


def test_original_shape_is_made_of_integers():
    words = vo.pack_bitstream([1] * 64)
    assert vo.unpack_bitstream(words, 5, 64).shape == (64,)
    for shape in ((64.0,), "64", (None,)):
        with pytest.raises(BitstreamError, match="original_shape"):
            vo.unpack_bitstream(words, 64, shape)
    with pytest.raises(BitstreamError):
        vo.unpack_bitstream(np.zeros((1, 0), np.uint64), 0, (2**32, 2**32))


def test_encode_words_checks_what_it_is_given():
    from scdask import Bernoulli, Sobol

    for options, message in [
        ((Sobol(1), 0), "from 1 to 4294967296, not 0"),
        ((Sobol(1), 2**32 + 1), "4294967296"),
        ((Bernoulli(), 2**53 + 1), "9007199254740992"),
        ((Bernoulli(), 64, "x"), "'x'"),
        ((None, 64), "not None"),
        ((Sobol, 64), "class"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            vo.encode_words([0.5], *options)
        with pytest.raises(BitstreamError, match=message):
            vo.encode_words(da.ones(3, chunks=1), *options)

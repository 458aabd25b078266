"""Measures of correlation, and the circuits that change it, against the definitions and loops over bits."""

from fractions import Fraction
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, VanDerCorput, vector_ops
from scdask.correlation import (
    decorrelate,
    delay,
    desynchronize,
    desynchronizer,
    measures,
    regenerate,
    shuffle_buffer,
    synchronize,
    synchronizer,
)


def stream(*bits, backend=None):
    words = vector_ops.pack_bitstream([[int(c) for c in text] for text in bits])
    return Bitstream(backend.array(words) if backend else words, len(bits[0]))


def by_definition(x, y):
    """Alaghi and Hayes's formula, on lists of bits, in fractions."""
    n = len(x)
    pairs = list(zip(x, y, strict=True))
    a, b, c, d = (sum(pair == kind for pair in pairs) for kind in ((1, 1), (1, 0), (0, 1), (0, 0)))
    if len(set(x)) == 1 or len(set(y)) == 1:
        return Fraction(0)
    if a * d > b * c:
        return Fraction(a * d - b * c, n * min(a + b, a + c) - (a + b) * (a + c))
    return Fraction(a * d - b * c, (a + b) * (a + c) - n * max(a - d, 0))


def zce_by_definition(x, y):
    """Hsiao et al.'s formula, d (1 - |d0 / d|), on lists of bits, in fractions."""
    n = len(x)
    product = Fraction(sum(x) * sum(y), n * n)
    d = Fraction(sum(a & b for a, b in zip(x, y, strict=True)), n) - product
    d0 = Fraction((product * n + Fraction(1, 2)).__floor__(), n) - product
    return d * (1 - abs(d0 / d)) if d else d


PUBLISHED = [
    ("11110000", "11000000", 1),
    ("11110000", "00000111", -1),
    ("11110000", "10101010", 0),
    ("11001110", "11100010", 1 / 3),
    ("11111111", "11100010", 0),
    ("00000000", "11100010", 0),
]


@pytest.mark.parametrize(("a", "b", "expected"), PUBLISHED)
def test_published_correlations(backend, a, b, expected):
    result = sc.scc(stream(a, backend=backend), stream(b, backend=backend))
    assert result.dtype == np.float64
    np.testing.assert_array_equal(backend.host(result), [expected])
    assert not np.signbit(backend.host(result)).any() or expected < 0


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(*2 * [st.lists(st.integers(0, 1), min_size=n, max_size=n)])))
def test_scc_is_that_of_the_definition(bits):
    a, b = (Bitstream(vector_ops.pack_bitstream(row), len(row)) for row in bits)
    assert float(sc.scc(a, b)) == float(sc.scc(b, a)) == float(by_definition(*bits))
    assert float(sc.zce(a, b)) == float(sc.zce(b, a)) == float(zce_by_definition(*bits))


# By hand: 4 and 2 ones of 8 make one of AND; 3 and 3 make 1.125, so that one is the nearest, and three are 1.875 too
# many, of which .125 must be; 4 and 3 make 1.5, so that one and two are the nearest, and none and three one off.
@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("11110000", "11000000", 1 / 8),
        ("11110000", "10001000", 0),
        ("11110000", "00001100", -1 / 8),
        ("11100000", "10011000", 0),
        ("11100000", "11100000", 1.75 / 8),
        ("11110000", "11001000", 0),
        ("11110000", "10001100", 0),
        ("11110000", "11100000", 1 / 8),
        ("11110000", "00001110", -1 / 8),
        ("11111111", "11100010", 0),
    ],
)
def test_zero_correlation_errors_by_hand(backend, a, b, expected):
    result = backend.host(sc.zce(stream(a, backend=backend), stream(b, backend=backend)))
    assert result.dtype == np.float64
    assert result.tolist() == [expected]
    assert not np.signbit(result).any() or expected < 0


def test_shapes_broadcast(backend):
    bits = np.random.default_rng(1).integers(0, 2, (3, 4, 130))
    a = Bitstream(backend.array(vector_ops.pack_bitstream(bits)), 130)
    b = Bitstream(backend.array(vector_ops.pack_bitstream(bits[0])), 130, "bipolar")
    expected = [[by_definition(x.tolist(), y.tolist()) for x, y in zip(rows, bits[0], strict=True)] for rows in bits]
    np.testing.assert_array_equal(backend.host(sc.scc(a, b)), np.array(expected, float))
    assert sc.zce(a, b).shape == (3, 4)


def test_a_matrix_is_every_pair(backend):
    texts = ["1111000010", "1100000010", "0000011101", "1010101011", "0000000000", "1111111111"]
    matrix = sc.scc_matrix(stream(*texts, backend=backend))
    expected = [[float(by_definition([*map(int, a)], [*map(int, b)])) for b in texts] for a in texts]
    np.testing.assert_array_equal(backend.host(matrix), expected)
    assert np.diag(expected).tolist() == [1, 1, 1, 1, 0, 0]


def test_equal_generators_correlate_and_others_do_not():
    p = np.array([0.75, 0.5, 0.3])
    shared, other, random = (sc.encode(p, 4096, sng=sng) for sng in (Sobol(1), Sobol(2), Bernoulli(3)))
    assert (sc.scc(shared, shared[::-1]) == 1).all()
    assert (sc.scc(shared, ~shared[::-1]) == -1).all()
    assert np.abs(sc.scc(shared, other)).max() < 0.02
    assert np.abs(sc.scc(shared, random)).max() < 0.1


def test_it_does_not_depend_on_chunks_and_is_lazy():
    p = np.linspace(0, 1, 7)
    eager = sc.encode(p, 500, sng=Sobol(1))
    for chunks in ((2, 3), (7, 1), (1, -1)):
        lazy = sc.encode(p, 500, sng=Sobol(1), chunks=chunks)
        with dask.config.set(scheduler=_no_computing):
            pairs, matrix = sc.scc(lazy, eager), sc.scc_matrix(lazy)
        assert isinstance(pairs, da.Array)
        assert isinstance(matrix, da.Array)
        np.testing.assert_array_equal(pairs.compute(), sc.scc(eager, eager))
        np.testing.assert_array_equal(matrix.compute(), sc.scc_matrix(eager))


def _no_computing(*args, **kwargs):
    raise AssertionError("computed")


@pytest.mark.component("jax")
def test_scc_under_jit():
    import jax

    from scdask.jax_backend import to_jax

    a, b = to_jax(stream("11001110")), to_jax(stream("11100010"))
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(sc.scc)(a, b), [1 / 3])


@given(st.data())
def test_counts_of_the_longest_streams(data):
    n = measures.LONGEST
    x, y = (data.draw(st.integers(0, n)) for _ in "xy")
    both = data.draw(st.integers(max(0, x + y - n), min(x, y)))
    counts = [np.array([count]) for count in (both, x, y)]
    numerator = both * n - x * y
    worst = n * min(x, y) - x * y if numerator > 0 else x * y - n * max(x + y - n, 0)
    expected = float(Fraction(numerator, worst)) if numerator else 0.0
    (found,) = measures._from_counts(*counts, length=n)
    assert found == pytest.approx(expected, rel=1e-15, abs=0)
    off = min(x * y % n, -x * y % n)
    expected = (abs(numerator) - off) / n**2
    (found,) = measures._error_of_counts(*counts, length=n)
    assert found == pytest.approx(expected if numerator > 0 else -expected, rel=1e-15, abs=0)


def test_what_does_not_correlate():
    a = sc.encode([0.5], 100)
    with pytest.raises(BitstreamError, match="length 100 and 101"):
        sc.scc(a, sc.encode([0.5], 101))
    with pytest.raises(BitstreamError, match="ndarray"):
        sc.scc(a, a.words)
    with pytest.raises(BitstreamError, match="broadcast"):
        sc.scc(sc.encode([0.5] * 2, 100), sc.encode([0.5] * 3, 100))
    for wrong, message in [(a[0], r"not \(\)"), (sc.encode([[0.5]], 100), r"not \(1, 1\)"), (a.words, "ndarray")]:
        with pytest.raises(BitstreamError, match=message):
            sc.scc_matrix(wrong)
    with pytest.raises(BitstreamError, match="4294967296 bits"):
        measures._measure(measures._from_counts, *3 * [np.array([1])], 2**32 + 1)


def test_no_streams():
    none = sc.encode(np.zeros((0,)), 100)
    assert sc.scc(none, none).shape == (0,)
    assert sc.scc_matrix(none).shape == (0, 0)


# Circuits


def bits_of(stream):
    return stream.unpack().tolist()


def synchronized(x, y, depth):
    """Ones that come alone wait in a queue of their stream, for one that comes alone in the other."""
    queues, out = ([], []), ([], [])
    for pair in zip(x, y, strict=True):
        written = pair
        if sum(pair) == 1:
            mine = pair.index(1)
            if queues[1 - mine]:
                queues[1 - mine].pop()
                written = (1, 1)
            elif len(queues[mine]) < depth:
                queues[mine].append(1)
                written = (0, 0)
        for stream, bit in zip(out, written, strict=True):
            stream.append(bit)
    return out


def desynchronized(x, y, depth):
    """Of ones that come together one waits until none comes; the streams take turns."""
    turn, waiting, out = 0, 0, ([], [])
    for pair in zip(x, y, strict=True):
        written = list(pair)
        if sum(pair) == 2 and waiting < depth:
            waiting += 1
            written[turn] = 0
        elif sum(pair) == 0 and waiting:
            waiting -= 1
            written[turn] = 1
            turn = 1 - turn if waiting == 0 else turn
        for stream, bit in zip(out, written, strict=True):
            stream.append(bit)
    return out


@settings(max_examples=40)
@given(st.integers(1, 200), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_synchronizers_are_those_of_a_loop(n, depth, seed):
    x, y = bits = np.random.default_rng(seed).integers(0, 2, (2, n))
    a, b = (Bitstream(vector_ops.pack_bitstream(row), n) for row in bits)
    for circuit, loop in ((synchronize, synchronized), (desynchronize, desynchronized)):
        found = tuple(map(bits_of, circuit(a, b, depth)))
        assert found == tuple(loop(x.tolist(), y.tolist(), depth))
        for before, after in zip(bits.tolist(), found, strict=True):
            assert 0 <= sum(before) - sum(after) <= depth


def test_synchronizers_correlate_as_published():
    """Bernoulli .6 and .45, N = 4096: SCC -.03, and .847, .962, 1.000 after depths 1, 2, 4, of one pair of streams."""
    seeds = range(40)
    a, b = (
        sc.stack([sc.encode(p, 4096, sng=Bernoulli(2 * seed + i)) for seed in seeds]) for i, p in ((0, 0.6), (1, 0.45))
    )
    for depth, expected in {1: 0.847, 2: 0.962, 4: 1.0}.items():
        found = sc.scc(*synchronize(a, b, depth))
        assert abs(found.mean() - expected) < 0.01
        assert abs(found - expected).max() < 0.06
    opposed = [sc.scc(*desynchronize(a, b, depth)).mean() for depth in (1, 2, 4, 16)]
    assert opposed == sorted(opposed, reverse=True)
    assert opposed[-1] < -0.98


def test_what_a_synchronizer_of_the_depth_one_does():
    machine = synchronizer(1)
    assert (machine.states, machine.inputs, machine.outputs, machine.start) == (3, 2, 2, 1)
    assert machine.next_state == ((0, 1, 0, 0), (1, 2, 0, 1), (2, 2, 1, 2))
    assert machine is synchronizer(1)
    assert desynchronizer(1).states == 4
    assert synchronizer(127).states == 255
    assert desynchronizer(127).states == 256


def test_the_maximum_and_the_minimum_of_streams_that_do_not_correlate():
    p, q = np.meshgrid(*2 * [np.arange(1, 16) / 16])
    a, b = synchronize(sc.encode(p, 1024, sng=Sobol(1)), sc.encode(q, 1024, sng=Sobol(2)), depth=4)
    assert abs((a & b).decode() - np.minimum(p, q)).max() < 0.01
    assert abs((a | b).decode() - np.maximum(p, q)).max() < 0.01


def shuffled(bits, depth, seed, shared, number):
    """A buffer of bits: at a place that random bits choose, one of each use, a bit leaves and the next one enters."""
    buffer, out = [i % 2 for i in range(depth)], []
    for t, bit in enumerate(bits):
        draws = [reference.bernoulli_number(seed, 2 * (16 + k) + shared, number, t) for k in range(8) if 2**k < depth]
        at = sum((draw < Fraction(1, 2)) << k for k, draw in enumerate(draws))
        out.append(buffer[at])
        buffer[at] = bit
    return out


@pytest.mark.parametrize(("depth", "shared"), [(2, False), (4, True), (16, False), (256, False)])
def test_a_shuffle_buffer_is_that_of_a_loop(depth, shared):
    x = sc.encode([[0.3, 0.9, 0.5]], 150, sng=Bernoulli(5), polarity="unipolar")
    found = decorrelate(x, depth, seed=2**63 + 5, shared=shared)
    expected = [shuffled(row, depth, 2**63 + 5, shared, 0 if shared else i) for i, row in enumerate(bits_of(x[0]))]
    assert bits_of(found[0]) == expected
    assert abs(found.popcount() - x.popcount()).max() <= depth // 2


def test_the_machine_of_a_shuffle_buffer():
    assert [(m.states, m.inputs, m.outputs, m.start) for m in map(shuffle_buffer, (2, 4))] == [
        (4, 2, 1, 2),
        (16, 3, 1, 10),
    ]


def test_shuffled_streams_do_not_correlate():
    a, b = (sc.encode(np.full(50, p), 4096, sng=Sobol(1)) for p in (0.6, 0.45))
    for depth, one, both in ((2, -0.15, 0.22), (4, -0.09, 0.05), (8, -0.05, 0.02), (16, -0.02, 0.0)):
        x = decorrelate(a, depth, seed=1)
        assert abs(sc.scc(x, b).mean() - one) < 0.02
        assert abs(sc.scc(x, decorrelate(b, depth, seed=2)).mean() - both) < 0.02
        assert sc.scc(x[::2], x[1::2]).mean() < 0.3
        same = decorrelate(a, depth, seed=1, shared=True)
        assert (sc.scc(same[::2], same[1::2]) == 1).all()
    # The seed of the streams themselves is as good as any other.
    random = sc.encode(np.full(50, 0.5), 4096, sng=Bernoulli(7))
    assert abs(sc.scc(decorrelate(random, 4, seed=7), random).mean()) < 0.01


@given(st.integers(1, 300), st.integers(0, 700), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_delayed_stream_is_that_of_numpy(n, bits, rotate, seed):
    values = np.random.default_rng(seed).integers(0, 2, (2, n), dtype=np.uint8)
    found = delay(Bitstream(vector_ops.pack_bitstream(values), n, "bipolar"), bits, rotate=rotate)
    expected = np.roll(values, bits, axis=1) if rotate else np.pad(values, [(0, 0), (bits, 0)])[:, :n]
    np.testing.assert_array_equal(found.unpack(), expected)
    assert found.polarity == "bipolar"


def test_the_square_of_random_bits_and_of_even_ones():
    x = sc.encode(np.arange(17) / 16, 2**14, sng=Bernoulli(3))
    square = (np.arange(17) / 16) ** 2
    assert abs((x & delay(x, 1)).decode() - square).max() < 0.02
    even = sc.encode(0.5, 2**14, sng=VanDerCorput())
    assert (even & delay(even, 1)).popcount() == 0


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_what_is_encoded_again_has_as_many_ones(polarity):
    for n in (100, 256):
        x = sc.encode(np.linspace(0, 1, n), n, sng=Bernoulli(3), polarity=polarity)
        y = regenerate(x, Sobol(2))
        np.testing.assert_array_equal(y.popcount(), x.popcount())
        np.testing.assert_array_equal(y.words, sc.encode(x.popcount() / n, n, sng=Sobol(2)).words)
        assert (y.sng, y.polarity) == (Sobol(2), polarity)


CIRCUITS = {
    "synchronize": lambda a, b: synchronize(a, b, 3),
    "desynchronize": lambda a, b: desynchronize(a, b[0], 2),
    "decorrelate": lambda a, b: (decorrelate(a, 4, 9),),
    "decorrelate shared": lambda a, b: (decorrelate(a, 2, 9, shared=True), decorrelate(b, 8, 9, shared=True)),
    "delay": lambda a, b: (delay(a, 70), delay(b[1], 0)),
    "rotate": lambda a, b: (delay(a, 70, rotate=True), delay(b, 3 * N - 10, rotate=True)),
    "regenerate": lambda a, b: (regenerate(a, Sobol(2)), regenerate(b, Sobol(1))),
}
N = 270


def pair():
    p = np.linspace(0, 1, 6).reshape(2, 3)
    return sc.encode(p, N, sng=Bernoulli(1)), sc.encode(1 - p, N, sng=Bernoulli(2), polarity="bipolar")


def test_every_library_has_the_same_circuits(backend):
    a, b = pair()
    words = [x.map_words(backend.array) for x in (a, b)]
    for name, circuit in CIRCUITS.items():
        if backend.jax and name in ("desynchronize", "decorrelate", "delay"):
            continue  # XLA takes long to compile each, Bernoulli streams above all; the others have the same parts.
        found, expected = circuit(*words), circuit(a, b)
        for x, y in zip(found, expected, strict=True):
            assert (x.length, x.polarity, x.shape) == (y.length, y.polarity, y.shape)
            np.testing.assert_array_equal(backend.host(x.words), y.words, err_msg=name)
    np.testing.assert_array_equal(a.words, pair()[0].words)


@settings(max_examples=15)
@given(st.data())
def test_circuits_do_not_depend_on_chunks_and_are_lazy(data):
    a, b = pair()
    chunks = [data.draw(st.tuples(*(st.integers(1, n) for n in a.words.shape))) for _ in "ab"]
    lazy = [x.rechunk(of) for x, of in zip((a, b), chunks, strict=True)]
    names = data.draw(st.lists(st.sampled_from(sorted(CIRCUITS)), min_size=1, max_size=2, unique=True))
    for name in names:
        with dask.config.set(scheduler=_no_computing):
            found = CIRCUITS[name](*lazy)
        for x, y in zip(found, CIRCUITS[name](a, b), strict=True):
            np.testing.assert_array_equal(x.compute().words, y.words)


def test_circuits_of_one_stream_keep_its_chunks():
    x = pair()[0].rechunk((1, 2, 2))
    kept = decorrelate(x, 4), decorrelate(x, 4, shared=True), delay(x, 5), delay(x, 5, rotate=True)
    for y in (*kept, regenerate(x, Sobol(1)), regenerate(x, Bernoulli(1))):
        assert y.chunks == x.chunks


def test_circuits_that_there_are_not():
    a, b = pair()
    for circuit, polarity in product((synchronize, desynchronize), ("unipolar", "bipolar")):
        x, y = circuit(a, Bitstream(b.words, N, polarity))
        assert (x.polarity, y.polarity) == ("unipolar", polarity)
        for depth in (0, 128, 1.5, True):
            with pytest.raises(BitstreamError, match=r"depth of a (de)?synchronizer is an integer from 1 to 127"):
                circuit(a, b, depth)
        with pytest.raises(BitstreamError, match="270 and 271"):
            circuit(a, sc.encode(0.5, 271))
    with pytest.raises(BitstreamError, match="of 2 or 4 bits, not 8"):
        shuffle_buffer(8)
    for depth in (0, 1, 3, 512, "4", 4.0, True):
        with pytest.raises(BitstreamError, match="power of 2 from 2 to 256"):
            decorrelate(a, depth)
    with pytest.raises(BitstreamError, match="seed"):
        decorrelate(a, 4, -1)
    with pytest.raises(BitstreamError, match="shared"):
        decorrelate(a, 4, shared="no")
    for bits in (-1, 0.5, None):
        with pytest.raises(BitstreamError, match="a delay is an integer from 0 on, not"):
            delay(a, bits)
    with pytest.raises(BitstreamError, match="generator"):
        regenerate(a, 3)
    for circuit in (lambda x: decorrelate(x, 4), lambda x: delay(x, 4), lambda x: regenerate(x, Sobol(1))):
        with pytest.raises(BitstreamError, match="ndarray"):
            circuit(a.words)
    unknown = a.rechunk((1, 3, 2))[da.from_array(np.array([True, False]), chunks=1)]
    for circuit in (lambda x: decorrelate(x, 4), lambda x: regenerate(x, Sobol(1))):
        with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
            circuit(unknown)
    assert delay(unknown, 4).compute().shape == (1, 3)


def test_circuits_of_no_streams():
    none = sc.encode(np.zeros((0, 2)), 100)
    for x in (*synchronize(none, none), decorrelate(none), delay(none, 3), delay(none, 3, rotate=True)):
        assert x.shape == (0, 2)
    assert regenerate(none, Sobol(1)).shape == (0, 2)

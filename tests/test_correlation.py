from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, vector_ops
from scdask.correlation import measures


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


def test_shapes_broadcast(backend):
    bits = np.random.default_rng(1).integers(0, 2, (3, 4, 130))
    a = Bitstream(backend.array(vector_ops.pack_bitstream(bits)), 130)
    b = Bitstream(backend.array(vector_ops.pack_bitstream(bits[0])), 130, "bipolar")
    expected = [[by_definition(x.tolist(), y.tolist()) for x, y in zip(rows, bits[0], strict=True)] for rows in bits]
    np.testing.assert_array_equal(backend.host(sc.scc(a, b)), np.array(expected, float))


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

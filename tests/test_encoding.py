import json
from fractions import Fraction
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import scdask as sc
from scdask import LFSR, Bernoulli, BitstreamError, Halton, Sobol, Thermometer, VanDerCorput, vector_ops
from scdask.core import contract
from scdask.core.words import Part

SHARED = [
    Sobol(1),
    Sobol(3),
    Halton(3),
    Halton(7),
    VanDerCorput(),
    Thermometer(),
    LFSR(),
    LFSR(taps=(16, 5, 3, 2), seed=0x1D0F, shift="right"),
    LFSR(width=8, taps=(8, 6, 5, 4), seed=1),
    Bernoulli(3, shared=True),
    Sobol(3, rounding="up"),
    Sobol(3, seed=1),
]
ALL = [*SHARED, Bernoulli(0), Bernoulli(2**64 - 1), LFSR(10, spread=True)]
probability = st.floats(0, 1) | st.sampled_from([0.0, 1.0, 0.5, 2.0**-11, 2.0**-60, 5e-324, 1 - 2.0**-53])


# encoding


@pytest.mark.parametrize("length", [1, 10, 64, 100, 1000, 4097, 9000])
@pytest.mark.parametrize("sng", SHARED, ids=repr)
def test_shared_sequences_are_compared_bit_by_bit(sng, length):
    numbers, p = numbers_and_values(sng, length)
    np.testing.assert_array_equal(sc.encode(p, length, sng=sng).unpack(), numbers < p[:, None])


def test_the_last_two_numbers_of_a_sequence_may_lie_half_apart():
    sng, length = Sobol(47), 194
    numbers = sng.numbers(length, 192, length)
    assert abs(numbers[1] - numbers[0]) == pytest.approx(0.5)
    p = np.nextafter(numbers, 1)
    found = contract.encode_part(p, sng, length, "unipolar", Part((slice(0, 2),), (2,), 3, 4))
    np.testing.assert_array_equal(vector_ops.unpack_bitstream(found, 2), numbers < p[:, None])


@pytest.mark.parametrize(("sng", "length"), [(Sobol(3), 1), (Sobol(3), 9000), (SHARED[8], 1000)], ids=repr)
def test_every_backend_compares_shared_sequences(backend, sng, length):
    numbers, p = numbers_and_values(sng, length)
    bits = sc.encode(backend.array(p), length, sng=sng).unpack()
    np.testing.assert_array_equal(backend.host(bits), numbers < p[:, None])


def numbers_and_values(sng, length):
    """The numbers of a sequence, and values on both sides of some of them."""
    numbers = sng.numbers(length, 0, length)
    return numbers, np.concatenate(
        [[0, 1, 0.5, 1 / 3, 1e-300, 5e-324, -0.0], numbers[:20], np.nextafter(numbers[:20], 1)]
    )


@given(probability, st.integers(0, 2**64 - 1), st.integers(1, 130))
def test_bernoulli_is_exact_to_the_last_bit(p, seed, length):
    words = sc.encode([0.3, p], length, sng=Bernoulli(seed)).words[1]
    places = sorted({0, length // 2, length - 1})
    expected = [reference.bernoulli_number(seed, False, 1, t) < Fraction(p) for t in places]
    assert [bool(int(words[t // 64]) >> (t % 64) & 1) for t in places] == expected


@pytest.mark.parametrize("length", [1, 64, 100, 600, 1024, 20_000])
def test_a_bernoulli_stream_does_not_depend_on_the_others(length):
    p = np.array([0.3, 0, 1, 0.5, 2.0**-70, 1 / 3, 1e-300, 1 - 2.0**-53, 3 / 256, 2.0**-12, 5e-324] * 30)
    words = (0, -(-length // 64))
    together = contract.encode_part(p, Bernoulli(3), length, "unipolar", Part((slice(0, p.size),), p.shape, *words))
    for i in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 150, 157, 329):
        part = Part((slice(i, i + 1),), p.shape, *words)
        alone = contract.encode_part(p[[i]], Bernoulli(3), length, "unipolar", part)
        np.testing.assert_array_equal(together[i], alone[0])


def test_bernoulli_compares_small_probabilities_to_the_last_of_64_digits():
    length, sng = 40_000, Bernoulli(11)
    small = np.flatnonzero(sc.encode([2.0**-12], length, sng=sng).unpack()[0])
    assert len(small) > 0
    for t in small:
        number = reference.bernoulli_number(11, False, 0, int(t))
        below = float(number)
        if Fraction(below) > number:
            below = np.nextafter(below, 0)
        bits = [sc.encode([p], length, sng=sng).unpack()[0, t] for p in (below, np.nextafter(below, 1))]
        assert bits == [0, 1]


def test_a_shared_bernoulli_sequence_is_the_stream_of_number_0():
    numbers = Bernoulli(9, shared=True).numbers(200, 0, 200)
    for t in (0, 63, 64, 199):
        exact = reference.bernoulli_number(9, True, 0, t)
        assert Fraction(numbers[t]) <= exact < Fraction(np.nextafter(numbers[t], 2))


@given(st.lists(probability, min_size=1, max_size=5), st.sampled_from(ALL), st.integers(1, 300))
def test_0_gives_no_ones_and_1_only_ones(p, sng, length):
    stream = sc.encode([0.0, 1.0, *p], length, sng=sng)
    counts = stream.popcount()
    assert counts[0] == 0
    assert counts[1] == length
    assert sc.vector_ops.check_tail(stream.words, length) is not None
    np.testing.assert_allclose(stream.decode(), counts / length)


@pytest.mark.parametrize("sng", ALL, ids=repr)
def test_p_may_be_any_real_type_and_layout(sng):
    p = np.arange(12).reshape(3, 4) / 16
    expected = sc.encode(p, 100, sng=sng).words
    frozen = p.copy()
    frozen.flags.writeable = False
    for same in (p.tolist(), p.astype("f4"), p.astype(">f8"), np.asfortranarray(p), p[:, ::-1][:, ::-1], frozen):
        np.testing.assert_array_equal(sc.encode(same, 100, sng=sng).words, expected)
    assert sc.encode(True, 70, sng=sng).popcount() == 70
    assert sc.encode(np.float32(0.5), 70, sng=sng).shape == ()
    assert sc.encode(np.zeros((0, 3)), 70, sng=sng).words.shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("p", "length", "options", "message"),
    [
        ([0.5, 1.5], 8, {}, r"0 to 1, but there is 1.5 at \(1,\)"),
        (-0.1, 8, {}, r"0 to 1, but there is -0.1"),
        (float("nan"), 8, {}, "there is nan"),
        (-1.5, 8, {"polarity": "bipolar"}, "-1 to 1, but there is -1.5"),
        (0.5, 0, {}, "length"),
        (0.5, -5, {}, "length"),
        (0.5, 8.0, {}, "length"),
        (0.5, True, {}, "length"),
        (0.5, 8, {"polarity": "ternary"}, "'ternary'"),
        (0.5, 8, {"sng": 3}, "not 3"),
        ("a", 8, {}, "<U1"),
        (1j, 8, {}, "complex128"),
        (None, 8, {}, "object"),
    ],
)
def test_encode_refuses(p, length, options, message):
    with pytest.raises(BitstreamError, match=message):
        sc.encode(p, length, **options)


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_value_that_rounding_pushed_past_the_range_is_its_end(backend, dtype, polarity):
    low, ulp = {"unipolar": 0, "bipolar": -1}[polarity], np.finfo(dtype).eps
    ends = np.array([low, 1, 0.5, low, 1], dtype)
    past = ends + np.array([-1, 1, 0, -4, 4], dtype) * ulp
    assert past.dtype == dtype
    assert (past != ends).sum() == 4
    for sng in (Sobol(1), Bernoulli(3)):
        found = sc.encode(backend.array(past), 200, polarity=polarity, sng=sng)
        expected = sc.encode(ends, 200, polarity=polarity, sng=sng)
        np.testing.assert_array_equal(backend.host(found.words), expected.words)
    for index in (0, 1):
        wrong = past.copy()
        wrong[index] += 16 * (past - ends)[index]
        with pytest.raises(BitstreamError, match=rf"but there is .* at \({index},\) \(np.clip"):
            backend.host(sc.encode(backend.array(wrong), 200, polarity=polarity, sng=Sobol(1)).words)


def test_a_lazy_value_out_of_range_is_found_with_its_chunk():
    p = np.zeros((4, 6))
    p[3, 4] = np.nan
    lazy = sc.encode(da.from_array(p, chunks=(2, 3)), 100)
    with pytest.raises(BitstreamError, match=r"nan at \(1, 1\) in the chunk \[2:4, 3:6\]"):
        lazy.compute()
    with pytest.raises(BitstreamError, match="complex"):
        sc.encode(da.zeros(3, dtype=complex), 8)
    values = da.from_array(np.arange(4.0) / 4, chunks=2)
    with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
        sc.encode(values[values > 0.2], 8)


# what the streams are for


def scc(a, b):
    """SC correlation (Alaghi and Hayes, ICCD 2013)."""
    both, either = (a & b).mean(), (a.mean(), b.mean())
    excess = both - either[0] * either[1]
    limit = min(either) - either[0] * either[1] if excess > 0 else either[0] * either[1] - max(sum(either) - 1, 0)
    return excess / limit


@pytest.mark.parametrize("sng", ALL, ids=repr)
def test_equal_generators_correlate_fully(sng):
    a, b = (sc.encode(p, 1000, sng=sng) for p in (0.3, 0.6))
    assert scc(a.unpack(), b.unpack()) == pytest.approx(1)
    assert (a & b).popcount() == a.popcount()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Sobol(1), Sobol(2)),
        (VanDerCorput(), Halton(3)),
        (LFSR(), LFSR(taps=(16, 5, 3, 2), seed=0x1D0F)),
        (Bernoulli(1), Bernoulli(2)),
        (Bernoulli(1, shared=True), Bernoulli(1)),
    ],
    ids=repr,
)
def test_different_generators_do_not(a, b):
    x, y = sc.encode(0.4, 4096, sng=a), sc.encode(0.6, 4096, sng=b)
    assert abs(scc(x.unpack(), y.unpack())) < 0.1
    assert (x & y).decode() == pytest.approx(0.24, abs=0.03)


def test_bernoulli_elements_are_independent():
    streams = sc.encode(np.full(200, 0.5), 1024, sng=Bernoulli(4)).unpack()
    between = np.corrcoef(streams)[np.triu_indices(200, 1)]
    assert np.abs(between).max() < 6 / np.sqrt(1024)
    lagged = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in streams]
    assert np.abs(lagged).max() < 6 / np.sqrt(1024)
    assert stats.kstest(between * np.sqrt(1024), "norm").pvalue > 1e-4


@pytest.mark.parametrize("p", [0.5, 0.1, 1 / 3, 0.999, 2.0**-9])
def test_bernoulli_counts_are_binomial(p):
    counts = sc.encode(np.full(4000, p), 256, sng=Bernoulli(7)).popcount()
    values = np.arange(257)
    expected = stats.binom.pmf(values, 256, p) * 4000
    keep = expected > 5
    observed = np.bincount(counts, minlength=257)
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    assert stats.chi2.sf(statistic, keep.sum() - 1) > 1e-4


@pytest.mark.parametrize(("length", "expected"), [(16, 0.0357), (64, 0.0067), (256, 0.00125), (1024, 0)])
def test_rmse_of_sobol_products(length, expected):
    grid = np.arange(33) / 32
    a, b = sc.encode(grid[:, None], length, sng=Sobol(1)), sc.encode(grid, length, sng=Sobol(2))
    rmse = np.sqrt(np.mean(((a & b).decode() - np.outer(grid, grid)) ** 2))
    assert rmse == pytest.approx(expected, rel=0.01, abs=1e-12)


def test_rmse_of_a_bernoulli_stream_falls_with_the_root_of_its_length():
    for length, expected in {64: 0.0625, 256: 0.03125, 1024: 0.01562, 4096: 0.00781}.items():
        values = sc.encode(np.full(3000, 0.5), length, sng=Bernoulli(8)).decode()
        assert np.sqrt(np.mean((values - 0.5) ** 2)) == pytest.approx(expected, rel=0.06)


# the same bits everywhere


@pytest.mark.parametrize("sng", ALL, ids=repr)
def test_the_bits_do_not_depend_on_chunks(sng):
    rng = np.random.default_rng(12)
    p = rng.random((6, 7))
    eager = sc.encode(p, 6000, sng=sng).words
    for _ in range(5):
        cuts = [np.sort(rng.choice(np.arange(1, n), rng.integers(0, min(n, 5)), replace=False)) for n in eager.shape]
        chunks = tuple(tuple(np.diff([0, *cut, n]).tolist()) for cut, n in zip(cuts, eager.shape, strict=True))
        lazy = sc.encode(p, 6000, sng=sng, chunks=chunks)
        assert lazy.chunks == chunks
        np.testing.assert_array_equal(lazy.words.compute(scheduler="threads"), eager)
        from_dask = sc.encode(da.from_array(p, chunks=chunks[:2]), 6000, sng=sng)
        np.testing.assert_array_equal(from_dask.words.compute(scheduler="synchronous"), eager)


def test_the_bits_do_not_depend_on_processes(cluster):
    p = np.random.default_rng(13).random((6, 7))
    lazy = [sc.encode(p, 5000, sng=sng, chunks=((1, 3, 2), (5, 2), (30, 49))).words for sng in ALL]
    for sng, computed in zip(ALL, cluster.gather(cluster.compute(lazy)), strict=True):
        np.testing.assert_array_equal(computed, sc.encode(p, 5000, sng=sng).words)


@pytest.mark.parametrize(
    ("sng", "length", "polarity"),
    [(sng, 200, "bipolar") for sng in ALL]
    + [(sng, n, "unipolar") for sng, n in ((ALL[-1], 200), (Bernoulli(0), 1), (Bernoulli(0), 9000))],
    ids=repr,
)
def test_the_bits_do_not_depend_on_the_backend(backend, sng, length, polarity):
    """Of as many values, and as many bits, as those below, for which XLA compiles the same."""
    p = np.array([[0, 1, 0.5, 2.0**-70, 1 / 3], [1e-300, 1 - 2.0**-53, 3 / 256, 2.0**-12, 5e-324]])
    words = sc.encode(backend.array(p), length, sng=sng, polarity=polarity).words
    np.testing.assert_array_equal(backend.host(words), sc.encode(p, length, sng=sng, polarity=polarity).words)


GOLDEN = json.loads((Path(__file__).parent / "golden" / "sng.json").read_text())


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["sng"])
def test_golden_bits(backend, case):
    """No release and no backend changes a generator's bits."""
    sng = eval(case["sng"], {name: getattr(sc, name) for name in sc.__all__})
    p = np.array([float.fromhex(value) for value in case["p"]])
    words = backend.host(sc.encode(backend.array(p), case["length"], sng=sng).words)
    assert [[f"{word:016x}" for word in stream] for stream in words] == case["words"]


# laziness


def test_a_lazy_encoding_is_a_small_graph_at_once():
    lazy = sc.encode(0.3, 10**10, chunks="auto")
    assert lazy.words.shape == (156250000,)
    assert len(lazy.__dask_graph__()) < 1000
    many = sc.encode(da.random.random(10**7, chunks=10**6), 1024)
    assert many.words.numblocks == (10, 1)
    assert all(key[0].startswith(("sc-encode", "random_sample")) for key in many.__dask_graph__())


def test_auto_chunks_follow_the_time_of_a_task():
    import dask

    sizes = []
    for seconds in (0.005, 0.05):
        with dask.config.set({"scdask.task-seconds": seconds}):
            sizes.append(max(sc.encode(np.zeros(10**6), 1024, chunks="auto").chunks[0]))
    assert 5 < sizes[1] / sizes[0] < 20
    for wrong in (-1, 0, "soon"):
        with dask.config.set({"scdask.task-seconds": wrong}), pytest.raises(BitstreamError, match=str(wrong)):
            sc.encode(np.zeros(10), 1024, chunks="auto")


def test_empty_and_odd_lazy_shapes():
    for shape in ((0,), (3, 0), (0, 2, 1)):
        lazy = sc.encode(da.zeros(shape), 100)
        assert lazy.words.shape == (*shape, 2)
        assert lazy.compute().shape == shape
        assert sc.encode(np.zeros(shape), 100, chunks="auto").compute().shape == shape


def test_chunks_as_dask_takes_them():
    assert sc.encode(np.zeros((100, 100)), 1024, chunks="1 MB").words.npartitions > 1
    assert sc.encode(np.zeros((100, 100)), 1024, chunks={0: 50}).chunks[0] == (50, 50)
    assert sc.encode(np.zeros((100, 100)), 1024, chunks=(50, 20)).chunks == ((50, 50), (20,) * 5, (16,))
    for chunks in (0, (3, 3, 3, 3), "some", (2, (99, 2), 1)):
        with pytest.raises(BitstreamError, match="chunks"):
            sc.encode(np.zeros((100, 100)), 64, chunks=chunks)


def test_masks_and_other_libraries_are_refused():
    masked = np.ma.array([0.2, 0.9], mask=[False, True])
    for chunks in (None, 1):
        with pytest.raises(sc.UnsupportedArrayError, match="MaskedArray"):
            sc.encode(masked, 64, chunks=chunks)
    with pytest.raises(BitstreamError, match="rectangular"):
        sc.encode([[0.5], [0.5, 0.5]], 64)

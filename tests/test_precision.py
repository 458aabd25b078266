"""Numbers read before the end of a stream, against loops over bits and fractions."""

from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, Thermometer, vector_ops
from scdask.precision import progressive_error, stability


def value(bits, polarity):
    share = Fraction(sum(bits), len(bits))
    return share if polarity == "unipolar" else 2 * share - 1


def stable(bits, polarity, exact, threshold):
    """By the definition, 1 - max{t: |PE_t| > threshold} / N."""
    n = len(bits)
    off = [t for t in range(1, n + 1) if abs(value(bits[:t], polarity) - exact) > threshold]
    return float(1 - Fraction(max(off, default=0), n))


def random_streams(shape, length, seed, polarity="unipolar"):
    rng = np.random.default_rng(seed)
    bits = (rng.random((*shape, length)) < rng.random((*shape, 1))).astype(np.uint8)
    return Bitstream(vector_ops.pack_bitstream(bits), length, polarity), bits


polarities = st.sampled_from(["unipolar", "bipolar"])


@settings(max_examples=20)
@given(st.integers(1, 300), polarities, st.integers(0, 2**32 - 1), st.data())
def test_a_number_is_read_after_any_bits(length, polarity, seed, data):
    x, bits = random_streams((2,), length, seed, polarity)
    at = data.draw(st.lists(st.integers(1, length), max_size=9))
    expected = [[float(value(row[:t].tolist(), polarity)) for t in at] for row in bits]
    found = x.decode(at=at)
    assert found.shape == (2, len(at))
    np.testing.assert_allclose(found, np.array(expected).reshape(found.shape), rtol=1e-15, atol=1e-16)
    np.testing.assert_array_equal(x.decode(at=[length])[:, 0], x.decode())
    np.testing.assert_array_equal(
        vector_ops.prefix_popcount(x.words, at), [[row[:t].sum() for t in at] for row in bits]
    )
    exact = np.array([0.5, -0.25])
    np.testing.assert_array_equal(progressive_error(x, exact, at), found - exact[:, None])
    lazy = x.rechunk(data.draw(st.tuples(*(st.integers(1, n) for n in x.words.shape))))
    with dask.config.set(scheduler=_no_computing):
        later = sc.decode(lazy, at=at)
    assert later.dtype == np.float64
    np.testing.assert_array_equal(later.compute(), found)


def _no_computing(*args, **kwargs):
    raise AssertionError("computed")


@settings(max_examples=20)
@given(st.integers(1, 300), polarities, st.integers(0, 2**32 - 1), st.data())
def test_the_stability_is_that_of_the_definition(length, polarity, seed, data):
    x, bits = random_streams((2, 3), length, seed, polarity)
    # In steps of 1 / 64 all ends of bands are exact.
    exact = np.array(data.draw(st.lists(st.integers(-80, 80), min_size=3, max_size=3))) / 64
    threshold = data.draw(st.integers(0, 40)) / 64
    expected = [
        [stable(row.tolist(), polarity, Fraction(e), Fraction(threshold)) for row, e in zip(rows, exact, strict=True)]
        for rows in bits
    ]
    np.testing.assert_array_equal(stability(x, exact, threshold), expected)
    lazy = x.rechunk(data.draw(st.tuples(*(st.integers(1, n) for n in x.words.shape))))
    with dask.config.set(scheduler=_no_computing):
        found = stability(lazy, data.draw(st.sampled_from([exact, da.from_array(exact, chunks=2)])), threshold)
    np.testing.assert_array_equal(found.compute(), expected)


def test_every_library_reads_the_same_numbers(backend):
    x, bits = random_streams((2, 4), 250, 5, "bipolar")
    given, exact = x.map_words(backend.array), (2.0 * bits.mean(-1) - 1).round(1)
    at = [1, 64, 65, 250, 7, 7]
    np.testing.assert_array_equal(backend.host(given.decode(at=at)), x.decode(at=at))
    for numbers in (exact, backend.array(exact)):
        errors = backend.host(progressive_error(given, numbers, at))
        np.testing.assert_array_equal(errors, progressive_error(x, exact, at))
        np.testing.assert_array_equal(backend.host(stability(given, numbers, 0.1)), stability(x, exact, 0.1))


def test_streams_that_settle_at_known_times():
    x = sc.encode(0.25, 256, sng=Thermometer())  # 64 ones, then zeros
    assert x.decode(at=[64, 128, 256]).tolist() == [1, 0.5, 0.25]
    assert float(stability(x, 0.25, 0.25)) == 1 - 127 / 256  # 64 / t is above .5 until t = 127.
    assert float(stability(x, 0.25, 0)) == 1 - 255 / 256
    assert float(stability(x, 0.9, 0.05)) == 0
    assert float(stability(x, 0.5, 0.5)) == 1
    assert np.isnan(stability(x, np.nan))
    assert stability(sc.encode(np.zeros((0, 3)), 100), 0.5).shape == (0, 3)
    assert sc.encode(np.zeros((0, 3)), 100).decode(at=[5, 6]).shape == (0, 3, 2)


def test_even_streams_settle_sooner_than_random_ones():
    p = np.arange(1, 32) / 32
    even, random = (sc.encode(p, 1024, sng=sng) for sng in (Sobol(1), Bernoulli(1)))
    assert stability(even, p).mean() > 0.95 > stability(random, p).mean()
    for n, limit in ((64, 0.03), (256, 0.008)):
        assert abs(progressive_error(even, p, [n])).max() < limit
        rms = np.sqrt((progressive_error(random, p, [n]) ** 2).mean())
        assert rms == pytest.approx(np.sqrt((p * (1 - p)).mean() / n), rel=0.4)


def test_long_streams_in_chunks_of_time():
    x = sc.encode(np.full(3, 0.3), 2**20, sng=Bernoulli(4), chunks=(3, 1000))
    whole = x.compute()
    at = [2**i for i in range(21)]
    np.testing.assert_array_equal(x.decode(at=at).compute(), whole.decode(at=at))
    np.testing.assert_array_equal(stability(x, 0.3, 0.001).compute(), stability(whole, 0.3, 0.001))
    bits = whole.unpack()
    t = np.arange(1, 2**20 + 1)
    off = abs(bits.cumsum(axis=1) / t - 0.3) > 0.001
    last = np.where(off.any(axis=1), 2**20 - off[:, ::-1].argmax(axis=1), 0)
    np.testing.assert_array_equal(stability(whole, 0.3, 0.001), 1 - last / 2**20)


def test_what_cannot_be_read():
    x = sc.encode([0.5, 0.25], 100)
    for at in ([0], [101], [-1], [1.5], 64, [[1]], None, ["a"]):
        for y in (x, x.rechunk((1, 1))):
            with pytest.raises(BitstreamError, match="of 100 bits are read at a sequence of integers from 1 to 100"):
                progressive_error(y, 0.5, at) if at is None else y.decode(at=at)
    for wrong in (-0.1, np.nan, "a", None, True):
        with pytest.raises(BitstreamError, match="a threshold is a number from 0 on"):
            stability(x, 0.5, wrong)
    for function in (stability, lambda x, exact: progressive_error(x, exact, [5])):
        with pytest.raises(BitstreamError, match=r"exact numbers of shape \(3,\) do not broadcast to streams \(2,\)"):
            function(x, [0.5] * 3)
        with pytest.raises(BitstreamError, match="do not broadcast"):
            function(x, np.zeros((2, 2)))
        with pytest.raises(BitstreamError, match="real numbers"):
            function(x, 1j)
        with pytest.raises(BitstreamError, match="ndarray"):
            function(x.words, 0.5)


@pytest.mark.component("jax")
def test_under_jit_and_in_tiles(monkeypatch):
    import jax

    from scdask.jax_backend import to_jax
    from scdask.vector_ops import counting

    monkeypatch.setattr(counting, "TILE", 2**10)  # two words of the eight streams
    x, _ = random_streams((2, 4), 250, 6)
    with jax.enable_x64(True):
        found = jax.jit(lambda x: (x.decode(at=[3, 250]), stability(x, 0.5, 0.1)))(to_jax(x))
    np.testing.assert_array_equal(found[0], x.decode(at=[3, 250]))
    np.testing.assert_array_equal(found[1], stability(x, 0.5, 0.1))

"""Faults, against loops over bits with the random numbers of their definition, and against the formulas."""

from fractions import Fraction

import dask
import dask.array as da
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, BitstreamError, Sobol
from scdask.faults import burst, flip, stuck_at

FLIP, STUCK, BURST = 2, 4, 6  # the second half of the key of their random bits


def drawn(seed, use, number, t, rate):
    return reference.bernoulli_number(seed, use, number, t) < Fraction(rate)


def test_every_fault_is_that_of_a_loop():
    n, seed = 70, 2**63 + 9
    x = sc.encode([[0.3, 0.9], [0.5, 0.0]], n, sng=Bernoulli(5))
    rates = np.array([0.25, 0.6])
    found = {
        "flip": flip(x, rates, seed),
        "stuck": stuck_at(x, 0, rates, seed),
        "transient": stuck_at(x, 1, rates, seed, transient=True),
        "burst": burst(x, rates / 8, 5, seed),
        "fixed": burst(x, rates / 8, 5, seed, value=1),
    }
    for i, bits in enumerate(x.unpack().reshape(4, n).tolist()):
        f = rates[i % 2]
        stuck = drawn(seed, STUCK, i, 0, f)
        starts = [drawn(seed, BURST, i, t, f / 8) for t in range(n)]
        within = [any(starts[max(0, t - 4) : t + 1]) for t in range(n)]
        expected = {
            "flip": [bit ^ drawn(seed, FLIP, i, t, f) for t, bit in enumerate(bits)],
            "stuck": [0 if stuck else bit for bit in bits],
            "transient": [bit | drawn(seed, STUCK, i, t, f) for t, bit in enumerate(bits)],
            "burst": [bit ^ hit for bit, hit in zip(bits, within, strict=True)],
            "fixed": [bit | hit for bit, hit in zip(bits, within, strict=True)],
        }
        assert {name: y.unpack().reshape(4, n)[i].tolist() for name, y in found.items()} == expected
    assert all(y.sng is None for y in found.values())


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_errors_are_those_of_the_formulas(polarity):
    n, streams = 1024, 1000
    for p in (0.0, 0.3, 1.0):
        x = sc.encode(np.full(streams, p if polarity == "unipolar" else 2 * p - 1), n, polarity=polarity, sng=Sobol(1))
        before = x.popcount() / n
        for f in (0.01, 0.1):
            after = flip(x, f, seed=3).popcount() / n
            assert after.mean() == pytest.approx(before[0] * (1 - 2 * f) + f, abs=4 * np.sqrt(f / n / streams))
            rms = np.sqrt(f**2 * (1 - 2 * p) ** 2 + f * (1 - f) / n)
            assert np.sqrt(((after - before) ** 2).mean()) == pytest.approx(rms, rel=0.08)
            for value in (0, 1):
                stuck = stuck_at(x, value, f, seed=4, transient=True).popcount() / n
                assert stuck.mean() == pytest.approx(p * (1 - f) + value * f, abs=0.001)
                wires = stuck_at(x, value, f, seed=4)
                assert wires.polarity == polarity
                constant = wires.popcount() != x.popcount()
                assert (wires.popcount()[constant] == value * n).all()
                if p != value:
                    assert constant.mean() == pytest.approx(f, abs=4 * np.sqrt(f / streams))
    assert float(flip(sc.encode(0.8, 2**16, sng=Sobol(1)), 0.1).decode()) == pytest.approx(0.74, abs=0.005)


def test_streams_lose_less_than_binary_numbers():
    """At 1 %: at most .0105 at N = 1024, where numbers of 8 bits have .058."""
    p = np.repeat(np.arange(33) / 32, 500)
    x = sc.encode(p, 1024, sng=Sobol(1))
    square = ((flip(x, 0.01, seed=8).decode() - p) ** 2).reshape(33, 500).mean(1)
    assert np.sqrt(square).max() < 0.011
    assert np.sqrt(square).max() == pytest.approx(0.0105, abs=0.0003)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 256, 10**6)
    flips = np.packbits(rng.random((10**6, 8)) < 0.01, axis=1)[:, 0]
    binary = np.sqrt((((numbers ^ flips) / 256 - numbers / 256) ** 2).mean())
    assert binary == pytest.approx(0.058, abs=0.001)
    assert binary == pytest.approx(np.sqrt(0.01 * (4**8 - 1) / 3) / 256, rel=0.02)


def test_bursts():
    n = 4096
    x = sc.encode(np.zeros((2, 20)), n)
    for f, length in ((0.01, 8), (0.002, 100), (0.3, 3)):
        within = 1 - (1 - f) ** np.minimum(np.arange(n) + 1, length)
        y = burst(x, f, length, seed=1)
        assert y.decode().mean() == pytest.approx(within.mean(), abs=0.02)
        runs = [len(run) for run in "".join(map(str, y.unpack()[0, 0])).split("0") if run]
        assert min(runs[:-1]) >= length
    p = sc.encode(0.6, n, sng=Sobol(1))
    np.testing.assert_array_equal(
        burst(p, 0.01, 1, seed=5).popcount(), burst(p, 0.01, 1, seed=5, value=None).popcount()
    )
    np.testing.assert_array_equal(burst(p, 1, n, seed=5).words, (~p).words)
    np.testing.assert_array_equal(burst(p, 0.01, 10**9, seed=5).words, burst(p, 0.01, n, seed=5).words)


def test_rates_of_0_and_1():
    for polarity in ("unipolar", "bipolar"):
        x = sc.encode([0.2, 0.7], 100, polarity=polarity, sng=Bernoulli(0))
        for none in (flip(x, 0), stuck_at(x, 1, 0), stuck_at(x, 0, 0.0, transient=True), burst(x, 0, 9)):
            np.testing.assert_array_equal(none.words, x.words)
            assert none.polarity == polarity
        for whole in (flip(x, 1), burst(x, 1, 9)):
            np.testing.assert_array_equal(whole.words, (~x).words)
        for value in (0, 1):
            for whole in (stuck_at(x, value), stuck_at(x, value, transient=True), burst(x, 1, 4, value=value)):
                assert whole.popcount().tolist() == [100 * value] * 2


def test_faults_do_not_correlate_with_streams_or_each_other():
    for seed in range(3):
        x = sc.encode(np.full(20, 0.8), 4096, sng=Bernoulli(seed))
        assert flip(x, 0.1, seed).decode().mean() == pytest.approx(0.74, abs=0.005)
        zeros = sc.encode(np.zeros(20), 4096)
        kinds = [flip(zeros, 0.3, seed), stuck_at(zeros, 1, 0.3, seed, transient=True), burst(zeros, 0.3, 1, seed)]
        for i in range(3):
            assert abs(sc.scc(kinds[i], kinds[i - 1])).mean() < 0.03
            assert abs(sc.scc(kinds[i], sc.encode(np.full(20, 0.3), 4096, sng=Bernoulli(seed)))).mean() < 0.03
            assert abs(sc.scc(kinds[i][1:], kinds[i][:-1])).mean() < 0.03


RATES = np.array([[0.0], [0.5], [1.0]])
FAULTS = {
    "flip": lambda x: flip(x, RATES, 7),
    "flip shared rate": lambda x: flip(x, 0.3, 7),
    "stuck": lambda x: stuck_at(x, 1, 0.5, 7),
    "stuck rates": lambda x: stuck_at(x, 0, RATES, 7),
    "transient": lambda x: stuck_at(x, 0, RATES, 7, transient=True),
    "burst": lambda x: burst(x, 0.01, 75, 7),
    "fixed burst": lambda x: burst(x, RATES / 50, 5, 7, value=0),
}


def streams(columns=4):
    p = np.linspace(-1, 1, 3 * columns).reshape(3, columns)
    return sc.encode(p, 250, sng=Sobol(1), polarity="bipolar")


def test_every_library_has_the_same_faults(backend):
    columns = 1400 if backend.jax else 4  # XLA takes long to compile Bernoulli streams, which many do without.
    x = streams(columns)
    given = x.map_words(backend.array)
    for name, fault in FAULTS.items():
        found = fault(given)
        assert (found.length, found.polarity, found.sng) == (250, "bipolar", None)
        np.testing.assert_array_equal(backend.host(found.words), fault(x).words, err_msg=name)
    np.testing.assert_array_equal(x.words, streams(columns).words)


@settings(max_examples=15)
@given(st.data())
def test_faults_do_not_depend_on_chunks_and_are_lazy(data):
    x = streams()
    lazy = x.rechunk(data.draw(st.tuples(*(st.integers(1, n) for n in x.words.shape))))
    name = data.draw(st.sampled_from(sorted(FAULTS)))
    with dask.config.set(scheduler=_no_computing):
        found = FAULTS[name](lazy)
    assert found.chunks == lazy.chunks
    np.testing.assert_array_equal(found.compute().words, FAULTS[name](x).words)


def _no_computing(*args, **kwargs):
    raise AssertionError("computed")


def test_lazy_rates():
    x = streams()
    rates = da.from_array(np.linspace(0, 1, 12).reshape(3, 4), chunks=(3, 1))
    expected = flip(x, rates.compute(), 3).words
    for y in (x, x.rechunk((2, 3, 2))):
        np.testing.assert_array_equal(flip(y, rates, 3).compute().words, expected)
    with pytest.raises(BitstreamError, match=r"0 to 1, but there is 1\.5"):
        flip(x, da.full((3, 4), 1.5), 3).compute()


def test_faults_that_there_are_not():
    x = streams()
    for fault in (flip, lambda x, *rest: stuck_at(x, 0, *rest), lambda x, *rest: burst(x, rest[0], 3, *rest[1:])):
        for y in (x, x.rechunk((1, 1, 1))):
            for rate in (-0.1, 1.1, np.nan, [0.5, 0.5, 2, 0.5]):
                with pytest.raises(BitstreamError, match="0 to 1, but there is"):
                    fault(y, rate)
            with pytest.raises(BitstreamError, match=r"\(3,\) and streams of shape \(3, 4\) do not broadcast"):
                fault(y, [0.5] * 3)
            with pytest.raises(BitstreamError, match="do not broadcast"):
                fault(y, np.zeros((2, 3, 4)))
            with pytest.raises(BitstreamError, match="real numbers"):
                fault(y, "often")
            for seed in (-1, 2**64, 0.5):
                with pytest.raises(BitstreamError, match="a seed is an integer"):
                    fault(y, 0.5, seed)
        with pytest.raises(BitstreamError, match="ndarray"):
            fault(x.words, 0.5)
        unknown = x.rechunk((1, 4, 5))[da.from_array(np.array([True, False, True]), chunks=1)]
        with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
            fault(unknown, 0.5)
    for value in (2, -1, 0.5, None, True):
        with pytest.raises(BitstreamError, match="stuck at is an integer from 0 to 1"):
            stuck_at(x, value)
    with pytest.raises(BitstreamError, match="transient"):
        stuck_at(x, 0, transient="yes")
    for length in (0, -3, 1.5, None):
        with pytest.raises(BitstreamError, match="the length of a burst is an integer"):
            burst(x, 0.1, length)
    with pytest.raises(BitstreamError, match="become is an integer from 0 to 1"):
        burst(x, 0.1, 3, value=2)


def flipped(values, polarity, sng, use, n, seed, rate):
    """The bits of streams after faults, each by the random number of its definition."""
    bits = sc.encode(values, n, polarity=polarity, sng=sng).unpack()
    hits = [[drawn(seed, use, i, t, rate) for t in range(n)] for i in range(values.size)]
    return bits ^ np.array(hits, np.uint8).reshape(bits.shape)


@pytest.mark.parametrize("mode", ["split", "bipolar"])
def test_bits_of_a_layer_flip_as_in_a_loop(mode):
    n, seed, rate = 70, 9, 0.2
    x, weights = (
        np.random.default_rng(0).random((2, 1, 3, 3)),
        np.array([[[[1, -0.5], [0.25, 0]]], [[[-1, 1], [0, 0.5]]]]),
    )
    layer = sc.SCConv2d(weights, [0.5, -0.5], padding=1, mode=mode, x_sng=Bernoulli(1), w_sng=Bernoulli(2))
    network = sc.SCSequential(
        (sc.layers.AvgPool2d(1), layer, sc.layers.Flatten()), input_shape=(1, 3, 3), readout="values"
    )
    polarity = "unipolar" if mode == "split" else "bipolar"
    padded = np.pad(x[:, 0], ((0, 0), (1, 1), (1, 1)))
    pixels = flipped(padded, polarity, layer.x_sng, 2 * 66, n, seed, rate).astype(int)  # that of layer 1
    filters = weights[:, 0]
    if mode == "split":
        filters = np.concatenate([filters.clip(0), (-filters).clip(0)])
    w = flipped(filters, polarity, layer.w_sng, 2 * 67, n, seed, rate).astype(int)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (2, 2), axis=(1, 2))  # (sample, row, column, bit, 2, 2)
    if mode == "split":
        ones = np.einsum("brctij,nijt->bnrc", windows, w)
        expected = (ones[:, :2] - ones[:, 2:]) / n
    else:
        same = windows[:, None] == np.moveaxis(w, 3, 1)[None, :, None, None]
        expected = 2 * same.sum(axis=(4, 5, 6)) / n - 4
    expected += layer.bias[:, None, None]
    faulty = network.with_faults(rate, seed)
    found = faulty.logits(x, n)
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-12)
    chunked = faulty.logits(da.from_array(x, chunks=(1, 1, 2, 3)), n)
    assert (dask.compute(chunked)[0] == found).all()
    stopped = faulty.predict(x, n, stop=sc.layers.Cycles(n))
    assert (stopped.label == found).all()
    assert (faulty.with_faults(0).logits(x, n) == network.logits(x, n)).all()


def test_faults_of_layers_have_random_bits_of_their_own():
    x, w = np.full((50, 40), 0.5), np.full((40, 40), 0.75)
    layers = [sc.SCDense(w, np.zeros(40), x_sng=Bernoulli(1), w_sng=Bernoulli(2)) for _ in range(2)]
    network = sc.SCSequential(layers).with_faults(0.3, 1)
    keys = {sng.key() for layer in network.layers for sng in (layer.faults.x_sng, layer.faults.w_sng)}
    assert len(keys) == 4
    assert "faults of 0.3" in repr(network)
    assert "0.3 of the bits" in network._repr_html_()
    mean = (0.5 * 0.4 + 0.3) * 0.4 * 0.75 * 40  # of split weights, which are w / max|w| times max|w|
    assert network.layers[0](x, 256).mean() == pytest.approx(mean, rel=0.01)
    assert np.isnan(network.explain(x[:3], 64)[0].theory)


def test_faults_of_layers_that_cannot_be_are_refused():
    network = sc.SCSequential([sc.SCDense([[1.0]], [0.0])])
    for rate, seed in ((-0.1, 0), (1.5, 0), (True, 0), (float("nan"), 0), ("a", 0), (0.1, -1)):
        with pytest.raises(BitstreamError):
            network.with_faults(rate, seed)

    class Own(sc.layers.Layer):
        input_shape, input_scale, x_sng, w_sng = (1,), 1.0, Sobol(1), Sobol(2)

        def output_shape(self, shape):
            return shape

        def exact(self, x):
            return x

    with pytest.raises(BitstreamError, match="only the streams of SCDense and SCConv2d can have faults"):
        sc.SCSequential([Own()]).with_faults(0.1)

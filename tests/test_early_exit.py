from dataclasses import dataclass

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, BitstreamError, SCConv2d, SCDense, SCSequential, Sobol
from scdask.core import contract
from scdask.layers import Cycles, Flatten, Layer, Margin, MaxPool2d, ReLU, Rule, Softmax, Stability, early_exit
from scdask.layers.early_exit import checks
from scdask.vector_ops import products

SOBOL, BERNOULLI = (Sobol(1), Sobol(2)), (Bernoulli(1), Bernoulli(2))


class Halves(Layer):
    """A layer of one's own, in binary."""

    def output_shape(self, shape):
        return shape

    def exact(self, x):
        return x / 2


class Watched(Halves):
    ran = ()

    def exact(self, x):
        self.ran.append(len(x))
        return x / 2


def dense(mode="split", signed=False, pair=SOBOL, classes=3, readout="classes", last=()):
    rng = np.random.default_rng(3)
    how = {"mode": mode, "x_sng": pair[0], "w_sng": pair[1]}
    first = SCDense(rng.normal(size=(7, 5)), rng.normal(size=7), 1.0, **how, signed=signed)
    second = SCDense(2 * rng.normal(size=(classes, 7)), rng.normal(size=classes) / 2, 3.0, **how)
    return SCSequential([Halves(), first, Halves(), second, *last], input_shape=(5,), readout=readout)


def conv(mode="split", signed=False, pair=SOBOL, groups=1, channels=2):
    rng = np.random.default_rng(4)
    how = {"mode": mode, "x_sng": pair[0], "w_sng": pair[1]}
    first = SCConv2d(
        rng.normal(size=(4, channels // groups, 2, 2)),
        rng.normal(size=4),
        **how,
        signed=signed,
        padding=1,
        groups=groups,
    )
    second = SCDense(rng.normal(size=(3, 16)), rng.normal(size=3), 4.0, **how)
    return SCSequential([first, ReLU(), MaxPool2d(2), Flatten(), second], input_shape=(channels, 4, 4))


def inputs(network, n=12, signed=False):
    x = np.random.default_rng(5).random((n, *network.input_shape))
    return 2 * x - 1 if signed else x


def halving(network, x, length):
    """A margin that half of the samples have after 16 cycles."""
    return Margin(float(np.median(network.predict(x, length, stop=Cycles(16)).margin)))


NETWORKS = {
    "dense": (dense, {}),
    "dense, Bernoulli": (dense, {"pair": BERNOULLI}),
    "dense, signed": (dense, {"signed": True, "pair": BERNOULLI}),
    "dense, bipolar": (dense, {"mode": "bipolar", "signed": True}),
    "conv": (conv, {}),
    "conv, one channel": (conv, {"channels": 1}),
    "conv, Bernoulli, groups": (conv, {"pair": BERNOULLI, "groups": 2, "channels": 4, "signed": True}),
    "conv, bipolar": (conv, {"mode": "bipolar", "pair": BERNOULLI, "channels": 5}),
}


def test_checks():
    assert checks(1024) == [16, 32, 48, 64, 128, 1024]
    assert checks(16384)[4:] == [128, 1024, 8192, 16384]
    assert checks(100) == [16, 32, 48, 100]
    assert checks(64, first=10) == [10, 20, 30, 64]
    assert checks(9) == [9]


@pytest.mark.parametrize("name", NETWORKS)
def test_each_sample_equals_a_run_cut_at_its_cycles(name):
    make, options = NETWORKS[name]
    network = make(**options)
    x = inputs(network, signed=options.get("signed", False))
    for rule in (halving(network, x, 300), Stability(3, at=(5, 16, 60, 70, 100, 128))):
        found = network.predict(x, 300, stop=rule)
        assert isinstance(rule, Stability) or len(np.unique(found.cycles)) > 1
        for cycles in np.unique(found.cycles):
            cut = network.predict(x, 300, stop=Cycles(int(cycles)))
            stopped = found.cycles == cycles
            np.testing.assert_array_equal(found.label[stopped], cut.label[stopped])
            np.testing.assert_array_equal(found.margin[stopped], cut.margin[stopped])
    whole = network.predict(x, 300, stop=Cycles(300))
    np.testing.assert_array_equal(whole.label, network.predict(x, 300))
    assert set(whole.cycles) == {300}
    logits = network.logits(x, 300)
    np.testing.assert_array_equal(whole.margin, early_exit.margins(network, logits))
    top = np.sort(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(whole.margin, top[:, -1] - top[:, -2], rtol=1e-12)


def cut_by_hand(network, x, lengths, n):
    """Dense layers in split mode from the first n unpacked bits."""
    hidden, left = x, iter(lengths)
    for layer in network.layers:
        if not isinstance(layer, SCDense):
            hidden = layer.exact(hidden)
            continue
        length = next(left)
        scale = np.abs(layer.weights).max()
        if layer is not network.encoding_layers[0]:
            hidden = hidden.clip(0, layer.input_scale)
        xb = sc.encode(hidden / layer.input_scale, length, sng=layer.x_sng).unpack()
        signs = [sc.encode(w.clip(0) / scale, length, sng=layer.w_sng) for w in (layer.weights, -layer.weights)]
        if layer.w_sng.own:  # w- are numbered after w+
            both = np.concatenate([layer.weights.clip(0), (-layer.weights).clip(0)]) / scale
            words = sc.encode(both, length, sng=layer.w_sng).unpack()
            bits = [words[: len(layer.weights)], words[len(layer.weights) :]]
        else:
            bits = [sign.unpack() for sign in signs]
        first = min(n, length)
        sums = np.zeros((len(x), len(layer.weights)))
        for b in range(len(x)):
            for k in range(len(layer.weights)):
                for t in range(first):
                    up, down = ((xb[b, :, t] & of[k, :, t]).sum(dtype=int) for of in bits)
                    sums[b, k] += up - down
        hidden = sums * scale / first * layer.input_scale + layer.bias
    return hidden


@pytest.mark.parametrize("pair", [SOBOL, BERNOULLI], ids=["Sobol", "Bernoulli"])
@pytest.mark.parametrize(("lengths", "n"), [((100, 100), 37), ((70, 130), 67), ((40, 100), 96), ((200, 130), 128)])
def test_a_cut_counts_the_first_bits_of_all_streams(pair, lengths, n):
    network = dense(pair=pair)
    x = inputs(network, 4)
    logits = cut_by_hand(network, x, lengths, n)
    found = network.predict(x, lengths=lengths, stop=Cycles(n))
    np.testing.assert_array_equal(found.label, logits.argmax(axis=1))
    top = np.sort(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(found.margin, top[:, -1] - top[:, -2], rtol=1e-9)


@settings(max_examples=8)
@given(st.data())
def test_results_do_not_depend_on_chunks_and_are_lazy(data):
    name = data.draw(st.sampled_from(["dense, signed", "conv, Bernoulli, groups", "dense"]))
    make, options = NETWORKS[name]
    network = make(**options)
    x = inputs(network, 9, options.get("signed", False))
    rule = halving(network, x, 100)
    expected = network.predict(x, 100, stop=rule)
    chunks = data.draw(st.tuples(*(st.integers(1, n) for n in x.shape)))
    lazy = network.predict(da.from_array(x, chunks=chunks), 100, stop=rule)
    assert all(isinstance(found, da.Array) and found.shape == (9,) for found in lazy)
    for found, right in zip(dask.compute(*lazy), expected, strict=True):
        assert found.dtype == right.dtype
        np.testing.assert_array_equal(found, right)


def test_a_chunk_is_one_task_that_runs_once():
    ran = Watched.ran = []
    network = SCSequential([Watched(), *dense().layers[1:]], input_shape=(5,))
    lazy = network.predict(da.from_array(inputs(network), chunks=(4, 5)), 100, stop=Margin(0.9))
    assert ran == []
    label, cycles, margin = dask.compute(*lazy, scheduler="sync")
    assert ran == [4, 4, 4]
    assert label.shape == cycles.shape == margin.shape == (12,)


def test_nothing_is_encoded_twice_and_decided_samples_are_not_encoded(monkeypatch):
    network = SCSequential([SCDense(4 * np.eye(3), np.zeros(3))], input_shape=(3,))
    x = np.array([[1.0, 0, 0], [0.5, 0.4, 0], [0.5, 0.45, 0]] * 2)
    encoded = []

    def counted(values, sng, length, polarity, part):
        if sng == Sobol(1):
            encoded.append((len(values), part.first, part.last))
        return original(values, sng, length, polarity, part)

    original = contract.encode_part
    monkeypatch.setattr(products.contract, "encode_part", counted)
    at = (16, 64, 128, 200)
    found = network.predict(x, 256, stop=Margin(0.6, at=at))
    assert found.cycles.tolist() == [16, 256, 256] * 2
    # A word of all, then of those that go on; bits 192 to 200 and up to 256 are of a word that is encoded once.
    assert encoded == [(6, 0, 1), (4, 1, 2), (4, 2, 3), (4, 3, 4)]


def test_samples_are_counted_in_tiles(monkeypatch):
    network = conv(pair=BERNOULLI)
    x = inputs(network)
    rule = halving(network, x, 300)
    expected = network.predict(x, 300, stop=rule)
    monkeypatch.setattr(products, "TILE_BYTES", 1)
    monkeypatch.setattr(products, "OPERAND_BYTES", 1)
    for found, right in zip(network.predict(x, 300, stop=rule), expected, strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize("name", ["dense", "conv, bipolar"])
def test_early_exit_on_every_backend(backend, name):
    make, options = NETWORKS[name]
    network = make(**options)
    x = inputs(network, 6)
    found = network.predict(backend.array(x), 70, stop=Margin(0.7, at=(16, 48)))
    for result, right in zip(found, network.predict(x, 70, stop=Margin(0.7, at=(16, 48))), strict=True):
        assert isinstance(result, da.Array) == backend.lazy
        np.testing.assert_array_equal(np.asarray(result), right)


def test_stability_waits_for_equal_labels():
    network = dense()
    x, at = inputs(network), (2, 4, 8, 16, 32, 64)
    labels = [network.predict(x, 100, stop=Cycles(n)).label for n in (*at, 100)]
    found = network.predict(x, 100, stop=Stability(3, at=at))
    for i, (label, cycles) in enumerate(zip(found.label, found.cycles, strict=True)):
        own = [of[i] for of in labels]
        first = next((k for k in range(2, 7) if own[k] == own[k - 1] == own[k - 2]), 6)
        assert (label, cycles) == (own[first], (*at, 100)[first])


def test_two_rules_wait_for_each_other():
    network, x = dense(), np.random.default_rng(5).random((30, 5))
    both = network.predict(x, 256, stop=Margin(0.6) & Stability(2))
    runs = [network.predict(x, 256, stop=Cycles(n)) for n in checks(256)]
    for i, cycles in enumerate(both.cycles):
        at = checks(256).index(cycles)
        done = [k for k in range(1, len(runs)) if runs[k].margin[i] >= 0.6 and runs[k].label[i] == runs[k - 1].label[i]]
        assert at == min([*done, len(runs) - 1])
    assert len(set(both.cycles.tolist())) > 1


def test_margins_of_other_outputs():
    one = dense(classes=1)
    x = inputs(one)
    p = 1 / (1 + np.exp(-one.logits(x, 100)[:, 0]))
    np.testing.assert_allclose(one.predict(x, 100, stop=Cycles(100)).margin, abs(2 * p - 1), rtol=1e-9)
    several = dense(readout="labels")
    p = 1 / (1 + np.exp(-several.logits(x, 100)))
    found = several.predict(x, 100, stop=Cycles(100))
    assert found.label.shape == (12, 3)
    np.testing.assert_allclose(found.margin, abs(2 * p - 1).min(axis=1), rtol=1e-9)
    assert several.predict(x, 100, stop=Stability(2)).cycles.min() == 32
    once, twice = dense(), dense(last=[Softmax()])
    np.testing.assert_allclose(*(n.predict(x, 100, stop=Cycles(64)).margin for n in (once, twice)), rtol=1e-9)
    values = dense(readout="values")
    found = values.predict(x, 100, stop=Cycles(64))
    assert found.label.shape == (12, 3)
    assert np.isnan(found.margin).all()


def test_a_rule_of_ones_own():
    @dataclass(frozen=True)
    class Both(Rule):
        def decided(self, margin, same):
            return (margin > 0.5) & (same > 1)

    found = dense().predict(inputs(dense()), 100, stop=Both())
    assert set(found.cycles) <= {32, 48, 100}


@pytest.mark.parametrize("points", [[], [0, 64], [64, 32], [32, 128], None])
def test_a_rule_that_asks_at_no_cycles_of_the_streams(points):
    @dataclass(frozen=True)
    class Odd(Margin):
        def points(self, length):
            return points

    with pytest.raises(BitstreamError, match="cycles"):
        dense().predict(inputs(dense()), 64, stop=Odd(0.9))


def test_no_samples():
    network = dense()
    for x in (np.zeros((0, 5)), da.zeros((0, 5))):
        assert [np.asarray(found).shape for found in network.predict(x, 64, stop=Margin(0.9))] == [(0,)] * 3


def test_refusals():
    network, x = dense(), np.zeros((2, 5))

    class Encoding(Halves):
        input_scale = 1.0

    own = SCSequential([Encoding()], input_shape=(5,))
    for call, message in [
        (lambda: network.predict(x), "not None and None"),
        (lambda: network.predict(x, 64, lengths=(64, 64)), r"not 64 and \(64, 64\)"),
        (lambda: network.predict(x, lengths=(64,)), "1 lengths do not go with 2 layers"),
        (lambda: network.predict(x, 64, stop=0.99), "not 0.99"),
        (lambda: network.predict(x, 64, stop=Cycles(65)), "64 bits have no 65 cycles"),
        (lambda: network.predict(np.full((2, 5), 3.0), 64, stop=Cycles(64)), "1.5 at"),
        (lambda: dense(readout="values").predict(x, 64, stop=Margin(0.9)), "regression"),
        (lambda: own.predict(x, 64, stop=Margin(0.9)), "only SCDense and SCConv2d"),
        (lambda: SCSequential([Halves()], input_shape=(5,)).predict(x, 64, stop=Margin(0.9)), "no cycles"),
        (lambda: Margin(0), "not 0"),
        (lambda: Margin(0.9, at=(5, 5)), r"\(5, 5\)"),
        (lambda: Margin(0.9, at=3), "not 3"),
        (lambda: Stability(1), "not 1"),
        (lambda: Cycles(0), "not 0"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            call()
    assert early_exit.checks(64) == [16, 32, 64]

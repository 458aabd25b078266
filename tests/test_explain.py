import numpy as np
import pytest

from scdask import SCMLP, Bernoulli, BitstreamError, SCConv2d, SCDense, SCSequential, Sobol
from scdask.layers import Flatten, MaxPool2d, ReLU, search_lengths

RNG = np.random.default_rng(1)
RANDOM = {"x_sng": Bernoulli(1), "w_sng": Bernoulli(2)}
MIXED = [{"x_sng": Bernoulli(1), "w_sng": Sobol(2)}, {"x_sng": Sobol(1), "w_sng": Bernoulli(2)}]


@pytest.mark.parametrize("how", [RANDOM, *MIXED], ids=["random", "random inputs", "random weights"])
@pytest.mark.parametrize("mode", ["split", "bipolar"])
@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_theory_of_random_streams_is_what_is_measured(kind, mode, how):
    how = {"mode": mode, "signed": True, "input_scale": 2.0} | how
    if kind == "dense":
        layers, shape = [SCDense(RNG.normal(size=(120, 20)), np.zeros(120), **how)], (20,)
    else:
        layers = [SCConv2d(RNG.normal(size=(60, 2, 3, 3)), np.zeros(60), padding=1, **how), Flatten()]
        shape = (2, 3, 3)
    x = RNG.uniform(-2, 2, size=(120, *shape))
    (error, *_) = SCSequential(layers, input_shape=shape).explain(x, 512)
    assert error.own == pytest.approx(error.theory, rel=0.12)
    assert error.own == error.error
    assert error.inherited == error.cut == 0


def test_theory_is_the_variance_of_each_product():
    """Of one product by hand: p (1 - p) / N."""
    (error,) = SCSequential([SCDense([[3.0, 0.0]], [0.0], **RANDOM)]).explain([[0.25, 0.7]], 100)
    assert error.theory == pytest.approx(3 * np.sqrt(0.25 * 0.75 / 100))
    (error,) = SCSequential([SCDense([[4.0, -2.0]], [0.0], 3.0, "bipolar", **RANDOM)]).explain([[1.5, 0.9]], 64)
    assert error.theory == pytest.approx(3 * 4 * np.sqrt((1 - 0.5**2 + 1 - 0.15**2) / 64))


@pytest.mark.parametrize(("mode", "signed"), [("split", False), ("bipolar", True)])
def test_the_estimate_for_even_sequences_is_near_what_is_measured(mode, signed):
    weights = RNG.uniform(-1, 1, size=(200, 50))
    network = SCSequential([SCDense(weights, np.zeros(200), mode=mode, signed=signed)])
    x = RNG.uniform(-1 if signed else 0, 1, size=(50, 50))
    for length in (64, 256):
        (error,) = network.explain(x, length)
        assert 0.5 * error.theory < error.own < 1.5 * error.theory


def test_errors_add_up_layer_by_layer():
    layers = [
        SCConv2d(RNG.normal(size=(3, 1, 3, 3)), RNG.normal(size=3)),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        SCDense(RNG.normal(size=(4, 12)), np.zeros(4), 1.5),
    ]
    network = SCSequential(layers, input_shape=(1, 6, 6))
    x = RNG.random((30, 1, 6, 6))
    found = network.explain(x, lengths=(128, 64))
    assert [error.length for error in found] == [128, None, None, None, 64]
    last = found[-1]
    exact, streamed = network.exact(x), network.logits(x, lengths=(128, 64))
    assert last.error == pytest.approx(np.sqrt(np.mean((streamed - exact) ** 2)))
    assert last.size == pytest.approx(np.sqrt(np.mean(exact**2)))
    before = exact_inputs(layers[:4], x)
    assert last.cut == np.mean(before > 1.5) > 0
    fitting = before.clip(0, 1.5)
    own = layers[4](fitting, 64) - layers[4].exact(fitting)
    assert last.own == pytest.approx(np.sqrt(np.mean(own**2)))
    assert found[3].error == found[3].inherited > found[3].own == 0
    assert found[0].cut == found[0].inherited == 0
    assert found[:2][1].kind == "ReLU"
    for text in (repr(found), found._repr_html_()):
        assert all(part in text for part in ("4 SCDense", "30 samples", f"{last.own:.4g}", f"{100 * last.cut:.2f}"))


def exact_inputs(layers, x):
    for layer in layers:
        x = layer.exact(x)
    return x.clip(0)


def test_unknown_theory():
    same = SCSequential([SCDense([[1.0]], [0.0], x_sng=Bernoulli(1), w_sng=Bernoulli(1))])
    assert np.isnan(same.explain([[0.5]], 64)[0].theory)
    assert np.isnan(SCSequential([SCDense([[1.0]], [0.0])]).explain([[0.5]], 2**14 + 1)[0].theory)


@pytest.fixture(scope="module")
def trained():
    """A perceptron whose first layer needs few bits, with labels that it gives in floating point."""
    rng = np.random.default_rng(2)
    x = rng.random((200, 6))
    mlp = SCMLP.from_arrays(
        [rng.normal(size=(8, 6)), rng.normal(size=(3, 8))], [rng.normal(size=8), np.zeros(3)], calibration=x
    )
    return mlp, x, mlp.predict_float(x)


@pytest.mark.parametrize("weighted", [False, True])
def test_search_of_lengths(trained, weighted):
    mlp, x, y = trained
    found = search_lengths(mlp, x, y, 0.93, longest=256, shortest=8, weighted=weighted)
    costs = np.array([48, 24]) / 72 if weighted else np.ones(2)

    def accuracy(lengths):
        return np.mean(mlp.predict(x, lengths=lengths) == y)

    at, path = (256, 256), [(256, 256)]
    while True:
        nearby = [(at[0] // 2, at[1]), (at[0], at[1] // 2)]
        enough = [n for n in nearby if min(n) >= 8 and accuracy(n) >= 0.93]
        if not enough:
            break
        at = min(enough, key=lambda n: (-accuracy(n), costs @ n))
        path.append(at)
    assert [trial.lengths for trial in found.trials if trial.taken] == path
    assert found.lengths == found.best.lengths == at != (256, 256)
    assert all(trial.accuracy == accuracy(trial.lengths) for trial in found.trials)
    assert all(trial.cycles == pytest.approx(costs @ trial.lengths) for trial in found.trials)
    assert found == search_lengths(mlp, x, y, 0.93, longest=256, shortest=8, weighted=weighted)
    for text in (repr(found), found._repr_html_()):
        assert f"{at[0]}, {at[1]}" in text
        assert "0.9300" in text


def test_search_of_lengths_from_float(trained):
    mlp, x, y = trained
    found = search_lengths(mlp, x, y, loss=0.1, longest=64, shortest=64)
    assert found.target == pytest.approx(0.9)
    assert found.lengths == (64, 64)
    for call, message in [
        (lambda: search_lengths(mlp, x, y, 1.01), "below the target 1.01"),
        (lambda: search_lengths(mlp, x, y[:5], 0.5), r"shape \(200,\), not \(5,\)"),
        (lambda: search_lengths(mlp, x, y, 0.5, longest=0), "not 0"),
        (lambda: search_lengths(SCSequential([ReLU()], input_shape=(3,)), x, y), "layers that encode"),
    ]:
        with pytest.raises(BitstreamError, match=message):
            call()

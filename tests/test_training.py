import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from scdask import Bernoulli, BitstreamError, SCConv2d, SCDense, SCSequential, Sobol, training
from scdask.cli import main
from scdask.cluster import open_scheduler
from scdask.computing import Place
from scdask.jobs import mnist
from scdask.jobs.digits import Digits, load_digits
from scdask.jobs.train import Stage, Streams
from scdask.layers import (
    Affine,
    AvgPool2d,
    Clip,
    Flatten,
    Layer,
    Logistic,
    MaxPool2d,
    ReLU,
    Reshape,
    Softmax,
    Tanh,
    Transpose,
    load_model,
)
from scdask.training import Settings, clipped, forward, load_checkpoint, save_checkpoint, train, trained

pytestmark = pytest.mark.component("jax")

RANDOM = np.random.default_rng(0)
X = RANDOM.random((70, 6))
Y = np.array(["a", "b", "c"])[X[:, :3].argmax(axis=1)]
HERE = Place("threads", 1)
SMALL = Settings(epochs=3, batch=16, shards=3, learning_rate=1e-2, seed=4)


def dense(*shape, **options):
    return SCDense(RANDOM.normal(size=shape) / np.sqrt(shape[1]), RANDOM.normal(size=shape[0]) / 9, **options)


def convolution(*shape, **options):
    return SCConv2d(RANDOM.normal(size=shape) / 3, RANDOM.normal(size=shape[0]) / 9, **options)


MLP = SCSequential((dense(8, 6), dense(3, 8, input_scale=1.5)), classes=np.array(["a", "b", "c"]))
IMAGES = SCSequential(
    (
        convolution(4, 2, 3, 2, stride=(1, 2), padding=(1, 0, 2, 1), groups=1),
        MaxPool2d((2, 1), padding=(1, 0)),
        convolution(6, 2, 2, 2, groups=2, dilation=(2, 1), signed=True, input_scale=2.5),
        AvgPool2d(2, stride=1, padding=1, count_padding=False),
        Tanh(),
        Transpose((2, 0, 1)),
        Flatten(),
        Reshape((72,)),
        Affine(np.linspace(0.5, 1, 72), 0.1),
        Logistic(),
        Clip(0.2, 0.9),
        dense(5, 72, mode="bipolar", x_sng=Bernoulli(1), w_sng=Bernoulli(2)),
        ReLU(2.0),
        dense(4, 5, input_scale=2.0),
        Softmax(),
    ),
    input_shape=(2, 6, 7),
)


def last(states):
    *_, state = states
    return state


def assert_same(a, b):
    import jax

    leaves = [jax.tree.leaves((state.weights, state.optimiser)) for state in (a, b)]
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(one, other)
    for name in ("losses", "train_accuracies", "test_accuracies", "data"):
        assert getattr(a, name) == getattr(b, name)


def test_jax_computes_what_the_layers_do():
    """Without its softmax, which changes no class."""
    network = replace(IMAGES, layers=IMAGES.layers[:-1])
    x = RANDOM.random((3, 2, 6, 7))
    plan, weights = forward.plan_of(network), forward.weights_of(network)
    assert plan == forward.plan_of(IMAGES)
    assert hash(plan) == hash(forward.plan_of(IMAGES))
    np.testing.assert_allclose(forward.logits(plan, weights, x.astype("f4")), network.exact(x), rtol=1e-4, atol=1e-5)


def test_streams_in_the_loop_are_those_of_inference():
    network = replace(IMAGES, layers=IMAGES.layers[:-1])
    x = RANDOM.random((5, 2, 6, 7))
    weights = forward.weights_of(network)
    plan = forward.plan_of(network)
    for rows in (slice(0, 5), slice(3, 5)):
        *_, (_, _, outputs) = forward.outputs_of_streams(plan, weights, x[rows], [32, 64, 100, 16], rows.start)
        exact = trained(network, training.State(weights, network.classes, None, {}))
        np.testing.assert_array_equal(outputs, exact.logits(x, [32, 64, 100, 16])[rows])


def test_the_gradient_is_that_of_the_layers_at_what_the_streams_put_out():
    """By hand: softmax and one hot, W2, the ramp of the cut, and the inputs."""
    problem = training.fitting._Problem(forward.plan_of(MLP), (16, 24), 0, 0.1, 0, 0)
    weights = forward.weights_of(MLP)
    targets = MLP.classes.searchsorted(Y)[:20]
    loss, right, gradient = problem.gradient(weights, X[:20], targets, 0)
    first, second = (
        replace(layer, weights=w, bias=b) for layer, w, b in zip(MLP.layers, weights[::2], weights[1::2], strict=True)
    )
    hidden = first(X[:20], 16)
    taken = hidden.clip(0, 1.5)
    logits = second(taken, 24)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert float(loss) == pytest.approx(-np.log(softmax[np.arange(20), targets]).sum(), rel=1e-5)
    assert right == (logits.argmax(axis=1) == targets).sum()
    above = softmax - np.eye(3)[targets]
    below = above @ second.weights * ((hidden > 0) & (hidden < 1.5))
    expected = [below.T @ X[:20], below.sum(axis=0), above.T @ taken, above.sum(axis=0)]
    for found, known in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "noise"), [(None, "streams"), ((16, 32), "streams"), (16, "model")])
def test_training_goes_on_and_does_not_depend_on_threads(tmp_path, length, noise):
    settings = replace(SMALL, length=length, noise=noise)
    states = list(train(MLP, X, Y, settings, HERE, test=(X, Y)))
    assert states[-1].losses[2] < states[0].losses[0]
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, states[0], settings)
    loaded = load_checkpoint(path, settings, MLP)
    with open_scheduler("threads", threads=3) as place:
        assert_same(states[-1], last(train(MLP, X, Y, settings, place, test=(X, Y), state=loaded)))
    reached = trained(MLP, states[-1])
    predicted = reached.predict_float(X) if length is None else reached.predict(X, length)
    assert states[-1].test_accuracies[-1] == (predicted == Y).mean()


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same_weights(cluster):
    settings = replace(SMALL, length=16)
    assert_same(last(train(MLP, X, Y, settings, HERE)), last(train(MLP, X, Y, settings, cluster)))


def test_bernoulli_streams_are_new_in_each_epoch():
    network = MLP.with_generators([(Bernoulli(1), Bernoulli(2)), (Bernoulli(3), Bernoulli(4))])
    settings = replace(SMALL, length=16, epochs=2, batch=70, shards=1, learning_rate=1e-12)
    losses = last(train(network, X, Y, settings, HERE)).losses
    assert losses[0] != pytest.approx(losses[1], rel=1e-6)


def test_fine_tuning_gains_back_half_of_what_streams_lose():
    settings = Settings(epochs=15, batch=35, shards=1, learning_rate=2e-2, decay=0.95)
    network = trained(MLP, last(train(MLP, X, Y, settings, HERE))).calibrated(X)
    exact, before = (network.predict_float(X) == Y).mean(), (network.predict(X, 8) == Y).mean()
    assert exact - before > 0.05
    settings = replace(settings, length=8, learning_rate=5e-3)
    after = (trained(network, last(train(network, X, Y, settings, HERE))).predict(X, 8) == Y).mean()
    assert after - before >= (exact - before) / 2


def test_the_noise_model_has_the_errors_of_streams():
    problem = training.fitting._Problem(forward.plan_of(MLP), (16, 16), 0, 0.1, 0, 0)
    weights = forward.weights_of(MLP)
    noise = problem.with_noise(weights, X).noise
    first = replace(MLP.layers[0], weights=weights[0], bias=weights[1])
    errors = first(X[:64], 16) - first.exact(X[:64])
    np.testing.assert_allclose(noise[0][0], errors.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(noise[0][1], errors.std(axis=0), rtol=1e-4)
    assert noise[1][0].shape == (3,)


def test_shifts_move_images_and_fill_with_zeros():
    x = RANDOM.random((40, 2, 5, 4))
    moved = training.fitting._shifted(x, 2, np.random.default_rng(0))
    seen = set()
    for before, after in zip(x, moved, strict=True):
        around = np.pad(before, ((0, 0), (2, 2), (2, 2)))
        places = [(i, j) for i in range(5) for j in range(5) if (around[:, i : i + 5, j : j + 4] == after).all()]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) > 15


def test_two_classes_with_one_output():
    labels = (X[:, 0] > X[:, 1]).astype(int)
    network = SCSequential((dense(1, 6),))
    state = last(train(network, X, labels, replace(SMALL, epochs=8, learning_rate=0.1, decay=0.9), HERE))
    assert state.train_accuracies[-1] > 0.8
    assert (trained(network, state).predict_float(X) == labels).mean() > 0.8


def test_what_is_cut_of_weights():
    cut = clipped(MLP, 50)
    for before, after in zip(MLP.layers, cut.layers, strict=True):
        most = np.percentile(abs(before.weights), 50)
        np.testing.assert_array_equal(after.weights, before.weights.clip(-most, most))
        np.testing.assert_array_equal(after.bias, before.bias)
    with pytest.raises(BitstreamError, match="above 0 and at most 100, not 0"):
        clipped(MLP, 0)


class Own(Layer):
    def output_shape(self, shape):
        return shape

    def exact(self, x):
        return x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (SCSequential((Own(), dense(3, 6)), input_shape=(6,)), "is one of scdask.layers, unlike"),
        (SCSequential((ReLU(),), input_shape=(6,)), "has a layer of products, but there is none"),
        (SCSequential((dense(3, 6),), readout="labels"), "but this one reads out labels"),
    ],
)
def test_networks_that_cannot_be_trained(network, message):
    with pytest.raises(BitstreamError, match=message):
        next(train(network, X, Y, SMALL, HERE))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X[:, :5], Y, r"takes x \(samples, 6\) and y \(samples,\), not \(70, 5\) and \(70,\)"),
        (X, Y[:3], r"not \(70, 6\) and \(3,\)"),
        (X, np.where(Y == "a", "d", Y), "the data have the label d, but the classes of the network are a, b, c"),
        (X, np.where(Y == "a", np.nan, 1.0), "float64 with NaN"),
        (X + 1, Y, "unipolar streams encode 0 to 1"),
        (X * np.nan, Y, "finite inputs, but there is nan"),
    ],
)
def test_data_are_checked(x, y, message):
    with pytest.raises(BitstreamError, match=message):
        next(train(MLP, x, y, replace(SMALL, length=16), HERE))


def test_lengths_are_checked_before_the_epochs_in_floating_point():
    stages = [Stage("a", SMALL), Stage("b", replace(SMALL, length=(16, 16, 16)))]
    with pytest.raises(BitstreamError, match="3 lengths do not go with 2 layers"):
        Streams(MLP, stages, Digits(X, X, Y, Y))


def test_only_images_are_shifted():
    with pytest.raises(BitstreamError, match="only images"):
        next(train(MLP, X, Y, replace(SMALL, shift=1), HERE))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"length": 0}, "length is an integer of at least 1, not 0"),
        ({"length": (16, 0.5)}, "a length is an integer of at least 1, not 0.5"),
        ({"noise": "none"}, "noise"),
        ({"decay": 1.1}, "decay is from 0 to 1, not 1.1"),
        ({"shift": -1}, "shift is an integer of at least 0, not -1"),
        ({"learning_rate": 0}, "learning_rate is finite and above 0, not 0"),
        ({"epochs": 0}, "epochs is an integer of at least 1, not 0"),
    ],
)
def test_settings_are_checked(values, message):
    with pytest.raises(BitstreamError, match=message):
        Settings(**values)


def test_checkpoints_of_others_are_refused(tmp_path):
    state = next(train(MLP, X, Y, SMALL, HERE))
    path = tmp_path / "checkpoint.npz"
    save_checkpoint(path, state, SMALL)
    with pytest.raises(BitstreamError, match="was made with shards = 3, not 4"):
        load_checkpoint(path, replace(SMALL, shards=4), MLP)
    with pytest.raises(BitstreamError, match="no whole checkpoint"):
        load_checkpoint(path, SMALL, SCSequential((dense(3, 6),)))
    with pytest.raises(BitstreamError, match="the training began with scales = "):
        next(train(MLP.calibrated(X), X, Y, SMALL, HERE, state=state))
    other = MLP.with_generators([(Sobol(1), Sobol(2)), (Sobol(3), Sobol(4))])
    with pytest.raises(BitstreamError, match="the training began with network = "):
        next(train(other, X, Y, SMALL, HERE, state=state))
    with pytest.raises(BitstreamError, match="3 lengths do not go with 2 layers"):
        next(train(MLP, X, Y, replace(SMALL, length=(8, 8, 8)), HERE))


# On the command line


@pytest.fixture
def few(monkeypatch):
    """Scikit-learn's digits in the size of MNIST's."""
    x, *_, y, _ = load_digits()
    images = np.pad(np.kron(x[:130].reshape(-1, 1, 8, 8), np.ones((3, 3))), ((0, 0), (0, 0), (2, 2), (2, 2)))
    some = Digits(images[:100], images[100:], y[:100], y[100:130])
    monkeypatch.setattr(mnist, "load_mnist", lambda: some)
    return some


@pytest.mark.component("mnist")
@pytest.mark.component("apps")
def test_mnist_has_all_digits_alike():
    digits = mnist.load_mnist()
    assert (digits.x_train.shape, digits.x_test.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert (digits.x_train.min(), digits.x_train.max()) == (0, 1)
    np.testing.assert_array_equal(np.bincount(digits.y_train), np.full(10, 400))
    for kind, sizes in {"lenet": [(6,), (16,), (120,), (84,), (10,)], "perceptron": [(128,), (10,)]}.items():
        assert [layer.bias.shape for layer in mnist.initial_network(kind).encoding_layers] == sizes


def run(*args, expect=0):
    result = CliRunner().invoke(main, ["train", "mnist", "--scheduler", "threads", *map(str, args)])
    assert result.exit_code == expect, result.output
    return result


@pytest.mark.component("mnist")
@pytest.mark.component("apps")
def test_train_mnist_and_go_on(few, tmp_path):
    options = ("--network", "perceptron", "--length", 16, "--fine-tune", 2, "--learning-rate", 4e-3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    said = run("--epochs", 2, *options, "--out", whole).stdout
    run("--epochs", 1, *options[:2], *options[6:], "--out", parts, "--quiet")
    run("--epochs", 2, *options, "--out", parts, "--resume", "--quiet")
    files = ["checkpoint.npz", "fine-tuned.npz", "model.onnx", "results.json", "training.png"]
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in parts.iterdir()) == files
    for name in files[:2]:
        with np.load(whole / name) as a, np.load(parts / name) as b:
            for array in a:
                np.testing.assert_array_equal(a[array], b[array])
    report = json.loads((whole / "results.json").read_text())
    assert f"Test accuracy {report['test_accuracy']:.4f} after 4 epochs" in said
    assert [len(stage["losses"]) for stage in report["stages"]] == [2, 2]
    assert (report["job"], report["samples"], report["test_samples"]) == ("train mnist", 100, 30)
    assert json.loads((parts / "results.json").read_text())["resumed_from"] == 1
    network = load_model(whole / "model.onnx")
    assert (network.predict(few.x_test, 16) == few.y_test).mean() == report["test_accuracy"]
    tuned = tmp_path / "tuned"
    run("--model", whole / "model.onnx", "--length", "8,32", "--fine-tune", 1, "--noise", "model", "--out", tuned)
    assert sorted(path.name for path in tuned.iterdir()) == files[1:]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--hidden", "3"], "--hidden is for digits, not for mnist"),
        (["--fine-tune", "3"], "go with --length"),
        (["--model", __file__, "--length", "3", "--epochs", "2"], "--network and --epochs do not go with it"),
    ],
)
def test_wrong_options(args, message):
    assert message in run(*args, expect=2).output

"""The jobs of configured campaigns: what their cells compute, and what they refuse before anything is computed."""

import pickle
import threading
import tomllib
import warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import scdask as sc
from scdask import SweepError, arithmetic
from scdask.computing import Place
from scdask.generators.independence import correlation_meant
from scdask.jobs import infer as inferences
from scdask.sweeps.jobs import JOBS, base, circuit, image, infer, make_job, product

HERE = Path()
RNG = np.random.default_rng(0)
X = RNG.random((60, 9))
WEIGHTS = RNG.normal(size=(5, 9)), RNG.normal(size=(3, 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model, its data, and an image."""
    path = tmp_path_factory.mktemp("own")
    network = sc.SCMLP.from_arrays(WEIGHTS, [np.zeros(5), np.zeros(3)], calibration=X, classes=["a", "b", "c"])
    network.save(path / "model.npz")
    y = network.predict_float(X)
    y[:6] = "a"
    np.savez(path / "data.npz", x=X, y=y)
    return path


def own(folder, over=(), **options):
    return make_job("infer", {"model": "model.npz", "data": "data.npz"} | options, dict(over), folder)


def check_alone(job, **few):
    """A campaign gives what each of its cells gives alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = sc.sweep(
            job.function, over=job.over | few, data=job.data, about=job.about, where=job.where, cost=job.cost
        )
    assert not [error for error in found.error.values.ravel() if error]
    assert job.metric in found
    done = np.argwhere(~np.isnan(found.seconds.values))
    for cell in np.random.default_rng(1).permutation(done)[:6]:
        setting = {name: (job.over | few)[name][i] for name, i in zip(found.seconds.dims, cell, strict=True)}
        for name, value in pickle.loads(pickle.dumps(job.function))(job.data, **setting).items():
            np.testing.assert_array_equal(found[name].values[tuple(cell)], np.mean(value))
    return found


# What is asked for


@pytest.mark.parametrize(
    ("name", "options", "over", "match"),
    [
        ("train", {}, {}, "a job is one of infer, product, circuit, image, not 'train'"),
        ("product", {"pair": 3}, {}, "product has no option pair, but pairs, gate, sng, length, seed, fault"),
        ("product", {"pairs": 0}, {}, "pairs is an integer from 1 to 16777216, not 0"),
        ("product", {"pairs": 2.5}, {}, "pairs is an integer"),
        ("product", {}, {"stop": [""]}, "product has no axis stop, but gate"),
        ("product", {}, {"sng": ["sobel"]}, "sng is one of sobol, halton, .*, not 'sobel'"),
        ("product", {}, {"sng": []}, "the values of sng are a list of one or more"),
        ("product", {}, {"sng": "sobol"}, "the values of sng are a list of one or more"),
        ("product", {}, {"length": [True]}, "length is an integer from 1 on, not True"),
        ("product", {}, {"length": [2**60]}, "the length of a stream of Sobol.* is an integer from 1 to"),
        ("product", {}, {"fault": [1.5]}, "fault is a rate from 0 to 1, not 1.5"),
        ("product", {"gate": "or"}, {"gate": ["and"]}, "gate is either an option or an axis"),
        ("circuit", {"circuit": "root"}, {}, "circuit is one of abs, add, .*, not 'root'"),
        ("image", {}, {"sng": ["halton"]}, "sng is one of sobol, lfsr"),
        ("infer", {}, {}, "infer takes either a dataset, digits or mnist, or both model and data"),
        ("infer", {"dataset": "digits", "network": "lenet"}, {}, "network is what is trained for mnist"),
        ("infer", {"dataset": "letters"}, {}, "dataset is one of digits, mnist, not 'letters'"),
        ("infer", {"dataset": "digits", "percentile": 0}, {}, "percentile is above 0"),
        ("infer", {"model": "none.onnx", "data": "data.npz"}, {}, "there is no file none.onnx"),
        (
            "infer",
            {"dataset": "digits"},
            {"stop": ["margin"]},
            "stop is a rule, margin=..., stability=.*, not 'margin'",
        ),
        ("infer", {"dataset": "digits"}, {"length": ["64/x"]}, "length is bits, from 1 on, .* not '64/x'"),
        ("infer", {"dataset": "digits"}, {"length": [[]]}, "length is bits"),
        ("infer", {"dataset": "digits"}, {"mode": ["unipolar"]}, "mode is one of split, bipolar"),
    ],
)
def test_what_there_is_not_is_refused(name, options, over, match):
    with pytest.raises(SweepError, match=match):
        make_job(name, options, over, HERE)


def test_settings_that_do_not_go_with_a_network_are_refused(folder):
    for over, match in (
        ({"length": ["16/16/16"]}, "3 lengths do not go with 2 layers"),
        ({"stop": ["cycles=512"], "length": [64]}, "streams of 64 bits have no 512 cycles"),
        ({"stop": ["stability=1"]}, "a label is stable over 2 checks or more"),
    ):
        with pytest.raises(SweepError, match=match):
            own(folder, over)


@pytest.mark.parametrize("name", sorted(p.name for p in files("scdask.sweeps").joinpath("configs").iterdir()))
def test_configurations_that_ship_are_taken(name):
    config = tomllib.loads(files("scdask.sweeps").joinpath("configs", name).read_text())
    over, figure = config.pop("over"), config.pop("figure")
    assert config.pop("title")
    module = {"infer": infer, "product": product, "circuit": circuit, "image": image}[job := config.pop("job")]
    assert job in JOBS
    over["seed"] = list(range(over["seed"]))
    _, filled = base.asked(job, config, over, module.OPTIONS, module.AXES)
    assert {figure["x"], figure["lines"]} <= {axis for axis, values in filled.items() if len(values) > 1}


def test_a_digest_tells_what_differs():
    network = sc.SCMLP.from_arrays(WEIGHTS, [np.zeros(5), np.zeros(3)], calibration=X)
    other = sc.SCMLP.from_arrays(WEIGHTS, [np.zeros(5), np.full(3, 1e-9)], calibration=X)
    again = pickle.loads(pickle.dumps(network))
    same = {base.digest(each, X) for each in (network, again)}
    assert len(same) == 1
    assert len(same | {base.digest(other, X), base.digest(network, X[1:]), base.digest(network, X.astype("f4"))}) == 4


@pytest.mark.parametrize("name", [*product.SNGS[:-1]])
def test_generators_of_operands_are_independent(name):
    for seed in (0, 3):
        of = [base.apart(name, seed, number) for number in range(8)]
        assert len(set(of)) == 8
        assert (
            max(sc.generators.product_error(a, b, 256) for i, a in enumerate(of) for b in of[:i]) < 0.072
        )  # three times that of random bits
    assert not base.together(name, 1).own
    if name == "sobol":
        assert [base.apart(name, 5, number) for number in range(8)] == sc.independent(8, seed=5)


def test_correlation_is_meant_in_one_thread_alone():
    def product_of_equals():
        return sc.encode(0.5, 64, sng=sc.Sobol(3)) & sc.encode(0.5, 64, sng=sc.Sobol(3))

    caught = []

    def elsewhere():
        try:
            product_of_equals()
        except sc.CorrelationWarning as warning:
            caught.append(warning)

    with warnings.catch_warnings():
        warnings.simplefilter("error", sc.CorrelationWarning)
        with correlation_meant():
            product_of_equals()
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        with pytest.raises(sc.CorrelationWarning):
            product_of_equals()
    assert len(caught) == 1


# Products


@pytest.mark.parametrize("gate", product.GATES)
def test_errors_of_gates_are_those_of_theory(gate):
    for fault in (0.0, 0.05):
        cells = [
            product.errors_of_gate(500, gate=gate, sng="bernoulli", length=100, seed=seed, fault=fault)
            for seed in range(8)
        ]
        rmse, theory = (np.sqrt(np.mean([cell[name] ** 2 for cell in cells])) for name in ("rmse", "theory"))
        assert rmse == pytest.approx(theory, rel=0.05)
    better = product.errors_of_gate(500, gate=gate, sng="sobol", length=256, seed=1, fault=0.0)
    assert better["rmse"] < better["theory"] / 3
    wrong = product.errors_of_gate(500, gate=gate, sng="shared", length=256, seed=1, fault=0.0)
    assert wrong["rmse"] > 0.05


def test_an_error_of_products_is_that_of_plain_integers():
    length, seed, fault = 70, 3, 0.1
    p, q = np.random.default_rng(seed).uniform(0, 1, (2, 20))
    found = product.errors_of_gate(20, gate="and", sng="lfsr", length=length, seed=seed, fault=fault)
    streams = []
    for k, numbers in enumerate((p, q)):
        of, bits = base.apart("lfsr", seed, k), []
        faults = sc.faults.flip(sc.encode(np.zeros(20), length), fault, base.SEEDS * seed + k).unpack()
        drawn = of.numbers(length, 0, length)
        for number, flips in zip(numbers, faults, strict=True):
            bits.append([int(u < number) ^ int(flip) for u, flip in zip(drawn, flips, strict=True)])
        streams.append(bits)
    ones = [sum(a & b for a, b in zip(*pair, strict=True)) for pair in zip(*streams, strict=True)]
    errors = np.array(ones) / length - p * q
    assert found["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-12)
    assert found["bias"] == pytest.approx(errors.mean(), rel=1e-12)


def test_binary_numbers_lose_what_their_bits_are_worth():
    """Bits of weight 2**-i flip with the probability f, which has the mean square f / 3, and f / 9 by a factor."""
    cells = [
        product.errors_of_gate(4000, gate="and", sng="sobol", length=16, seed=seed, fault=0.01)["binary_rmse"]
        for seed in range(5)
    ]
    assert np.sqrt(np.mean(np.square(cells))) == pytest.approx(np.sqrt(2 * 0.01 / 3 / 3), rel=0.1)
    exact = product.errors_of_gate(1000, gate="xnor", sng="sobol", length=16, seed=1, fault=0.0)["binary_rmse"]
    assert exact < 1 / 256


def test_products_are_the_same_alone():
    job = make_job("product", {"pairs": 50, "fault": 0.02}, {"length": [16, 100], "seed": [0, 1, 4]}, HERE)
    found = check_alone(job, gate=[*product.GATES], sng=[*product.SNGS])
    assert found.rmse.shape == (5, 6, 2, 3, 1)
    assert (
        found.theory.values[:, 0] == found.theory.values[:, 3]
    ).all()  # The numbers are the same for all generators.


# Circuits


def test_every_circuit_has_a_row():
    """Of a new function of streams, say in `circuit.CIRCUITS` how it is tried, or in NO_CIRCUITS that it takes none."""
    tried = {row.function for row in circuit.CIRCUITS.values()}
    assert tried | {*circuit.NO_CIRCUITS} == {*arithmetic.__all__}
    assert not tried & {*circuit.NO_CIRCUITS}


@pytest.mark.parametrize("name", circuit.CIRCUITS)
def test_errors_of_circuits_are_small(name):
    def errors(sng, length, fault=0.0):
        return circuit.errors_of_circuit(300, circuit=name, sng=sng, length=length, seed=2, fault=fault)

    long = errors("bernoulli", 4096)
    assert long["rmse"] < (0.08 if name == "sqrt-jk" else 0.05)
    assert long["worst"] >= long["rmse"] >= abs(long["bias"])
    if name in (
        "add",
        "maximum",
        "median",
        "minimum",
        "multiply",
        "or_add",
        "relu",
        "scaled_add",
        "sort",
        "subtract",
        "umul",
    ):
        assert errors("sobol", 256)["rmse"] < 0.004
    assert errors("bernoulli", 512, 0.2) != errors("bernoulli", 512)


def test_circuits_are_the_same_alone():
    job = make_job("circuit", {"operands": 20}, {"length": [16, 100], "seed": [0, 2], "fault": [0.0, 0.1]}, HERE)
    check_alone(job, circuit=[*circuit.CIRCUITS], sng=[*circuit.SNGS])


# Networks


def test_accuracies_are_those_of_an_inference(folder):
    over = {"sng": ["sobol", "halton"], "length": [16, "32/64", [64, 16]], "seed": [3, 4], "stop": ["", "margin=0.9@4"]}
    job = own(folder, over)
    assert job.over["length"] == [16, (32, 64), (64, 16)]
    assert job.over["mode"] == ["split"]
    assert 0 < job.reference < 1
    network, x, y = job.data
    for sng, length, seed in (("sobol", 16, 3), ("halton", (32, 64), 3)):
        setting = {"sng": sng, "length": length, "seed": seed, "mode": "split"}
        plain = inferences.infer(network, x, y, inferences.Setting(**setting), Place("threads", 1))
        early = inferences.infer_early(
            network, x, y, inferences.Early(**setting, stop="margin=0.9@4"), Place("threads", 1)
        )
        right = job.function(job.data, **setting, stop="", fault=0.0)["accuracy"]
        assert right.shape == y.shape
        assert right.mean() == pytest.approx(plain.accuracy)
        stopped = job.function(job.data, **setting, stop="margin=0.9@4", fault=0.0)
        assert (stopped["accuracy"].mean(), stopped["cycles"]) == pytest.approx((early.accuracy, early.mean_cycles))
    found = check_alone(job)
    assert found.accuracy_samples.sel(sng="sobol", length="16").values.tolist() == [[[120], [120]]]
    assert np.isnan(found.seconds.sel(sng="halton", seed=4)).all()
    assert job.where({"sng": "halton", "seed": 4, "fault": 0.1})
    assert job.about == own(folder, {"length": [32]}).about
    assert job.about != own(folder, percentile=90).about


def test_faults_of_networks(folder):
    job = own(folder, {"length": [64], "fault": [0.0, 0.05, 0.5], "seed": list(range(10))})
    found = check_alone(job, sng=["bernoulli"])
    without, some, half = found.accuracy_mean.values.ravel()
    assert without > some > half
    network, x, y = job.data
    streamed = inferences.streamed_network(network, inferences.Setting("lfsr", 64, 2, "bipolar"))
    right = streamed.with_faults(0.05, 2).predict(x, 64) == y
    cell = job.function(job.data, sng="lfsr", length=64, seed=2, mode="bipolar", stop="", fault=0.05)
    assert (cell["accuracy"] == right).all()


def test_labels_and_values():
    layers = [sc.SCDense(WEIGHTS[0], np.zeros(5))]
    setting = {"sng": "sobol", "length": 64, "seed": 0, "mode": "split", "stop": "", "fault": 0.0}
    network = sc.SCSequential(layers, readout="labels")
    y = network.predict_float(X)
    right = infer.score(infer.Samples(network, X, y), **setting)["accuracy"]
    assert right.shape == (60,)
    assert right.mean() == pytest.approx(network.score(X, y, 64))
    network = sc.SCSequential(layers, readout="values")
    y = network.predict_float(X) + RNG.normal(size=(60, 5))
    assert infer.score(infer.Samples(network, X, y), **setting) == {"r2": pytest.approx(network.score(X, y, 64))}


# Images


@pytest.mark.component("images")
def test_errors_of_images_are_those_of_a_run(folder):
    from skimage.io import imsave

    from scdask.jobs import images

    pixels = np.random.default_rng(2).integers(0, 256, (20, 24), np.uint8)
    imsave(folder / "noise.png", pixels)
    over = {"circuit": ["edges", "gamma", "median"], "sng": ["sobol", "thermometer"], "length": [256], "seed": [0, 1]}
    job = make_job("image", {"image": "noise.png"}, over, folder)
    found = check_alone(job)
    setting = images.Setting("gamma", "sobol", 256, 1, 0.0)
    ((result, _),) = images.run(pixels / 255, [setting], Place("threads", 1))
    cell = found.sel(circuit="gamma", sng="sobol", seed=1).squeeze()
    assert (float(cell.rmse), float(cell.psnr)) == pytest.approx((result.rmse, result.psnr))
    assert np.isnan(found.seconds.sel(circuit="gamma", sng="thermometer")).all()
    assert np.isnan(found.seconds.sel(circuit="edges", sng="thermometer").squeeze().values).tolist() == [False, True]

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from click import ClickException
from click.testing import CliRunner
from slow import slow

from scdask import SCMLP, BitstreamError, SchedulerError
from scdask.cli import main
from scdask.cli.running import Stopwatch, make_folder, printing, stoppable
from scdask.cluster import Place, as_place, open_scheduler, warm_up
from scdask.computing import cpu_seconds_here
from scdask.jobs.digits import Digits, load_digits, train_perceptron
from scdask.jobs.infer import generators
from scdask.layers import Cycles, Flatten, Margin, SCConv2d, SCDense, SCSequential, Stability, load_model
from scdask.layers.early_exit import checks

pytestmark = pytest.mark.component("apps")
LIMIT = 60


def run(*args, expect=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == expect, result.output
    return result


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    return train_perceptron(data), data


@pytest.fixture
def trained(monkeypatch, digits):
    """Takes the place of a training that a test is not about."""
    monkeypatch.setattr("scdask.jobs.digits.train_perceptron", lambda data: digits[0])


def report(folder):
    return json.loads((folder / "results.json").read_text())


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_infer_digits(tmp_path):
    result = run("infer", "digits", "--out", tmp_path, "--scheduler", "threads", "--length", "64,1024", "--repeat", 2)
    written = report(tmp_path)
    assert is_png(tmp_path / "accuracy.png")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["accuracy.png", "results.json"]
    assert written["samples"] == 540
    assert written["float_accuracy"] == pytest.approx(0.9704, abs=0.01)
    settings = [(r["sng"], r["length"], r["seed"]) for r in written["results"]]
    assert settings == [(sng, n, seed) for sng in ("sobol", "lfsr", "bernoulli") for n in (64, 1024) for seed in (0, 1)]
    for entry in written["results"]:
        assert entry["mode"] == "split"
        assert 0 <= entry["accuracy"] <= 1
        assert entry["sc_operations"] == 540 * (64 * 32 + 32 * 10) * 2 * entry["length"]
        assert entry["sc_operations_per_second"] == pytest.approx(entry["sc_operations"] / entry["seconds"])
    by_length = [
        [r["accuracy"] for r in written["results"] if r["sng"] == "lfsr" and r["length"] == n] for n in (64, 1024)
    ]
    for two in by_length:
        assert f"{np.mean(two):.4f} ± {np.std(two, ddof=1):.4f}" in result.output
    assert f"{written['float_accuracy']:.4f}" in result.output
    assert written["wall_seconds"] > sum(entry["seconds"] for entry in written["results"])
    assert (written["cpu_seconds"] > 0, written["cpu_seconds_of"]) == (True, "all processes")
    took = f"the job took {written['wall_seconds']:.1f} s, {written['cpu_seconds']:.1f} CPU s."
    assert result.stdout.endswith(f"From its start to its results, {took}\n")


# Of the table in which a competent program's accuracies are written down. A standard deviation is about .008 here.
EXPECTED = {
    ("sobol", "split"): {16: 0.898, 64: 0.967, 256: 0.974, 1024: 0.970, 4096: 0.970},
    ("lfsr", "split"): {64: 0.951, 256: 0.965, 1024: 0.974, 4096: 0.972},
    ("bernoulli", "split"): {16: 0.732, 64: 0.921, 256: 0.962, 1024: 0.970, 4096: 0.972},
    ("sobol", "bipolar"): {256: 0.963, 1024: 0.972, 4096: 0.970},
    ("bernoulli", "bipolar"): {1024: 0.883, 4096: 0.961},
}


def test_results_are_a_sequence_with_a_table():
    from scdask.jobs.infer import Result, Results

    runs = [
        Result("<b>", 64, 0, "split", 0.9, 0.5, 10**9),
        Result("sobol", 16, 0, "split", 0.75, 0.25, 10**9),
        Result("<b>", 64, 1, "split", 0.8, 1.5, 3 * 10**9),
    ]
    results = Results(iter(runs), 0.95)
    assert list(results) == runs
    assert (len(results), results[-1], results[1:][0]) == (3, runs[2], runs[1])
    assert results[:1].float_accuracy == 0.95
    assert results.rows() == [
        ("<b>", "64", "2", "0.8500 ± 0.0707", "-0.1000", "2.00", "2.000"),
        ("sobol", "16", "1", "0.7500", "-0.2000", "4.00", "0.250"),
    ]
    html = results._repr_html_()
    assert "<b>" not in html
    for text in ("&lt;b&gt;", "0.8500 ± 0.0707", "Gbitop/s", "Float accuracy 0.9500", "SC inference, split"):
        assert text in html
    assert "SC inference" in Results([], 0.95)._repr_html_()
    compared = Results([runs[1], Result("sobol", (16, 64), 0, "bipolar", 0.9, 1, 1)], 0.95, "R²")
    assert (compared.title, compared.columns[3]) == ("SC inference", "R²")
    assert [row[:4] for row in compared.rows()] == [
        ("sobol split", "16", "1", "0.7500"),
        ("sobol bipolar", "16/64", "1", "0.9000"),
    ]


def test_a_run_yields_each_result_when_it_is_there(digits):
    from scdask.jobs.infer import infer, run, settings

    model, data = digits
    x, y = data.x_test[:20], data.y_test[:20]
    todo = settings(["sobol"], [16, 64], "split")
    with open_scheduler("threads") as place:
        running = run(model, x, y, iter(todo), place)
        assert next(running).length == 16
        (last,) = running
        assert last.accuracy == infer(model, x, y, todo[1], place).accuracy


@pytest.mark.parametrize(("sng", "mode"), EXPECTED)
def test_accuracies(digits, sng, mode):
    from scdask.jobs.infer import infer, settings

    model, data = digits
    expected = EXPECTED[sng, mode]
    todo = settings([sng], list(expected), mode, repeat=3)
    with open_scheduler("threads") as place:
        results = [infer(model, data.x_test, data.y_test, setting, place) for setting in todo]
    for length, accuracy in expected.items():
        reached = np.mean([r.accuracy for r in results if r.length == length])
        assert reached > accuracy - 0.03, (length, reached)
        if (sng, mode) == ("sobol", "split") and length >= 64:
            assert reached >= 0.966


def test_a_shared_generator_is_wrong_on_purpose(digits):
    from scdask.jobs.infer import infer, settings

    model, data = digits
    (setting,) = settings(["shared"], [1024], "split")
    with open_scheduler("threads") as place:
        assert infer(model, data.x_test, data.y_test, setting, place).accuracy < 0.93


def test_own_model_and_data(tmp_path, digits):
    model, data = digits
    model.save(tmp_path / "model.npz")
    np.savez(tmp_path / "data.npz", x=data.x_test[:50], y=data.y_test[:50])
    args = [
        "infer",
        "--model",
        tmp_path / "model.npz",
        "--data",
        tmp_path / "data.npz",
        "--out",
        tmp_path / "new" / "out",
    ]
    result = run(*args, "--sng", "sobol", "--length", "256", "--mode", "bipolar", "--scheduler", "threads", "--quiet")
    assert result.output == ""
    written = report(tmp_path / "new" / "out")
    assert written["job"] == "infer model.npz"
    assert written["samples"] == 50
    assert [r["mode"] for r in written["results"]] == ["bipolar"]
    assert written["results"][0]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give either"),
        (["digits", "--model", __file__, "--data", __file__], "give either"),
        (["--model", __file__], "give either"),
        (["--data", __file__], "give either"),
        (["digits", "--data", __file__], "give either"),
        (["--model", "no.npz", "--data", __file__], "no.npz"),
        (["letters"], "letters"),
        (["digits", "--sng", "sobol,dice"], "dice"),
        (["digits", "--length", "16,0"], "0"),
        (["digits", "--length", ""], "integer"),
        (["digits", "--repeat", "0"], "0"),
        (["digits", "--mode", "xor"], "xor"),
        (["digits", "--workers", "0"], "0"),
        (["digits", "--length", "16/"], "integer"),
        (["digits", "--network", "lenet"], "--network is what is trained for mnist"),
        (["mnist", "--network", "lenet", "--model", __file__], "--network is what is trained for mnist"),
        (["digits", "--percentile", "0"], "0"),
        (["digits", "--stop", "luck=1"], "'luck=1' is not one of margin=..., stability=..., cycles=..."),
        (["digits", "--stop", "margin=1.5"], "1.5"),
        (["digits", "--stop", "margin"], "''"),
        (["digits", "--stop", "margin=.9@0"], "0"),
        (["digits", "--stop", "cycles=9@2"], "cycles=... has no checks"),
        (["digits", "--stop", "stability=1"], "1"),
    ],
)
def test_wrong_options(args, message):
    assert message in run("infer", *args, expect=2).output


def test_early_exit(tmp_path, digits, small):
    model, data = digits
    stops = ["--stop", "margin=.9,.99@8", "--stop", "stability=3"]
    for kind in ("npz", "csv"):
        predictions = ["--predictions", tmp_path / f"labels.{kind}", "--mode", "split,bipolar"]
        result = run("infer", *small, "--model", tmp_path / "m.npz", *stops, *predictions, "--out", tmp_path / "out")
    written = report(tmp_path / "out")
    assert is_png(tmp_path / "out" / "accuracy.png")
    rules = [
        ("margin=0.9", Margin(0.9)),
        ("margin=0.99@8", Margin(0.99, at=checks(32, 8))),
        ("stability=3", Stability(3)),
    ]
    with np.load(tmp_path / "labels.npz") as arrays:
        of = {name: arrays[name].tolist() for name in ("mode", "length", "stop", "cycles", "prediction")}
    modes = ("split", "bipolar")
    assert of["stop"] == [""] * 4 + [rule for rule, _ in rules] * 2
    assert of["length"] == [16, 32] * 2 + [32] * 6
    assert of["cycles"][:4] == [[n] * 20 for n in (16, 32)] * 2
    entries = iter(zip(written["early_exit"], of["prediction"][4:], of["cycles"][4:], strict=True))
    with (tmp_path / "labels.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for mode in modes:
        streamed = model.with_generators(generators("sobol", 0, 2), mode)
        for text, rule in rules:
            entry, labels, cycles = next(entries)
            expected = streamed.predict(data.x_test[:20], 32, stop=rule)
            assert (entry["stop"], entry["sng"], entry["length"], entry["mode"]) == (text, "sobol", 32, mode)
            assert labels == expected.label.tolist()
            assert cycles == expected.cycles.tolist()
            assert entry["accuracy"] == np.mean(expected.label == data.y_test[:20])
            assert entry["mean_cycles"] == pytest.approx(np.mean(cycles))
            assert entry["undecided"] == np.mean(np.array(cycles) == 32)
            assert entry["median_cycles"] == sorted(cycles)[9]
            assert dict(entry["cycles_histogram"]) == dict(Counter(cycles))
            name = f"sobol N=32 seed=0 {mode} {text}"
            assert [(int(row[name]), int(row[f"cycles of {name}"])) for row in table] == [
                *zip(labels, cycles, strict=True)
            ]
            assert f"{entry['mean_cycles']:.1f}" in result.output
    assert "Early exit, up to 32 cycles" in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    for which, message in [
        (["--stop", "cycles=33"], "streams of 32 bits have no 33 cycles"),
        (["--stop", "cycles=1234567"], "streams of 32 bits have no 1234567 cycles"),
        (["--length", "16/32/64"], "3 lengths do not go with 2 layers"),
    ]:
        assert message in run("infer", *small, "--model", tmp_path / "m.npz", *which, expect=1).output


def test_lengths_of_layers(tmp_path, digits, small):
    model, data = digits
    run("infer", *small, "--model", tmp_path / "m.npz", "--length", "64/256,64", "--out", tmp_path / "out", "--quiet")
    found = report(tmp_path / "out")["results"]
    assert [r["length"] for r in found] == [[64, 256], 64]
    predicted = model.with_generators(generators("sobol", 0, 2), "split").predict(data.x_test[:20], lengths=[64, 256])
    assert found[0]["accuracy"] == np.mean(predicted == data.y_test[:20])
    assert found[0]["sc_operations"] == 20 * 2 * (64 * 32 * 64 + 32 * 10 * 256)


def small_network(readout):
    """A convolution and a dense layer of two outputs, for signed images of 4 x 4 pixels."""
    rng = np.random.default_rng(0)
    layers = [
        SCConv2d(rng.normal(size=(2, 1, 3, 3)).astype("f4"), np.zeros(2), signed=True),
        Flatten(),
        SCDense(rng.normal(size=(2, 8)).astype("f4"), np.zeros(2)),
    ]
    network = SCSequential(layers, input_shape=(1, 4, 4), readout=readout)
    x = rng.uniform(-1, 1, (30, 1, 4, 4))
    return network.calibrated(x), x


@pytest.mark.component("onnx")
@pytest.mark.parametrize("readout", ["classes", "labels", "values"])
def test_a_network_of_onnx_with_samples_of_any_shape(tmp_path, readout):
    from sklearn.metrics import accuracy_score, r2_score

    network, x = small_network(readout)
    y = network.predict_float(x)
    y = y + 0.1 * np.random.default_rng(1).normal(size=y.shape) if readout == "values" else y
    network.to_onnx(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    files = ["--model", tmp_path / "m.onnx", "--data", tmp_path / "d.npz", "--out", tmp_path / "out"]
    which = ["--sng", "sobol", "--length", "64,256", "--scheduler", "threads", "--stop", "cycles=64"]
    result = run("infer", *files, *which, "--predictions", tmp_path / "p.csv")
    written = report(tmp_path / "out")
    score = {"values": r2_score, "labels": accuracy_score, "classes": accuracy_score}[readout]
    network = load_model(tmp_path / "m.onnx").with_generators(generators("sobol", 0, 2))
    (early,) = written["early_exit"]
    assert early["accuracy"] == pytest.approx(score(y, network.predict(x, 256, stop=Cycles(64)).label))
    for entry in written["results"]:
        assert entry["accuracy"] == pytest.approx(score(y, network.predict(x, entry["length"])))
    assert written["float_accuracy"] == pytest.approx(score(y, network.predict_float(x)))
    assert written["score"] == ("R²" if readout == "values" else "accuracy")
    assert written["results"][0]["sc_operations"] == 30 * 64 * (4 * 2 * 4 * 9 + 2 * 2 * 8)
    assert f" {written['score']} " in result.stdout
    with (tmp_path / "p.csv").open(newline="") as file:
        first = next(csv.DictReader(file))
    assert [float(n) for n in first["label"].split()] == np.ravel(y[0]).tolist()
    wrong = {"classes": np.full(30, 7), "labels": np.full((30, 2), 2), "values": np.full((30, 2), np.nan)}[readout]
    np.savez(tmp_path / "d.npz", x=x, y=wrong)
    assert "label" in run("infer", *files, *which, expect=1).output or readout == "values"
    np.savez(tmp_path / "d.npz", x=x[:, 0], y=y)
    assert "(30, 4, 4)" in run("infer", *files, *which, expect=1).output


def test_rules_of_early_exit_combine():
    from scdask.cli.infer import Stops
    from scdask.jobs.infer import Early, stop_rule
    from scdask.layers import Margin, Stability

    texts = Stops().convert("margin=.9,.99@32+stability=2", None, None)
    assert texts == ("margin=0.9+stability=2", "margin=0.99@32+stability=2")
    rules = [stop_rule(Early("sobol", 1024, 0, "split", text)) for text in texts]
    assert rules[0] == Margin(0.9) & Stability(2)
    assert rules[1].one == Margin(0.99, at=(32, 64, 96, 128, 256, 1024))


def test_a_rule_that_stops_too_early_is_told():
    from scdask.jobs.inferences import EarlyResult, Result, early_note

    plain = [Result("sobol", 64, 0, "split", 0.95, 1.0, 1)]
    for accuracy, told in ((0.94, False), (0.6, True)):
        early = [EarlyResult("sobol", 64, 0, "split", "margin=0.9", accuracy, ((16, 10),), 1.0)]
        assert ("A rule loses 0.35 against all cycles" in early_note(early, plain)) is told


def test_a_regression_is_not_stopped_by_labels(tmp_path):
    from scdask.jobs.infer import check_settings, early_settings, settings

    network, _ = small_network("values")
    with pytest.raises(BitstreamError, match="Cycles stops a regression"):
        check_settings(network, early_settings(settings(["sobol"], [64], "split"), ["margin=0.9"]))


@pytest.mark.component("mnist")
def test_infer_mnist(tmp_path, monkeypatch):
    """Of a LeNet that is not trained and of a perceptron in a file, which takes vectors."""
    from scdask.jobs import mnist

    images = Digits(*(part[:40] for part in mnist.load_mnist()))
    networks = {kind: mnist.initial_network(kind).calibrated(images.x_train) for kind in mnist.KINDS}
    monkeypatch.setattr(mnist, "load_mnist", lambda: images)
    monkeypatch.setattr(mnist, "train_network", lambda kind, data: networks[kind])
    which = ["--sng", "sobol", "--length", "32", "--scheduler", "threads", "--quiet"]
    trained = networks["perceptron"].layers[1:]
    SCMLP(trained).save(tmp_path / "m.npz")
    for args, name in [
        ([], "mnist lenet"),
        (["--network", "perceptron"], "mnist perceptron"),
        (["--model", tmp_path / "m.npz"], "mnist m.npz"),
    ]:
        run("infer", "mnist", *args, *which, "--out", tmp_path / name)
        written = report(tmp_path / name)
        network = networks[name.split()[1]] if name.split()[1] in networks else networks["perceptron"]
        streamed = network.with_generators(generators("sobol", 0, len(network.encoding_layers)))
        assert written["job"] == f"infer {name}"
        assert written["results"][0]["accuracy"] == np.mean(streamed.predict(images.x_test, 32) == images.y_test)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 64))}, "no array y"),
        ({"x": np.zeros((3, 63)), "y": np.zeros(3)}, "takes x (samples, 64), not (3, 63)"),
        ({"x": np.zeros((3, 64)), "y": np.zeros(4)}, "(3, 64) and (4,)"),
        ({"x": np.zeros((0, 64)), "y": np.zeros(0)}, "(0, 64)"),
        ({"x": np.zeros((3, 64)), "y": np.float64(0)}, "(3, 64) and ()"),
        ({"x": np.full((3, 64), 16.0), "y": np.zeros(3)}, "0 to 1, but there is 16.0"),
        ({"x": np.full((3, 64), np.nan), "y": np.zeros(3)}, "0 to 1, but there is nan"),
        ({"x": np.zeros((3, 64)), "y": np.array([1, 2, 10])}, "the label 10, but the classes of the model are 0, 1"),
        ({"x": np.zeros((3, 64)), "y": np.array(["a", "b", "c"])}, "the label a"),
    ],
)
def test_wrong_data(tmp_path, digits, arrays, message):
    digits[0].save(tmp_path / "model.npz")
    np.savez(tmp_path / "data.npz", **arrays)
    args = ["--model", tmp_path / "model.npz", "--data", tmp_path / "data.npz", "--out", tmp_path / "out"]
    result = run("infer", *args, "--scheduler", "threads", expect=1)
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        ("nowhere", [], "nowhere is not"),
        (__file__, [], "is no scheduler file"),
        ("127.0.0.1:9", [], "no Dask scheduler answers at 127.0.0.1:9"),
        ("tcp://127.0.0.1:9", [], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tcp://127.0.0.1:9", ["--workers", 2], "leave their number to it"),
        ("threads", ["--workers", 2], "no workers to count"),
    ],
)
def test_wrong_schedulers(tmp_path, monkeypatch, scheduler, options, message):
    monkeypatch.setattr("scdask.cluster.address.CONNECT_SECONDS", 1)
    result = run("infer", "digits", "--scheduler", scheduler, "--out", tmp_path, *options, expect=1)
    assert message in " ".join(result.output.split())


@pytest.mark.usefixtures("trained")
def test_a_scheduler_that_is_running(tmp_path, cluster):
    file = tmp_path / "scheduler.json"
    cluster.write_scheduler_file(file)
    for scheduler in (cluster.scheduler.address, file):
        out = tmp_path / f"of {Path(scheduler).name}"
        run("infer", "digits", "--scheduler", scheduler, "--out", out, "--sng", "sobol", "--length", "64", "--quiet")
        assert report(out)["results"][0]["accuracy"] >= 0.966
        assert report(out)["scheduler"] == str(scheduler)
        assert report(out)["cpu_seconds_of"] == "client"  # The workers may serve others too.


def test_cpu_seconds_are_those_of_all_processes_that_a_job_started(monkeypatch):
    def compute(seconds):
        start = time.process_time()
        while time.process_time() < start + seconds:
            sum(range(1000))

    watch = Stopwatch()
    with open_scheduler("local", workers=1, threads=2) as place:
        before = place.cpu_seconds_elsewhere()
        place.run_everywhere(lambda: compute(0.3))
        assert 0.3 <= place.cpu_seconds_elsewhere() - before < 3
        compute(0.1)
        spent = watch.spent(place)
        assert spent.cpu_seconds >= before + 0.4
        assert spent.cpu_seconds <= time.process_time() + place.cpu_seconds_elsewhere()
        assert str(spent) == f"{spent.wall_seconds:.1f} s, {spent.cpu_seconds:.1f} CPU s"
        alone = watch.spent(place, ask=False)
        assert alone.cpu_seconds <= spent.cpu_seconds - before
        assert str(alone).endswith(" CPU s here, those of the workers not counted")
        before, here = place.cpu_seconds_elsewhere(), cpu_seconds_here()
        (worker,) = place.client.run(os.getpid).values()
        monkeypatch.setattr("scdask.computing.ASK_SECONDS", 0.5)
        os.kill(worker, signal.SIGSTOP)
        assert place.cpu_seconds_elsewhere() is None
        os.kill(worker, signal.SIGCONT)
    assert cpu_seconds_here() - here >= before  # The worker has ended.
    assert place.cpu_seconds_elsewhere() is None


def test_a_process_is_counted_once():
    from distributed import Client, LocalCluster

    with LocalCluster(1, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
        place = Place("client", 1, client=client, own=True)
        assert place.cpu_seconds_elsewhere() == 0
        assert as_place(client).cpu_seconds_elsewhere() is None


def test_a_worker_with_another_version(cluster, monkeypatch):
    assert warm_up.__module__ == "scdask.cluster"  # where versions with other files have it too
    monkeypatch.setattr("scdask.computing.__version__", "0")
    with (
        open_scheduler(cluster.scheduler.address) as place,
        pytest.raises(SchedulerError, match=r"has scdask \S+, but this is 0"),
    ):
        place.wait_until_ready()


def test_workers_that_are_gone(tmp_path, monkeypatch):
    """Without a nanny nobody restarts a killed worker; waiting for it would take for ever."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty:
        address = empty.scheduler_address
        worker = subprocess.Popen(
            [sys.executable, "-m", "dask", "worker", address, "--no-nanny", "--no-dashboard"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            with open_scheduler(address) as place:
                place.wait_until_ready()
                assert place.compute(dask.delayed(sum)([1, 2])) == 3
                monkeypatch.setattr("scdask.computing.CONNECT_SECONDS", 3)
                worker.kill()
                worker.wait(timeout=LIMIT)
                with pytest.raises(SchedulerError, match="has run for 3 seconds"):
                    place.compute(dask.delayed(sum)([1, 2, 3]))
        finally:
            worker.kill()


def test_a_scheduler_that_is_gone():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        open_scheduler(cluster.scheduler_address) as place,
    ):
        place.wait_until_ready()
        threading.Timer(1, cluster.close).start()
        with pytest.raises(SchedulerError, match="is lost"):
            place.compute(dask.delayed(time.sleep)(30))


class Slow:
    """A future that is done just after the wait for it is over."""

    def __init__(self, result):
        self.outcome = result
        self.waits = []

    def done(self):
        return True

    def result(self, timeout=None):
        self.waits.append(timeout)
        if timeout is not None:
            raise TimeoutError("timed out after 2 s.")
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def test_what_is_done_as_the_wait_ends_is_no_failure(cluster):
    place = as_place(cluster)
    assert place._result(Slow(7)) == 7
    with pytest.raises(TimeoutError, match="of the task"):
        place._result(Slow(TimeoutError("of the task")))


def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch):
    for package in ("sklearn", "matplotlib"):
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, package, None)
            result = run("infer", "digits", "--out", tmp_path, expect=1)
            assert result.output == f"Error: {package} is not installed; pip install 'scdask[apps]' brings it\n"


def test_a_folder_that_cannot_be_written(tmp_path, small):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "results.json").mkdir(parents=True)
    for out in (tmp_path / "file" / "out", tmp_path / "taken"):
        result = run("infer", *small, "--model", tmp_path / "m.npz", "--out", out, expect=1)
        assert "cannot write to" in result.output
    assert [p.name for p in (tmp_path / "taken").iterdir()] == ["results.json"]


@pytest.fixture
def small(tmp_path, digits):
    """The arguments of a small job, in a folder of its own."""
    model, data = digits
    model.save(tmp_path / "m.npz")
    np.savez(tmp_path / "d.npz", x=data.x_test[:20], y=data.y_test[:20])
    return ["--data", tmp_path / "d.npz", "--scheduler", "threads", "--sng", "sobol", "--length", "16,32"]


def test_a_run_is_not_overwritten(tmp_path, small, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for args, folder in [([], "new/out"), (["--quiet"], "new/out-2"), ([], "new/out-3")]:
        result = run("infer", *small, "--model", "~/m.npz", "--out=~/new/out/", *args)
        assert report(tmp_path / folder)["settings_left"] == 0
        assert ("holds a run already" in result.stderr) is (folder != "new/out")
    assert str(tmp_path / "new/out-3/results.json") in result.stderr
    monkeypatch.chdir(tmp_path / "new/out")
    for out, folder in [(Path(), "results-2"), (Path(".."), "..")]:
        assert make_folder(out, ["results.json"]) == Path(folder)
    assert "the path is empty" in run("infer", *small, "--model", "~/m.npz", "--out", "", expect=2).output


def test_names_of_files_are_no_markup_and_no_formulas(tmp_path, small):
    model = tmp_path / "a$\\foo$b_[red]\x1b[2J.npz"
    (tmp_path / "m.npz").rename(model)
    out = tmp_path / "out[/b]\x1b[31m"
    result = run("infer", *small, "--model", model, "--out", out)
    assert is_png(out / "accuracy.png")
    assert f"Written: {tmp_path}/out[/b]\\x1b[31m/results.json" in result.stderr
    assert report(out)["job"] == f"infer {model.name}"
    model.write_bytes(b"\x1b[2J")
    result = run("infer", *small, "--model", model, "--out", out, expect=1)
    assert "b_[red]\\x1b[2J.npz is not an npz file" in result.stderr
    assert "\x1b" not in result.output
    model.chmod(0)
    if os.geteuid():  # Root may read anything.
        assert "Permission denied" in run("infer", *small, "--model", model, "--out", out, expect=1).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_done_is_written_when_a_job_is_stopped(tmp_path, small, monkeypatch, number):
    from scdask.jobs import infer

    def stopped(*args, **options):
        yield next(run_settings(*args, **options))
        os.kill(os.getpid(), number)
        time.sleep(LIMIT)

    run_settings = infer.run
    monkeypatch.setattr(infer, "run", stopped)
    result = run("infer", *small, "--model", tmp_path / "m.npz", "--out", tmp_path / "out", expect=128 + number)
    assert "Written (1 of 2 settings)" in result.stderr
    assert result.stderr.endswith(f"Stopped by {number.name}.\n")
    written = report(tmp_path / "out")
    assert ([r["length"] for r in written["results"]], written["settings_left"]) == ([16], 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]


def test_nohup_is_heeded():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")  # noqa: PTH123


def full_disk():
    return open("/dev/full", "w")  # noqa: PTH123


@pytest.mark.parametrize("stream", [nobody_reads, full_disk])
def test_a_job_does_not_fail_with_what_it_prints(tmp_path, small, monkeypatch, capsys, stream):
    monkeypatch.setattr(sys, "stdout", stream())
    args = [str(a) for a in ["infer", *small, "--model", tmp_path / "m.npz", "--out"]]
    main.main([*args, str(tmp_path / "a")], standalone_mode=False)
    assert ("Warning: the standard output cannot be written" in capsys.readouterr().err) is (stream is full_disk)
    sys.stdout.close()  # What could not be written is no error at the end either.
    monkeypatch.setattr(sys, "stdout", stream())
    monkeypatch.setattr(sys, "stderr", stream())
    main.main([*args, str(tmp_path / "b")], standalone_mode=False)
    sys.stdout.close()
    sys.stderr.close()
    for folder in ("a", "b"):
        assert sorted(p.name for p in (tmp_path / folder).iterdir()) == ["accuracy.png", "results.json"]
    # What is in no file is lost, and that is an error.
    with nullcontext() if stream is nobody_reads else pytest.raises(ClickException, match="cannot be written"):
        monkeypatch.setattr(sys, "stdout", stream())
        with printing(saved=False) as console:
            console.print("a table")
    with suppress(OSError):
        sys.stdout.close()


@pytest.mark.usefixtures("trained")
def test_an_ascii_terminal(tmp_path):
    args = ["infer", "digits", "--scheduler", "threads", "--out", str(tmp_path), "--sng", "lfsr", "--length", "64"]
    done = CliRunner(charset="ascii").invoke(main, [*args, "--repeat", "2"], env={"COLUMNS": "40"})
    assert done.exit_code == 0
    assert " +- 0.0" in done.stdout


def test_impossible_lengths_are_refused_at_once(tmp_path):
    result = run("infer", "digits", "--scheduler", "threads", "--length", "16,8589934592", "--out", tmp_path, expect=1)
    assert "from 1 to 4294967296" in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_info():
    output = run("info").output
    for text in ("scdask", "numpy", "numba", "cores", "SIMD", "NumPy arrays", "works", "JAX arrays", "zarr", "onnx"):
        assert text in output
    assert "does not work" not in output


def test_help_and_version():
    assert "--scheduler" in run("infer", "--help").output
    assert "0.1.0" in run("--version").output


@pytest.mark.parametrize("command", [["-m", "scdask"], ["-m", "dask", "scdask"]])
def test_other_ways_in(command):
    command = [sys.executable, *command, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=True)
    assert done.stdout.endswith("0.1.0\n")


# left-over processes


@pytest.mark.parametrize("number", [signal.SIGINT, slow(signal.SIGTERM), slow(signal.SIGHUP)])
def test_an_interrupted_job_leaves_nothing_behind(tmp_path, number):
    """A terminal sends Ctrl-C and SIGHUP to the whole group, a batch system SIGTERM to the job.

    The job takes some minutes, so that it ends if pytest is killed, and not for hours.
    """
    args = ["infer", "digits", "--out", str(tmp_path), "--length", "4096", "--repeat", "500", "--workers", "2"]
    job = subprocess.Popen(
        [sys.executable, "-m", "scdask", *args], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert "dashboard: http://127.0.0.1:" in job.stderr.readline()
        deadline = time.monotonic() + LIMIT
        while len(family := psutil.Process(job.pid).children(recursive=True)) < 3:  # two workers, and what tracks them
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(2)
        assert job.poll() is None
        if number != signal.SIGTERM:
            os.killpg(job.pid, number)
        else:
            job.send_signal(number)
        said = job.communicate(timeout=LIMIT)[1].split("\n")
        stopped = f"Stopped by {number.name}."
        assert stopped in said  # A worker of Dask, or joblib of the tracker that SIGHUP has ended, may say more.
        assert job.returncode == 128 + number
        _, alive = psutil.wait_procs(family, timeout=15)
        assert not alive
        left = sorted(path.name for path in tmp_path.iterdir())
        assert left in ([], ["results.json"])
        assert not left or report(tmp_path)["settings_left"] > 0
    finally:
        if job.poll() is None:
            job.kill()


@pytest.mark.usefixtures("trained")
def test_the_local_cluster_is_closed(tmp_path):
    before = set(psutil.Process().children(recursive=True))
    result = run(
        "infer", "digits", "--out", tmp_path, "--sng", "sobol", "--length", "64", "--workers", "1", "--threads", "2"
    )
    assert "Dask dashboard: http://127.0.0.1:" in result.output
    assert report(tmp_path)["threads"] == 2
    _, alive = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=10)
    assert all("resource_tracker" in " ".join(p.cmdline()) for p in alive)


def test_a_perceptron_trained_elsewhere_needs_no_scales(tmp_path, digits):
    model, data = digits
    arrays = {f"weights_{i}": layer.weights for i, layer in enumerate(model.layers)}
    arrays |= {f"bias_{i}": layer.bias for i, layer in enumerate(model.layers)}
    np.savez(tmp_path / "model.npz", **arrays)
    np.savez(tmp_path / "data.npz", x=data.x_test, y=data.y_test)
    args = ["--model", tmp_path / "model.npz", "--data", tmp_path / "data.npz", "--out", tmp_path]
    run("infer", *args, "--sng", "sobol", "--length", "256", "--scheduler", "threads", "--quiet")
    assert report(tmp_path)["results"][0]["accuracy"] > 0.95
    assert SCMLP.load(tmp_path / "model.npz", data.x_train).layers[1].input_scale > 1

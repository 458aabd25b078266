import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from scdask import SCMLP, snn
from scdask.cli import main
from scdask.jobs.digits import load_digits

pytestmark = pytest.mark.component("apps")
LIMIT = 60
FILES = ["checkpoint.npz", "results.json", "training.png", "weights.npz"]


def run(*args, expect=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == expect, result.output
    return result


def train(out, *args, expect=0):
    return run("train", "digits", "--scheduler", "threads", "--out", out, *args, expect=expect)


def report(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory):
    out = tmp_path_factory.mktemp("three") / "new" / "out"
    result = train(out, "--epochs", 3)
    return out, result


def test_train_digits(three_epochs):
    out, result = three_epochs
    assert sorted(p.name for p in out.iterdir()) == FILES
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG\r\n")
    written = report(out)
    assert f"Test accuracy {written['test_accuracy']:.4f} after 3 epochs" in result.stdout
    assert written["job"] == "train digits"
    assert (written["scheduler"], written["samples"], written["test_samples"]) == ("threads", 1257, 540)
    assert (written["seconds"] > 0, written["resumed_from"]) == (True, 0)
    assert written["wall_seconds"] > written["seconds"]
    assert (written["cpu_seconds"] > 0, written["cpu_seconds_of"]) == (True, "all processes")
    took = f"the job took {written['wall_seconds']:.1f} s, {written['cpu_seconds']:.1f} CPU s"
    assert result.stdout.endswith(f"{took}\n")
    assert written["test_accuracy"] == written["test_accuracies"][-1] > 0.85
    for name in ("losses", "train_accuracies", "test_accuracies"):
        assert len(written[name]) == 3
    assert written["losses"][2] < written["losses"][0] / 3
    expected = {"hidden": [100], "steps": 25, "batch": 64, "epochs": 3, "shards": 4, "seed": 0, "learning_rate": 2e-3}
    assert written["settings"] == expected | {"decay": 0.9, "threshold": 1.0, "slope": 10.0}


def test_the_weights_are_a_model_for_infer(three_epochs, tmp_path):
    weights = three_epochs[0] / "weights.npz"
    digits = load_digits()
    np.savez(tmp_path / "data.npz", x=digits.x_test, y=digits.y_test)
    options = ("--scheduler", "threads", "--sng", "sobol", "--length", 256, "--quiet")
    run("infer", "digits", "--model", weights, "--out", tmp_path / "a", *options)
    run("infer", "--model", weights, "--data", tmp_path / "data.npz", "--out", tmp_path / "b", *options)
    a, b = report(tmp_path / "a"), report(tmp_path / "b")
    assert (a["job"], b["job"]) == ("infer digits weights.npz", "infer weights.npz")
    assert a["samples"] == b["samples"] == 540
    assert a["results"][0]["accuracy"] == b["results"][0]["accuracy"] > 0.85
    assert SCMLP.load(weights).layers[0].weights.shape == (100, 64)


def test_resume_gives_the_same_weights(three_epochs, tmp_path):
    whole, _ = three_epochs
    train(tmp_path, "--epochs", 1, "--quiet")
    result = train(tmp_path, "--epochs", 3, "--resume")
    assert "after 3 epochs, 2 of them in" in result.stdout
    with np.load(whole / "checkpoint.npz") as a, np.load(tmp_path / "checkpoint.npz") as b:
        assert set(a) == set(b)
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    same = ("losses", "train_accuracies", "test_accuracies", "settings")
    assert [report(whole)[name] for name in same] == [report(tmp_path)[name] for name in same]
    assert report(tmp_path)["resumed_from"] == 1


def test_an_old_checkpoint_is_kept_without_resume(three_epochs, tmp_path):
    old, new = tmp_path / "out", tmp_path / "out-2"
    old.mkdir()
    (old / "checkpoint.npz").write_bytes((three_epochs[0] / "checkpoint.npz").read_bytes())
    assert (
        train(old, "--epochs", 1, "--seed", 3, "--quiet").output
        == f"{old} holds a run already: this one is written to {new}\n"
    )
    assert snn.load_checkpoint(new / "checkpoint.npz", snn.Settings(epochs=1, seed=3)).epoch == 1
    assert [path.name for path in old.iterdir()] == ["checkpoint.npz"]


def test_resume_needs_a_checkpoint_that_fits(three_epochs, tmp_path):
    result = train(tmp_path / "none", "--resume", expect=1)
    assert f"there is no checkpoint {tmp_path / 'none' / 'checkpoint.npz'} to resume from" in result.output
    assert not (tmp_path / "none").exists()
    result = train(three_epochs[0], "--resume", "--batch", 32, expect=1)
    assert "was made with batch = 64, not 32" in result.output
    result = train(three_epochs[0], "--resume", "--hidden", "20,30", expect=1)
    assert "was made with hidden = (100,), not (20, 30)" in result.output
    result = train(three_epochs[0], "--resume", "--epochs", 2, expect=1)
    assert "has 3 epochs already, not 2" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "Missing argument"),
        (["letters"], "letters"),
        (["digits", "--epochs", "0"], "0"),
        (["digits", "--hidden", "100,0"], "0"),
        (["digits", "--hidden", ""], "integer"),
        (["digits", "--steps", "x"], "x"),
        (["digits", "--workers", "0"], "0"),
    ],
)
def test_wrong_options(args, message):
    assert message in run("train", *args, expect=2).output


def test_a_wrong_learning_rate(tmp_path):
    assert "learning_rate is finite and above 0, not -1.0" in train(tmp_path, "--learning-rate", -1, expect=1).output


@pytest.mark.parametrize(
    ("package", "extra"), [("jax", "jax"), ("optax", "jax"), ("sklearn", "apps"), ("matplotlib", "apps")]
)
def test_a_missing_extra_says_what_to_install(tmp_path, monkeypatch, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    assert train(tmp_path, expect=1).output == (
        f"Error: {package} is not installed; pip install 'scdask[{extra}]' brings it\n"
    )


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot write to" in train(tmp_path / "file" / "out", expect=1).output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])  # SIGINT goes the way of SIGHUP
def test_an_interrupted_training_can_be_resumed(tmp_path, number):
    """A terminal sends Ctrl-C and SIGHUP to the whole group, a batch system SIGTERM to the job."""
    args = ["train", "digits", "--out", str(tmp_path), "--epochs", "100000", "--workers", "1"]
    job = subprocess.Popen(
        [sys.executable, "-m", "scdask", *args], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    checkpoint = tmp_path / "checkpoint.npz"
    try:
        assert "dashboard: http://127.0.0.1:" in job.stderr.readline()
        deadline = time.monotonic() + LIMIT
        while not checkpoint.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(0.5)
        assert job.poll() is None
        family = psutil.Process(job.pid).children(recursive=True)
        assert len(family) >= 2
        if number != signal.SIGTERM:
            os.killpg(job.pid, number)
        else:
            job.send_signal(number)
        said = job.communicate(timeout=LIMIT)[1].split("\n")
        # Between our lines a worker of Dask may tell of its task, and joblib of the tracker that SIGHUP has ended.
        written, stopped = f"Written: {checkpoint}, from which --resume goes on", f"Stopped by {number.name}."
        assert [line for line in said if line in (written, stopped)] == [written, stopped]
        assert job.returncode == 128 + number
        _, alive = psutil.wait_procs(family, timeout=15)
        assert not alive
        assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.npz"]
    finally:
        if job.poll() is None:
            job.kill()
    done = snn.load_checkpoint(checkpoint, snn.Settings(epochs=100000)).epoch
    train(tmp_path, "--epochs", done + 1, "--resume", "--quiet")
    assert sorted(p.name for p in tmp_path.iterdir()) == FILES
    assert (report(tmp_path)["resumed_from"], len(report(tmp_path)["losses"])) == (done, done + 1)

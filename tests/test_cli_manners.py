"""What the commands of several jobs have in common: what they check first, and how they end."""

import csv
import io
import json
import os
import signal
import threading
from itertools import chain

import click
import numpy as np
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from rich.console import Console

from scdask import SCMLP, BitstreamError
from scdask.cli import main
from scdask.cli.bench import BUSY
from scdask.cli.running import keep_open, refuse_ranks
from scdask.computing import Place
from scdask.jobs.bench import Case
from scdask.jobs.infer import generators, part_of, run, settings
from scdask.jobs.inferences import most_cycles
from scdask.limits import Limits
from scdask.mpi_driver.launch import LAUNCHERS, RANKS

X = np.random.default_rng(3).random((40, 6))


@pytest.fixture
def perceptron():
    rng = np.random.default_rng(4)
    return SCMLP.from_arrays([rng.normal(size=(3, 6))], [np.zeros(3)], calibration=X, classes=["a", "b", "c"])


@pytest.fixture
def files(tmp_path, perceptron):
    """The options that name a model and data."""
    perceptron.save(tmp_path / "model.npz")
    np.savez(tmp_path / "data.npz", x=X, y=perceptron.predict_float(X))
    return ["--model", tmp_path / "model.npz", "--data", tmp_path / "data.npz"]


def call(*args, expect=0):
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exit_code == expect, result.output
    return " ".join(result.output.split())


def test_ctrl_c_before_a_job_begins(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Group, "invoke", interrupted)
    assert call("infer", "digits", expect=130) == "Stopped by SIGINT."


# processes


@pytest.fixture
def alone(monkeypatch):
    for name in (*LAUNCHERS, *RANKS, "SLURM_PROCID", "SLURM_PTY_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("job", ["infer", "train", "sweep"])
def test_ranks_that_would_each_do_the_whole_job(monkeypatch, alone, job):
    for names in (
        ("PMI_SIZE", "PMI_RANK"),
        ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ):
        with monkeypatch.context() as launcher:
            launcher.setenv(names[0], "2")
            launcher.setenv(names[1], "0")
            assert "2 processes were launched together, and each would do" in call(job, "digits", expect=2)
            launcher.setenv(names[1], "1")
            assert call(job, "digits", "--scheduler", "threads", expect=2) == ""  # One rank says it.
            refuse_ranks("mpi")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    monkeypatch.setenv("SLURM_PTY_PORT", "1234")
    refuse_ranks("local")  # A shell that srun has started is no rank.


# order


@pytest.fixture
def no_cluster(monkeypatch):
    def refuse(*args):
        raise AssertionError("a scheduler was opened")

    monkeypatch.setattr("scdask.cluster.open_scheduler", refuse)


@pytest.mark.component("apps")
def test_what_does_not_fit_is_told_before_a_cluster_starts(tmp_path, files, no_cluster):
    model, data = files[1], files[3]
    out = ["--out", tmp_path / "out"]
    said = call("infer", "digits", "--model", model, *out, expect=1)
    assert said == f"Error: the model {model} takes x (samples, 6), not (1257, 64)"
    np.savez(data, x=X[:, :5], y=np.zeros(40))
    said = call("infer", "--model", model, "--data", data, *out, expect=1)
    assert said == f"Error: the model {model} takes x (samples, 6), not (40, 5)"
    np.savez(data, x=X, y=np.full(40, "z"))
    assert "the data have the label z" in call("infer", "--model", model, "--data", data, *out, expect=1)
    said = call("infer", "--model", model, "--data", data, "--predictions", tmp_path / "labels.txt", expect=2)
    assert "--predictions takes a .csv or .npz file" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.component("jax")
@pytest.mark.component("apps")
def test_a_checkpoint_that_is_none_is_told_before_a_cluster_starts(tmp_path, no_cluster):
    call("train", "digits", "--resume", "--out", tmp_path, expect=1)


# predictions


@pytest.mark.component("apps")
def test_predictions_are_those_of_each_setting(tmp_path, files, perceptron):
    which = ["--sng", "sobol,lfsr", "--length", "16,64", "--scheduler", "threads", "--out", tmp_path / "out"]
    for kind in ("csv", "npz"):
        said = call("infer", *files, *which, "--predictions", tmp_path / "new" / f"labels.{kind}")
        assert f"labels.{kind}" in said.partition("Written:")[2]
    said = call("infer", *files, *which, "--predictions", tmp_path / "new" / "labels.csv")
    assert "labels-2.csv" in said.partition("Written:")[2]  # Nothing is overwritten.
    todo = settings(["sobol", "lfsr"], [16, 64], "split")
    expected = [
        perceptron.with_generators(generators(s.sng, s.seed, 1), s.mode).predict(X, s.length).tolist() for s in todo
    ]
    right = perceptron.predict_float(X).tolist()
    with np.load(tmp_path / "new" / "labels.npz") as arrays:
        assert arrays["label"].tolist() == right
        assert arrays["prediction"].tolist() == expected
        columns = zip(*(arrays[name].tolist() for name in ("sng", "length", "seed", "mode")), strict=True)
        assert list(columns) == [(s.sng, s.length, s.seed, s.mode) for s in todo]
    with (tmp_path / "new" / "labels.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head[:3] == ["sample", "label", "sobol N=16 seed=0 split"]
    assert rows == [[str(i), *map(str, row)] for i, row in enumerate(zip(right, *expected, strict=True))]
    found = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [r["accuracy"] for r in found] == [np.mean(np.array(labels) == right) for labels in expected]


# parts, and what is left


def written(folder):
    """What results.json says, without the clock."""
    report = json.loads((folder / "results.json").read_text())
    for name in ("results", "early_exit"):
        report[name] = [{key: r[key] for key in r if "second" not in key} for r in report[name]]
    return {key: report[key] for key in report if "second" not in key}


@pytest.mark.component("apps")
def test_parts_are_put_together(tmp_path, files):
    asked = [*files, "--sng", "sobol,lfsr", "--length", "16,64", "--repeat", 2, "--stop", "cycles=32"]
    asked += ["--scheduler", "threads", "--out"]
    call("infer", *asked, tmp_path / "whole", "--quiet")
    assert "nor one of a part" in call("infer", *asked, tmp_path / "out", "--resume", expect=1)
    assert not (tmp_path / "out").exists()
    for number in (1, 2, 3):
        said = call("infer", *asked, tmp_path / "out", "--part", f"{number}/3")
        assert said.endswith("Once all 3 parts are done, --resume in place of --part puts them together.")
        assert [path.name for path in (tmp_path / "out" / f"part-{number}-of-3").iterdir()] == ["results.json"]
    (tmp_path / "out" / "part-2-of-3" / "results.json").unlink()  # It is done again.
    call("infer", *asked, tmp_path / "out", "--resume", "--quiet")
    assert written(tmp_path / "out") == written(tmp_path / "whole")
    assert (tmp_path / "out" / "accuracy.png").is_file()
    others = [*asked, tmp_path / "out", "--resume"]
    assert "it has sobol, 16 cycles, seed 0, split, which is" in call("infer", *others, "--sng", "lfsr", expect=1)
    (tmp_path / "out" / "results.json").write_text("{}")
    assert "results.json is no results.json of scdask infer" in call("infer", *others, expect=1)
    report = json.loads((tmp_path / "whole" / "results.json").read_text()) | {"scdask": "0.0"}
    (tmp_path / "out" / "results.json").write_text(json.dumps(report))
    assert "is of another job: its scdask is 0.0, not" in call("infer", *others, expect=1)
    for options in (["--part", "1/3"], ["--resume"]):
        said = call("infer", *asked, tmp_path / "out", "--predictions", tmp_path / "labels.csv", *options, expect=2)
        assert "--predictions are those of a whole job" in said


def test_each_part_has_about_as_many_cycles():
    todo = settings(["sobol", "lfsr", "bernoulli"], [16, 64, (256, 1024)], "split", repeat=5)
    parts = [part_of(todo, number, 4) for number in (1, 2, 3, 4)]
    assert sorted(todo, key=repr) == sorted(chain(*parts), key=repr)
    assert all(part == [setting for setting in todo if setting in part] for part in parts)
    loads = [sum(most_cycles(setting.length) for setting in part) for part in parts]
    assert max(loads) - min(loads) <= 1024


@pytest.mark.component("apps")
def test_a_job_that_was_killed_is_resumed(tmp_path, files, monkeypatch):
    asked = [*files, "--sng", "sobol", "--length", "16,64", "--repeat", 3, "--scheduler", "threads", "--quiet", "--out"]
    done = []

    def two_of_them(*args, **options):
        for result in run(*args, **options):
            done.append(result)
            yield result
            if len(done) == 2:
                assert written(tmp_path)["settings_left"] in (4, 5)  # It is written as it comes.
                raise BitstreamError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr("scdask.jobs.infer.run", two_of_them)
        call("infer", *asked, tmp_path, expect=1)
    before = json.loads((tmp_path / "results.json").read_text())
    call("infer", *asked, tmp_path, "--resume")
    after = json.loads((tmp_path / "results.json").read_text())
    assert (before["settings_left"], after["settings_left"]) == (4, 0)
    assert before["results"] == after["results"][:2]  # with their seconds
    assert len(after["results"]) == 6


def test_what_a_job_runs_is_loaded_before_it_is_timed(perceptron, monkeypatch):
    done = []
    place = Place("threads", 1)
    monkeypatch.setattr(Place, "run_everywhere", lambda self, function: done.append(function()))
    monkeypatch.setattr(Place, "compute", lambda self, lazy: done.append(lazy) or lazy.compute())
    todo = settings(["sobol", "halton"], [64, 16], "split")
    results = list(run(perceptron, X, perceptron.predict_float(X), todo, place))
    assert [(r.sng, r.length) for r in results] == [("sobol", 64), ("sobol", 16), ("halton", 64), ("halton", 16)]
    assert done[0] is None  # on every worker
    assert len(done) == 2 + len(todo)  # and one input here


# the end


@pytest.mark.parametrize("how", ["Enter", "Ctrl-C"])
def test_a_dashboard_stays_open_until_it_was_looked_at(monkeypatch, how):
    text = io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO("\n" if how == "Enter" else ""))
    before = signal.getsignal(signal.SIGINT)
    if how == "Ctrl-C":
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    keep_open(Console(file=text), Place("local", 1, "http://127.0.0.1:1/status"))
    assert "stays open until Enter or Ctrl-C" in text.getvalue()
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.component("apps")
def test_without_a_dashboard_nobody_waits(tmp_path, files):
    which = ["--sng", "sobol", "--length", "16", "--scheduler", "threads", "--out", tmp_path / "out"]
    assert call("infer", *files, *which, "--keep-open").endswith("There is no dashboard to keep open.")


def test_a_busy_machine_is_told(monkeypatch):
    case = Case("sum", {"scdask": lambda: sum(range(1000))}, 1e4, {"read_near": 1.0})
    monkeypatch.setattr("scdask.jobs.bench.cases", lambda peers: iter([case]))
    for limit, busy in ((1e12, False), (1e-3, True)):
        limits = Limits(**dict.fromkeys(Limits.__annotations__, limit) | {"form": "tree"})
        monkeypatch.setattr("scdask.limits.measure_limits", lambda limits=limits: limits)
        assert (BUSY.partition(": ")[2][:40] in call("bench", "--seconds", "0.01", "--quiet")) is busy
        assert json.loads(call("bench", "--seconds", "0.01", "--json", "--quiet"))["busy"] is busy


# completion


@pytest.mark.parametrize(
    ("args", "incomplete", "completed"),
    [
        (["infer", "--sng"], "so", ["sobol"]),
        (["infer", "--sng"], "sobol,l", ["sobol,lfsr"]),
        (["infer", "--sng"], "sobol,", [f"sobol,{name}" for name in ("halton", "lfsr", "bernoulli", "shared")]),
        (["train", "--scheduler"], "", ["local", "threads", "cuda", "mpi", "slurm"]),
        (["infer", "--scheduler"], "t", ["threads"]),
        (["infer", "--keep"], "--keep", ["--keep-open"]),
    ],
)
def test_the_shell_completes_names(args, incomplete, completed):
    items = ShellComplete(main, {}, "scdask", "_SCDASK_COMPLETE").get_completions(args, incomplete)
    assert [item.value for item in items] == completed


def test_the_shell_completes_files_where_no_name_fits():
    (item,) = ShellComplete(main, {}, "scdask", "_SCDASK_COMPLETE").get_completions(["infer", "--scheduler"], "./s")
    assert (item.type, item.value) == ("file", "./s")

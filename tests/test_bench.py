import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from scdask import ScdaskError
from scdask.cli import main
from scdask.jobs.bench import Case, _encoding, cases, check, measure
from scdask.jobs.machine import LEVELS, Machine, cores_of, level, this_machine
from scdask.limits import Limits, arithmetic_forms

LIMITS = Limits(**dict.fromkeys(Limits.__annotations__, 1e12) | {"form": "tree"})


def test_a_case_is_measured_against_its_runs_and_limits():
    runs = {"scdask": lambda: sum(range(10_000)), "twice": lambda: (sum(range(10_000)), sum(range(10_000)))[0]}
    speed = measure(Case("sum", runs, 1e4, {"read_near": 1e6, "write_near": 1e6}), LIMITS, seconds=0.1)
    assert speed.rate == pytest.approx(1e4 / speed.seconds["scdask"] / 1e9)
    assert speed.ratios == {"twice": speed.seconds["twice"] / speed.seconds["scdask"]}
    assert speed.share == pytest.approx(2e-6 / speed.seconds["scdask"])
    assert speed.limits == ("read_near", "write_near")


def test_results_that_differ_are_an_error():
    case = Case("sum", {"scdask": lambda: np.arange(3), "other": lambda: [0, 1, 3]}, 1, {})
    with pytest.raises(ScdaskError, match="other and scdask do not agree on sum"):
        check(case)
    check(replace(case, comparable=False))


def test_the_first_cases_agree():
    for _, case in zip(range(4), cases(), strict=False):
        check(case)


@pytest.mark.slow
def test_bench(monkeypatch):
    timed = []

    def measured(case, *args):
        timed.append(SimpleNamespace(name=case.name, speed=measure(case, *args)))
        return timed[-1].speed

    monkeypatch.setattr("scdask.jobs.bench.measure", measured)
    result = CliRunner().invoke(main, ["bench", "--json", "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["packages"].keys() >= {"numpy", "numba"}
    assert report["limits"].pop("form") in arithmetic_forms(0.001)
    assert all(rate > 0 for rate in report["limits"].values())
    names = [kernel["case"] for kernel in report["kernels"]]
    assert len(set(names)) == len(names) > 25
    assert report["cores"] is None or report["cores"] <= report["threads"]
    for kernel in report["kernels"]:
        assert kernel["share"] > 0
        assert kernel["rate"] > 0
    # The table of the same speeds.
    monkeypatch.setattr("scdask.limits.measure_limits", lambda: LIMITS)
    monkeypatch.setattr("scdask.jobs.bench.cases", lambda peers: timed)
    monkeypatch.setattr("scdask.jobs.bench.measure", lambda case, limits, seconds: case.speed)
    table = CliRunner().invoke(main, ["bench"], env={"COLUMNS": "200"})
    assert all(name in table.stdout for name in names)


def test_encoding_is_timed_beside_memset():
    found = {case.name: case.runs for case in _encoding(np.random.default_rng(), False) if "memset" in case.runs}
    assert [name.split(", ")[1] for name in found] == ["N = 64", "N = 256", "N = 1024", "N = 4096"]
    assert all(runs["scdask"]().nbytes == 2**19 for runs in found.values())


def added_up_to(name):
    names = list(LEVELS)
    return {feature for below in names[: names.index(name) + 1] for feature in LEVELS[below]}


def test_the_level_is_the_highest_of_which_no_feature_is_missing():
    for name in LEVELS:
        assert level(added_up_to(name)) == name
    everything = added_up_to("x86-64-v4")
    assert level(everything | {"avx512vpopcntdq"}) == "x86-64-v4 with vpopcntdq"
    assert level(everything - {"avx512vl"} | {"avx512vpopcntdq"}) == "x86-64-v3"
    assert level(everything - {"fma"}) == "x86-64-v2"
    assert level(everything - {"popcnt"}) == "x86-64"
    assert level({"neon", "aes", "sve"}) == "neon, sve"
    assert level(set()) == ""


def test_cores_are_counted_by_the_threads_that_share_them(tmp_path):
    for thread, siblings in enumerate(["0,2", "1,3", "0,2", "1,3"]):
        folder = tmp_path / f"cpu{thread}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert [cores_of(threads, tmp_path) for threads in ([0, 1, 2, 3], [0, 2], [0, 1])] == [2, 1, 2]
    assert cores_of([0, 4], tmp_path) is None


def test_the_kind_of_a_machine_is_one_line():
    machine = Machine("Fast 3000", 2, 4, "x86-64-v4 with vpopcntdq", "x86-64-v4 with vpopcntdq")
    assert str(machine) == "Fast 3000, 4 hyperthreads of 2 cores, x86-64-v4 with vpopcntdq"
    assert str(replace(machine, threads=2)).startswith("Fast 3000, 2 cores, ")
    assert str(replace(machine, cores=1, threads=1)).startswith("Fast 3000, 1 core, ")
    assert str(replace(machine, cores=None)).startswith("Fast 3000, 4 processor threads, ")
    assert str(replace(machine, compiled_for="x86-64-v3")).endswith("with vpopcntdq, kernels compiled for x86-64-v3")
    here = this_machine()
    assert here.threads >= (here.cores or 1)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Run `scdask bench` with kernels of two names, compared with a file of some content."""
    monkeypatch.setattr("scdask.limits.measure_limits", lambda: LIMITS)

    def bench(*args, names=("sum", "MAC [64]"), saved=None):
        timed = [Case(name, {"scdask": lambda: sum(range(100))}, 1e4, {"read_near": 1.0}) for name in names]
        monkeypatch.setattr("scdask.jobs.bench.cases", lambda peers: iter(timed))
        if saved is not None:
            (tmp_path / "saved.json").write_bytes(saved)
            args = (*args, "--compare", str(tmp_path / "saved.json"))
        return CliRunner().invoke(main, ["bench", "--seconds", "0.01", "--quiet", *args], env={"COLUMNS": "160"})

    return bench


def test_a_run_is_compared_with_a_saved_one(bench):
    report = json.loads(bench("--json").stdout)
    assert "compared" not in report
    for kernel in report["kernels"]:
        kernel["rate"] /= 1e6
    report |= {"processor": "Other 2", "scdask": "0.0.9"}
    saved = json.dumps(report).encode()
    compared = json.loads(bench("--json", names=("MAC [64]", "new"), saved=saved).stdout)
    mac, new = compared["kernels"]
    assert mac["compared"] == pytest.approx(mac["rate"] / report["kernels"][1]["rate"])
    assert new["compared"] is None
    known = {"file": "saved.json", "scdask": "0.0.9", "processor": "Other 2"}
    assert compared["compared"] == known | {"only_here": ["new"], "only_there": ["sum"]}
    text = bench(names=("MAC [64]", "new"), saved=saved).stdout
    assert "speed-up" in text
    said = " ".join(text.split())
    assert "Speed-up: the speed over that in saved.json, of scdask 0.0.9 on Other 2." in said
    assert "Only here: new. Only there: sum." in said
    assert "Only" not in bench(saved=saved).stdout


def test_a_report_of_0_1_0_can_be_compared(bench):
    saved = b'{"scdask": "0.1.0", "processor": "X (avx2)", "kernels": [{"case": "sum", "rate": 2.0}]}'
    assert bench(saved=saved).exit_code == 0


@pytest.mark.parametrize(
    "saved",
    [
        b"",
        b"\xff",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"scdask": "1", "processor": "X", "kernels": []}',
        b'{"scdask": "1", "processor": "X", "kernels": [1]}',
        b'{"scdask": "1", "processor": "X", "kernels": [{"case": "sum"}]}',
        b'{"scdask": "1", "processor": "X", "kernels": [{"case": "sum", "rate": 0}]}',
        b'{"scdask": "1", "processor": "X", "kernels": [{"case": "sum", "rate": NaN}]}',
        b'{"scdask": "1", "processor": "X", "kernels": [{"case": "sum", "rate": "fast"}]}',
        b'{"scdask": "1", "processor": "X", "kernels": [{"case": "sum", "rate": 1%s}]}' % (b"0" * 400),
        b'{"processor": "X", "kernels": [{"case": "sum", "rate": 1}]}',
    ],
)
def test_a_file_that_is_no_report_is_refused_before_anything_is_timed(bench, saved):
    result = bench(saved=saved)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.endswith("saved.json holds no speeds of kernels that `scdask bench --json` printed\n")


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numkong", None)
    result = CliRunner().invoke(main, ["bench", "--peers", "--seconds", "0.01"])
    assert result.exit_code == 1
    assert "pip install 'scdask[bench]'" in result.output

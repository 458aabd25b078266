import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from scdask import ScdaskError
from scdask.cli import main
from scdask.jobs.bench import Case, cases, check, measure
from scdask.limits import Limits

LIMITS = Limits(**dict.fromkeys(Limits.__annotations__, 1e12))


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
def test_bench():
    result = CliRunner().invoke(main, ["bench", "--json", "--seconds", "0.01"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["packages"].keys() >= {"numpy", "numba"}
    assert all(rate > 0 for rate in report["limits"].values())
    names = [kernel["case"] for kernel in report["kernels"]]
    assert len(set(names)) == len(names) > 25
    for kernel in report["kernels"]:
        assert kernel["share"] > 0
        assert kernel["rate"] > 0
    table = CliRunner().invoke(main, ["bench", "--seconds", "0.01"], env={"COLUMNS": "200"})
    assert all(name in table.stdout for name in names)


def test_peers_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "numkong", None)
    result = CliRunner().invoke(main, ["bench", "--peers", "--seconds", "0.01"])
    assert result.exit_code == 1
    assert "pip install 'scdask[bench]'" in result.output

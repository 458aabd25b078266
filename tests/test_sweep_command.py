"""`scdask sweep`: the files that it writes, and that it goes on where it was stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scdask import sweep
from scdask.cli import main
from scdask.sweeps import open_sweep
from scdask.sweeps.config import read_config
from scdask.sweeps.jobs import make_job
from scdask.sweeps.jobs.product import errors_of_gate
from scdask.sweeps.tables import crossed, in_order, markdown, renewed, with_half

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.component("zarr"), pytest.mark.component("apps")]

CONFIG = """
title = "Products"
job = "product"
pairs = 50
[over]
sng = ["sobol", "bernoulli"]
length = [64, 16]
seed = 4
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a campaign, where the commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(CONFIG)
    return tmp_path


def call(*args, expect=0):
    result = CliRunner().invoke(main, ["sweep", *map(str, args)])
    assert result.exit_code == expect, result.output
    return " ".join(result.output.split())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def is_png(path):
    return path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_store_table_and_figure(here):
    import pandas as pd

    said = call("mine.toml")
    assert " Products ┏" in said
    assert "gate and, fault 0.0. ±: half of the 95 % interval." in said
    assert "16 cells: 16 computed now, 0 were there, 0 failed." in said
    assert "Written: results/mine.zarr, results/mine.csv, results/mine.png" in said
    assert names(here / "results") == ["mine.csv", "mine.png", "mine.zarr"]
    assert is_png(here / "results" / "mine.png")
    job = make_job("product", {"pairs": 50}, read_config("mine.toml").over, here)
    expected = sweep(job.function, over=job.over, data=job.data)
    table = pd.read_csv("results/mine.csv")
    assert [*table][:5] == ["gate", "sng", "length", "fault", "rmse_mean"]
    assert len(table) == 4
    for row in table.to_dict("records"):
        of_row = expected.sel({name: row[name] for name in ("gate", "sng", "length", "fault")})
        for end in ("mean", "low", "high", "samples"):
            assert row[f"rmse_{end}"] == pytest.approx(float(of_row[f"rmse_{end}"]), rel=1e-12)
    assert open_sweep("results/mine.zarr").attrs["title"] == "Products"
    # Nothing is done twice, and more values of axes are new cells.
    said = call("mine.toml", "--over", "length=16,256", "--over", "seed=5", "--quiet")
    assert said == ""
    said = call("mine.toml", "--over", "length=16,256", "--over", "seed=5")
    assert "28 cells: 0 computed now, 28 were there, 0 failed." in said
    assert pd.read_csv("results/mine.csv").length.tolist() == 2 * [16, 64, 256]
    said = call("mine.toml", "--until", "rmse=0.01")
    assert (pd.read_csv("results/mine.csv").query("length != 256").eval("rmse_high - rmse_low") <= 0.02).all()
    assert "results/mine.zarr is of another campaign" in call("mine.toml", "--set", "pairs=60", expect=1)


def test_what_a_store_says_and_shows(here):
    call("mine.toml", "--quiet")
    said = call("--status", "results/mine.zarr")
    assert "Products: 16 of 16 cells done, 0 failed, 0 left, of which 0 are claimed; no job at work." in said
    assert f"{os.getpid()}" in said
    assert "Written: drawn/mine.csv, drawn/mine.png" in call("--plot", "results/mine.zarr", "--out", "drawn")
    heat = ["--figure", "kind=heat map", "--figure", "metric=bias"]
    call("--plot", "results/mine.zarr", "--out", "heat", *heat)
    assert is_png(here / "heat" / "mine.png")
    for wrong, message in (("colour=red", "the figure has no colour, but metric, x"), ("kind=pie", "not 'pie'")):
        assert message in call("--plot", "results/mine.zarr", "--figure", wrong, expect=1)
    assert (here / "heat" / "mine.png").read_bytes() != (here / "drawn" / "mine.png").read_bytes()
    said = call("--plot", "results/mine.zarr", "--out", "drawn", "--figure", "metric=psnr")
    assert "no figure: a figure shows one of the metrics rmse, bias" in said
    assert "nowhere.zarr is no store of a campaign" in call("--status", "nowhere.zarr", expect=1)


def fails(length, seed):
    if length == 64 or seed > 5:
        raise ValueError(f"{length} bits")
    return {"rmse": seed}


def test_cells_that_fail(here, monkeypatch):
    job = make_job("product", {}, {"length": [16, 64], "seed": [0, 1, 2]}, here)
    from dataclasses import replace

    over = {"length": [16, 64], "seed": [0, 1, 2]}
    failing = replace(job, function=fails, data=None, over=over, where=None, cost=None)
    monkeypatch.setattr("scdask.sweeps.jobs.make_job", lambda *args: failing)
    said = call("mine.toml")
    assert "6 cells: 6 computed now, 0 were there, 3 failed." in said
    assert "Failed: length 64, seed 0: ValueError: 64 bits Failed: 2 more" in said
    assert "1 failed" not in call("--status", "results/mine.zarr").partition("Jobs")[0].replace("3 failed", "")
    failing.over["length"] = [64]
    said = call("mine.toml", "--out", "other", expect=1)
    assert "Error: all 3 cells failed, the first with ValueError: 64 bits" in said
    assert names(here / "other") == ["mine.zarr"]
    assert "3 computed now" in call("mine.toml", "--out", "other", "--retry", expect=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job = ", "is no TOML file that can be read: "),
        ('job = "product"', "over is a table of axes, such as length = [16, 64], and has none"),
        ("[over]\nlength = [16]", "job is missing"),
        ("job = 3\n[over]\nlength = [16]", "job is a text, not 3"),
        ('job = "sums"\n[over]\nlength = [16]', "mine.toml: job is one of infer, product, circuit, image, not 'sums'"),
        ('job = "product"\nover = 3', "over is a table, not 3"),
        ('job = "product"\n[over]\nlength = []', "over.length is a list of one value or more, not []"),
        ('job = "product"\n[over]\nlength = 16', "over.length is a list of one value or more, not 16"),
        ('job = "product"\n[over]\nlength = [{}]', "over.length is a list of numbers, texts or lists"),
        ('job = "product"\n[over]\nseed = 0', "over.seed is a number of seeds from 1 to 1,000,000, not 0"),
        ('job = "product"\n[over]\nlength = [16]\n[until]\nrmse = 0', "until.rmse is half of the width of an interval"),
        ('job = "product"\n[over]\nlength = [16]\n[figure]\ny = "x"', "figure.y is no key, those of figure are metric"),
        (
            'job = "product"\n[over]\nlength = [16]\n[figure]\nkind = "pie"',
            "figure.kind is 'lines' or 'heat map', not 'pie'",
        ),
        ('job = "product"\n[over]\nlength = [16]\n[figure]\nx = "size"', "x is one of the axes "),
        ('job = "product"\nsize = 3\n[over]\nlength = [16]', "size"),
    ],
)
def test_wrong_configurations(here, text, message):
    (here / "mine.toml").write_text(text)
    said = call("mine.toml", expect=1)
    assert message in said
    assert names(here) == ["mine.toml"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give a file CONFIG.toml, or one of "),
        (["mine.toml", "--status", "x.zarr"], "give one of CONFIG, --status and --plot"),
        (["mine.toml", "--only", "digits"], "--only goes with readme"),
        (
            ["--status", "x.zarr", "--figure", "x=length"],
            "--status takes no options of a campaign, and --plot none but",
        ),
        (["--plot", "x.zarr", "--until", "0.1"], "--status takes no options of a campaign, and --plot none but"),
        (["--plot", "x.zarr", "--retry"], "--status takes no options of a campaign, and --plot none but"),
        (["readme", "--until", "0.1"], "readme runs the campaigns as they are"),
        (["readme", "--only", "nothing"], "--only takes one of"),
        (["mine.toml", "--over", "length"], "'length' is no key=value"),
        (["mine.toml", "--until", "rmse=0"], "half of the width of an interval is a number above 0, not 0"),
        (["mine.toml", "--until", "nan"], "half of the width of an interval is a number above 0, not nan"),
    ],
)
def test_wrong_options(here, args, message):
    assert message in call(*args, expect=2)
    assert names(here) == ["mine.toml"]


def test_a_file_that_is_not_there(here):
    assert "there is no file yours.toml, and no campaign of that name" in call("yours.toml", expect=1)


def test_values_of_the_command_line(here):
    from scdask.cli.sweep import changes_of

    changes = changes_of(
        (("length", "16,64/256"), ("seed", "3"), ("sng", "sobol")), (("pairs", "7"), ("name", "a b")), (), ()
    )
    read = read_config("mine.toml", changes)
    assert read.over == {"sng": ["sobol"], "length": [16, (64, 256)], "seed": [0, 1, 2]}
    assert read.options == {"pairs": 7, "name": "a b"}


def test_the_tables_of_the_readme_are_renewed(here, monkeypatch):
    (here / "shipped").mkdir()
    for name in ("one", "two"):
        (here / "shipped" / f"{name}.toml").write_text(CONFIG)
    monkeypatch.setattr("scdask.sweeps.config.SHIPPED", here / "shipped")
    page = "# A\n\n<!-- sweep one -->\nold\n<!-- end sweep -->\nkept\n<!-- sweep three -->\n<!-- end sweep -->\n"
    (here / "README.md").write_text(page)
    said = call("readme", "--only", "one")
    assert "Written: results/one.md, README.md" in said
    table = (here / "results" / "one.md").read_text()
    assert (here / "README.md").read_text() == page.replace("old\n", table)
    head, line, *rows = table.splitlines()
    assert head.split() == ["|", "generator", "|", "N", "=", "16", "|", "N", "=", "64", "|"]
    assert line.startswith("| ---")
    assert [row.split()[1] for row in rows] == ["sobol", "bernoulli"]
    assert len({len(row) for row in (head, line, *rows)}) == 1
    assert "±" in rows[0]
    call("readme", "--quiet")
    assert (here / "results" / "two.csv").read_bytes() == (here / "results" / "one.csv").read_bytes()


@pytest.mark.slow
def test_the_tables_of_this_package_are_what_the_command_writes(tmp_path, monkeypatch):
    """Of those whose numbers are bits alone, and no training."""
    monkeypatch.chdir(tmp_path)
    page, names = Path("benchmarks", "README.md"), ("product", "faults")
    written = (ROOT / page).read_text()
    emptied = written
    for name in names:
        emptied = renewed(emptied, name, "gone\n")
    page.parent.mkdir()
    page.write_text(emptied)
    assert emptied.count("gone") == 2
    call("readme", *(word for name in names for word in ("--only", name)), "--quiet")
    assert page.read_text() == written


def test_tables():
    assert with_half(0.97, 0.966, 0.974) == "0.970 ± 0.004"
    assert with_half(0.97, 0.97, 0.97) == with_half(0.97, np.nan, np.nan) == "0.97"
    assert with_half(0.9, 0.888, 0.912) == "0.900 ± 0.012"
    assert with_half(120, 100, 140) == "120 ± 20"
    assert with_half(np.nan, np.nan, np.nan) == ""
    assert renewed("a\n<!-- sweep x.y -->\n1\n<!-- end sweep -->", "xzy", "2\n").count("1") == 1
    found = in_order(sweep(fails, over={"length": [32, 16], "seed": [1, 2, 3]}))
    assert crossed(found) == (["", "N = 16", "N = 32"], [["rmse", "2 ± 2", "2 ± 2"]])
    found = sweep(lambda stop: {"cycles": 2.0, "worst": 0.25}, over={"stop": ["a|b", "c"]}, about={})
    assert markdown(*crossed(found)).splitlines()[:3] == [
        "| stop | cycles | worst |",
        "| ---- | -----: | ----: |",
        "| a\\|b |      2 |  0.25 |",
    ]


# stopped, and gone on with


LONG = ["mine.toml", "--over", "sng=bernoulli", "--over", "length=16", "--over", "seed=200", "--set", "pairs=20000"]


def test_a_campaign_that_is_stopped_goes_on(here):
    import pandas as pd

    command = [sys.executable, "-m", "scdask", "sweep", *LONG]
    job = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    said = ""
    while "1 job at work" not in said or ": 0 of" in said:
        assert time.monotonic() < end
        assert job.poll() is None
        time.sleep(0.2)
        result = CliRunner().invoke(main, ["sweep", "--status", "results/mine.zarr"])
        said = " ".join(result.output.split())
    assert "of 200 cells done, 0 failed" in said
    assert "at work" in said.partition("Jobs")[2]
    job.send_signal(signal.SIGTERM)
    _, error = job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    assert error.splitlines()[-1] == "Stopped by SIGTERM."
    samples = int(pd.read_csv("results/mine.csv").rmse_samples.sum())
    assert f"Written ({samples} of 200 cells): results/mine.zarr, results/mine.csv, results/mine.png" in error
    assert 0 < samples < 200
    assert names(here / "results") == ["mine.csv", "mine.png", "mine.zarr"]
    said = call(*LONG)
    assert f"200 cells: {200 - samples} computed now, {samples} were there, 0 failed." in said
    found = open_sweep("results/mine.zarr").squeeze()
    for seed in np.random.default_rng(0).integers(200, size=5):
        alone = errors_of_gate(20000, gate="and", sng="bernoulli", length=16, seed=int(seed), fault=0.0)
        assert float(found.rmse.sel(seed=seed)) == alone["rmse"]

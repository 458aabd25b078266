import doctest
import importlib
import re
import shlex
from pathlib import Path

import pytest

from scdask.cli import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


@pytest.fixture
def no_figures_left():
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


@pytest.mark.usefixtures("no_figures_left")
@pytest.mark.component("apps")
@pytest.mark.component("zarr")
@pytest.mark.component("jax")
@pytest.mark.component("mpi")
def test_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(README), module_relative=False, optionflags=doctest.REPORT_NDIFF)
    assert tried > 20
    assert failed == 0


def test_it_is_short():
    assert len(README.read_text().splitlines()) <= 250


def test_commands_and_options_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("script.py", "model.onnx", "data.npz"):
        Path(name).touch()
    text = README.read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [*re.findall(r"`([^`\n]+)`", text), *"".join(blocks).splitlines()]
    found = [shlex.split(line.partition("scdask ")[2]) for line in lines if re.search(r"(^| )scdask [a-z]", line)]
    assert {name for name, *_ in found} == {*main.commands}
    for name, *args in found:
        if args != ["--help"]:
            main.commands[name].make_context(name, args)
    known = {option for command in main.commands.values() for p in command.params for option in p.opts}
    assert {*re.findall(r"`(--[a-z-]+)", text)} <= known


def test_what_it_leads_to_is_there():
    text = README.read_text()
    for path in re.findall(r"\]\((?!https:)([^)]*)\)", text):
        assert (ROOT / path).is_file(), path
    assert {path.name for path in (ROOT / "notebooks").glob("*.ipynb")} <= {*re.findall(r"notebooks/([^)]*)\)", text)}
    for name in re.findall(r"help\((scdask[a-z_.]*)\)", text):
        assert importlib.import_module(name).__doc__

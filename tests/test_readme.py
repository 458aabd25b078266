import doctest
import re
from pathlib import Path

import pytest

from scdask.cli import bench, infer, mpi_run, sbatch, train

README = Path(__file__).parent.parent / "README.md"


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


def test_options():
    shown = set(re.findall(r"`(--[a-z-]+)", README.read_text()))
    parameters = infer.params + train.params + bench.params + sbatch.params + mpi_run.params
    known = {option for parameter in parameters for option in parameter.opts if option.startswith("--")}
    assert shown == known - {"--model", "--data"}

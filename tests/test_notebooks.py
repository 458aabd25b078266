import base64
import os
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
PNG = b"\x89PNG\r\n\x1a\n"
LIMIT = 90 * int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))  # seconds; other tests use the cores too
COMPONENTS = {
    "01-first-streams": ["apps"],
    "02-accuracy-and-length": ["apps"],
    "03-larger-than-memory": ["apps", "zarr"],
    "04-on-a-cluster": ["apps"],
    "05-spiking-digits": ["apps", "jax"],
    "06-mpi": ["apps", "mpi"],
    "07-circuits": ["apps"],
    "08-images": ["apps", "images"],
    "09-convolutional-network": ["apps", "jax", "mnist", "onnx"],
    "10-a-campaign": ["apps", "sweeps"],
}
SMALLER = {  # what a notebook says, and what is enough to run all of it
    "03-larger-than-memory": {"(4096, 1024)": "(2048, 1024)"},
    "04-on-a-cluster": {"16384": "4096", "(2048, 256)": "(1024, 256)"},
    "06-mpi": {"ranks=4": "ranks=3"},
    "09-convolutional-network": {
        "epochs=8": "epochs=2",
        "x, y = images.x_test, images.y_test": "x, y = images.x_test[:400], images.y_test[:400]",
        "images.x_train[:300], images.y_train[:300]": "images.x_train[:100], images.y_train[:100]",
    },
}

every_notebook = pytest.mark.parametrize("name", COMPONENTS)
executed = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.component(component) for component in ("notebooks", *components)])
        for name, components in COMPONENTS.items()
    ],
)


def read(name):
    import nbformat

    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def test_there_are_these():
    found = {str(path.relative_to(NOTEBOOKS)) for path in NOTEBOOKS.rglob("*.ipynb") if "checkpoint" not in str(path)}
    assert found == {f"{name}.ipynb" for name in COMPONENTS}


@every_notebook
@pytest.mark.component("notebooks")
def test_is_valid(name):
    import nbformat

    nbformat.validate(read(name))


@every_notebook
@pytest.mark.component("notebooks")
def test_begins_with_a_question_and_ends_with_an_answer(name):
    first, *_, last = read(name).cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert first.source.splitlines()[0].endswith("?")
    assert 'pip install ".[notebooks]"' in first.source
    assert last.cell_type == "code"
    assert "**Answer.**" in last.source


@every_notebook
@pytest.mark.component("notebooks")
def test_is_committed_as_it_is_written(name):
    notebook = read(name)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert cell.metadata == {}
        assert cell.id[0].isalpha()  # a name, not what an editor draws
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@executed
@pytest.mark.slow
def test_runs(name, tmp_path):
    notebook = read(name)
    for large, small in SMALLER.get(name, {}).items():
        assert any(large in cell.source for cell in notebook.cells)
        for cell in notebook.cells:
            cell.source = cell.source.replace(large, small)
    execute(notebook, tmp_path)
    outputs = [(cell.id, output) for cell in notebook.cells for output in cell.get("outputs", [])]
    complaints = [(cell, output.text) for cell, output in outputs if output.get("name") == "stderr"]
    assert complaints == []
    shown = [(cell, output.data) for cell, output in outputs if "data" in output]
    figures = [base64.b64decode(data["image/png"]) for _, data in shown if "image/png" in data]
    assert len(figures) >= 2
    assert all(figure.startswith(PNG) for figure in figures)
    cell, answer = shown[-1]
    assert cell == "answer"
    assert answer["text/markdown"].startswith("**Answer.** ")
    assert list(tmp_path.iterdir()) == []


def execute(notebook, folder):
    """Run all cells with this Python, as a user's Jupyter does."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    class ThisPython(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            return KernelSpec(argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    # ipykernel shows what child processes print, but not in a pytest. Warnings stay warnings there.
    left_out = ("PYTEST_CURRENT_TEST", "PYTHONWARNINGS")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        km=AsyncKernelManager(kernel_spec_manager=ThisPython()),
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute(env=env, cleanup_kc=True)

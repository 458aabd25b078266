"""The pages that the README leads to: `help(...)` in Python, `--help` on the command line."""

import pydoc
import re
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from scdask.cli import main

# of each page what a reader looks for
PAGES = {
    "scdask": ("0.375", "vector_ops", "scdask info"),
    "scdask.arithmetic": ("divide(", "scaled_add(", "median(", "SCC that it needs", "ones and zeros take turns"),
    "scdask.bitstream": ("class Bitstream", "open_zarr(", "Streams are indexed", "28 bits of the second are"),
    "scdask.chunked": ("Dask", "stay lazy"),
    "scdask.cluster": ("open_scheduler(", "scdask sbatch infer digits", "20 ms or more", "60 µs a block", "0.82"),
    "scdask.cluster.security": ("--encrypted", "127.0.0.1", "UCX_NET_DEVICES", "mode 0600", "without a login"),
    "scdask.computing": ("compute(", "tried again up to twice", "progress, if asked for"),
    "scdask.core.words": ("padding, and 0",),
    "scdask.correlation": ("scc(", "scc_matrix(", "at +1 it is the"),
    "scdask.dashboard": ("install(", "/scdask", "scdask_bitops_total{worker,op,backend}", "for two seconds"),
    "scdask.encoding": ("encode(", "MUX adds"),
    "scdask.errors": ("class BitstreamError",),
    "scdask.generators": (
        "class Sobol",
        "class LFSR",
        "equal ones correlate",
        "give the operands of a gate different seeds",
    ),
    "scdask.gpu_backend": (
        "to_device(",
        "to_host(",
        "have never run on a GPU",
        "compute capability 8.0 on",
        "LocalCUDACluster",
    ),
    "scdask.jax_backend": (
        "to_jax(",
        "jax_forward_pass(",
        "tested on CPUs only",
        "jax_enable_x64",
        "XLA calls the kernels for NumPy arrays",
    ),
    "scdask.jit_kernels": ("jit_vec_mac(", "NUMBA_CACHE_DIR", "10 to 15 seconds", "Fortran"),
    "scdask.faults": ("flip(", "stuck_at(", "burst(", "pure function of (seed, stream, bit)"),
    "scdask.precision": ("progressive_error(", "stability("),
    "scdask.machines": ("class Machine", "run(", "map_time(", "begin anew", "fewer rows of chunks than threads"),
    "scdask.layers": ("matmul(", "class SCSequential", "class SCMLP", "weights_0", "calibration inputs"),
    "scdask.manipulation": ("stack(", "concatenate(", "where(", "-1 is the last of them", "stream.bits[start:stop]"),
    "scdask.mpi_driver": ("class MPIDriver", "mpi_session(", "mpiexec -n 4", "TLS", "three hosts"),
    "scdask.plotting": ("plot_scc(", "plot_sweep(", "plot_raster(", "Okabe"),
    "scdask.progress": ("track(", "30 seconds"),
    "scdask.snn": ("train(", "predict(", "to_scmlp(", "class Settings", "0.976"),
    "scdask.sweeps": ("sweep(", "open_sweep(", "Wilson", "flock", "begin with five", "wilson("),
    "scdask.training": ("train(", "trained(", "clipped(", "class Settings", "straight-through", "0.969"),
    "scdask.vector_ops": ("pack_bitstream(", "vec_mac(", "Differences from `sc_neurocore.accel.vector_ops`"),
}


def page(module):
    return pydoc.plain(pydoc.render_doc(import_module(module)))


def in_one_line(text):
    return " ".join(text.split())


@pytest.mark.parametrize("module", PAGES)
def test_a_page_says_what_a_reader_looks_for(module):
    text = in_one_line(page(module))
    for phrase in PAGES[module]:
        assert phrase in text, phrase
    assert max(map(len, import_module(module).__doc__.splitlines())) <= 120


def test_every_public_module_has_a_page():
    import scdask

    modules = {name for name in dir(scdask) if isinstance(getattr(scdask, name), ModuleType)}
    assert {f"scdask.{name}" for name in modules} <= set(PAGES)
    assert modules == {*re.findall(r"^([a-z_]+)  ", scdask.__doc__, re.MULTILINE)}


def test_packed_words_have_their_public_functions_only():
    from scdask import vector_ops

    functions = page("scdask.vector_ops").partition("FUNCTIONS")[2]
    shown = {line.strip().partition("(")[0] for line in functions.splitlines() if line[4:5].isalpha() and "(" in line}
    assert shown == set(vector_ops.__all__) == set(dir(vector_ops))
    assert {"vec_and", "vec_or", "vec_xor", "vec_xnor", "vec_not", "vec_mux", "mask_tail", "popcount"} <= shown


def test_pages_can_be_read_without_optional_packages():
    code = (
        "import sys\n"
        "for package in ('jax', 'optax', 'cupy', 'matplotlib', 'bokeh', 'sklearn', 'mpi4py', 'zarr'):\n"
        "    sys.modules[package] = None\n"
        "import pydoc, scdask\n"
        "assert {'snn', 'gpu_backend', 'jax_backend', 'cluster', 'SCSequential'} <= {*dir(scdask)}\n"
        "assert 'SCSequential' in pydoc.render_doc(scdask, renderer=pydoc.plaintext)\n"
        "settings, x = scdask.snn.Settings(), [[0.0], [1.0]]\n"
        "try: next(scdask.snn.train(x, [0, 1], settings, scdask.computing.Place('here', 1)))\n"
        "except scdask.MissingBackendError as error: print(error)\n"
        "for call in (scdask.snn.forward, scdask.snn.save_checkpoint, scdask.snn.load_checkpoint):\n"
        "    try: call([x], x, settings)\n"
        "    except scdask.MissingBackendError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 4 * "jax is not installed; pip install 'scdask[jax]' brings it\n"


def commands(group=main, path=("scdask",)):
    yield " ".join(path), group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands())
SAID = {
    "scdask": ("scdask infer digits", "_SCDASK_COMPLETE=bash_source", "Ten notebooks", "jupyter lab notebooks"),
    "scdask infer": ("weights_0", "results.json holds", "0.970", "split, sobol", "Schedulers:", "SIGTERM"),
    "scdask train": ("checkpoint.npz", "0.976", "Schedulers:", "same to the last bit"),
    "scdask run": (
        "Roberts cross",
        "ReSC",
        "results.json holds",
        "edges, sobol",
        "Schedulers:",
        "black becomes 24",
        "`scdask.run` is another thing",
    ),
    "scdask sweep": (
        "digits.zarr the store",
        "seed = 20",
        "goes on when it is called again",
        "<!-- sweep digits -->",
        "take milliseconds",
        "Schedulers:",
    ),
    "scdask mpi-run": ("mpiexec -n 4", "rank 0 is the scheduler", "TLS"),
    "scdask mpi-check": ("mpiexec -n 6", "--interface ib0", "one sentence each", "to_root", "exit code is 0"),
    "scdask sbatch": ("--submit", "A minute before the time limit", "A sweep needs none of that"),
    "scdask bench": ("in about a minute", "NumPy doing the same", "benchmarks/README.md"),
    "scdask info": ("what works",),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_a_reader_looks_for(name):
    result = CliRunner().invoke(main, [*name.split()[1:], "--help"])
    assert result.exit_code == 0
    for phrase in SAID[name]:
        assert phrase in in_one_line(result.output), phrase
    assert max(map(len, result.output.splitlines())) <= 80
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name

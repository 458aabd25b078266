import subprocess
import sys

import dask.array as da
import numpy as np
import pytest

from scdask import _dispatch, errors
from scdask._extras import require
from scdask.errors import MissingBackendError, MixedArrayError


class Left(np.ndarray):
    pass


class Right(np.ndarray):
    pass


@pytest.fixture
def name_of():
    @_dispatch.array_function
    def name_of(*arrays, **options):
        """Name the backend."""
        return "numpy"

    name_of.register(Left, lambda *arrays, **options: "left")
    name_of.register(Right, lambda *arrays, **options: "right")

    def chunked(*arrays, **options):
        return "dask"

    chunked.__module__ = "scdask.chunked"
    name_of.register(da.Array, chunked)
    return name_of


def test_the_array_chooses_the_implementation(name_of):
    left, right, lazy = np.ones(2).view(Left), np.ones(2).view(Right), da.ones(2)
    assert name_of(np.ones(2)) == name_of([1, 2]) == name_of(1, option="text") == "numpy"
    assert name_of(left) == name_of(array=left) == name_of("x", left) == "left"
    assert name_of(lazy, np.ones(2)) == name_of(left, lazy, right) == name_of(np.ones(2), other=lazy) == "dask"


def test_numpy_joins_another_library_but_two_others_do_not_mix(name_of):
    assert name_of(np.ones(2), np.ones(2).view(Left)) == "left"
    with pytest.raises(MixedArrayError, match="name_of"):
        name_of(np.ones(2).view(Left), np.ones(2).view(Right))


def test_a_function_keeps_its_name_and_docstring(name_of):
    assert name_of.__name__ == "name_of"
    assert name_of.__doc__ == "Name the backend."


def test_every_error_has_a_built_in_base():
    for error, base in [
        (errors.BitstreamError, ValueError),
        (errors.MixedArrayError, TypeError),
        (errors.UnsupportedArrayError, TypeError),
        (errors.MissingBackendError, ImportError),
        (errors.SchedulerError, RuntimeError),
    ]:
        assert issubclass(error, errors.ScdaskError)
        assert issubclass(error, base)


def test_a_missing_package_says_what_to_install():
    with pytest.raises(MissingBackendError, match=r"no_such_package is not installed; pip install 'scdask\[apps\]'"):
        require("no_such_package.inside", "apps")


def test_without_jax_its_module_says_what_to_install():
    code = (
        "import sys; sys.modules['jax'] = None\n"
        "import scdask, numpy\n"
        "scdask.vector_ops.vec_popcount(numpy.ones(1, numpy.uint64))\n"
        "help(scdask)\n"
        "try: import scdask.jax_backend\n"
        "except scdask.MissingBackendError as error: print(error)"
    )
    assert "pip install 'scdask[jax]'" in run(code)


HEAVY = ("numba", "dask", "distributed", "cupy", "jax", "mpi4py", "scipy", "sklearn", "matplotlib", "zarr", "bokeh")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_nothing_heavy_loads_before_it_is_needed():
    out = run(
        "import sys, scdask\n"
        "def tell(): print(*{name.partition('.')[0] for name in sys.modules})\n"
        "tell()\n"
        "import scdask.cli\n"
        "scdask.cli.main(['infer', '--help'], standalone_mode=False)\n"
        "print('loaded'); tell()\n"
        "import scdask.layers\n"
        "print('loaded'); tell()"
    )
    package, command_line, layers = (part.split() for part in out.split("loaded"))
    assert not set(package) & set(HEAVY)
    assert not set(command_line) & set(HEAVY)
    assert not set(layers) & {"jax", "optax", "sklearn", "matplotlib", "rich"}


def test_import_takes_little_longer_than_numpy():
    code = "import time, numpy; start = time.perf_counter(); import scdask; print(time.perf_counter() - start)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_public_names():
    import scdask

    for name in scdask.__all__:
        assert getattr(scdask, name) is not None
    assert set(scdask.__all__) <= set(dir(scdask))
    with pytest.raises(AttributeError, match="nonsense"):
        scdask.nonsense  # noqa: B018

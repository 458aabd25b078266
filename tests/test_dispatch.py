import ast
import importlib.util
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import errors, vector_ops
from scdask._extras import require
from scdask.core import contract, dispatch
from scdask.core.contract import PRIMITIVES, word_ones
from scdask.core.gates import GATES
from scdask.errors import BitstreamError, MissingBackendError, MixedArrayError, UnsupportedArrayError
from scdask.vector_ops.gates import gate
from scdask.vector_ops.numbers import to_host


@pytest.fixture
def libraries(monkeypatch):
    """Arrays of two more libraries, whose backends have the same kernels as NumPy."""
    types, backends = {}, {}
    for name in ("left", "right"):
        types[name] = type("Array", (), {"__module__": f"{name}.arrays", "dtype": np.dtype(int), "shape": ()})
        package = SimpleNamespace(ARRAYS=(types[name],))
        backends[name] = type("Loaded", (dispatch.Backend,), {"load": lambda self, package=package: package})(
            name, name.title(), "no package", (name,)
        )
        monkeypatch.setitem(dispatch.BACKENDS, name, backends[name])
        monkeypatch.setitem(dispatch._OF_LIBRARY, name, backends[name])
    monkeypatch.setattr(dispatch, "_OF_TYPE", {})
    return types["left"](), types["right"]()


@pytest.fixture
def name_of(libraries):
    @dispatch.primitive()
    def name_of(*arrays, **options):
        """Name the backend."""

    for name in ("numpy", "left", "right"):
        dispatch.implementing(name)(name_of)(lambda *arrays, name=name, **options: name)
    name_of.kernels[dispatch.DASK] = lambda *arrays, **options: "dask"
    return name_of


def test_the_array_chooses_the_implementation(name_of, libraries):
    left, right = libraries
    lazy = da.ones(2)
    assert name_of(np.ones(2)) == name_of([1, 2]) == name_of(1, option="text") == name_of() == "numpy"
    assert name_of(left) == name_of(array=left) == name_of("x", left) == "left"
    assert name_of(lazy, np.ones(2)) == name_of(left, lazy, right) == name_of(np.ones(2), other=lazy) == "dask"
    assert name_of(np.ones(2).view(type("Mine", (np.ndarray,), {}))) == name_of(np.float64(1)) == "numpy"


def test_numpy_joins_another_library_but_two_others_do_not_mix(name_of, libraries):
    left, right = libraries
    assert name_of(np.ones(2), left) == name_of(left, np.ones(2)) == "left"
    with pytest.raises(MixedArrayError, match="name_of"):
        name_of(left, right)


def test_a_function_keeps_its_name_and_docstring(name_of):
    assert name_of.__name__ == "name_of"
    assert name_of.__doc__ == "Name the backend."


def test_what_a_backend_lacks_is_an_error_and_no_other_kernel(libraries):
    left, _ = libraries
    with pytest.raises(UnsupportedArrayError, match="word_ones has no kernel for Left arrays"):
        word_ones(left)


def test_what_is_no_array_of_a_library_is_refused():
    lazy = dask.delayed(np.ones(1, np.uint64))  # it has every attribute
    for func in (
        vector_ops.vec_popcount,
        lambda array: sc.encode(array, 64),
        lambda array: sc.Bitstream(array, 64),
        to_host,
    ):
        with pytest.raises(UnsupportedArrayError, match=r"no kernels for dask.*Delayed"):
            func(lazy)


def test_arrays_of_the_host_come_back_as_they_are(tmp_path):
    mapped = np.memmap(tmp_path / "file", np.uint64, "w+", shape=(2,))
    assert to_host(mapped) is mapped
    assert type(to_host(np.float64(0.5))) is np.float64
    assert type(to_host([0.5])) is np.ndarray


def test_a_composed_operation_serves_every_library_within_what_it_needs(libraries):
    left, right = libraries
    dispatch.implementing("left", lambda func: lambda *args: ("around", func(*args)))

    @dispatch.composed
    def second(a, b):
        return b

    dispatch.implementing("right")(second)(lambda a, b: "of its own")
    assert second(left, 1) == ("around", 1)
    assert second(right, 1) == "of its own"
    assert second(np.ones(1), 1) == 1


def test_all_that_the_contract_declares_is_a_primitive():
    declared = {name for name, value in vars(contract).items() if getattr(value, "__module__", "") == contract.__name__}
    assert PRIMITIVES.keys() == declared
    assert declared


@pytest.mark.parametrize("backend", dispatch.BACKENDS.values(), ids=lambda backend: backend.name)
def test_every_backend_implements_every_primitive(backend):
    backend.load()
    missing = [name for name, primitive in PRIMITIVES.items() if backend not in primitive.kernels]
    assert not missing


def test_each_row_of_the_table_says_what_the_others_ask():
    for backend in dispatch.BACKENDS.values():
        assert {"ARRAYS", "from_numpy", "wait", "works"} <= vars(backend.load()).keys()
    for name, kind in {"numpy": np.ndarray, "dask": da.Array}.items():
        assert type(dispatch.BACKENDS[name].from_numpy(np.ones(1))) is kind


@pytest.mark.parametrize("row", GATES.values(), ids=lambda row: row.name)
def test_a_gate_is_the_same_in_each_language(row):
    """Its function, which NumPy, Numba and JAX run, and its text, which is that of CUDA: on all bits."""
    n = len(row.inputs)
    bits = {name: sum(1 << i for i in range(2**n) if i >> k & 1) for k, name in enumerate(row.inputs)}
    by_text = eval(row.text, {}, bits) % 2 ** (2**n)
    assert by_text == row.function(*bits.values()) % 2 ** (2**n)
    words = [np.array([b], np.uint64) for b in bits.values()]
    for backend in ("numpy", *(["jax"] if importlib.util.find_spec("jax") else [])):
        operands = [dispatch.BACKENDS[backend].from_numpy(word) for word in words]
        assert int(np.asarray(contract.gate(row.name, *operands, length=2**n))[0]) == by_text
    zero = row.function(*[np.zeros(1, np.uint64)] * n)
    assert row.keeps_padding == (not zero.any())


@pytest.mark.parametrize(
    ("kind", "operands"), [("nand", 2), ("and", 1), ("and", 3), ("not", 2), ("mux", 2), ("xor", 0)]
)
def test_gates_that_are_none(kind, operands):
    words = [np.ones(1, np.uint64)] * operands
    with pytest.raises(BitstreamError, match=r"the gates are .* and of 2"):
        gate(kind, *words)


def test_what_waits_for_a_backend_is_done_once_it_is_loaded(monkeypatch):
    done = []
    monkeypatch.setattr(dispatch, "_LOADED", set())
    monkeypatch.setattr(dispatch, "_WAITING", [])
    dispatch.when_loaded("jax", lambda: done.append("first"))
    assert not done
    dispatch.loaded("cupy")
    assert not done
    dispatch.loaded("jax")
    dispatch.when_loaded("jax", lambda: done.append("second"))
    assert done == ["first", "second"]


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


WITHOUT_JAX = """
import sys; sys.modules["jax"] = None
import warnings, numpy as np, scdask
from scdask.jax_backend import HAS_JAX, jax_lif_step, jax_pack_bitstream, jax_vec_mac, jnp, to_host, to_jax
assert not HAS_JAX and jnp is np
scdask.vector_ops.vec_popcount(np.ones(1, np.uint64))
help(scdask)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    bits = np.ones((2, 70), np.uint8)
    assert to_jax(bits) is bits and to_host(bits) is bits
    words = jax_pack_bitstream(bits)
    assert type(words) is np.ndarray and jax_vec_mac(words[None], words).tolist() == [140]
    assert type(to_jax(scdask.encode([0.5], 64)).words) is np.ndarray
print(len(caught), caught[0].category.__name__, caught[0].message)
try: jax_lif_step(*[0.0] * 8)
except scdask.MissingBackendError as error: print(error)
"""


def test_without_jax_its_module_passes_arrays_through_and_says_what_to_install():
    *_, warned, step = run(WITHOUT_JAX).splitlines()
    assert warned == (
        "1 RuntimeWarning JAX is not installed (pip install 'scdask[jax]'): arrays stay on the host, where the Numba "
        "kernels run"
    )
    assert step == "jax is not installed; pip install 'scdask[jax]' brings it"


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
        "print('-----'); tell()\n"
        "import scdask.layers\n"
        "print('-----'); tell()"
    )
    package, command_line, layers = (part.split() for part in out.split("-----"))
    assert not set(package) & set(HEAVY)
    assert not set(command_line) & set(HEAVY)
    assert not set(layers) & {"jax", "optax", "sklearn", "matplotlib", "rich"}


def test_a_driver_alone_moves_arrays_without_the_kernels():
    out = run(
        "import sys, numpy as np, scdask\n"
        "driver = scdask.MPIDriver()\n"
        "driver.gather_results(driver.scatter_workload(np.arange(4)))\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    assert not set(out.split()) & (set(HEAVY) - {"dask", "mpi4py"})


def test_it_can_be_imported_from_a_zip_without_stubs_and_needs_the_compiler(tmp_path):
    package = Path(sc.__file__).parent
    with zipfile.ZipFile(tmp_path / "zipped.zip", "w") as archive:
        for file in package.rglob("*.py"):
            archive.write(file, file.relative_to(package.parent))
    code = f"""
import os, sys
sys.path.insert(0, {str(tmp_path / "zipped.zip")!r})
import scdask
print(".zip" in scdask.__file__, scdask.compute.__name__)
os.environ["NUMBA_DISABLE_JIT"] = "1"
try:
    scdask.Sobol
except ImportError as error:
    print(type(error).__name__, error)
"""
    first, second = run(code).splitlines()
    assert first == "True compute"
    assert second == (
        "MissingBackendError the kernels of scdask are compiled, and cannot run as Python: unset the environment "
        "variable NUMBA_DISABLE_JIT, which switches Numba's compiler off"
    )


def test_type_checkers_and_python_find_the_same_names():
    stub = ast.parse(Path(sc.__file__).with_suffix(".pyi").read_text())
    found = {}
    for statement in stub.body:
        if isinstance(statement, ast.ImportFrom):
            assert [name.asname for name in statement.names] == [name.name for name in statement.names]
            found |= {name.name: statement.module for name in statement.names}
    assert sorted(found) == sorted(sc.__all__)
    for name, module in found.items():
        there = import_module(f"scdask.{module or name}")
        assert getattr(sc, name) is (getattr(there, name) if module else there)


def test_import_takes_little_longer_than_numpy():
    code = "import time, numpy; start = time.perf_counter(); import scdask; print(time.perf_counter() - start)"
    assert any(float(run(code)) < 0.3 for _ in range(3))


def test_public_names():
    import scdask

    for name in scdask.__all__:
        assert getattr(scdask, name) is not None
    assert set(scdask.__all__) <= set(dir(scdask))
    with pytest.raises(AttributeError, match="nonsense"):
        scdask.nonsense  # noqa: B018

"""CuPy on the host: as much of it as scdask and Dask use, without a GPU.

Arrays hold NumPy arrays but do not mix with them, as CuPy's do not. `RawModule` builds CUDA source as C++ with
`cuda_on_host.hpp`. `install` makes this module the process's `cupy`.
"""

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import numpy as np

__version__ = "0+on.the.host"
GUARD = 256  # bytes around each array that kernels must leave alone
SHIM = Path(__file__).with_name("cuda_on_host.hpp")


def is_available():
    return True


def install():
    """Make this module `cupy` for the process, so that scdask's kernels for CuPy arrays run on the host."""
    sys.modules["cupy"] = sys.modules[__name__]
    ndarray.__module__ = "cupy"
    import distributed.protocol as protocol

    for table, function in ((protocol.dask_serialize, _to_frames), (protocol.dask_deserialize, _from_frames)):
        table.register(ndarray)(function)


def dask_setup(worker):
    install()


def _to_frames(array):
    return {"shape": array.shape, "dtype": array.dtype.str}, [array.get().tobytes()]


def _from_frames(header, frames):
    return asarray(np.frombuffer(b"".join(map(bytes, frames)), header["dtype"]).reshape(header["shape"]))


def _host(value):
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, tuple | list):
        return type(value)(map(_host, value))
    return value


def _wrapped(function):
    """A NumPy function of CuPy arrays."""

    def call(*args, **kwargs):
        return _device(function(*map(_host, args), **{name: _host(value) for name, value in kwargs.items()}))

    return call


def _device(result):
    if isinstance(result, tuple | list):
        return type(result)(map(_device, result))
    if not isinstance(result, np.ndarray | np.generic):
        return result
    return ndarray._of(result) if _memory(result) is not None else asarray(result)


class Memory(np.ndarray):
    """The bytes of an allocation, with guards before and after the array."""


def _memory(host):
    while getattr(host, "base", None) is not None:
        host = host.base
    return host if isinstance(host, Memory) else None


def _allocate(shape, dtype):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.ndarray.__new__(Memory, size + 3 * GUARD, np.uint8)
    memory[...] = 0xA5
    start = _start(memory)
    return memory[start : start + size].view(np.ndarray).view(dtype).reshape(shape)


def _start(memory):
    return GUARD + -memory.ctypes.data % GUARD


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801
    __slots__ = ("_host",)
    __hash__ = None

    @classmethod
    def _of(cls, host):
        array = object.__new__(cls)
        array._host = host
        return array

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        return _wrapped(getattr(ufunc, method))(*inputs, **kwargs)

    def __array_function__(self, func, types, args, kwargs):
        return _wrapped(func)(*args, **kwargs)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __reduce__(self):
        return asarray, (self.get(),)

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        return _device(self._host[_host(index)])

    def __setitem__(self, index, value):
        self._host[_host(index)] = _host(value)

    def __repr__(self):
        return repr(np.asarray(self._host))

    def get(self):
        return np.array(self._host)

    @property
    def device(self):
        return cuda.Device(0)

    @property
    def data(self):
        return SimpleNamespace(ptr=self._host.ctypes.data)

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray._of(self._host.T))


for _name in [
    "reshape",
    "ravel",
    "astype",
    "sum",
    "cumsum",
    "any",
    "all",
    "clip",
    "copy",
    "transpose",
    "argmax",
    "view",
]:
    setattr(ndarray, _name, _wrapped(getattr(np.ndarray, _name)))


def _without_initial(name):
    def reduce(self, axis=None, out=None, keepdims=False):
        return _device(getattr(self._host, name)(axis=axis, keepdims=keepdims))

    return reduce


for _name in ("max", "min"):
    setattr(ndarray, _name, _without_initial(_name))


# Making arrays


def empty(shape, dtype=float):
    return ndarray._of(_allocate(shape, dtype))


def zeros(shape, dtype=float):
    array = empty(shape, dtype)
    array._host[...] = 0
    return array


def asarray(values, dtype=None):
    if isinstance(values, ndarray):
        return values if dtype is None else values.astype(dtype)
    values = np.asarray(values, dtype)
    assert values.dtype.isnative, f"CuPy reads {values.dtype} wrongly"
    array = empty(values.shape, values.dtype)
    array._host[...] = values
    return array


def asnumpy(array):
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def arange(*args, **kwargs):
    return asarray(np.arange(*args, **kwargs))


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else asarray(np.ascontiguousarray(array._host))


for _name in (
    "broadcast_to",
    "concatenate",
    "take",
    "tensordot",
    "bitwise_count",
    "packbits",
    "unpackbits",
    "isfinite",
):
    globals()[_name] = _wrapped(getattr(np, _name))


# The device


class cuda:  # noqa: N801
    class Device:
        compute_capability = "90"
        attributes = {"MultiProcessorCount": 2, "ClockRate": 1000}  # noqa: RUF012

        def __init__(self, number=0):
            self.id = number

        def synchronize(self):
            return None

        def __enter__(self):
            return self

        def __exit__(self, *args):
            return None

    get_current_stream = Device

    class runtime:  # noqa: N801
        getDeviceCount = staticmethod(lambda: 1)  # noqa: N815
        getDeviceProperties = staticmethod(lambda number: {"name": b"the host"})  # noqa: N815


SCALARS = {"i64": np.int64, "word": np.uint64, "int": np.int32}
ITEMS = {"unsigned": 4, "i64": 8, "word": 8, "double": 8, "int": 4, "unsigned char": None}


class RawModule:
    def __init__(self, code, options=()):
        compiler = [which("g++"), "-x", "c++"]
        expanded = subprocess.run(
            [*compiler, "-E", "-P", "-"], input=code, check=True, capture_output=True, text=True
        ).stdout
        found = re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)", expanded)
        self.kernels = {name: [" ".join(p.split()) for p in parameters.split(",")] for name, parameters in found}
        self.library = ctypes.CDLL(str(self._compiled(compiler, code)))

    def _compiled(self, compiler, code):
        """The library; processes of one run of the tests share it."""
        name = hashlib.sha256(code.encode() + SHIM.read_bytes()).hexdigest()
        library = Path(os.environ.get("SCDASK_TEMPORARY") or tempfile.mkdtemp(), f"cuda-on-host-{name}.so")
        if not library.exists():
            with tempfile.TemporaryDirectory(dir=library.parent) as folder:
                source, built = Path(folder, "kernels.cu"), Path(folder, "kernels.so")
                source.write_text(code)
                flags = ["-O2", "-std=c++17", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", f'-DKERNELS="{source}"']
                all_kernels = "-DALL_KERNELS=" + " ".join(f"KERNEL({name})" for name in self.kernels)
                subprocess.run([*compiler, *flags, all_kernels, SHIM, "-o", built], check=True)
                built.replace(library)
        return library

    def get_function(self, name):
        return functools.partial(self._launch, name)

    def _launch(self, name, grid, block, args):
        parameters = self.kernels[name]
        assert len(args) == len(parameters), f"{name} takes {len(parameters)} arguments, not {len(args)}"
        values = [_argument(name, parameter, arg) for parameter, arg in zip(parameters, args, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*(value.ctypes.data for value in values))
        assert 0 < grid[0] < 2**31
        assert 0 < block[0] <= 1024
        failure = self.library.launch(name.encode(), grid[0], block[0], pointers)
        assert not failure, f"{name}: {('', 'no kernel', 'deadlock', 'misaligned address')[failure]}"
        for array in args:
            if isinstance(array, ndarray):
                _check_guards(name, array._host)


def _argument(name, parameter, arg):
    kind, pointer, _ = re.fullmatch(r"(?:const )?([a-z0-9 ]*?) ?(\*?)(\w+)", parameter).groups()
    if pointer and isinstance(arg, ndarray):
        assert ITEMS[kind] in (None, arg.dtype.itemsize), f"{name}: {parameter} of {arg.dtype}"
        assert arg.flags.c_contiguous, f"{name}: {parameter} is not contiguous"
        return np.array([arg._host.ctypes.data], np.uint64)
    wanted = np.uint64 if pointer else SCALARS[kind]
    assert type(arg) is wanted, f"{name}: {parameter} is {type(arg)}"
    assert not pointer or not arg, f"{name}: {parameter} is no null pointer"
    return np.array([arg])


def _check_guards(name, host):
    memory = _memory(host)
    start, size = _start(memory), memory.size - 3 * GUARD
    assert (memory[:start] == 0xA5).all(), f"{name} wrote before an array"
    assert (memory[start + size :] == 0xA5).all(), f"{name} wrote past an array"

"""Kernels for NumPy arrays in the programs that XLA runs on CPUs: handlers of its foreign function interface (FFI).

A handler is called with the address of a call frame [1]_, a structure of C. XLA asks each once for the version of that
structure that it knows, and takes none of a version that it does not support any more.

References
----------
.. [1] The file xla/ffi/api/c_api.h in `jax.ffi.include_dir()`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from ctypes import CFUNCTYPE, addressof, c_char_p, c_int, c_int32, c_int64, c_ssize_t, c_void_p, py_object, pythonapi
from functools import cache, partial, wraps
from inspect import signature
from math import prod
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np
from dask.system import CPU_COUNT

from .device import jax, jitted, lax

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

VERSION = 0, 1  # the oldest one that has this call frame, so that XLA takes it for as long as any
METADATA = 1  # the extension of the call that asks for the version
INTERNAL = 13  # the code of an error that is none of the caller's
TYPES = {
    1: "?",
    2: "i1",
    4: "i4",
    5: "i8",
    6: "u1",
    8: "u4",
    9: "u8",
}  # XLA's numbers of types that kernels take and give
WRITE = 0x200  # the flag of memory that may be written to

_handler = CFUNCTYPE(c_void_p, c_void_p)
_memory = pythonapi.PyMemoryView_FromMemory
_memory.restype, _memory.argtypes = py_object, (c_void_p, c_ssize_t, c_int)


def on_cpus(name: str, kernel: Callable[..., None], pays: Callable[..., bool]) -> Callable[[Any], Any]:
    """Make a function of JAX arrays run as a kernel for NumPy arrays on CPUs; elsewhere XLA compiles the function.

    XLA does so on CPUs too for arrays that are sharded over several of them, as it would gather them for the kernel.

    Parameters
    ----------
    name : str
        What XLA calls the kernel; no two kernels have the same.
    kernel : callable
        Fills the results in kernel(*arrays, *results). Under `jax.vmap` all arrays and results have as many axes more
        in front. In arrays that do not vary along such an axis it is 1 long.
    pays : callable
        Whether pays(*arrays, **options), the arguments of the function, are worth the call of Python, which takes XLA
        0.03 ms.
    """
    target, handle = f"scdask_{name}", _handler(partial(_run, kernel))
    taken = cache(lambda: _taken(target, handle))

    def decorate(func: Callable[..., Any]) -> Any:
        static = [key for key, value in signature(func).parameters.items() if value.kind is value.KEYWORD_ONLY]
        compiled = jitted(func, static_argnames=static)

        def by_platform(*arrays: Any, **options: Any) -> Any:
            elsewhere = partial(compiled, **options)
            if not taken():
                return elsewhere(*arrays)
            results = jax.eval_shape(elsewhere, *arrays)
            on_cpu = jax.ffi.ffi_call(target, results, vmap_method="expand_dims")
            return lax.platform_dependent(*arrays, cpu=on_cpu, default=elsewhere)

        chosen = jitted(by_platform, static_argnames=static)

        @wraps(func)
        def call(*arrays: Any, **options: Any) -> Any:
            by_kernel = pays(*arrays, **options) and not any(map(_sharded, arrays))
            return (chosen if by_kernel else compiled)(*arrays, **options)

        return call

    return decorate


def spread(task: Callable[[slice], None], size: int, least: int) -> None:
    """Do a task for all parts of range(size), at once on all cores, as XLA does; a part has `least` or more."""
    step = max(least, -(-size // CPU_COUNT))
    parts = [slice(start, start + step) for start in range(0, size, step)]
    for _ in map(task, parts) if len(parts) == 1 else _threads().map(task, parts):
        pass


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(CPU_COUNT, "scdask-jax")


def _sharded(array: Any) -> bool:
    return isinstance(array, jax.Array) and not isinstance(array, jax.core.Tracer) and len(array.devices()) > 1


def _taken(target: str, handle: Any) -> bool:
    """Give XLA a handler, and say whether it takes it."""
    try:
        jax.devices("cpu")  # XLA would keep a handler until it has these devices, and then have none because of it.
    except RuntimeError:
        return False  # JAX was told to do without CPUs.
    try:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(handle), platform="cpu")
    except RuntimeError as error:
        warn(f"XLA computes by itself, and more slowly, what kernels of scdask would: {error}", RuntimeWarning, 2)
        return False
    return True


def _run(kernel: Callable[..., None], frame: int) -> int | None:
    """Answer a call of XLA; return the address of an error, if there is one."""
    _, extension, api, _, _, _, _, n_arrays, _, arrays, _, _, n_results, _, results = _numbers(frame, 15)
    if extension and _numbers(extension, 2)[1] % 2**32 == METADATA:
        metadata = _numbers(extension, 4)[3]
        (c_int32 * 2).from_address(metadata + 24)[:] = list(VERSION)
        return None
    try:
        filled = _arrays(results, n_results)
        if all(array.size for array in filled):
            kernel(*_arrays(arrays, n_arrays), *filled)
    except BaseException as error:  # Python would only print it, and XLA take the results as they are.
        return _error(api, f"{type(error).__name__}: {error}")
    return None


def _numbers(address: int, count: int) -> list[int]:
    return (c_int64 * count).from_address(address)[:]


def _arrays(addresses: int, count: int) -> list[NDArray[Any]]:
    return list(map(_array, _numbers(addresses, count)))


def _array(buffer: int) -> NDArray[Any]:
    _, _, kind, data, rank, dims = _numbers(buffer, 6)
    shape, dtype = _numbers(dims, rank), np.dtype(TYPES[kind % 2**32])
    size = prod(shape) * dtype.itemsize
    return np.ndarray(shape, dtype, _memory(data, size, WRITE) if size else None)


def _error(api: int, message: str) -> int:
    create = _handler(_numbers(api, 7)[6])
    text = c_char_p(message.encode())
    arguments = (c_int64 * 4)(28, 0, c_int64.from_buffer(text).value, INTERNAL)
    return create(addressof(arguments))  # type: ignore[no-any-return]

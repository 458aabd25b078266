"""The way to a GPU and back, and what the table of backends asks of CuPy."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache, wraps
from typing import TYPE_CHECKING, Any
from warnings import warn

import dask.array as da
import numpy as np

from ..core.checks import as_array, as_numpy
from ..core.contract import on_host
from ..core.dispatch import BACKENDS, DeviceMeta, implementing
from ..errors import MissingBackendError, MixedArrayError, UnsupportedArrayError

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import cupy as _cupy
except ImportError:
    _cupy = None

cupy: Any = _cupy
ARRAYS = (DeviceMeta,) if cupy is None else (cupy.ndarray, DeviceMeta)


@cache
def why_no_gpu() -> str | None:
    """Say why this process cannot use a GPU, or None if it can."""
    if cupy is None:
        return f"CuPy is not installed (pip install 'scdask[{BACKENDS['cupy'].extra}]')"
    return None if cupy.is_available() else "CuPy finds no CUDA device"


def devices() -> list[str]:
    """The names of the GPUs that this process sees."""
    runtime = cupy.cuda.runtime
    return [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]


@cache
def _warn_once(reason: str) -> None:
    warn(f"{reason}: arrays stay on the host, where the Numba kernels run", RuntimeWarning, stacklevel=3)


def to_device(arr: Any) -> Any:
    """Copy an array to the GPU, or leave it on the host, with one warning, if there is none.

    Parameters
    ----------
    arr : array_like, array of another library, dask Array or Bitstream
        A Dask array is moved block by block, where its tasks run: to build the graph takes no GPU.

    Returns
    -------
    cupy.ndarray, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype. A CuPy array is returned as it is. Without a GPU, a NumPy array.

    Raises
    ------
    UnsupportedArrayError
        If it is a masked array or no array of numbers.
    """
    if cupy is not None and isinstance(arr, cupy.ndarray):
        return arr
    if hasattr(type(arr), "map_words"):
        return arr.map_words(to_device)
    if isinstance(arr, da.Array):
        empty = np.empty((0,) * arr.ndim, _native(arr.dtype))
        meta = empty.view(DeviceMeta) if why_no_gpu() else cupy.empty(empty.shape, empty.dtype)
        return arr.map_blocks(to_device, dtype=meta.dtype, meta=meta)
    what = "what goes to a GPU"
    values = as_numpy(on_host(as_array(arr, what)), what)
    values = values.astype(_native(values.dtype), copy=False)
    reason = why_no_gpu()
    if reason is None:
        return cupy.asarray(values)
    if values.size:  # With an empty array Dask asks what a function makes of blocks, maybe on other machines.
        _warn_once(reason)
    return values


def _native(dtype: Any) -> Any:
    """The dtype in the byte order of the machine, if CuPy has such arrays."""
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise UnsupportedArrayError(f"CuPy has no arrays of {dtype}")
    return dtype.newbyteorder("=")


def _on_its_device(func: Callable[..., Any]) -> Callable[..., Any]:
    """Make `func` run on the device that its arrays are on."""

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        if cupy is None:  # Without CuPy, a graph is built for GPUs elsewhere.
            return func(*args, **kwargs)
        found = {arg.device.id: arg.device for arg in (*args, *kwargs.values()) if isinstance(arg, cupy.ndarray)}
        if len(found) > 1:
            raise MixedArrayError(f"{func.__name__} was given arrays on the devices {sorted(found)}; move them to one")
        with found.popitem()[1] if found else nullcontext():
            return func(*args, **kwargs)

    return call


implements = implementing("cupy", _on_its_device)
from_numpy = to_device


@implements(on_host)
def _from_device(array: Any) -> Any:
    return array.get()


def wait(result: Any) -> None:
    """Wait for the kernels that this thread has started."""
    cupy.cuda.get_current_stream().synchronize()


def works() -> str:
    """Say on which GPUs it works; an error says why there are none."""
    reason = why_no_gpu()
    if reason is not None:
        raise MissingBackendError(reason)
    return f"works on {', '.join(devices())}"

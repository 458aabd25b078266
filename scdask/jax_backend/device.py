"""The way to JAX and back, and what the table of backends asks of JAX.

Without JAX this package can be imported all the same: `to_jax` leaves arrays on the host, with one warning, and a
function that needs JAX says what brings it when it is called.
"""

from __future__ import annotations

import copyreg
import operator
from functools import cache, partial, reduce, wraps
from typing import TYPE_CHECKING, Any
from warnings import warn

import dask.array as da
import numpy as np
from dask.array.core import concatenate_lookup
from dask.sizeof import sizeof

from .._extras import require
from ..core.checks import as_numpy
from ..core.contract import on_host
from ..core.dispatch import BACKENDS, implementing
from ..errors import BitstreamError, MixedArrayError, UnsupportedArrayError

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    import jax as _jax
except ImportError:
    _jax = None

jax: Any = _jax
lax: Any = _jax and _jax.lax
jnp: Any = _jax.numpy if _jax else np
HAS_JAX = jax is not None
ARRAYS = (jax.Array, jax.core.Tracer) if HAS_JAX else ()
CUT = "JAX has cut off half of the bits of an array of 64 bits: to_jax(array, device) moves it whole"
EXTRA = BACKENDS["jax"].extra or ""


def jitted(func: Callable[..., Any], **options: Any) -> Any:
    """Compile with `jax.jit`; without JAX the function says what brings it."""
    return jax.jit(func, **options) if HAS_JAX else needing_jax(func)


def needing_jax(func: Callable[..., Any]) -> Any:
    """The function, which without JAX says what brings it."""
    if HAS_JAX:
        return func

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        require("jax", EXTRA)

    return call


def _exact(func: Callable[..., Any]) -> Callable[..., Any]:
    """Make `func` run while JAX keeps 64 bits."""

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            try:
                return func(*args, **kwargs)
            except ValueError as error:
                if "incompatible devices" not in str(error):
                    raise
                raise MixedArrayError(
                    f"{func.__name__} was given arrays on several devices: to_jax(array, device) moves them to one"
                ) from error
            except jax.errors.JaxRuntimeError as error:
                if "incompatible size" not in str(error):
                    raise
                raise BitstreamError(CUT) from error

    return call


def known(flag: Any) -> bool:
    """Whether the flag is set, as far as that can be known: under a trace even constants cannot be looked at."""
    return not isinstance(flag, jax.core.Tracer) and bool(np.asarray(flag))  # JAX's own bool takes three times as long.


implements = implementing("jax", _exact)


def as_jax(words: Any) -> Any:
    """Words of NumPy beside those of JAX: a copy, because JAX may still read them when the caller writes to them."""
    return jnp.asarray(np.array(words)) if isinstance(words, np.ndarray) else words


@cache
def _warn_once() -> None:
    warn(
        f"JAX is not installed (pip install 'scdask[{EXTRA}]'): arrays stay on the host, where the Numba kernels run",
        RuntimeWarning,
        stacklevel=3,
    )


def to_jax(arr: Any, device: Any = None) -> Any:
    """Copy an array to a device of JAX, with all its bits: uint64 stays uint64.

    Parameters
    ----------
    arr : array_like, dask Array or Bitstream
    device : jax.Device or jax.sharding.Sharding, optional
        Where it goes, also from another device of JAX, where `jax.device_put` may cut off bits. By default to JAX's
        default device; what is on a device of JAX already stays there.

    Returns
    -------
    jax.Array, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype. A JAX array that need not move is returned as it is. Without JAX, with one
        warning, a NumPy array.

    Raises
    ------
    UnsupportedArrayError
        If it is a masked array or no array of numbers.
    BitstreamError
        If JAX has cut off half of its bits, or its shape cannot be sharded like that.
    """
    if HAS_JAX and isinstance(arr, jax.Array):
        return arr if device is None else _put(uncut(arr), device)
    if hasattr(type(arr), "map_words"):
        return arr.map_words(partial(to_jax, device=device))
    if not HAS_JAX:
        _warn_once()
        return arr if isinstance(arr, da.Array) else as_numpy(arr, "what goes to JAX")
    if isinstance(arr, da.Array):
        meta = to_jax(np.zeros((0,) * arr.ndim, arr.dtype))
        return arr.map_blocks(partial(to_jax, device=device), dtype=arr.dtype, meta=meta)
    values = as_numpy(arr, "what goes to JAX")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    with jax.enable_x64(True):
        try:
            copied = jnp.array(values)
        except TypeError:
            raise UnsupportedArrayError(f"JAX has no arrays of {values.dtype}") from None
    return copied if device is None else _put(copied, device)


from_numpy = to_jax


def _put(array: Any, device: Any) -> Any:
    with jax.enable_x64(True):
        try:
            return jax.device_put(array, device)
        except (ValueError, TypeError) as error:
            raise BitstreamError(f"an array of shape {array.shape} does not go to {device}: {error}") from None


def uncut(array: Any) -> Any:
    """The array, unless it is one that `jax.device_put` gave a name of 64 bits and the lower 32 of its values."""
    if array.dtype.itemsize == 8 and not isinstance(array, jax.core.Tracer):
        held = array.addressable_data(0).dtype
        if held != array.dtype:
            raise BitstreamError(CUT)
    return array


def beside(result: Any, *arrays: Any) -> Any:
    """The NumPy array on the devices of the first JAX array: sharded as that is, if it has its shape."""
    like = next((array for array in arrays if isinstance(array, jax.Array)), None)
    if like is None or not like.committed:
        return to_jax(result)
    sharding = like.sharding
    if np.shape(result) != like.shape and len(sharding.device_set) > 1:
        sharding = jax.sharding.NamedSharding(
            jax.sharding.Mesh(np.array(sorted(sharding.device_set, key=lambda device: device.id)), ("devices",)),
            jax.sharding.PartitionSpec(),
        )
    return to_jax(result, sharding)


def varying_as(value: Any, *arrays: Any) -> Any:
    """The value with which a loop begins, which under `jax.shard_map` has to vary over the mesh as its results will.

    It does where it is computed from the arrays that the loop reads; XLA takes that out again.
    """
    never = reduce(operator.or_, [(array != array).any() for array in arrays]) & False
    return jnp.where(never, jnp.zeros_like(value), value)


@implements(on_host)
def _from_jax(array: Any) -> Any:
    try:
        return np.asarray(uncut(array))
    except jax.errors.TracerArrayConversionError:
        raise
    except TypeError:
        raise UnsupportedArrayError(f"NumPy has no arrays of {array.dtype}") from None


def wait(result: Any) -> None:
    """Wait until an array, or each of several, is computed."""
    jax.block_until_ready(result)


def works() -> str:
    """Say on which devices it works; an error says what brings JAX."""
    return f"works on {', '.join(str(device) for device in require('jax', EXTRA).devices())}"


def _pickled(array: Any) -> Any:
    # JAX unpickles by device_put, which without x64 keeps the lower half of each number.
    return (to_jax, (np.asarray(uncut(array)),)) if array.dtype.itemsize >= 8 else array.__reduce__()


def _concatenate(arrays: Any, axis: int = 0) -> Any:
    with jax.enable_x64(True):
        return jnp.concatenate(arrays, axis)


if HAS_JAX:
    concatenate_lookup.register(jax.Array, _concatenate)
    sizeof.register(jax.Array, lambda array: array.nbytes)
    for _cls in jax.Array.__subclasses__():
        if _cls.__name__ == "ArrayImpl":
            copyreg.pickle(_cls, _pickled)

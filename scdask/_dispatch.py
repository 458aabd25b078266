"""Functions that choose their implementation by the type of the arrays they are given."""

from __future__ import annotations

from functools import singledispatch, wraps
from importlib import import_module
from itertools import chain
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast

import numpy as np

from .errors import BitstreamError, MixedArrayError, UnsupportedArrayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)

PLAIN = frozenset({np.ndarray, int, float, str, tuple, type(None)})  # types that need no look-up

# The module that registers each array library's kernels, imported when its first array arrives.
BACKENDS = {
    "dask": "scdask.chunked",
    "cupy": "scdask.gpu_backend",
    "jax": "scdask.jax_backend",
    "jaxlib": "scdask.jax_backend",
}


class ArrayFunction(Protocol[P, R_co]):
    """A function whose body serves NumPy arrays, and to which other array types are registered."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def register(self, cls: type, func: Callable[..., Any]) -> Any: ...


def array_function(func: Callable[P, R_co]) -> ArrayFunction[P, R_co]:
    """Make `func` the NumPy implementation of a function open to other array types."""
    table = singledispatch(func)
    name = func.__name__

    @wraps(func)
    def call(*args: P.args, **kwargs: P.kwargs) -> R_co:
        if PLAIN.issuperset(map(type, chain(args, kwargs.values()))):
            return func(*args, **kwargs)
        arrays = [a for a in (*args, *kwargs.values()) if hasattr(a, "dtype") and hasattr(a, "shape")]
        found = {table.dispatch(_known_type(name, a)) for a in arrays}
        lazy = {f for f in found if f.__module__ == BACKENDS["dask"]}
        found = lazy or found - {func} or {func}  # NumPy arrays join those of another library, and all join Dask's
        if len(found) > 1:
            raise MixedArrayError(f"{name} was given arrays of several libraries; move them to one first")
        return found.pop()(*args, **kwargs)

    call.register = table.register  # type: ignore[attr-defined]
    return cast("ArrayFunction[P, R_co]", call)


def _known_type(name: str, array: Any) -> type:
    cls = type(array)
    library = cls.__module__.partition(".")[0]
    if library in BACKENDS:
        import_module(BACKENDS[library])  # waits for a half-done import in another thread
    elif not isinstance(array, np.ndarray | np.generic) or isinstance(array, np.ma.MaskedArray):
        raise UnsupportedArrayError(
            f"{name} has no kernels for {cls.__module__}.{cls.__qualname__}: give it a NumPy, Dask, CuPy or JAX array"
        )
    return cls


def as_numpy(values: Any, name: str) -> NDArray[Any]:
    """Plain values as a NumPy array; `name` says what they are in an error.

    Masked arrays, whose mask would be lost, and arrays of other libraries, which would be computed, are refused.
    """
    for part in values if isinstance(values, list | tuple) else [values]:
        foreign = hasattr(part, "dtype") and not isinstance(part, np.ndarray | np.generic)
        if foreign or isinstance(part, np.ma.MaskedArray):
            cls = type(part)
            raise UnsupportedArrayError(f"{name}: a NumPy array, not {cls.__module__}.{cls.__qualname__}")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise BitstreamError(f"{name}: a rectangular array is needed, but {error}") from None

"""Functions that choose their implementation by the type of the arrays they are given."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import singledispatch, wraps
from importlib import import_module
from itertools import chain
from time import perf_counter
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
METER = "scdask"  # the name of the plugin of a worker that adds up what its tasks do
# The kernels that compute arrays of a library. JAX's tracers are of jax, its arrays of jaxlib: tracing is no work.
KERNELS = {"numpy": "numpy", "cupy": "cupy", "jaxlib": "jax"}


@dataclass(frozen=True)
class Work:
    """What a call of a kernel does.

    Parameters
    ----------
    operation : str
        "encode", "gate", "mac", "popcount", or "pack", which unpacking is too.
    bitops : int
        Bits generated, gated, counted or packed; of a MAC pairs of bits, gated and counted.
    uses : dict
        What it takes of the machine, by the names of `jobs.limits.Limits`.
    streams : int
        Streams that it begins to encode.
    """

    operation: str
    bitops: int
    uses: dict[str, float] = field(default_factory=dict)
    streams: int = 0


class ArrayFunction(Protocol[P, R_co]):
    """A function whose body serves NumPy arrays, and to which other array types are registered."""

    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def register(self, cls: type, func: Callable[..., Any]) -> Any: ...


def array_function(func: Callable[P, R_co], work: Callable[..., Work] | None = None) -> ArrayFunction[P, R_co]:
    """Make `func` the NumPy implementation of a function open to other array types.

    `work(result, *args, **kwargs)` says what a call did, whatever the type; it is asked in tasks of a Dask worker.
    """
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

    public = call if work is None else _metered(call, work)
    public.register = table.register  # type: ignore[attr-defined]
    return cast("ArrayFunction[P, R_co]", public)


def _metered(call: Callable[P, R_co], work: Callable[..., Work]) -> Callable[P, R_co]:
    """The function, which tells a Dask worker whose task calls it what it did, and how long that took."""

    @wraps(call)
    def metered(*args: P.args, **kwargs: P.kwargs) -> R_co:
        worker = _worker_of_this_task()
        if worker is None:
            return call(*args, **kwargs)
        start = perf_counter()
        result = call(*args, **kwargs)
        computed = result if hasattr(result, "dtype") else next(chain(args, kwargs.values()))
        kernels = KERNELS.get(type(computed).__module__.partition(".")[0])
        if kernels is not None:
            _wait_for(result, kernels)
            _tell(worker, kernels, work(result, *args, **kwargs), perf_counter() - start)
        return result

    return metered


def _worker_of_this_task() -> Any:
    module = sys.modules.get("distributed.worker")
    try:
        return module and module.get_worker()
    except (ValueError, AttributeError):  # no task, or distributed is still being imported
        return None


def _wait_for(result: Any, kernels: str) -> None:
    """Wait for a result that is computed beside Python, so that its time is that of the kernel."""
    if kernels == "jax":
        result.block_until_ready()
    elif kernels == "cupy":
        import_module("cupy").cuda.get_current_stream().synchronize()


def _tell(worker: Any, kernels: str, work: Work, seconds: float) -> None:
    meter = import_module("distributed.metrics").context_meter
    label = f"sc-{work.operation}-{kernels}"
    meter.digest_metric(label, seconds, "seconds")  # of which Dask takes its own time for the task away
    meter.digest_metric(label, work.bitops, "bitops")
    plugin = worker.plugins.get(METER)
    if plugin is not None:
        plugin.add(kernels, work, seconds)


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

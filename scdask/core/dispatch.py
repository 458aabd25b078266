"""How an array finds its kernels: the table of backends, and the operations that each of them implements.

A *primitive* is an operation without a body: each backend implements it. A *composed* operation has one body of
primitives, which serves every library, and which a backend may override. Nothing falls through to NumPy unseen: an
array of an unknown library, or a primitive that a backend lacks, is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import numpy as np

from .._locks import fork_safe
from ..errors import MixedArrayError, UnsupportedArrayError
from .metering import measured, worker_of_this_task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .metering import Work

P = ParamSpec("P")
R = TypeVar("R")
Kernel = TypeVar("Kernel")


class Registration(Protocol):
    """A decorator that leaves a kernel as it is."""

    def __call__(self, kernel: Kernel) -> Kernel: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Backend:
    """A kind of arrays, and the package with its kernels, which is imported when the first such array comes.

    The package has `ARRAYS`, the types of its arrays, `from_numpy(array)`, which makes such an array of a NumPy array,
    `wait(result)`, which waits for what is computed beside Python, and `works()`, which says where its kernels run, or
    raises an error that says why they do not.

    Parameters
    ----------
    name : str
        The key in the table of backends, under which meters count too.
    label : str
        The name of the library in a sentence.
    module : str
        The package with its kernels.
    libraries : tuple of str
        Top-level packages of its array types; the first is that of arrays with values.
    extra : str, optional
        The extra of scdask that brings the library.
    cut_by_dask : bool
        Whether Dask can hold its arrays in a graph, and cut them, without losing anything.
    """

    name: str
    label: str
    module: str
    libraries: tuple[str, ...]
    extra: str | None = None
    cut_by_dask: bool = True

    def load(self) -> Any:
        """Import the package, or wait for another thread that is still importing it."""
        return import_module(self.module)

    def from_numpy(self, array: Any) -> Any:
        """Convert a NumPy array, or a Dask array of NumPy blocks, to this library."""
        return self.load().from_numpy(array)

    def wait(self, result: Any) -> None:
        """Wait for a result that is computed beside Python."""
        self.load().wait(result)

    def works(self) -> str:
        """Say where the kernels run; an error says why they do not."""
        return str(self.load().works())


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("numpy", "NumPy", "scdask.jit_kernels", ("numpy",)),
        Backend("dask", "Dask", "scdask.chunked", ("dask",)),
        Backend("cupy", "CuPy", "scdask.gpu_backend", ("cupy",), "gpu-cuda13"),
        Backend("jax", "JAX", "scdask.jax_backend", ("jaxlib", "jax"), "jax", cut_by_dask=False),
    )
}
NUMPY, DASK = BACKENDS["numpy"], BACKENDS["dask"]
_OF_LIBRARY = {library: backend for backend in BACKENDS.values() for library in backend.libraries}
# The backends, all loaded, of the types seen so far; None stands for a type that is no array.
_OF_TYPE: dict[type, Backend | None] = {}
_UNSEEN: Any = object()
_WITHIN: dict[Backend, Callable[..., Any]] = {}
_LOCK = fork_safe(Lock())
_LOADED: set[str] = set()
_WAITING: list[tuple[str, Callable[[], None]]] = []


class DeviceMeta(np.ndarray):
    """The empty array that stands for CuPy blocks in a graph that is built where there is no GPU."""


def backend_of(array: Any, name: str = "scdask") -> Backend | None:
    """The backend of an array, which is loaded if need be; None if it is no array.

    Parameters
    ----------
    array : object
    name : str
        What the array is, in an error.

    Raises
    ------
    UnsupportedArrayError
        If it is a masked array, whose mask would be lost, or an array of an unknown library.
    """
    cls = type(array)
    backend = _OF_TYPE.get(cls, _UNSEEN)
    if backend is not _UNSEEN:
        return backend  # type: ignore[no-any-return]
    if not (hasattr(array, "dtype") and hasattr(array, "shape")) or isinstance(array, type):
        _OF_TYPE[cls] = None
        return None
    found = BACKENDS["cupy"] if issubclass(cls, DeviceMeta) else _OF_LIBRARY.get(library_of(array))
    if found is None and isinstance(array, np.ndarray | np.generic):
        found = NUMPY
    if found is None or not isinstance(array, found.load().ARRAYS) or isinstance(array, np.ma.MaskedArray):
        *labels, last = (backend.label for backend in BACKENDS.values())
        raise UnsupportedArrayError(
            f"{name}: scdask has no kernels for {cls.__module__}.{cls.__qualname__}, "
            f"only for {', '.join(labels)} and {last} arrays{_way(array)}"
        )
    _OF_TYPE[cls] = found
    return found


def _way(array: Any) -> str:
    """What makes an array that has kernels of one of an unknown library, for the end of a sentence."""
    if isinstance(array, np.ndarray):
        return ""
    ways = {"toarray": "; its .toarray() is one", "__array__": "; np.asarray makes one of it"}
    return next((way for name, way in ways.items() if hasattr(array, name)), "")


def library_of(array: Any) -> str:
    """The top-level package of the array's type."""
    return type(array).__module__.partition(".")[0]


def primitive(*, work: Callable[..., Work] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make an operation, which each backend implements, of a declaration, whose body is never run.

    Its arguments are trusted: they are checked once, by the public functions that call it. `work(result, *args,
    **kwargs)` says what a call did; it is asked in tasks of a Dask worker.
    """
    return lambda declared: _operation(declared, None, work)


def composed(body: Callable[P, R]) -> Callable[P, R]:
    """Make an operation for all libraries of a function that calls primitives; a backend may override it."""
    return _operation(body, body, None)


def _operation(
    declared: Callable[P, R], body: Callable[..., Any] | None, work: Callable[..., Work] | None
) -> Callable[P, R]:
    kernels: dict[Backend, Callable[..., Any]] = {}
    name = declared.__name__

    def find(backend: Backend) -> Callable[..., Any]:
        backend.load()
        if backend not in kernels:
            if body is None:
                raise UnsupportedArrayError(f"{name} has no kernel for {backend.label} arrays")
            kernels[backend] = _WITHIN[backend](body)
        return kernels[backend]

    @wraps(declared)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        given = (*args, *kwargs.values()) if kwargs else args
        backend = None
        for arg in given:
            found = _OF_TYPE.get(type(arg), _UNSEEN)
            if found is not None and found is not backend:
                if backend is not None or found is _UNSEEN:
                    backend = _join(given, name)
                    break
                backend = found
        kernel = kernels.get(backend or NUMPY) or find(backend or NUMPY)
        if work is not None and (worker := worker_of_this_task()) is not None:
            return measured(worker, work, kernel, args, kwargs, computed_by)
        return kernel(*args, **kwargs)

    call.kernels = kernels  # type: ignore[attr-defined]
    call.is_primitive = body is None  # type: ignore[attr-defined]
    return call


def _join(args: Iterable[Any], name: str) -> Backend | None:
    """The backend for arrays of several: NumPy arrays join those of another library, and all join Dask's."""
    found = {backend_of(arg, name) for arg in args} - {None, NUMPY}
    if DASK in found:
        return DASK
    if len(found) > 1:
        raise MixedArrayError(f"{name} was given arrays of several libraries; move them to one first")
    return found.pop() if found else NUMPY


def computed_by(results: Iterable[Any]) -> Backend | None:
    """The backend whose kernels computed the first array of the results; None if that has no values yet."""
    array = next((result for result in results if hasattr(result, "dtype")), None)
    backend = None if array is None else backend_of(array)
    known = backend is not None and backend is not DASK and library_of(array) == backend.libraries[0]
    return backend if known else None


def implementing(name: str, within: Callable[[Any], Any] = lambda kernel: kernel) -> Callable[[Any], Registration]:
    """The decorator `implements(operation)` of a backend, which makes a function its kernel for an operation.

    `within` wraps each kernel, and the bodies of composed operations, in what the library needs around them.
    """
    backend = BACKENDS[name]
    _WITHIN[backend] = within

    def implements(operation: Any) -> Registration:
        def register(kernel: Kernel) -> Kernel:
            operation.kernels[backend] = within(kernel)
            return kernel

        return register

    return implements


def when_loaded(name: str, action: Callable[[], None]) -> None:
    """Do something once the package of a backend is imported, at once if it is."""
    with _LOCK:
        if name not in _LOADED:
            _WAITING.append((name, action))
            return
    action()


def loaded(name: str) -> None:
    """Do what waits for the package of a backend; called at the end of its import, if anything can wait for it."""
    with _LOCK:
        _LOADED.add(name)
        actions = [action for waiting, action in _WAITING if waiting == name]
        _WAITING[:] = [entry for entry in _WAITING if entry[0] != name]
    for action in actions:
        action()

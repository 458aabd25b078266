"""What the table of backends asks of Dask."""

from __future__ import annotations

from typing import Any

import dask.array as da

from ..core import contract
from ..core.dispatch import backend_of, implementing
from .sizes import whole_if_empty

implements = implementing("dask")
ARRAYS = (da.Array,)


def as_dask(array: Any, chunks: Any = None) -> da.Array:
    """The array as a Dask array with blocks of its own library, by default one block."""
    chunks = whole_if_empty(chunks, array.shape)
    if isinstance(array, da.Array):
        return array if chunks is None else array.rechunk(chunks)
    backend = backend_of(array)
    if backend is not None and not backend.cut_by_dask:
        return backend.from_numpy(as_dask(contract.on_host(array), chunks))
    return da.asarray(array) if chunks is None else da.from_array(array, chunks=chunks)


def from_numpy(array: Any) -> da.Array:
    """The array as a Dask array of one block."""
    return as_dask(array)


def wait(result: Any) -> None:
    """Do nothing, because a lazy array is not waited for."""


def works() -> str:
    """Say that it works: the blocks are those of the other libraries."""
    return "works"

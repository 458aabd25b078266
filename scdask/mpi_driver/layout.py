"""Layouts: what the array of a rank is, so that the other ranks can make arrays like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_array
from ..core.contract import on_host as values_on_host
from ..core.dispatch import BACKENDS, NUMPY, backend_of
from ..errors import BitstreamError, UnsupportedArrayError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ..bitstream import Bitstream
    from ..core.words import Polarity
    from .group import Group


@dataclass(frozen=True)
class Layout:
    """What an array of a rank is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    backend: str
    stream: tuple[int, Polarity] | None

    @classmethod
    def of(cls, array: Any) -> Layout:
        """The layout of an array or a Bitstream."""
        if is_stream(array):
            of_words = cls.of(array.words)
            return cls(of_words.shape, of_words.dtype, of_words.backend, (array.length, array.polarity))
        backend = NUMPY if type(array) is np.ndarray else backend_of(array) or NUMPY
        return cls(tuple(array.shape), np.dtype(array.dtype), backend.name, None)

    @property
    def n_axes(self) -> int:
        """Axes of the array, or of the array of streams."""
        return len(self.shape) - (self.stream is not None)

    def like(self, array: NDArray[Any]) -> Any:
        """Convert a NumPy array to what this layout says: an array of its library, or a Bitstream."""
        made = array if self.backend == NUMPY.name else BACKENDS[self.backend].from_numpy(array)
        return made if self.stream is None else stream_of(made, *self.stream)

    def empty(self) -> Any:
        """An array of no rows."""
        return self.like(np.empty((0, *self.shape[1:]), self.dtype))

    def __str__(self) -> str:
        stream = f" of streams of {self.stream[0]} bits, {self.stream[1]}" if self.stream else ""
        return f"{self.dtype} {self.shape}{stream}"


# A rank that only moves arrays loads neither Dask nor the kernels.


def is_lazy(value: Any) -> bool:
    """Whether a value is a Dask collection."""
    if not hasattr(value, "__dask_graph__"):
        return False
    import dask

    return bool(dask.is_dask_collection(value))


def is_stream(value: Any) -> bool:
    """Whether a value is a Bitstream."""
    return hasattr(type(value), "map_words")


def stream_of(words: Any, length: int, polarity: Polarity) -> Bitstream:
    """A Bitstream of words that are known to be one."""
    from ..bitstream import wrap_words

    return wrap_words(words, length, polarity)


def with_rows(given: Any, what: str) -> Any:
    """An array or a Bitstream that has rows of plain values; a lazy one is computed."""
    value = given.compute() if is_lazy(given) else given
    value = value if is_stream(value) else as_array(value, what)
    plain = value.words if is_stream(value) else value
    if np.dtype(plain.dtype).hasobject:
        raise UnsupportedArrayError(f"{what}: MPI sends plain values, but the dtype is {plain.dtype}")
    if Layout.of(value).n_axes < 1:
        raise BitstreamError(f"{what}: an array that is split along axis 0 has one, but the shape is {value.shape}")
    return value


def on_host(array: Any) -> NDArray[Any]:
    """The values, or the words of streams, as MPI sends them: in C order, in the memory of the processor."""
    words = array.words if is_stream(array) else array
    return np.ascontiguousarray(words if type(words) is np.ndarray else values_on_host(words))


def describe(group: Group, operation: str, make: Callable[[], Any], root: int = 0) -> tuple[Any, Layout]:
    """What this rank makes, and the layout of what the root makes."""
    made: list[Any] = []

    def give() -> Layout | None:
        made.append(make())
        return Layout.of(made[0]) if group.rank == root else None

    layout = group.share(operation, give, root)
    return made[0], layout


def split_rows(n_rows: int, n_parts: int) -> list[int]:
    """How many rows each part gets: as equal as can be, the first parts the larger ones."""
    least, larger = divmod(n_rows, n_parts)
    return [least + (part < larger) for part in range(n_parts)]


def rows_that_fit(part: Any, rank: int, layout: Layout, root: int = 0) -> int:
    """The rows of the part of a rank, if it can be that of an array of which the root has another, with a layout."""
    mine = Layout.of(part)
    if (mine.dtype, mine.shape[1:], mine.stream) != (layout.dtype, layout.shape[1:], layout.stream):
        raise BitstreamError(f"the parts do not fit: rank {root} has {layout}, rank {rank} has {mine}")
    return mine.shape[0]

"""The ranks of an MPI program as workers of a Dask cluster: blocks that go into its graph, and results out of it."""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask
import numpy as np
from distributed import futures_of, wait

from ..errors import BitstreamError, WorldError
from .driver import MPIDriver
from .group import poll
from .layout import Layout, describe, is_lazy, is_stream, rows_that_fit, split_rows, stream_of, with_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from .group import Group

_LENT: dict[str, Any] = {}  # blocks of this rank on their way into the graph
_LANDED: dict[str, Any] = {}  # results on their way out of the graph


def _take(key: str) -> Any:
    return _LENT.pop(key)


def _only_at_the_root() -> None:
    raise WorldError("only rank 0 has the graph of a session; mpi.gather on every rank computes it there")


def _land(key: str, dtype: Any, finish: Callable[..., Any], args: tuple[Any, ...], blocks: Any) -> None:
    """Put the result of a graph where the program of this rank finds it, as a copy of its own."""
    result = finish(blocks, *args)
    plain = result.words if is_stream(result) else result
    if not isinstance(plain, np.ndarray):
        _LANDED[key] = result if _is_array(plain) else deepcopy(result)
        return
    if any(_shares(plain, block) for block in _flat(blocks)):
        plain = plain.copy()
    if dtype is not None:
        plain = plain.astype(dtype, copy=False)  # NumPy concatenates to the byte order of the machine.
    _LANDED[key] = stream_of(plain, result.length, result.polarity) if is_stream(result) else plain


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape") and not isinstance(value, type)


def _shares(array: NDArray[Any], other: Any) -> bool:
    return isinstance(other, np.ndarray) and np.may_share_memory(array, other)


def _flat(nested: Any) -> Iterator[Any]:
    if isinstance(nested, list):
        for item in nested:
            yield from _flat(item)
    else:
        yield nested


class MPISession:
    """The ranks of an MPI program as the workers of a Dask cluster; `mpi_session` opens one.

    Attributes
    ----------
    rank, size : int
        This rank, and how many there are.
    client : distributed.Client or None
        The client of the cluster, on rank 0.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._driver = MPIDriver(group)
        self.rank = group.rank
        self.size = group.size
        self.client: Any = None
        self._workers: list[str] = []  # on rank 0, their addresses
        self._is_open = True
        self._name = group.share("mpi_session", lambda: uuid4().hex)

    def __repr__(self) -> str:
        return f"MPISession(rank={self.rank}, size={self.size})"

    def from_blocks(self, local_block: Any) -> Any:
        """Make the blocks of all ranks one lazy array, each block where it is. Call it on every rank.

        Parameters
        ----------
        local_block : array_like or Bitstream, shape (n_rows_here, ...)
            Of one dtype and, but for the rows, one shape on all ranks. It is not copied: leave it as it is while the
            lazy array is used.

        Returns
        -------
        dask Array, or Bitstream of one, shape (n_rows, ...)
            The rows in the order of the ranks, a chunk for each rank that has some. Rank 0 can compute it, alone or
            with `mpi.gather` on all ranks; elsewhere it has the shape, so that all ranks can go on with the same lines.

        Raises
        ------
        BitstreamError
            If the blocks do not fit, on every rank.
        UnsupportedArrayError
            If the values are Python objects, or the array is of another library, on every rank.
        """
        key = self._new_key()
        block, layout = describe(self._group, "from_blocks", lambda: with_rows(local_block, "local_block"))
        plain = block.words if is_stream(block) else block
        rows = self._group.meet("from_blocks", lambda: rows_that_fit(block, self.rank, layout))
        ranks = [rank for rank, n_rows in enumerate(rows) if n_rows] or [0]
        if self.rank in ranks:
            _LENT[key] = plain
        self._group.meet("from_blocks")
        chunks = (tuple(rows[rank] for rank in ranks), *((size,) for size in layout.shape[1:]))
        array = self._group.make("from_blocks", lambda: self._pinned(key, ranks, chunks, _empty(plain)))
        return array if layout.stream is None else stream_of(array, *layout.stream)

    def scatter(self, array: Any = None) -> Any:
        """Give each rank its rows, and make them one lazy array that is pinned there. Call it on every rank.

        Parameters
        ----------
        array : array_like, Bitstream, or Dask collection of either, shape (n_rows, ...)
            Only that of rank 0 counts. The rows of a lazy one are computed, and go straight to their ranks.

        Returns
        -------
        dask Array, or Bitstream of one, shape (n_rows, ...)
            As `from_blocks` makes it; rows are split as equally as can be.

        Raises
        ------
        BitstreamError
            If there is no axis to split, on every rank.
        UnsupportedArrayError
            If the values are Python objects, or the array is of another library, on every rank.
        """
        self._new_key()
        lazy = self._group.share("scatter", lambda: is_lazy(array))
        rows = self._local("scatter", array, even=True) if lazy else self._driver.scatter_workload(array)
        return self.from_blocks(rows)

    def gather(self, lazy: Any = None) -> Any:
        """Compute on the cluster, and give rank 0 the result. Call it on every rank.

        Parameters
        ----------
        lazy : Dask collection
            Only that of rank 0 counts.

        Returns
        -------
        ndarray, Bitstream, ...
            What `lazy.compute()` gives, on rank 0; elsewhere an array of no rows if that is an array, or None.

        Raises
        ------
        BitstreamError
            If it is no Dask collection, on every rank. What a task raises is raised on every rank too.
        """
        key = self._new_key()

        def compute() -> Layout | None:
            if self.rank:
                return None
            if not is_lazy(lazy):
                raise BitstreamError(f"gather computes a Dask collection, not {type(lazy).__name__}")
            self._land_on_root(lazy, key)
            result = _LANDED[key]
            plain = result.words if is_stream(result) else result
            return Layout.of(result) if _is_array(plain) else None

        layout = self._group.share("gather", compute)
        if self.rank == 0:
            return _LANDED.pop(key)
        return layout and layout.empty()

    def local(self, lazy: Any = None) -> Any:
        """Compute on the cluster, and give each rank its rows. Call it on every rank.

        Parameters
        ----------
        lazy : dask Array, or Bitstream of one, shape (n_rows, ...)
            Only that of rank 0 counts.

        Returns
        -------
        ndarray, cupy.ndarray, jax.Array or Bitstream, shape (n_rows_here, ...)
            Block r on rank r, if there are as many along axis 0 as ranks; otherwise the rows are split as equally as
            can be. They do not pass through rank 0.

        Raises
        ------
        BitstreamError
            If it is no lazy array with rows of a known number, on every rank. What a task raises is raised on every
            rank too.
        """
        return self._local("local", lazy, even=False)

    def _local(self, operation: str, lazy: Any, even: bool) -> Any:
        key = self._new_key()

        def compute() -> None:
            if self.rank == 0:
                self._land_rows(lazy, key, even)

        self._group.meet(operation, compute)
        return _LANDED.pop(key)

    def barrier(self) -> None:
        """Wait until all ranks are here and rank 0's graphs are computed, without burning a core."""
        if self.client is not None:
            client = self.client
            poll(
                lambda: (
                    client.status != "running"
                    or all(state.status != "pending" for state in list(client.futures.values()))
                )
            )
        self._group.meet("barrier")

    def _forget(self) -> None:
        """Let go of blocks that no task has fetched."""
        for key in [key for key in _LENT if key.startswith(self._name)]:
            del _LENT[key]

    def _new_key(self) -> str:
        """A key that is the same on all ranks."""
        if not self._is_open:
            raise WorldError("the session is closed")
        return f"{self._name}-{self._group.meetings}"

    def _land_rows(self, lazy: Any, key: str, even: bool) -> None:
        """Compute an array, and leave each rank its rows: a block if there are as many as ranks, or an equal share."""
        import dask.array as da  # With SciPy, it takes longer to load than all else that a rank starts with.

        plain = lazy.words if is_stream(lazy) else lazy
        if not isinstance(plain, da.Array) or lazy.ndim < 1:
            raise BitstreamError(f"rows are those of a Dask array with an axis to split, not of {lazy!r}")
        if even or len(plain.chunks[0]) != self.size:
            if np.isnan(plain.shape[0]):
                raise BitstreamError("the number of rows is not known: call compute_chunk_sizes() first")
            rows = [n_rows for n_rows in split_rows(plain.shape[0], self.size) if n_rows]
            plain = plain.rechunk({0: tuple(rows or [0])})
        parts = plain.numblocks[0]
        arrays = [plain] if parts == self.size else [plain, plain[:0]]  # Ranks without rows get the latter.
        computed = self.client.persist(arrays)
        blocks = [*_replaced(computed[0]), *_replaced(computed[-1]) * (self.size - parts)]
        like = stream_of(plain, lazy.length, lazy.polarity) if is_stream(lazy) else plain
        self._land({rank: [block] for rank, block in enumerate(blocks)}, like, key)

    def _land_on_root(self, lazy: Any, key: str) -> None:
        """Compute a collection, and leave the result on rank 0."""
        computed = self.client.persist(lazy)
        self._land({0: _replaced(computed)}, computed, key)

    def _land(self, blocks: dict[int, Any], like: Any, key: str) -> None:
        """Leave some ranks what their blocks make, a collection of the kind of another."""
        land = partial(_land, key, getattr(like, "dtype", None), *like.__dask_postcompute__())
        landings = self._submit({rank: (f"land-{key}-{rank}", land, mine) for rank, mine in blocks.items()})
        wait(landings)
        for landing in landings:
            if landing.status != "finished":
                landing.result()

    def _pinned(self, key: str, ranks: list[int], chunks: tuple[tuple[int, ...], ...], meta: Any) -> Any:
        """The blocks that the ranks have lent, as a Dask array."""
        import dask.array as da

        name = f"block-{key}"
        blocks = [(name, i, *[0] * (len(chunks) - 1)) for i in range(len(ranks))]
        graph: dict[Any, Any] = dict.fromkeys(blocks, (_only_at_the_root,))
        if self.client is not None:
            taken = {rank: (block, _take, key) for rank, block in zip(ranks, blocks, strict=True)}
            graph = dict(zip(blocks, self._submit(taken), strict=True))
        return da.Array(graph, name, chunks, meta=meta)

    def _submit(self, tasks: dict[int, tuple[Any, ...]]) -> list[Any]:
        """Have ranks compute a task each, of a key, a function and its argument, which goes out as one graph."""
        graph = {key: (function, argument) for key, function, argument in tasks.values()}
        places = dict(zip(graph, (self._workers[rank] for rank in tasks), strict=True))
        with dask.annotate(workers=places.__getitem__, allow_other_workers=False):
            return list(self.client.get(graph, list(graph), sync=False))


def _replaced(computed: Any) -> Any:
    """The keys of a persisted collection, with a future for each."""
    futures = {future.key: future for future in futures_of(computed)}

    def replace(keys: Any) -> Any:
        return [replace(key) for key in keys] if isinstance(keys, list) else futures[keys]

    return replace(computed.__dask_keys__())


def _empty(array: Any) -> Any:
    return array[(slice(0, 0),) * array.ndim]

"""Scatter, gather and barrier over the ranks of an MPI job, with and without a Dask graph."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import accumulate
from operator import index
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
from distributed import Client, Scheduler, Security, Worker, futures_of, wait
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.utils import silence_logging_cmgr

from . import vector_ops
from ._dispatch import as_numpy
from ._mpi import dashboard_of, end_job, exit_code, group_of, hush, poll, shared_credentials, watch_threads, yield_core
from .bitstream import Bitstream, to_host, wrap_words
from .dashboard import page_of, preloaded
from .errors import BitstreamError, UnsupportedArrayError, WorldError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from numpy.typing import NDArray

    from ._mpi import Group
    from .vector_ops import Polarity

START_SECONDS = 120  # for all ranks to come, and for their workers to be there
CLOSE_SECONDS = 20
# The cores of a rank are its program's.
SELDOM = {"distributed.admin.tick.interval": "200ms", "distributed.worker.profile.interval": "100ms"}
ROWS_A_MESSAGE = 2**30  # MPI before version 4 counts in 32 bits


@dataclass(frozen=True)
class Layout:
    """What an array on some rank is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    library: str
    stream: tuple[int, Polarity] | None

    @classmethod
    def of(cls, array: Any) -> Layout:
        """The layout of an array or a Bitstream."""
        if isinstance(array, Bitstream):
            of_words = cls.of(array.words)
            return cls(of_words.shape, of_words.dtype, of_words.library, (array.length, array.polarity))
        return cls(tuple(array.shape), np.dtype(array.dtype), type(array).__module__.partition(".")[0], None)

    @property
    def n_axes(self) -> int:
        """Axes of the array, or of the array of streams."""
        return len(self.shape) - (self.stream is not None)

    def like(self, array: NDArray[Any]) -> Any:
        """A NumPy array as what this layout says: of the same library, or a Bitstream."""
        made = self._convert(array)
        return made if self.stream is None else wrap_words(made, *self.stream)

    def _convert(self, array: NDArray[Any]) -> Any:
        if self.library == "cupy":
            from .gpu_backend import to_device

            return to_device(array)
        if self.library in ("jax", "jaxlib"):
            from .jax_backend import to_jax

            return to_jax(array)
        return array

    def empty(self) -> Any:
        """An array of no rows."""
        return self.like(np.empty((0, *self.shape[1:]), self.dtype))

    def __str__(self) -> str:
        stream = f" of streams of {self.stream[0]} bits, {self.stream[1]}" if self.stream else ""
        return f"{self.dtype} {self.shape}{stream}"


def _is_lazy(value: Any) -> bool:
    return bool(dask.is_dask_collection(value))


def _with_rows(given: Any, what: str) -> Any:
    """An array or a Bitstream that has rows of plain values; a lazy one is computed."""
    value = given.compute() if _is_lazy(given) else given
    if not isinstance(value, Bitstream) and not hasattr(value, "dtype"):
        value = as_numpy(value, what)
    plain = value.words if isinstance(value, Bitstream) else value
    vector_ops.from_numpy(plain)  # refuses arrays of unknown libraries
    if np.dtype(plain.dtype).hasobject:
        raise UnsupportedArrayError(f"{what}: MPI sends plain values, but the dtype is {plain.dtype}")
    if Layout.of(value).n_axes < 1:
        raise BitstreamError(f"{what}: an array that is split along axis 0 has one, but the shape is {value.shape}")
    return value


def _on_host(array: Any) -> NDArray[Any]:
    words = array.words if isinstance(array, Bitstream) else array
    return np.ascontiguousarray(to_host(words))


def split_rows(n_rows: int, n_parts: int) -> list[int]:
    """How many rows each part gets: as equal as can be, the first parts the larger ones."""
    least, larger = divmod(n_rows, n_parts)
    return [least + (part < larger) for part in range(n_parts)]


class MPIDriver:
    """Partition and synchronise arrays across the ranks of an MPI job.

    Every rank calls the same methods in the same order. What one rank raises in a method is raised on every rank. From
    the first driver on, an error that nothing catches ends the whole job, as does a rank that ends its program while
    another waits for it. A world of one needs no mpi4py.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        By default all ranks. The driver works on a duplicate of it.
    root : int
        The rank that scatters and gathers.

    Attributes
    ----------
    rank, size : int
        This rank, and how many there are.
    root : int

    Raises
    ------
    WorldError
        If the root is no rank, or the launcher and the MPI library do not know each other, so that each process
        believes that it is alone.
    MissingBackendError
        If mpi4py is not installed, and this process is one of several.
    """

    def __init__(self, comm: Any = None, root: int = 0) -> None:
        self._group = group_of(comm)
        self.rank = self._group.rank
        self.size = self._group.size
        self.root = root
        roots = self._group.meet("MPIDriver", lambda: index(root))
        if len(set(roots)) > 1 or root not in range(self.size):
            raise WorldError(f"the root is one rank of {self.size}, the same for all, not {', '.join(map(str, roots))}")

    def __repr__(self) -> str:
        return f"MPIDriver(rank={self.rank}, size={self.size}, root={self.root})"

    def scatter_workload(self, global_inputs: Any = None) -> Any:
        """Give each rank its rows of an array: split along axis 0, as equally as can be.

        Parameters
        ----------
        global_inputs : array_like, Bitstream, or Dask collection of either, shape (n_rows, ...)
            Of any dtype but object. Only that of the root counts. What is lazy is computed there.

        Returns
        -------
        ndarray, cupy.ndarray, jax.Array or Bitstream, shape (n_rows_here, ...)
            A part for each rank, of the type and dtype that the root gave; 10 rows on 4 ranks are 3, 3, 2 and 2. A
            world of one gets its input itself.

        Raises
        ------
        BitstreamError
            If there is no axis to split, on every rank.
        UnsupportedArrayError
            If the values are Python objects, or the array is of another library, on every rank.
        """
        here = self.rank == self.root
        whole, layouts = self._describe(
            "scatter_workload", lambda: _with_rows(global_inputs, "global_inputs") if here else None
        )
        if self.size == 1:
            return whole
        layout = layouts[self.root]
        counts = split_rows(layout.shape[0], self.size)
        sent, part = self._make(
            "scatter_workload",
            lambda: (_on_host(whole) if here else None, np.empty((counts[self.rank], *layout.shape[1:]), layout.dtype)),
        )
        self._exchange(sent, part, counts)
        return self._make("scatter_workload", lambda: layout.like(part))

    def gather_results(self, local_results: Any) -> Any:
        """Collect the rows of all ranks at the root, in the order of the ranks.

        Parameters
        ----------
        local_results : array_like, Bitstream, or Dask collection of either, shape (n_rows_here, ...)
            Of one dtype and, but for the rows, one shape on all ranks.

        Returns
        -------
        ndarray, cupy.ndarray, jax.Array or Bitstream, shape (n_rows, ...)
            At the root; an array of no rows elsewhere.

        Raises
        ------
        BitstreamError
            If the dtypes, shapes or streams of the ranks do not fit, on every rank.
        UnsupportedArrayError
            If the values are Python objects, or the array is of another library, on every rank.
        """
        local, layouts = self._describe("gather_results", lambda: _with_rows(local_results, "local_results"))
        check_fit(layouts)
        if self.size == 1:
            return local
        layout = layouts[self.root]
        counts = [other.shape[0] for other in layouts]
        n_rows = sum(counts) if self.rank == self.root else 0
        part, whole = self._make(
            "gather_results", lambda: (_on_host(local), np.empty((n_rows, *layout.shape[1:]), layout.dtype))
        )
        self._exchange(whole if self.rank == self.root else None, part, counts, back=True)
        return self._make("gather_results", lambda: layout.like(whole))

    def barrier(self) -> None:
        """Wait until all ranks are here, without burning a core."""
        self._group.meet("barrier")

    def _describe(self, operation: str, make: Callable[[], Any]) -> tuple[Any, list[Any]]:
        """What this rank makes, and the layouts of what all make; None of what is None."""
        made: list[Any] = []

        def give() -> Layout | None:
            made.append(make())
            return None if made[0] is None else Layout.of(made[0])

        layouts = self._group.meet(operation, give)
        return made[0], layouts

    def _make(self, operation: str, make: Callable[[], Any]) -> Any:
        """What this rank makes, if all ranks could."""
        made: list[Any] = []
        self._group.meet(operation, lambda: made.append(make()))
        return made[0]

    def _exchange(self, whole: NDArray[Any] | None, part: NDArray[Any], counts: list[int], back: bool = False) -> None:
        """Send the rows of the whole, which the root has, to the parts, or back."""
        from mpi4py import MPI

        row = int(part.dtype.itemsize * np.prod(part.shape[1:], dtype=np.int64))
        if row == 0:
            return
        comm = self._group.comm
        row_type = MPI.BYTE.Create_contiguous(row).Commit()
        requests = []
        try:
            if whole is not None:
                ends = np.cumsum(counts)
                for rank, end in enumerate(ends):
                    rows = _bytes(whole, row)[end - counts[rank] : end]
                    if rank != self.rank:
                        move = comm.Irecv if back else comm.Isend
                        requests += [move([piece, len(piece), row_type], rank) for piece in _pieces(rows)]
                    elif back:
                        rows[:] = _bytes(part, row)
                    else:
                        _bytes(part, row)[:] = rows
            else:
                move = comm.Isend if back else comm.Irecv
                requests += [move([piece, len(piece), row_type], self.root) for piece in _pieces(_bytes(part, row))]
            while not MPI.Request.Testall(requests):
                yield_core()  # Waitall would keep it from a rank that has to send
        except BaseException as error:  # the others are in the middle of it
            end_job(exit_code(error) or 1, error=error)
        finally:
            row_type.Free()


def _bytes(array: NDArray[Any], row: int) -> NDArray[Any]:
    return array.reshape(-1).view(np.uint8).reshape(-1, row) if array.size else np.empty((0, row), np.uint8)


def _pieces(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (rows[start : start + ROWS_A_MESSAGE] for start in range(0, len(rows), ROWS_A_MESSAGE))


def check_fit(layouts: list[Layout]) -> None:
    """Raise unless the parts of the ranks can be the rows of one array."""
    for rank, layout in enumerate(layouts):
        first = layouts[0]
        if (layout.dtype, layout.shape[1:], layout.stream) != (first.dtype, first.shape[1:], first.stream):
            raise BitstreamError(f"the parts do not fit: rank 0 has {first}, rank {rank} has {layout}")


# the session

_LENT: dict[str, Any] = {}  # blocks of this rank on their way into the graph
_LANDED: dict[str, Any] = {}  # results on their way out of it


def _take(key: str) -> Any:
    return _LENT.pop(key)


def _only_at_the_root() -> None:
    raise WorldError("only rank 0 has the graph of a session; mpi.gather on every rank computes it there")


def _land(key: str, dtype: Any, finish: Callable[..., Any], args: tuple[Any, ...], blocks: list[Any]) -> None:
    """Put the result of a graph where the program of this rank finds it, as a copy of its own."""
    result = finish(blocks, *args)
    words = result.words if isinstance(result, Bitstream) else result
    if not isinstance(words, np.ndarray):
        _LANDED[key] = result if _is_array(words) else deepcopy(result)
        return
    if any(_shares(words, block) for block in _flat(blocks)):
        words = words.copy()
    if dtype is not None:
        words = words.astype(dtype, copy=False)  # NumPy concatenates to the byte order of the machine
    _LANDED[key] = wrap_words(words, result.length, result.polarity) if isinstance(result, Bitstream) else words


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


class RankWorker(Worker):  # type: ignore[misc]
    """A worker of a rank: it serves no HTTP, and does not wait for tasks that run when the job ends."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start none."""

    async def close(self, *args: Any, executor_wait: bool = False, **kwargs: Any) -> str | None:
        """Close the worker."""
        closed: str | None = await super().close(*args, executor_wait=executor_wait, **kwargs)
        return closed


class Watch(SchedulerPlugin):  # type: ignore[misc]
    """Ends the job when a worker, or the client of the program, is lost, for launchers that do not."""

    name = "scdask-watch"

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler
        self.closing = False
        self.client: str | None = None

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """Called when a worker has left."""
        self._end(f"the worker {worker} is lost")

    def remove_client(self, scheduler: Any, client: str, **kwargs: Any) -> None:
        """Called when a client has left."""
        if client == self.client:
            self._end("the program is lost")

    def _end(self, message: str) -> None:
        if self.scheduler.status.name == "running" and not self.closing:
            end_job(1, message)


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
        self._workers: list[str] = []
        self._name = group.meet("mpi_session", lambda: uuid4().hex)[0]

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
        block, layouts = self._driver._describe("from_blocks", lambda: _with_rows(local_block, "local_block"))
        check_fit(layouts)
        layout = layouts[self.rank]
        plain = block.words if isinstance(block, Bitstream) else block
        ranks = [rank for rank, other in enumerate(layouts) if other.shape[0]] or [0]
        if self.rank in ranks:
            _LENT[key] = plain
        self._group.meet("from_blocks")
        shapes = [layouts[rank].shape for rank in ranks]
        chunks = (tuple(shape[0] for shape in shapes), *((size,) for size in layout.shape[1:]))
        words = self._driver._make("from_blocks", lambda: self._pinned(key, ranks, chunks, _empty(plain)))
        return words if layout.stream is None else wrap_words(words, *layout.stream)

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
        lazy = self._group.meet("scatter", lambda: self.rank == 0 and _is_lazy(array))[0]
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
            if not _is_lazy(lazy):
                raise BitstreamError(f"gather computes a Dask collection, not {type(lazy).__name__}")
            self._land_on({0: lazy}, key)
            result = _LANDED[key]
            words = result.words if isinstance(result, Bitstream) else result
            return Layout.of(result) if _is_array(words) else None

        layout = self._group.meet("gather", compute)[0]
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
                self._land_on(dict(enumerate(self._rows(lazy, even))), key)

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

    def _new_key(self) -> str:
        """A key that is the same on all ranks."""
        if not self._workers:
            raise WorldError("the session is closed")
        return f"{self._name}-{self._group.meetings}"

    def _rows(self, lazy: Any, even: bool) -> list[Any]:
        """The collection of the rows of each rank."""
        words = lazy.words if isinstance(lazy, Bitstream) else lazy
        if not isinstance(words, da.Array) or lazy.ndim < 1:
            raise BitstreamError(f"rows are those of a Dask array with an axis to split, not of {lazy!r}")
        if len(words.chunks[0]) == self.size and not even:
            parts = [words.blocks[rank] for rank in range(self.size)]
        else:
            if np.isnan(words.shape[0]):
                raise BitstreamError("the number of rows is not known: call compute_chunk_sizes() first")
            ends = list(accumulate(split_rows(words.shape[0], self.size)))
            parts = [words[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        return [wrap_words(p, lazy.length, lazy.polarity) for p in parts] if isinstance(lazy, Bitstream) else parts

    def _land_on(self, lazy: dict[int, Any], key: str) -> None:
        """Compute a collection for each of some ranks, and leave the results there."""
        computed = self.client.persist(list(lazy.values()))
        landings = []
        for rank, collection in zip(lazy, computed, strict=True):
            futures = {future.key: future for future in futures_of(collection)}
            finish, args = collection.__dask_postcompute__()
            blocks = _replace(collection.__dask_keys__(), futures)
            dtype = getattr(collection, "dtype", None)
            landings.append(self._submit(rank, _land, key, dtype, finish, args, blocks))
        wait(landings)
        for landing in landings:
            if landing.status != "finished":
                landing.result()

    def _pinned(self, key: str, ranks: list[int], chunks: tuple[tuple[int, ...], ...], meta: Any) -> Any:
        """What the ranks have lent, as a Dask array."""
        name = f"block-{key}"
        graph: dict[Any, Any] = {}
        for i, rank in enumerate(ranks):
            block = (name, i, *[0] * (len(chunks) - 1))
            if self.client is None:
                graph[block] = (_only_at_the_root,)
            else:
                graph[block] = self._submit(rank, _take, key, key=block)
        return da.Array(graph, name, chunks, meta=meta)

    def _submit(self, rank: int, function: Callable[..., Any], *args: Any, key: Any = None) -> Any:
        where = {"workers": [self._workers[rank]], "allow_other_workers": False}
        return self.client.submit(function, *args, key=key, pure=False, **where)


def _replace(keys: Any, futures: dict[Any, Any]) -> Any:
    return [_replace(key, futures) for key in keys] if isinstance(keys, list) else futures[keys]


def _empty(array: Any) -> Any:
    return array[(slice(0, 0),) * array.ndim]


class _Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._go_on, name="scdask-session", daemon=True)
        self.thread.start()

    def _go_on(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as error:  # a task has raised SystemExit or KeyboardInterrupt
            end_job(exit_code(error) or 1, "a task has ended its worker", error)

    def run(self, coroutine: Coroutine[Any, Any, Any], limit: float | None = None) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(limit)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(timeout=5)


@contextmanager
def mpi_session(
    comm: Any = None,
    *,
    threads: int | None = None,
    host: str | None = None,
    interface: str | None = None,
    memory_limit: Any = None,
    encrypted: bool = True,
    quiet: bool = False,
    timeout: float = START_SECONDS,
) -> Iterator[MPISession]:
    """Make every rank of an MPI program a Dask worker too, until the block ends.

    Each rank goes on with its program, while a thread of it works for the cluster; rank 0 has the scheduler and the
    client as well. All ranks enter and leave together.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm, optional
        By default all ranks.
    threads : int, optional
        Threads of each worker; by default the cores of a host over its ranks, at least 1.
    host, interface : str, optional
        Address, or network interface such as "ib0", where this rank listens. By default 127.0.0.1 where all ranks are
        on one host, otherwise the address that the host has to the outside.
    memory_limit : int or str, optional
        Memory of each worker, beyond which it writes blocks to disk; by default the memory of a host over its ranks.
    encrypted : bool
        Whether the ranks talk TLS, with credentials made for this session, that nobody else has.
    quiet : bool
        Whether not to print the address of the dashboard, which is on the loopback device of rank 0's host.
    timeout : float
        Seconds within which all ranks must be there.

    Yields
    ------
    MPISession

    Raises
    ------
    WorldError
        If the launcher and the MPI library do not know each other, or the workers are not there in time.
    MissingBackendError
        If a package of the extra `mpi` is not installed.

    Notes
    -----
    An error in the block, on any rank or in any of its threads, is printed and ends the job with exit code 1,
    `sys.exit(n)` with n; so does the loss of a worker.
    """
    if threads is not None and index(threads) < 1:
        raise WorldError(f"a worker has at least one thread, not {threads}")
    group = group_of(comm)
    with ExitStack() as stack:
        security = None
        if encrypted:
            credentials = stack.enter_context(shared_credentials(group, timeout))
            security = Security(require_encryption=True, **credentials)
        where = {"host": host, "interface": interface, "protocol": "tls" if encrypted else "tcp", "security": security}
        session = stack.enter_context(open_session(group, where, threads, memory_limit, timeout))
        if session.client is not None and not quiet:
            dashboard, tunnel = dashboard_of(session.client)
            print(f"Dask dashboard: {dashboard} (from elsewhere: {tunnel})", file=sys.stderr)
            if page := page_of(session.client, dashboard):
                print(f"Bitstreams: {page}", file=sys.stderr)
        with _together(group):
            yield session


@contextmanager
def open_session(
    group: Group, where: dict[str, Any], threads: int | None, memory_limit: Any, timeout: float
) -> Iterator[MPISession]:
    """The session of a group, at the address and with the protocol and credentials of `where`.

    The ranks must leave the block together.
    """
    share = group.share_of_host(limit=timeout, interface=where["interface"])
    if share.one_host and where["host"] is None and where["interface"] is None:
        where = where | {"host": "127.0.0.1"}
    memory = share.memory if memory_limit is None else memory_limit
    with ExitStack() as stack:
        if group.size > 1:
            stack.callback(watch_threads())
        stack.enter_context(silence_logging_cmgr(logging.WARNING))
        for logger in map(logging.getLogger, ("distributed", "distributed.client")):
            stack.callback(logger.setLevel, logger.level)
        loop = _Loop()
        stack.callback(loop.close)
        session = MPISession(group)
        cluster = _Cluster(session, loop, timeout)
        stack.callback(cluster.close)
        cluster.start(where, threads or share.threads, memory)
        yield session


@contextmanager
def _together(group: Group) -> Iterator[None]:
    """The ranks leave a block together; an error of one ends the job."""
    leaving = None
    try:
        yield
    except BaseException as error:
        if group.size == 1:
            raise
        code = exit_code(error)
        if not isinstance(error, GeneratorExit) and (code or not isinstance(error, SystemExit)):
            end_job(code or 1, error=error)
        leaving = error
    group.meet("the end of the session")
    if leaving:
        raise leaving


class _Cluster:
    """The scheduler, worker and client of a rank."""

    def __init__(self, session: MPISession, loop: _Loop, timeout: float) -> None:
        self.session = session
        self.group = session._group
        self.loop = loop
        self.timeout = timeout
        self.closing = False
        self.scheduler: Any = None
        self.watch: Watch | None = None
        self.worker: Any = None

    def start(self, where: dict[str, Any], threads: int, memory: Any) -> None:
        def scheduler() -> str | None:
            if self.group.rank == 0:
                self.scheduler = self.loop.run(self._start_scheduler(where), self.timeout)
            return self.scheduler and str(self.scheduler.address)

        def worker() -> str:
            options = {"nthreads": threads, "name": self.group.rank, "memory_limit": memory, **where}
            self.worker = self.loop.run(self._start_worker(address, options), self.timeout)
            return str(self.worker.address)

        def client() -> None:
            if self.group.rank == 0:
                self._start_client(where["security"])

        address = self.group.meet("the start of the scheduler", scheduler, self.timeout)[0]
        self.session._workers = self.group.meet("the start of the workers", worker, self.timeout)
        self.group.meet("the start of the client", client, self.timeout)

    async def _start_scheduler(self, where: dict[str, Any]) -> Any:
        with dask.config.set(SELDOM), preloaded():
            scheduler = await Scheduler(**where, port=0, dashboard=True, dashboard_address="127.0.0.1:0")
        if self.group.size > 1:
            self.watch = Watch(scheduler)
            scheduler.add_plugin(self.watch)
        return scheduler

    async def _start_worker(self, address: str, options: dict[str, Any]) -> Any:
        # A paused worker would wait for memory that the program of its rank holds.
        with dask.config.set({"distributed.worker.memory.pause": False} | SELDOM):
            worker = await RankWorker(address, **options, dashboard=False, death_timeout=self.timeout)
        self.watching = asyncio.ensure_future(self._watch(worker))
        return worker

    async def _watch(self, worker: Any) -> None:
        await worker.finished()
        if self.group.size > 1 and not self.closing:
            end_job(1, f"the worker of rank {self.group.rank} has stopped")

    def _start_client(self, security: Any) -> None:
        client = self.session.client = Client(self.scheduler.address, security=security, timeout=self.timeout)
        try:
            client.wait_for_workers(self.group.size, timeout=self.timeout)
        except TimeoutError as error:
            raise WorldError(f"not every rank has a worker after {self.timeout:g} seconds: {error}") from error

    def close(self) -> None:
        """Close what there is, on all ranks in step."""
        hush()
        self.closing = True
        self.session._workers = []
        if self.watch is not None:
            self.watch.closing = True
        self.group.meet("the close of the session", limit=CLOSE_SECONDS)
        with suppress(Exception):  # what does not close any more ends with the process
            if self.session.client is not None:
                self.session.client.close()
            if self.worker is not None:
                self.loop.run(self.worker.close(nanny=False), CLOSE_SECONDS)
        self.group.meet("the close of the scheduler", limit=2 * CLOSE_SECONDS)
        with suppress(Exception):
            if self.scheduler is not None:
                self.loop.run(self.scheduler.close(), CLOSE_SECONDS)
        for key in [key for key in _LENT if key.startswith(self.session._name)]:  # of tasks that never ran
            del _LENT[key]

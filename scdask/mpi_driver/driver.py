"""Scatter, gather and barrier over the ranks of an MPI job, without a Dask graph."""

from __future__ import annotations

import time
from operator import index
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import WorldError
from .ending import end_job, exit_code
from .group import group_of, yield_core
from .layout import describe, on_host, rows_that_fit, split_rows, with_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

PIECE = 2**26  # bytes of a message, or a row if that is more; MPI before version 4 counts rows in 32 bits
SPIN_SECONDS, PAUSE_SECONDS = 0.2, 5e-4  # A piece that moves is done sooner.


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
    comm : mpi4py.MPI.Intracomm or None

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
        roots = self._group.meet("MPIDriver", lambda: _rank_or_text(root))
        if len(set(roots)) > 1 or roots[0] not in range(self.size):
            raise WorldError(f"the root is one rank of {self.size}, the same for all, not {', '.join(map(str, roots))}")

    def __repr__(self) -> str:
        return f"MPIDriver(rank={self.rank}, size={self.size}, root={self.root})"

    @property
    def comm(self) -> Any:
        """The mpi4py communicator that the driver works on, a duplicate of the one that it was given.

        All drivers and sessions of a communicator share the duplicate, so a message of your own on it must have arrived
        before the next call of theirs; do not free it. None in a world of one without mpi4py.
        """
        return self._group.comm

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
        whole, layout = describe(
            self._group,
            "scatter_workload",
            lambda: with_rows(global_inputs, "global_inputs") if here else None,
            self.root,
        )
        if self.size == 1:
            return whole
        counts = split_rows(layout.shape[0], self.size)
        sent, part = self._group.make(
            "scatter_workload",
            lambda: (on_host(whole) if here else None, np.empty((counts[self.rank], *layout.shape[1:]), layout.dtype)),
        )
        self._exchange(sent, part, counts)
        return self._group.make("scatter_workload", lambda: layout.like(part))

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
        local, layout = describe(
            self._group, "gather_results", lambda: with_rows(local_results, "local_results"), self.root
        )
        counts = self._group.collect(
            "gather_results", lambda: rows_that_fit(local, self.rank, layout, self.root), self.root
        )
        if self.size == 1:
            return local
        n_rows = sum(counts)
        part, whole = self._group.make(
            "gather_results", lambda: (on_host(local), np.empty((n_rows, *layout.shape[1:]), layout.dtype))
        )
        self._exchange(whole if self.rank == self.root else None, part, counts, back=True)
        return self._group.make("gather_results", lambda: layout.like(whole))

    def barrier(self) -> None:
        """Wait until all ranks are here, without burning a core."""
        self._group.meet("barrier")

    def _exchange(self, whole: NDArray[Any] | None, part: NDArray[Any], counts: list[int], back: bool = False) -> None:
        """Send the rows of the whole, which the root has, to the parts of the ranks, or back."""
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
            _wait(MPI.Request.Testsome, requests)
        except BaseException as error:  # The other ranks are in the middle of the exchange.
            end_job(exit_code(error) or 1, error=error)
        finally:
            row_type.Free()


def _rank_or_text(root: Any) -> int | str:
    try:
        return index(root)
    except (TypeError, ValueError):
        return str(root)


def _bytes(array: NDArray[Any], row: int) -> NDArray[Any]:
    return array.reshape(-1).view(np.uint8).reshape(-1, row) if array.size else np.empty((0, row), np.uint8)


def _pieces(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    n_rows = max(1, PIECE // rows.shape[1])
    return (rows[start : start + n_rows] for start in range(0, len(rows), n_rows))


def _wait(test_some: Callable[[list[Any]], list[int] | None], requests: list[Any]) -> None:
    """Wait for all requests; while none is done for some time, leave the core to others."""
    left, moved = len(requests), time.perf_counter()
    while left:
        done = len(test_some(requests) or ())
        left -= done
        now = time.perf_counter()
        if done:
            moved = now
        elif now - moved < SPIN_SECONDS:
            yield_core()  # MPI's own wait would keep the core from a rank that has to send.
        else:
            time.sleep(PAUSE_SECONDS)

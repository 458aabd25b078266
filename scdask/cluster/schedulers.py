"""Schedulers by name, opened for a block and closed after it."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..computing import Place, on_every_worker
from ..core.dispatch import BACKENDS
from ..dashboard import page_of
from ..errors import SchedulerError
from ..mpi_driver.batch import mpi_cluster
from .address import running
from .local import gpus_here, processes_here, threads_here
from .slurm import slurm_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from distributed import Client

STARTED = ("local", "cuda", "mpi", "slurm")  # clusters that begin and end with the block


@contextmanager
def open_scheduler(
    scheduler: str = "local",
    workers: int | None = None,
    threads: int | None = None,
    interface: str | None = None,
    encrypted: bool = False,
) -> Iterator[Place]:
    """Make a scheduler Dask's default until the block ends, then close what was started for it.

    Parameters
    ----------
    scheduler : str
        "local": a cluster of processes on this machine, reachable from it alone. "threads": this process.
        "cuda": a local cluster of a process for each GPU (dask-cuda's LocalCUDACluster).
        "mpi": the ranks of the MPI job that this process belongs to, as `scdask.mpi_driver.batch.mpi_cluster` says:
        all but one of them leave the program here.
        "slurm": workers that are jobs of Slurm (dask-jobqueue's SLURMCluster; its options
        are those of Dask under jobqueue.slurm).
        Otherwise the address of a running scheduler, such as tcp://host:8786, or its scheduler file. If it has no
        worker yet, the first one is waited for, as `scdask.computing` says.
    workers, threads : int, optional
        Processes, and threads in each. By default all cores, up to 8 threads in a process: the kernels release the
        GIL, so that threads scale, and share what they load. For "cuda" all GPUs, and one thread for each. For "slurm"
        one job, and the cores of Dask's options or one thread.
    interface : str, optional
        Network interface of "mpi" and "slurm", such as "ib0".
    encrypted : bool
        Whether "local" talks TLS, so that other users of this machine, whom its loopback device lets in, cannot run
        code as you; see `help(scdask.cluster.security)`. "mpi" and "slurm" always do.

    Raises
    ------
    SchedulerError
        If the scheduler cannot be reached within 30 seconds, there are too few GPUs for "cuda", Slurm refuses the job
        of a worker or does not start it, or an argument is none of these.
    WorldError
        If the ranks of "mpi" do not come together.
    MissingBackendError
        If a package that "cuda", "mpi", "slurm" or `encrypted` needs is not installed.
    """
    scheduler = _checked(scheduler, workers, threads, interface)
    if interface is not None and scheduler not in ("mpi", "slurm"):
        raise SchedulerError(f"the scheduler {scheduler} has no network interface to choose, but {interface} was given")
    if encrypted and scheduler not in ("local", "mpi", "slurm"):
        raise SchedulerError(f"encrypted is for the local cluster (mpi and slurm always are), not for {scheduler}")
    if scheduler == "threads":
        with threads_here(workers, threads) as count:
            yield Place("threads", count, warm_up=warm_up)
        return
    gpu = scheduler == "cuda"
    with _cluster(scheduler, workers, threads, interface, encrypted) as (client, dashboard), _quiet_failure():
        warming = on_every_worker(client, partial(warm_up, gpu))
        cores = sum(client.nthreads().values())
        page = page_of(client, dashboard and dashboard.partition(" ")[0])
        yield Place(scheduler, cores, dashboard, warming, client, gpu, page, own=scheduler in STARTED)


def _checked(scheduler: Any, workers: Any, threads: Any, interface: Any) -> str:
    """The scheduler as text, if the arguments are of the types that they are to have."""
    for name, count in (("workers", workers), ("threads", threads)):
        if count is not None and (isinstance(count, bool) or not hasattr(count, "__index__") or count < 1):
            raise SchedulerError(f"{name} are counted: an integer from 1 on, not {count!r}")
    if not isinstance(interface, str | None):
        raise SchedulerError(f"a network interface is a name such as ib0, not {interface!r}")
    text = os.fspath(scheduler) if isinstance(scheduler, str | os.PathLike) else None
    if not isinstance(text, str):
        raise SchedulerError(f"a scheduler is a name, an address or a file, not {scheduler!r}")
    return text


def _cluster(
    scheduler: str, workers: int | None, threads: int | None, interface: str | None, encrypted: bool
) -> AbstractContextManager[tuple[Client, str | None]]:
    """Open a cluster by its name, for a block; yield its client and the address of its dashboard."""
    match scheduler:
        case "local":
            return processes_here(workers, threads, encrypted)
        case "cuda":
            return gpus_here(workers, threads)
        case "mpi":
            if workers is not None:
                raise SchedulerError(f"the workers of an MPI job are its ranks, but {workers} were asked for")
            return mpi_cluster(threads, interface)
        case "slurm":
            return slurm_cluster(workers, threads, interface)
    return running(scheduler, workers, threads)


@contextmanager
def _quiet_failure() -> Iterator[None]:
    """After an error, keep Dask from logging each task that is cancelled while the cluster closes."""
    try:
        yield
    except BaseException:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        raise


def warm_up(gpu: bool = False) -> str:
    """Compile or load the kernels that a layer runs, so that no job waits for them; return the version of scdask."""
    Context().run(_run_kernels, gpu)  # No task is known in a new context, so that this does not count as work.
    return __version__


# Workers of any version find the function in this module, and so can say which version they have.
warm_up.__module__ = "scdask.cluster"


def _run_kernels(gpu: bool) -> None:
    from ..generators import Bernoulli, Sobol  # The ranks of MPI come here to be workers, not all to compute.
    from ..layers import matmul

    for x_sng, w_sng in ((Sobol(1), Sobol(2)), (Bernoulli(1), Bernoulli(2))):
        for rows, width in ((1, 8), (16, 8), (128, 64)):  # Different kernels multiply few rows, more, and many.
            inputs: Any = [[0.5] * width] * rows
            if gpu:
                inputs = BACKENDS["cupy"].from_numpy(inputs)
            matmul(inputs, [[1.0] * width] * width, 64, x_sng=x_sng, w_sng=w_sng)

"""Where a job runs: threads of this process, a local Dask cluster, or a scheduler that is already there."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask

from . import __version__
from ._extras import require
from .errors import SchedulerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

TRAINING = "scdask-training"  # the topic of the events that a training logs after each epoch
CONNECT_SECONDS = 30  # without a scheduler, or a worker that runs
POLL_SECONDS = 2
# A terminal sends Ctrl-C to the workers too, but it is the job that closes them.
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
THREADS = 8  # of a worker process at the most, unless told otherwise


@dataclass(frozen=True)
class Place:
    """A running scheduler: what it is, how many threads compute there, and the addresses of its dashboard, if any.

    `page` is that of the page of scdask, which a scheduler that was there already need not have. Its workers load the
    kernels while the caller goes on; `wait_until_ready` ends when they have. `compute` does not wait for workers that
    are gone. If `gpu`, each has a GPU, and a job moves its arrays there with `to_device`.
    """

    name: str
    threads: int
    dashboard: str | None = None
    warming: dict[str, Future[str]] = field(default_factory=dict)
    client: Client | None = None
    gpu: bool = False
    page: str | None = None

    def wait_until_ready(self) -> None:
        """Wait for the kernels of every worker; raise a SchedulerError if one cannot run this version of scdask."""
        if self.client is None:
            warm_up()
        for worker, future in self.warming.items():
            version = self._result(future)
            if version != __version__:
                raise SchedulerError(f"the worker {worker} has scdask {version}, but this is {__version__}")

    def compute(self, lazy: Any) -> Any:
        """Compute one Dask collection, in a span of its own; raise a SchedulerError if nobody is left to do it."""
        if self.client is None:
            return lazy.compute()
        with _span(operation_of(lazy)):
            future = self.client.compute(lazy)
        return self._result(future)

    def log_event(self, topic: str, event: dict[str, Any]) -> None:
        """Tell the scheduler of something that its dashboard shows; nothing without one."""
        if self.client is not None:
            self.client.log_event(topic, event)

    def run_everywhere(self, function: Callable[[], Any]) -> None:
        """Run a function on every worker that there is, so that it loads or compiles what its tasks will need."""
        if self.client is None:
            function()
            return
        for future in _on_every_worker(self.client, function).values():
            self._result(future)

    def _result(self, future: Future[Any]) -> Any:
        """The result of a future, as long as there are workers that run."""
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        assert self.client is not None
        alone_since = None
        try:
            while True:
                try:
                    return future.result(timeout=POLL_SECONDS)
                except TimeoutError:
                    if future.done():  # since the wait ended, or with a TimeoutError of its own
                        return future.result()
                running = self.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.running))
                alone_since = None if running else alone_since or time.monotonic()
                if alone_since and time.monotonic() - alone_since > CONNECT_SECONDS:
                    raise SchedulerError(
                        f"no worker of {self.name} has run for {CONNECT_SECONDS} seconds: "
                        "are they alive, not out of memory, and is scdask installed there?"
                    )
        except KilledWorker as error:
            raise SchedulerError(f"the workers that a task ran on died, each time it was tried: {error}") from error
        except (CancelledError, CommClosedError) as error:
            raise SchedulerError(f"the connection to the scheduler {self.name} is lost: {error}") from error


def as_place(given: Any) -> Place:
    """The Place itself, or one of a Dask client's cluster."""
    from distributed import Client

    if isinstance(given, Client):
        return Place("client", sum(given.nthreads().values()), given.dashboard_link, client=given)
    if not isinstance(given, Place):
        raise SchedulerError(f"a place to compute comes from open_scheduler or is a Dask Client, not {given!r}")
    return given


def compute(
    *collections: Any, name: str | None = None, retries: int = 2, progress: bool = False, **kwargs: Any
) -> tuple[Any, ...]:
    """Compute Dask collections at once, as `dask.compute` does, under a name that the dashboard shows.

    On a distributed cluster the tasks form a span: Dask's page of fine performance metrics and its other pages of
    groups tell it from the rest of the work.

    Parameters
    ----------
    *collections : Bitstream, dask Array, other Dask collections, or containers of them
        What is no collection is returned as it is.
    name : str, optional
        Of the span; by default the operations that the collections end with, such as "sc-mac".
    retries : int
        How often a distributed cluster tries a task again that failed. (Tasks whose worker died are tried again in
        any case, as Dask's option distributed.scheduler.allowed-failures says.)
    progress : bool
        Whether to show how many tasks are done, with rate and time left, as `scdask.progress.track` does.
    **kwargs
        Of `dask.compute`, such as `scheduler="threads"`.

    Returns
    -------
    tuple
        Of the results, one for each argument; of a Bitstream a Bitstream in memory.

    Raises
    ------
    SchedulerError
        If `retries` is negative or no integer.
    """
    if isinstance(retries, bool) or not hasattr(retries, "__index__") or retries < 0:
        raise SchedulerError(f"a task is tried again 0 times or more, not {retries!r}")
    name = name or ", ".join(dict.fromkeys(operation_of(c) for c in dask.base.unpack_collections(*collections)[0]))
    with _span(name), dask.annotate(retries=int(retries)):
        if not progress:
            return dask.compute(*collections, **kwargs)  # type: ignore[no-any-return]
        from .progress import follow

        return follow(collections, name, kwargs)


def operation_of(collection: Any) -> str:
    """The name of the tasks that a Dask collection ends with."""
    return str(dask.utils.key_split(next(iter(dask.core.flatten(collection.__dask_keys__())))))


@contextmanager
def _span(name: str) -> Iterator[None]:
    """A span of distributed, if that is in use; annotations hold for what is computed in the block."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not name:
        yield
        return
    with distributed.span(name):
        yield


def warm_up(gpu: bool = False) -> str:
    """Compile or load the kernels that a layer runs, so that no job waits for them; return the version of scdask."""
    Context().run(_run_kernels, gpu)  # where no task is known: what is compiled is not counted as work
    return __version__


def _run_kernels(gpu: bool) -> None:
    from .encoding import Bernoulli, Sobol
    from .layers import matmul

    for generator in (Sobol(1), Bernoulli()):
        for rows in (1, 16):  # which other kernels multiply
            inputs: Any = [[0.5] * 8] * rows
            if gpu:
                from .gpu_backend import to_device

                inputs = to_device(inputs)
            matmul(inputs, [[1.0] * 8] * 8, 64, x_sng=generator, w_sng=generator)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def open_scheduler(
    scheduler: str = "local", workers: int | None = None, threads: int | None = None, interface: str | None = None
) -> Iterator[Place]:
    """Make a scheduler Dask's default until the block ends, then close what was started for it.

    Parameters
    ----------
    scheduler : str
        "local": a cluster of processes on this machine, reachable from it alone. "threads": this process.
        "cuda": a local cluster of a process for each GPU (dask-cuda's LocalCUDACluster).
        "mpi": the ranks of the MPI job that this process belongs to, as `mpi_batch.mpi_cluster` says: all but one of
        them leave the program here. "slurm": workers that are jobs of Slurm (dask-jobqueue's SLURMCluster; its options
        are those of Dask under jobqueue.slurm).
        Otherwise the address of a running scheduler, such as tcp://host:8786, or its scheduler file.
    workers, threads : int, optional
        Processes, and threads in each. By default all cores, up to 8 threads in a process: the kernels release the
        GIL, so that threads scale, and share what they load. For "cuda" all GPUs, and one thread for each. For "slurm"
        one job, and the cores of Dask's options or one thread.
    interface : str, optional
        Network interface of "mpi" and "slurm", such as "ib0".

    Raises
    ------
    SchedulerError
        If the scheduler cannot be reached, or has no worker after 30 seconds, there are too few GPUs for "cuda", or
        Slurm does not start a worker.
    WorldError
        If the ranks of "mpi" do not come together.
    MissingBackendError
        If a package that "cuda", "mpi" or "slurm" needs is not installed.
    """
    if interface is not None and scheduler not in ("mpi", "slurm"):
        raise SchedulerError(f"the scheduler {scheduler} has no network interface to choose, but {interface} was given")
    if scheduler == "threads":
        if workers is not None:
            raise SchedulerError(f"the threads scheduler has no workers to count, but {workers} were asked for")
        count = threads or available_cores()
        with dask.config.set(scheduler="threads", num_workers=count):
            yield Place("threads", count)
        return

    from distributed import Client, LocalCluster

    from .dashboard import preloaded

    if scheduler in ("local", "cuda"):
        if scheduler == "local":
            workers = workers or -(-available_cores() // (threads or THREADS))
            threads = threads or max(1, available_cores() // workers)
            start = LocalCluster
        else:
            workers, threads, start = _gpus(workers), threads or 1, require("dask_cuda", "gpu-cuda13").LocalCUDACluster
        with preloaded():
            cluster = start(
                n_workers=workers,
                threads_per_worker=threads,
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                preload=[IGNORE_CTRL_C],
            )
        with cluster, Client(cluster) as client, _quiet_failure():
            yield _place(scheduler, client, gpu=scheduler == "cuda")
        return
    if scheduler == "mpi":
        if workers is not None:
            raise SchedulerError(f"the workers of an MPI job are its ranks, but {workers} were asked for")
        from .mpi_batch import mpi_cluster

        with mpi_cluster(threads, interface) as (client, dashboard), _quiet_failure():
            yield _place(scheduler, client, dashboard)
        return
    if scheduler == "slurm":
        from .slurm import slurm_cluster

        with slurm_cluster(workers, threads, interface) as cluster, Client(cluster) as client, _quiet_failure():
            yield _place(scheduler, client)
        return
    if workers is not None or threads is not None:
        raise SchedulerError(f"the workers of {scheduler} are there already: leave their number to it")
    with _connect(scheduler) as client, _quiet_failure():
        yield _place(scheduler, client)


def _gpus(workers: int | None) -> int:
    """How many GPUs will have a worker."""
    require("cupy", "gpu-cuda13")
    from .gpu_backend import devices, why_no_gpu

    there = 0 if why_no_gpu() else len(devices())
    if not 1 <= (workers or there) <= there:
        raise SchedulerError(f"a worker needs a GPU of its own, but CuPy finds {there} for {workers or 1}")
    return workers or there


@contextmanager
def _quiet_failure() -> Iterator[None]:
    """After an error, keep Dask from logging each task that is cancelled while the cluster closes."""
    try:
        yield
    except BaseException:
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        raise


def _connect(scheduler: str) -> Client:
    from distributed import Client

    address = scheduler
    if Path(scheduler).is_file():
        try:
            address = json.loads(Path(scheduler).read_text())["address"]
        except (ValueError, KeyError, TypeError) as error:
            raise SchedulerError(f"{scheduler} is no scheduler file: it names no address") from error
    elif ":" not in scheduler:
        raise SchedulerError(
            f"{scheduler} is not local, threads, cuda, mpi, slurm, an address such as tcp://host:8786, or a file"
        )
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise SchedulerError(f"no Dask scheduler answers at {scheduler}: {error}") from error
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError:
        client.close()
        raise SchedulerError(f"the scheduler at {scheduler} has no worker after {CONNECT_SECONDS} seconds") from None
    return client


def _place(name: str, client: Client, dashboard: str | None = None, gpu: bool = False) -> Place:
    from .dashboard import page_of

    warming = _on_every_worker(client, partial(warm_up, gpu))
    threads = sum(client.nthreads().values())
    page = page_of(client, dashboard and dashboard.partition(" ")[0])
    return Place(name, threads, dashboard or client.dashboard_link, warming, client, gpu, page)


def _on_every_worker(client: Client, function: Callable[[], Any]) -> dict[str, Future[Any]]:
    # Other workers are allowed, because nobody would wait for the warm-up of one that died and came back.
    return {
        worker: client.submit(function, workers=[worker], allow_other_workers=True, pure=False)
        for worker in client.nthreads()
    }

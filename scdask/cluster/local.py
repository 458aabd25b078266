"""Schedulers on this machine: threads of this process, or a cluster of processes, which may have a GPU each."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, LocalCluster

from .._extras import require
from ..dashboard import preloaded
from ..errors import SchedulerError
from .security import credentials_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A terminal sends Ctrl-C, and that it is closed, to the workers too, but it is the job that closes them.
IGNORE_TERMINAL = """\
import signal
for name in {"SIGINT", "SIGHUP"} & set(dir(signal)):
    signal.signal(getattr(signal, name), signal.SIG_IGN)
"""
THREADS = 8  # most threads of a worker process, unless their number is given


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def threads_here(workers: int | None, threads: int | None) -> Iterator[int]:
    """Let Dask compute in threads of this process; yield their number."""
    if workers is not None:
        raise SchedulerError(f"the threads scheduler has no workers to count, but {workers} were asked for")
    count = threads or available_cores()
    with dask.config.set(scheduler="threads", num_workers=count):
        yield count


@contextmanager
def processes_here(workers: int | None, threads: int | None, encrypted: bool) -> Iterator[tuple[Client, str]]:
    """Start a cluster of processes, which a `Client()` finds too; yield its client and the address of its dashboard."""
    workers = workers or -(-available_cores() // (threads or THREADS))
    threads = threads or max(1, available_cores() // workers)
    with (
        credentials_here() if encrypted else nullcontext() as security,
        _started(LocalCluster, workers, threads, security=security) as client,
        dask.config.set({"scheduler-address": client.scheduler.address}),
    ):
        yield client, client.dashboard_link


@contextmanager
def gpus_here(workers: int | None, threads: int | None) -> Iterator[tuple[Client, str]]:
    """Start a cluster with a process for each GPU; yield its client and the address of its dashboard."""
    workers = _gpus(workers)
    with _started(require("dask_cuda", "gpu-cuda13").LocalCUDACluster, workers, threads or 1) as client:
        yield client, client.dashboard_link


@contextmanager
def _started(start: Callable[..., Any], workers: int, threads: int, **options: Any) -> Iterator[Client]:
    with preloaded():
        cluster = start(
            n_workers=workers,
            threads_per_worker=threads,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            preload=[IGNORE_TERMINAL],
            **options,
        )
    with cluster, Client(cluster) as client:
        yield client


def _gpus(workers: int | None) -> int:
    """The number of GPUs that will have a worker."""
    require("cupy", "gpu-cuda13")
    from ..gpu_backend import devices, why_no_gpu

    there = 0 if why_no_gpu() else len(devices())
    if not 1 <= (workers or there) <= there:
        raise SchedulerError(f"a worker needs a GPU of its own, but CuPy finds {there} for {workers or 1}")
    return workers or there

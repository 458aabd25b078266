"""How Dask collections are computed: in a span with a name, on whatever runs them.

`compute`, which is `scdask.compute`, is `dask.compute` with

- a span of Dask's, named after the operation or `name=`, by which the pages of the dashboard tell its tasks from the
  rest;
- retries: on a distributed cluster a task that fails is tried again up to twice, whatever the error (`retries=`);
- progress, if asked for: how many tasks are done, as `scdask.progress.track` shows it.

>>> import dask.array as da
>>> import scdask as sc
>>> stream = sc.encode(da.arange(1000, chunks=250) / 1000, 1024, sng=sc.Sobol(1))
>>> mean, half = sc.compute(stream.decode().mean(), stream[500].decode(), name="two results")
>>> round(float(mean), 2), float(half)
(0.5, 0.5)

Workers that are yet to come, from a queue or to an adaptive cluster, are waited for, and a line in the log of `scdask`,
which Python shows on stderr, says so. Once workers were there, and none is left, a training, a prediction or a job of
the command line ends with a SchedulerError after 30 seconds, unless the Client has a cluster that is adaptive. The Dask
option `scdask.worker-timeout`, such as "10 min", is the limit in both cases.

What is in memory is computed by one kernel, which tells nothing on its way: for a `predict` that takes long, give it a
Dask array. `Place` is what `scdask.cluster.open_scheduler` opens.
"""

from __future__ import annotations

import logging
import math
import operator
import os
import socket
import sys
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import SchedulerError
from .progress import follow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Future

__all__ = ["Place", "as_place", "compute"]

TRAINING = "scdask-training"  # the topic of the events that a training logs after each epoch
SWEEP = "scdask-sweep"  # the topic of the events of a campaign: how far it is
EARLY_EXIT = "scdask-early-exit"  # the topic of the events of a chunk of samples that is done
CONNECT_SECONDS = 30  # time to wait for a scheduler, or for workers that were there and have left
POLL_SECONDS = 2
ASK_SECONDS = 5  # time that the processes of a job have to say how long they computed


@dataclass(frozen=True)
class Place:
    """What runs tasks: a scheduler with its workers, or the threads of this process.

    Parameters
    ----------
    name : str
        The name that was asked for.
    threads : int
        The number of threads of all workers.
    dashboard, page : str, optional
        Addresses of Dask's dashboard and of the page of scdask in it. A scheduler that was there already need not have
        that page.
    warming : dict of str to distributed.Future
        A task for each worker, by its address, which loads the kernels while the caller goes on, and returns the
        worker's version of scdask.
    client : distributed.Client, optional
        The client of the scheduler. None where this process computes alone.
    gpu : bool
        Whether each worker has a GPU, so that a job moves its arrays there with `to_device`.
    warm_up : callable, optional
        Loads the kernels of this process, if they are needed here.
    own : bool
        Whether scheduler and workers were started for this place alone, and serve nobody else.
    """

    name: str
    threads: int
    dashboard: str | None = None
    warming: dict[str, Future[str]] = field(default_factory=dict)
    client: Client | None = None
    gpu: bool = False
    page: str | None = None
    warm_up: Callable[[], object] | None = None
    own: bool = False
    _had_workers: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)

    def wait_until_ready(self) -> None:
        """Wait for the kernels of every worker; raise a SchedulerError if one cannot run this version of scdask."""
        if self.warm_up is not None:
            self.warm_up()
        for worker, future in self.warming.items():
            version = self._result(future, pinned=True)
            if version not in (None, __version__):
                raise SchedulerError(f"the worker {worker} has scdask {version}, but this is {__version__}")

    def compute(self, lazy: Any) -> Any:
        """Compute one Dask collection, in a span of its own; raise a SchedulerError if no worker is left to do it.

        Workers that are yet to come are waited for, those that were there and are gone are not; the Dask option
        `scdask.worker-timeout` limits both.
        """
        if self.client is None:
            return lazy.compute()
        with span(operation_of(lazy)):
            future = self.client.compute(lazy)
        return self._result(future)

    def cpu_seconds_elsewhere(self) -> float | None:
        """How long the other processes of this place have computed, on all their cores, since they started.

        None if they serve others too, or do not all answer. What processes that ended on this machine have taken is in
        `cpu_seconds_here`; it is lost of those that ended elsewhere.
        """
        client = self.client
        if client is None:
            return 0.0
        if not self.own:
            return None

        async def ask() -> Any:
            scheduler = await client.run_on_scheduler(_cpu_seconds_of_process)
            return [scheduler, *(await client.run(_cpu_seconds_of_process)).values()]

        try:
            found = dict(client.sync(ask, callback_timeout=ASK_SECONDS))
        except Exception:  # The results are there, whatever does not answer any more.
            return None
        found.pop(_process(), None)
        return float(sum(found.values()))

    def log_event(self, topic: str, event: dict[str, Any]) -> None:
        """Send an event, which the dashboard shows, to the scheduler, if there is one."""
        if self.client is not None:
            self.client.log_event(topic, event)

    def run_everywhere(self, function: Callable[[], Any]) -> None:
        """Run a function on every worker that there is, so that it loads or compiles what its tasks will need."""
        if self.client is None:
            function()
            return
        for future in on_every_worker(self.client, function).values():
            self._result(future, pinned=True)

    def wait_for_worker(self) -> None:
        """Wait until the scheduler has a worker, if it has none yet."""
        if not self.threads:
            assert self.client is not None
            # An adaptive cluster starts a worker once there is a task.
            self._result(self.client.submit(tuple, pure=False))

    def _result(self, future: Future[Any], pinned: bool = False) -> Any:
        """The result of a future, as long as there are workers that run, or none has come yet.

        None for one that is pinned to a worker which is gone, if no other took its task: when all workers died at once,
        Dask gives it to none of those that come, though other workers are allowed.
        """
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        assert self.client is not None
        patience = Patience(self)
        try:
            while True:
                try:
                    result = future.result(timeout=POLL_SECONDS)
                    self._had_workers.set()
                    return result
                except TimeoutError:
                    if future.done():  # It ended just after the wait, or with a TimeoutError of its own.
                        self._had_workers.set()
                        return future.result()
                if patience.look() and pinned and self.client.run_on_scheduler(_fits_no_worker(future.key)):
                    return None
        except KilledWorker as error:
            raise SchedulerError(f"the workers that a task ran on died, each time it was tried: {error}") from error
        except (CancelledError, CommClosedError) as error:
            raise SchedulerError(f"the connection to the scheduler {self.name} is lost: {error}") from error


class Patience:
    """How long to wait for the workers of a place, while nothing comes from them."""

    SECONDS = POLL_SECONDS  # from one look to the next

    def __init__(self, place: Place) -> None:
        self._place = place
        self._alone_since: float | None = None
        if place.threads:
            place._had_workers.set()

    def look(self) -> bool:
        """Tell whether there are workers that run; raise a SchedulerError if there have been none for too long."""
        place = self._place
        assert place.client is not None
        if place.client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.running)):
            self.forget()
            return True
        to_come = not place._had_workers.is_set() or _is_adaptive(place.client.cluster)
        limit = _worker_timeout(to_come)
        if self._alone_since is None:
            self._alone_since = time.monotonic() - POLL_SECONDS
            if to_come:
                logging.getLogger("scdask").warning("%s has no worker: waiting for one to come", place.name)
        if time.monotonic() - self._alone_since > limit:
            raise SchedulerError(
                f"no worker of {place.name} has run for {limit:g} seconds: are they alive, not out of memory, "
                "and is scdask installed there? (the Dask option scdask.worker-timeout is the limit)"
            )
        return False

    def forget(self) -> None:
        """Begin anew, as there are workers."""
        self._place._had_workers.set()
        self._alone_since = None


def log_event_of_task(topic: str, event: dict[str, Any]) -> None:
    """Send an event to the scheduler, if a worker of Dask runs this task."""
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        with suppress(ValueError):  # There is no worker.
            distributed.get_worker().log_event(topic, event)


def cpu_seconds_here() -> float:
    """How long this process has computed, on all its cores, and the processes that it started and that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _cpu_seconds_of_process() -> tuple[tuple[str, int], float]:
    """A name for this process, which may be scheduler and worker at once, and its CPU seconds."""
    return _process(), cpu_seconds_here()


def _fits_no_worker(key: Any) -> Callable[..., bool]:
    """A function that tells whether a task may run on none of the workers; the scheduler need not have scdask."""
    return lambda dask_scheduler: key in dask_scheduler.tasks and dask_scheduler.tasks[key].state == "no-worker"


def _is_adaptive(cluster: Any) -> bool:
    """Whether a cluster, if the client has one, starts and stops workers by itself."""
    return getattr(getattr(cluster, "_adaptive", None), "periodic_callback", None) is not None


def _worker_timeout(to_come: bool) -> float:
    """For how many seconds to wait for workers."""
    import dask

    asked = dask.config.get("scdask.worker-timeout", None)
    if asked is None:
        return math.inf if to_come else CONNECT_SECONDS
    try:
        seconds = float(dask.utils.parse_timedelta(asked, default="s"))
    except (ValueError, TypeError, KeyError, AttributeError):
        seconds = math.nan
    if not seconds > 0:
        raise SchedulerError(f"the Dask option scdask.worker-timeout is a positive time, not {asked!r}")
    return seconds


def as_place(given: Any) -> Place:
    """The Place itself, or one for the cluster of a Dask client."""
    from distributed import Client

    if isinstance(given, Client):
        _refuse_asynchronous(given)
        if given.status != "running":
            raise SchedulerError(f"the Client is {given.status}: give one that is connected to its scheduler")
        return Place("client", sum(given.nthreads().values()), given.dashboard_link, client=given)
    if not isinstance(given, Place):
        raise SchedulerError(f"a place to compute comes from open_scheduler or is a Dask Client, not {given!r}")
    return given


def _refuse_asynchronous(client: Any) -> None:
    if client is not None and client.asynchronous:
        raise SchedulerError(
            "the Client is asynchronous, and gives coroutines in place of results: give it a synchronous Client, in a "
            "thread of its own"
        )


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
        Name of the span; by default the operations that the collections end with, such as "sc-mac".
    retries : int
        How often a distributed cluster tries a task again that failed. (Tasks whose worker died are tried again in
        any case, as Dask's option distributed.scheduler.allowed-failures says.)
    progress : bool
        Whether to show how many tasks are done, with rate and time left, as `scdask.progress.track` does.
    **kwargs
        Keywords of `dask.compute`, such as `scheduler="threads"`.

    Returns
    -------
    tuple
        The results, one for each argument; that of a Bitstream is a Bitstream in memory.

    Raises
    ------
    SchedulerError
        If `retries` is negative or no integer, or the Client that would compute is asynchronous.
    """
    try:
        again = -1 if isinstance(retries, bool) else operator.index(retries)
    except (TypeError, ValueError):
        again = -1
    if again < 0:
        raise SchedulerError(f"a task is tried again 0 times or more, not {retries!r}")
    import dask

    lazy, _ = dask.base.unpack_collections(*collections)
    if lazy and "distributed" in sys.modules:
        _refuse_asynchronous(_client_of(kwargs.get("scheduler")))
    name = name or ", ".join(dict.fromkeys(operation_of(c) for c in lazy))
    with span(name), dask.annotate(retries=again):
        if not progress:
            return dask.compute(*collections, **kwargs)  # type: ignore[no-any-return]
        return follow(collections, name, kwargs)


def _client_of(scheduler: Any) -> Any:
    """The client that would compute, if it is one that does."""
    from dask.base import get_scheduler
    from distributed import Client, get_client

    try:
        client = getattr(get_scheduler(scheduler=scheduler), "__self__", None)
    except RuntimeError:  # Dask refuses one that is asynchronous.
        client = scheduler if isinstance(scheduler, Client) else get_client()
    return client if isinstance(client, Client) else None


def operation_of(collection: Any) -> str:
    """The name of the tasks that a Dask collection ends with."""
    from dask.core import flatten
    from dask.utils import key_split

    return str(key_split(next(iter(flatten(collection.__dask_keys__())))))


@contextmanager
def span(name: str) -> Iterator[None]:
    """Open a span of distributed, if that is in use, for what is computed in the block."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not name:
        yield
        return
    with distributed.span(name):
        yield


def on_every_worker(client: Client, function: Callable[[], Any]) -> dict[str, Future[Any]]:
    """Start a function on each worker; return its futures by the addresses of the workers."""
    # Other workers are allowed, because nobody would wait for the warm-up of one that died and came back.
    return {
        worker: client.submit(function, workers=[worker], allow_other_workers=True, pure=False)
        for worker in client.nthreads()
    }

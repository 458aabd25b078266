"""How a scheduler gets the page: with its start, or later from a client."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dask
from distributed.protocol.pickle import dumps

from ..core.metering import METER
from ..errors import SchedulerError
from .meter import Meter
from .monitor import Monitor
from .prometheus import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client, Scheduler

PAGE = "scdask"


async def dask_setup(scheduler: Scheduler) -> None:
    """Add the page and the meters to a scheduler; one that has `scdask.dashboard` as a preload calls this."""
    if Monitor.name not in scheduler.plugins:
        monitor = Monitor(scheduler, has_page=_mount(scheduler))
        publish(monitor)
        scheduler.add_plugin(monitor, name=Monitor.name)
        await scheduler.register_worker_plugin(None, dumps(Meter()), METER, idempotent=True)


def _mount(scheduler: Scheduler) -> bool:
    """Add the page to the server of the dashboard, and to its bar of links; say whether there is such a server."""
    bokeh = next((a for a in scheduler.http_application.applications if hasattr(a, "prefix")), None)
    if bokeh is None:
        return False  # Bokeh is not installed, or the dashboard is switched off.
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    from .page import show

    variables = template_variables(scheduler)
    variables["pages"].append(PAGE)
    page = BokehApplication({f"/{PAGE}": show}, scheduler, bokeh.prefix, variables)
    scheduler.http_application.add_application(page)
    page.initialize(IOLoop.current())
    page.start()
    return True


@contextmanager
def preloaded(module: str = "scdask.dashboard") -> Iterator[None]:
    """Make schedulers that start in the block preload a module; by default the one that gives them the page."""
    modules = dask.config.get("distributed.scheduler.preload")
    with dask.config.set({"distributed.scheduler.preload": [*modules, module]}):
        yield


def install(client: Client) -> str:
    """Add the page to the dashboard of a running cluster, unless it is there.

    Parameters
    ----------
    client : distributed.Client
        A client of a scheduler that can import this version of scdask, as can its workers.

    Returns
    -------
    str
        The address of the page. An asynchronous client gives an awaitable of it.

    Raises
    ------
    SchedulerError
        If the scheduler has no dashboard. The workers count nevertheless, for Prometheus.
    """
    return client.sync(_install, client)  # type: ignore[no-any-return]


async def _install(client: Client) -> str:
    await client.run_on_scheduler(_set_up)
    address = await _address(client, None)
    if address is None:
        raise SchedulerError(
            f"the scheduler at {client.scheduler.address} has no dashboard: is bokeh installed there, "
            "and the dashboard not switched off?"
        )
    return address


async def _set_up(dask_scheduler: Scheduler) -> None:
    await dask_setup(dask_scheduler)


def page_of(client: Client, dashboard: str | None = None) -> str | None:
    """The address of the page beside the dashboard's first page, if the scheduler of a client has it."""
    return client.sync(_address, client, dashboard)  # type: ignore[no-any-return]


async def _address(client: Client, dashboard: str | None) -> str | None:
    has_page = await client.run_on_scheduler(_has_page)
    return f"{(dashboard or client.dashboard_link).rpartition('/')[0]}/{PAGE}" if has_page else None


def _has_page(dask_scheduler: Scheduler) -> bool:
    return getattr(dask_scheduler.plugins.get(Monitor.name), "has_page", False)

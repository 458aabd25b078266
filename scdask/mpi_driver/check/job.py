"""The check of a job: its ranks look, compare and measure, and none waits for long."""

from __future__ import annotations

import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import dask

from ...errors import WorldError
from ..addresses import choose_address, interface_of
from ..ending import end_job
from ..group import group_of
from ..launch import rank_here, turn_of
from .links import over_mpi, over_tls
from .look import look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..group import Group
    from .report import Report


class Watch:
    """Ends the job if it is not done after some seconds, and says where this rank is."""

    def __init__(self, group: Group, seconds: float) -> None:
        self.group = group
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.patience = seconds / 4  # for a connection
        self.now_at = "its start"
        self._timer = threading.Timer(seconds + turn_of(group.rank), self._tell)
        self._timer.daemon = True
        self._timer.start()

    def step(self, what: str) -> float:
        """Note what begins; gives the seconds that are left for it."""
        self.now_at = what
        return max(1.0, self.end - time.monotonic() - 1)

    def close(self) -> None:
        """Watch no more."""
        self._timer.cancel()

    def _tell(self) -> None:
        end_job(1, f"{self.group} is after {self.seconds:g} seconds still at {self.now_at}")


def check(interface: str | None, timeout: float) -> tuple[int, list[Report]]:
    """Look at the set-up of this job; all ranks call it.

    Parameters
    ----------
    interface : str, optional
        The network interface that the ranks are to use; by default what a session takes.
    timeout : float
        Seconds after which the job is ended.

    Returns
    -------
    rank : int
        The number of this rank.
    reports : list of Report
        What all ranks found, in their order.

    Raises
    ------
    WorldError
        If MPI cannot start, or the launcher and the MPI library do not know each other.
    MissingBackendError
        If mpi4py is not installed.
    """
    with dask.config.set({"scdask.start-seconds": timeout}):
        try:
            group = group_of()
        except WorldError as error:
            raise WorldError(f"{rank_here()}: {error}") from error
    watch = Watch(group, timeout)
    try:
        return group.rank, _check(group, interface, watch)
    finally:
        watch.close()


def _check(group: Group, interface: str | None, watch: Watch) -> list[Report]:
    mine = look(group)
    share = group.share_of_host(timeout=watch.step("a look at the hosts"))
    mine.threads, mine.memory = share.threads, share.memory
    try:
        mine.address = choose_address(None, interface, share.one_host)
        mine.interface = interface or interface_of(mine.address)
    except (WorldError, OSError) as error:  # The name of this host may lead nowhere.
        mine.no_address = str(error)
    with _file_here(group.rank == 0) as name:
        reports, names = zip(*group.meet("the reports", lambda: (mine, name), watch.step("the reports")), strict=True)
        mine.folder_shared = Path(names[0]).exists() if names[0] else None
        group.meet("a look at the current folder", timeout=watch.step("a look at the current folder"))
    if group.size > 1:
        if all(report.versions["cryptography"] for report in reports):
            over_tls(group, mine, watch)
        over_mpi(group, mine, _by_hosts(reports), watch)
    return group.meet("the results", lambda: mine, watch.step("the results"))


@contextmanager
def _file_here(wanted: bool) -> Iterator[str]:
    """The name of a file in the current folder while the block lasts; "" if none is wanted, or can be made."""
    with ExitStack() as stack:
        name = ""
        if wanted:
            with suppress(OSError):
                name = stack.enter_context(tempfile.NamedTemporaryFile(prefix=".scdask-check-", dir=".")).name
        yield Path(name).name


def _by_hosts(reports: tuple[Report, ...]) -> list[int]:
    """The ranks but 0, the first of each host before the second of any, so that all hosts have their turn."""
    seen: dict[tuple[str, str], int] = {}
    turns = []
    for report in reports:
        seen[report.machine] = turn = seen.get(report.machine, 0) + 1
        turns.append((turn, report.rank))
    return [rank for _, rank in sorted(turns) if rank]

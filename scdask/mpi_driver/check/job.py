"""The check of a job: its ranks look, compare and measure, and none waits for long."""

from __future__ import annotations

import faulthandler
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import WorldError
from ..group import group_of
from ..launch import RANKS
from .links import over_mpi, over_tls
from .look import listening_address, look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..group import Group
    from .report import Report

# The process that a Watch starts
WATCHER = """
import os, select, sys, time
start, step = time.monotonic(), "its start"
who, seconds = sys.argv[1], float(sys.argv[2])
while select.select([0], [], [], max(0, start + seconds - time.monotonic()))[0]:
    read = os.read(0, 4096).decode()
    if not read:
        sys.exit()
    step = read.splitlines()[-1]
print(f"scdask: {who} is after {seconds:g} seconds still at {step}", file=sys.stderr)
"""


class Watch:
    """Ends this process with code 1 if it is not done after some seconds, and says where it is.

    This also works where MPI hangs without letting any Python run, as in its start.
    """

    def __init__(self, seconds: float, who: str) -> None:
        self.end = time.monotonic() + seconds
        self.patience = seconds / 4  # for a connection
        self._teller = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", WATCHER, who, str(seconds)], stdin=subprocess.PIPE, bufsize=0
        )
        self._nothing = os.open(os.devnull, os.O_WRONLY)
        faulthandler.dump_traceback_later(seconds + 1, exit=True, file=self._nothing)

    def step(self, what: str) -> float:
        """Note what begins; gives the seconds that are left for it."""
        assert self._teller.stdin
        with suppress(OSError):  # It has told already.
            self._teller.stdin.write(f"{what}\n".encode())
        return max(1.0, self.end - time.monotonic() - 1)

    def close(self) -> None:
        """Watch no more."""
        faulthandler.cancel_dump_traceback_later()
        os.close(self._nothing)
        self._teller.communicate()


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
    rank = next((os.environ[name] for name in (*RANKS, "SLURM_PROCID") if name in os.environ), "0")
    who = f"rank {rank} on {socket.gethostname()}"
    watch = Watch(timeout, who)
    try:
        watch.step("the start of MPI: its launcher is of another MPI or version, or a host does not reach the others")
        try:
            group = group_of()
        except WorldError as error:
            raise WorldError(f"{who}: {error}") from error
        return group.rank, _check(group, interface, watch)
    finally:
        watch.close()


def _check(group: Group, interface: str | None, watch: Watch) -> list[Report]:
    mine = look(group)
    share = group.share_of_host(timeout=watch.step("a look at the hosts"))
    mine.threads, mine.memory = share.threads, share.memory
    try:
        mine.interface, mine.address = listening_address(interface, share.one_host)
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

"""`scdask mpi-check`: what each rank of an MPI job finds on its host, and what is wrong there."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import printable
from .running import plain_errors, print_wide, printing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from ..mpi_driver.check import Link, Report


@click.command("mpi-check")
@click.option("--interface", help="Network interface that the job will use, such as ib0.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=30,
    show_default=True,
    help="Seconds after which the check is ended, wherever it is.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table, as for a ticket.")
def mpi_check(interface: str | None, timeout: float, as_json: bool) -> None:
    """Say what is wrong with the set-up of an MPI job, in a few seconds.

    \b
    mpiexec -n 6 scdask mpi-check
    srun -n 6 scdask mpi-check --interface ib0

    Launch it as you will launch your jobs, with their modules, hosts, ranks and interface. The ranks compare their
    versions, MPI libraries, cores, limits and folders; each connects to rank 0 and to the next rank as a session would,
    over TLS with credentials of the job, and measures the round trip and the bandwidth to rank 0, over that and over
    MPI. What is wrong is said in one sentence each, with ranks and hosts.

    The exit code is 0 if all is well, and 1 if something is wrong; what is only a warning does not count.

    \b
    The table has a row for the ranks of a host that have the same
      address   where they would listen
      threads   that each would get in a session, and
      memory    its share of that of the host
      MPI, TLS  to rank 0: MB/s of the slowest, and the longest round trip of
                the row; "failed" if a rank did not connect, "-" where none
                measured

    \b
    The JSON holds
      well                       whether nothing is wrong
      wrong, warnings            the sentences
      ranks: of each
        rank, host, boot         who it is; boot tells hosts of one name apart
        mpi, thread_level        the MPI library and what it lets threads do
        versions                 of Python and packages
        environment, source,     where Python and scdask are, and a sum over the
        source_sum               names and sizes of the files of scdask
        cores, cores_of_launcher the cores that it may use, and how many all may
        threads, memory          that it would get; memory in bytes
        open_files               how many it may open, null without a limit
        shared_memory,           bytes of /dev/shm, and of them the free ones
        shared_memory_free
        numba_cache              where Numba keeps what it has compiled
        folder, folder_shared    the current folder, and whether it is rank 0's
        interface, address,      where it would listen, or why it cannot
        no_address
        clock                    seconds that it is ahead of rank 0's
        to_root, to_next         over TLS, to rank 0 and to the next rank, and
        over_mpi                 to rank 0: round_trip in seconds, bandwidth in
                                 bytes a second, error
    """
    with plain_errors():
        from .._extras import require

        require("mpi4py", "mpi")
        from ..mpi_driver.check import check, judge

        rank, reports = check(interface, timeout)
        wrong, warnings = judge(reports)
        if rank == 0:
            with printing(saved=False) as console:
                if as_json:
                    click.echo(json.dumps(_report(reports, wrong, warnings), indent=2))
                else:
                    _print(console, reports, wrong, warnings)
    if wrong:
        sys.exit(1)


def _report(reports: Sequence[Report], wrong: list[str], warnings: list[str]) -> dict[str, Any]:
    from dataclasses import asdict

    return {"well": not wrong, "wrong": wrong, "warnings": warnings, "ranks": list(map(asdict, reports))}


def _print(console: Console, reports: Sequence[Report], wrong: list[str], warnings: list[str]) -> None:
    from dask.utils import format_bytes
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    root = reports[0]
    n_hosts, interfaces = len({report.machine for report in reports}), {report.interface for report in reports} - {""}
    counts = f"{_count(len(reports), 'rank')} on {_count(n_hosts, 'host')}"
    versions = ", ".join(f"{name} {number}" for name, number in root.versions.items() if number)
    table = Table(
        title=escape(printable(f"{counts}, at {', '.join(sorted(interfaces)) or 'no interface'}")),
        caption=escape(printable(f"Rank 0: {root.mpi}, MPI_{root.thread_level}; {versions}.")),
        caption_justify="left",
        box=SIMPLE_HEAD,  # Names of hosts need the room.
    )
    table.add_column("ranks", no_wrap=True)
    table.add_column("host", overflow="fold")
    table.add_column("address", overflow="fold")
    for name in ("threads,\nmemory", "MPI\nMB/s", "\ntrip", "TLS\nMB/s", "\ntrip"):
        table.add_column(name, justify="right", no_wrap=True)
    rows: dict[Any, list[Report]] = {}
    for report in reports:
        rows.setdefault((report.machine, report.address, report.threads, report.memory), []).append(report)
    for those in rows.values():
        first = those[0]
        table.add_row(
            _numbers([report.rank for report in those]),
            escape(printable(first.host)),
            " ".join(filter(None, (first.address or "none", first.interface if len(interfaces) > 1 else ""))),
            f"{first.threads}, {format_bytes(first.memory)}",
            *_speeds(report.over_mpi for report in those),
            *_speeds(report.to_root for report in those),
        )
    print_wide(console, table)
    for kind, sentences in (("Wrong", wrong), ("Warning", warnings)):
        for sentence in sentences:
            console.print(printable(f"{kind}: {sentence}."), markup=False, highlight=False, soft_wrap=True)
    console.print(_verdict(len(wrong), len(warnings)), highlight=False)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n > 1)}"


def _verdict(wrong: int, warnings: int) -> str:
    if wrong:
        return f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong with this set-up."
    return "All is well." if not warnings else "Nothing is wrong, but see the warnings."


def _numbers(ranks: list[int]) -> str:
    """Such as "0-3", or "0, 2, ... 14"."""
    first, last = ranks[0], ranks[-1]
    if last - first == len(ranks) - 1:
        return str(first) if len(ranks) == 1 else f"{first}-{last}"
    return ", ".join(map(str, ranks)) if len(ranks) < 4 else f"{first}, {ranks[1]}, ... {last}"


def _speeds(links: Iterable[Link | None]) -> tuple[str, str]:
    """The least bandwidth and the longest round trip."""
    there = [link for link in links if link is not None]
    if any(link.error for link in there):
        return "failed", "-"
    rates = [link.bandwidth for link in there if link.bandwidth]
    trips = [link.round_trip for link in there if link.round_trip]
    return f"{min(rates) / 1e6:,.0f}" if rates else "-", _short(max(trips)) if trips else "-"


def _short(seconds: float) -> str:
    factor, unit = next((f, unit) for f, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")) if seconds * f >= 1 or f == 1e6)
    return f"{seconds * factor:.3g} {unit}"

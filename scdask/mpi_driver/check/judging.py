"""What is wrong with the set-up of an MPI job, in sentences, from what its ranks report."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING, Any

from ..._files import some
from ..ranks import OPEN_FILES, OPEN_FILES_A_RANK
from .look import SHARED_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Sequence

    from .report import Link, Report

SHARED_MEMORY_OF_A_RANK = 16 * 2**20  # bytes
FULL = 2**20  # bytes of it that are nothing
SLOW = 8  # times the median is no more noise
CLOCK_SECONDS = 60.0
NEEDED = ("mpi4py", "dask-mpi", "cryptography")


def judge(reports: Sequence[Report]) -> tuple[list[str], list[str]]:
    """What is wrong with a job, and what may be: a sentence each.

    Parameters
    ----------
    reports : sequence of Report
        Of all ranks, in their order.

    Returns
    -------
    wrong : list of str
        What keeps a job from running right.
    warnings : list of str
        What may make it slow, or could not be checked.
    """
    wrong = [
        *_addresses(reports),
        *_links(reports),
        *_packages(reports),
        *_mpi(reports),
        *_open_files(reports),
        *_cores(reports),
        *_folders(reports),
    ]
    return wrong, [*_memory(reports), *_clocks(reports), *_slow(reports), *_doubts(reports)]


def _who(ranks: Sequence[Report]) -> str:
    """Such as "ranks 2-3 on h2"."""
    runs: list[list[int]] = []
    for rank in sorted(report.rank for report in ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    numbers = some(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    hosts = list(dict.fromkeys(report.host for report in ranks))
    where = ", ".join(hosts) if len(hosts) <= 4 else f"{len(hosts)} hosts"
    return f"rank{'s' * (len(ranks) > 1)} {numbers} on {where}"


def _alike(ranks: Sequence[Report], what: Callable[[Report], Hashable]) -> Iterator[tuple[Any, list[Report]]]:
    """Each value but "", None and False, and the ranks that have it."""
    found: dict[Hashable, list[Report]] = {}
    for report in ranks:
        found.setdefault(what(report), []).append(report)
    return ((value, those) for value, those in found.items() if value)


def _odd(ranks: Sequence[Report], what: Callable[[Report], str]) -> Iterator[tuple[list[Report], str, str]]:
    """The ranks that do not have the value that most have, their value and that of most; of equally many, rank 0's."""
    usual = Counter(map(what, ranks)).most_common(1)[0][0]
    return ((those, value, usual) for value, those in _alike(ranks, what) if usual and value != usual)


def _hosts(reports: Sequence[Report]) -> list[list[Report]]:
    return [those for _, those in _alike(reports, lambda report: report.machine)]


def _loopback(report: Report) -> str:
    return report.address if report.address.startswith("127.") else ""


# Wrong


def _addresses(reports: Sequence[Report]) -> Iterator[str]:
    for reason, ranks in _alike(reports, lambda report: report.no_address):
        yield f"{_who(ranks)}: {reason}"
    if len(_hosts(reports)) > 1:
        for address, ranks in _alike(reports, _loopback):
            yield (
                f"{_who(ranks)} would listen at {address} ({ranks[0].interface}), where other hosts do not reach "
                f"{'them' if len(ranks) > 1 else 'it'}: name an interface of the network that joins the hosts"
            )


def _links(reports: Sequence[Report]) -> Iterator[str]:
    root = reports[0]
    if _loopback(root) and len(_hosts(reports)) > 1:  # That is said, and what they reach there may be anything.
        return
    for error, ranks in _alike(reports, lambda report: _error(report.to_root)):
        yield (
            f"{_who(ranks)} cannot talk to rank 0 on {root.host} at {root.address} ({root.interface}): {error}; "
            "--interface names a network that joins all hosts, and no firewall may close its ports to the job"
        )
    # A rank that does not reach rank 0 is in that sentence already.
    alone = [report for report in reports if not _error(report.to_root)]
    for error, ranks in _alike(alone, lambda report: _error(report.to_next)):
        first, following = ranks[0], reports[(ranks[0].rank + 1) % len(reports)]
        others = f", nor can {len(ranks) - 1} others to theirs" if len(ranks) > 1 else ""
        yield (
            f"{_who([first])} cannot talk to its next rank, {_who([following])[5:]}, at {following.address} "
            f"({following.interface}){others}: {error}; workers talk to each other too"
        )


def _error(link: Link | None) -> str:
    return link.error if link else ""


def _packages(reports: Sequence[Report]) -> Iterator[str]:
    for package in reports[0].versions:

        def number(report: Report, package: str = package) -> str:
            return report.versions[package]

        for ranks, theirs, usual in _odd(reports, number):
            yield f"{_who(ranks)}: {package} is {theirs}, but {usual} on the other ranks"
        missing = [report for report in reports if not report.versions[package]]
        if missing and (package in NEEDED or len(missing) < len(reports)):
            yield f"{_who(missing)}: {package} is not installed; pip install 'scdask[mpi]' brings what MPI needs"
    same = [report for report in reports if report.versions["scdask"] == reports[0].versions["scdask"]]
    for ranks, _, _ in _odd(same, lambda report: f"{report.source_sum}"):
        others = next(report for report in same if report.source_sum != ranks[0].source_sum)
        yield (
            f"{_who(ranks)}: the files of scdask {ranks[0].versions['scdask']} in {ranks[0].source} are not those that "
            f"the other ranks have in {others.source}"
        )


def _mpi(reports: Sequence[Report]) -> Iterator[str]:
    for ranks, theirs, usual in _odd(reports, lambda report: report.mpi):
        yield f"{_who(ranks)}: the MPI library is {theirs}, but {usual} on the other ranks"
    for level, ranks in _alike(reports, lambda report: report.thread_level):
        if level != "THREAD_MULTIPLE":
            yield (
                f"{_who(ranks)}: {ranks[0].mpi} gives MPI_{level}, but ranks that watch each other in a thread need "
                "MPI_THREAD_MULTIPLE: take a library that was built with it"
            )


def _open_files(reports: Sequence[Report]) -> Iterator[str]:
    root, needed = reports[0], OPEN_FILES + OPEN_FILES_A_RANK * len(reports)
    if root.open_files is not None and root.open_files < needed:
        yield (
            f"rank 0 on {root.host} may open {root.open_files:,} files, but with {len(reports):,} ranks needs "
            f"{needed:,}: put `ulimit -n {needed}` before the command, or ask the administrator for more"
        )


def _cores(reports: Sequence[Report]) -> Iterator[str]:
    found = []
    for host in _hosts(reports):
        there = _cores_of(host)
        idle = there - len(set().union(*(report.cores for report in host)))
        for cores, ranks in _alike(host, lambda report: tuple(report.cores)):
            if idle > 0 and len(ranks) > len(cores):
                share = f"{len(ranks)} ranks share core{'s' * (len(cores) > 1)} {some(cores)} of a host"
                found.append((ranks, f"{share}, while {idle} of its {there} cores are idle"))
    for what, ranks in _merged(found):
        yield f"{_who(ranks)}: {what}; srun --cpus-per-task, or mpiexec --bind-to none, gives them more"


def _cores_of(host: Sequence[Report]) -> int:
    return max(report.cores_of_launcher for report in host)


def _merged(found: Sequence[tuple[Sequence[Report], str]]) -> Iterator[tuple[str, list[Report]]]:
    """What is said of several hosts, once, with the ranks of all of them."""
    merged: dict[str, list[Report]] = {}
    for ranks, what in found:
        merged.setdefault(what, []).extend(ranks)
    yield from merged.items()


def _folders(reports: Sequence[Report]) -> Iterator[str]:
    root = reports[0]
    for folder, ranks in _alike([r for r in reports if r.folder_shared is False], lambda report: report.folder):
        yield (
            f"{_who(ranks)}: the current folder {folder} is not that of rank 0 on {root.host}, {root.folder}: start "
            "the job in a folder of a file system that all hosts share"
        )
    missing = [report for report in reports if not report.numba_cache]
    if missing:
        yield (
            f"{_who(missing)}: Numba can keep compiled kernels neither beside scdask nor in the home folder; set "
            "NUMBA_CACHE_DIR to a folder that can be written to"
        )
    shares = _shared_memory(reports)
    if full := [report for report in reports if shares[report.rank] < FULL]:
        yield (
            f"{_who(full)}: {SHARED_MEMORY} is full, with {_mebibytes(min(shares))} free for each rank: remove "
            "what ended jobs have left there"
        )


def _shared_memory(reports: Sequence[Report]) -> list[float]:
    """Bytes of shared memory that are free for each rank."""
    on_host = Counter(report.machine for report in reports)
    return [
        math.inf if report.shared_memory_free is None else report.shared_memory_free / on_host[report.machine]
        for report in reports
    ]


def _mebibytes(n_bytes: float) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"


# Perhaps wrong


def _memory(reports: Sequence[Report]) -> Iterator[str]:
    shares = _shared_memory(reports)
    if small := [report for report in reports if FULL <= shares[report.rank] < SHARED_MEMORY_OF_A_RANK]:
        yield (
            f"{_who(small)}: {SHARED_MEMORY} has {_mebibytes(min(shares[report.rank] for report in small))} free for "
            f"each rank, and MPI may take {_mebibytes(SHARED_MEMORY_OF_A_RANK)}"
        )


def _clocks(reports: Sequence[Report]) -> Iterator[str]:
    for way, sign in (("ahead of", 1), ("behind", -1)):
        if wrong := [report for report in reports if sign * report.clock > CLOCK_SECONDS]:
            yield (
                f"{_who(wrong)}: the clock is {max(abs(report.clock) for report in wrong):,.0f} s {way} that of rank 0 "
                f"on {reports[0].host}; logs and the times of files do not fit, and from a day on TLS refuses it"
            )


def _slow(reports: Sequence[Report]) -> Iterator[str]:
    ways: tuple[tuple[str, Callable[[Report], Link | None]], ...] = (
        ("MPI", lambda report: report.over_mpi),
        ("TLS", lambda report: report.to_root),
    )
    for way, link_of in ways:
        rates = {report.rank: link.bandwidth for report in reports if (link := link_of(report)) and link.bandwidth}
        slow = []
        for host in _hosts(reports):
            theirs = [rates[report.rank] for report in host if report.rank in rates]
            others = [rate for rank, rate in rates.items() if rank not in {report.rank for report in host}]
            if len(others) > 1 and theirs and SLOW * max(theirs) < median(others):
                slow.extend(host)
        if slow:
            yield (
                f"{_who(slow)}: rank 0 gets {min(rates[r.rank] for r in slow if r.rank in rates) / 1e6:,.0f} MB/s over "
                f"{way} from there, but {median(rates.values()) / 1e6:,.0f} MB/s from the median of all ranks"
            )


def _doubts(reports: Sequence[Report]) -> Iterator[str]:
    if len(reports) == 1:
        yield "this is one rank alone, so that nothing between ranks was checked: mpiexec -n 4 scdask mpi-check"
    if reports[0].folder_shared is None:
        yield (
            f"rank 0 on {reports[0].host} cannot write to the current folder {reports[0].folder}, so whether all ranks "
            "share it was not checked"
        )
    for ranks, theirs, usual in _odd(reports, lambda report: report.environment):
        yield f"{_who(ranks)}: Python is that of {theirs}, but that of {usual} on the other ranks"
    crowded = [
        (host, f"there are {len(host)} ranks on a host with {len(cores)} core{'s' * (len(cores) > 1)} for them")
        for host in _hosts(reports)
        if len(host) > len(cores := set().union(*(report.cores for report in host))) == _cores_of(host)
    ]
    for what, ranks in _merged(crowded):
        yield f"{_who(ranks)}: {what}, so that they wait for each other: start fewer, or ask for more cores"

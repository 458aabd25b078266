"""How far a campaign is, by what its store says, also while jobs write to it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .grid import DONE, FAILED
from .store import lock_of, path_of, read_asked, read_store

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A job of a store."""

    host: str
    pid: int
    started: str
    alive: bool
    claimed: int


@dataclass(frozen=True)
class Status:
    """How many cells of a campaign are in which state, its jobs, and errors, each with the first cell of it."""

    title: str
    asked: int
    done: int
    failed: int
    claimed: int
    jobs: list[Job]
    errors: list[tuple[dict[str, Any], str]]

    @property
    def left(self) -> int:
        """The cells that are neither done nor failed."""
        return self.asked - self.done - self.failed


def status_of(store: Any, errors: int = 5) -> Status:
    """What a store holds, and who works on it; nothing is written.

    Parameters
    ----------
    store : path
    errors : int
        How many to tell at most.

    Raises
    ------
    SweepError
        If there is no such store.
    """
    path = path_of(store)
    grid, known = read_store(path)
    jobs = []
    for number, job in enumerate(known["jobs"], 1):
        alive = _lives(path, number)
        claimed = int((grid.state == -number).sum()) if alive else 0
        jobs.append(Job(job["host"], job["pid"], job["started"], alive, claimed))
    names = [axis.name for axis in grid.axes]
    failed = []
    first: dict[str, Any] = {}
    for cell, error in sorted(grid.errors.items()):
        first.setdefault(error, cell)
    for error, cell in list(first.items())[:errors]:
        values = [axis.labels[place] for axis, place in zip(grid.axes, cell, strict=True)]
        failed.append((dict(zip(names, values, strict=True)), error))
    attributes = known["show"].get("attributes", {})
    return Status(
        title=attributes.get("title", known["about"].get("function", "")),
        asked=int((read_asked(path, grid.shape) | (grid.state > 0)).sum()),
        done=int((grid.state == DONE).sum()),
        failed=int((grid.state == FAILED).sum()),
        claimed=sum(job.claimed for job in jobs),
        jobs=jobs,
        errors=failed,
    )


def _lives(path: Path, job: int) -> bool:
    """Whether a job holds its lock."""
    import fcntl

    try:
        lock = os.open(lock_of(path, job), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

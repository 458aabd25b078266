"""What a rank reports of its set-up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Link:
    """What a connection to another rank did: seconds of a round trip, bytes a second, or why there is none."""

    round_trip: float | None = None
    bandwidth: float | None = None
    error: str = ""


@dataclass
class Report:
    """What a rank sees of its set-up. Memory is in bytes, times are in seconds; what is not known is None."""

    rank: int
    host: str
    boot: str
    mpi: str
    thread_level: str
    versions: dict[str, str]  # "" of what is not installed
    environment: str
    source: str
    source_sum: int
    cores: list[int]
    cores_of_launcher: int
    open_files: int | None
    shared_memory: int | None
    shared_memory_free: int | None
    numba_cache: str  # "" if there is no folder that Numba can write to
    folder: str
    folder_shared: bool | None = None
    threads: int = 1
    memory: int = 0
    interface: str = ""
    address: str = ""
    no_address: str = ""  # why it has none
    clock: float = 0.0  # by how much it is ahead of rank 0's
    to_root: Link | None = None
    to_next: Link | None = None
    over_mpi: Link | None = None

    @property
    def machine(self) -> tuple[str, str]:
        """What tells its host from the others: hosts may have the same name, but not the same boot."""
        return self.host, self.boot

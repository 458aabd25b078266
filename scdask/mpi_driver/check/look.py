"""What a rank sees by itself: versions, cores, limits, folders, and the address where it would listen."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import zlib
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ... import __version__
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..group import Group

PACKAGES = ("dask", "distributed", "numpy", "numba", "mpi4py", "dask-mpi", "cryptography")
THREAD_LEVELS = ("THREAD_SINGLE", "THREAD_FUNNELED", "THREAD_SERIALIZED", "THREAD_MULTIPLE")
SHARED_MEMORY = Path("/dev/shm")


def look(group: Group) -> Report:
    """What this rank sees by itself."""
    from mpi4py import MPI

    vendor, numbers = MPI.get_vendor()
    boot = Path("/proc/sys/kernel/random/boot_id")
    source = Path(__file__).parents[2]
    cores, of_launcher = _cores()
    shared = shutil.disk_usage(SHARED_MEMORY) if SHARED_MEMORY.is_dir() else None
    return Report(
        rank=group.rank,
        host=socket.gethostname(),
        boot=boot.read_text().strip() if boot.exists() else "",
        mpi=f"{vendor} {'.'.join(map(str, numbers))}",
        thread_level=next(name for name in THREAD_LEVELS if MPI.Query_thread() == getattr(MPI, name)),
        versions={"Python": platform.python_version(), "scdask": __version__} | {p: _version(p) for p in PACKAGES},
        environment=sys.prefix,
        source=str(source),
        source_sum=_sum_of(source),
        cores=cores,
        cores_of_launcher=of_launcher,
        open_files=_open_files(),
        shared_memory=shared and shared.total,
        shared_memory_free=shared and shared.free,
        numba_cache=next((str(folder) for folder in _numba_caches(source) if _is_writable(folder)), ""),
        folder=_folder(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _sum_of(source: Path) -> int:
    """A sum over the names and sizes of the source files, which other files are unlikely to have."""
    files = sorted((str(path.relative_to(source)), path.stat().st_size) for path in source.rglob("*.py"))
    return zlib.crc32(repr(files).encode())


def _cores() -> tuple[list[int], int]:
    """The cores that this rank may use, and the number of those that its launcher may use."""
    if not hasattr(os, "sched_getaffinity"):
        n_cores = os.cpu_count() or 1
        return list(range(n_cores)), n_cores
    mine = os.sched_getaffinity(0)
    of_launcher = set(mine)
    with suppress(OSError):
        of_launcher |= os.sched_getaffinity(os.getppid())
    of_job = os.environ.get("SLURM_CPUS_ON_NODE", "")  # The launcher of Slurm may use those of other jobs too.
    return sorted(mine), min(len(of_launcher), int(of_job)) if of_job.isdigit() else len(of_launcher)


def _open_files() -> int | None:
    try:
        import resource
    except ImportError:  # on Windows
        return None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # A session raises the soft limit itself.
    return None if hard == resource.RLIM_INFINITY else hard


def _numba_caches(source: Path) -> Iterator[Path]:
    """The folders that Numba tries, in its order."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(given)
    yield source / "jit_kernels" / "__pycache__"
    with suppress(RuntimeError):  # There is no home folder.
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"


def _is_writable(folder: Path) -> bool:
    """Whether files can be made in a folder, or the folder itself can."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.access(path, os.F_OK))
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _folder() -> str:
    try:
        return str(Path.cwd())
    except OSError:
        return "that was removed"

"""The kind of this machine: its processor, cores, hyperthreads, and the level of its instructions."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llvmlite import binding
from numba.core.registry import cpu_target

from ..limits import SIMD

if TYPE_CHECKING:
    from collections.abc import Collection

CPUS = Path("/sys/devices/system/cpu")

# What each level adds, by LLVM's names (System V ABI for x86-64, "microarchitecture levels").
LEVELS = {
    "x86-64": ("sse2",),
    "x86-64-v2": ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}


@dataclass(frozen=True)
class Machine:
    """The kind of a machine, of which a process may use only some processor threads: these are meant.

    Parameters
    ----------
    processor : str
        Its name.
    cores : int or None
        Its cores, None where the system does not say which hyperthreads share one.
    threads : int
        Its hyperthreads: as many as cores, if each is on a core of its own.
    level : str
        The level of its instructions: see `level`.
    compiled_for : str
        That of the instructions that kernels are compiled to.
    """

    processor: str
    cores: int | None
    threads: int
    level: str
    compiled_for: str

    def __str__(self) -> str:
        if self.cores is None:
            count = _counted(self.threads, "processor thread")
        elif self.cores == self.threads:
            count = _counted(self.cores, "core")
        else:
            count = f"{_counted(self.threads, 'hyperthread')} of {_counted(self.cores, 'core')}"
        compiled = f"kernels compiled for {self.compiled_for}" if self.compiled_for != self.level else ""
        return ", ".join(filter(None, [self.processor, count, self.level, compiled]))


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def this_machine() -> Machine:
    """The kind of this machine."""
    known = [name for name, there in binding.get_host_cpu_features().items() if there]
    _, name, features = cpu_target.target_context.codegen().magic_tuple()
    compiled = [feature[1:] for feature in features.split(",") if feature.startswith("+")]
    if not compiled:  # The environment variables of Numba may give a level, or no feature.
        compiled = _up_to(name)
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return Machine(_processor(), cores_of(usable), len(usable), level(known), level(compiled))


def cores_of(threads: Collection[int], folder: Path = CPUS) -> int | None:
    """The number of cores that run these processor threads, None where the system does not say it as Linux does."""
    lists = [folder / f"cpu{thread}" / "topology" / "thread_siblings_list" for thread in threads]
    try:
        return len({path.read_text().strip() for path in lists})
    except OSError:
        return None


def level(features: Collection[str]) -> str:
    """The level of a processor with some features, by LLVM's names, such as "x86-64-v4 with vpopcntdq".

    It is the highest of which no feature is missing, nor any of the levels below. Other processors have no levels:
    those of their instruction sets that matter here stand for one, or nothing.
    """
    reached = ""
    for name, added in LEVELS.items():
        if not set(added) <= set(features):
            break
        reached = name
    if not reached:
        return ", ".join(name for name in SIMD if name in features)
    counts = reached == "x86-64-v4" and "avx512vpopcntdq" in features
    return f"{reached} with vpopcntdq" if counts else reached


def _up_to(name: str) -> list[str]:
    """The features of a level by its name; of any other processor only what all of its kind have."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return []
    levels = list(LEVELS)
    last = levels.index(name) if name in levels else 0
    return [feature for below in levels[: last + 1] for feature in LEVELS[below]]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()

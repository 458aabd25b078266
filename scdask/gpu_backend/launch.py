"""Launches of CUDA kernels. Their source is kernels.cu, which CuPy compiles for the GPU at hand, and keeps on disk."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from ..core.digits import PARITY, ROTATIONS, ROUNDS
from ..core.gates import GATES
from .device import cupy

THREADS = 256  # threads of a block
BLOCKS = 32  # most blocks of a launch for each multiprocessor
WARP = 32
NULL = np.uint64(0)
KINDS = tuple(GATES)  # names of the gates, in the order of their numbers in kernels.cu


def source() -> str:
    """The source of the kernels, after the gates and the constants of Threefry, which are those of every backend."""
    cases = ""
    for number, row in enumerate(GATES.values()):
        operands = " ".join(f"word {name} = {given};" for name, given in zip(row.inputs, "xyz", strict=False))
        cases += f"    case {number}: {{ {operands} return {row.text}; }}\n"
    constants = {
        "THREEFRY_ROUNDS": ROUNDS,
        "THREEFRY_ROTATIONS": f"{{{', '.join(map(str, ROTATIONS))}}}",
        "THREEFRY_PARITY": f"{PARITY:#x}ull",
    }
    return (
        "".join(f"#define {name} {value}\n" for name, value in constants.items())
        + "typedef unsigned long long word;\n"
        + "__device__ inline word gate_of(int kind, word x, word y, word z) {\n"
        + f"  switch (kind) {{\n{cases}  }}\n  return 0;\n}}\n"
        + (files(__package__) / "kernels.cu").read_text()
    )


@cache
def _module() -> Any:
    return cupy.RawModule(code=source(), options=("--std=c++17",))


@cache
def _compiled(name: str) -> Any:
    return _module().get_function(name)


def launch(name: str, blocks: int, threads: int, *args: Any) -> None:
    """Start a kernel; Python integers become 64-bit arguments."""
    values = tuple(np.int64(arg) if isinstance(arg, int) else arg for arg in args)
    _compiled(name)((blocks,), (threads,), values)


def launch_over(name: str, items: int, *args: Any) -> None:
    """Start a kernel with a thread for each item, or with fewer threads where so many would not pay."""
    launch(name, min(-(-items // THREADS), BLOCKS * multiprocessors()), THREADS, *args)


def multiprocessors() -> int:
    """The number of multiprocessors of the device in use."""
    return properties(cupy.cuda.Device().id)[0]


@cache
def properties(device: int) -> tuple[int, bool]:
    """The multiprocessors of a device, and whether its tensor cores have AND and popcount of 1-bit matrices."""
    found = cupy.cuda.Device(device)
    return found.attributes["MultiProcessorCount"], int(found.compute_capability) >= 80

"""Launching of CUDA kernels. Their source is kernels.cu, which CuPy compiles for the GPU at hand, and keeps on disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..core.gates import GATES
from ..core.threefry import PAIR_BITS, PARITY, ROTATIONS, ROUNDS
from .device import cupy

THREADS = 256  # in a block
BLOCKS = 32  # of a launch, for each multiprocessor
WARP = 32
NULL = np.uint64(0)
KINDS = tuple(GATES)  # as the kernel of the gates numbers them


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
        "PAIR_BITS": PAIR_BITS,
    }
    return (
        "".join(f"#define {name} {value}\n" for name, value in constants.items())
        + "typedef unsigned long long word;\n"
        + "__device__ inline word gate_of(int kind, word x, word y, word z) {\n"
        + f"  switch (kind) {{\n{cases}  }}\n  return 0;\n}}\n"
        + Path(__file__).with_name("kernels.cu").read_text()
    )


@cache
def _module() -> Any:
    return cupy.RawModule(code=source(), options=("--std=c++17",))


@cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


def launch(name: str, blocks: int, threads: int, *args: Any) -> None:
    """Start a kernel; Python integers are its 64-bit ones."""
    values = tuple(np.int64(arg) if isinstance(arg, int) else arg for arg in args)
    _kernel(name)((blocks,), (threads,), values)


def launch_over(name: str, items: int, *args: Any) -> None:
    """Start a kernel with a thread for each of so many items, or so many threads as pay."""
    launch(name, min(-(-items // THREADS), BLOCKS * multiprocessors()), THREADS, *args)


def multiprocessors() -> int:
    """Of the device that is in use."""
    return properties(cupy.cuda.Device().id)[0]


@cache
def properties(device: int) -> tuple[int, bool]:
    """Multiprocessors of a device, and whether its tensor cores have AND and popcount of 1-bit matrices."""
    found = cupy.cuda.Device(device)
    return found.attributes["MultiProcessorCount"], int(found.compute_capability) >= 80

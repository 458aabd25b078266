"""CuPy arrays: CUDA kernels, and the way to a GPU and back.

Without a GPU, or without CuPy, `to_device` leaves arrays on the host, where the Numba kernels run, and warns once. So
the same program runs everywhere, with the same bits. `HAS_CUPY` says whether CuPy finds a GPU, and `xp` is CuPy if so,
else NumPy; both are found out when they are first asked for.
"""

from typing import Any

import numpy as _numpy

from ..core.dispatch import loaded
from ..vector_ops.numbers import to_host
from . import counting, encoding, gates, mac, numbers, packing
from .device import cupy, devices, from_numpy, to_device, wait, why_no_gpu, works
from .reference import gpu_pack_bitstream, gpu_popcount, gpu_vec_and, gpu_vec_mac

__all__ = [
    "HAS_CUPY",
    "devices",
    "gpu_pack_bitstream",
    "gpu_popcount",
    "gpu_vec_and",
    "gpu_vec_mac",
    "to_device",
    "to_host",
    "why_no_gpu",
    "xp",
]


def __getattr__(name: str) -> Any:
    if name == "HAS_CUPY":
        return why_no_gpu() is None
    if name == "xp":
        return _numpy if why_no_gpu() else cupy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


loaded("cupy")

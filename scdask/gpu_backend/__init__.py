"""CuPy arrays: CUDA kernels, and the way to a GPU and back.

The kernels, and `--scheduler cuda`, have never run on a GPU, and so have no figures. What the tests check without one:
NVIDIA's compiler takes the source for compute capability 7.5, 8.0, 9.0 and 12.0; and built as C++, with stand-ins for
what only a GPU does, the kernels give the bits of the NumPy arrays. On a machine with a GPU the same tests run there
(`pytest -m gpu`), and `python benchmarks/gpu.py` measures the kernels.

With CuPy on a machine with an NVIDIA GPU (`pip install "scdask[gpu-cuda13]"`, or `gpu-cuda12` for an older driver) all
functions, streams and layers of scdask take CuPy arrays and give CuPy arrays with the same bits. `to_device` moves
arrays, lazy arrays and Bitstreams there, `to_host` back:

>>> import warnings
>>> import dask.array as da
>>> import numpy as np
>>> import scdask as sc
>>> from scdask.gpu_backend import to_device, to_host
>>> p = np.linspace(0, 1, 5)
>>> with warnings.catch_warnings(action="ignore"):  # that there is no GPU
...     a, b = (sc.encode(to_device(p), 256, sng=sc.Sobol(d)) for d in (1, 2))
>>> to_host((a & b).decode())
array([0.    , 0.0625, 0.25  , 0.5625, 1.    ])

A Dask array is moved block by block where its tasks run: the client that builds the graph needs neither a GPU nor CuPy.
`to_host` brings the results back as NumPy blocks, which such a client can read:

>>> lazy = sc.encode(to_device(da.from_array(p, chunks=2)), 256, sng=sc.Sobol(1))
>>> with warnings.catch_warnings(action="ignore"):
...     to_host(lazy.decode()).compute()
array([0.  , 0.25, 0.5 , 0.75, 1.  ])

`scdask infer digits --scheduler cuda`, or `open_scheduler("cuda")`, starts a worker for each GPU (dask-cuda's
`LocalCUDACluster`) and computes there.

The kernels are CUDA source that CuPy compiles for the card at their first call, and keeps. A MAC with more than four
neurons and more than four inputs at once runs on the 1-bit tensor cores, which GPUs have from compute capability 8.0
on; smaller ones, and older GPUs, count with the popcount instruction. `gpu_pack_bitstream`, `gpu_vec_and`,
`gpu_popcount` and `gpu_vec_mac` are names of `sc_neurocore.accel.gpu_backend`; they take arrays of the host too.

Without a GPU, or without CuPy, `to_device` leaves arrays on the host, where the Numba kernels run, and warns once. So
the same program runs everywhere, with the same bits. `HAS_CUPY` says whether CuPy finds a GPU, and `xp` is CuPy if so,
else NumPy; both are found out when they are first asked for.
"""

from typing import Any

import numpy as _numpy

from ..vector_ops.numbers import to_host
from . import adders, counting, encoding, gates, mac, machines, numbers, packing
from .device import ARRAYS, cupy, devices, from_numpy, to_device, wait, why_no_gpu, works
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

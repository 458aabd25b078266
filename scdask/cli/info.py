"""`scdask info`: what is installed, and what works."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import MissingBackendError, ScdaskError

if TYPE_CHECKING:
    from collections.abc import Callable

OPTIONAL = {
    "sklearn": "apps",
    "matplotlib": "apps",
    "bokeh": "apps",
    "zarr": "zarr",
    "jax": "jax",
    "optax": "jax",
    "mpi4py": "mpi",
    "dask_mpi": "mpi",
    "dask_jobqueue": "slurm",
}


@click.command()
def info() -> None:
    """Print versions, cores, SIMD, and what works.

    Of each kind of arrays a few bits are computed: NumPy, Dask, CuPy and JAX. Of each optional package it says the
    version, or which extra of scdask brings it.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ..cluster import available_cores
    from ..limits import SIMD, simd

    table = Table(show_header=False)
    table.add_row("scdask", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in ("numpy", "numba", "dask", "distributed"):
        table.add_row(package, version(package))
    table.add_section()
    table.add_row("cores", f"{available_cores()} of {os.cpu_count()} usable")
    table.add_row("SIMD", ", ".join(simd()) or "none of " + ", ".join(SIMD))
    table.add_section()
    for name, works in ARRAYS.items():
        table.add_row(f"{name} arrays", escape(_outcome(works)))
    table.add_section()
    for package, extra in OPTIONAL.items():
        table.add_row(package, escape(_installed(package, extra)))
    Console().print(table)


def _numpy_works() -> None:
    from ..encoding import Sobol, encode

    ones = (encode(0.75, 256, sng=Sobol(1)) & encode(0.5, 256, sng=Sobol(2))).popcount()
    if ones != 96:
        raise ScdaskError(f"0.75 * 0.5 gave {ones} ones of 256 instead of 96")


def _dask_works() -> None:
    from ..encoding import Sobol, encode

    ones = encode([0.75, 0.5], 256, sng=Sobol(1), chunks=(1, -1)).popcount().compute(scheduler="synchronous")
    if ones.tolist() != [192, 128]:
        raise ScdaskError(f"0.75 and 0.5 gave {ones} ones of 256 instead of 192 and 128")


def _cupy_works() -> str:
    from .. import gpu_backend

    reason = gpu_backend.why_no_gpu()
    if reason is not None:
        return reason
    _device_works(gpu_backend.to_device)
    return f"works on {', '.join(gpu_backend.devices())}"


def _jax_works() -> str:
    from .. import jax_backend

    _device_works(jax_backend.to_jax)
    return f"works on {', '.join(str(device) for device in jax_backend.jax.devices())}"


def _device_works(to_device: Callable[[Any], Any]) -> None:
    from ..bitstream import to_host
    from ..encoding import Sobol, encode

    ones = to_host(encode(to_device([0.75, 0.5]), 256, sng=Sobol(1)).popcount())
    if ones.tolist() != [192, 128]:
        raise ScdaskError(f"0.75 and 0.5 gave {ones} ones of 256 instead of 192 and 128")


# Each says where arrays of a library work, or why they do not, or raises an error.
ARRAYS: dict[str, Callable[[], str | None]] = {
    "NumPy": _numpy_works,
    "Dask": _dask_works,
    "CuPy": _cupy_works,
    "JAX": _jax_works,
}


def _outcome(works: Callable[[], str | None]) -> str:
    try:
        return works() or "works"
    except MissingBackendError as error:
        return str(error)
    except Exception as error:  # whatever is wrong here is what the user asks about
        return f"does not work: {error}"


def _installed(package: str, extra: str) -> str:
    if find_spec(package) is None:
        return f"not installed: pip install 'scdask[{extra}]'"
    return version({"sklearn": "scikit-learn"}.get(package, package))

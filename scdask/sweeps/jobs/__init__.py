"""What the cells of a configured campaign compute: a job of a name, made of a configuration.

=======  ==========================================  ======================================  ===========================
job      options                                     axes                                    metrics
=======  ==========================================  ======================================  ===========================
infer    dataset (digits, or mnist with network),    sng, length, seed, mode, stop, fault    accuracy, or r2 of numbers;
         or model and data, and percentile                                                   cycles, if a rule stops it
product  pairs                                       gate, sng, length, seed, fault          rmse, bias, theory,
                                                                                             binary_rmse
circuit  operands                                    circuit, sng, length, seed, fault       rmse, bias, worst
image    image                                       circuit, sng, length, seed, flip        psnr, rmse
=======  ==========================================  ======================================  ===========================

The docstrings of `score`, `errors_of_gate`, `errors_of_circuit` and `errors_of_image` say what they are. Cells of a job
have the same numbers, or images, for all generators and lengths.

>>> from pathlib import Path
>>> import scdask as sc
>>> job = make_job("product", {"gate": "and"}, {"sng": ["sobol", "bernoulli"], "length": [256]}, Path())
>>> found = sc.sweep(job.function, over=job.over, data=job.data, about=job.about)
>>> found.rmse_mean.squeeze().values.round(3), found.theory_mean.squeeze().values.round(3)
(array([0.003, 0.023]), array([0.023, 0.023]))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import SweepError
from .base import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

JOBS = ("infer", "product", "circuit", "image")

__all__ = ["JOBS", "Job", "make_job"]


def make_job(name: str, options: Mapping[str, Any], over: Mapping[str, Sequence[Any]], folder: Path) -> Job:
    """The job of a configuration. It finds or trains what all cells need.

    Parameters
    ----------
    name : {"infer", "product", "circuit", "image"}
    options : mapping
        What is the same in all cells. An option that is called as an axis is its only value.
    over : mapping of str to sequence
        The values of axes; the others have those by default.
    folder : Path
        Where paths begin.

    Returns
    -------
    Job

    Raises
    ------
    SweepError
        If there is no such job, option, axis or value.
    BitstreamError
        If a file is not what it must be.
    MissingBackendError
        If a package is not installed.
    """
    if name == "infer":
        from . import infer

        return infer.make(options, over, folder)
    if name == "product":
        from . import product

        return product.make(options, over)
    if name == "circuit":
        from . import circuit

        return circuit.make(options, over)
    if name == "image":
        from . import image

        return image.make(options, over, folder)
    raise SweepError(f"a job is one of {', '.join(JOBS)}, not {name!r}")

"""What the cells of a configured campaign compute: a job of a name, made of a configuration."""

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

"""`scdask mpi-check`: what the ranks of an MPI job find on their hosts and between them, and what is wrong there."""

from .job import check
from .judging import judge
from .report import Link, Report

__all__ = ["Link", "Report", "check", "judge"]

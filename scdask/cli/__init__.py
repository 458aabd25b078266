"""The command line: `scdask infer`, `train`, `run`, `sweep`, `bench`, `info`; for MPI `mpi-check`, `mpi-run`, `sbatch`.

`dask scdask ...` is the same.
"""

from .batch import mpi_run, sbatch
from .bench import bench
from .infer import infer
from .info import info
from .main import main
from .mpi_check import mpi_check
from .run import run
from .sweep import sweep
from .train import train

__all__ = ["bench", "infer", "info", "main", "mpi_check", "mpi_run", "run", "sbatch", "sweep", "train"]

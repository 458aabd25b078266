"""The command line: `scdask infer`, `train`, `run`, `bench`, `info`, and for MPI `mpi-check`, `mpi-run` and `sbatch`.

`dask scdask ...` is the same.
"""

from .batch import mpi_run, sbatch
from .bench import bench
from .infer import infer
from .info import info
from .main import main
from .mpi_check import mpi_check
from .run import run
from .train import train

__all__ = ["bench", "infer", "info", "main", "mpi_check", "mpi_run", "run", "sbatch", "train"]

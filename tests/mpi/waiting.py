"""Rank 0 waits in a barrier for rank 1."""

import time

from scdask import mpi_session

with mpi_session(quiet=True) as mpi:
    if mpi.rank == 0:
        print("waiting", flush=True)
    else:
        time.sleep(4)
    mpi.barrier()

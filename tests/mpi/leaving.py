"""A grid of ranks, of which the last is late; each has the drivers of its row and its column, and ends MPI itself."""

import time

from mpi4py import MPI

from scdask import MPIDriver

rank = MPI.COMM_WORLD.rank
drivers = [MPIDriver(MPI.COMM_WORLD.Split(place, rank)) for place in (rank // 2, rank % 2)]
if rank == 3:
    time.sleep(5)
MPI.Finalize()
print("done", flush=True)

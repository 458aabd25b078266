"""MPI jobs: Dask programs in their ranks, sessions that make ranks Dask workers, and plain scatter and gather.

The tests run MPICH on three hosts, which are namespaces of one machine, under `mpiexec` and the `srun` of a Slurm of
three nodes. Machines that are really apart have not been tried; Open MPI 5 was tried by hand.

`pip install "scdask[mpi]"` brings mpi4py, dask-mpi and cryptography. They use the MPI of your cluster; on a machine
without one, `pip install mpich` puts a complete one, with `mpiexec`, into the environment.

On a cluster, begin with `mpiexec -n 4 scdask mpi-check`: in a few seconds it says what is wrong with the set-up.

Which one to take
-----------------
`help(scdask.mpi_session)` and `help(scdask.MPIDriver)` say what their parameters are.

- `--scheduler mpi` of `scdask infer` and `scdask train`, `open_scheduler("mpi")`, or `scdask mpi-run` for any Dask
  script: for a program that knows nothing of MPI.
- `mpi_session`: for an MPI program, whose ranks have their data already, or whose tasks talk MPI.
- `MPIDriver`: where scatter, gather and barrier are all that you need.

A Dask program in MPI
---------------------
The jobs of the command line run in MPI as they are, and give the same bits. `mpi-run` does the same for a script, whose
`Client()` finds the cluster::

    mpiexec -n 4 scdask infer digits --scheduler mpi
    mpiexec -n 4 scdask mpi-run script.py --its options

One rank runs the program, and the others never come to it. Of three ranks or more, rank 0 is the scheduler, rank 1 runs
the program, and the others are workers. Of one or two, all are workers, and rank 0 runs the program too. `scdask
sbatch` writes such a job for Slurm; see `help(scdask.cluster)`.

A session
---------
In a session every rank goes on with its own program, and is a Dask worker at the same time: a thread of it works for
the cluster. Rank 0 also has the scheduler, and the client, `mpi.client`, for everything else of Dask. All ranks run the
same lines. Here is a world of one rank; under `mpiexec -n 4` there are 12 streams, of which each rank has 3:

>>> import numpy as np
>>> import scdask as sc
>>> with sc.mpi_session(quiet=True) as mpi:
...     block = sc.encode(np.full(3, 0.5), 1024, sng=sc.Sobol(1 + mpi.rank))  # the block of this rank
...     x = mpi.from_blocks(block)  # the blocks of all ranks as one lazy Bitstream
...     w = mpi.scatter(np.linspace(0, 1, 3 * mpi.size))  # rows of rank 0's array, to their ranks
...     y = x & sc.encode(w, 1024, sng=sc.Bernoulli())
...     total = mpi.gather(y.popcount().sum())  # computed in the cluster, for rank 0
...     mine = mpi.local(y)  # the rows of this rank
...     mpi.barrier()  # waits for the ranks, and for rank 0's graphs
>>> int(total), mine
(769, Bitstream(shape=(3,), length=1024, polarity='unipolar'))

- `from_blocks` copies nothing. The blocks are chunks that stay on their ranks, and so do the tasks that only need them.
- `scatter` sends the rows over MPI. If the array is lazy, they are computed, and go straight from the workers to their
  ranks.
- A lazy array has its shape on every rank, but only rank 0 can compute it. Elsewhere `gather` gives an array of no
  rows.
- `local` gives each rank the block with its number, if there are as many blocks as ranks, or else an equal share of
  the rows.
- The ranks enter and leave the block together.

A driver
--------
`MPIDriver` moves arrays of any plain dtype, and Bitstreams, without Dask. Its methods have the names of those in
`sc_neurocore.accel.mpi_driver`. Alone it works without mpi4py too:

>>> driver = sc.MPIDriver()
>>> rows = driver.scatter_workload(np.arange(10))  # On 4 ranks they are 3, 3, 2 and 2 rows.
>>> driver.gather_results(rows * 2)
array([ 0,  2,  4,  6,  8, 10, 12, 14, 16, 18])
>>> driver.barrier()

What holds in both
------------------
- All ranks call the same methods in the same order. A rank that is elsewhere is named in a WorldError.
- What one rank raises in a call, every rank raises. An error that nobody catches, on any rank of several, ends the
  whole job with its exit code. In a session that holds for all threads of a rank, and for `sys.exit(n)`. A rank that
  leaves while others wait for it ends the job with 1, one that is killed with the code of the launcher, 9 or 137.
- A rank that falls silent ends the job with exit code 1, and a sentence that names it and its host. It is lost when the
  next rank has not heard it for `scdask.lost-seconds`, an option of Dask, 30 by default: it is stopped, its host or a
  cable is off, or a call of it holds Python's lock all that time. Ranks on a host that is cut off end as well, the last
  of them after twice that. A network that is away for 20 seconds does no harm, nor does a job that is suspended as a
  whole. For longer ones a session needs more of Dask's `distributed.comm.timeouts.tcp` too. 0 turns it off; it needs an
  MPI that lets threads talk.
- A rank that does not come ends the job too. The start of MPI, the first driver, and the start of a session each wait
  for all ranks for `scdask.start-seconds`, 120 by default: give it more where some ranks read their data before.
- N processes whose MPI does not know their launcher would each be alone, and do everything. They are told apart from a
  world of one, and refused.
- A process that a rank forks ends with `os._exit`: at another end it would talk to MPI as if it were the rank.
- A rank that waits leaves its core to others, where one in `MPI_Barrier` burns it.

How many ranks
--------------
Tried were up to 64 ranks, on one machine, and six on three hosts. Meetings of the ranks are reductions, credentials go
down a tree, heartbeats go from rank to rank, and Dask's thin out to 200 a second. What grows with the ranks is at rank
0: 0.6 MiB and 3 open files each (it raises `ulimit -n` as far as it may), and up to a millisecond of the scheduler for
each task, of which `from_blocks`, `gather` and `local` have one or two a rank. So on paper, 1,000 ranks take 0.6 GiB
and 3,000 open files at rank 0, and a second or two for each of these calls; 10,000 ranks take ten times that. From some
hundreds of ranks on, or where tasks are short, open a session for each part of them:
`mpi_session(MPI.COMM_WORLD.Split(rank // 256))`. An `MPIDriver` has no scheduler, and no such limit.

TLS, and where a session listens
--------------------------------
The ranks of a session, and of a Dask program in MPI, talk TLS. The credentials are made for the job, travel sealed, and
are on no disk, so nobody else can connect. If all ranks are on one host, scdask listens on its loopback device alone.
On several hosts a rank listens on the network interface that `interface="ib0"` names, or at the address `host=`, and
without them at the address that its host has to the outside. If a rank cannot reach rank 0 there, that is a WorldError
on every rank, which names it. MPI itself opens ports of its own, and what a driver sends goes over it, as it is. The
dashboard is on the loopback device of the scheduler's host; its address is printed, but by mpi-run, with the line for
ssh to reach it from elsewhere. For administrators, `help(scdask.cluster.security)` says what listens where, and who can
get in.

Attributes
----------
HAS_MPI : bool
    Whether mpi4py is installed. Neither this nor the import of this module starts MPI; the first driver or session
    does.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .driver import MPIDriver
    from .launch import HAS_MPI
    from .ranks import mpi_session
    from .session import MPISession

# A rank that has a driver alone starts without Dask's cluster, and without Numba.
__getattr__, _, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "driver": ["MPIDriver"],
        "launch": ["HAS_MPI"],
        "ranks": ["mpi_session"],
        "session": ["MPISession"],
    },
)

__all__ = ["HAS_MPI", "MPIDriver", "MPISession", "mpi_session"]

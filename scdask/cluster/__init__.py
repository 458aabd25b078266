"""Where a job runs, and in what pieces: schedulers, jobs of Slurm, and how to choose chunks.

Schedulers
----------
`open_scheduler` makes a scheduler Dask's default for a block, and closes what it started. Everything lazy is then
computed there, by `compute()`, `scdask.compute` or the methods of the `Place` that it gives:

>>> import dask.array as da
>>> import scdask as sc
>>> from scdask.cluster import open_scheduler
>>> with open_scheduler("threads", threads=2) as place:
...     ones = sc.encode(da.linspace(0, 1, 5, chunks=2), 64, sng=sc.Sobol(1)).popcount().compute()
>>> place.name, place.threads, ones
('threads', 2, array([ 0, 16, 32, 48, 64]))

The command line takes the same names as `--scheduler`, `--workers`, `--threads`, `--interface` and `--encrypted`:

=========================  =============================================================================================
``local``                  processes on this machine, started for the block, that only this machine can reach; if
                           others use it too, with `encrypted`: see `help(scdask.cluster.security)`
``threads``                threads of this process: no dashboard, and the least that a task costs
``cuda``                   a process for each GPU of this machine (dask-cuda)
``mpi``                    the ranks of the MPI job that this process belongs to; see `help(scdask.mpi_driver)`
``slurm``                  workers that are jobs of Slurm (dask-jobqueue)
``tcp://host:8786``        a scheduler that is running, by its address
``scheduler.json``         the same, by its scheduler file
=========================  =============================================================================================

The workers of a running scheduler need the same version of scdask as its client; `Place.wait_until_ready` asks them.
They load the kernels while the caller goes on. If there are none yet, because they are in a queue or come when there is
work, they are waited for; `help(scdask.computing)` says how long. A Dask `Client` of your own needs none of this: open
one, and Dask computes there.

Slurm
-----
There are two ways. In the first the whole job, its scheduler included, is one job of Slurm that runs in MPI::

    scdask sbatch infer digits --nodes 2 --ntasks 8 --time 0:30:00 --submit

writes the script `infer.sbatch`, which runs the job with `--scheduler mpi` in the environment of this command, and
submits it. What is no option of `sbatch` goes to the job. The ranks are spread over the nodes evenly. `--launcher` is
srun or mpiexec, `--mpi` the value of srun's option of that name (pmi2 for MPICH, pmix for Open MPI; without it the
choice of the site), and `--setup 'module load mpich'` a command to run first. What else a site demands are
`--mem-per-cpu`, `--qos`, `--gres`, `--exclusive`, and `--directive` for any other option of sbatch. A script that is
there is replaced with `--overwrite` alone. `scdask.cluster.slurm.batch_script` makes the same script in Python, and
`submit` gives it to sbatch.

A minute before the time limit, or as many seconds as `--signal` says, Slurm sends the signal on which a job stops in
order; it may come up to a minute earlier still. A job that was preempted, or whose node was lost, is not run again,
unless `--requeue` is given: then it goes on from what is in the folder of its `--out`, a training from its checkpoint
and an inference from results.json, and appends to its log. `--array 8` deals the settings of an inference to eight
jobs, each with about as many cycles, and a folder of its own; afterwards the same `scdask infer` with `--resume` puts
the parts together, and does what a part has left.

In the second the client stays where it is, and each worker is a job of its own::

    scdask infer digits --scheduler slurm --workers 4

Partition, account, memory and the like are options of Dask under `jobqueue.slurm`. The workers talk TLS, and serve no
HTTP; the dashboard is on the loopback device of the client's host, and the line for ssh is printed with its address.
`open_scheduler` waits for the first worker as long as a job is in the queue.

The nodes must share

- the environment: this Python, its packages, and scdask, wherever it is installed;
- the folder from which the job is submitted, with its log, and where the model, the data and `--out` are;
- where workers are jobs, the folder of their credentials: files that only you can read, and that are there as long as
  the job runs. It is the current folder, or what Dask's option `jobqueue.slurm.shared-temp-directory` says.

A script for several nodes looks for the folder and the environment on each of them before the ranks start, and names
the node that lacks one; if no job of a worker brings one, the error says where these jobs were, and which log to read.

Chunks
------
Dask spends up to a millisecond on a task, so a task should run for 20 ms or more. What counts is the time that a task
takes, and not the bytes of its chunk. `chunks="auto"` sizes chunks so that to encode one takes 50 ms, or what the Dask
option `scdask.task-seconds` says. A million streams of 1024 bits become

>>> import dask
>>> import numpy as np
>>> x = sc.encode(np.full(1_000_000, 0.5), 1024, chunks="auto")
>>> [len(sizes) for sizes in x.chunks]  # along the streams, and along the words of each
[5, 1]
>>> with dask.config.set({"scdask.task-seconds": "200ms"}):
...     x = sc.encode(np.full(1_000_000, 0.5), 1024, chunks="auto")
>>> [len(sizes) for sizes in x.chunks]
[2, 1]

Chunks that you give are kept, as are those of a lazy array of probabilities, and small ones cost. `rechunk` merges
them, over the shape of the streams, or over it and the axis of words:

>>> x = sc.encode(da.zeros(6, chunks=1), 256, sng=sc.Sobol(1))
>>> x.rechunk((3,)).chunks, x.rechunk((3, 2)).chunks
(((3, 3), (4,)), ((3, 3), (2, 2)))

A MAC with 1 GiB of packed weights and a batch of 64, where the kernel alone takes 0.33 s on two threads, reached this
share of the kernel's speed:

=====================  ==========  ==========================================  =============
chunks of weights      on threads  a local cluster, one process of 2 threads   two processes
=====================  ==========  ==========================================  =============
8 of 128 MiB           0.98        0.82                                        0.88
32 of 32 MiB           1.02        0.75                                        0.78
256 of 4 MiB           0.84        0.42                                        0.49
=====================  ==========  ==========================================  =============

A batch of 4 is a sixteenth of the work for as many tasks, so there only the largest chunks pay. Planning a graph takes
Dask 60 µs a block; above 100,000 blocks `encode` warns, and proposes chunks. Dask's array expressions (the option
`array.query-planning`) are refused with a message.
"""

from ..computing import TRAINING, Place, as_place, compute, operation_of
from .local import available_cores
from .schedulers import open_scheduler, warm_up

__all__ = ["TRAINING", "Place", "as_place", "available_cores", "compute", "open_scheduler", "operation_of", "warm_up"]

"""Stochastic computing on Dask: bitstreams as chunked arrays of packed uint64 words.

A number is the share of ones in a stream of bits, and gates calculate with it:

>>> import scdask as sc
>>> a = sc.encode(0.75, 256, sng=sc.Sobol(1))
>>> b = sc.encode(0.5, 256, sng=sc.Sobol(2))
>>> float((a & b).decode())
0.375

The modules, each with a page of its own, `help(scdask.encoding)` and so on:

=============  =====================================================================================================
encoding       `encode`, `decode`: numbers to streams and back
generators     the numbers that `encode` compares with; which of them go together
bitstream      `Bitstream`, its gates, `mux`, `xnor`, chunks, Zarr
manipulation   `stack`, `concatenate`, `reshape`, `broadcast_to`, `where`; parts in time
correlation    `scc`, `scc_matrix`
layers         `matmul`, `SCDense`, `SCMLP`, `SCSequential`: networks
snn            spiking networks and their training
computing      `compute`: Dask's, with a name, retries and progress
cluster        schedulers, Slurm, and how to choose chunks
mpi_driver     `mpi_session`, `MPIDriver`: MPI jobs
dashboard      the page in Dask's dashboard, and Prometheus
plotting       figures
progress       `track`: how far a loop is
vector_ops     functions on packed words
chunked        what they do with Dask arrays
jit_kernels    what they do with NumPy arrays: compilation and its cache, strides
gpu_backend    what they do with CuPy arrays
jax_backend    what they do with JAX arrays; spiking neurons
errors         what is raised
=============  =====================================================================================================

On the command line, `scdask --help` is such a page, and `scdask info` says what works on this machine.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

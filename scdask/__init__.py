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
bitstream      `Bitstream`, its gates, `mux`, `multiply`, `xnor`, chunks, Zarr
manipulation   `stack`, `concatenate`, `reshape`, `broadcast_to`, `where`; parts in time
machines       `Machine`, `run`, `map_time`: circuits with memory
correlation    `scc`, `scc_matrix`, `zce`; `synchronize`, `desynchronize`, `decorrelate`, `delay`, `regenerate`
arithmetic     sums, products, division, roots, tanh, maximum, sorting, polynomials: circuits by name
faults         `flip`, `stuck_at`, `burst`
precision      `progressive_error`, `stability`
layers         `matmul`, `SCDense`, `SCConv2d`, `SCMLP`, `SCSequential`: networks
training       training of these networks, with streams in the loop
snn            spiking networks and their training
sweeps         `sweep`: tables over many settings, with intervals, resumable
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

# The names of __init__.pyi, which type checkers read; in a zip or a frozen application there is no such file.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "arithmetic", "bitstream", "chunked", "cluster", "computing", "correlation", "dashboard", "encoding", "errors",
        "faults", "generators", "gpu_backend", "jax_backend", "jit_kernels", "layers", "machines", "manipulation",
        "mpi_driver", "plotting", "precision", "progress", "snn", "sweeps", "training", "vector_ops",
    ],
    submod_attrs={
        "bitstream": ["Bitstream", "multiply", "mux", "open_zarr", "xnor"],
        "computing": ["compute"],
        "correlation": ["scc", "scc_matrix", "zce"],
        "encoding": ["decode", "encode"],
        "errors": [
            "BitstreamError", "CorrelationWarning", "MissingBackendError", "MixedArrayError", "ScdaskError",
            "ScdaskWarning", "SchedulerError", "SweepError", "UnsupportedArrayError", "WorldError",
        ],
        "generators": ["LFSR", "SNG", "Bernoulli", "Halton", "Sobol", "Thermometer", "VanDerCorput", "independent"],
        "layers": ["SCMLP", "SCConv2d", "SCDense", "SCSequential", "matmul"],
        "machines": ["Machine", "map_time", "run"],
        "manipulation": ["broadcast_to", "concatenate", "reshape", "stack", "where"],
        "mpi_driver": ["MPIDriver", "mpi_session"],
        "sweeps": ["sweep"],
    },
)  # fmt: skip

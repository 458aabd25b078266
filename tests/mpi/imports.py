"""What a rank loads before it computes, and one that only works when the job is done."""

import sys

FOR_OTHERS = {"bokeh", "pandas", "sklearn", "matplotlib", "rich", "jax", "prometheus_client", "cryptography.x509"}


def check(*heavy):
    loaded = {*heavy} & set(sys.modules)
    assert not loaded, loaded


if sys.argv[1:] == ["start"]:
    import numpy as np

    import scdask

    driver = scdask.MPIDriver()
    rows = driver.scatter_workload(np.arange(10.0))
    driver.gather_results(rows)
    check(*FOR_OTHERS, "distributed", "dask.array", "scipy", "numba", "cryptography", "asyncio")
    with scdask.mpi_session(quiet=True) as mpi:
        if mpi.rank:
            check(*FOR_OTHERS, "dask.array", "scipy", "numba", "dask.dataframe", "distributed.dashboard")
        mpi.barrier()
    print("fine", flush=True)
else:
    from mpi4py import MPI

    from scdask.cli import main

    def look():
        check("dask.dataframe")
        if MPI.COMM_WORLD.rank != 1:  # the one that runs the job
            check("sklearn", "matplotlib", "rich", "jax")
        if MPI.COMM_WORLD.rank > 1:
            # Where xarray is installed, Dask's arrays load it, and with it pandas.
            check(*FOR_OTHERS - {"pandas"}, "distributed.dashboard")
        print("fine", flush=True)

    try:
        main(sys.argv[1:])
    finally:
        look()

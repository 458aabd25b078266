"""The page `/scdask` of the Dask dashboard, and the same figures for Prometheus.

Every cluster that scdask starts has it. Another one has it from the start with `scdask.dashboard` in Dask's option
distributed.scheduler.preload (or `dask scheduler --preload scdask.dashboard`), a running one after `install(client)`.
The command line prints its address; the bar of links on Dask's own pages leads there too. The page needs Bokeh
(`pip install "scdask[apps]"`); without it the workers count nevertheless. It was tested in Chromium.

What the page shows
    Bit operations a second of the cluster and of each worker; which kernels and SIMD level a worker uses; streams
    encoded, bits generated and packed words held; for each operation (encode, gate, mac, machine, popcount, pack) its
    time, its speed, and the share of the worker's measured limit that it reaches; the loss and accuracy of a training
    as it goes; of inference with early exit (`scdask infer --stop`) the cycles that samples took so far, and the
    accuracy.

What is counted
    The kernels count themselves, exactly: a MAC is batch x neurons x inputs x words x 64 bit operations, a
    split-unipolar layer twice that, for W+ and W-; a machine is an operation for each stream and step. Only tasks of a
    Dask worker are counted, and no calls within `jax.jit`. What a worker does after its last heartbeat, half a second
    apart on small clusters, is lost when it leaves. Times are those of the clock, so that a thread which waits for a
    core looks slow. Counting takes 4 to 7 µs a kernel, less than 0.2 % of a task of 20 ms.

The limits
    While somebody has the page open, each worker that has computed something measures its limits, once, for two
    seconds, beside what it does. Workers of less than 2 GiB of memory leave that out. They are limits of one thread of
    the processor, so that kernels of JAX and CuPy have no share.

Elsewhere
    The same counters are Prometheus metrics on the scheduler's `/metrics`, if prometheus_client is installed:
    `scdask_bitops_total{worker,op,backend}`, `scdask_kernel_seconds_total{worker,op,backend}`,
    `scdask_streams_encoded_total{worker,backend}` and `scdask_words_bytes{worker}`. They are labels of Dask's fine
    performance metrics too. `scdask.compute` gives the tasks of a computation a name there, a span.

Examples
--------
>>> import dask.array as da
>>> import scdask as sc
>>> from distributed import Client
>>> from scdask import dashboard
>>> with Client(processes=False, dashboard_address="127.0.0.1:0") as client:
...     page = dashboard.install(client)
...     stream = sc.encode(da.arange(1000, chunks=250) / 1000, 1024, sng=sc.Bernoulli(seed=3))
...     (mean,) = sc.compute(stream.decode().mean())
>>> page.endswith("/scdask"), round(float(mean), 2)
(True, 0.5)
"""

from .install import dask_setup, install, page_of, preloaded
from .monitor import Monitor, Report, Total

__all__ = ["Monitor", "Report", "Total", "dask_setup", "install", "page_of", "preloaded"]

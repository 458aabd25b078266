"""Campaigns: a function over all combinations of settings, as a table with error bars.

What users of stochastic computing ask is a table: accuracy, or error, over generator, length, seed and rate of faults.
`sweep` makes one, on any scheduler, as an xarray Dataset (`pip install "scdask[sweeps]"`):

>>> import numpy as np
>>> import scdask as sc
>>> def product(length, fault, seed):
...     p, q = np.random.default_rng(seed).random((2, 1000))
...     x = sc.faults.flip(sc.encode(p, length, sng=sc.Sobol(1)), fault, seed)
...     y = sc.encode(q, length, sng=sc.Sobol(2))
...     return {"rmse": np.sqrt(np.mean(((x & y).decode() - p * q) ** 2))}
>>> found = sc.sweep(product, over={"length": [64, 1024], "fault": [0, 0.05], "seed": range(10)})
>>> found.rmse_mean.round(3).values.tolist()
[[0.009, 0.027], [0.001, 0.017]]
>>> bool((found.rmse_high - found.rmse_low).max() < 0.002)  # of the 95 % interval over the seeds
True

The function is called with one setting, as keywords, and gives numbers or arrays, or a dict of them. An array of truth
values, such as `network.predict(x, length) == y`, is kept as the share of True with the number of samples. Bits depend
on generator, stream and place alone, so that any cell is the same when it is computed alone.

Intervals are those over the seeds: what would be found with other seeds, on the same samples. For means they are
Student's, for shares Wilson's score, with as many independent samples as the spread over the seeds says: the answers of
one seed have its generators in common. A row of one seed has none. Without an axis of seeds the interval of a share is
Wilson's of all its samples, and says what would be found with other samples. `of_mean`, `of_shares` and `wilson` find
them.

Stores
------
With `store="found.zarr"` each cell lands on disk as it is done, whole or not at all. A campaign that was killed, in any
way, goes on with the cells that are missing when it is called again; with more lengths or seeds it does the new cells.
Several jobs may have one store, on a file system that they share and that has locks (flock, as on NFS since version 4,
or Lustre mounted with it): each claims cells before it does them, and of a job that is dead the others take them over.
What a store holds so far says

    found = scdask.sweeps.open_sweep("found.zarr")

and `xarray.open_zarr("found.zarr", consolidated=False)` shows what is in it, without means and intervals. A store is
refused if the code of the function, what it was made with, a constant that it reads, or the data have changed; not if
what it calls has.

Enough seeds
------------
`until=0.005` adds seeds to each row until half of its interval is no wider. Intervals that are looked at again and
again are a little too narrow where there are few seeds: begin with five or more.

Lazy results
------------
A function may also give Dask arrays. It is then called here, and the cells of a wave, some for each thread, become one
graph, in which what they share, such as an encoding that several rates of faults begin with, is computed once, and kept
for the next wave. `found.tasks` counts the tasks, `found.tasks_alone` those of a loop over the settings. For small
cells a plain function is quicker: then many cells are one task, as many as take a tenth of a second.
"""

from .campaign import sweep
from .dataset import open_sweep
from .intervals import of_mean, of_shares, wilson

__all__ = ["of_mean", "of_shares", "open_sweep", "sweep", "wilson"]

"""An array of more than 2 GiB, and of more rows than 32 bits count, goes there and back."""

import numpy as np

from scdask import MPIDriver

driver = MPIDriver()
for shape in ((2**31 + 10,), (2**17 + 1, 2**14 + 7)):
    whole = np.zeros(shape, np.uint8) if driver.rank == 0 else None
    if driver.rank == 0:
        flat = whole.reshape(-1)
        flat[:: 2**20 + 7] = np.arange(len(flat[:: 2**20 + 7])) % 251
    part = driver.scatter_workload(whole)
    assert part.nbytes > 2**30
    back = driver.gather_results(part)
    del part
    assert driver.rank or np.array_equal(back, whole)
    del back

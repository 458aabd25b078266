"""A program of several ranks that goes wrong on one of them, in the way that its arguments name."""

import os
import signal
import sys
import threading
import time
from contextlib import suppress

import numpy as np
from dask import delayed
from dask.array import from_delayed

from scdask import MPIDriver, mpi_session

what, culprit = sys.argv[1], int(sys.argv[2])


class UnpicklableError(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def go_wrong(what):
    if what == "raise":
        raise UnpicklableError("this", "that")
    if what == "exit":
        sys.exit(3)
    if what == "message":
        sys.exit("no more")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "segfault":
        import ctypes

        ctypes.string_at(0)
    if what == "thread":
        threading.Thread(target=lambda: 1 / 0).start()
        time.sleep(100)
    if what == "wait":
        time.sleep(1000)
    if what == "pause":
        time.sleep(15)
    if what == "leave":
        sys.exit()


if "before" in sys.argv and MPIDriver().rank == culprit:
    go_wrong(what)
if "driver" in sys.argv:
    driver = MPIDriver()
    print("up", flush=True)
    if driver.rank == culprit:
        go_wrong(what)
    driver.gather_results(np.zeros(3))
else:
    with mpi_session(quiet=True) as mpi:
        print("up", flush=True)
        if mpi.rank == culprit:
            go_wrong(what)
        if "graph" in sys.argv:  # the culprit is a task
            where = mpi._workers[-1] if mpi.client else None
            mpi.client and mpi.client.submit(go_wrong, what, workers=[where]).result()
        if "caught" in sys.argv:  # in the middle of a call that the others are in
            driver = MPIDriver()
            with suppress(BaseException):
                driver.gather_results(
                    from_delayed(delayed(go_wrong)(what), (3,), float) if mpi.rank == -culprit else np.zeros(3)
                )
            driver.gather_results(np.zeros(3))
        if what == "wait":
            time.sleep(1000)
        mpi.barrier()
    if "after" in sys.argv and mpi.rank == -culprit:
        go_wrong(what)
    MPIDriver().barrier()
print("done", flush=True)

"""A Dask script that knows nothing of MPI; its arguments name what goes wrong, and where."""

import os
import signal
import sys
import time

import dask.array as da
from beside import double  # workers find it too
from distributed import Client

import scdask as sc


def die():
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    left_open = Client() if what == "leave open" else None
    with Client() as client:
        assert client.scheduler.address.startswith("tls://")
        print("up", len(client.nthreads()), flush=True)
        if what == "raise":
            raise ValueError("the script")
        if what == "exit":
            sys.exit(3)
        if what == "die":
            die()
        if what == "task":
            client.submit(die).result()
        if what == "exit in task":
            client.submit(sys.exit, 4).result()
        if what == "raise in task":
            client.submit(divmod, 1, 0).result()
        if what == "wait":
            client.submit(time.sleep, 1000).result()
        x = sc.encode(da.linspace(0, 1, 101, chunks=20), 256, sng=sc.Sobol(1))
        assert abs(float(x.decode().mean().compute()) - 0.5) < 0.01
        assert client.submit(double, 21).result() == 42
        if what == "shutdown":
            client.shutdown()
    if what == "close":
        sys.stdout.close()
    else:
        print("done", sys.argv[1:], __file__, flush=True)

"""What a session shows to other processes and users of the machine."""

import sys
from pathlib import Path

import psutil

WRITTEN = []


def watch(event, args):
    if event == "open" and isinstance(args[0], str) and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        WRITTEN.append(args[0])


def listening():
    return {c.laddr for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN}


before = listening()
sys.addaudithook(watch)

import pytest  # noqa: E402
from distributed import Client, Security  # noqa: E402
from distributed.comm import connect  # noqa: E402

from scdask import mpi_session  # noqa: E402


async def talk(address, security):
    comm = await connect(address, timeout=3, **security.get_connection_args("client") if security else {})
    await comm.write({"op": "identity", "reply": True})
    return await comm.read()


with mpi_session(quiet=True) as mpi:
    opened = listening() - before
    assert {address.ip for address in opened} == {"127.0.0.1"}, opened
    # scheduler, worker and dashboard at the root, a worker elsewhere; none of them of MPI
    assert len(opened) == (3 if mpi.rank == 0 else 1), opened
    if mpi.client:
        security = mpi.client.security
        assert security.require_encryption
        assert security.tls_client_key.startswith("/proc/")
        addresses = [mpi.client.scheduler.address, *mpi._workers]
        for address in addresses:
            assert address.startswith("tls://127.0.0.1:")
            assert mpi.client.sync(talk, address, security)
            for foreign in (None, Security.temporary()):
                for protocol in ("tls", "tcp"):
                    with pytest.raises((OSError, TypeError, RuntimeError)):
                        mpi.client.sync(talk, address.replace("tls", protocol), foreign)
        with pytest.raises(OSError, match=r"127\.0\.0\.1|certificate"):
            Client(addresses[0].replace("tls", "tcp"), timeout=3)
        with pytest.raises(OSError, match=r"127\.0\.0\.1|certificate"):
            Client(addresses[0], security=Security.temporary(), timeout=3)
    mpi.barrier()
    maps = Path("/proc/self/maps").read_text()
    for path in Path("/dev/shm").iterdir():
        if str(path) in maps:
            assert b"PRIVATE KEY" not in path.read_bytes()
    mpi.barrier()
temporary = [path for path in WRITTEN if "dask.pem" in path or "dask.crt" in path]
foreign_ones = 4 * 3 * 2 + 2 if mpi.rank == 0 else 0  # those of Security.temporary() above
assert len(temporary) <= foreign_ones, temporary
print("fine", flush=True)

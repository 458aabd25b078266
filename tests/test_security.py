"""What `help(scdask.cluster.security)` says of this machine: who can reach a local cluster, and where its keys are."""

import asyncio
import gc
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.request import urlopen

import dask
import dask.array as da
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client, Security
from distributed.comm import connect, listen

import scdask as sc
from scdask.cli import main
from scdask.cluster import open_scheduler, security
from scdask.mpi_driver.ranks import expect_late_connections

pytestmark = pytest.mark.component("mpi")  # which brings cryptography
SECRET = b"PRIVATE KEY"


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory):
    """An encrypted local cluster, and the folder for what it writes."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(tempfile, "tempdir", str(folder))
        changed.setenv("TMPDIR", str(folder))
        with open_scheduler("local", 1, 1, encrypted=True) as place:
            yield place, folder
    assert not list(folder.rglob("*.pem"))


async def talk(address, security):
    comm = await connect(address, timeout=3, **security.get_connection_args("client") if security else {})
    try:
        await comm.write({"op": "identity", "reply": True})
        return await comm.read(), comm.extra_info["cipher"]
    finally:
        comm.abort()


def addresses(place):
    info = place.client.scheduler_info()
    return [info["address"], *info["workers"], *(worker["nanny"] for worker in info["workers"].values())]


def family():
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def test_all_talk_tls_and_refuse_who_has_no_certificate_of_the_block(encrypted):
    place, _ = encrypted
    mine, foreign = place.client.security, Security.temporary()
    ciphers = set()
    for address in addresses(place):
        assert address.startswith("tls://127.0.0.1:")
        found, (cipher, version, _) = place.client.sync(talk, address, mine)
        ciphers.add((cipher, version.replace("v", " ")))
        assert found["type"] in ("Scheduler", "Worker", "Nanny")
        for other, protocol in ((None, "tls"), (None, "tcp"), (foreign, "tls"), (foreign, "tcp")):
            with pytest.raises((OSError, TypeError, RuntimeError)):
                place.client.sync(talk, address.replace("tls", protocol), other)
    assert mine.tls_min_version.name == "TLSv1_2"
    for cipher, version in ciphers:
        assert f"{version}, or at least 1.2" in security.__doc__
        assert cipher in security.__doc__


def test_a_client_finds_it_and_gets_the_same_bits(encrypted):
    place, _ = encrypted
    lazy = sc.encode(da.linspace(0, 1, 100, chunks=50), 256, sng=sc.Sobol(1)).popcount()
    with Client(set_as_default=False) as client:
        assert client.scheduler.address == place.client.scheduler.address
        found = client.compute(lazy).result()
    assert found.tolist() == lazy.compute(scheduler="threads").tolist()


def test_the_key_is_in_memory_alone(encrypted):
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    place, folder = encrypted
    key = place.client.security.tls_client_key
    assert key.startswith(f"/proc/{os.getpid()}/fd/")
    assert load_pem_private_key(Path(key).read_bytes(), None).curve.name == "secp256r1"
    assert place.client.submit(lambda: dask.config.get("distributed.comm.tls.worker.key")).result() == key
    for process in family():
        for file in ("environ", "cmdline"):
            assert SECRET not in Path(f"/proc/{process.pid}/{file}").read_bytes()
    for path in folder.rglob("*"):
        assert path.is_dir() or SECRET not in path.read_bytes()
    assert "PRIVATE" not in repr(place.client.security)


def test_what_a_worker_writes_is_for_its_user_alone(encrypted):
    place, _ = encrypted
    folder = Path(place.client.submit(lambda: __import__("distributed").get_worker().local_directory).result())
    assert folder.stat().st_mode & 0o77 == 0


def test_all_that_listens_is_on_the_loopback_device_and_the_dashboard_has_no_login(encrypted):
    place, _ = encrypted
    children = {c.laddr.ip for p in family()[1:] for c in p.net_connections("inet") if c.status == "LISTEN"}
    assert children == {"127.0.0.1"}
    with urlopen(place.dashboard.replace("status", "info/main/workers.html")) as page:
        assert page.status == 200


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs another user")
def test_another_user_reads_neither_the_key_nor_the_environment(encrypted):
    place, _ = encrypted
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat"]
    for path in (place.client.security.tls_client_key, f"/proc/{os.getpid()}/environ"):
        assert "Permission denied" in subprocess.run([*other, path], capture_output=True, text=True).stderr
    seen = subprocess.run([*other, f"/proc/{os.getpid()}/cmdline"], capture_output=True)
    assert seen.stdout == Path("/proc/self/cmdline").read_bytes()  # The command line is for everybody.


@pytest.mark.parametrize("expected", [False, True])
def test_a_rank_that_closes_upon_a_connection_shows_no_error(caplog, monkeypatch, expected):
    monkeypatch.setattr(logging.getLogger("tornado.application"), "filters", [])
    if expected:
        expect_late_connections()

    async def close_upon_a_connection(options):
        listener = await listen("tls://127.0.0.1", lambda comm: None, **options)
        host, port = listener.get_host_port()
        _, writer = await asyncio.open_connection(host, port)
        await asyncio.sleep(0.1)
        listener.stop()
        writer.close()
        await asyncio.sleep(0.1)

    asyncio.run(close_upon_a_connection(Security.temporary().get_listen_args("worker")))
    assert ("non-started TCPListener" in caplog.text) != expected


def test_the_credentials_end_with_the_block():
    before = dask.config.get("distributed.comm")
    with security.credentials_here() as made:
        assert made.require_encryption
        assert SECRET in Path(made.tls_worker_key).read_bytes()
    assert not Path(made.tls_worker_key).exists()
    assert dask.config.get("distributed.comm") == before


@pytest.mark.component("apps")
def test_the_option(tmp_path):
    args = ["infer", "digits", "--length", "16", "--out", str(tmp_path), "--encrypted", "--scheduler"]
    for scheduler in ("threads", "cuda", "tcp://127.0.0.1:1"):
        done = CliRunner().invoke(main, [*args, scheduler])
        assert done.exit_code == 1
        assert f"encrypted is for the local cluster (mpi and slurm always are), not for {scheduler}" in done.output


@pytest.mark.component("slurm")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_key_of_workers_of_slurm_is_in_a_file_for_its_user_alone(tmp_path, monkeypatch):
    """An sbatch that notes what there is, and refuses the job."""
    scripts = {
        "squeue": "echo slurm",
        "scancel": "true",
        "sbatch": 'stat -c "%a %n" .dask-jobqueue.* > modes; cat "$@" > script; exit 1',
    }
    for name, does in scripts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(sc.SchedulerError, match="sbatch refuses"), open_scheduler("slurm", 1):
        pass
    modes = dict(line.split()[::-1] for line in (tmp_path / "modes").read_text().splitlines())
    assert any("key" in name for name in modes)
    assert set(modes.values()) == {"600"}
    assert SECRET not in (tmp_path / "script").read_bytes()
    gc.collect()
    assert not list(tmp_path.glob(".dask-jobqueue.*"))

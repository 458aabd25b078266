"""How long schedulers and their workers are waited for, and what ends the wait."""

import asyncio
import gc
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import scdask as sc
from scdask import SchedulerError, WorldError
from scdask.cluster import as_place, open_scheduler
from scdask.computing import Place
from scdask.mpi_driver import group, launch


@contextmanager
def answering(reply):
    """The address of a server that speaks no protocol of Dask's."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            try:
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    connection.sendall(reply)
            except OSError:  # The test is over.
                pass

        held = []
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(24)])
def test_what_is_no_scheduler_is_no_endless_wait(monkeypatch, reply):
    monkeypatch.setattr("scdask.cluster.address.CONNECT_SECONDS", 0.5)
    start = time.monotonic()
    with (
        answering(reply) as address,
        pytest.raises(SchedulerError, match=f"^no Dask scheduler answers at {address}"),
        open_scheduler(address),
    ):
        pass
    assert time.monotonic() - start < 5


def test_a_worker_is_no_scheduler(cluster):
    worker = next(iter(cluster.nthreads()))
    with pytest.raises(SchedulerError, match=f"answers at {worker}, but a Worker"), open_scheduler(worker):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheduler": 5}, "a scheduler is a name, an address or a file, not 5"),
        ({"scheduler": "x" * 5000}, "is not local, threads"),
        ({"scheduler": "x" * 5000 + ":1"}, "no Dask scheduler answers at"),
        ({"scheduler": "\0:1"}, "no Dask scheduler answers at"),
        ({"scheduler": "tcp://127.0.0.1"}, "missing port"),
        ({"scheduler": "http://127.0.0.1:1"}, "unknown address scheme 'http'"),
        ({"workers": 0}, "workers are counted: an integer from 1 on, not 0"),
        ({"threads": "2"}, "threads are counted: an integer from 1 on, not '2'"),
        ({"scheduler": "slurm", "interface": 5}, "a network interface is a name such as ib0, not 5"),
    ],
)
def test_arguments_that_are_none(monkeypatch, arguments, message):
    monkeypatch.setattr("scdask.cluster.address.CONNECT_SECONDS", 0.5)
    with pytest.raises(SchedulerError, match=message), open_scheduler(**arguments):
        pass


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A Slurm that refuses every job."""
    for name, does in {"squeue": "echo slurm", "scancel": "true", "sbatch": "echo no --mem here >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    yield
    gc.collect()  # dask-jobqueue leaves clusters half made.


@pytest.mark.component("slurm")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("workers", "options", "message"),
    [
        (3, {}, "^sbatch refuses the job of a worker: no --mem here$"),
        (1, {"memory": "lots"}, "under jobqueue.slurm, or the interface, do not fit: Could not interpret 'lots'"),
        (1, {"interface": "nope0"}, "under jobqueue.slurm, or the interface, do not fit: 'nope0'"),
        (1, {"shared-temp-directory": "/nowhere"}, "under jobqueue.slurm, or the interface, do not fit: "),
    ],
)
def test_jobs_that_slurm_refuses(slurm, workers, options, message):
    with (
        dask.config.set({f"jobqueue.slurm.{name}": value for name, value in options.items()}),
        pytest.raises(SchedulerError, match=message),
        open_scheduler("slurm", workers),
    ):
        pass


def test_an_asynchronous_client_is_refused_by_name():
    async def ask():
        async with Client(asynchronous=True, processes=False, dashboard_address="127.0.0.1:0") as client:
            lazy = sc.encode(dask.array.ones(4) / 2, 64, sng=sc.Sobol(1)).popcount()
            for call in (
                lambda: as_place(client),
                lambda: sc.compute(lazy),
                lambda: sc.compute(lazy, progress=True),
                lambda: sc.compute(lazy, scheduler=client),
            ):
                with pytest.raises(
                    SchedulerError, match=r"the Client is asynchronous, .*: give it a synchronous Client"
                ):
                    call()
            assert sc.compute(3, [4]) == (3, [4])
            (ones,) = sc.compute(lazy, scheduler="synchronous")
            assert ones.tolist() == [32] * 4

    asyncio.run(ask())


def test_a_client_that_is_closed(cluster):
    with Client(cluster.scheduler.address, set_as_default=False) as client:
        pass
    with pytest.raises(SchedulerError, match="the Client is closed"):
        as_place(client)


@pytest.fixture
def empty(monkeypatch):
    """A cluster without workers, in this process, and its client."""
    monkeypatch.setattr("scdask.computing.POLL_SECONDS", 0.1)
    monkeypatch.setattr("scdask.computing.CONNECT_SECONDS", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


def test_workers_to_come_are_waited_for_and_those_that_left_are_not(empty, caplog):
    cluster, client = empty
    place = as_place(client)
    timer = threading.Timer(1, cluster.scale, (1,))
    timer.start()
    assert place.compute(dask.delayed(sum)([1, 2])) == 3
    assert [record.message for record in caplog.records if record.name == "scdask"] == [
        "client has no worker: waiting for one to come"
    ]
    timer.join()
    cluster.scale(0)
    with pytest.raises(SchedulerError, match=r"no worker of client has run for 0.5 seconds"):
        place.compute(dask.delayed(sum)([1, 2, 3]))


def test_a_result_that_comes_just_after_the_wait_is_that_of_a_worker(empty):
    class Late:
        def result(self, timeout=None):
            if timeout:
                raise TimeoutError
            return 3

        def done(self):
            return True

    _, client = empty
    place = as_place(client)
    assert place._result(Late()) == 3
    with pytest.raises(SchedulerError, match=r"no worker of client has run for 0.5 seconds"):
        place.compute(dask.delayed(sum)([1, 2]))


def test_the_limit_is_an_option(empty):
    _, client = empty
    for asked in ("300ms", 0.3):
        with (
            dask.config.set({"scdask.worker-timeout": asked}),
            pytest.raises(SchedulerError, match=r"no worker of client has run for 0.3 seconds"),
        ):
            as_place(client).compute(dask.delayed(sum)([1, 2]))
    for wrong in ("soon", -1, [1], "5 parsecs", "nan"):
        with (
            dask.config.set({"scdask.worker-timeout": wrong}),
            pytest.raises(SchedulerError, match="worker-timeout is a positive time, not "),
        ):
            as_place(client).compute(dask.delayed(sum)([1, 2]))


def test_an_adaptive_cluster_starts_a_worker_for_a_job(empty):
    cluster, client = empty
    adaptive = cluster.adapt(minimum=0, maximum=1, interval="100ms", wait_count=1)
    place = as_place(client)
    place.wait_for_worker()
    assert place.compute(dask.delayed(np.sum)([1, 2])) == 3
    adaptive.maximum = 0  # as long as the queue is long
    for _ in range(100):
        if not cluster.scheduler_info["workers"]:
            break
        time.sleep(0.1)
    timer = threading.Timer(1, setattr, (adaptive, "maximum", 1))
    timer.start()
    assert place.compute(dask.delayed(np.sum)([3, 4])) == 7
    timer.join()


@pytest.mark.parametrize("in_a_pool", [False, True])
def test_a_child_of_a_rank_is_no_rank(monkeypatch, capsys, in_a_pool):
    stopped = []
    monkeypatch.setenv("PMI_RANK", "3")
    monkeypatch.setattr(launch.os, "kill", lambda *args: stopped.append(args))
    monkeypatch.setattr(launch, "parent_process", lambda: None if in_a_pool else object())
    child = type("Child", (), {"name": "SpawnPoolWorker-1", **({"_inheriting": True} if in_a_pool else {})})
    monkeypatch.setattr(launch, "current_process", child)
    with pytest.raises(WorldError, match="by multiprocessing in rank 3 of an MPI job"):
        sc.MPIDriver()
    # A pool would start other children for ever, unless the rank ends.
    assert bool(stopped) == in_a_pool == ("scdask: this process" in capsys.readouterr().err)


def test_a_process_that_is_no_child_of_a_rank(monkeypatch):
    monkeypatch.setattr(launch, "parent_process", lambda: object())
    for name in launch.RANKS:
        monkeypatch.delenv(name, raising=False)
    launch._refuse_children()


def test_a_forked_child_of_a_rank_is_no_rank(monkeypatch):
    ranks = group.Group(type("Comm", (), {"rank": 1, "size": 2}))
    monkeypatch.setattr(group.os, "getpid", lambda: ranks.pid + 1)
    with pytest.raises(WorldError, match="forked by rank 1, and is no rank itself: barrier is for the rank"):
        ranks.meet("barrier")


def test_a_root_is_a_rank():
    for root in (1.5, "0", None, 1):
        with pytest.raises(WorldError, match=f"the root is one rank of 1, the same for all, not {root}"):
            sc.MPIDriver(root=root)


def test_files_of_schedulers_that_name_no_address(tmp_path):
    for text in ("", "[]", '{"address": 5}', "{}"):
        file = Path(tmp_path / "scheduler.json")
        file.write_text(text)
        with pytest.raises(SchedulerError, match="names no address"), open_scheduler(file):
            pass


def test_a_worker_that_is_gone_is_not_warmed(cluster, monkeypatch):
    monkeypatch.setattr("scdask.computing.POLL_SECONDS", 0.1)
    future = cluster.submit(tuple, workers=["tcp://127.0.0.1:1"], pure=False)
    place = Place("client", 2, client=cluster, warming={"tcp://127.0.0.1:1": future})
    place.wait_until_ready()

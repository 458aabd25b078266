"""Campaigns on workers that die."""

import os
import signal
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
from distributed import Client, LocalCluster

import scdask as sc
from scdask.errors import SchedulerError
from scdask.sweeps import open_sweep

pytest.importorskip("xarray")


def number(seed, folder):
    """A cell that leaves a file."""
    Path(folder, str(seed)).touch()
    time.sleep(0.02)
    return float(seed)


def deadly(kind, seed):
    """A cell that kills the worker that has it, each time."""
    if kind == "bad" and seed == 3:
        os._exit(1)
    time.sleep(0.01)
    return float(seed)


def forever(seed, gate):
    """Two cells that are done, and then none."""
    while seed > 1 and not Path(gate).exists():
        time.sleep(0.05)
    return float(seed)


def pids(client):
    return sorted(client.run(os.getpid).values())


@pytest.fixture(scope="module")
def client():
    """Of two processes that come back when they die."""
    options = {"n_workers": 2, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),  # Each start of a process takes long.
        LocalCluster(**options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def idle(client):
    """Wait until the scheduler knows no task; tell which it knows."""
    deadline = time.monotonic() + 20
    while (known := client.run_on_scheduler(lambda dask_scheduler: list(map(str, dask_scheduler.tasks)))) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    return known


def test_a_worker_that_is_killed_costs_no_cell(client, tmp_path):
    (first, second) = pids(client)

    def kill():
        while len(list(tmp_path.iterdir())) < 30:
            time.sleep(0.01)
        os.kill(first, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    found = sc.sweep(number, over={"folder": [str(tmp_path)], "seed": range(300)}, scheduler=client)
    thread.join()
    assert (found.value.values == np.arange(300)).all()
    assert (found.error == "").all()
    assert idle(client) == []
    client.wait_for_workers(2, timeout=60)
    assert second in pids(client)


@pytest.mark.slow
def test_a_cell_that_kills_its_worker_fails_alone(client):
    with pytest.warns(sc.errors.ScdaskWarning, match="1 of 40 cells failed, the first with KilledWorker"):
        found = sc.sweep(deadly, over={"kind": ["good", "bad"], "seed": range(20)}, scheduler=client)
    failed = found.error.values != ""
    assert [tuple(map(int, cell)) for cell in np.argwhere(failed)] == [(1, 3)]
    assert all(error.startswith("KilledWorker") for error in found.error.values[failed])
    assert (found.value.values == np.arange(20))[~failed].all()
    assert idle(client) == []


def test_an_interrupt_leaves_no_task_behind(client, tmp_path, monkeypatch):
    from scdask.sweeps.runners import Cluster

    wait, waits = Cluster.wait, iter([0, 0, 0])

    def interrupted(self, seconds):
        if next(waits, None) is None:
            raise KeyboardInterrupt
        return wait(self, seconds)

    monkeypatch.setattr(Cluster, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sc.sweep(forever, over={"gate": [str(tmp_path / "gate")], "seed": range(50)}, scheduler=client)
    (tmp_path / "gate").touch()
    assert idle(client) == []


@pytest.mark.component("zarr")
@pytest.mark.parametrize("gone", ["workers", "scheduler"])
def test_without_workers_or_scheduler_the_store_keeps_what_is_done(gone, tmp_path):
    store, gate = tmp_path / "found.zarr", tmp_path / "gate"
    options = {"n_workers": 1, "threads_per_worker": 2, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    cluster = LocalCluster(**options)
    client = Client(cluster, set_as_default=False)

    def end():
        while not store.exists() or "value" not in (found := open_sweep(store)) or found.value.count() < 2:
            time.sleep(0.05)
        if gone == "workers":
            cluster.scale(0)
        else:
            cluster.close()

    sc.sweep(forever, over={"gate": [str(gate)], "seed": [0]}, scheduler=client, store=store)
    thread = threading.Thread(target=end)
    thread.start()
    try:
        with (
            dask.config.set({"scdask.worker-timeout": "2 s"}),
            pytest.raises(SchedulerError, match=r"has run for 2 seconds|connection to the scheduler"),
        ):
            sc.sweep(forever, over={"gate": [str(gate)], "seed": range(8)}, scheduler=client, store=store)
    finally:
        gate.touch()
        thread.join()
        client.close()
        cluster.close()
    found = sc.sweep(forever, over={"gate": [str(gate)], "seed": range(8)}, scheduler="threads", store=store)
    assert (found.value.values == np.arange(8)).all()
    assert found.tasks_alone == 6, "two were done"

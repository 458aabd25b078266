"""The stores of campaigns: what lands in them, by one job and by several, whatever ends them."""

import errno
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import scdask as sc
from scdask.errors import ScdaskWarning, SweepError
from scdask.sweeps import campaign, open_sweep, sweep
from scdask.sweeps import store as stores
from scdask.sweeps.grid import Axis
from scdask.sweeps.store import Store

xarray = pytest.importorskip("xarray")
zarr = pytest.importorskip("zarr")

CALLS = []


def cell(length, seed):
    CALLS.append((length, seed))
    rng = np.random.default_rng([hash(length) % 1000, seed])
    return {"x": rng.normal(), "own": rng.random((2, 3)), "right": rng.random(40) < 0.7}


SHOW = {"repeats": None, "interval": "t", "units": {}}


@pytest.fixture
def calls():
    CALLS.clear()
    return CALLS


@pytest.fixture
def often(monkeypatch):
    """Exchanges come one after the other."""
    monkeypatch.setattr(campaign, "FLUSH_SECONDS", 0.01)
    monkeypatch.setattr(campaign, "FLUSH_SHARE", 0)


def plain(dataset):
    """Without what differs from run to run."""
    return dataset.drop_vars("seconds").drop_attrs(deep=False)


def leftovers(folder):
    return [path for path in folder.rglob("*") if path.name.endswith((".lock", ".partial"))]


def test_a_store_holds_what_the_call_returns(tmp_path, calls):
    over = {"length": [64, 16], "seed": range(4)}
    found = sweep(cell, over=over, store=tmp_path / "s.zarr")
    xarray.testing.assert_identical(plain(open_sweep(tmp_path / "s.zarr")), plain(found))
    xarray.testing.assert_identical(plain(sweep(cell, over=over)), plain(found))
    with xarray.open_zarr(tmp_path / "s.zarr", consolidated=False) as raw:
        for name in ("x", "own", "right"):
            assert raw[name].dims == found[name].dims
            assert raw[name].values.tobytes() == found[name].values.tobytes()
        assert (raw.state == 1).all()
        assert raw.length.attrs["units"] == "bit"
    assert not leftovers(tmp_path)


@pytest.mark.parametrize(
    ("more", "new"),
    [
        ({"length": [64, 16], "seed": range(6)}, 4),
        ({"length": [16, 8, 64], "seed": range(4)}, 4),
        ({"seed": [3, 1], "length": [64, 16]}, 0),
        ({"length": [16], "seed": [7, 0]}, 1),
        ({"length": ["32", 16], "seed": range(4)}, 4),
        ({"length": [64, 16, 0.5, True, (1, 2)], "seed": range(2)}, 6),
    ],
)
def test_another_call_does_the_new_cells_alone(tmp_path, calls, more, new):
    store = tmp_path / "s.zarr"
    sweep(cell, over={"length": [64, 16], "seed": range(4)}, store=store)
    calls.clear()
    found = sweep(cell, over=more, store=store)
    assert len(calls) == new
    xarray.testing.assert_identical(plain(found), plain(sweep(cell, over=more)))
    everything = open_sweep(store)
    assert np.isfinite(everything.x).sum() == 8 + new
    with xarray.open_zarr(store, consolidated=False) as raw:
        assert (raw.state == 1).sum() == 8 + new
    calls.clear()
    sweep(cell, over={"length": [64, 16], "seed": range(4)}, store=store)
    assert not calls


@pytest.mark.parametrize(("there", "more"), [(64, "64"), ("1", 1), (1, True), ("True", True)])
def test_values_that_would_be_called_alike_are_refused(tmp_path, there, more):
    sweep(lambda x: 0, over={"x": [there]}, store=tmp_path / "s.zarr", about={})
    with pytest.raises(SweepError, match=f"x has {there!r}, and can have no {more!r} beside it"):
        sweep(lambda x: 0, over={"x": [more]}, store=tmp_path / "s.zarr", about={})
    assert open_sweep(tmp_path / "s.zarr").x.values.tolist() == [there]


def test_until_goes_on_where_it_was(tmp_path, calls):
    def noisy(scale, seed):
        CALLS.append((scale, seed))
        return np.random.default_rng([scale, seed]).normal(scale=scale)

    run = partial(sweep, noisy, over={"scale": [1, 2], "seed": range(3)}, store=tmp_path / "s.zarr", about={})
    run(until=1.5)
    first = calls.copy()
    found = run(until=0.5)
    assert len(set(calls)) == len(calls) > len(first) > 0
    alone = sweep(noisy, over={"scale": [1, 2], "seed": range(3)}, until=0.5)
    xarray.testing.assert_identical(plain(found), plain(alone))


def one(length):
    return length


def test_cells_that_failed_are_done_again_if_asked_for(tmp_path, calls):
    def late(length):
        calls.append(length)
        if length == 2 and len(calls) < 4:
            raise ValueError("not\nyet")
        return length

    run = partial(sweep, late, over={"length": [1, 2]}, store=tmp_path / "s.zarr", about={})
    for again, count in ((False, 2), (False, 2), (True, 3)):
        with pytest.warns(ScdaskWarning, match="1 of 2 cells failed, the first with ValueError: not"):
            found = run(retry=again)
        assert len(calls) == count
        assert found.error.values.tolist() == ["", "ValueError: not"]
        assert np.isnan(found.value[1])
    found = run(retry=True)
    assert calls == [1, 2, 2, 2]
    assert found.value.values.tolist() == [1, 2]
    assert found.error.values.tolist() == ["", ""]
    assert open_sweep(tmp_path / "s.zarr").error.values.tolist() == ["", ""]


def other_code(length):
    return length + 0


FACTOR = 1


def scaled(a, seed):
    return a * FACTOR


def one_of(a, seed):
    return a


class Scale:
    def __init__(self, k):
        self.k = k

    def score(self, a, seed):
        return a * self.k


def times(k):
    def decorate(function):
        @functools.wraps(function)
        def decorated(*args, **setting):
            return k * function(*args, **setting)

        return decorated

    return decorate


def by_default(k):
    def score(*, a, seed, k=k):
        return a * k

    return score


def executed(k):
    names = {}
    exec(f"def score(a, seed):\n    def inner(x):\n        return x * {k}\n    return inner(a)", names)
    return names["score"]


def a_constant(k):
    global FACTOR
    FACTOR = k
    return scaled


@pytest.mark.parametrize(
    "made",
    [
        lambda k: Scale(k).score,
        lambda k: partial(Scale(k).score, seed=1),
        lambda k: times(k)(one_of),
        by_default,
        executed,
        a_constant,
        lambda k: [lambda a, seed: a, lambda a, seed: 2 * a][k - 1],
    ],
)
def test_what_a_function_was_made_with_is_part_of_it(made, tmp_path):
    over = {"a": [1, 2], "seed": [0]}
    run = partial(sweep, over=over, store=tmp_path / "s.zarr")
    first = run(made(1))
    assert first.cells == 2
    assert run(made(1)).cells == 0
    with pytest.raises(SweepError, match="another campaign"):
        run(made(2))


def test_labels_that_only_look_alike(tmp_path):
    run = partial(sweep, lambda a: 1.0, about={}, store=tmp_path / "s.zarr")
    run(over={"a": [1]})
    with pytest.raises(SweepError, match="a has 1, and can have no True beside it"):
        run(over={"a": [True]})
    run = partial(sweep, lambda f: f(1.0), about={}, store=tmp_path / "f.zarr")
    assert [run(over={"f": [function]}).cells for function in (np.tanh, math.tanh)] == [1, 1]
    assert run(over={"f": [math.tanh, np.tanh]}).cells == 0
    assert run(over={"f": [np.sin]}).cells == 1


def test_stores_of_other_campaigns_are_refused(tmp_path, calls):
    store = tmp_path / "s.zarr"
    data = np.arange(4)
    with_data = partial(sweep, lambda data, length: length, about={})
    sweep(one, over={"length": [1]}, store=store)
    other_code.__qualname__ = "one"
    for refused in (
        partial(sweep, other_code, over={"length": [1]}),
        partial(sweep, one, over={"length": [1]}, about={}),
        partial(sweep, one, over={"length": [1]}, about={"x": 1}),
        partial(sweep, lambda length, seed=0: length, over={"length": [1], "seed": [1]}),
    ):
        with pytest.raises(SweepError, match="another campaign"):
            refused(store=store)
    with_data(over={"length": [1]}, data=data, store=tmp_path / "data.zarr")

    def takes(data, length):
        return length

    sweep(takes, over={"length": [1]}, data=data, store=tmp_path / "d.zarr")
    with pytest.raises(SweepError, match="whose data is"):
        sweep(takes, over={"length": [1]}, data=data + 1, store=tmp_path / "d.zarr")
    sweep(takes, over={"length": [1]}, data=data.copy(), store=tmp_path / "d.zarr")
    sweep(lambda **setting: 1, over={"length": [1]}, store=tmp_path / "a.zarr", about={"x": 1, "y": 2})
    for about in ({"x": 1}, {"x": 1, "y": 3}, {"x": 1, "y": 2, "z": 0}):
        with pytest.raises(SweepError, match="another campaign"):
            sweep(lambda **setting: 1, over={"length": [1]}, store=tmp_path / "a.zarr", about=about)
    with pytest.raises(SweepError, match="has the axes length, not length, seed"):
        sweep(lambda **s: 1, over={"length": [1], "seed": [1]}, store=tmp_path / "a.zarr", about={"x": 1, "y": 2})
    with pytest.raises(SweepError, match="no digest"):
        sweep(takes, over={"length": [1]}, data=object(), store=tmp_path / "o.zarr")
    assert not leftovers(tmp_path)


def test_what_is_no_store_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("text")
    zarr.create_array(tmp_path / "array", shape=(3,), dtype=float)
    zarr.open_group(tmp_path / "group", mode="w", attributes={"mine": 1}).create_array("x", shape=(3,), dtype=float)
    zarr.open_group(tmp_path / "text", mode="w", attributes={"scdask": "mine"})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("file", "folder", "array", "group", "text", "broken", "file/below"):
        with pytest.raises(SweepError):
            sweep(one, over={"length": [1]}, store=tmp_path / name)
        with pytest.raises(SweepError):
            open_sweep(tmp_path / name)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    with pytest.raises(SweepError):
        open_sweep(tmp_path / "absent")
    with pytest.raises(SweepError):
        sweep(one, over={"length": [1]}, store="/proc/absent/s.zarr")


def test_stores_of_newer_formats_are_refused(tmp_path):
    sweep(one, over={"length": [1]}, store=tmp_path / "s.zarr")
    meta = tmp_path / "s.zarr" / "zarr.json"
    known = json.loads(meta.read_text())
    known["attributes"]["scdask"]["format"] = 99
    meta.write_text(json.dumps(known))
    with pytest.raises(SweepError, match="format 99"):
        sweep(one, over={"length": [1]}, store=tmp_path / "s.zarr")
    with pytest.raises(SweepError, match="format 99"):
        open_sweep(tmp_path / "s.zarr")


@pytest.mark.parametrize("fails_at", [0, 3, 8, 12, 16, 20, 24, 28, 40])
def test_a_full_disk_is_an_error_and_leaves_no_half_cells(tmp_path, monkeypatch, calls, often, fails_at):
    over = {"length": [16, 64], "seed": range(5)}
    store, writes = tmp_path / "s.zarr", itertools.count()
    put = zarr.storage._local._put

    def full(path, *args, **kwargs):
        if next(writes) >= fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return put(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage._local, "_put", full)
        with pytest.raises(SweepError, match="No space left"):
            sweep(cell, over=over, store=store)
    assert not leftovers(tmp_path)
    expected = plain(sweep(cell, over=over))
    if (store / "zarr.json").exists() and json.loads((store / "zarr.json").read_text())["attributes"]["scdask"]["axes"]:
        half = open_sweep(store)
        for name in {"x", "own", "right"} & {*half}:
            there = np.isfinite(half.x.values)
            assert (half[name].values[there] == expected[name].values[there]).all()
    xarray.testing.assert_identical(plain(sweep(cell, over=over, store=store)), expected)


def test_a_folder_that_is_lost_is_an_error(tmp_path, often):
    def slow(seed):
        if seed == 3:
            shutil.rmtree(tmp_path / "s.zarr")
        time.sleep(0.02)
        return seed

    with pytest.raises(SweepError, match=r"s\.zarr"):
        sweep(slow, over={"seed": range(200)}, store=tmp_path / "s.zarr", about={})
    assert not leftovers(tmp_path)


def test_a_store_that_took_the_place_of_another_is_left_alone(tmp_path):
    sweep(lambda seed: seed, over={"seed": range(2)}, store=tmp_path / "other.zarr", about={})
    job = Store(tmp_path / "s.zarr", [Axis("seed", [0, 1, 2])], {}, SHOW)
    (tmp_path / "s.zarr").rename(tmp_path / "gone.zarr")
    (tmp_path / "other.zarr").rename(tmp_path / "s.zarr")
    with pytest.raises(SweepError, match=r"s\.zarr is another store than that"):
        job.exchange([])
    job.close()
    assert open_sweep(tmp_path / "s.zarr").seed.values.tolist() == [0, 1]


def test_what_dead_jobs_left_is_no_obstacle_and_is_removed(tmp_path, calls):
    over = {"length": [16, 64], "seed": range(3)}
    store = tmp_path / "s.zarr"
    sweep(cell, over=over, store=store)
    known = zarr.open_group(store, mode="r+")
    known["state"][0, :] = -1  # as job 1 has claimed them
    for name in (".s.zarr.lock", ".s.zarr.job-1.lock", "s.zarr/zarr.1f.partial", "s.zarr/state/c/0/0.2e.partial"):
        (tmp_path / name).write_text("")
    calls.clear()
    found = sweep(cell, over=over, store=store)
    assert sorted(calls) == [(16, 0), (16, 1), (16, 2)]
    assert np.isfinite(found.x).all()
    assert not leftovers(tmp_path)


def test_a_job_that_keeps_the_lock_of_a_store_does_not_keep_the_others(tmp_path, monkeypatch):
    """One that was stopped in an exchange, and never goes on."""
    monkeypatch.setattr(stores, "LOCK_SECONDS", 0.2)
    path, begun = tmp_path / "s.zarr", []

    def late(seed):
        if not begun:
            begun.append(stores._hold(tmp_path / ".s.zarr.lock"))
            os.write(begun[0], b"process 7 on far")
        return seed

    with pytest.raises(SweepError, match=r"s\.zarr has been locked for 0\.\d+ seconds by process 7 on far: has that"):
        sweep(late, over={"seed": range(4)}, store=path, about={})
    os.close(begun[0])
    found = sweep(late, over={"seed": range(4)}, store=path, about={})
    assert found.value.values.tolist() == [0, 1, 2, 3]
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_ends_the_waiting_for_a_store(tmp_path, begun, ends):
    """And what is done is written, if the lock is open soon."""
    locks, begin = [], time.monotonic()

    def interrupt(thread):
        locks.append(stores._hold(tmp_path / ".s.zarr.lock", lambda: True))
        time.sleep(1)
        signal.pthread_kill(thread, signal.SIGINT)
        time.sleep(1)
        if ends:
            stores._release(locks.pop())

    timer = threading.Thread(target=interrupt, args=(threading.get_ident(),))

    def cell(seed):
        if seed == 2:
            timer.start()
            time.sleep(0.3)
        return seed

    if not begun:
        timer.start()
        time.sleep(0.1)
    try:
        with warnings.catch_warnings(record=True, action="always") as warned, pytest.raises(KeyboardInterrupt):
            sweep(cell, over={"seed": range(2 if not begun else 3)}, store=tmp_path / "s.zarr", about={})
    finally:
        timer.join()
        for lock in locks:
            stores._release(lock)
    assert time.monotonic() - begin < 20
    assert [("is lost" in str(each.message)) for each in warned] == [True] * (begun and not ends)
    if begun and ends:
        assert open_sweep(tmp_path / "s.zarr").value.count() == 3


def test_the_time_for_a_lock_is_that_of_one_holder(tmp_path, monkeypatch):
    """And who has it is said, whatever one before has left in the file."""
    monkeypatch.setattr(stores, "LOCK_SECONDS", 1)
    path = tmp_path / ".s.zarr.lock"
    path.write_bytes(b"\xff" * 99)

    def hold():
        for number in range(4):
            lock = stores._hold(path, lambda: True)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {number} on far".encode(), 0)
            time.sleep(0.5)
            stores._release(lock)
            time.sleep(0.001)

    holder = threading.Thread(target=hold)
    holder.start()
    time.sleep(0.1)
    assert sweep(lambda seed: seed, over={"seed": range(2)}, store=tmp_path / "s.zarr", about={}).value.sum() == 1
    holder.join()


FORKS = """
import os, signal, sys, time
import scdask as sc
def half(seed):
    if not (child := os.fork()):
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
sc.sweep(half, over={"seed": [0, 2]}, store=sys.argv[1], about={}, scheduler="threads")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_that_a_cell_forked_does_not_keep_the_claims_of_its_job(tmp_path):
    command = [sys.executable, "-c", FORKS, tmp_path / "s.zarr"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        child = int(job.stdout.readline())
        assert job.wait() == -signal.SIGKILL
        try:
            assert sweep(half, over={"seed": [0, 2]}, store=tmp_path / "s.zarr", about={}).value.sum() == 1
            os.kill(child, 0)  # It is there yet.
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_job_that_only_waits_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(campaign, "IDLE_SECONDS", 0.1)
    other = Store(tmp_path / "s.zarr", [Axis("seed", [0, 1, 2])], {"function": "half"}, SHOW)
    other.exchange([], lambda grid, jobs: [(0,), (1,)])
    timer = threading.Timer(1.5, lambda: (other.exchange([]), other.close()))
    timer.start()
    found = sweep(half, over={"seed": [0, 1, 2]}, store=tmp_path / "s.zarr", about={})
    timer.join()
    assert found.value.sum() == 1.5
    assert [record.getMessage() for record in caplog.records if record.name == "scdask"] == [
        "2 cells are left, which other jobs of the store have claimed"
    ]


def half(seed):
    return seed / 2


@pytest.mark.parametrize("lost", ["value", "state", "value/c/0"])
def test_a_damaged_store_is_refused(tmp_path, lost):
    path = tmp_path / "s.zarr"
    sweep(half, over={"seed": range(3)}, store=path)
    if lost.endswith("0"):
        (path / lost).write_bytes(b"123")
    else:
        shutil.rmtree(path / lost)
    for use in (partial(open_sweep, path), partial(sweep, half, over={"seed": range(3)}, store=path)):
        with pytest.raises(SweepError, match=r"s\.zarr is damaged: "):
            use()


def test_jobs_of_one_process_share_a_store(tmp_path, calls, often):
    """In threads: their locks are apart. One has more seeds, and one asks until it is enough."""
    store, found = tmp_path / "s.zarr", {}
    seeds = {"a": range(12), "b": range(24), "c": range(3)}

    def slow(length, seed):
        time.sleep(0.002)
        return cell(length, seed)

    def job(name):
        until = {"x": 0.5} if name == "c" else None
        over = {"length": [16, 64], "seed": seeds[name]}
        found[name] = sweep(slow, over=over, until=until, most_repeats=64, store=store, about={})

    jobs = [threading.Thread(target=job, args=(name,)) for name in seeds]
    for thread in jobs:
        thread.start()
    reads = 0
    while any(thread.is_alive() for thread in jobs):
        try:
            seen = open_sweep(store)
        except SweepError:
            continue
        done = np.isfinite(seen.x) if "x" in seen else np.zeros(0)
        reads += 1
        if done.any():
            assert np.isfinite(seen.own.values[done.values]).all()
            assert (seen.right.values[done.values] >= 0).all()
    for thread in jobs:
        thread.join()
    assert reads
    assert not [call for call, count in Counter(calls).items() if count > 1]
    for name, values in seeds.items():
        until = {"x": 0.5} if name == "c" else None
        alone = sweep(cell, over={"length": [16, 64], "seed": values}, until=until, most_repeats=64)
        xarray.testing.assert_identical(plain(found[name]), plain(alone))
    assert not leftovers(tmp_path)


def test_an_interrupt_lets_an_exchange_end(tmp_path, monkeypatch, calls, often):
    """And what was done by then is not done again."""
    import _thread

    over = {"length": [16, 64], "seed": range(20)}
    put, writes = zarr.storage._local._put, itertools.count()

    def interrupted(path, *args, **kwargs):
        if "seconds" in path.parts and "c" in path.parts and next(writes) == 0:  # the first results
            _thread.interrupt_main()
            time.sleep(0.3)
        return put(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(zarr.storage._local, "_put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep(cell, over=over, store=tmp_path / "s.zarr")
    assert not leftovers(tmp_path)
    there = set(calls)
    calls.clear()
    found = sweep(cell, over=over, store=tmp_path / "s.zarr")
    assert there
    assert len(set(calls) & there) <= 8  # They ran when it came.
    xarray.testing.assert_identical(plain(found), plain(sweep(cell, over=over)))


def test_one_may_read_while_a_job_writes(tmp_path, often):
    def slow(length, seed):
        time.sleep(0.003)
        return cell(length, seed)

    store = tmp_path / "s.zarr"
    run = partial(sweep, slow, over={"length": [1, 2], "seed": range(60)}, store=store, about={})
    job = threading.Thread(target=run)
    job.start()
    seen = []
    while job.is_alive():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Zarr tells of files that are being written.
            try:
                found = xarray.open_zarr(store, consolidated=False).load()
            except (FileNotFoundError, KeyError):
                assert not seen
                continue
        if "state" in found and "right" in found:
            seen.append(int((found.state == 1).sum()))
            assert found.sizes["seed"] == 60
    job.join()
    assert seen == sorted(seen)
    assert len(set(seen)) > 2


# Deaths. A program forks the jobs, as each would else load for seconds.

PROGRAM = '''
import itertools, json, os, random, signal, sys, time, traceback, warnings
import numpy as np, xarray, zarr, dask.array, distributed, scipy.stats
from scdask.sweeps import campaign, cells, dataset, plan, runners, store, sweep, waves

folder = sys.argv[1]
campaign.FLUSH_SECONDS, campaign.FLUSH_SHARE = 0.02, 0
CELL_SECONDS = 0.004


def note(*words):
    log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(log, (json.dumps(words) + "\\n").encode())
    os.close(log)


def noted():
    try:
        return [json.loads(line) for line in open(f"{folder}/log")]
    except FileNotFoundError:
        return []


def cell(length, seed):
    note("call", length, seed, os.getpid())
    time.sleep(CELL_SECONDS)
    if seed == 5:
        raise ValueError("five")
    rng = np.random.default_rng([int(length), seed])
    return {"x": rng.normal(scale=int(length) / 16), "own": rng.random(3), "right": rng.random(20) < 0.5}


def write(self, group, known, cells):
    states = group["state"][...]
    for each in cells:
        if states[each] > 0:
            note("twice", *map(int, each))
    return original_write(self, group, known, cells)


original_write, store.Store._write = store.Store._write, write


def job(path, over, dies_at=None, **more):
    """Begin a job; `dies_at` is the write at which it kills itself."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if dies_at is not None:
            from zarr.storage import _local
            put, writes = _local._put, itertools.count()

            def mortal(*args, **kwargs):
                if next(writes) == dies_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return put(*args, **kwargs)

            _local._put = mortal
        warnings.simplefilter("ignore")
        sweep(cell, over=over, store=path, **more)
        code = 0
    except KeyboardInterrupt:
        code = 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def check_same(path, other, over=None):
    """That two stores hold the same, or the same of some cells."""
    pid = os.fork()  # Zarr has a thread, and no fork comes after it.
    if pid:
        assert ended(pid) == 0, path
        return
    code = 1
    try:
        warnings.simplefilter("ignore")
        raw = [xarray.open_zarr(p, consolidated=False).load() for p in (path, other)]
        if over is None:
            over = {name: raw[0][name].values for name in raw[0].coords}
            assert all(sorted(labels) == sorted(raw[1][name].values) for name, labels in over.items())
            one, two = (dataset.open_sweep(p).drop_vars("seconds").drop_attrs(deep=False) for p in (path, other))
            xarray.testing.assert_identical(one, two.sel(over))
        raw = [each.sel(over) for each in raw]
        for name in ("x", "own", "right", "right_samples", "state", "error"):
            if name in ("state", "error"):
                assert (raw[0][name].values == raw[1][name].values).all(), name
            else:
                assert raw[0][name].values.tobytes() == raw[1][name].values.tobytes(), name
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def check_calls(*killed):
    """No cell landed twice, and none was done twice but those that a killed job had begun."""
    done = {}
    for what, *rest in noted():
        assert what == "call", (what, rest)
        done.setdefault(tuple(rest[:2]), []).append(rest[2])
    for where, pids in done.items():
        assert set(pids[:-1]) <= set(killed), (where, pids, killed)
        assert len(pids) == len(set(pids)), (where, pids)
    return done


def forget():
    if os.path.exists(f"{folder}/log"):
        os.unlink(f"{folder}/log")


def check_no_leftovers():
    for parent, _, files in os.walk(folder):
        assert not [f for f in files if f.endswith((".lock", ".partial"))], (parent, files)


OVER = {"length": [64, 16, 32], "seed": range(30)}
random.seed(int(sys.argv[2]))
assert ended(job(f"{folder}/whole.zarr", OVER)) == 0
'''

MOMENTS = """
for name, kinds in (("kill", [signal.SIGKILL]), ("mixed", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])):
    forget()
    path, killed, early = f"{folder}/{name}.zarr", [], 0
    for number in range(20):
        pid = job(path, OVER)
        time.sleep(random.uniform(0, 0.25))
        os.kill(pid, kinds[number % len(kinds)])
        if ended(pid) == 0:
            early += 1
        killed.append(pid)
    assert early < 15, early
    assert ended(job(path, OVER)) == 0
    check_calls(*killed)
    check_same(path, f"{folder}/whole.zarr")
check_no_leftovers()
"""

WRITES = """
import shutil
CELL_SECONDS = 0
small, larger = {"length": [64], "seed": range(3)}, {"length": [64, 16], "seed": [0, 1, 2, 7, 8]}
assert ended(job(f"{folder}/larger.zarr", larger)) == 0
assert ended(job(f"{folder}/small.zarr", small)) == 0
finished = 0
for number in itertools.count(step=18):  # the writes of a campaign, from its first one
    path = f"{folder}/dies.zarr"
    shutil.rmtree(path, ignore_errors=True)
    forget()
    pid = job(path, small, number)
    finished += ended(pid) == 0
    assert ended(job(path, small)) == 0
    check_calls(pid)
    check_same(path, f"{folder}/small.zarr")
    if finished:
        break
assert number > 20, number
finished = 0
for number in itertools.count(step=18):  # and of one that grows
    shutil.rmtree(path)
    shutil.copytree(f"{folder}/small.zarr", path)
    forget()
    pid = job(path, larger, number)
    finished += ended(pid) == 0
    assert ended(job(path, small)) == 0  # has nothing to do, and leaves a store in order
    check_same(path, f"{folder}/small.zarr", small)
    assert ended(job(path, larger)) == 0
    check_calls(pid)
    check_same(path, f"{folder}/larger.zarr")
    if finished:
        break
assert number > 20, number
check_no_leftovers()
"""

SEVERAL = """
FEW = {**OVER, "seed": range(12)}
forget()
jobs = [job(f"{folder}/three.zarr", FEW) for _ in range(3)]
assert [ended(pid) for pid in jobs] == [0, 0, 0]
done = check_calls()
assert len(done) == 36
shares = [sum(pids == [pid] for pids in done.values()) for pid in jobs]
assert min(shares) >= 2, shares
check_same(f"{folder}/three.zarr", f"{folder}/whole.zarr", FEW)

forget()  # one dies, one begins late
jobs = [job(f"{folder}/dies.zarr", FEW) for _ in range(2)]
time.sleep(0.15)
os.kill(jobs[0], signal.SIGKILL)
late = job(f"{folder}/dies.zarr", FEW)
assert [ended(pid) for pid in [*jobs, late]] == [-9, 0, 0]
assert len(check_calls(jobs[0])) == 36
check_same(f"{folder}/dies.zarr", f"{folder}/whole.zarr", FEW)

forget()  # one grows the axes while the other runs
jobs = [job(f"{folder}/grows.zarr", {**FEW, "seed": range(s)}) for s in (6, 12)]
assert [ended(pid) for pid in jobs] == [0, 0]
assert len(check_calls()) == 36
check_same(f"{folder}/grows.zarr", f"{folder}/whole.zarr", FEW)

forget()  # two that add seeds
until = {"until": {"x": 0.6}, "most_repeats": 40}
assert ended(job(f"{folder}/one.zarr", {"length": [16, 32, 48], "seed": range(4)}, **until)) == 0
cells = len(check_calls())
assert cells > 12
forget()
jobs = [job(f"{folder}/until.zarr", {"length": [16, 32, 48], "seed": range(4)}, **until) for _ in range(2)]
assert [ended(pid) for pid in jobs] == [0, 0]
assert len(check_calls()) == cells
check_same(f"{folder}/until.zarr", f"{folder}/one.zarr")

forget()  # one is stopped, and has claims; the other does the rest, and waits
CELL_SECONDS = 0.01
jobs = [job(f"{folder}/stops.zarr", FEW)]
time.sleep(0.3)
os.kill(jobs[0], signal.SIGSTOP)
jobs.append(job(f"{folder}/stops.zarr", FEW))
time.sleep(1)
assert os.waitpid(jobs[1], os.WNOHANG) == (0, 0)
os.kill(jobs[0], signal.SIGCONT)
assert [ended(pid) for pid in jobs] == [0, 0]
assert len(check_calls()) == 36
check_same(f"{folder}/stops.zarr", f"{folder}/whole.zarr", FEW)
check_no_leftovers()
"""


def run_program(folder, text, seed=0):
    program = folder / "jobs.py"
    program.write_text(PROGRAM + text)
    done = subprocess.run(
        [sys.executable, program, folder, str(seed)], capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.slow
def test_a_job_that_is_killed_at_20_random_moments(tmp_path):
    run_program(tmp_path, MOMENTS)


@pytest.mark.slow
def test_a_job_that_dies_at_any_of_its_writes(tmp_path):
    run_program(tmp_path, WRITES)


@pytest.mark.slow
def test_several_jobs_of_one_store(tmp_path):
    run_program(tmp_path, SEVERAL)


def deadly(flag, seed):
    if seed == 4 and not Path(flag).exists():
        Path(flag).write_text("")
        os._exit(1)
    return sc.encode([0.25], 64, sng=sc.Bernoulli(seed)).decode()[0]


@pytest.mark.slow
def test_workers_that_die(tmp_path):
    from distributed import Client, LocalCluster

    with (
        warnings.catch_warnings(),
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        warnings.simplefilter("ignore")
        over = {"flag": [str(tmp_path / "flag")], "seed": range(12)}
        found = sweep(deadly, over=over, scheduler=client, store=tmp_path / "s.zarr")
        xarray.testing.assert_identical(plain(found), plain(sweep(deadly, over=over)))
    assert not leftovers(tmp_path)

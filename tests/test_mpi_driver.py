import signal
import socket
import subprocess
import sys
import threading
import time

import dask
import numpy as np
import psutil
import pytest
from mpirun import LIMIT, PROGRAMS, family, finish, fork, forked, rank_processes, ranks, started
from slow import slow

from scdask import BitstreamError, MPIDriver, WorldError, encode, mpi_session

pytestmark = pytest.mark.component("mpi")


# Each way of ending is tried with mpiexec once; the other cases are forked, because ranks spend most of their time on
# imports.


@pytest.mark.parametrize(
    ("launch", "n"),
    [
        (ranks, 3),
        (forked, 1),
        (forked, 2),
    ],
)
def test_driver(launch, n):
    done = launch(n, "driver.py", *["jax"] * (n == 2))
    assert done.returncode == 0
    assert done.stdout.count("fine") == n


@pytest.mark.slow
def test_more_than_two_gibibytes():
    done = forked(2, "large.py", limit=240)
    assert done.returncode == 0


@pytest.mark.parametrize(("launch", "n"), [(forked, 1), (forked, 3), slow(forked, 8)])
def test_session(launch, n):
    done = launch(n, "session.py", *["jax"] * (n == 3))
    assert done.returncode == 0
    assert done.stdout.count("fine") == n
    assert "Dask dashboard: http://127.0.0.1:" in done.stderr
    assert "(from elsewhere: ssh -N -L " in done.stderr


# a world of one, in this process


def test_alone():
    driver = MPIDriver()
    values = np.arange(6).reshape(3, 2)
    assert (driver.rank, driver.size, driver.root) == (0, 1, 0)
    assert repr(driver) == "MPIDriver(rank=0, size=1, root=0)"
    assert driver.scatter_workload(values) is values
    assert driver.gather_results(values) is values
    stream = encode([0.5], 64)
    assert driver.scatter_workload(stream) is stream
    assert driver.barrier() is None
    with pytest.raises(BitstreamError, match="axis"):
        driver.scatter_workload(3.0)


def alone(folder, program, **env):
    """Run a program that is a world of one."""
    (folder / "program.py").write_text(program)
    return forked(1, folder / "program.py", **env)


WITHOUT_MPI = """
import sys
sys.modules["mpi4py"] = None
import numpy as np, scdask
driver = scdask.MPIDriver()
assert driver.comm is None
assert driver.size == 1 and driver.gather_results(driver.scatter_workload(np.arange(3))).tolist() == [0, 1, 2]
driver.barrier()
with scdask.mpi_session(quiet=True) as mpi:
    assert mpi.gather(mpi.scatter(np.arange(3)).sum()) == 3
try:
    scdask.MPIDriver("world")
except scdask.WorldError:
    print("fine")
"""


def test_alone_without_mpi4py(tmp_path):
    done = alone(tmp_path, WITHOUT_MPI)
    assert done.stdout == "fine\n", done.stderr


STRANGERS = """
import os, sys
import scdask
mpi4py = {"mpi4py": None}
for absent in (mpi4py, {}):
    sys.modules |= absent
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        os.environ[name] = "4"
        try:
            assert not scdask.mpi_driver.HAS_MPI  # it was not there when this was imported
            scdask.MPIDriver()
        except (scdask.WorldError, scdask.MissingBackendError) as error:
            print(name, type(error).__name__, error, sep=": ")
        del os.environ[name]
    for module in absent:
        del sys.modules[module]
"""


def test_ranks_that_do_not_know_each_other():
    """Started by the launcher of another MPI, each would be rank 0 of 1, and all would do everything."""
    done = subprocess.run([sys.executable, "-c", STRANGERS], capture_output=True, text=True, timeout=LIMIT, check=True)
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        assert f"{name}: WorldError: this process is one of 4 that were launched together" in done.stdout
        assert f"{name}: MissingBackendError: mpi4py is not installed; pip install 'scdask[mpi]' brings" in done.stdout


def test_no_mpi_library(tmp_path):
    done = alone(tmp_path, "import scdask; scdask.MPIDriver()", MPI4PY_LIBMPI="/nowhere/libmpi.so")
    assert done.returncode == 1
    assert "WorldError: mpi4py finds no MPI library (" in done.stderr


@pytest.mark.parametrize("seconds", ["soon", "nan", -5, 0, float("inf")])
def test_a_start_that_has_no_seconds(seconds):
    with dask.config.set({"scdask.start-seconds": seconds}), pytest.raises(WorldError, match="start-seconds is"):
        mpi_session(quiet=True).__enter__()


def test_hosts_to_listen_at():
    with pytest.raises(WorldError, match=r"rank 0 on .*: nothing can listen at a\.\.b"):
        mpi_session(host="a..b", quiet=True).__enter__()
    if "::1" in [each.address for each in psutil.net_if_addrs().get("lo", ())]:
        with mpi_session(host="::1", quiet=True) as mpi:
            assert mpi.gather(mpi.scatter(np.arange(3)).sum()) == 3


def test_a_program_that_has_ended_mpi(tmp_path):
    done = alone(tmp_path, "from mpi4py import MPI\nimport scdask\nMPI.Finalize()\nscdask.MPIDriver()")
    assert done.returncode == 1
    assert "WorldError: the program has ended MPI" in done.stderr


def test_a_session_that_is_closed():
    with mpi_session(quiet=True) as mpi:
        lazy = mpi.from_blocks([1, 2])
    for call in (mpi.from_blocks, mpi.scatter, mpi.gather, mpi.local):
        with pytest.raises(WorldError, match="the session is closed"):
            call(lazy)
    with pytest.raises(WorldError, match="at least one thread, not 0"), mpi_session(threads=0):
        pass


def test_a_session_alone_leaves_errors_to_python():
    with pytest.raises(ZeroDivisionError), mpi_session(quiet=True) as mpi:
        1 / (mpi.size - 1)
    with pytest.raises(WorldError, match="Intracomm"), mpi_session("world"):
        pass


# failures

HERE = socket.gethostname()
CAUGHT = {"raise": 1, "exit": 3, "message": 1, "interrupt": 130, "thread": 1}
SHOWN = {"raise": "UnpicklableError: this and that", "message": "no more", "thread": "ZeroDivisionError"}


@pytest.mark.parametrize(("what", "culprit"), [("raise", 1), ("exit", 0), ("kill", 2)])
def test_a_rank_that_fails_ends_the_job(what, culprit):
    check_end(ranks(3, "failures.py", what, culprit), what)


ENDINGS = [("raise", 2), ("exit", 1), ("kill", 0), ("message", 2), ("interrupt", 0), ("thread", 1), ("segfault", 1)]
ENDINGS += [slow("raise", 0), slow("raise", 1), slow("exit", 0), slow("exit", 2), slow("kill", 1), slow("kill", 2)]
ENDINGS += [slow("interrupt", 1), slow("thread", 0)]


@pytest.mark.parametrize(("what", "culprit"), ENDINGS)
def test_the_others_notice_whatever_fails_where(what, culprit):
    """Without a launcher that ends the job because a rank has ended."""
    check_end(forked(3, "failures.py", what, culprit, patient=True), what)


def check_end(done, what):
    assert "done" not in done.stdout
    assert done.returncode == CAUGHT[what] if what in CAUGHT else done.returncode != 0
    assert SHOWN.get(what, "") in done.stderr


@pytest.mark.parametrize(("n", "what"), [(2, "raise"), slow(2, "kill"), (4, "kill")])
def test_worlds_of_other_sizes_end_too(n, what):
    check_end(forked(n, "failures.py", what, n - 1, patient=True), what)


def test_without_a_session_the_launcher_ends_a_job_whose_rank_is_killed():
    check_end(ranks(3, "failures.py", "kill", 1, "driver"), "kill")


OUTSIDE = [("before", "leave", 0), ("after", "raise", -1), ("driver", "exit", 1), ("driver", "leave", 1)]
OUTSIDE += [slow("before", "raise", 1), slow("after", "leave", -1), slow("driver", "raise", 0)]


@pytest.mark.parametrize(("place", "what", "culprit"), OUTSIDE)
def test_also_outside_of_the_session(place, what, culprit):
    done = forked(3, "failures.py", what, culprit, place)
    assert "done" not in done.stdout
    assert done.returncode != 0
    if what == "leave":
        rank = abs(culprit)
        assert f"rank {rank} has ended its program" in done.stderr
    if what == "raise":
        assert done.returncode == 1
        assert "UnpicklableError: this and that" in done.stderr


@pytest.mark.parametrize("what", ["kill", "raise", slow("exit")])
def test_a_task_that_fails(what):
    check_end(forked(3, "failures.py", what, -1, "graph", patient=True), what)


def test_an_interrupted_call_ends_the_job():
    """Also where the program goes on: its next call would meet that which the others are still in."""
    done = forked(3, "failures.py", "interrupt", -1, "caught")
    assert done.returncode == 130
    assert "done" not in done.stdout


def test_a_rank_that_ends_the_program_early_waits_for_the_others():
    done = forked(3, "failures.py", "leave", 1)
    assert done.returncode != 0
    assert "rank 1 has ended its program" in done.stderr or "the end of the session" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, slow(signal.SIGINT)])
def test_signals_to_the_launcher(number):
    with started("mpiexec", "-n", 3, sys.executable, PROGRAMS / "failures.py", "wait", -1) as job:
        wait_for(job, "up", 3)
        job.send_signal(number)
        start = time.monotonic()
        done = finish(job)
        assert done.returncode != 0
        assert time.monotonic() - start < 15


MPIEXEC = ["mpiexec", "-disable-auto-cleanup", "-n", 3, sys.executable, PROGRAMS / "failures.py"]
FORKED = fork(3, "failures.py", patient=True)


@pytest.mark.parametrize(("command", "rank"), [(MPIEXEC, 0), (FORKED, 1), (FORKED, 2)], ids=["mpiexec-0", "1", "2"])
def test_a_killed_rank_ends_a_job_whose_launcher_does_not_care(command, rank):
    """As under srun without --kill-on-bad-exit, the survivors must notice by themselves."""
    with started(*command, "wait", -1) as job:
        wait_for(job, "up", 3)
        rank_processes(job.mark)[rank].kill()
        assert finish(job).returncode != 0  # what the survivors say may be lost with the launcher


def test_a_rank_that_is_stopped_ends_the_job():
    with started(*fork(3, "failures.py", "wait", -1, patient=True), DASK_SCDASK__LOST_SECONDS=2) as job:
        wait_for(job, "up", 3)
        rank_processes(job.mark)[1].suspend()
        done = finish(job)
    assert done.returncode == 1
    (sentence,) = [line for line in done.stderr.splitlines() if not line.startswith("Abort(")]
    assert sentence.startswith(f"scdask: rank 2 on {HERE} has not heard rank 1 on {HERE} for 2 seconds: it is stopped")


def test_a_rank_that_has_ended_is_not_lost():
    """Those of its row wait for a late rank of another, also where the program ends MPI itself."""
    done = forked(4, "leaving.py", patient=True, DASK_SCDASK__LOST_SECONDS=2)
    assert done.returncode == 0
    assert done.stdout.count("done") == 4


def test_a_job_that_is_suspended_as_a_whole_goes_on():
    with started(*fork(2, "waiting.py", patient=True), DASK_SCDASK__LOST_SECONDS=4) as job:
        wait_for(job, "waiting", 1)
        for each in (psutil.Process.suspend, psutil.Process.resume):
            for process in rank_processes(job.mark):
                each(process)
            time.sleep(6 if each is psutil.Process.suspend else 0)
        assert finish(job).returncode == 0


def wait_for(job, word, count):
    """Read what ranks print, perhaps on one line, until each has printed the word."""
    timer = threading.Timer(LIMIT, lambda: [process.kill() for process in family(job.mark)])
    timer.start()
    while count > 0:
        read = job.stdout.readline()
        assert read, job.communicate()
        count -= read.count(word)
    timer.cancel()


def test_a_missing_rank_is_not_awaited_for_ever(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import scdask, time\nscdask.MPIDriver().rank and time.sleep(1000)\nwith scdask.mpi_session(timeout=3): pass"
    )
    done = forked(3, program)
    assert done.returncode == 1
    assert "waited 3 seconds" in done.stderr


# security


def test_what_the_session_opens(tmp_path):
    """All that listens is on the loopback device and refuses foreigners; no key is on disk or in shared memory."""
    done = ranks(3, "security.py", TMPDIR=tmp_path, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("fine") == 3
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"PRIVATE KEY" not in path.read_bytes()


def test_a_waiting_rank_burns_no_core():
    with started(*fork(2, "waiting.py")) as job:
        wait_for(job, "waiting", 1)
        waiting = rank_processes(job.mark)[0]
        time.sleep(0.5)
        before, start = sum(waiting.cpu_times()[:2]), time.monotonic()
        time.sleep(2)
        used = (sum(psutil.Process(waiting.pid).cpu_times()[:2]) - before) / (time.monotonic() - start)
        assert used < 0.1  # 3 % in the benchmark, on a machine that does nothing else
        assert finish(job).returncode == 0
    assert not family(job.mark)

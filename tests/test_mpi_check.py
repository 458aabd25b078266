import json
import re
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import hosts
import pytest
from mpirun import forked, launch

import scdask
from scdask.cli.mpi_check import _print
from scdask.mpi_driver.check import Link, Report, judge
from scdask.mpi_driver.check.look import SHARED_MEMORY
from scdask.mpi_driver.ranks import OPEN_FILES, OPEN_FILES_A_RANK

pytestmark = pytest.mark.component("mpi")
GIB = 2**30


def healthy(n, per_host=8):
    """Reports of ranks with which nothing is wrong."""
    link = Link(5e-5, 1e9)
    return [
        Report(
            rank=rank,
            host=f"h{rank // per_host}",
            boot=f"boot {rank // per_host}",
            mpi="MPICH 5.0.2",
            thread_level="THREAD_MULTIPLE",
            versions={
                "Python": "3.12.1",
                "scdask": "1",
                "dask": "2",
                "mpi4py": "4",
                "dask-mpi": "5",
                "cryptography": "6",
            },
            environment="/env",
            source="/env/scdask",
            source_sum=1,
            cores=list(range(64)),
            cores_of_launcher=64,
            open_files=None,
            shared_memory=GIB,
            shared_memory_free=GIB,
            numba_cache="/home/me/.cache",
            folder="/work",
            folder_shared=True,
            threads=8,
            memory=4 * GIB,
            interface="ib0",
            address=f"10.0.0.{rank // per_host}",
            to_root=link if rank else None,
            to_next=link,
            over_mpi=link if rank else None,
        )
        for rank in range(n)
    ]


def changed(reports, ranks, **fields):
    return [replace(report, **fields) if report.rank in ranks else report for report in reports]


def versions(**others):
    return healthy(1)[0].versions | {name.replace("_", "-"): number for name, number in others.items()}


@pytest.mark.parametrize("n", [2, 6, 100, 1000])
def test_nothing_is_wrong(n):
    assert judge(healthy(n)) == ([], [])


WRONG = {
    "no interface": ({8, 9}, {"address": "", "no_address": "there is no ib0"}, "ranks 8-9 on h1: there is no ib0"),
    "unreachable": (
        {*range(8, 24)},
        {"to_root": Link(error="No route to host"), "to_next": Link(error="No route to host")},
        "ranks 8-23 on h1, h2 cannot talk to rank 0 on h0 at 10.0.0.0 (ib0): No route to host",
    ),
    "neighbours": (
        {15},
        {"to_next": Link(error="no answer")},
        "rank 15 on h1 cannot talk to its next rank, 16 on h2, at 10.0.0.2 (ib0): no answer",
    ),
    "version": ({3, 5}, {"versions": versions(dask="9")}, "ranks 3, 5 on h0: dask is 9, but 2 on the other ranks"),
    "of rank 0": ({0}, {"versions": versions(scdask="9")}, "rank 0 on h0: scdask is 9, but 1 on the other ranks"),
    "not installed": ({4}, {"versions": versions(dask_mpi="")}, "rank 4 on h0: dask-mpi is not installed"),
    "source": ({4}, {"source": "/mine", "source_sum": 2}, "the files of scdask 1 in /mine are not those"),
    "library": ({9}, {"mpi": "Open MPI 5.0.1"}, "rank 9 on h1: the MPI library is Open MPI 5.0.1, but MPICH 5.0.2"),
    "threads": (
        {*range(100)},
        {"thread_level": "THREAD_SERIALIZED"},
        "ranks 0-99 on 13 hosts: MPICH 5.0.2 gives MPI_THREAD_SERIALIZED",
    ),
    "files": ({0}, {"open_files": 256}, "rank 0 on h0 may open 256 files, but with 100 ranks needs 500"),
    "a core": (
        {8, 9},
        {"cores": [3], "cores_of_launcher": 65},
        "ranks 8-9 on h1: 2 ranks share core 3 of a host, while",
    ),
    "folder": ({50}, {"folder": "/tmp", "folder_shared": False}, "rank 50 on h6: the current folder /tmp is not that"),
    "Numba": ({*range(100)}, {"numba_cache": ""}, "NUMBA_CACHE_DIR"),
    "full": ({*range(8, 24)}, {"shared_memory_free": 2**20}, f"ranks 8-23 on h1, h2: {SHARED_MEMORY} is full"),
}


@pytest.mark.parametrize(("ranks", "fields", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said_once(ranks, fields, sentence):
    wrong, warnings = judge(changed(healthy(100), ranks, **fields))
    assert len(wrong) == 1
    assert re.search(sentence.replace("(", r"\(").replace(")", r"\)"), wrong[0])
    assert warnings == []


WARNINGS = {
    "small": (
        {*range(8)},
        {"shared_memory_free": 64 * 2**20},
        "ranks 0-7 on h0: /dev/shm has 8.0 MiB free for each rank",
    ),
    "clock": ({*range(8, 16)}, {"clock": -120.0}, "ranks 8-15 on h1: the clock is 120 s behind that of rank 0 on h0"),
    "slow": ({*range(8, 16)}, {"to_root": Link(1e-3, 1e7)}, "rank 0 gets 10 MB/s over TLS from there, but 1,000 MB/s"),
    "unwritable": ({*range(100)}, {"folder_shared": None}, "rank 0 on h0 cannot write to the current folder /work"),
    "environment": ({7}, {"environment": "/old"}, "rank 7 on h0: Python is that of /old, but that of /env"),
    "crowded": (
        {*range(16)},
        {"cores": [0, 1], "cores_of_launcher": 2},
        "ranks 0-15 on h0, h1: there are 8 ranks on a",
    ),
}


@pytest.mark.parametrize(("ranks", "fields", "sentence"), WARNINGS.values(), ids=WARNINGS)
def test_a_warning_is_nothing_wrong(ranks, fields, sentence):
    wrong, warnings = judge(changed(healthy(100), ranks, **fields))
    assert wrong == []
    assert len(warnings) == 1
    assert sentence in warnings[0]


def test_loopback():
    """It is right on one host; on several it is said, and not what the ranks reach there."""
    fields = {"address": "127.0.0.1", "interface": "lo", "to_root": Link(error="no answer")}
    fine = changed(healthy(6), range(6), **fields | {"to_root": Link(1e-5, 1e9)})
    assert judge(fine) == ([], [])
    wrong, _ = judge(changed(healthy(24), range(24), **fields))
    assert len(wrong) == 1
    assert wrong[0].startswith("ranks 0-23 on h0, h1, h2 would listen at 127.0.0.1 (lo), where other hosts do not")


def test_hosts_of_one_name():
    assert judge([replace(report, host="node") for report in healthy(100)]) == ([], [])


def test_everything_at_once_is_short():
    reports = healthy(100)
    for ranks, fields, _ in WRONG.values():
        reports = changed(reports, ranks, **fields)
    wrong, _ = judge(reports)
    assert len(wrong) >= 10
    assert max(map(len, wrong)) < 400


def test_the_table_has_a_row_a_host(capsys):
    from rich.console import Console

    reports = changed(healthy(64), range(64), memory=1500 * GIB, to_root=Link(1.2345, 98.7654321e9))
    reports = [replace(report, host=f"node{report.host}.cluster.example.org") for report in reports]
    console = Console(width=80)
    _print(console, reports, ["one [bold]thing[/] is wrong"], [])
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("Wrong"))
    assert "98,765" in out
    assert "1.23 s" in out
    assert "\n  56-63   nodeh7" in out
    assert out.count("0-7") == 1
    assert "Wrong: one [bold]thing[/] is wrong.\n1 thing is wrong with this set-up." in out


def test_a_job(tmp_path):
    done = forked(3, "scdask", "mpi-check", "--timeout", 100, "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["well"], found["wrong"]) == (True, [])
    assert [rank["rank"] for rank in found["ranks"]] == [0, 1, 2]
    for rank in found["ranks"][1:]:
        assert rank["folder_shared"]
        assert rank["address"] == "127.0.0.1"
        assert rank["versions"]["scdask"] == scdask.__version__
        for way in ("to_root", "over_mpi"):
            assert rank[way]["bandwidth"] > 0
            assert rank[way]["round_trip"] > 0
    assert found["ranks"][1]["to_next"]["round_trip"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_is_mis_set(tmp_path):
    done = forked(2, "scdask", "mpi-check", "--timeout", 100, "--interface", "ib7", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"Wrong: ranks 0-1 on {socket.gethostname()}: there is no network interface ib7, only " in done.stdout
    assert "1 thing is wrong with this set-up." in done.stdout


def test_processes_that_are_alone():
    done = forked(1, "scdask", "mpi-check", SLURM_STEP_NUM_TASKS=6)
    assert done.returncode == 1
    assert f"Error: rank 0 on {socket.gethostname()}: this process is one of 6 that were launched" in done.stderr
    assert "Traceback" not in done.stderr


SILENT_LAUNCHER = """
import os, socket, subprocess, sys
launcher, rank = socket.socketpair()
env = os.environ | {"PMI_FD": str(rank.fileno()), "PMI_RANK": "1", "PMI_SIZE": "2"}
sys.exit(subprocess.run(sys.argv[1:], env=env, pass_fds=[rank.fileno()]).returncode)
"""


@pytest.mark.slow
def test_mpi_that_does_not_start():
    """The launcher does not understand the library, which lets no Python run meanwhile."""
    done = launch(sys.executable, "-c", SILENT_LAUNCHER, "scdask", "mpi-check", "--timeout", 1)
    assert done.returncode == -signal.SIGKILL % 256
    assert "rank 1 on" in done.stderr
    assert "waited 1 seconds for the start of MPI on all ranks" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def three():
    with hosts.running() as made:
        yield made


@pytest.mark.slow
@pytest.mark.component("hosts")
def test_three_hosts(three, tmp_path):
    """A job with which nothing is wrong, and one of which nearly everything is."""
    check = ("scdask", "mpi-check", "--timeout", 60)
    good = launch(*three.mpiexec(6, *check, "--interface", "ib0"), cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    assert "Wrong" not in good.stdout
    assert "6 ranks on 3 hosts, at ib0" in good.stdout
    assert re.search(r"2-3 +h2 +10\.78\.0\.12 ", good.stdout)

    other = tmp_path / "other"
    shutil.copytree(Path(scdask.__file__).parent, other / "scdask", ignore=shutil.ignore_patterns("__pycache__"))
    init = other / "scdask" / "__init__.py"
    init.write_text(init.read_text().replace(f'__version__ = "{scdask.__version__}"', '__version__ = "0.0.9"'))
    folder = tmp_path / "folder"
    folder.mkdir()
    three.do("own", "h3", folder)
    three.do("ip", "h3", "addr", "flush", "dev", "mgmt0")
    mis_set = tmp_path / "rank.sh"
    mis_set.write_text(
        f'[ "$PMI_RANK" = 3 ] && export PYTHONPATH={other}\n[ "$PMI_RANK" = 0 ] && ulimit -n 64\nexec "$@"\n'
    )
    bad = launch(*three.mpiexec(6, "sh", mis_set, *check, "--interface", "mgmt0"), cwd=folder)
    assert bad.returncode == 1
    assert "Traceback" not in bad.stdout + bad.stderr
    needed = OPEN_FILES + 6 * OPEN_FILES_A_RANK
    for sentence in (
        "ranks 4-5 on h3: the network interface mgmt0 has no IPv4 address",
        "ranks 2-3 on h2 cannot talk to rank 0 on h1 at 10.79.1.1 (mgmt0): ",
        "rank 1 on h1 cannot talk to its next rank, 2 on h2, at 10.79.2.1 (mgmt0): ",
        f"rank 3 on h2: scdask is 0.0.9, but {scdask.__version__} on the other ranks",
        f"rank 0 on h1 may open 64 files, but with 6 ranks needs {needed}",
        f"ranks 4-5 on h3: the current folder {folder} is not that of rank 0 on h1",
    ):
        assert f"Wrong: {sentence}" in bad.stdout
    assert "6 things are wrong with this set-up." in bad.stdout

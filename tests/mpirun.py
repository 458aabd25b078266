"""Programs of several processes, with a time limit, and a look for processes that they leave behind."""

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psutil

PROGRAMS = Path(__file__).parent / "mpi"
WORLDS = Path(__file__).with_name("worlds.py")
MARK, SOCKET = object(), object()  # in a command: the mark of its processes, and the socket of worlds()
LIMIT = 120  # seconds, on cores that another test uses too


def launch(*command, limit=LIMIT, **options):
    """Run a command, and return what it did; fail if it takes too long or leaves a process."""
    with started(*command, **options) as job:
        return finish(job, limit)


def ranks(n, *program, **options):
    """Run a program of the folder `mpi`, or a command, on n ranks of mpiexec."""
    first, *rest = map(str, program)
    command = [sys.executable, PROGRAMS / first, *rest] if first.endswith(".py") else [first, *rest]
    return launch("mpiexec", "-n", n, *command, **options)


def forked(n, *program, patient=False, **options):
    """Run a program of the folder `mpi`, or scdask, on n ranks that need not import anything: see worlds.py."""
    return launch(*fork(n, *program, patient=patient), **options)


def fork(n, *program, patient=False):
    """The command that does so."""
    first, *rest = map(str, program)
    first = PROGRAMS / first if first.endswith(".py") else first
    how = "patient" if patient else "impatient"
    return sys.executable, "-I", "-S", WORLDS, SOCKET, MARK, how, n, first, *rest


@cache
def worlds():
    """The socket of a process that forks ranks; it ends when this one closes the other end of its input."""
    path = Path(tempfile.mkdtemp(dir=os.environ["SCDASK_TEMPORARY"]), "socket")
    process = subprocess.Popen([sys.executable, WORLDS, path], stdin=subprocess.PIPE, env=environment())
    end = time.monotonic() + LIMIT
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)

    def end_worlds():
        process.stdin.close()
        process.wait()

    atexit.register(end_worlds)
    return path


def environment():
    """That of this process, with the programs of this Python's environment."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@contextmanager
def started(*command, cwd=None, **env):
    """A command that runs; afterwards all that is left of it is killed."""
    mark = uuid.uuid4().hex
    job = subprocess.Popen(
        [mark if part is MARK else worlds() if part is SOCKET else str(part) for part in command],
        env=environment() | {"SCDASK_TEST": mark} | {name: str(value) for name, value in env.items()},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    job.mark = mark
    before = shared_memory()
    try:
        yield job
    finally:
        for process in [job, *family(mark)]:
            with suppress(psutil.NoSuchProcess):  # it ends just now
                process.kill()
        job.wait()
        remove_shared_memory(before)


def finish(job, limit=LIMIT):
    """Wait for the end of a command and of all that it started."""
    try:
        out, err = job.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        for process in family(job.mark):
            process.send_signal(signal.SIGKILL)
        out, err = job.communicate()
        raise AssertionError(f"still there after {limit} s: {job.args}\n{out}\n{err}") from None
    end = time.monotonic() + 10
    while left := family(job.mark):
        assert time.monotonic() < end, f"left behind: {left}\n{out}\n{err}"
        time.sleep(0.05)
    print(out, err, sep="\n")
    return subprocess.CompletedProcess(job.args, job.returncode, out, err)


def family(mark):
    """The processes with the mark of a command."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.name().startswith(mark[:8]) or process.environ().get("SCDASK_TEST") == mark
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            pass
    return found


def rank_processes(mark):
    """Those of them that are ranks, in their order."""
    found = {}
    for process in family(mark):
        try:
            its = process.environ()
        except (psutil.Error, ProcessLookupError):  # It ends just now.
            continue
        forked_rank = process.name().partition(" ")[2]
        rank = forked_rank if forked_rank.isdigit() else its.get("PMI_RANK", its.get("SLURM_PROCID"))
        if rank is not None and process.name() not in ("mpiexec", "hydra_pmi_proxy", "srun", "slurmstepd"):
            found.setdefault(int(rank), process)  # not a child that has its name
    return [found[rank] for rank in sorted(found)]


def shared_memory():
    return set(Path("/dev/shm").glob("mpich_shm_*"))


def remove_shared_memory(before):
    """MPICH leaves that of a job which did not end by itself; what is in it is no secret.

    That of another job must stay: its first rank makes it, and if it is gone when the others come, they make their own,
    and all wait for each other for ever. So list what is there before who uses it, and open files before mapped ones.
    """
    left, used = shared_memory() - before, ""
    for process in psutil.process_iter() if left else ():
        with suppress(psutil.Error, OSError):
            used += str(process.open_files())
            used += Path(f"/proc/{process.pid}/maps").read_text()
    for path in left:
        if str(path) not in used:
            with suppress(FileNotFoundError):  # Another process of the tests may remove its own.
                assert b"PRIVATE KEY" not in path.read_bytes()
                path.unlink()

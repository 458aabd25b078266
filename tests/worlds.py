"""A launcher of MPI programs that forks their ranks from a process which has imported everything already.

Where `mpiexec` takes seconds, most of them for imports, this takes tenths. `python worlds.py SOCKET` is the process
that waits for requests, and `python worlds.py SOCKET MARK PATIENT N PROGRAM ARGUMENTS...` a launcher that makes one. A
rank that is killed or fails ends the others as under mpiexec, unless the launcher is patient: then they must notice it.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path

IMPORTS = """
scdask.cli scdask.dashboard scdask.mpi_driver.batch scdask.vector_ops scdask.jit_kernels pytest
dask_mpi distributed.dashboard.scheduler distributed.http.scheduler.info cryptography.x509 sklearn.neural_network
sklearn.datasets matplotlib.pyplot scdask.plotting scdask.jobs.infer
"""
ANSWERS = {
    "init": "response_to_init pmi_version=1 pmi_subversion=1",
    "get_maxes": "maxes kvsname_max=256 keylen_max=64 vallen_max=1024",
    "get_appnum": "appnum appnum=0",
    "finalize": "finalize_ack",
}


def wait_for_requests(path):
    """Fork a launcher for each request; gives the request and the connection in the launcher."""
    for name in IMPORTS.split():
        with suppress(ImportError):  # of a component that is not installed
            __import__(name)
    import scdask

    scdask.encode([0.5], 64, sng=scdask.Bernoulli(1)).popcount()  # Numba takes a second to get ready
    assert threading.active_count() == 1
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        while True:
            ready, _, _ = select.select([server, sys.stdin], [], [])
            if sys.stdin in ready:  # the tests are over
                sys.exit()
            connection, _ = server.accept()
            with connection:
                text, streams, _, _ = socket.recv_fds(connection, 2**20, 2)
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for number, stream in enumerate(streams, 1):
                        os.dup2(stream, number)
                        os.close(stream)
                    return json.loads(text), connection.dup()
                for stream in streams:
                    os.close(stream)


def become_a_rank(request, connection):
    """Fork the ranks, and return in each; the launcher itself ends here."""
    size = request["size"]
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.modules["dask.config"].refresh()  # It was read from the environment of the process that imported it.
    os.chdir(request["folder"])
    pipes = [socket.socketpair() for _ in range(size)]
    ranks = {}
    for rank, (ours, theirs) in enumerate(pipes):
        process = os.fork()
        if process == 0:
            connection.close()
            for ours, others in pipes:
                ours.close()
                if others is not theirs:
                    others.close()
            name(request["mark"], rank)
            os.environ |= {"PMI_FD": str(theirs.detach()), "PMI_RANK": str(rank), "PMI_SIZE": str(size)}
            os.environ |= {"MPI_LOCALRANKID": str(rank), "MPI_LOCALNRANKS": str(size)}
            return
        theirs.close()
        ranks[process] = ours
    name(request["mark"], "launcher")
    code = launch(request["mark"], ranks, request["patient"])
    connection.sendall(str(code).encode())
    os._exit(0)


def name(mark, what):
    """Make a process known as one of those that `mpirun.family` looks for; a forked one has no environment to see."""
    Path("/proc/self/comm").write_text(f"{mark[:8]} {what}")


def launch(mark, ranks, patient):
    """Speak the process management interface with the ranks until all have ended; gives the exit code of the job."""
    waiting, values, code = [], {"PMI_process_mapping": f"(vector,(0,1,{len(ranks)}))"}, 0

    def answer(words):
        command = words.pop("cmd")
        if command == "barrier_in":
            waiting.append(rank)
            if len(waiting) == len(ranks):
                for each in waiting:
                    each.sendall(b"cmd=barrier_out rc=0\n")
                waiting.clear()
            return None
        if command == "put":
            values[words["key"]] = words["value"]
            return "put_result"
        if command == "get":
            found = words["key"] in values
            return f"get_result value={values[words['key']]}" if found else "get_result rc=-1"
        return {
            "get_my_kvsname": f"my_kvsname kvsname={mark}",
            "get_universe_size": f"universe_size size={len(ranks)}",
        }.get(command, ANSWERS.get(command))

    def end_all():
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    left, talking = set(ranks), dict.fromkeys(ranks.values(), b"")
    while left:
        for rank in select.select(list(talking), [], [], 0.02)[0] if talking else []:
            read = rank.recv(2**16)
            talking[rank] += read
            *lines, talking[rank] = talking[rank].split(b"\n")
            for line in lines:
                words = dict(word.split("=", 1) for word in line.decode().split(" ") if "=" in word)
                if words["cmd"] == "abort":
                    code = max(code, int(words["exitcode"]))
                    end_all()
                elif text := answer(words):
                    rank.sendall(f"cmd={text}{'' if 'rc=' in text else ' rc=0'}\n".encode())
            if not read:
                del talking[rank]
        process, status = os.waitpid(-1, os.WNOHANG if talking else 0)
        if process:
            left.discard(process)
            ended = os.waitstatus_to_exitcode(status)
            if ended and not patient and not code:
                end_all()
            code = code or (128 - ended if ended < 0 else ended)
    return code


def ask(path, mark, patient, size, program):
    """Have a job run with the streams, the folder and the environment of this process; gives its exit code."""
    request = {"mark": mark, "patient": patient == "patient", "size": int(size), "program": program}
    request |= {"folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        return int(connection.recv(16))


if len(sys.argv) > 2:
    sys.exit(ask(*sys.argv[1:5], sys.argv[5:]))
request, connection = wait_for_requests(sys.argv[1])
become_a_rank(request, connection)
# From here on this is the program of a rank.
sys.argv = request["program"]
if sys.argv[0] == "scdask":
    from scdask.cli import main

    main()
else:
    __file__ = sys.argv[0]
    sys.path[0] = str(Path(__file__).parent)
    exec(compile(Path(__file__).read_text(), __file__, "exec"))

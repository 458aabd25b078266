"""A Slurm of one node, this machine, reachable from it alone."""

import os
import random
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/munge.sock
FirstJobId={first_job}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
SlurmctldPort={controller}
SlurmdPort={node}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=pmi2
ReturnToService=2
MailProg=/bin/true
KillWait=5
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"


@contextmanager
def running(folder):
    """Start it in a folder, and stop it; yields the environment of its commands."""
    host = socket.gethostname().partition(".")[0]
    for name in ("munge", "state", "spool", "log"):
        (folder / name).mkdir()
    for closed in (folder, folder / "munge"):
        closed.chmod(0o755)
    key = folder / "munge" / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    controller, node = free_ports(2)
    ports = {"controller": controller, "node": node}
    first_job = random.randrange(1000, 1_000_000)  # MPICH names shared memory after it, and may have left some behind
    config.write_text(CONFIG.format(folder=folder, host=host, user="root", first_job=first_job, **ports))
    (folder / "cgroup.conf").write_text(CGROUP)
    environment = {"SLURM_CONF": str(config)}
    munge = [
        f"--{name}={folder}/munge/munge.{name.partition('-')[0]}" for name in ("pid-file", "log-file", "seed-file")
    ]
    munge += [f"--key-file={key}", f"--socket={folder}/munge/munge.sock"]
    daemons = [["munged", "--force", *munge], ["slurmctld", "-f", config], ["slurmd", "-N", host, "-f", config]]
    try:
        for name, *args in daemons:
            program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
            subprocess.run([program, *args], env=os.environ | environment, check=True, capture_output=True, timeout=30)
        wait_until_idle(environment)
        yield environment
    finally:
        cancel = ["scancel", "--user=root", "--signal=KILL"]  # what an interrupted test left
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(cancel, env=os.environ | environment, capture_output=True, timeout=10, check=False)
        for name in ("slurmd.pid", "slurmctld.pid", "munge/munge.pid"):
            stop(folder / name)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_until_idle(environment):
    state = ""
    for _ in range(100):
        sinfo = ["sinfo", "--noheader", "--format=%T"]
        done = subprocess.run(sinfo, env=os.environ | environment, capture_output=True, text=True, timeout=30)
        state = done.stdout.strip() or done.stderr
        if state == "idle":
            return
        time.sleep(0.1)
    raise RuntimeError(f"the node is not idle: {state}")


def stop(pid_file):
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, 15)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            return
        time.sleep(0.1)
    os.kill(pid, 9)

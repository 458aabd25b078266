"""A Slurm of three nodes, the hosts of hosts.py."""

import os
import random
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress

from hosts import NAMES

CONFIG = """\
ClusterName=test
SlurmctldHost=h0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge/munge.sock,cred_expire=5
FirstJobId={first_job}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=pmi2
ReturnToService=2
MailProg=/bin/true
KillWait=5
SlurmdParameters=config_overrides
NodeName={nodes} CPUs=4 RealMemory=4000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nConstrainCores=no\nConstrainRAMSpace=no\n"


@contextmanager
def running(folder, hosts):
    """Start it in a folder, and stop it; yields the environment of its commands, which belong on h0.

    The hosts share one munged, over the file system.
    """
    for name in ("munge", "state", "log"):
        (folder / name).mkdir()
    for closed in (folder, folder / "munge"):
        closed.chmod(0o755)
    key = folder / "munge" / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    config = folder / "slurm.conf"
    first_job = random.randrange(1000, 1_000_000)  # MPICH names shared memory after it, and may have left some behind
    config.write_text(CONFIG.format(folder=folder, first_job=first_job, nodes=",".join(NAMES)))
    (folder / "cgroup.conf").write_text(CGROUP)
    environment = {"SLURM_CONF": str(config)}

    def on(host, *command, **options):
        options = {"capture_output": True, "text": True, "timeout": 30, **options}
        return subprocess.run(hosts.on(host, *command), env=os.environ | environment, **options)

    def start(host, name, *args):
        program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
        on(host, program, *args, check=True)

    munge = [
        f"--{name}={folder}/munge/munge.{name.partition('-')[0]}" for name in ("pid-file", "log-file", "seed-file")
    ]
    munge += [f"--key-file={key}", f"--socket={folder}/munge/munge.sock"]
    try:
        start("h0", "munged", "--force", *munge)
        start("h0", "slurmctld", "-f", config)
        for name in NAMES:
            start(name, "slurmd", "-N", name, "-f", config)
        wait_until_idle(on)
        yield environment
    finally:
        with suppress(subprocess.TimeoutExpired):
            on("h0", "scancel", "--user=root", "--signal=KILL", check=False)  # what an interrupted test left
        for pid_file in ("slurmctld.pid", "munge/munge.pid"):  # What runs on the nodes ends with them.
            stop(folder / pid_file)


def wait_until_idle(on):
    states = ""
    for _ in range(100):
        done = on("h0", "sinfo", "--noheader", "--Node", "--format=%T", check=False)
        states = done.stdout.split() or done.stderr
        if set(states) == {"idle"}:
            return
        time.sleep(0.1)
    raise RuntimeError(f"the nodes are not idle: {states}")


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

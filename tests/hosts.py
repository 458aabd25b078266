"""Several hosts on this machine, as network, UTS, IPC, PID and mount namespaces; hosts.sh makes them."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SCRIPT = Path(__file__).with_name("hosts.sh")
NAMES = ("h1", "h2", "h3")


@cache
def why_not():
    """What keeps this machine from making hosts, or nothing."""
    environment = _environment(f"try-{os.getpid()}")
    done = subprocess.run([SCRIPT, "able"], env=environment, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip() if done.returncode else ""


def _environment(folder):
    return os.environ | {"SCDASK_HOSTS": str(folder), "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


class Hosts:
    """Three hosts, h1 to h3, and h0, a login node, whose processes are in the numbers of this machine."""

    def __init__(self, folder):
        self.folder = folder

    def do(self, *words):
        """Have hosts.sh do something, such as `cut h2`; gives what it prints."""
        command = [SCRIPT, *map(str, words)]
        done = subprocess.run(
            command, env=_environment(self.folder), capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    def on(self, host, *command):
        """A command that runs another on a host."""
        return "env", f"SCDASK_HOSTS={self.folder}", SCRIPT, "exec", host, *command

    def mpiexec(self, n, *command, hosts=NAMES):
        """A command that runs another on n ranks, two a host, as from the login node."""
        launcher = ["-launcher", "ssh", "-launcher-exec", self.folder / "rsh"]
        places = ["-hosts", ",".join(f"{name}:2" for name in hosts)]
        return self.on("h0", "mpiexec", *launcher, *places, "-n", n, *command)

    def processes(self):
        """Those of the hosts but h0, a line each."""
        return [line for line in self.do("ps").splitlines() if not line.endswith(": off")]


@contextmanager
def running():
    """Make the hosts, and remove them."""
    hosts = Hosts(Path(tempfile.mkdtemp(prefix="scdask-hosts-"), "hosts"))
    try:
        hosts.do("up", len(NAMES))
        yield hosts
    finally:
        hosts.do("down")
        hosts.folder.parent.rmdir()

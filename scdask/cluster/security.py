"""Security, for administrators and for those who share a machine: what listens where, and who can get in.

Whoever can connect to a scheduler or a worker of Dask can run code as the user who started it. So these listen on the
loopback device where they can, and talk TLS where other hosts, or other users, can reach them. On a machine that
others use too, a local cluster is to be encrypted::

    scdask infer digits --encrypted

In Python it is `scdask.cluster.open_scheduler("local", encrypted=True)`. It takes `pip install cryptography`, which the
extras `mpi` and `slurm` bring.

What listens
------------
All ports are free ones that the system chooses.

=======================  =======================================  ==================================================
mode                     what listens                             where, and how
=======================  =======================================  ==================================================
``threads``              nothing
``local``, ``cuda``      scheduler; of each worker itself, its    127.0.0.1, plain TCP; ``local`` with `encrypted`
                         nanny                                    TLS
``tcp://...``, a file    nothing of ours: a client only connects  as the scheduler does: TLS if it is ``tls://...``
``mpi``, `mpi-run`,      scheduler, workers                       TLS; at 127.0.0.1 if all ranks are on one host,
`mpi_session`                                                     otherwise at one address of each host, that of
                                                                  `interface` if it is given
`MPIDriver`              nothing but MPI itself                   see below
``slurm``                scheduler where the client is; workers   TLS; on all addresses, or on that of `interface`
                         on the nodes
`sbatch`                 as ``mpi``
dashboards               HTTP of each scheduler                   127.0.0.1 of its host, without a login
=======================  =======================================  ==================================================

The workers of ``local`` serve HTTP too, as they are Dask's own, at 127.0.0.1; those of ``mpi`` and ``slurm`` do not.
`mpi_session(encrypted=False)` talks plain TCP, and anybody who reaches its hosts can run code as you.
The ranks tell each other over MPI that they are alive, for which no other port is open.

TLS
---
Scheduler, workers and clients each show a certificate, and refuse a peer without that of the job. A plain client, and
one with a certificate of its own, get no further than the handshake. They talk TLS 1.3, or at least 1.2, with the
ciphers of Python's OpenSSL: TLS_AES_256_GCM_SHA384 as a rule. The options of Dask `distributed.comm.tls.min-version`
and `distributed.comm.tls.ciphers` demand others. Names of hosts are not compared: who has the key belongs to the job.

Credentials are made for each job or block: a key of the curve P-256, and a certificate that it signs itself. The
certificate is dated for a year, and from a day ago, for hosts whose clocks are late; the key is gone with the job.
Where the key is meanwhile:

- ``local``, ``mpi``: in files in memory (``memfd``) of the processes of the job, which only the same user and root can
  open, under ``/proc``. It is on no disk, in no environment and on no command line. Where there are no such files, as
  on macOS, Dask writes it to a file in a temporary folder that only you can read, and removes it at once.
- ``mpi``: it goes from rank to rank sealed (X25519, HKDF, ChaCha20-Poly1305), because MPI leaves what it sends readable
  in shared memory. Nobody is authenticated there: who can change what MPI sends can read it.
- ``slurm``: in files of mode 0600, ``.dask-jobqueue.worker.*``, in the current folder or the option
  `jobqueue.slurm.shared-temp-directory`, until the client ends. If it is killed with SIGKILL, they stay there.
  The jobs' command lines show their names alone.

What MPI opens
--------------
MPI has neither TLS nor a login, and what it sends can be read and changed on the network. MPICH 5.0 was looked at.

- mpiexec listens on all addresses of its host, also with one rank, and a rank inherits that port. The ports of srun are
  the site's (SrunPortRange).
- UCX opens a port at each address of the host. scdask chooses shared memory alone (``UCX_TLS=posix,self,cma``) when all
  ranks are on one host, and then none is opened. On several hosts ``UCX_NET_DEVICES=ib0`` leaves one; firewalls and a
  network of the cluster's own have to do the rest. With ``MPIR_CVAR_CH4_NETMOD=ofi`` it is one port, too.
- The shared memory, ``/dev/shm/mpich_shm_*``, has mode 0600. After an abort it may stay, with the data last sent.

What another user of the machine can do
---------------------------------------
=======================  =============================================================================================
``threads``              see the command line
``local``, ``cuda``      connect, and run any code as you; with ``local`` and `encrypted` he is refused
``mpi``, ``slurm``       be refused, which is logged as a TLS handshake that failed; keep a port busy; talk to mpiexec
dashboards               read all that they show, in every mode: names of tasks, files and functions, what workers log,
                         profiles, memory, hosts. There is nothing on them that starts or stops anything
any mode                 see with `ps` the command lines: names of files and options, never a key
=======================  =============================================================================================

He cannot read the environment, the memory, the keys, or the blocks that a worker writes to disk
(``dask-scratch-space`` in the temporary folder, mode 0700). Root can, and so can any process of the same user.

Dask has no switch for its HTTP server. Without one are the scheduler ``threads`` and `MPIDriver`; without Bokeh the
figures are missing.

What is logged
--------------
Addresses, names of tasks, and errors with what they quote, to stderr and the files of Slurm; never a key. A Security
that is printed shows paths alone.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import dask
from distributed import Security

from .._extras import require
from ..mpi_driver.credentials import FIELDS, in_memory, new_security

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["credentials_here"]


@contextmanager
def credentials_here() -> Iterator[Security]:
    """Make TLS credentials for a cluster of processes on this machine, and Dask's default, until the block ends.

    TLS takes files. These are files in the memory of this process, which its child processes, like all of this user's,
    find by their paths, so that no key is ever on a disk, in an environment, or in what is sent to a worker.

    Yields
    ------
    distributed.Security

    Raises
    ------
    MissingBackendError
        If cryptography is not installed.
    """
    require("cryptography", "mpi")
    made = new_security()
    with ExitStack() as stack:
        texts = {field: getattr(made, field) for field in FIELDS}
        files = {text: stack.enter_context(in_memory(text)) for text in set(texts.values())}
        options = {FIELDS[field]: files[text] for field, text in texts.items()}
        stack.enter_context(dask.config.set(options | {"distributed.comm.require-encryption": True}))
        yield Security()

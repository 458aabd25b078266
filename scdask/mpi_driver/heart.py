"""The heartbeat of a group of ranks: whoever falls silent ends the job."""

from __future__ import annotations

import socket
import threading
import time
import warnings
from typing import Any

from .ending import end_job
from .launch import seconds_of

BEAT = 1.0  # seconds between two beats
NAME = 64  # bytes of a beat: the name of the host


def lost_seconds() -> float:
    """The seconds of silence after which a rank is lost: Dask's option scdask.lost-seconds; 0 is never."""
    return seconds_of("scdask.lost-seconds", 30)


class Heart:
    """A thread that tells the next rank that this one lives, and ends the job when the one before it is silent.

    The ranks are a ring, so that a rank sends and gets a message a second, however many there are. Of ranks that a
    network has cut in two, one on each side hears nothing any more.

    Parameters
    ----------
    comm : mpi4py.MPI.Intracomm
        Of its own, with more than one rank.
    """

    def __init__(self, comm: Any) -> None:
        self.comm = comm
        self.lost = lost_seconds()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="scdask-heart", daemon=True)

    def start(self) -> None:
        """Begin to beat, if MPI lets threads talk."""
        from mpi4py import MPI

        if self.lost <= 0:
            return
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            if self.comm.rank == 0:
                warnings.warn(
                    "MPI was started without THREAD_MULTIPLE, so nothing notices a rank that falls silent", stacklevel=2
                )
            return
        self.thread.start()

    def stop(self) -> None:
        """Beat no more."""
        self.ending.set()
        if self.thread.is_alive() and self.thread is not threading.current_thread():
            self.thread.join()

    def _beat(self) -> None:
        try:
            self._go_on()
        except Exception as error:  # MPI says so where it notices first that the other is gone.
            end_job(1, f"{self._name()} has lost its neighbours: {error}")

    def _go_on(self) -> None:
        rank, size = self.comm.rank, self.comm.size
        before, after = (rank - 1) % size, (rank + 1) % size
        mine, theirs = socket.gethostname().encode()[:NAME].ljust(NAME), bytearray(NAME)
        heard, sent = self.comm.Irecv(theirs, before), self.comm.Isend(mine, after)
        silence, looked = 0.0, time.monotonic()
        while not self.ending.wait(BEAT):
            # Time in which this process itself was stopped does not count, so that a suspended job can go on.
            silence += min(time.monotonic() - looked, 2 * BEAT)
            looked = time.monotonic()
            while heard.Test():
                heard, silence = self.comm.Irecv(theirs, before), 0.0
            if sent.Test():
                sent = self.comm.Isend(mine, after)
            if silence > self.lost:
                where = theirs.decode(errors="replace").strip(" \0")
                end_job(
                    1,
                    f"{self._name()} has not heard rank {before}{where and f' on {where}'} for {self.lost:g} seconds: "
                    "it is stopped, or its host or the network is lost",
                )
        heard.Cancel()
        heard.Wait()
        sent.Free()

    def _name(self) -> str:
        return f"rank {self.comm.rank} on {socket.gethostname()}"

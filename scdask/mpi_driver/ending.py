"""The end of an MPI job: a rank that fails ends all ranks."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

FOREIGN = "_scdask_rank"  # the attribute of an error that came from another rank
INTERRUPTED = 130  # the exit code after Ctrl-C
ABORT_SECONDS = 5


def end_job(code: int, message: str | None = None, error: BaseException | None = None) -> NoReturn:
    """Say why, and end every rank of the job with an exit code."""
    with suppress(OSError):  # A closed pipe must not keep the job alive.
        if message:
            print(f"scdask: {message}", file=sys.stderr)
        if error is not None:
            _show(error)
    flush()
    time.sleep(0.2)  # A launcher does not forward what it has not read before the end.
    if "mpi4py.MPI" in sys.modules:
        from mpi4py import MPI

        if not MPI.Is_finalized():
            # MPI waits for ever for a launcher that a network has cut off.
            faulthandler.dump_traceback_later(ABORT_SECONDS, exit=True, file=os.open(os.devnull, os.O_WRONLY))
            MPI.COMM_WORLD.Abort(code)
    os._exit(code)


def flush() -> None:
    """Write out what is printed, as far as it can be."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # Nor must it here.
            stream.flush()


def is_foreign(error: BaseException) -> bool:
    """Whether an error was raised on another rank, which shows it."""
    return FOREIGN in vars(error)


def _show(error: BaseException) -> None:
    if is_foreign(error):
        time.sleep(1)  # This lets the rank that raised the error show it, and end the job.
        print(f"scdask: {type(error).__name__} of rank {vars(error)[FOREIGN]}: {error}", file=sys.stderr)
    elif isinstance(error, SystemExit):
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    else:
        traceback.print_exception(error)


def watch_errors() -> None:
    """Make an error that nothing catches end the job from now on."""
    show, pid = sys.excepthook, os.getpid()

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if os.getpid() != pid:  # A child process is no rank.
            show(kind, error, trace)
            return
        end_job(exit_code(error), error=error)

    sys.excepthook = hook


def watch_threads() -> Callable[[], None]:
    """Make an error in any thread end the job, until the function that is returned is called."""
    show = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        show(args)
        if args.exc_type is not SystemExit:
            end_job(1, f"the thread {args.thread.name if args.thread else '?'} failed")

    threading.excepthook = hook

    def stop() -> None:
        threading.excepthook = show

    return stop


def exit_code(error: BaseException) -> int:
    """The exit code that Python gives a program that ends with this error."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    return 1

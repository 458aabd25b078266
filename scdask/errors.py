"""The errors and warnings of scdask: each is a name, a built-in base, and one sentence with the numbers in it."""


def printable(text: object) -> str:
    """Text that a terminal shows as it is: names from files may hold characters that command it."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text))


class ScdaskError(Exception):
    """Base of every error that scdask raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class BitstreamError(ScdaskError, ValueError):
    """An array, a length, a probability or a shape does not fit the operation."""


class UnsupportedArrayError(ScdaskError, TypeError):
    """An array belongs to a library that scdask has no kernels for."""


class MixedArrayError(ScdaskError, TypeError):
    """Arrays of several libraries came in one call."""


class MissingBackendError(ScdaskError, ImportError):
    """A package that this feature needs is not installed."""


class SchedulerError(ScdaskError, RuntimeError):
    """The Dask scheduler that a job was sent to cannot be reached."""


class SweepError(ScdaskError, ValueError):
    """What a campaign is asked for, or its store, is not what it takes."""


class WorldError(ScdaskError, RuntimeError):
    """The ranks of an MPI job are not what a call needs, or do not do the same."""


class ScdaskWarning(UserWarning):
    """Base of every warning that scdask gives: what was asked for is done, and is perhaps not what was meant."""


class CorrelationWarning(ScdaskWarning):
    """The operands of a gate or circuit do not correlate as it needs, so that it gives another number than it says."""

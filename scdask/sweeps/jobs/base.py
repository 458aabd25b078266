"""What a job of campaigns is, and how what it is asked for is checked."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...core.checks import check_encoding
from ...errors import BitstreamError, SweepError
from ...generators import LFSR, Bernoulli, Halton, Sobol, Thermometer, VanDerCorput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ...generators import SNG

SEEDS = 16  # of generators and of faults, which a cell takes: more than the streams of a circuit
SOBOLS = (1, 2, 3, 4, 5, 6, 7, 9)  # the dimensions of `independent`, which measures them
HALTONS: tuple[SNG, ...] = (VanDerCorput(), *map(Halton, (3, 5, 7, 11, 13, 17, 19)))
REGISTERS = (
    (16, 14, 13, 11),
    (16, 5, 3, 2),
    (16, 11, 3, 2),
    (16, 9, 5, 2),
    (16, 10, 7, 4),
    (16, 11, 10, 5),
    (16, 10, 9, 6),
    (16, 12, 9, 6),
)
"""Taps of registers of full period, any two of which were measured to multiply as random bits do."""


@dataclass(frozen=True)
class Job:
    """What the cells of a campaign compute.

    Parameters
    ----------
    function : callable
        Is called with the data, if there are any, and a setting as keywords; of module level, and eager.
    data : object or None
        What all cells need.
    over : dict of str to list
        Every axis with its values.
    about : dict of str to JSON values
        What tells this campaign from others.
    metric : str
        What is drawn, unless another one is asked for.
    where, cost : callable, optional
        As `scdask.sweep` takes them.
    units : dict of str to str
        Units of metrics and axes.
    reference : float or None
        What the metric would be without streams.
    """

    function: Callable[..., Any]
    data: Any
    over: dict[str, list[Any]]
    about: dict[str, Any]
    metric: str
    where: Callable[[dict[str, Any]], bool] | None
    cost: Callable[[dict[str, Any]], float] | None
    units: dict[str, str]
    reference: float | None = None


class Kind(NamedTuple):
    """What a value is: in words, and a function that gives it as it is used, or None if it is something else."""

    what: str
    taken: Callable[[Any], Any]


class Known(NamedTuple):
    """An option or an axis that a job has: the kind of its values, and what they are by default."""

    kind: Kind
    default: Any


def choice(names: Iterable[str]) -> Kind:
    """One of some names."""
    known = tuple(names)
    return Kind(f"one of {', '.join(known)}", lambda value: value if value in known else None)


def whole(low: int, high: int | None = None) -> Kind:
    """An integer within a range."""
    what = f"an integer from {low} on" if high is None else f"an integer from {low} to {high}"
    return Kind(what, lambda v: v if type(v) is int and low <= v and (high is None or v <= high) else None)


def _rate(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else None


RATE = Kind("a rate from 0 to 1", _rate)
TEXT = Kind("a text", lambda value: value if isinstance(value, str) and value else None)
LENGTH = Known(whole(1), [16, 64, 256, 1024])
SEED = Known(whole(0, 2**56), list(range(10)))


def asked(
    job: str,
    options: Mapping[str, Any],
    over: Mapping[str, Sequence[Any]],
    known_options: Mapping[str, Known],
    axes: Mapping[str, Known],
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """The options and the axes of a job, checked and with what they are by default.

    An option that is called as an axis is the only value of it.
    """
    given = dict(over)
    for name in options:
        if name in given and name in axes:
            raise SweepError(f"{name} is either an option or an axis, not both")
        if name in axes:
            given[name] = [options[name]]
        elif name not in known_options:
            raise SweepError(f"{job} has no option {name}, but {', '.join([*known_options, *axes])}")
    for name, values in given.items():
        if name not in axes:
            raise SweepError(f"{job} has no axis {name}, but {', '.join(axes)}")
        if isinstance(values, str) or not len(values):
            raise SweepError(f"the values of {name} are a list of one or more, not {values!r}")
    chosen = {
        name: _taken(name, options[name], known.kind) if name in options else known.default
        for name, known in known_options.items()
    }
    filled = {
        name: [_taken(name, value, known.kind) for value in given.get(name, known.default)]
        for name, known in axes.items()
    }
    return chosen, filled


def _taken(name: str, value: Any, kind: Kind) -> Any:
    taken = kind.taken(value)
    if taken is None:
        raise SweepError(f"{name} is {kind.what}, not {value!r}")
    return taken


@contextmanager
def refused() -> Iterator[None]:
    """What does not go together is told as an error of the campaign."""
    try:
        yield
    except BitstreamError as error:
        raise SweepError(str(error)) from error


def check_lengths(over: Mapping[str, Sequence[Any]], generators: Callable[[str], Iterable[SNG]]) -> None:
    """Raise unless the generators make streams of all lengths."""
    with refused():
        for sng in over["sng"]:
            given = tuple(generators(sng))
            for length in over["length"]:
                check_encoding(length, *given)


def digest(*parts: Any) -> str:
    """A text that is the same for what is equal: arrays, dataclasses of them, and what has a repr."""
    found = hashlib.sha256()
    for part in parts:
        _add(found, part)
    return found.hexdigest()[:16]


def _add(found: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        found.update(f"{part.dtype.str}{part.shape}".encode())
        found.update(str(part.tolist()).encode() if part.dtype.hasobject else np.ascontiguousarray(part).tobytes())
    elif isinstance(part, list | tuple):
        found.update(f"{type(part).__name__}{len(part)}".encode())
        for each in part:
            _add(found, each)
    elif is_dataclass(part):
        found.update(type(part).__name__.encode())
        for field in fields(part):
            found.update(field.name.encode())
            _add(found, getattr(part, field.name))
    else:
        found.update(repr(part).encode())


def apart(name: str, seed: int, number: int) -> SNG:
    """One of the generators, 0 to 7, whose streams are independent of each other.

    Of a thermometer there is one; the others are Halton's. With "shared", wrong on purpose, all have one register.
    """
    if name == "sobol":
        return Sobol(SOBOLS[number], seed=seed or None)
    if name == "bernoulli":
        return Bernoulli(SEEDS * seed + number)
    if name in ("lfsr", "shared"):
        return _register(0 if name == "shared" else number, seed)
    return [*([Thermometer()] if name == "thermometer" else []), *HALTONS][number]


def together(name: str, seed: int, number: int = 0) -> SNG:
    """The same, with one sequence for all streams, which then overlap as much as they can."""
    if name == "bernoulli":
        return Bernoulli(SEEDS * seed + number, shared=True)
    return apart(name, seed, number)


def _register(number: int, seed: int) -> LFSR:
    """A register of 16 bits with taps of its own, started elsewhere by each seed."""
    return LFSR(16, REGISTERS[number], seed=1 + (0xACE0 + 7919 * number + 77 * seed) % 65535)

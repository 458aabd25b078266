"""Which generators go together: measured, because that their names differ says little."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from ..core.checks import check_generator
from ..core.gates import GATES
from ..errors import BitstreamError, CorrelationWarning
from .base import integer
from .bernoulli import Bernoulli
from .low_discrepancy import Sobol, _Even

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .base import SNG

GRID = np.arange(33) / 32
RANDOM = 0.385  # The error of products of random streams is about this over the root of N.
# From these multiples of it on, sequences are said to correlate. Even ones are to be better than random; a pair of
# registers is as random as one of 200 random pairs, of which one in a hundred has three times the error.
EVEN_LIMIT, LIMIT = 1.25, 3.0
MEASURED = 1024  # bits of the longest streams that are measured before a gate
CANDIDATES = 64  # dimensions of Sobol that `independent` looks at

_meant: ContextVar[bool] = ContextVar("correlation is meant", default=False)


def product_error(a: SNG, b: SNG, length: int = 256) -> float:
    """How far products of streams of two generators are off, measured.

    Parameters
    ----------
    a, b : SNG
    length : int
        Bits of a stream, 1 to 2**20.

    Returns
    -------
    float
        The root of the mean square of AND(p, q) - p q, over p and q from 0 to 1 in steps of 1/32; of element 0, where
        each element has numbers of its own. At 256 bits it is 0.001 for a good pair, 0.024 for random bits, and 0.1
        for equal generators.

    Examples
    --------
    >>> from scdask.generators import Sobol, VanDerCorput, product_error
    >>> [round(product_error(a, Sobol(2)), 3) for a in (Sobol(1), VanDerCorput(), Sobol(2))]
    [0.001, 0.081, 0.102]
    """
    for sng in (a, b):
        check_generator(sng)
    return _product_error(a, b, integer("the length of a stream", length, 1, 2**20))


@lru_cache(maxsize=1024)
def _product_error(a: SNG, b: SNG, length: int) -> float:
    return float(_errors(_streams(a, length)[None], _streams(b, length))[0])


def _streams(sng: SNG, length: int) -> NDArray[np.float32]:
    return (sng.drawn(length, 0, length) < GRID[:, None]).astype(np.float32)


def _errors(several: NDArray[np.float32], one: NDArray[np.float32]) -> NDArray[np.float64]:
    products = several @ one.T / np.float32(one.shape[1])
    return np.sqrt(((products - np.outer(GRID, GRID)) ** 2).mean((1, 2)))  # type: ignore[no-any-return]


def independent(n: int, *, seed: int | None = None) -> list[Sobol]:
    """Generators whose streams were measured to multiply well, each with each.

    They are dimensions of Sobol: the first for which AND of any two is off by at most half of what it is with random
    bits, at N = 64, 256 and 1024 (`product_error`).

    Parameters
    ----------
    n : int
        How many, 1 to 13.
    seed : int, optional
        Scrambles all of them: see `Sobol`.

    Returns
    -------
    list of Sobol

    Raises
    ------
    BitstreamError
        If there are not so many. `Bernoulli` has as many independent seeds as anybody needs.

    Examples
    --------
    >>> independent(3)
    [Sobol(dimension=1), Sobol(dimension=2), Sobol(dimension=3)]
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise BitstreamError(f"the number of independent generators is an integer from 1 on, not {n!r}")
    dimensions = _independent_dimensions(int(n))
    if len(dimensions) < n:
        raise BitstreamError(
            f"{len(dimensions)} dimensions of Sobol are independent of each other, not {n}; Bernoulli has more seeds"
        )
    return [Sobol(dimension, seed=seed) for dimension in dimensions]


@lru_cache(maxsize=CANDIDATES)
def _independent_dimensions(most: int) -> tuple[int, ...]:
    kept: list[int] = []
    streams = {length: np.empty((0, GRID.size, length), np.float32) for length in (64, 256, 1024)}
    for dimension in range(1, CANDIDATES + 1):
        if len(kept) == most:
            break
        new = {length: _streams(Sobol(dimension), length) for length in streams}
        if all((_errors(streams[n], new[n]) <= 0.5 * RANDOM / n**0.5).all() for n in streams):
            kept.append(dimension)
            streams = {length: np.append(streams[length], new[length][None], axis=0) for length in streams}
    return tuple(kept)


@contextmanager
def correlation_meant() -> Iterator[None]:
    """Give no `CorrelationWarning` in a block: in this thread alone, where a filter of warnings would be for all."""
    token = _meant.set(True)
    try:
        yield
    finally:
        _meant.reset(token)


def is_meant() -> bool:
    """Whether this is a block of `correlation_meant`."""
    return _meant.get()


def tell_of_correlation(gate: str, a: SNG | None, b: SNG | None, length: int, stacklevel: int) -> None:
    """Warn if streams of the two generators are known to correlate, so that a gate of them is no product or sum.

    OR and XOR of equal generators are the maximum and the difference, and are not warned of: nobody wants another.
    """
    if a is None or b is None or is_meant() or (reason := _reason(gate, a, b, min(length, MEASURED))) is None:
        return
    warnings.warn(
        f"{reason}, because they correlate; `scdask.independent` gives generators that do not, and a filter of "
        "scdask.CorrelationWarning says that it is meant",
        CorrelationWarning,
        stacklevel=stacklevel + 1,
    )


@lru_cache(maxsize=1024)
def _reason(gate: str, a: SNG, b: SNG, length: int) -> str | None:
    if a == b:
        means = GATES[gate].correlated
        return f"{gate.upper()} of streams of equal generators, {a}, is {means}" if means else None
    if a.own or b.own or Bernoulli in (type(a), type(b)):
        return None
    random = RANDOM / length**0.5
    even = isinstance(a, _Even) and isinstance(b, _Even)
    error = _product_error(a, b, length)
    if error <= random * (EVEN_LIMIT if even else LIMIT):
        return None
    return (
        f"{gate.upper()} of streams of {a} and {b} is off by {error:.3f} at {length} bits, where random bits are off "
        f"by {random:.3f}"
    )

"""What circuits need of their streams: errors, and warnings where generators are known and are the wrong ones."""

from __future__ import annotations

import warnings
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bitstream import Bitstream, check_alike
from ..errors import BitstreamError, CorrelationWarning
from ..generators import LFSR, Thermometer
from ..generators.independence import is_meant
from ..generators.low_discrepancy import _Even

if TYPE_CHECKING:
    from ..generators import SNG


def check_one_array(streams: Any, axis: Any) -> None:
    """Raise unless the streams are a Bitstream, and say how several become one."""
    if isinstance(streams, list | tuple) or isinstance(axis, Bitstream):
        raise BitstreamError(
            "streams are those along an axis of one Bitstream, not several: put them together with scdask.stack"
        )
    check_alike(streams)


def needs_overlap(circuit: str, a: Bitstream, b: Bitstream, stacklevel: int = 2) -> None:
    """Warn if two streams are known not to overlap as much as they can."""
    if a.sng is None or b.sng is None:
        return
    if a.sng != b.sng:
        _warn(f"{circuit} needs streams of one generator (SCC = +1), not of {a.sng} and {b.sng}", stacklevel)
    elif a.sng.own and not a.size == b.size == prod(np.broadcast_shapes(a.shape, b.shape)):
        _warn(_of_own(circuit, a.sng), stacklevel)


def needs_one_sequence(circuit: str, streams: Bitstream, stacklevel: int = 2) -> None:
    """Warn if the elements of an array are known not to overlap as much as they can."""
    if streams.sng and streams.sng.own:
        _warn(_of_own(circuit, streams.sng), stacklevel)


def needs_random_bits(circuit: str, *streams: Bitstream, stacklevel: int = 2) -> None:
    """Warn of the first stream whose bits are known not to be independent of those before."""
    for stream in streams:
        if not _random(stream.sng):
            _warn(f"{circuit} needs bits that are random in time (Bernoulli), not those of {stream.sng}", stacklevel)
            return


def needs_random_gain(x: Bitstream, k: Bitstream, stacklevel: int = 2) -> None:
    """Warn if a stream and its gain are known not to be independent, or not to be random where they must be."""
    if x.sng and x.sng == k.sng:
        _warn(f"linear_gain needs streams of generators that differ (SCC = 0), not both of {x.sng}", stacklevel)
    elif isinstance(x.sng, LFSR | Thermometer) or not _random(k.sng):  # Even bits of x do with a random k.
        needs_random_bits("linear_gain", x, stacklevel=stacklevel + 1)


def _random(sng: SNG | None) -> bool:
    return not isinstance(sng, LFSR | _Even)


def _of_own(circuit: str, sng: SNG) -> str:
    return f"{circuit} needs one sequence for all elements (SCC = +1), but {sng} gives each element numbers of its own"


def _warn(reason: str, stacklevel: int) -> None:
    if is_meant():
        return
    message = f"{reason}; a filter of scdask.CorrelationWarning says that it is meant"
    warnings.warn(message, CorrelationWarning, stacklevel=stacklevel + 2)

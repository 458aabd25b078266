"""Progressive precision: how the number that a stream stands for settles, bit after bit.

A stream can be read before its end: after t bits it stands for the ones among them over t, `stream.decode(at=[t])`. How
far that is from the exact number is the progressive error; when it stays near, the stability tells.

>>> import scdask as sc
>>> for sng in (sc.Sobol(1), sc.Bernoulli(1)):
...     x = sc.encode(0.3, 1024, sng=sng)
...     print(sc.precision.progressive_error(x, 0.3, [16, 64, 256]).round(3), round(sc.precision.stability(x, 0.3), 2))
[0.013 0.013 0.001] 0.98
[-0.05   0.106  0.059] 0.71
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from .bitstream import Bitstream, check_alike
from .core import contract
from .core.checks import as_real
from .errors import BitstreamError
from .machines import map_time
from .vector_ops.counting import check_prefixes, watched
from .vector_ops.numbers import divide, in_64_bits

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["progressive_error", "stability"]


def progressive_error(stream: Bitstream, exact: Any, lengths: Sequence[int]) -> Any:
    """How far streams are from exact numbers after their first t bits: PE_t, after [1]_.

    Parameters
    ----------
    stream : Bitstream
        Of any polarity.
    exact : float or array_like
        The exact numbers, of a shape that broadcasts to that of the streams.
    lengths : sequence of int, length n
        Numbers of bits, t, each from 1 to N. They are read in one pass.

    Returns
    -------
    array of float64, shape (*stream.shape, n)
        The number of the first t bits less the exact one. Lazy if the stream is.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, a length is none of its bits, or the exact numbers do not fit.

    References
    ----------
    .. [1] Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> from scdask import Thermometer, encode
    >>> progressive_error(encode(0.25, 256, sng=Thermometer()), 0.25, [64, 128, 256])
    array([0.75, 0.25, 0.  ])
    """
    check_alike(stream)
    numbers = _exact(stream, exact)
    estimates = stream.decode(at=check_prefixes(lengths, stream.length))
    return contract.exactly(_difference, estimates, numbers[..., None])


def stability(stream: Bitstream, exact: Any, threshold: float = 0.05) -> Any:
    """For which share of its bits a stream stays near its exact number.

    It is 1 - max{t : abs(PE_t) > threshold} / N, over all t from 1 to N [1]_: 1 if the progressive error is never
    larger than the threshold, 0 if it is so at the end.

    Parameters
    ----------
    stream : Bitstream
        Of any polarity.
    exact : float or array_like
        The exact numbers, of a shape that broadcasts to that of the streams.
    threshold : float
        How large an error is taken for none, 0 or more. The ends of the band around the number are rounded to float64.

    Returns
    -------
    array of float64, of the shape of the streams
        Lazy if the stream is. NaN where the exact number is not finite.

    Raises
    ------
    BitstreamError
        If it is no Bitstream, the exact numbers do not fit, or the threshold is no such number.

    References
    ----------
    .. [1] Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    The first quarter is ones; the last time that the share of ones is above 0.3 is after 213 bits:

    >>> from scdask import Thermometer, encode
    >>> float(stability(encode(0.25, 256, sng=Thermometer()), 0.25, 0.05)) == 1 - 213 / 256
    True
    """
    check_alike(stream)
    if isinstance(threshold, bool) or not isinstance(threshold, float | int | np.number) or not threshold >= 0:
        raise BitstreamError(f"a threshold is a number from 0 on, not {threshold!r}")
    numbers = _exact(stream, exact)
    halved = 0.5 if stream.polarity == "bipolar" else 1.0
    share = 1 - halved
    scale = np.array([halved, halved, 0, 0, 0])
    shift = np.array([share - halved * threshold, share + halved * threshold, 0, 0, 0])
    numbers = numbers[(*[None] * (stream.ndim - numbers.ndim), Ellipsis, None)]
    watch = contract.exactly(_scaled, numbers, scale, shift)
    _, watch = map_time(_watch, stream, state=watch, return_states=True)
    return contract.exactly(_settled, in_64_bits(itemgetter((..., 4)), watch), length=stream.length)


def _exact(stream: Bitstream, exact: Any) -> Any:
    numbers = as_real(exact, "exact numbers")
    pairs = zip(reversed(numbers.shape), reversed(stream.shape), strict=False)
    if numbers.ndim > stream.ndim or any(n not in (1, m) and n == n and m == m for n, m in pairs):
        raise BitstreamError(f"exact numbers of shape {numbers.shape} do not broadcast to streams {stream.shape}")
    return numbers


def _difference(estimate: Any, exact: Any) -> Any:
    return estimate - exact


def _scaled(numbers: Any, scale: Any, shift: Any) -> Any:
    return numbers * scale + shift


def _watch(words: Any, state: Any, length: int) -> tuple[Any, Any]:
    return words, watched(words, state, length)


def _settled(last: Any, length: int) -> Any:
    return divide(length - last, length)

"""Adders of the streams along an axis.

Those that count have an accumulator: at each bit it takes up the ones of all streams there, which are counted without
unpacking a bit, and gives ones away. What is left in it is their only error, however the streams correlate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..bitstream import Bitstream, check_alike, mux, wrap_words
from ..core.checks import INTEGERS
from ..encoding import encode
from ..errors import BitstreamError
from ..generators import SNG
from ..generators.independence import tell_of_correlation
from ..manipulation import number_of_axis
from ..vector_ops.adders import accumulate, before_words
from ..vector_ops.gates import gate
from .needs import check_one_array

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_BITS = 28


def scaled_add(
    streams: Bitstream,
    axis: int = -1,
    select: SNG | Sequence[Bitstream] | Bitstream | None = None,
    *,
    start: Any = None,
    return_states: bool = False,
) -> Any:
    """The mean of the streams along an axis: their sum, scaled by 1 / n.

    Without `select` a counting adder (uSADD): an accumulator gets the ones of the n streams at each bit; where it holds
    n or more, the output is 1 and n is subtracted. Of M ones in all the output has floor(M / n), so that it is less
    than 1 / N below the mean, whatever the correlation of the streams is. Streams that begin with the accumulator at
    n // 2 are rounded to the nearest instead.

    With `select` a multiplexer: each bit is that of one of the streams, chosen at random. Its error is that of random
    sampling, about sqrt(m (1 - m) / N) for the mean m, and less with low-discrepancy numbers.

    Parameters
    ----------
    streams : Bitstream
        Unipolar or bipolar. `scdask.stack` makes one of several.
    axis : int
        Of the array of streams; negative ones count from its end.
    select : SNG, or log2(n) Bitstreams, optional
        A generator whose numbers all streams share, such as ``Sobol(2)`` or ``Bernoulli(1, shared=True)``: its number u
        chooses stream floor(n u), for any n (with its rounding, if n does not divide N). Or Bitstreams of value 1/2, in
        a sequence or along the first axis of one: they are the digits of the number of the stream that is chosen, the
        lowest first, which is a tree of MUX, for n a power of two. They must be independent of each other. The
        selects must be independent of the streams that are added; these may correlate with each other.
    start : int or array of int, optional
        What the accumulators hold before the first bit, 0 to n - 1, of a shape that broadcasts to that of the result.
        By default 0.
    return_states : bool
        Whether to return the accumulators after the last bit too.

    Returns
    -------
    Bitstream
        Of the polarity of the streams, and of their shape without the axis. Lazy if they are.
    states : array of int32, of the shape of the result
        If `return_states` is true. With them as `start` a later part of the streams goes on.

    Raises
    ------
    BitstreamError
        If it is not one Bitstream, there is no such axis or no stream along it, or the selects or the start do not fit.

    Warns
    -----
    CorrelationWarning
        If the generators of a select and of the streams are known to correlate.

    References
    ----------
    Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020. MUX:
    Gaines: Stochastic computing systems. Advances in Information Systems Science 2, 1969.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> x = encode([0.1, 0.3, 0.9, 0.5], 256, sng=Sobol(1))
    >>> float(scaled_add(x).decode()), float(scaled_add(x, select=Sobol(2)).decode())
    (0.44921875, 0.4453125)
    """
    words, n = _along(streams, axis)
    if select is None:
        numbers = {"scale": n, "low": 0, "high": n - 1}
        return _added(words, streams, numbers, start, return_states)
    if start is not None or return_states:
        raise BitstreamError("a multiplexer has no accumulators: start and return_states go without a select")
    if isinstance(select, SNG):
        return _chosen(streams, words, n, select)
    try:
        selects = [*select]
    except TypeError:
        raise BitstreamError(f"a select is an SNG, or a sequence of Bitstreams, not {select!r}") from None
    if n != 2 ** len(selects):
        raise BitstreamError(f"{len(selects)} selects choose from {2 ** len(selects)} streams, not {n}; an SNG does")
    rest = wrap_words(words, streams.length, streams.polarity, streams.sng)
    for digit in selects:
        check_alike(digit, rest, polarity=False)
        rest = mux(digit[..., None], rest[..., 1::2], rest[..., ::2])
    return rest[..., 0]


def add(streams: Bitstream, axis: int = -1, *, depth: int = 16, start: Any = None, return_states: bool = False) -> Any:
    """The sum of the streams along an axis, clipped to what a stream can stand for.

    The counting adder without scaling (uNSADD), which saturates: min(sum, 1) of unipolar streams, and
    min(max(sum, -1), 1) of bipolar ones. At each bit an accumulator gets the ones of the n streams there, for bipolar
    ones less (n - 1) / 2; where it then holds 1 or more, the output is 1 and 1 is subtracted. Last it is clipped to
    -2**(depth - 1) ... 2**(depth - 1) - 1.

    The streams may correlate in any way, but what is left in the accumulator is missing in the output: n - 1 ones or so
    of streams that overlap, an error of (n - 1) / N, and about sqrt(N) near the limits of the sum. The last states tell
    how many: where nothing was clipped, the ones of unipolar streams are those of the output and those left. So `add`
    is for a few streams that are long; `scaled_add` has no such error.

    Parameters
    ----------
    streams : Bitstream
        Unipolar or bipolar. `scdask.stack` makes one of several.
    axis : int
        Of the array of streams; negative ones count from its end.
    depth : int
        Bits of an accumulator, 1 to 28. The bits that it gives do not depend on it as long as nothing is clipped.
    start : int or array of int, optional
        What the accumulators hold before the first bit, of a shape that broadcasts to that of the result; for bipolar
        streams in halves of a one. By default 0.
    return_states : bool
        Whether to return the accumulators after the last bit too.

    Returns
    -------
    Bitstream
        Of the polarity of the streams, and of their shape without the axis. Lazy if they are.
    states : array of int32, of the shape of the result
        If `return_states` is true. With them as `start` a later part of the streams goes on.

    Raises
    ------
    BitstreamError
        If there is no such axis or no stream along it, or the depth or the start does not fit.

    Notes
    -----
    The RMSE at N = 256, of n streams of random numbers in [0, 2 / n], whose sum is near 1:

    =====================  =====  =====  ======  =======
    streams                n = 3  n = 8  n = 32  n = 100
    =====================  =====  =====  ======  =======
    one ``Sobol(1)``       0.006  0.020  0.087   0.25
    ``Bernoulli``          0.031  0.039  0.045   0.048
    =====================  =====  =====  ======  =======

    References
    ----------
    Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> total, left = add(encode([0.125, 0.25, 0.5], 256, sng=Sobol(1)), return_states=True)
    >>> float(total.decode()), float(total.decode() + left / 256)
    (0.8671875, 0.875)
    >>> float(add(encode([-0.5, 0.25, 0.125], 256, polarity="bipolar", sng=Sobol(1))).decode())
    -0.1328125
    """
    words, n = _along(streams, axis)
    if isinstance(depth, bool) or not isinstance(depth, INTEGERS) or not 1 <= depth <= MOST_BITS:
        raise BitstreamError(f"the depth of an accumulator is an integer from 1 to {MOST_BITS}, not {depth!r}")
    worth, offset = (1, 0) if streams.polarity == "unipolar" else (2, n - 1)
    most = worth * 2 ** (int(depth) - 1)
    numbers = {"scale": worth, "offset": offset, "low": -most, "high": most - worth, "worth": worth}
    return _added(words, streams, numbers, start, return_states)


def or_add(streams: Bitstream, axis: int = -1) -> Bitstream:
    """OR of the streams along an axis, the adder without memory.

    Of streams of which no two have a one at the same bit it is the sum, exactly, and of two with SCC = -1
    min(p1 + p2, 1). Of independent ones it is 1 - (1 - p1)(1 - p2)..., which is near the sum if that is small; of fully
    correlated ones (SCC = +1) the maximum.

    Parameters
    ----------
    streams : Bitstream
        Unipolar. `scdask.stack` makes one of several.
    axis : int
        Of the array of streams; negative ones count from its end.

    Returns
    -------
    Bitstream
        Of the shape of the streams without the axis. Lazy if they are.

    Raises
    ------
    BitstreamError
        If the streams are bipolar, or there is no such axis or no stream along it.

    References
    ----------
    Alaghi, Hayes: Exploiting correlation in stochastic circuit design. ICCD 2013.

    Examples
    --------
    >>> import scdask as sc
    >>> a, b = (sc.encode(p, 256, sng=sc.Thermometer()) for p in (0.25, 0.5))
    >>> float(or_add(sc.stack([a, ~b])).decode()), float(or_add(sc.stack([a, b])).decode())
    (0.75, 0.5)
    """
    words, _ = _along(streams, axis)
    if streams.polarity != "unipolar":
        raise BitstreamError("OR adds unipolar streams, not bipolar ones: add and scaled_add take these")
    return _or(words, streams)


def _along(streams: Bitstream, axis: Any) -> tuple[Any, int]:
    """The words with the axis before that of the words, and its length."""
    check_one_array(streams, axis)
    words = before_words(streams.words, number_of_axis(axis, streams.ndim))
    n = words.shape[-2]
    if not n >= 1:  # NaN too
        raise BitstreamError(f"an adder has one stream at least along axis {axis}, not {n}")
    return words, n


def _added(words: Any, streams: Bitstream, numbers: dict[str, int], start: Any, return_states: bool) -> Any:
    first = 0 if start is None else start
    out, states = accumulate(words, length=streams.length, start=first, **numbers)
    result = wrap_words(out, streams.length, streams.polarity)
    return (result, states) if return_states else result


def _or(words: Any, streams: Bitstream) -> Bitstream:
    """OR, as the accumulator that holds nothing."""
    return _added(words, streams, {"scale": 1, "low": 0, "high": 0}, None, False)  # type: ignore[no-any-return]


def _chosen(streams: Bitstream, words: Any, n: int, select: SNG) -> Bitstream:
    """Each bit of the stream whose number is the integer below n times a number of the generator."""
    if select.own:
        raise BitstreamError(f"a select is a generator whose numbers all streams share, not {select}")
    tell_of_correlation("mux", select, streams.sng, streams.length, stacklevel=3)
    chunks = words.chunks[-2:] if streams.chunks else None
    ends = [encode(np.arange(i, n + i) / n, streams.length, sng=select, chunks=chunks) for i in (0, 1)]
    return _or(gate("and", words, (ends[0] ^ ends[1]).words), streams)

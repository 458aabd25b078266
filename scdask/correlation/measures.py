"""How streams correlate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..bitstream import Bitstream, check_alike
from ..core import contract
from ..errors import BitstreamError
from ..vector_ops.counting import stream_popcount
from ..vector_ops.gates import vec_and
from ..vector_ops.mac import vec_mac
from ..vector_ops.numbers import divide, or_one

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST = 2**32  # bits of a stream up to which products of counts, at most N**2 / 4 in the end, fit into int64


def scc(a: Bitstream, b: Bitstream) -> Any:
    """The stochastic computing correlation (SCC) of two streams, -1 to 1.

    +1 where the ones overlap as much as they can, -1 where they do so as little as they can, and 0 where they overlap
    as those of independent streams do on average [1]_. A stream of only zeros or only ones has no correlation with
    any: 0 is returned.

    Parameters
    ----------
    a, b : Bitstream
        Of one length, up to 2**32 bits, and any polarity; shapes broadcast.

    Returns
    -------
    array of float64, of the broadcast shape
        Lazy if the words of `a` or `b` are a Dask array.

    Raises
    ------
    BitstreamError
        If they are no Bitstreams, differ in length or are too long, or their shapes do not broadcast.

    References
    ----------
    .. [1] Alaghi and Hayes: Exploiting correlation in stochastic circuit design. ICCD 2013.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> a, b = (encode(p, 256, sng=Sobol(1)) for p in (0.75, 0.5))
    >>> float(scc(a, b)), float(scc(a, ~b))
    (1.0, -1.0)
    """
    return _of_pair(_from_counts, a, b)


def zce(a: Bitstream, b: Bitstream) -> Any:
    """The zero correlation error (ZCE) of two streams, -1/4 to 1/4: how far AND is from their product.

    With d the share of ones of AND less the product of the shares of ones, and d0 the distance of that product from the
    nearest multiple of 1/N, it is d (1 - abs(d0 / d)) [1]_. So it is 0 for streams whose AND is as near to the product
    as streams of N bits can be, which the SCC is not, and else says, in parts of 1, how much nearer it could be.

    Parameters
    ----------
    a, b : Bitstream
        Of one length, up to 2**32 bits, and any polarity; shapes broadcast.

    Returns
    -------
    array of float64, of the broadcast shape
        Lazy if the words of `a` or `b` are a Dask array.

    Raises
    ------
    BitstreamError
        As for `scc`.

    References
    ----------
    .. [1] Hsiao, San Miguel, Hara-Azumi, Anderson: Zero correlation error: a metric for finite-length bitstream
       independence in stochastic computing. ASP-DAC 2021.

    Examples
    --------
    3 and 4 ones of 8 make a product of 1.5 bits; 1 and 2 ones of AND are the nearest, 3 are one too many.

    >>> from scdask import Bitstream, vector_ops
    >>> bits = [[1, 1, 1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]]
    >>> a, b, c = Bitstream(vector_ops.pack_bitstream(bits), 8)
    >>> float(zce(a, b)), float(zce(a, c))
    (0.0, 0.125)
    """
    return _of_pair(_error_of_counts, a, b)


def scc_matrix(streams: Bitstream) -> Any:
    """The SCC of all pairs of streams, as `scc` gives it, without the pairs in memory.

    Parameters
    ----------
    streams : Bitstream, shape (n,)

    Returns
    -------
    array of float64, shape (n, n)
        Symmetric, with 1 on the diagonal, or 0 for a constant stream. Lazy if the words are a Dask array.

    Raises
    ------
    BitstreamError
        If it is no Bitstream of one axis, or the streams are longer than 2**32 bits.
    """
    check_alike(streams)
    if streams.ndim != 1:
        raise BitstreamError(f"a correlation matrix is that of streams of shape (n,), not {streams.shape}")
    rows, ones = streams.words[:, None], stream_popcount(streams.words)
    return _measure(_from_counts, vec_mac(rows, rows), ones[:, None], ones[None, :], streams.length)


def _of_pair(measure: Callable[..., Any], a: Bitstream, b: Bitstream) -> Any:
    check_alike(a, b, polarity=False)
    both = stream_popcount(vec_and(a.words, b.words))
    return _measure(measure, both, stream_popcount(a.words), stream_popcount(b.words), a.length)


def _measure(measure: Callable[..., Any], both: Any, ones_a: Any, ones_b: Any, length: int) -> Any:
    if length > LONGEST:
        raise BitstreamError(f"the correlation is that of streams of up to {LONGEST} bits, not {length}")
    return contract.exactly(measure, both, ones_a, ones_b, length=length)


def _from_counts(both: Any, ones_a: Any, ones_b: Any, length: int) -> Any:
    with np.errstate(over="ignore"):  # Products may wrap: a difference that fits is right all the same.
        covariance = both * length - ones_a * ones_b
    ones_b = ones_b + (length - 2 * ones_b) * (covariance <= 0)  # SCC(a, b) is -SCC(a, NOT b).
    smaller = ones_a + (ones_b - ones_a) * (ones_b < ones_a)
    larger = ones_a + ones_b - smaller
    return divide(covariance, or_one(smaller * (length - larger)))


def _error_of_counts(both: Any, ones_a: Any, ones_b: Any, length: int) -> Any:
    with np.errstate(over="ignore"):
        covariance = both * length - ones_a * ones_b
    above = covariance % length  # The product is a multiple of N as far from one as the covariance is.
    nearest = above + (length - 2 * above) * (2 * above > length)
    sign = 1 - 2 * (covariance < 0)
    return divide(sign * (sign * covariance - nearest), float(length) ** 2)

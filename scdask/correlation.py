"""Correlation of bitstreams.

The stochastic computing correlation (SCC) says what a gate does with two streams: at 0 AND multiplies, at +1 it is the
minimum, at -1 max(a + b - 1, 0). `scc` compares two streams, `scc_matrix` all pairs of streams of an array.
Streams of one Sobol sequence correlate fully. Those of `Bernoulli`, which has numbers of its own for each element,
correlate by chance only, and the less, the longer they are:

>>> import scdask as sc
>>> sc.scc_matrix(sc.encode([0.5, 0.25], 256, sng=sc.Sobol(1)))
array([[1., 1.],
       [1., 1.]])
>>> sc.scc_matrix(sc.encode([0.5, 0.25], 65536, sng=sc.Bernoulli(0))).round(3)
array([[ 1.   , -0.002],
       [-0.002,  1.   ]])

`scdask.plotting.plot_scc` draws such a matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .bitstream import Bitstream, check_alike
from .core import contract
from .errors import BitstreamError
from .vector_ops.counting import stream_popcount
from .vector_ops.gates import vec_and
from .vector_ops.mac import vec_mac
from .vector_ops.numbers import divide, or_one

__all__ = ["scc", "scc_matrix"]

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
    check_alike(a, b, polarity=False)
    both = stream_popcount(vec_and(a.words, b.words))
    return _scc(both, stream_popcount(a.words), stream_popcount(b.words), a.length)


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
    return _scc(vec_mac(rows, rows), ones[:, None], ones[None, :], streams.length)


def _scc(both: Any, ones_a: Any, ones_b: Any, length: int) -> Any:
    if length > LONGEST:
        raise BitstreamError(f"the SCC is that of streams of up to {LONGEST} bits, not {length}")
    return contract.exactly(_from_counts, both, ones_a, ones_b, length=length)


def _from_counts(both: Any, ones_a: Any, ones_b: Any, length: int) -> Any:
    with np.errstate(over="ignore"):  # Products may wrap: a difference that fits is right all the same.
        covariance = both * length - ones_a * ones_b
    ones_b = ones_b + (length - 2 * ones_b) * (covariance <= 0)  # SCC(a, b) is -SCC(a, NOT b).
    smaller = ones_a + (ones_b - ones_a) * (ones_b < ones_a)
    larger = ones_a + ones_b - smaller
    return divide(covariance, or_one(smaller * (length - larger)))

"""The encoder of numbers as bitstreams, and the decoder.

What `encode` compares the numbers with is a generator: `help(scdask.generators)` has the table of them. They can be
imported from here too. Two streams that a gate is to multiply need different ones:

>>> import scdask as sc
>>> a = sc.encode(0.75, 256, sng=sc.Sobol(1))
>>> for sng in (sc.Sobol(2), sc.Sobol(1)):
...     b = sc.encode(0.5, 256, sng=sng)
...     print(float((a & b).decode()), float((a | b).decode()), float((a ^ b).decode()))
0.375 0.875 0.5
0.5 0.75 0.25

With the second generator that of `a` the streams overlap as much as they can: AND is the minimum, OR the maximum, XOR
the absolute difference. Bipolar streams stand for 2p - 1; XNOR multiplies them, NOT negates them:

>>> v, w = (sc.encode(x, 1024, polarity="bipolar", sng=sc.Sobol(d)) for x, d in ((-0.5, 1), (0.5, 2)))
>>> float(sc.xnor(v, w).decode()), float((~v).decode())
(-0.25, 0.5)

MUX adds, with weights that a third stream sets, which is independent of both:

>>> float(sc.mux(sc.encode(0.5, 1024, sng=sc.Sobol(3)), v, w).decode())
0.0

A Dask array of numbers, or `chunks=`, makes a lazy stream; `help(scdask.cluster)` says how to choose chunks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bitstream import Bitstream, check_alike, wrap_words
from .core.dispatch import DASK, backend_of
from .generators import LFSR, SNG, Bernoulli, Halton, Sobol, Thermometer, VanDerCorput
from .vector_ops.encoding import encode_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .core.words import Polarity

__all__ = [
    "LFSR",
    "SNG",
    "Bernoulli",
    "Halton",
    "Sobol",
    "Thermometer",
    "VanDerCorput",
    "decode",
    "encode",
]


def encode(
    p: Any, length: int, *, polarity: Polarity = "unipolar", sng: SNG = Bernoulli(), chunks: Any = None
) -> Bitstream:
    """Encode real numbers as bitstreams.

    Bit t of a stream is 1 where number t of the generator is below the probability p (unipolar) or (p + 1) / 2
    (bipolar): 0 gives no ones, 1 only ones. The bits do not depend on chunks, workers or threads.

    Parameters
    ----------
    p : array_like or array of real numbers, any shape
        In [0, 1] for unipolar, [-1, 1] for bipolar streams.
    length : int
        Bits of a stream, N >= 1.
    polarity : {"unipolar", "bipolar"}
    sng : SNG
        The stochastic number generator. The default is `Bernoulli(seed=0)`: arrays that are both encoded with it have
        the same random numbers. Give operands of a gate generators that differ where they are to be independent.
    chunks : optional
        Makes the result lazy: chunks as Dask takes them, over (*p.shape, n_words), or over p.shape with the words of a
        stream whole; or "auto", which sizes them by the time that a task takes (Dask option "scdask.task-seconds").

    Returns
    -------
    Bitstream
        Of words of the library of `p`. Lazy if `p` is a Dask array or `chunks` is given.

    Raises
    ------
    BitstreamError
        If a value is outside its range or NaN (for a Dask array: when it is computed), or the length is below 1.

    Examples
    --------
    >>> a = encode(0.75, 256, sng=Sobol(1))
    >>> b = encode(0.5, 256, sng=Sobol(2))
    >>> float((a & b).decode())
    0.375
    """
    if chunks is None:
        words = encode_words(p, sng, length, polarity)
    else:
        words = DASK.load().encode_words(p, sng, length, polarity, chunks=chunks)
    if backend_of(words) is DASK:
        DASK.load().warn_of_many_blocks(words, stacklevel=3)
    return wrap_words(words, int(length), polarity, sng)


def decode(bitstream: Bitstream, at: Sequence[int] | None = None) -> Any:
    """The numbers that streams stand for: ones / N (unipolar) or 2 * ones / N - 1 (bipolar), as float64.

    With `at` they are read after so many bits each, in one pass, and on a last axis: see `Bitstream.decode`.
    """
    check_alike(bitstream)
    return bitstream.decode(at)

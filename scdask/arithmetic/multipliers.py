"""Products of streams with numbers, whose generator waits for the stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..bitstream import check_alike, wrap_words
from ..generators import Sobol
from ..vector_ops.umul import umul_words

if TYPE_CHECKING:
    from ..bitstream import Bitstream
    from ..generators import SNG


def umul(x: Bitstream, numbers: Any, sng: SNG | None = None) -> Bitstream:
    """The product of a stream and a number, by uMUL: the number's generator goes on only at ones of the stream [1]_.

    Whatever generator the stream has, the ones see the numbers of `sng` one after the other, so that the two cannot
    correlate: the product of n ones has as many ones as n bits of the number. Of a bipolar stream the zeros see a
    second generator of that kind, and the complement of its bits.

    Parameters
    ----------
    x : Bitstream
        Of any generator: it needs no SCC with anything.
    numbers : array_like of real numbers
        In [0, 1], or [-1, 1] for a bipolar stream; the shape broadcasts with that of the streams. They are the weights
        of a unary multiplier, and held in registers.
    sng : SNG, optional
        What the numbers are compared with; by default Sobol(1).

    Returns
    -------
    Bitstream
        Of the polarity of `x`. Where it is unipolar, its ones are ones of `x`, so that its SCC with `x` is +1.

    Raises
    ------
    BitstreamError
        If the shapes do not broadcast, a number is outside its range, or the generator cannot make such streams.

    Notes
    -----
    The product is exact to within the number's error over n bits: with both operands on Sobol(1) the RMSE over p in
    steps of 1/32 is 0.00125 at N = 256, as that of AND of Sobol(1) and Sobol(2).

    In hardware, the number's generator has the bit of `x` as its enable: `SNG.to_verilog`.

    References
    ----------
    .. [1] Wu, Li, Yin, Hsiao, Kim, San Miguel: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> x = encode([0.25, 0.5, 0.75], 256, sng=Sobol(1))
    >>> umul(x, 0.5).decode()
    array([0.125, 0.25 , 0.375])
    """
    check_alike(x)
    words = umul_words(x.words, numbers, Sobol(1) if sng is None else sng, x.length, x.polarity)
    return wrap_words(words, x.length, x.polarity)

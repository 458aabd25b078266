"""Arithmetic on streams: circuits that add.

=============  =========================================================  =============================================
function       circuit                                                    result
=============  =========================================================  =============================================
`scaled_add`   counting adder with a carry (uSADD), or a tree of MUX      mean of the streams
`add`          counting adder that saturates (uNSADD)                     sum, clipped to what a stream can stand for
`or_add`       OR                                                         sum of streams that exclude each other
=============  =========================================================  =============================================

They add along an axis of any size, of lazy streams in any chunks, those of the axis and of time included.
"""

from .adders import add, or_add, scaled_add

__all__ = ["add", "or_add", "scaled_add"]

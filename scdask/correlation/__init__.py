"""Correlation of bitstreams: how to measure it, and circuits that make or break it.

Measures
--------
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

`scdask.plotting.plot_scc` draws such a matrix. Streams of finite length cannot all have an SCC of 0; `zce` measures
how far AND is from the nearest to the product that streams of so many bits can come.

Circuits
--------
==================  ======  =============  ============================================================
..                  needs   gives (SCC)    what it does
==================  ======  =============  ============================================================
`synchronize`       any     near +1        ones that come alone wait for a partner
`desynchronize`     any     near -1        of two ones that come together one waits
`decorrelate`       any     near 0         a buffer from which bits leave in random order
`delay`             any     near 0         a stream of random bits some bits later, with the stream itself
`regenerate`        any     of generators  counts the ones, and encodes again
==================  ======  =============  ============================================================

The minimum of streams that do not correlate, 0.45, and what is near the product of those that do, 0.27:

>>> a, b = (sc.encode(p, 4096, sng=sc.Sobol(d)) for p, d in ((0.6, 1), (0.45, 2)))
>>> c, d = sc.correlation.synchronize(a, b, depth=4)
>>> round(float((a & b).decode()), 2), round(float((c & d).decode()), 2)
(0.27, 0.45)
>>> c = sc.correlation.decorrelate(c, depth=16)
>>> round(float((c & d).decode()), 2)
0.26
"""

from .circuits import (
    decorrelate,
    delay,
    desynchronize,
    desynchronizer,
    regenerate,
    shuffle_buffer,
    synchronize,
    synchronizer,
)
from .measures import scc, scc_matrix, zce

__all__ = [
    "decorrelate",
    "delay",
    "desynchronize",
    "desynchronizer",
    "regenerate",
    "scc",
    "scc_matrix",
    "shuffle_buffer",
    "synchronize",
    "synchronizer",
    "zce",
]

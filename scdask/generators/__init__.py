"""Stochastic number generators.

A generator is a small frozen value, and it decides how streams correlate: streams encoded with equal generators compare
the same numbers, so that they overlap as much as they can (SCC = +1). Generators that differ give streams that do not,
as far as the numbers of the two are independent. The elements of one array overlap if the generator has one sequence
for all of them. The default, `Bernoulli`, has not: element i of an array overlaps element i of another, and no other
element.

===================================  ==========================================  =======================  =============
generator                            numbers                                     ones of p in N bits      one sequence
                                                                                                          for
===================================  ==========================================  =======================  =============
``Bernoulli(seed=0)``                random, of 64 binary digits                 p N on average           each element
``Bernoulli(seed=0, shared=True)``   the same                                    p N on average           all elements
``LFSR(width=16)``                   states of a Fibonacci register              about p N; see `LFSR`    all elements
``LFSR(width=16, spread=True)``      the same, each started elsewhere            about p N                each element
``Sobol(dimension=1)``               a dimension of the Sobol sequence           nearest integer to p N   all elements
``Sobol(1, seed=0)``                 the same, with a digital shift              nearest integer to p N   all elements
``Halton(base=3)``                   radical inverses in a prime base            nearest integer to p N   all elements
``VanDerCorput()``                   radical inverses in base 2                  nearest integer to p N   all elements
``Thermometer()``                    1/2N, 3/2N, ...: unary code                 nearest integer to p N   all elements
===================================  ==========================================  =======================  =============

`SNG` says what the rounding means, how hardware does it, what a prefix of a stream is, and how to write a generator.

Generators are values, and equal ones correlate, however they were made. That also holds for the default of `encode`,
`Bernoulli(seed=0)`: give the operands of a gate different seeds.

>>> from scdask import Sobol, encode, scc
>>> Sobol(1) == Sobol(dimension=1)
True
>>> a, b, c = (encode(0.5, 256, sng=sng) for sng in (Sobol(1), Sobol(1), Sobol(2)))
>>> float(scc(a, b)), float(scc(a, c))
(1.0, 0.0)

Of generators that differ, some correlate all the same: `product_error` measures a pair, `independent(n)` gives n that
do not, and a gate of streams whose generators are known to correlate warns (`CorrelationWarning`): AND, XNOR and the
select of MUX if they are equal, any gate if they were measured to be worse than random, as far as streams still have
their generator (`Bitstream.sng`). So do circuits of `scdask.arithmetic` that need another correlation and do not have
it. Where it is meant, `warnings.simplefilter("ignore", scdask.CorrelationWarning)` says so.

The error of products at 256 bits (RMSE of AND, where random bits have 0.024, and equal generators 0.102):

==================  ============  ============  ==================  =============  ==========
..                  ``Sobol(2)``  ``Sobol(5)``  ``VanDerCorput()``  ``Halton(3)``  ``LFSR()``
==================  ============  ============  ==================  =============  ==========
``Sobol(1)``        0.001         0.001         0.043               0.003          0.008
``Sobol(2)``        0.102         0.003         0.081               0.019          0.010
``Sobol(40)``       0.001         0.041         0.002               0.011          0.009
``VanDerCorput()``  0.081         0.002         0.102               0.002          0.009
``Halton(3)``       0.019         0.009         0.002               0.102          0.007
==================  ============  ============  ==================  =============  ==========
"""

from .base import SNG
from .bernoulli import Bernoulli
from .independence import independent, product_error
from .lfsr import LFSR
from .low_discrepancy import Halton, Sobol, Thermometer, VanDerCorput

__all__ = [
    "LFSR",
    "SNG",
    "Bernoulli",
    "Halton",
    "Sobol",
    "Thermometer",
    "VanDerCorput",
    "independent",
    "product_error",
]

SHARED = (Sobol(), LFSR(), Halton(), VanDerCorput())  # one of each kind, for benchmarks

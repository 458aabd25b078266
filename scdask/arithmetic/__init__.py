"""Arithmetic of bitstreams: circuits that add, multiply, divide, take roots, bend, compare, sort, make polynomials.

A circuit gives what its name says only of streams that correlate as it needs: SCC = 0 are independent streams, of
generators that differ, and SCC = +1 are streams of one generator with one sequence for all elements, which overlap as
much as they can: ``Sobol(1)`` or ``Bernoulli(shared=True)``, not the default `Bernoulli`, which gives each element
numbers of its own. Most circuits give a `CorrelationWarning` where the generators are known and are the wrong ones.

The table has the SCC that each needs, that of its result, and the error to expect at N = 256.

====================  ===============================  ==========================  =====================  ============
function              circuit                          SCC that it needs           SCC that it gives      RMSE
====================  ===============================  ==========================  =====================  ============
`scaled_add`          count with a carry (uSADD)       any                         unknown                1 / N
`scaled_add`, select  tree of MUX                      0 with the selects          unknown                0.03 random
`add`                 count that saturates (uNSADD)    any                         unknown                0.7 n / N
`or_add`              OR                               -1                          unknown                exact
`multiply`            AND; bipolar: XNOR               0                           unknown                0.001 Sobol
`umul`                generator that waits for ones    any                         +1 with x              0.001 Sobol
`divide`              CORDIV: a flip-flop that holds   +1                          unknown                0.035 Sobol
`divide`, "iscbdiv"   the same behind a synchronizer   any                         unknown                0.026 Sobol
`jk_divide`           JK flip-flop: a / (a + b)        any, random bits            unknown                0.03 random
`sqrt`                counter, shift register          one stream                  unknown                0.07 Sobol
`stanh`               saturating counter               one stream, random bits     unknown                0.13 random
`sigmoid`             that of `stanh`                  one stream, random bits     unknown                0.06 random
`sexp`                saturating counter               one stream, random bits     unknown                0.08 random
`abs`                 saturating counter               one stream                  +1 or -1 with x        0.05 Sobol
`relu`                saturating counter               one stream                  +1 with x, if x > 0    0.04 random
`linear_gain`         saturating counter               0, a random gain            unknown                0.10 random
`maximum`             OR                               +1                          +1 with both           exact
`minimum`             AND                              +1                          +1 with both           exact
`subtract`, unipolar  XOR                              +1                          unknown                exact
`subtract`, bipolar   MUX with NOT                     0 with the select           unknown                0.06 random
`sort`, `median`      network of AND and OR            +1                          +1                     exact
`polynomial`          ReSC: a count picks a stream     0 of all                    unknown                0.03 random
====================  ===============================  ==========================  =====================  ============

"Sobol" is ``Sobol(1)``, for all streams where SCC = +1. The error of `add` is that of n streams of ``Sobol(1)``, of
which n - 1 ones or so are left in its accumulator. Those of `divide`, for a <= b, and of `sqrt` do not fall with N if
the streams are of one Sobol sequence, and do if they are of one generator of random bits.

"Random bits" are those of `Bernoulli`: a saturating counter needs bits that are independent in time. In streams of
low-discrepancy sequences ones and zeros take turns, and keep it where it is. Those of an `LFSR` are not random in this
sense: a state of the register has all bits but one of the state before, so that ``stanh(x, 8)`` is off by 0.13 and
`jk_divide` by 0.024 however long the streams are, where random bits are off by 0.01 and 0.002 at N = 65536.

The adders take any number of streams, along an axis, in any chunks, those of the axis included.

What has memory is a machine: `cordiv_machine`, `stanh_machine` and so on give it, to look at, to run from a state with
`scdask.run`, or to write as Verilog.

>>> import scdask as sc
>>> from scdask import arithmetic
>>> a, b = (sc.encode(p, 256, sng=sc.Sobol(1)) for p in (0.25, 0.5))
>>> float(arithmetic.divide(a, b).decode()), float(arithmetic.maximum(a, b).decode())
(0.5, 0.5)
"""

from ..bitstream import multiply
from .adders import add, or_add, scaled_add
from .dividers import (
    cordiv_machine,
    divide,
    iscbdiv_machine,
    jk_divide,
    jk_machine,
    magnitude_machine,
    sqrt,
    sqrt_machine,
)
from .extrema import maximum, minimum, subtract
from .functions import (
    abs,  # noqa: A004
    abs_machine,
    linear_gain,
    linear_gain_machine,
    relu,
    relu_machine,
    sexp,
    sexp_machine,
    sigmoid,
    stanh,
    stanh_machine,
)
from .multipliers import umul
from .polynomials import bernstein, encode_polynomial, polynomial
from .sorting import median, sort

__all__ = [
    "abs",
    "abs_machine",
    "add",
    "bernstein",
    "cordiv_machine",
    "divide",
    "encode_polynomial",
    "iscbdiv_machine",
    "jk_divide",
    "jk_machine",
    "linear_gain",
    "linear_gain_machine",
    "magnitude_machine",
    "maximum",
    "median",
    "minimum",
    "multiply",
    "or_add",
    "polynomial",
    "relu",
    "relu_machine",
    "scaled_add",
    "sexp",
    "sexp_machine",
    "sigmoid",
    "sort",
    "sqrt",
    "sqrt_machine",
    "stanh",
    "stanh_machine",
    "subtract",
    "umul",
]

"""The error of circuits: of any function of `scdask.arithmetic` that takes streams."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ... import arithmetic
from ...encoding import encode
from ...faults import flip
from ...generators.independence import correlation_meant
from ...manipulation import stack
from .base import LENGTH, RATE, SEED, SEEDS, Job, Known, apart, asked, check_lengths, choice, together, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ...bitstream import Bitstream
    from ...core.words import Polarity
    from ...generators import SNG

    Numbers = NDArray[np.float64]

SNGS = ("sobol", "halton", "lfsr", "bernoulli", "thermometer")
STATES, GAIN, DEGREE = 8, 2, 6  # of `stanh` and its like, of `sexp` and `linear_gain`, and of `polynomial`


@dataclass
class Bench:
    """Where the streams of a circuit come from."""

    polarity: Polarity
    sng: str
    length: int
    seed: int
    fault: float
    made: int = 0

    def generator(self) -> SNG:
        """One that is independent of all before, with one sequence for all elements."""
        self.made += 1
        return together(self.sng, self.seed, self.made - 1)

    def apart(self, *numbers: Any, polarity: Polarity | None = None) -> list[Bitstream]:
        """Streams that are independent of each other, and of all before."""
        return [self._encoded(p, apart(self.sng, self.seed, self.made), polarity) for p in numbers]

    def together(self, *numbers: Any) -> list[Bitstream]:
        """Streams that overlap as much as they can."""
        sng = together(self.sng, self.seed)
        return [self._encoded(p, sng) for p in numbers]

    def _encoded(self, numbers: Any, sng: SNG, polarity: Polarity | None = None) -> Bitstream:
        """Streams with their faults."""
        stream = encode(numbers, self.length, polarity=polarity or self.polarity, sng=sng)
        self.made += 1
        return flip(stream, self.fault, SEEDS * self.seed + self.made) if self.fault else stream


class Circuit(NamedTuple):
    """A circuit, the operands that it is tried with, and what is right.

    Parameters
    ----------
    function : str
        Its name in `scdask.arithmetic`.
    operands : int
        How many numbers it takes.
    exact : callable
        What it computes of the numbers (operands, cells), in NumPy.
    result : callable
        Its streams: of a `Bench`, which encodes as the circuit needs it, and the numbers.
    polarity : {"unipolar", "bipolar"}
        Of the operands, which are uniform in the range of it.
    within : callable, optional
        Brings them to where the result is in range.
    """

    function: str
    operands: int
    exact: Callable[..., Any]
    result: Callable[..., Bitstream]
    polarity: Polarity = "unipolar"
    within: Callable[[Numbers], Numbers] | None = None


def _apart(name: str, **arguments: Any) -> Callable[..., Bitstream]:
    """The circuit of independent streams; also where they may correlate as they like."""
    return lambda bench, *numbers: getattr(arithmetic, name)(*bench.apart(*numbers), **arguments)


def _together(name: str) -> Callable[..., Bitstream]:
    """The circuit of streams at SCC = +1."""
    return lambda bench, *numbers: getattr(arithmetic, name)(*bench.together(*numbers))


def _mean(*x: Numbers) -> Numbers:
    return np.mean(x, axis=0)  # type: ignore[no-any-return]


def _share(a: Numbers, b: Numbers) -> Numbers:
    return a / b


def _ascending(numbers: Numbers) -> Numbers:
    return np.sort(numbers, axis=0)


def _or_add(bench: Bench, p: Numbers, q: Numbers) -> Bitstream:
    """OR at SCC = -1, which is that of a stream with NOT of another one."""
    a, b = bench.together(p, 1 - q)
    return arithmetic.or_add(stack([a, ~b]), axis=0)


def _subtract(bench: Bench, a: Numbers, b: Numbers) -> Bitstream:
    first, second = bench.apart(a, b)
    return arithmetic.subtract(first, second, *bench.apart(0.5, polarity="unipolar"))


def _linear_gain(bench: Bench, x: Numbers) -> Bitstream:
    gains = np.full_like(x, (GAIN - 1) / (GAIN + 1))
    return arithmetic.linear_gain(bench.apart(x)[0], bench.apart(gains, polarity="unipolar")[0])


@cache
def _coefficients() -> Numbers:
    """Those of gamma correction."""
    return arithmetic.bernstein(lambda x: x**0.45, DEGREE)


def _bernstein(x: Numbers) -> Numbers:
    from scipy.interpolate import BPoly

    return BPoly(_coefficients()[:, None], [0, 1])(x)  # type: ignore[no-any-return]


def _polynomial(bench: Bench, x: Numbers) -> Bitstream:
    return arithmetic.polynomial(bench.apart(*[x] * DEGREE), bench.apart(_coefficients())[0][:, None])


CIRCUITS = {
    "abs": Circuit("abs", 1, abs, _apart("abs", states=STATES), "bipolar"),
    "add": Circuit(
        "add", 3, lambda *x: sum(x), lambda bench, *x: arithmetic.add(stack(bench.apart(*x)), 0), within=lambda x: x / 3
    ),
    "divide": Circuit("divide", 2, _share, _together("divide"), within=_ascending),
    "divide-iscbdiv": Circuit("divide", 2, _share, _apart("divide", circuit="iscbdiv"), within=_ascending),
    "jk_divide": Circuit("jk_divide", 2, lambda a, b: a / (a + b), _apart("jk_divide")),
    "linear_gain": Circuit("linear_gain", 1, lambda x: (GAIN * x).clip(-1, 1), _linear_gain, "bipolar"),
    "maximum": Circuit("maximum", 2, np.maximum, _together("maximum")),
    "median": Circuit(
        "median",
        9,
        lambda *x: np.median(x, axis=0),
        lambda bench, *x: arithmetic.median(stack(bench.together(*x)), 0),
    ),
    "minimum": Circuit("minimum", 2, np.minimum, _together("minimum")),
    "multiply": Circuit("multiply", 2, np.multiply, _apart("multiply")),
    "multiply-bipolar": Circuit("multiply", 2, np.multiply, _apart("multiply"), "bipolar"),
    "or_add": Circuit("or_add", 2, np.add, _or_add, within=lambda x: x / 2),
    "polynomial": Circuit("polynomial", 1, _bernstein, _polynomial),
    "relu": Circuit("relu", 1, lambda x: x.clip(0), _apart("relu", states=2 * STATES), "bipolar"),
    "scaled_add": Circuit("scaled_add", 4, _mean, lambda bench, *x: arithmetic.scaled_add(stack(bench.apart(*x)), 0)),
    "scaled_add-select": Circuit(
        "scaled_add",
        4,
        _mean,
        lambda bench, *x: arithmetic.scaled_add(stack(bench.apart(*x)), 0, bench.generator()),
    ),
    "sexp": Circuit(
        "sexp",
        1,
        lambda x: np.exp(-2 * GAIN * x),
        _apart("sexp", states=2 * STATES, gain=GAIN),
        "bipolar",
        within=abs,
    ),
    "sigmoid": Circuit(
        "sigmoid", 1, lambda x: 1 / (1 + np.exp(-STATES * x)), _apart("sigmoid", states=STATES), "bipolar"
    ),
    "sort": Circuit(
        "sort",
        5,
        lambda *x: np.sort(x, axis=0),
        lambda bench, *x: arithmetic.sort(stack(bench.together(*x)), 0),
    ),
    "sqrt": Circuit("sqrt", 1, np.sqrt, _apart("sqrt")),
    "sqrt-jk": Circuit("sqrt", 1, np.sqrt, _apart("sqrt", circuit="jk")),
    "stanh": Circuit("stanh", 1, lambda x: np.tanh(STATES * x / 2), _apart("stanh", states=STATES), "bipolar"),
    "subtract": Circuit("subtract", 2, lambda a, b: abs(a - b), _together("subtract")),
    "subtract-bipolar": Circuit("subtract", 2, lambda a, b: (a - b) / 2, _subtract, "bipolar"),
    "umul": Circuit(
        "umul", 2, np.multiply, lambda bench, p, q: arithmetic.umul(bench.apart(p)[0], q, bench.generator())
    ),
}

NO_CIRCUITS = {
    "bernstein": "finds the coefficients of a polynomial",
    "encode_polynomial": "encodes numbers for `polynomial`",
} | {name: "is a table of states" for name in arithmetic.__all__ if name.endswith("_machine")}
"""What of `scdask.arithmetic` takes no streams."""

OPTIONS = {"operands": Known(whole(1, 2**24), 1000)}
AXES = {
    "circuit": Known(choice(CIRCUITS), ["divide"]),
    "sng": Known(choice(SNGS), ["sobol", "lfsr", "bernoulli"]),
    "length": LENGTH,
    "seed": SEED,
    "fault": Known(RATE, [0.0]),
}


def make(options: Mapping[str, Any], over: Mapping[str, Sequence[Any]]) -> Job:
    """The job of circuits: option operands, how many of each are drawn; axes circuit, sng, length, seed and fault."""
    chosen, filled = asked("circuit", options, over, OPTIONS, AXES)
    check_lengths(filled, lambda sng: [apart(sng, 0, number) for number in range(2)])
    about = {"job": "circuit", **chosen}
    units = {"length": "bits", "fault": "flips a bit"}
    return Job(errors_of_circuit, chosen["operands"], filled, about, "rmse", None, None, units)


def errors_of_circuit(
    operands: int, *, circuit: str, sng: str, length: int, seed: int, fault: float
) -> dict[str, float]:
    """The errors of a circuit, over operands that are uniform where its result is in range.

    Parameters
    ----------
    operands : int
        How many of each operand are drawn.
    circuit : str
        A function of `scdask.arithmetic`, or a variant of it: see `CIRCUITS`. Streams correlate as it needs.
    sng : str
        Their generators. Saturating counters, as in `stanh`, need the random bits of "bernoulli".
    length : int
        Bits of a stream.
    seed : int
        Of the numbers, the generators and the faults.
    fault : float
        The rate at which bits of all streams flip that go into the circuit.

    Returns
    -------
    dict of float
        rmse, the root mean square error; bias, the mean error; and worst, the largest size of an error.
    """
    row = CIRCUITS[circuit]
    low = 0.0 if row.polarity == "unipolar" else -1.0
    numbers = np.random.default_rng(seed).uniform(low, 1, (row.operands, operands))
    if row.within is not None:
        numbers = row.within(numbers)
    with correlation_meant():
        result = row.result(Bench(row.polarity, sng, length, seed, fault), *numbers)
    errors = result.decode() - row.exact(*numbers)
    return {"rmse": float(np.sqrt(np.mean(errors**2))), "bias": float(errors.mean()), "worst": float(abs(errors).max())}

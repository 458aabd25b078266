"""The error of gates: of products and sums of random numbers by streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...bitstream import mux, xnor
from ...encoding import encode
from ...faults import flip
from ...generators.independence import correlation_meant
from .base import LENGTH, RATE, SEED, SEEDS, Job, Known, apart, asked, check_lengths, choice, together, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from ...bitstream import Bitstream
    from ...core.words import Polarity

SNGS = ("sobol", "halton", "lfsr", "bernoulli", "thermometer", "shared")
BITS = 8  # of the binary numbers that streams are compared with


class Gate(NamedTuple):
    """A gate of two streams, and perhaps of a select: what it computes, and how."""

    polarity: Polarity
    exact: Callable[[Any, Any], Any]
    of: Callable[..., Bitstream]
    selects: bool = False


GATES = {
    "and": Gate("unipolar", lambda p, q: p * q, lambda a, b: a & b),
    "or": Gate("unipolar", lambda p, q: p + q - p * q, lambda a, b: a | b),
    "xor": Gate("unipolar", lambda p, q: p + q - 2 * p * q, lambda a, b: a ^ b),
    "xnor": Gate("bipolar", lambda v, w: v * w, xnor),
    "mux": Gate("unipolar", lambda p, q: (p + q) / 2, lambda a, b, select: mux(select, a, b), selects=True),
}

OPTIONS = {"pairs": Known(whole(1, 2**24), 1000)}
AXES = {
    "gate": Known(choice(GATES), ["and"]),
    "sng": Known(choice(SNGS), ["sobol", "lfsr", "bernoulli"]),
    "length": LENGTH,
    "seed": SEED,
    "fault": Known(RATE, [0.0]),
}


def make(options: Mapping[str, Any], over: Mapping[str, Sequence[Any]]) -> Job:
    """The job of gates: option pairs, axes gate, sng, length, seed and fault."""
    chosen, filled = asked("product", options, over, OPTIONS, AXES)
    check_lengths(filled, lambda sng: [apart(sng, 0, number) for number in range(2)])
    about = {"job": "product", **chosen}
    units = {"length": "bits", "fault": "flips a bit"}
    return Job(errors_of_gate, chosen["pairs"], filled, about, "rmse", None, cost, units)


def cost(setting: Mapping[str, Any]) -> float:
    """The time of a cell, about: encoding of random bits counts."""
    random = (setting["sng"] == "bernoulli") + (setting["fault"] > 0)
    return float(1 + setting["length"] * (1 + 2 * random) / 1000)


def errors_of_gate(pairs: int, *, gate: str, sng: str, length: int, seed: int, fault: float) -> dict[str, float]:
    """The errors of a gate over pairs of numbers that are uniform in the range of its streams.

    Parameters
    ----------
    pairs : int
    gate : {"and", "or", "xor", "xnor", "mux"}
        XNOR multiplies bipolar streams. The select of MUX is a stream of 1/2.
    sng : str
        Generators that are independent of each other, but for "shared".
    length : int
        Bits of a stream.
    seed : int
        Of the numbers, the generators and the faults.
    fault : float
        The rate at which bits of both operands flip.

    Returns
    -------
    dict of float
        rmse, the root mean square error; bias, the mean error; theory, the `expected_error` of random bits; and
        binary_rmse, that of operands in binary numbers of 8 bits, which flip at the same rate.
    """
    row = GATES[gate]
    low = 0.0 if row.polarity == "unipolar" else -1.0
    rng = np.random.default_rng(seed)
    numbers = rng.uniform(low, 1, (2, pairs))
    right = row.exact(*numbers)
    with correlation_meant():
        streams = [encode(v, length, polarity=row.polarity, sng=apart(sng, seed, k)) for k, v in enumerate(numbers)]
        if fault:
            streams = [flip(stream, fault, SEEDS * seed + k) for k, stream in enumerate(streams)]
        if row.selects:
            streams.append(encode(0.5, length, sng=together(sng, seed, 2)))
        errors = row.of(*streams).decode() - right
    binary = row.exact(*_in_binary(numbers, low, fault, rng)) - right
    return {
        "rmse": _root_mean_square(errors),
        "bias": float(errors.mean()),
        "theory": expected_error(gate, numbers, length, fault),
        "binary_rmse": _root_mean_square(binary),
    }


def expected_error(gate: str, numbers: NDArray[np.float64], length: int, fault: float) -> float:
    """The root mean square error that random bits have of a gate, over pairs of numbers (2, pairs).

    The bits of the gate are independent trials, so that a result r has the variance r (1 - r) / N if it is unipolar,
    and (1 - r**2) / N if it is bipolar (Gaines: Stochastic computing systems. Advances in Information Systems Science
    2, 1969). With a rate f of faults an operand p is p (1 - 2 f) + f on average, and a bipolar one is v (1 - 2 f): r is
    the result of these, and what it is off by is squared and added to the variance.
    """
    row = GATES[gate]
    faulty = numbers * (1 - 2 * fault)
    if row.polarity == "unipolar":
        faulty += fault
    right, r = row.exact(*numbers), row.exact(*faulty)
    variance = (r * (1 - r) if row.polarity == "unipolar" else 1 - r**2) / length
    return float(np.sqrt(np.mean((r - right) ** 2 + variance)))


def _in_binary(numbers: NDArray[np.float64], low: float, fault: float, rng: np.random.Generator) -> NDArray[Any]:
    """The nearest numbers of 8 bits, 0 to 255 from the lowest on, whose bits flip."""
    steps = 2**BITS / (1 - low)
    codes = np.minimum(np.rint((numbers - low) * steps), 2**BITS - 1).astype(np.uint8)
    if fault:
        codes ^= np.packbits(rng.random((*numbers.shape, BITS), np.float32) < fault, axis=-1)[..., 0]
    return codes / steps + low  # type: ignore[no-any-return]


def _root_mean_square(errors: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(errors**2)))

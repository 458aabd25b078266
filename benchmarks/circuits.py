"""Known figures of circuits, row by row with what ours give: published ones, exact ones, and those of a reference.

The reference are loops over bits that were written apart from this package, with SciPy's Sobol sequences. A ratio is
that of ours to the known figure. Where streams of random bits were averaged, their distance in standard errors follows.
"""

from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.interpolate import BPoly
from scipy.stats import qmc

import scdask as sc
from scdask import Bernoulli, Bitstream, Sobol, Thermometer, arithmetic, correlation, faults, vector_ops

BYTES, SIGNED, STEPS = np.arange(257) / 256, np.arange(-128, 129) / 128, np.arange(33) / 32
DIMENSIONS = range(1, 101)
# What the published errors of dividers and roots were measured with: PyTorch's sequences had no point 0 then.
POINTS = np.floor(qmc.Sobol(102, scramble=False, bits=32).random(512)[1:257].T * 256) / 256
PUBLISHED, EXACT, REFERENCE = "published", "exact", "reference"


def rmse(errors):
    return float(np.sqrt(np.mean(np.square(errors))))


def compared(p, numbers, polarity="unipolar"):
    """Streams of p, bit t of which is 1 where p is above number t."""
    chances = p if polarity == "unipolar" else (1 + p) / 2
    return Bitstream(vector_ops.pack_bitstream(chances[:, None] > numbers), len(numbers), polarity)


def later_points(p, dimension, polarity="unipolar"):
    return compared(p, POINTS[dimension - 1], polarity)


def all_points(p, dimension, polarity="unipolar"):
    return sc.encode(p, 256, sng=Sobol(dimension), polarity=polarity)


def registers(seed):
    """The numbers of three registers of 8 bits, with taps and first states that are drawn."""
    rng = np.random.default_rng(seed)
    taps = [(8, 6, 5, 4), (8, 6, 5, 3), (8, 7, 6, 1), (8, 5, 3, 1), (8, 7, 2, 1), (8, 6, 5, 2)]
    drawn = [sc.LFSR(8, taps[rng.integers(len(taps))], int(rng.integers(1, 256)), "right") for _ in range(3)]
    return [sng.numbers(256, 0, 256) for sng in drawn]


def regenerated(p, numbers, shared):
    """Streams of p behind a counter of their ones, encoded again with numbers that both operands share."""
    bits, counts, out = p[:, None] > numbers, np.full(len(p), 128), []
    for t in range(256):
        counts = np.clip(counts + np.where(bits[:, t], 1, -1), 0, 255)
        out.append(counts > 256 * shared[t])
    return Bitstream(vector_ops.pack_bitstream(np.array(out, np.uint8).T), 256)


def quotient_error(pairs, p, circuit):
    """The RMSE of all quotients of p, cut at 1, over pairs of functions that make the streams of a and b."""
    divisors = p[p != 0]
    exact = np.clip(p[:, None] / divisors, -1, 1)
    return rmse([arithmetic.divide(a(p)[:, None], b(divisors), circuit).decode() - exact for a, b in pairs])


def root_error(make, p, polarity):
    return rmse([arithmetic.sqrt(make(p, d, polarity)).decode() - np.sqrt(p) for d in DIMENSIONS])


def steady_state(machine, p):
    """The share of ones in the long run of a machine that reads random bits of probability p."""
    following, output = np.array(machine.next_state), np.array(machine.output)
    chances = np.array([1 - p, p])
    steps = np.zeros((machine.states, machine.states))
    for state in range(machine.states):
        np.add.at(steps[state], following[state], chances)
    equations = np.vstack([steps.T - np.eye(machine.states), np.ones(machine.states)])
    share = np.linalg.lstsq(equations, np.append(np.zeros(machine.states), 1), rcond=None)[0]
    return share @ output @ chances


def in_the_long_run(function, x, expected):
    """The mean over 64 streams of 2**16 random bits, without the first 1,024, and its distance in standard errors."""
    streams = sc.encode(np.full(64, x), 2**16, polarity="bipolar", sng=Bernoulli(1))
    found = function(streams).bits[1024:].decode()
    return found.mean(), (found.mean() - expected) / (found.std(ddof=1) / 8)


def adders():
    """Yield rows of the circuit, what is measured, where its known value is from, that, and ours."""
    up = Sobol(1, rounding="up")
    p = np.random.default_rng(0).random(8)
    mean = float(arithmetic.scaled_add(sc.encode(p, 256, sng=up)).decode())
    yield "uSADD", "mean of 8 random numbers", REFERENCE, 0.5039, mean
    yield "uSADD", "the same", EXACT, p.mean(), mean
    total = arithmetic.add(sc.encode([0.1, 0.15, 0.2], 256, sng=up))
    yield "uNSADD", ".1 + .15 + .2", REFERENCE, 0.4492, float(total.decode())
    p, q = np.meshgrid(STEPS, STEPS, indexing="ij")
    a, b = (sc.encode(each, 256, sng=Sobol(1)) for each in (p, q))
    for name, other, source, known, exact in (
        ("opposed", ~sc.encode(1 - q, 256, sng=Sobol(1)), EXACT, 0, np.minimum(p + q, 1)),
        ("Sobol 1 and 2", sc.encode(q, 256, sng=Sobol(2)), REFERENCE, 0.00125, p + q - p * q),
    ):
        errors = arithmetic.or_add(sc.stack([a, other]), axis=0).decode() - exact
        yield "OR add", f"RMSE, {name}", source, known, rmse(errors)
    yield "subtract, XOR", "RMSE, Sobol 1 and 1", EXACT, 0, rmse(arithmetic.subtract(a, b).decode() - abs(p - q))


def multipliers():
    """The same of products."""
    a, b = (sc.encode(STEPS, 256, sng=Sobol(d)) for d in (1, 2))
    exact = STEPS[:, None] * STEPS
    errors = arithmetic.umul(a[:, None], STEPS, sng=Sobol(1)).decode() - exact
    yield "uMUL", "RMSE, Sobol 1 and 1", REFERENCE, 0.00125, rmse(errors)
    yield "AND", "RMSE, Sobol 1 and 2", REFERENCE, 0.00125, rmse((a[:, None] & b).decode() - exact)


def dividers():
    """The same of quotients and roots."""
    p = np.arange(17) / 16
    a, b = (sc.encode(each, 256, sng=Sobol(1)) for each in (p, p[1:]))
    errors = (arithmetic.divide(a[:, None], b).decode() - p[:, None] / p[1:])[p[:, None] <= p[1:]]
    yield "CORDIV", "RMSE, Sobol 1 and 1, a <= b", REFERENCE, 0.0339, rmse(errors)
    yield "CORDIV", "largest error of these", REFERENCE, 0.135, np.abs(errors).max()

    def behind_counters(first, second, third):
        return [partial(regenerated, numbers=numbers, shared=third) for numbers in (first, second)]

    three = [behind_counters(*POINTS[d - 1 : d + 2]) for d in DIMENSIONS]
    yield "CORDIV behind counters", "RMSE, Sobol", PUBLISHED, 0.0721, quotient_error(three, BYTES, "cordiv")
    three = [behind_counters(*registers(seed)) for seed in DIMENSIONS]
    yield "CORDIV behind counters", "RMSE, LFSR", PUBLISHED, 0.0921, quotient_error(three, BYTES, "cordiv")

    for points, make in (("their", later_points), ("all", all_points)):
        pairs = [[partial(make, dimension=d + i) for i in (0, 1)] for d in DIMENSIONS]
        error = quotient_error(pairs, BYTES, "iscbdiv")
        yield "ISCBDIV", f"RMSE, Sobol, {points} points", PUBLISHED, 0.0491, error
    pairs = [[partial(compared, numbers=numbers) for numbers in registers(seed)[:2]] for seed in DIMENSIONS]
    yield "ISCBDIV", "RMSE, LFSR", PUBLISHED, 0.1079, quotient_error(pairs, BYTES, "iscbdiv")
    for points, make in (("their", later_points), ("all", all_points)):
        pairs = [[partial(make, dimension=d + i, polarity="bipolar") for i in (0, 1)] for d in DIMENSIONS]
        error = quotient_error(pairs, SIGNED, "iscbdiv")
        yield "ISCBDIV, bipolar", f"RMSE, Sobol, {points} points", PUBLISHED, 0.0850, error

    for name, polarity, p, known in (
        ("square root", "unipolar", BYTES, 0.0332),
        ("square root, bipolar", "bipolar", np.arange(129) / 128, 0.0442),
    ):
        for points, make in (("their", later_points), ("all", all_points)):
            yield name, f"RMSE, Sobol, {points} points", PUBLISHED, known, root_error(make, p, polarity)


def counters():
    """The same of saturating counters."""
    for states, x in ((4, 0.5), (8, 0.25)):
        r = ((1 + x) / (1 - x)) ** (states / 2)
        exact = (r - 1) / (r + 1)
        ours = in_the_long_run(partial(arithmetic.stanh, states=states), x, exact)
        yield f"stanh, {states} states", f"x = {x}, random bits", EXACT, exact, *ours
    x = np.linspace(-1, 1, 2001)[1:-1]
    for states, distance in ((8, 0.01306), (16, 0.00323), (32, 0.00080)):
        machine = arithmetic.stanh_machine(states)
        found = [2 * steady_state(machine, (1 + v) / 2) - 1 for v in x]
        furthest = np.abs(found - np.tanh(states * x / 2)).max()
        yield f"stanh, {states} states", "largest distance to tanh", EXACT, distance, furthest
    for x, known in ((0.25, 0.358), (0.5, 0.111)):
        exact = steady_state(arithmetic.sexp_machine(16, 2), (1 + x) / 2)
        mean, distance = in_the_long_run(arithmetic.sexp, x, exact)
        yield "sexp, 16 states, G = 2", f"x = {x}, random bits", EXACT, exact, mean, distance
        yield "sexp, 16 states, G = 2", "the same", REFERENCE, known, mean


def polynomials():
    """The same of x**.45, degree 6."""
    b = arithmetic.bernstein(lambda x: x**0.45, degree=6)
    known = [0.0955, 0.7207, 0.3476, 0.9988, 0.7017, 0.9695, 0.9939]
    gamma = BPoly(b[:, None], [0, 1])
    yield "ReSC, x**.45", "largest distance of a coefficient", PUBLISHED, 0, np.abs(b - known).max()
    yield "ReSC, x**.45", "mean distance to x**.45", REFERENCE, 0.00283, np.abs(gamma(BYTES) - BYTES**0.45).mean()
    for x, exact in ((0.1, 0.3558), (0.5, 0.7335), (0.9, 0.9558)):
        sngs = [[Bernoulli(7 * run + i) for i in range(7)] for run in range(64)]
        found = np.array([float(arithmetic.encode_polynomial(x, b, 2**16, sngs=each).decode()) for each in sngs])
        distance = (found.mean() - gamma(x)) / (found.std(ddof=1) / 8)
        yield "ReSC, x**.45", f"x = {x}, random bits", EXACT, exact, found.mean(), distance


def correlations():
    """The same of synchronizers, over 64 pairs where one is known, and of a median."""
    a, b = (sc.encode(np.full(64, p), 4096, sng=Bernoulli(seed)) for seed, p in enumerate((0.6, 0.45)))
    for depth, known in ((0, -0.03), (1, 0.847), (2, 0.962), (4, 1.0)):
        x, y = correlation.synchronize(a, b, depth) if depth else (a, b)
        found = sc.scc(x, y)
        distance = (found.mean() - known) / found.std(ddof=1)
        name = f"synchronizer, depth {depth}" if depth else "no synchronizer"
        yield name, "SCC, random .6 and .45", REFERENCE, known, found.mean(), distance

    rng = np.random.default_rng(5)
    image = ndimage.gaussian_filter(rng.normal(size=(256, 256)), 4)
    image = np.round(255 * (image - image.min()) / np.ptp(image)).astype(int)
    image[rng.random(image.shape) < 0.1] = 255
    for name, sng in (("thermometer", Thermometer()), ("Sobol", Sobol(1))):
        pixels = sc.encode(image / 256, 256, sng=sng)
        window = sc.stack([pixels[i : i + 254, j : j + 254] for i in range(3) for j in range(3)], axis=-1)
        wrong = arithmetic.median(window).popcount() != ndimage.median_filter(image, 3)[1:-1, 1:-1]
        yield "median of 3 x 3", f"wrong pixels of 64,516, {name}", EXACT, 0, int(wrong.sum())


def flips():
    """The same of bits that flip with the probability .01."""
    rate, length = 0.01, 1024
    p = np.array([0.0, 0.25, 0.5])
    x = sc.encode(np.tile(p, (20_000, 1)), length)
    errors = faults.flip(x, rate, seed=1).decode() - x.decode()
    for i, v in enumerate(p):
        exact = np.sqrt(rate**2 * (1 - 2 * v) ** 2 + rate * (1 - rate) / length)
        yield "flips, 1 %, N = 1024", f"RMSE of {v:g}", EXACT, exact, rmse(errors[:, i])
    x = sc.encode(np.full(64, 0.8), 2**16, sng=Bernoulli(1))
    yield "flips, 10 %", "of .8", EXACT, 0.74, faults.flip(x, 0.1, seed=2).decode().mean()
    numbers = np.random.default_rng(0).integers(0, 256, 10**6)
    flipped = sc.encode(np.full((len(numbers), 8), rate), 1, sng=Bernoulli(3)).unpack()[..., 0]
    errors = (numbers ^ (flipped << np.arange(8)).sum(1)) - numbers
    yield "flips, 1 %, binary", "RMSE of 8-bit numbers", REFERENCE, 0.058, rmse(errors / 256)


def main():
    """Print the table."""
    table = Table("circuit", "figure", "known", "from", "ours", "ratio", title="scdask circuits, N = 256 unless said")
    for part in (adders, multipliers, dividers, counters, polynomials, correlations, flips):
        for circuit, figure, source, known, ours, *distance in part():
            sigmas = "".join(f" ({each:+.1f} sigma)" for each in distance)
            ratio = f"{ours / known:.3f}" if known > 0 else ""
            table.add_row(circuit, figure, f"{known:.4g}", source, f"{ours:.4g}", ratio + sigmas)
        table.add_section()
    Console(width=130).print(table)


if __name__ == "__main__":
    main()

"""Circuits of scdask.arithmetic, against loops over bits, exact steady states, published figures and NumPy."""

import math
import warnings
from collections import deque
from dataclasses import dataclass
from itertools import product

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import BPoly
from scipy.stats import qmc

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, Thermometer, arithmetic, vector_ops
from scdask.arithmetic.sorting import median_network, sorting_network

BYTES = np.arange(257) / 256


def of_bits(bits, polarity="unipolar"):
    bits = np.asarray(bits, np.uint8)
    return Bitstream(vector_ops.pack_bitstream(bits), bits.shape[-1], polarity)


def rmse(errors):
    return np.sqrt(np.mean(np.square(errors)))


# Bits, against loops over them


def cordiv(a, b):
    held, bits = 0, []
    for x, y in zip(a, b, strict=True):
        held = x if y else held
        bits.append(held)
    return bits


def iscbdiv(a, b):
    saved, history, bits = 0, deque([0, 1]), []
    for t, (x, y) in enumerate(zip(a, b, strict=True)):
        if x and not y and saved < 3:
            saved, x = saved + 1, 0
        elif y and not x and saved > 0:
            saved, x = saved - 1, 1
        bits.append(x if y else history[1 - t % 2])
        if y:
            history.append(x)
            history.popleft()
    return bits


def jk(j, k):
    held, bits = 0, []
    for x, y in zip(j, k, strict=True):
        held = {(0, 0): held, (1, 0): 1, (0, 1): 0, (1, 1): 1 - held}[x, y]
        bits.append(held)
    return bits


def to_unipolar(low):
    """The counter that makes a bipolar stream unipolar, as a function of one bit after the other."""
    count = 0

    def step(x):
        nonlocal count
        count = max(count + (1 if x else -1), low)
        bit = int(count >= 1)
        count -= bit
        return bit

    return step


def iscbdiv_bipolar(a, b):
    parts = []
    for stream in (a, b):
        counter, halved, signs, sizes = 4, to_unipolar(-2), [], []
        for x in stream:
            counter = min(max(counter + (1 if x else -1), 0), 7)
            signs.append(counter < 4)
            sizes.append(halved(x != signs[-1]))
        parts.append((signs, sizes))
    (sign_a, size_a), (sign_b, size_b) = parts
    rest, bits = 0, []
    for x, s, t in zip(iscbdiv(size_a, size_b), sign_a, sign_b, strict=True):
        total = rest + x + 1
        rest = total - 2 * (total >= 2)
        bits.append(int(total >= 2) ^ s ^ t)
    return bits


def emitting(x, polarity="unipolar"):
    waiting, late, bits = 0, deque([0, 1, 0, 1]), []
    size = to_unipolar(-3) if polarity == "bipolar" else int
    for bit in x:
        waiting += bit
        out = int(waiting > 0)
        waiting = min(waiting - out + (late.popleft() & size(out)), 3)
        late.append(1 - out)
        bits.append(out)
    return bits


def inserting(x, polarity="unipolar"):
    trace, bits = 0, []
    size = to_unipolar(-3) if polarity == "bipolar" else int
    for bit in x:
        bits.append(bit | trace)
        trace = 1 - trace if size(bits[-1]) else 0
    return bits


def counted(x, states, start, output):
    state, bits = start, []
    for bit in x:
        out = int(output(state, bit))
        bits.append(out)
        state = min(max(state + (1 if bit else -1), 0), states - 1)
    return bits


def relu(x, states):
    state, bits = 1, []
    for bit in x:
        out = bit if state > 0 else 1
        bits.append(out)
        state = min(state + 1, states - 1) if out else state - 1
    return bits


def linear_gain(x, k, states):
    state, bits = states // 2, []
    for bit, damp in zip(x, k, strict=True):
        upper = state >= states // 2
        bits.append(int(upper))
        step = 1 if bit else -1
        if (step < 0) != upper and not damp:  # away from the middle
            continue
        state = min(max(state + step, 0), states - 1)
    return bits


def synchronized(a, b, depth):
    saved, pairs = 0, []
    for x, y in zip(a, b, strict=True):
        if x == y:
            pairs.append((x, y))
        elif (x and saved < 0) or (y and saved > 0):
            saved += x - y
            pairs.append((1, 1))
        elif abs(saved) < depth:
            saved += x - y
            pairs.append((0, 0))
        else:
            pairs.append((x, y))
    return pairs


def resc(*streams):
    n = len(streams) // 2
    return [bits[n + sum(bits[:n])] for bits in zip(*streams, strict=True)]


UNI, BI = "unipolar", "bipolar"
# The function, the polarities of what it reads, the loop and the polarity of the result.
CIRCUITS = {
    "cordiv": (arithmetic.divide, (UNI, UNI), cordiv, UNI),
    "iscbdiv": (lambda a, b: arithmetic.divide(a, b, "iscbdiv"), (UNI, UNI), iscbdiv, UNI),
    "iscbdiv, bipolar": (lambda a, b: arithmetic.divide(a, b, "iscbdiv"), (BI, BI), iscbdiv_bipolar, BI),
    "jk": (arithmetic.jk_divide, (UNI, UNI), jk, UNI),
    "sqrt": (arithmetic.sqrt, (UNI,), emitting, UNI),
    "sqrt, bipolar": (arithmetic.sqrt, (BI,), lambda x: emitting(x, BI), BI),
    "sqrt, jk": (lambda x: arithmetic.sqrt(x, "jk"), (UNI,), inserting, UNI),
    "sqrt, jk, bipolar": (lambda x: arithmetic.sqrt(x, "jk"), (BI,), lambda x: inserting(x, BI), BI),
    "stanh": (arithmetic.stanh, (BI,), lambda x: counted(x, 8, 4, lambda s, x: s >= 4), BI),
    "sigmoid": (lambda x: arithmetic.sigmoid(x, 4), (BI,), lambda x: counted(x, 4, 2, lambda s, x: s >= 2), UNI),
    "sexp": (arithmetic.sexp, (BI,), lambda x: counted(x, 16, 8, lambda s, x: s < 14), UNI),
    "abs": (arithmetic.abs, (BI,), lambda x: counted(x, 8, 4, lambda s, x: x ^ (s < 4)), BI),
    "relu": (arithmetic.relu, (BI,), lambda x: relu(x, 16), BI),
    "linear_gain": (lambda x, k: arithmetic.linear_gain(x, k, 6), (BI, UNI), lambda x, k: linear_gain(x, k, 6), BI),
    "maximum": (arithmetic.maximum, (UNI, UNI), lambda a, b: np.maximum(a, b), UNI),
    "minimum": (arithmetic.minimum, (BI, BI), lambda a, b: np.minimum(a, b), BI),
    "maximum, depth 1": (
        lambda a, b: arithmetic.maximum(a, b, 1),
        (UNI, UNI),
        lambda a, b: [x | y for x, y in synchronized(a, b, 1)],
        UNI,
    ),
    "minimum, depth 3": (
        lambda a, b: arithmetic.minimum(a, b, depth=3),
        (BI, BI),
        lambda a, b: [x & y for x, y in synchronized(a, b, 3)],
        BI,
    ),
    "subtract": (arithmetic.subtract, (UNI, UNI), lambda a, b: np.not_equal(a, b), UNI),
    "subtract, bipolar": (
        arithmetic.subtract,
        (BI, BI, UNI),
        lambda a, b, s: [x if z else 1 - y for x, y, z in zip(a, b, s, strict=True)],
        BI,
    ),
    "polynomial": (lambda *s: arithmetic.polynomial(s[:3], s[3:]), (UNI,) * 7, resc, UNI),
    "polynomial, degree 1": (lambda *s: arithmetic.polynomial(s[:1], s[1:]), (UNI,) * 3, resc, UNI),
}


def operands(polarities, shape, length, seed):
    """Random streams that do not all keep a counter where it is, and their bits."""
    rng = np.random.default_rng(seed)
    bits = [(rng.random((*shape, length)) < rng.beta(1, 1, (*shape, 1))).astype(np.uint8) for _ in polarities]
    return [of_bits(b, polarity) for b, polarity in zip(bits, polarities, strict=True)], bits


@pytest.mark.parametrize("name", CIRCUITS)
@settings(max_examples=6)
@given(st.integers(1, 400), st.integers(0, 2**32))
def test_bits_are_those_of_a_loop(name, length, seed):
    function, polarities, loop, polarity = CIRCUITS[name]
    streams, bits = operands(polarities, (3, 2), length, seed)
    before = [stream.words.copy() for stream in streams]
    found = function(*streams)
    assert (found.shape, found.length, found.polarity) == ((3, 2), length, polarity)
    expected = [loop(*(b[place].tolist() for b in bits)) for place in np.ndindex(3, 2)]
    checked = Bitstream(found.words, length)  # It refuses ones in the padding.
    np.testing.assert_array_equal(checked.unpack().reshape(6, length), np.array(expected, int))
    for stream, words in zip(streams, before, strict=True):
        np.testing.assert_array_equal(stream.words, words)


def along(function, axis):
    return lambda *streams: function(sc.stack(streams, axis=1), axis)


# Streams of shape (2, 3), three of which are stacked to (2, 3, 3).
ALONG = {f"{f.__name__}, axis {axis}": along(f, axis) for f in (arithmetic.sort, arithmetic.median) for axis in (1, -1)}
ALONG["sort, axis 0"] = along(arithmetic.sort, 0)
NAMES = [*CIRCUITS, *ALONG]


def result(name, streams):
    """What a circuit, or what works along an axis, makes of streams of any polarity."""
    if name in ALONG:
        return ALONG[name](*streams[:3])
    function, polarities, _, _ = CIRCUITS[name]
    return function(*(Bitstream(s.words, s.length, p) for s, p in zip(streams, polarities, strict=False)))


def test_every_library_has_the_same_bits(backend):
    streams, _ = operands((UNI,) * 7, (2, 3), 200, seed=1)
    given = [stream.map_words(backend.array) for stream in streams]
    # Machines of JAX and CuPy arrays have tests of their own, and each takes a compilation.
    few = ["polynomial", "sort, axis 1", "median, axis 1"]
    for name in few if backend.jax or backend.cupy else NAMES:
        found = backend.host(result(name, given).words)
        np.testing.assert_array_equal(found, result(name, streams).words, err_msg=name)


def _no_computing(*args, **kwargs):
    raise AssertionError("computed")


def chunks_of(n):
    return st.lists(st.integers(0, 1), min_size=n - 1, max_size=n - 1).map(
        lambda cuts: tuple(np.diff([0, *(i + 1 for i, cut in enumerate(cuts) if cut), n]).tolist())
    )


CHUNKS = st.tuples(chunks_of(2), chunks_of(3), chunks_of(4))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2)
@given(CHUNKS, CHUNKS)
def test_chunks_along_all_axes_and_time_change_no_bit(name, chunks, others):
    streams, _ = operands((UNI,) * 7, (2, 3), 230, seed=2)
    lazy = [stream.rechunk(chunks if i % 2 else others) for i, stream in enumerate(streams)]
    with dask.config.set(scheduler=_no_computing):
        found = result(name, lazy)
    assert isinstance(found.words, da.Array)
    computed = found.compute(scheduler="synchronous")
    np.testing.assert_array_equal(computed.words, result(name, streams).words)


def test_chunks_stay_as_they_are():
    (stream, x, y), _ = operands((UNI,) * 3, (4, 9), 600, seed=3)
    lazy, x, y = stream.rechunk((2, 3, 4)), x.rechunk((2, 3, 4)), y.rechunk((2, 3, 4))
    assert arithmetic.sort(lazy, axis=1).chunks == ((2, 2), (9,), (4, 4, 2))
    assert arithmetic.median(lazy, axis=1).chunks == ((2, 2), (4, 4, 2))
    assert arithmetic.divide(x, y).chunks == arithmetic.polynomial([x], [y, y]).chunks == lazy.chunks
    whole = stream.rechunk((2, 9, 4))
    tasks = [arithmetic.sort(whole, axis=1).words, arithmetic.median(whole, axis=1).words]
    for array in tasks:  # A task a block, beside those of the input.
        (optimized,) = dask.optimize(array)
        assert len(optimized.dask) - len(whole.words.dask) <= 6


# Long runs of random bits


def long_run(machine, *p):
    """The mean of the output for random bits of these probabilities, and N times the variance of the mean of N.

    Both are those of the Markov chain of the states, the bits of a step being independent of those before.
    """
    columns = np.array(list(product((0, 1), repeat=len(p))))[:, ::-1]  # in the order of the columns of the tables
    chance = np.where(columns, p, 1 - np.array(p)).prod(axis=1)
    following, output = np.array(machine.next_state), np.array(machine.output)
    n, kinds = following.shape
    steps = np.zeros((n * kinds, n * kinds))  # from a state and the bits to the next state and the next bits
    for place, (state, column) in enumerate(np.ndindex(n, kinds)):
        first = following[state, column] * kinds
        steps[place, first : first + kinds] = chance
    values, vectors = np.linalg.eig(steps.T)
    share = np.real(vectors[:, np.argmax(np.real(values))])
    share /= share.sum()
    f = output.ravel() - share @ output.ravel()
    later = np.linalg.solve(np.eye(len(f)) - steps + share, f)  # the sum of all later values, given the place
    return share @ output.ravel(), share @ (f * (2 * later - f))


def r_of(x):
    return (1 + x) / (1 - x)


def tanh_state(x, k):
    return (r_of(x) ** (k / 2) - 1) / (r_of(x) ** (k / 2) + 1)


def relu_state(x, k):
    stays = 1 / (1 + 2 * sum(r_of(x) ** i for i in range(k - 1)) / (1 - x))
    return stays + (1 - stays) * x


X = np.array([-0.8, -0.25, 0.1, 0.25, 0.5, 0.9])
# The machine, the function, what it gives in the long run.
STEADY = {
    "stanh 4": (arithmetic.stanh_machine(4), lambda x: arithmetic.stanh(x, 4), lambda x: tanh_state(x, 4)),
    "stanh 8": (arithmetic.stanh_machine(), arithmetic.stanh, lambda x: tanh_state(x, 8)),
    "sigmoid 4": (
        arithmetic.stanh_machine(4),
        lambda x: arithmetic.sigmoid(x, 4),
        lambda x: r_of(x) ** 2 / (r_of(x) ** 2 + 1),
    ),
    "sexp 16, 2": (
        arithmetic.sexp_machine(16, 2),
        arithmetic.sexp,
        lambda x: sum(r_of(x) ** i for i in range(14)) / sum(r_of(x) ** i for i in range(16)),
    ),
    "abs 8": (arithmetic.abs_machine(), arithmetic.abs, lambda x: x * tanh_state(x, 8)),
    "relu 16": (arithmetic.relu_machine(), arithmetic.relu, lambda x: relu_state(x, 16)),
}


@pytest.mark.parametrize("name", STEADY)
def test_steady_states(name):
    machine, function, exact = STEADY[name]
    x = sc.encode(np.tile(X, (16, 1)), 2**15, polarity="bipolar", sng=Bernoulli(7))
    found = function(x).bits[1024:]
    for i, value in enumerate(X):
        mean, variance = long_run(machine, (1 + value) / 2)
        expected = exact(value)
        assert (mean if found.polarity == UNI else 2 * mean - 1) == pytest.approx(expected, abs=1e-9)
        ones = found[:, i].popcount().sum() / (16 * found.length)
        assert abs(ones - mean) < 4 * np.sqrt(variance / (16 * found.length)) + 1e-12


def test_published_steady_states():
    assert tanh_state(0.5, 4) == pytest.approx(0.8)
    assert tanh_state(0.25, 8) == pytest.approx(0.7705, abs=5e-5)
    x = np.linspace(-1, 1, 20001)[1:-1]
    for k, distance in ((8, 0.01306), (16, 0.00323), (32, 0.00080)):
        assert np.abs(tanh_state(x, k) - np.tanh(k * x / 2)).max() == pytest.approx(distance, abs=1e-5)
    _, _, exponential = STEADY["sexp 16, 2"]
    assert [round(exponential(v), 3) for v in (0.25, 0.5)] == [0.36, 0.111]


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.6), (0.5, 0.5), (0.7, 0.1)])
def test_jk_divides_random_streams(p, q):
    mean, variance = long_run(arithmetic.jk_machine(), p, q)
    r = p / (p + q)
    assert (mean, variance) == pytest.approx((r, r * (1 - r) * (2 - p - q) / (p + q)))
    a, b = (sc.encode(np.full(16, v), 2**15, sng=Bernoulli(seed)) for seed, v in enumerate((p, q)))
    ones = arithmetic.jk_divide(a, b).decode().mean()
    assert abs(ones - r) < 4 * np.sqrt(variance / (16 * 2**15))


def test_linear_gain_is_a_birth_death_chain():
    for gain, x, states in ((2, 0.2, 16), (2, -0.3, 16), (3, 0.25, 32), (2, 0.9, 16), (1, 0.4, 16)):
        p, k = (1 + x) / 2, (gain - 1) / (gain + 1)
        up = np.where(np.arange(states) < states // 2, p, p * k)
        down = np.where(np.arange(states) < states // 2, (1 - p) * k, 1 - p)
        if k == 0:  # Only the two states in the middle are left.
            exact = p
        else:
            share = np.cumprod([1, *(up[:-1] / down[1:])])
            exact = share[states // 2 :].sum() / share.sum()
            mean, variance = long_run(arithmetic.linear_gain_machine(states), p, k)
            assert mean == pytest.approx(exact)
            a = sc.encode(np.full(16, x), 2**14, polarity="bipolar", sng=Bernoulli(1))
            damp = sc.encode(np.full(16, k), 2**14, sng=Bernoulli(2))
            found = arithmetic.linear_gain(a, damp, states).bits[1024:]
            assert abs((found.decode().mean() + 1) / 2 - mean) < 4 * np.sqrt(variance / (16 * found.length))
        assert 2 * exact - 1 == pytest.approx(np.clip(gain * x, -1, 1), abs=0.02)


# Published figures


@dataclass(frozen=True)
class Dropped(sc.SNG):
    """Points 1 to 256 of a dimension of Sobol, 8 bits of each: what the published figures were measured with.

    PyTorch's generator had no point 0 then. So the stream of 1/256 has no ones, unless point 256 gives it one.
    """

    dimension: int

    def numbers(self, length, start, stop):
        return DROPPED[self.dimension - 1, start:stop]


DROPPED = np.floor(qmc.Sobol(102, scramble=False, bits=32).random(512)[1:257].T * 256) / 256
EXACT = np.minimum(BYTES[:, None] / BYTES[1:], 1)
SIGNED = np.arange(-128, 129) / 128


def quotients(circuit, sngs, p=BYTES, polarity=UNI):
    """The errors of all quotients of numbers of 8 bits, cut at 1, over pairs of generators."""
    divisors = p[p != 0]
    exact = np.clip(p[:, None] / divisors, -1, 1)
    errors = []
    for a_sng, b_sng in sngs:
        a, b = (sc.encode(v, 256, sng=s, polarity=polarity) for v, s in ((p, a_sng), (divisors, b_sng)))
        errors.append(arithmetic.divide(a[:, None], b, circuit).decode() - exact)
    return np.array(errors)


def test_iscbdiv_has_the_published_error():
    errors = quotients("iscbdiv", [(Dropped(d), Dropped(d + 1)) for d in range(1, 101, 6)])
    assert rmse(errors) == pytest.approx(0.0491, rel=0.1)
    assert np.abs(errors).mean() == pytest.approx(0.01945, rel=0.1)
    assert errors.max() == 0.5
    whole = quotients("iscbdiv", [(Sobol(d), Sobol(d + 1)) for d in range(1, 101, 10)])
    assert rmse(whole) == pytest.approx(0.0125, rel=0.2)


def test_bipolar_iscbdiv_has_the_published_error():
    errors = quotients("iscbdiv", [(Dropped(d), Dropped(d + 1)) for d in range(1, 101, 8)], SIGNED, BI)
    assert rmse(errors) == pytest.approx(0.0850, rel=0.1)


def test_iscbdiv_of_registers_has_the_published_error():
    taps = [(8, 6, 5, 4), (8, 6, 5, 3), (8, 7, 6, 1), (8, 5, 3, 1), (8, 7, 2, 1), (8, 6, 5, 2)]
    rng = np.random.default_rng(4)

    def register():
        return sc.LFSR(8, taps[rng.integers(len(taps))], int(rng.integers(1, 256)), "right")

    assert rmse(quotients("iscbdiv", [(register(), register()) for _ in range(12)])) == pytest.approx(0.1079, rel=0.1)


def test_cordiv_has_the_published_error():
    """That of CORDIV behind counters that regenerate both streams with one sequence: these, not CORDIV, err most."""

    def regenerated(p, d):
        bits, counts, out = p[:, None] > DROPPED[d - 1], np.full(len(p), 128), []
        for t in range(256):
            counts = np.clip(counts + np.where(bits[:, t], 1, -1), 0, 255)
            out.append(counts > 256 * DROPPED[d + 1 - (d != first), t])
        return of_bits(np.array(out).T)

    errors = []
    for first in range(1, 101, 10):
        a, b = regenerated(BYTES, first), regenerated(BYTES[1:], first + 1)
        errors.append(arithmetic.divide(a[:, None], b).decode() - EXACT)
    assert rmse(errors) == pytest.approx(0.0721, rel=0.1)


def test_cordiv_of_shared_sobol():
    p = np.arange(17) / 16
    a, b = (sc.encode(v, 256, sng=Sobol(1)) for v in (p, p[1:]))
    errors = (arithmetic.divide(a[:, None], b).decode() - p[:, None] / p[1:])[p[:, None] <= p[1:]]
    assert (round(rmse(errors), 4), round(np.abs(errors).max(), 3)) == (0.0339, 0.135)


@pytest.mark.parametrize(
    ("circuit", "polarity", "published", "with_all_points"),
    [
        ("emitting", UNI, 0.0332, 0.034),
        ("jk", UNI, 0.0873, 0.084),
        ("emitting", BI, 0.0442, 0.040),
        ("jk", BI, 0.0722, 0.138),
    ],
)
def test_square_roots_have_the_published_error(circuit, polarity, published, with_all_points):
    p = BYTES if polarity == UNI else np.arange(129) / 128
    for kind, expected in ((Dropped, published), (Sobol, with_all_points)):
        streams = [sc.encode(p, 256, sng=kind(d), polarity=polarity) for d in range(1, 101)]
        errors = [arithmetic.sqrt(stream, circuit).decode() - np.sqrt(p) for stream in streams]
        assert rmse(errors) == pytest.approx(expected, rel=0.1)


# Extrema and sorting


@pytest.mark.parametrize("sng", [Sobol(1), Thermometer(), Bernoulli(3, shared=True)])
def test_extrema_and_differences_of_one_generator_are_exact(sng):
    x = sc.encode(BYTES, 256, sng=sng)
    ones = x.popcount()
    a, b = ones[:, None], ones[None]
    for found, expected in (
        (arithmetic.maximum(x[:, None], x), np.maximum(a, b)),
        (arithmetic.minimum(x[:, None], x), np.minimum(a, b)),
        (arithmetic.subtract(x[:, None], x), abs(a - b)),
    ):
        np.testing.assert_array_equal(found.popcount(), expected)


def test_minimum_warns_of_nothing(recwarn):
    x = sc.encode([0.25, 0.5], 256, sng=Sobol(1))
    arithmetic.minimum(x, x[::-1])
    assert not recwarn.list


def test_a_synchronizer_makes_extrema_of_any_streams():
    a, b = (sc.encode(np.tile(BYTES[::8, None], (1, 33)), 1024, sng=Bernoulli(seed)) for seed in (1, 2))
    b = sc.Bitstream(b.words.swapaxes(0, 1).copy(), 1024)
    larger, smaller = np.maximum(a.decode(), b.decode()), np.minimum(a.decode(), b.decode())
    errors = [rmse(arithmetic.maximum(a, b, depth).decode() - larger) for depth in (None, 1, 2, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 10 * errors[-1]
    for depth in (1, 4, 127):
        values = arithmetic.maximum(a, b, depth).decode() + arithmetic.minimum(a, b, depth).decode()
        assert (values <= larger + smaller).all()
        assert (values >= larger + smaller - depth / 1024).all()


def test_subtract_of_bipolar_streams():
    v = np.array([-0.5, 0, 0.75])
    a, b = (sc.encode(w, 1024, polarity="bipolar", sng=Sobol(1)) for w in (v, v[::-1]))
    select = sc.encode(0.5, 1024, sng=Sobol(2))
    np.testing.assert_allclose(arithmetic.subtract(a, b, select).decode(), (v - v[::-1]) / 2, atol=0.01)


@pytest.mark.parametrize("n", range(1, 13))
def test_networks_sort_all_zeros_and_ones(n):
    lanes = np.array(list(product((0, 1), repeat=n))).T
    for network, rows in ((sorting_network(n), slice(None)), (median_network(n), n // 2)):
        found = [*lanes]
        for i, j in network:
            found[i], found[j] = np.minimum(found[i], found[j]), np.maximum(found[i], found[j])
        if n % 2 or rows != n // 2:
            np.testing.assert_array_equal(np.array(found)[rows], np.sort(lanes, axis=0)[rows])


def test_sizes_of_networks():
    assert [len(sorting_network(n)) for n in (2, 4, 8, 16, 32)] == [1, 5, 19, 63, 191]
    assert [len(median_network(n)) for n in (1, 3, 9)] == [0, 3, 19]


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(0, 2), st.integers(0, 2**32))
def test_sort_and_median_are_numpys(n, axis, seed):
    shape = np.insert([2, 3], axis, n)
    p = np.random.default_rng(seed).integers(0, 257, shape) / 256
    x = sc.encode(p, 256, sng=Sobol(1), polarity="bipolar" if seed % 2 else "unipolar")
    for at in (axis, axis - 3):
        found = arithmetic.sort(x, axis=at)
        np.testing.assert_array_equal(found.decode(), np.sort(x.decode(), axis))
        assert found.polarity == x.polarity
        if n % 2:
            np.testing.assert_array_equal(arithmetic.median(x, at).decode(), np.median(x.decode(), axis))


@pytest.mark.parametrize("sng", [Sobol(1), Thermometer()])
def test_the_median_of_an_image_is_that_of_its_pixels(sng):
    rng = np.random.default_rng(5)
    image = ndimage.gaussian_filter(rng.normal(size=(64, 96)), 4)
    image = np.round(255 * (image - image.min()) / np.ptp(image)).astype(int)
    image[rng.random(image.shape) < 0.1] = 255
    pixels = sc.encode(image / 256, 256, sng=sng)
    window = sc.stack([pixels[i : i + 62, j : j + 94] for i in range(3) for j in range(3)], axis=-1)
    median = arithmetic.median(window.rechunk((20, 94, 3)))
    expected = ndimage.median_filter(image, 3)[1:-1, 1:-1]
    np.testing.assert_array_equal(median.popcount().compute(scheduler="synchronous"), expected)


# Generators that are known


@dataclass(frozen=True)
class Mine(sc.SNG):
    def numbers(self, length, start, stop):
        return np.random.default_rng(1).random(length)[start:stop]


OWN, ONE = Bernoulli(), Bernoulli(shared=True)
EVEN = (Sobol(1), Sobol(2, seed=3), sc.Halton(3), sc.VanDerCorput(), Thermometer(), sc.LFSR(16), sc.LFSR(spread=True))
ONE_SEQUENCE = ([(Sobol(1),), (ONE,), (Thermometer(),), (None,)], [(OWN,), (sc.LFSR(16, spread=True),)])
OVERLAP = (
    [(Sobol(1), Sobol(1)), (ONE, ONE), (OWN, OWN), (OWN, None), (None, Sobol(1))],
    [(Sobol(1), Sobol(2)), (OWN, ONE), (OWN, Bernoulli(1))],
)
RANDOM_BITS = ([(OWN,), (ONE,), (Mine(),), (None,)], [(sng,) for sng in EVEN])
# Generators with which a circuit does not warn, those with which it does, and what it says then.
NEEDS = {
    arithmetic.sort: (*ONE_SEQUENCE, "sort needs one sequence for all elements"),
    arithmetic.median: (*ONE_SEQUENCE, "median needs one sequence for all elements"),
    arithmetic.divide: (*OVERLAP, "cordiv needs streams of one generator"),
    arithmetic.maximum: (*OVERLAP, "maximum needs streams of one generator"),
    arithmetic.minimum: (*OVERLAP, "minimum needs streams of one generator"),
    arithmetic.subtract: (*OVERLAP, "subtract needs streams of one generator"),
    arithmetic.stanh: (*RANDOM_BITS, "stanh needs bits that are random in time"),
    arithmetic.sigmoid: (*RANDOM_BITS, "sigmoid needs bits that are random in time"),
    arithmetic.sexp: (*RANDOM_BITS, "sexp needs bits that are random in time"),
    arithmetic.jk_divide: (
        [(OWN, Bernoulli(1)), (OWN, OWN), (OWN, None), (Mine(), ONE)],
        [(Sobol(1), Sobol(2)), (OWN, Sobol(1)), (None, sc.LFSR(16))],
        "jk_divide needs bits that are random in time",
    ),
    arithmetic.linear_gain: (
        [(OWN, ONE), (Sobol(1), OWN), (OWN, Sobol(1)), (sc.Halton(3), None), (None, Sobol(1))],
        [(Sobol(1), Sobol(1)), (OWN, OWN), (Sobol(1), Sobol(2)), (sc.LFSR(16), OWN), (Thermometer(), OWN)],
        "linear_gain needs (bits that are random in time|streams of generators that differ)",
    ),
}


@pytest.mark.parametrize("circuit", NEEDS, ids=lambda circuit: circuit.__name__)
def test_a_circuit_warns_of_generators_that_it_cannot_use(circuit):
    def streams(sngs):
        bipolar = circuit in (arithmetic.stanh, arithmetic.sigmoid, arithmetic.sexp, arithmetic.linear_gain)
        for sng, polarity in zip(sngs, (BI if bipolar else UNI, UNI), strict=False):
            stream = sc.encode([0.25, 0.5, 0.75], 100, sng=sng or Sobol(1), polarity=polarity)
            yield stream if sng else of_bits(stream.unpack(), polarity)

    fit, wrong, message = NEEDS[circuit]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for sngs in fit:
            circuit(*streams(sngs))
    for sngs in wrong:
        with pytest.warns(sc.CorrelationWarning, match=message) as told:
            circuit(*streams(sngs))
        assert [warning.filename for warning in told] == [__file__]


def test_elements_of_a_generator_of_their_own_overlap_in_pairs():
    one, three, row = (sc.encode(np.full(shape, 0.5), 100) for shape in ((), 3, (1, 3)))
    with pytest.warns(sc.CorrelationWarning, match="Bernoulli.* gives each element numbers of its own"):
        arithmetic.divide(three, one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arithmetic.divide(three, row)
        arithmetic.divide(three, one, "iscbdiv")
        arithmetic.maximum(three, one, depth=2)
        arithmetic.sort(row, axis=0)
        arithmetic.abs(sc.encode(0.5, 100, polarity=BI, sng=Sobol(1)))


def test_a_flip_flop_divides_whatever_correlates():
    a, b = (sc.encode(np.full(64, p), 2**14, sng=OWN) for p in (0.2, 0.6))
    found = arithmetic.jk_divide(a, b).decode()
    assert abs(found.mean() - 0.25) < 4 * found.std() / 8


# Polynomials

GAMMA = np.array([0.0955, 0.7207, 0.3476, 0.9988, 0.7017, 0.9695, 0.9939])


def test_bernstein_finds_the_published_coefficients():
    b = arithmetic.bernstein(lambda x: x**0.45, 6)
    np.testing.assert_allclose(b, GAMMA, atol=5e-5)
    polynomial = BPoly(GAMMA[:, None], [0, 1])
    np.testing.assert_allclose(polynomial([0.1, 0.5, 0.9]), [0.3558, 0.7335, 0.9558], atol=5e-5)
    assert np.abs(polynomial(BYTES) - BYTES**0.45).mean() == pytest.approx(0.00283, abs=1e-5)


@pytest.mark.parametrize("degree", [1, 3, 8, 20])
def test_bernstein_finds_polynomials_again(degree):
    b = np.random.default_rng(degree).random(degree + 1)
    found = arithmetic.bernstein(BPoly(b[:, None], [0, 1]), degree)
    x = np.linspace(0, 1, 100)
    np.testing.assert_allclose(BPoly(found[:, None], [0, 1])(x), BPoly(b[:, None], [0, 1])(x), atol=1e-6)
    outside = arithmetic.bernstein(lambda x: 3 * x - 1, degree)
    assert outside.min() >= 0
    assert outside.max() <= 1


def test_polynomials_have_the_error_of_random_bits():
    p = np.linspace(0, 1, 33)
    exact = BPoly(GAMMA[:, None], [0, 1])(p)
    sngs = [Bernoulli(seed) for seed in range(7)]
    found = arithmetic.encode_polynomial(p, GAMMA, 2**16, sngs=sngs).decode()
    assert (np.abs(found - exact) <= 4 * np.sqrt(exact * (1 - exact) / 2**16)).all()
    lazy = arithmetic.encode_polynomial(p, GAMMA, 2**16, sngs=sngs, chunks=(10, 100))
    np.testing.assert_array_equal(lazy.decode().compute(scheduler="synchronous"), found)
    sobol = arithmetic.encode_polynomial(BYTES, GAMMA, 1024).decode()
    assert rmse(sobol - BPoly(GAMMA[:, None], [0, 1])(BYTES)) < 0.012


# What does not fit

U, V = (sc.encode(np.full((2, 3), 0.5), 100, sng=Sobol(d)) for d in (1, 2))
B = sc.encode(np.full((2, 3), 0.5), 100, polarity="bipolar")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: arithmetic.divide(B, B), "cordiv divides unipolar streams, not bipolar ones; .*iscbdiv"),
        (lambda: arithmetic.divide(U, B), "polarity unipolar and bipolar"),
        (lambda: arithmetic.divide(U, V, "jk"), '"cordiv" or "iscbdiv", not \'jk\''),
        (lambda: arithmetic.divide(U, V.words), "only Bitstreams combine"),
        (lambda: arithmetic.divide(U, V[:, :2]), "broadcast"),
        (lambda: arithmetic.jk_divide(B, B), "no bipolar form"),
        (lambda: arithmetic.sqrt(U, "newton"), '"emitting" or "jk"'),
        (lambda: arithmetic.sqrt(U.words), "only Bitstreams"),
        (lambda: arithmetic.iscbdiv_machine(32), "from 0 to 31, not 32"),
        *(
            (lambda name=name: getattr(arithmetic, name)(U), "reads a bipolar stream, not a unipolar one")
            for name in ("stanh", "sigmoid", "sexp", "abs", "relu")
        ),
        (lambda: arithmetic.stanh(B, 7), "an even number of states, not 7"),
        (lambda: arithmetic.stanh(B, 258), "from 2 to 256, not 258"),
        (lambda: arithmetic.sexp(B, 8, 8), "from 1 to 7, not 8"),
        (lambda: arithmetic.relu(B.words), "only Bitstreams"),
        (lambda: arithmetic.linear_gain(B, B), "a unipolar stream"),
        (lambda: arithmetic.linear_gain(U, U), "a bipolar stream"),
        (lambda: arithmetic.linear_gain(B, U.bits[:50]), "length 100 and 50"),
        (lambda: arithmetic.maximum(U, B), "polarity"),
        (lambda: arithmetic.minimum(U, V, 0), "from 1 to 127, not 0"),
        (lambda: arithmetic.subtract(U, V, U), "no select"),
        (lambda: arithmetic.subtract(B, B), "a select, a stream of 0.5"),
        (lambda: arithmetic.sort(U, 2), "no axis 2"),
        (lambda: arithmetic.sort([U, V]), "put them together with scdask.stack"),
        (lambda: arithmetic.median(U, V), "put them together with scdask.stack"),
        (lambda: arithmetic.sort(U.words), "only Bitstreams"),
        (lambda: arithmetic.median(U, 0), "an odd number of streams, not of 2"),
        (lambda: arithmetic.median(U[:, :0]), "not of 0"),
        (lambda: arithmetic.polynomial([U, V], [U, V]), "not 2 and 2"),
        (lambda: arithmetic.polynomial([], [U]), "not 0 and 1"),
        (lambda: arithmetic.polynomial([B], [B, B]), "unipolar"),
        (lambda: arithmetic.polynomial([U], [U, B]), "polarity"),
        (lambda: arithmetic.encode_polynomial(0.5, [0.5], 100), r"not \(1,\)"),
        (lambda: arithmetic.encode_polynomial(0.5, [0.5, 2], 100), "2"),
        (lambda: arithmetic.encode_polynomial(0.5, [0, 1], 100, sngs=[Sobol(1)]), "2 generators, not 1"),
        (lambda: arithmetic.encode_polynomial(0.5, [0, 1j], 100), "real numbers, not complex128"),
        (lambda: arithmetic.polynomial(U[0, 0], [U, V]), "a sequence of streams of x, not Bitstream"),
        (lambda: arithmetic.bernstein(np.sqrt, 21), "from 1 to 20, not 21"),
        (lambda: arithmetic.bernstein(lambda x: x * 1j, 3), "real numbers, not complex128"),
        (lambda: arithmetic.bernstein(lambda x: 1 / (x - x), 3), "a finite number"),
        (lambda: arithmetic.bernstein(math.sqrt, 3), "the function takes an array of numbers"),
        (lambda: arithmetic.bernstein(lambda x: 1 if x > 0.5 else 0, 3), "the function takes an array of numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_does_not_fit_is_a_sentence(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()


def test_a_machine_that_was_made_before_changes_no_error():
    assert arithmetic.sexp_machine(16, 1) is arithmetic.sexp_machine(16, 1)
    for gain in (True, 1.0):
        with pytest.raises(BitstreamError, match=f"from 1 to 15, not {gain}"):
            arithmetic.sexp_machine(16, gain)


def test_no_streams_and_streams_of_unknown_number():
    assert arithmetic.sort(U[:0], 0).shape == (0, 3)
    assert arithmetic.sort(U[:, :0], 1).shape == (2, 0)
    assert arithmetic.median(U[:0], 1).shape == (0,)
    assert arithmetic.divide(U[:0], V[:0]).shape == (0, 3)
    lazy = U.rechunk((1, 1))[da.from_array(np.array([True, True]), chunks=1)]
    np.testing.assert_array_equal(arithmetic.median(lazy, 1).compute(scheduler="synchronous").words, U[:, 0].words)
    with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
        arithmetic.sort(lazy, 0)

"""Generators: their numbers, the rounding of probabilities, and which of them go together."""

import math
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import qmc

import scdask as sc
from scdask import LFSR, Bernoulli, BitstreamError, Halton, Sobol, Thermometer, VanDerCorput
from scdask.core import metering
from scdask.core.words import Part
from scdask.generators import product_error

EVEN = [Sobol(1), Sobol(3), Sobol(2, seed=5), Halton(3), Halton(7), VanDerCorput(), Thermometer()]
SHARED = [
    *EVEN,
    Sobol(3, rounding="up"),
    Halton(3, rounding="up"),
    LFSR(),
    LFSR(taps=(16, 5, 3, 2), seed=0x1D0F, shift="right"),
    LFSR(8),
    Bernoulli(3, shared=True),
]


# the sequences, against vectors and definitions


@pytest.mark.parametrize(
    ("sng", "expected"),
    [
        (Sobol(1, rounding="up"), [0, 0.5, 0.75, 0.25, 0.375, 0.875, 0.625, 0.125]),
        (Sobol(2, rounding="up"), [0, 0.5, 0.25, 0.75, 0.375, 0.875, 0.125, 0.625]),
        (Sobol(3, rounding="up"), [0, 0.5, 0.25, 0.75, 0.625, 0.125, 0.875, 0.375]),
        (VanDerCorput(rounding="up"), [0, 0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]),
        (Halton(3, rounding="up"), [0, 1 / 3, 2 / 3, 1 / 9, 4 / 9, 7 / 9]),
        (Thermometer(rounding="up"), [0, 0.25, 0.5, 0.75]),
        (Thermometer(), [0.125, 0.375, 0.625, 0.875]),
        (Sobol(2), [1 / 16, 9 / 16, 5 / 16, 13 / 16, 7 / 16, 15 / 16, 3 / 16, 11 / 16]),
    ],
)
def test_published_numbers(sng, expected):
    np.testing.assert_allclose(sng.numbers(len(expected), 0, len(expected)), expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("shift", "states"),
    [
        ("left", [0xACE1, 0x59C3, 0xB387, 0x670F, 0xCE1E, 0x9C3C]),
        ("right", [0xACE1, 0x5670, 0xAB38, 0x559C, 0x2ACE, 0x1567]),
    ],
)
def test_published_lfsr_states(shift, states):
    assert (LFSR(shift=shift).numbers(6, 0, 6) * 2**16).tolist() == states
    assert reference.lfsr(0xACE1, 16, (16, 14, 13, 11), shift, 6) == states


@pytest.mark.parametrize(
    ("width", "taps"),
    [(4, (4, 3)), (8, (8, 6, 5, 4)), (12, (12, 11, 10, 4)), (16, (16, 14, 13, 11)), (16, (16, 5, 3, 2))],
)
@pytest.mark.parametrize("shift", ["left", "right"])
def test_lfsr_periods(width, taps, shift):
    period = 2**width - 1
    states = LFSR(width, taps, seed=1, shift=shift).numbers(2 * period, 0, 2 * period) * 2**width
    assert sorted(states[:period]) == list(range(1, 2**width))
    np.testing.assert_array_equal(states[:period], states[period:])
    share = sc.encode(5 / 2**width, period, sng=LFSR(width, taps, seed=1, shift=shift))
    assert share.popcount() == 4


@pytest.mark.parametrize("width", range(2, 54))
def test_each_width_has_a_register_of_full_period(width):
    lfsr = LFSR(width)
    assert (LFSR(width, lfsr.taps, lfsr.seed)) == lfsr
    period = 2**width - 1
    state = lfsr.numbers(2**53, 0, 1)

    def returns_after(steps):
        return lfsr.numbers(2**53, steps, steps + 1) == state

    assert returns_after(period)
    rest, prime = period, 3
    while rest > 1:
        if prime * prime > rest:
            prime = rest
        if rest % prime == 0:
            assert period == prime or not returns_after(period // prime)
            rest //= prime
        else:
            prime += 2


def test_taps_without_the_full_period_are_told_of():
    with pytest.warns(sc.ScdaskWarning, match="12 of 255 states") as told:
        lfsr = LFSR(8, (8, 4), seed=1)
    assert told[0].filename == __file__
    assert len(np.unique(lfsr.numbers(1024, 0, 1024))) == 12
    with pytest.warns(sc.ScdaskWarning, match="over 1048576 of"):
        LFSR(24, (24, 1))


@pytest.mark.parametrize("lfsr", [LFSR(spread=True), LFSR(9, shift="right", spread=True), LFSR(40, spread=True)])
def test_registers_of_elements_are_one_register_elsewhere(lfsr):
    streams = np.array([0, 1, 2, 777, 10**12], np.uint64)
    numbers = lfsr.own_numbers(500, 64, 500, streams)
    one = LFSR(lfsr.width, lfsr.taps, lfsr.seed, lfsr.shift)
    period = 2**lfsr.width - 1
    for row, stream in zip(numbers, streams.tolist(), strict=True):
        jump = stream * round(period * (math.sqrt(5) - 1) / 2) % period
        np.testing.assert_array_equal(row, one.numbers(2**53, 64 + jump, 500 + jump))
    p = np.random.default_rng(1).random((3, 5))
    numbers = lfsr.own_numbers(200, 0, 200, np.arange(15, dtype=np.uint64)).reshape(3, 5, 200)
    np.testing.assert_array_equal(sc.encode(p, 200, sng=lfsr).unpack(), numbers < p[..., None])


def test_digits_are_counted_where_threefry_draws_them():
    part = Part.all_of((3,), 100)
    for sng in (Bernoulli(1), LFSR(spread=True), Sobol(1)):
        work = metering.encoding(sc.encode([0.5] * 3, 100, sng=sng).words, None, sng, 100, "unipolar", part)
        assert ("digits" in work.uses) is isinstance(sng, Bernoulli)


def test_registers_of_elements_add_up_like_random_bits():
    rng = np.random.default_rng(0)
    x, w = rng.random((8, 784)), rng.random((4, 784))
    other = {"taps": (16, 5, 3, 2), "seed": 0x1D0F}

    def error(x_sng, w_sng):
        return np.sqrt(np.mean((sc.matmul(x, w, 256, x_sng=x_sng, w_sng=w_sng) - x @ w.T) ** 2))

    random = error(Bernoulli(1), Bernoulli(2))
    assert error(LFSR(spread=True), LFSR(**other, spread=True)) < 1.5 * random
    assert error(LFSR(), LFSR(**other)) > 5 * random


@pytest.mark.parametrize("base", [2, 3, 5, 541])
def test_halton_is_the_radical_inverse(base):
    exact = [float(reference.radical_inverse(n, base)) for n in range(64, 200)]
    halton = Halton(base, rounding="up")
    np.testing.assert_allclose(halton.numbers(200, 64, 200), exact, rtol=2**-52)
    primes = [n for n in range(2, base + 1) if all(n % d for d in range(2, n))]
    np.testing.assert_allclose(
        halton.numbers(200, 0, 200), qmc.Halton(len(primes), scramble=False).random(200)[:, -1], rtol=0, atol=1e-15
    )


@pytest.mark.parametrize("dimension", [1, 2, 40, 900, 21201])
def test_sobol_is_that_of_scipy(dimension):
    points = qmc.Sobol(dimension, scramble=False, bits=32).random(256)[:, -1]
    np.testing.assert_array_equal(Sobol(dimension, rounding="up").numbers(256, 0, 256), points)


def test_a_seed_shifts_sobol_digitally():
    plain, shifted = (Sobol(3, seed=seed, rounding="up").numbers(64, 0, 64) * 2**32 for seed in (None, 9))
    assert len(set((plain.astype(np.uint64) ^ shifted.astype(np.uint64)).tolist())) == 1
    word, _ = reference.threefry2x64_13((9, 2), (3, 0))
    assert int(shifted[0]) == word >> 32
    p = np.arange(33) / 32
    for seed in range(3):
        a, b = (sc.encode(p, 1024, sng=Sobol(d, seed=seed)) for d in (1, 2))
        np.testing.assert_array_equal((a[:, None] & b).decode(), np.outer(p, p))
    errors = [
        float((sc.encode(0.37, 256, sng=Sobol(1, seed=s)) & sc.encode(0.59, 256, sng=Sobol(2, seed=s))).decode())
        for s in range(20)
    ]
    assert len(set(errors)) > 1


# the rounding of probabilities


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.sampled_from(EVEN), st.integers(1, 9000))
def test_a_stream_has_the_nearest_number_of_ones(p, sng, length):
    counts = sc.encode(p, length, sng=sng).popcount()
    for value, count in zip(p, counts.tolist(), strict=True):
        assert abs(count - Fraction(value) * length) <= Fraction(1, 2) + Fraction(length, 2**52)
    k = np.arange(0, length + 1, max(1, length // 50))
    np.testing.assert_array_equal(sc.encode(k / length, length, sng=sng).popcount(), k)


@pytest.mark.parametrize("sng", [*EVEN, LFSR(8), LFSR(8, spread=True), Bernoulli(1)], ids=repr)
def test_real_numbers_are_encoded_without_bias(sng):
    p = np.random.default_rng(2).random(20_000)
    length = 255 if isinstance(sng, LFSR) else 256
    bias = np.mean(sc.encode(p, length, sng=sng).decode() - p) * length
    assert abs(bias) < (0.4 if isinstance(sng, Bernoulli) else 0.05)


@pytest.mark.parametrize("sng", EVEN, ids=repr)
@pytest.mark.parametrize("length", [1, 2, 7, 100, 255, 1000, 4097])
def test_numbers_are_the_ranks_of_the_sequence(sng, length):
    if isinstance(sng, Thermometer):
        raw = np.arange(length)
    else:
        raw = type(sng)(**{**vars(sng), "rounding": "up"}).numbers(length, 0, length)
    ranks = np.argsort(np.argsort(raw))
    np.testing.assert_array_equal(sng.numbers(length, 0, length), (ranks + 0.5) / length)


def test_rounding_up_is_the_other_choice():
    p = np.random.default_rng(3).random(2000)
    for make in (lambda **k: Sobol(2, **k), VanDerCorput, Thermometer):
        counts = sc.encode(p, 256, sng=make(rounding="up")).popcount()
        np.testing.assert_array_equal(counts, np.ceil(p * 256))
        whole, short = (sc.encode(p, n, sng=make(rounding="up")).unpack() for n in (256, 64))
        if make is not Thermometer:
            np.testing.assert_array_equal(whole[:, :64], short)


def test_a_prefix_is_that_of_the_rounded_number():
    p = np.random.default_rng(4).random(500)
    k = np.ceil(p * 256 - 0.5)
    bits = sc.encode(p, 256, sng=Sobol(2)).unpack()
    for n in (1, 16, 64):
        np.testing.assert_array_equal(bits[:, :n].sum(1), np.ceil(n * k / 256))
    np.testing.assert_array_equal(bits, sc.encode(k / 256, 256, sng=Sobol(2, rounding="up")).unpack())


def test_terms_of_one_sign_do_not_add_up_to_an_error():
    assert sc.matmul(np.full((1, 784), 1e-6), np.ones((1, 784)), 256)[0, 0] == 0
    rng = np.random.default_rng(5)
    x, w = rng.random((16, 784)), rng.random((4, 784))
    for length, most in ((256, 0.09), (1024, 0.03)):
        assert np.sqrt(np.mean((sc.matmul(x, w, length) - x @ w.T) ** 2)) < most


def test_far_out_costs_no_more():
    np.testing.assert_array_equal(Halton(541).numbers(2**52, 2**52 - 64, 2**52) < 1, True)
    last = Sobol(2).numbers(2**32, 2**32 - 3, 2**32)
    assert ((last > 0) & (last < 1)).all()
    assert (Sobol(40).numbers(2**32 - 5, 2**32 - 64, 2**32 - 5) < 1).all()
    part = sc.encode(0.5, 2**32, sng=Sobol(1), chunks=(2**26 - 3, 3)).words[-3:].compute()
    assert np.bitwise_count(part).sum() == 96


@pytest.mark.parametrize("sng", SHARED, ids=repr)
def test_a_sequence_can_start_anywhere(sng):
    whole = sng.numbers(5000, 0, 5000)
    for start, stop in [(64, 128), (1024, 5000), (4096, 4097), (4928, 5000)]:
        np.testing.assert_array_equal(sng.numbers(5000, start, stop), whole[start:stop])


def test_threads_may_draw_the_first_sobol_numbers_at_once():
    code = (
        "import sys, threading\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from scdask import Sobol\n"
        "sys.setswitchinterval(1e-6)\n"
        "barrier = threading.Barrier(8)\n"
        "draw = lambda d: (barrier.wait(), Sobol(d).numbers(64, 0, 64).tolist())[1]\n"
        "with ThreadPoolExecutor(8) as pool: drawn = list(pool.map(draw, range(2, 10)))\n"
        "assert drawn == [Sobol(d).numbers(64, 0, 64).tolist() for d in range(2, 10)]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_draws_whatever_its_parent_did():
    code = (
        "import faulthandler, os, threading, time, warnings\n"
        "from scdask import Sobol\n"
        "from scdask.generators import low_discrepancy\n"
        "warnings.simplefilter('ignore')\n"
        "going = True\n"
        "def draw():\n"
        "    while going:\n"
        "        low_discrepancy._directions.cache_clear()\n"
        "        low_discrepancy._table.cache_clear()\n"
        "        Sobol(900).numbers(64, 0, 64)\n"
        "        time.sleep(1e-4)\n"
        "thread = threading.Thread(target=draw, daemon=True)\n"
        "thread.start()\n"
        "for attempt in range(5):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        faulthandler.dump_traceback_later(20, exit=True)\n"
        "        os._exit(int(Sobol(2 + attempt).numbers(64, 0, 64).sum()) != 32)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "going = False\n"
        "thread.join(10)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_long_lfsr_starts_far_out_at_once():
    lfsr = LFSR(width=20, taps=(20, 17))
    period = 2**20 - 1
    np.testing.assert_array_equal(
        lfsr.numbers(2**50, 64 * period + 64 * 5, 64 * period + 64 * 5 + 9), lfsr.numbers(2**50, 320, 329)
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bernoulli(-1), "-1"),
        (lambda: Bernoulli(2**64), "18446744073709551616"),
        (lambda: Bernoulli(0.5), "0.5"),
        (lambda: LFSR(seed=0), "seed"),
        (lambda: LFSR(seed=2**16), "65536"),
        (lambda: LFSR(width=1, taps=(1,)), "width"),
        (lambda: LFSR(taps=(14, 13)), "16"),
        (lambda: LFSR(taps=(16, 17)), "17"),
        (lambda: LFSR(taps=(16, 16)), "different"),
        (lambda: LFSR(shift="up"), "'up'"),
        (lambda: Sobol(0), "0"),
        (lambda: Sobol(21202), "21202"),
        (lambda: Halton(4), "4"),
        (lambda: Halton(1), "1"),
        (lambda: Sobol(1, seed=-1), "a seed"),
        (lambda: Sobol(1, rounding="down"), "'down'"),
        (lambda: VanDerCorput(rounding=None), "None"),
    ],
)
def test_generators_refuse(make, message):
    with pytest.raises(BitstreamError, match=message):
        make()


def test_generators_are_values():
    assert Bernoulli(np.int64(3)) == Bernoulli(3)
    assert hash(LFSR()) == hash(LFSR(16, [16, 14, 13, 11]))
    assert Sobol(1) != Sobol(2)
    assert repr(Sobol(2)) == "Sobol(dimension=2)"
    for sng in (Sobol(2, seed=3, rounding="up"), VanDerCorput(), LFSR(8, spread=True), Bernoulli(3, shared=True)):
        assert eval(repr(sng)) == sng
    with pytest.raises(AttributeError):
        Sobol(1).dimension = 2


def test_a_generator_of_ones_own():
    class Constant(sc.SNG):
        def __init__(self, number):
            self.number = number

        def numbers(self, length, start, stop):
            return np.full(stop - start, self.number)

    assert sc.encode([0.3, 0.7], 100, sng=Constant(0.5)).popcount().tolist() == [0, 100]
    for number in (1.0, np.nan, -0.1):
        with pytest.raises(BitstreamError, match="numbers from 0 up to 1"):
            sc.encode([0.3], 100, sng=Constant(number))
    Constant.__hash__ = None
    with pytest.raises(BitstreamError, match="hashable"):
        sc.encode([0.3], 100, sng=Constant(0.5))


@dataclass(frozen=True)
class Rotated(sc.SNG):
    last: int = 1

    def own_numbers(self, length, start, stop, streams):
        return (np.arange(start, stop) / length + streams[:, None] / 7) % self.last


def test_a_generator_with_numbers_for_each_element(backend, monkeypatch):
    p = np.random.default_rng(6).random((2, 2))
    numbers = Rotated().own_numbers(300, 0, 300, np.arange(4, dtype=np.uint64)).reshape(2, 2, 300)
    for at_once, rows in ((2**21, 2), (256, 1)):  # in one tile, and in tiles of a stream's first words and its last
        monkeypatch.setattr("scdask.vector_ops.encoding.OWN_NUMBERS", at_once)
        stream = sc.encode(backend.array(p[:rows]), 300, sng=Rotated())
        np.testing.assert_array_equal(backend.host(stream.unpack()), (numbers < p[..., None])[:rows])
    with pytest.raises(BitstreamError, match="for each of"):
        sc.encode(p, 300, sng=Rotated(last=2))
    np.testing.assert_array_equal(Rotated().numbers(300, 64, 200), numbers[0, 0, 64:200])
    with pytest.raises(BitstreamError, match="Neither has neither"):
        sc.encode(p, 300, sng=type("Neither", (sc.SNG,), {})())


@pytest.mark.parametrize(
    "make",
    [
        lambda n: np.full(n, 0.3),
        lambda n: np.arange(n) / 1e9,
        lambda n: 1 - np.arange(1, n + 1) / 2**53,
        lambda n: (np.arange(n) % 3 / 4).tolist(),
        lambda n: np.arange(n) % 2,
        lambda n: np.zeros(n, np.longdouble),
    ],
)
def test_numbers_may_repeat_and_crowd(make):
    class Given(sc.SNG):
        def numbers(self, length, start, stop):
            return make(length)[start:stop]

    if np.max(make(700)) >= 1:
        with pytest.raises(BitstreamError, match="from 0 up to 1"):
            sc.encode(0.5, 700, sng=Given())
        return
    numbers = np.asarray(make(700), float)
    p = np.concatenate([[0, 1, 0.5, 1 / 3, 1e-300], numbers[:20], np.nextafter(numbers[:20], 1)])
    np.testing.assert_array_equal(sc.encode(p, 700, sng=Given()).unpack(), numbers < p[:, None])


def test_a_high_sobol_dimension():
    sobol = Sobol(5000, rounding="up")
    numbers = sobol.numbers(10_000, 0, 10_000)
    np.testing.assert_array_equal(sobol.numbers(10_000, 6016, 10_000), numbers[6016:])
    assert np.sort(numbers[:8192]).tolist() == (np.arange(8192) / 8192).tolist()


# which of them go together


def test_product_errors_are_measured():
    for wrong in ((1, Sobol(1)), (Sobol(1), Sobol(2), 0)):
        with pytest.raises(BitstreamError):
            product_error(*wrong)
    p = np.arange(33) / 32
    for a, b in ((Sobol(1), Sobol(2)), (VanDerCorput(), Halton(3)), (LFSR(8), Sobol(3))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            products = (sc.encode(p[:, None], 64, sng=a) & sc.encode(p, 64, sng=b)).decode()
        assert product_error(a, b, 64) == pytest.approx(np.sqrt(np.mean((products - np.outer(p, p)) ** 2)), rel=1e-5)


def test_independent_generators_are():
    most = sc.independent(13)
    assert most[:3] == [Sobol(1), Sobol(2), Sobol(3)] == sc.independent(3)
    for i, a in enumerate(most):
        for b in most[:i]:
            assert product_error(a, b) < 0.0121
    assert sc.independent(2, seed=4) == [Sobol(1, seed=4), Sobol(2, seed=4)]
    for wrong, message in ((0, "from 1 on, not 0"), (64, "13 dimensions"), (2.0, "2.0")):
        with pytest.raises(BitstreamError, match=message):
            sc.independent(wrong)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (Sobol(1), Sobol(1)),
        (Bernoulli(0), Bernoulli(0)),
        (VanDerCorput(), Sobol(2)),
        (Sobol(5), Sobol(40)),
        (LFSR(53, seed=5), LFSR(53, seed=7)),
    ],
)
def test_gates_of_streams_that_correlate_warn(a, b):
    x, y = sc.encode([0.5, 0.25], 256, sng=a), sc.encode([0.5, 0.75], 256, sng=b)
    gates = [lambda: x & y, lambda: sc.xnor(x, y), lambda: sc.mux(x, y, ~x), lambda: x | y, lambda: x ^ y]
    for gate in gates[: 3 if a == b else 5]:  # OR and XOR of equal generators are the maximum and the difference.
        with pytest.warns(sc.CorrelationWarning, match="correlate") as told:
            gate()
        assert len(told) == 1
        assert told[0].filename == __file__
    with pytest.warns(sc.CorrelationWarning):
        sc.matmul([[0.5]], [[0.5]], 256, x_sng=a, w_sng=b)
    with pytest.warns(sc.CorrelationWarning) as told:
        sc.SCDense([[0.5]], [0], x_sng=a, w_sng=b)
    assert told[0].filename == __file__


def test_gates_of_other_streams_do_not():
    def streams(*sngs):
        return [sc.encode([0.5, 0.25], 64, sng=sng) for sng in sngs]

    pairs = [sc.independent(2), (Bernoulli(1), Bernoulli(2)), (Thermometer(), Sobol(1)), (LFSR(), Sobol(1))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pair in pairs:
            a, b = streams(*pair)
            sc.mux(a, b, b)
            (a & b) ^ (a | b)
        (a,) = streams(Bernoulli(0))
        a[0] & a[1]  # elements have numbers of their own
        sc.broadcast_to(a, (2, 2)) & sc.concatenate([a, a])[None, :2]


def test_multiply_takes_the_gate_of_the_polarity():
    for polarity, p, q in (("unipolar", 0.5, 0.75), ("bipolar", -0.5, 0.75)):
        a, b = (sc.encode(v, 1024, polarity=polarity, sng=s) for v, s in zip((p, q), sc.independent(2), strict=True))
        assert sc.multiply(a, b).decode() == p * q
    with pytest.raises(BitstreamError, match="polarity"):
        sc.multiply(a, sc.encode(0.5, 1024))

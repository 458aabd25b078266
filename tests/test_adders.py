"""Adders of streams along an axis, against plain loops over their bits."""

from types import SimpleNamespace

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bernoulli, Bitstream, BitstreamError, Sobol, vector_ops
from scdask.arithmetic import add, or_add, scaled_add
from scdask.core import dispatch, metering
from scdask.core.contract import count_columns
from scdask.vector_ops.adders import accumulate


def accumulator(columns, state, scale, offset, low, high):
    """The output of one accumulator, and what it holds in the end."""
    out = []
    for ones in columns:
        state += ones - offset
        out.append(int(state >= scale))
        state = min(max(state - scale * out[-1], low), high)
    return out, state


def by_loops(bits, start, *, scale, offset, low, high, worth=1, digits=1):
    *lead, n, _ = bits.shape
    weights = worth * 2 ** (np.arange(n) % digits)
    out, states = np.zeros((*lead, bits.shape[-1]), np.uint8), np.zeros(lead, int)
    for at in np.ndindex(*lead):
        columns = (bits[at].astype(int) * weights[:, None]).sum(0).tolist()
        first = int(np.broadcast_to(start, lead)[at])
        out[at], states[at] = accumulator(columns, first, scale, offset, low, high)
    return out, states


def bits_of(shape, seed=0, p=0.5):
    return (np.random.default_rng(seed).random(shape) < p).astype(np.uint8)


def streams(bits, polarity="unipolar"):
    return Bitstream(vector_ops.pack_bitstream(bits), bits.shape[-1], polarity)


def check(result, states, expected, backend=None):
    host = backend.host if backend else np.asarray
    found = Bitstream(host(result), expected[0].shape[-1])  # The constructor checks the padding.
    np.testing.assert_array_equal(found.unpack(), expected[0])
    np.testing.assert_array_equal(host(states), expected[1])


numbers = st.fixed_dictionaries(
    {
        "scale": st.integers(1, 40),
        "offset": st.integers(-3, 20),
        "low": st.integers(-40, 0),
        "high": st.integers(0, 60),
        "worth": st.integers(1, 2),
    }
)


@settings(max_examples=40)
@given(numbers, st.integers(1, 40) | st.just(150), st.sampled_from([1, 2, 3]), st.integers(1, 200), st.data())
def test_any_adder_is_its_loop(given, groups, digits, length, data):
    rows = data.draw(st.integers(0, 9))
    bits = bits_of((rows, 2, groups * digits, length), data.draw(st.integers(0, 99)), data.draw(st.floats(0.05, 0.95)))
    start = np.random.default_rng(1).integers(given["low"], given["high"] + 1, (rows, 1))
    words = vector_ops.pack_bitstream(bits)
    kept = words.copy()
    found = accumulate(words, digits=digits, length=length, start=start, **given)
    check(*found, by_loops(bits, start, digits=digits, **given))
    np.testing.assert_array_equal(words, kept)


NUMBERS = {"scale": 9, "offset": 3, "low": -20, "high": 30, "worth": 2}
SHAPES = [(17, 5, 300), (2, 1, 16, 70)]  # of which XLA leaves the first to the kernels


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_library_does_the_same(backend, shape):
    bits = bits_of(shape, p=0.3)
    words = backend.array(vector_ops.pack_bitstream(bits))
    start = np.arange(np.prod(shape[:-2]), dtype=int).reshape(shape[:-2]) - 10
    for first in (start, backend.array(start)):
        check(*accumulate(words, length=shape[-1], start=first, **NUMBERS), by_loops(bits, start, **NUMBERS), backend)
    with pytest.raises(BitstreamError, match="an accumulator is an integer from -20 to 30, not "):
        backend.host(accumulate(words, length=shape[-1], start=backend.array(start + 41), **NUMBERS)[0])


def test_counts_are_binary_digits_in_every_library(backend):
    for rows, digits in ((1, 1), (7, 1), (6, 2), (9, 3)):
        bits = bits_of((2, rows, 130), rows)
        counts = (bits * 2 ** (np.arange(rows) % digits)[:, None]).sum(-2)
        words = backend.array(vector_ops.pack_bitstream(bits))
        if backend.lazy and digits > 1:
            words = words.rechunk({1: rows})
        digit = vector_ops.unpack_bitstream(backend.host(count_columns(words, digits, 7)), 130).astype(int)
        np.testing.assert_array_equal((digit << np.arange(7)[:, None]).sum(-2), counts)


def cuts(n):
    """Chunks of an axis."""
    return st.lists(st.integers(1, n), max_size=2).map(
        lambda sizes: tuple(np.diff([0, *sorted({min(s, n) for s in np.cumsum(sizes).tolist()} | {n})]).tolist())
    )


CIRCUITS = {
    "scaled": lambda x, start: scaled_add(x, axis=1, start=start, return_states=True),
    "saturating": lambda x, start: add(x, axis=1, depth=6, start=start, return_states=True),
    "or": lambda x, start: (or_add(x, axis=1), np.zeros((3, 2), int)),
}


@pytest.mark.parametrize("circuit", CIRCUITS.values(), ids=CIRCUITS)
@pytest.mark.parametrize("threads", [1, 32])
@settings(max_examples=8)
@given(st.data())
def test_chunks_do_not_matter(circuit, threads, data):
    bits = bits_of((3, 20, 2, 500), p=0.06)
    start = np.array([[0], [5], [19]])
    expected, states = circuit(streams(bits), start)
    chunks = tuple(data.draw(cuts(n)) for n in (3, 20, 2, 8))
    with dask.config.set(scheduler=_no_computing, num_workers=threads):
        lazy, last = circuit(streams(bits).rechunk(chunks), da.from_array(start, chunks=data.draw(st.integers(1, 3))))
    assert lazy.chunks
    with dask.config.set(scheduler="synchronous"):
        check(lazy.words.compute(), np.asarray(last), (expected.unpack(), states))


def _no_computing(*args, **kwargs):
    raise AssertionError("computed")


def test_workers_meter_the_bits_that_are_added(monkeypatch):
    done = []
    meter = SimpleNamespace(add=lambda backend, work, seconds: done.append((work.operation, work.bitops)))
    worker = SimpleNamespace(plugins={metering.METER: meter})
    x = streams(bits_of((2, 40, 1000)))
    monkeypatch.setattr(dispatch, "worker_of_this_task", lambda: worker)
    scaled_add(x)
    assert done == [("machine", 2 * 40 * 1000)]
    add(x.rechunk((2, 30, -1))).compute(scheduler="synchronous")
    assert {operation for operation, _ in done} == {"machine", "popcount"}


def test_no_chunk_grows():
    """Neither along time nor along the axis: blocks are counted before they are put together."""
    lazy = streams(bits_of((2, 40, 1000))).rechunk((1, 4, 3))
    for result in (scaled_add(lazy), add(lazy)):
        assert result.chunks == ((1, 1), (3, 3, 3, 3, 3, 1))
        for block in result.words.__dask_graph__().layers.values():
            assert not any("rechunk" in str(key) for key in block)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("correlated", [False, True])
def test_a_scaled_sum_is_exact_to_less_than_a_bit(n, correlated):
    p = np.random.default_rng(n).random((5, n))
    x = sc.encode(p, 200, sng=Sobol(1) if correlated else Bernoulli(2))
    np.testing.assert_array_equal(scaled_add(x).popcount(), x.popcount().sum(-1) // n)
    nearest, rest = scaled_add(x, start=n // 2, return_states=True)
    np.testing.assert_array_equal(nearest.popcount(), (x.popcount().sum(-1) + n // 2) // n)
    np.testing.assert_array_equal(rest, (x.popcount().sum(-1) + n // 2) % n)
    mean = scaled_add(sc.encode(2 * p - 1, 200, polarity="bipolar", sng=Sobol(1)))
    assert mean.polarity == "bipolar"
    assert np.abs(mean.decode() - (2 * p - 1).mean(-1)).max() < 3 / 200


def test_the_figures_of_unary_adders():
    """Streams of one Sobol sequence that is compared with the numbers themselves."""
    sobol = Sobol(1, rounding="up")
    p = np.random.default_rng(0).random(8)
    assert round(p.mean(), 4) == 0.5033
    assert round(float(scaled_add(sc.encode(p, 256, sng=sobol)).decode()), 4) == 0.5039
    assert round(float(add(sc.encode([0.1, 0.15, 0.2], 256, sng=sobol)).decode()), 4) == 0.4492


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
@pytest.mark.parametrize("n", [2, 5, 16])
def test_a_saturating_sum_is_that_of_unary_adders(polarity, n):
    """In halves where the offset (n - 1) / 2 is one, with a clip before and after the output."""
    bits = bits_of((3, n, 700), n, {"unipolar": 0.9 / n, "bipolar": 0.5}[polarity])
    bits[1] = bits_of((n, 700), n, 0.8)
    found = add(streams(bits, polarity), depth=5)
    offset = 0 if polarity == "unipolar" else (n - 1) / 2
    for row, expected in zip(bits, found.unpack(), strict=True):
        held, out = 0.0, []
        for ones in row.sum(0).tolist():
            held = min(max(held + ones - offset, -16), 16)
            out.append(held >= 1)
            held = min(max(held - out[-1], -16), 16)
        np.testing.assert_array_equal(out, expected)


def test_a_saturating_sum_is_clipped():
    unipolar = sc.encode([[0.2, 0.3, 0.25], [0.7, 0.9, 0.1]], 4096, sng=Bernoulli(3))
    np.testing.assert_allclose(add(unipolar).decode(), unipolar.decode().sum(-1).clip(0, 1), atol=0.005)
    v = [[0.2, -0.3, 0.4], [-0.9, -0.5, 0.1], [0.9, 0.9, 0.8], [0.5, 0, -1]]
    bipolar = sc.encode(v, 4096, polarity="bipolar", sng=Bernoulli(3))
    np.testing.assert_allclose(add(bipolar).decode(), bipolar.decode().sum(-1).clip(-1, 1), atol=0.01)


@pytest.mark.parametrize("n", [3, 32, 100])
def test_a_sum_of_streams_that_overlap_lacks_what_is_left(n):
    p = np.random.default_rng(n).uniform(0, 2 / n, (500, n))
    p *= 0.9 / p.sum(-1, keepdims=True)
    x = sc.encode(p, 256, sng=Sobol(1))
    total, left = add(x, return_states=True)
    np.testing.assert_array_equal(total.popcount() + left, x.popcount().sum(-1))
    assert left.max() <= n


@pytest.mark.parametrize("circuit", list(CIRCUITS.values())[:2], ids=list(CIRCUITS)[:2])
def test_a_run_goes_on_in_parts(circuit):
    x = streams(bits_of((2, 4, 3, 300), p=0.3), "bipolar")
    whole, last = circuit(x, None)
    for part in (x, x.rechunk((1, 3, 3, 1))):
        first, states = circuit(part.bits[:100], None)
        second, end = circuit(part.bits[100:], states)
        assert states.dtype == end.dtype == last.dtype == np.int32
        joined = np.concatenate([each.compute().unpack() for each in (first, second)], -1)
        np.testing.assert_array_equal(joined, whole.unpack())
        np.testing.assert_array_equal(np.asarray(end), last)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_generator_chooses_streams(n):
    bits, select = bits_of((2, n, 300)), Bernoulli(7, shared=True)
    x = streams(bits, "bipolar")
    found = scaled_add(x, select=select)
    chosen = (n * select.numbers(300, 0, 300)).astype(int)
    expected = np.take_along_axis(bits, np.broadcast_to(chosen, (2, 1, 300)), 1)[:, 0]
    np.testing.assert_array_equal(found.unpack(), expected)
    assert found.polarity == "bipolar"
    lazy = scaled_add(x.rechunk((1, 2, 3)), select=select)
    assert lazy.chunks == ((1, 1), (3, 2))
    np.testing.assert_array_equal(lazy.compute().unpack(), expected)


def test_streams_choose_streams(backend):
    bits, digits = bits_of((3, 8, 130), 1), bits_of((3, 130), 2)
    x, select = (stream.map_words(backend.array) for stream in (streams(bits), streams(digits)))
    chosen = (digits.astype(int) << np.arange(3)[:, None]).sum(0)
    expected = np.take_along_axis(bits, np.broadcast_to(chosen, (3, 1, 130)), 1)[:, 0]
    found = scaled_add(x, select=select)
    np.testing.assert_array_equal(backend.host(found.words), vector_ops.pack_bitstream(expected))


def test_multiplexers_add_what_is_independent_of_their_selects():
    p = np.linspace(0.1, 0.8, 8)
    x = sc.encode(p, 4096, sng=Sobol(1))
    for select in (Sobol(2), Bernoulli(1, shared=True), [sc.encode(0.5, 4096, sng=Bernoulli(s)) for s in (1, 2, 3)]):
        assert abs(float(scaled_add(x, select=select).decode()) - p.mean()) < 0.03
    with pytest.warns(sc.CorrelationWarning, match="MUX of streams of equal generators"):
        scaled_add(x, select=Sobol(1))


def test_or_is_or_in_every_library(backend):
    bits = bits_of((2, 9, 3, 130), p=0.1)
    found = or_add(streams(bits).map_words(backend.array), axis=1)
    np.testing.assert_array_equal(backend.host(found.words), vector_ops.pack_bitstream(bits.max(1)))


def test_or_adds_streams_that_exclude_each_other():
    p = np.array([0.1, 0.25, 0.05, 0.3])
    ends = np.append(0, p.cumsum())
    marks = sc.encode(ends, 1000, sng=Sobol(1))
    apart = marks[1:] ^ marks[:-1]
    assert abs(float(or_add(apart).decode()) - p.sum()) < 1e-12
    independent = or_add(sc.encode(p, 2**14, sng=Bernoulli(1)))
    assert abs(float(independent.decode()) - (1 - np.prod(1 - p))) < 4 * 0.5 / 2**7


@pytest.mark.component("jax")
def test_adders_under_jit_and_vmap(monkeypatch):
    import jax

    from scdask.jax_backend import adders, ffi, to_jax

    bits = bits_of((4, 3, 6, 200), p=0.3)
    x = to_jax(streams(bits))
    starts = to_jax(np.array([0, 1, 2, 5]))
    expected = scaled_add(streams(bits), start=np.array([[0], [1], [2], [5]]), return_states=True)
    for least in (1, 2**60):
        monkeypatch.setattr(adders, "MANY", least)
        monkeypatch.setattr(adders, "PART", 1)
        monkeypatch.setattr(ffi, "CPU_COUNT", 3)
        with jax.enable_x64(True):
            one = lambda x, start: scaled_add(x, start=start, return_states=True)  # noqa: E731
            for found in (jax.jit(one)(x, starts[:, None]), jax.vmap(one)(x, starts)):
                check(found[0].words, found[1], (expected[0].unpack(), expected[1]))
            both = jax.vmap(one, in_axes=(None, 0))(x[0], starts)
            again = scaled_add(streams(np.broadcast_to(bits[0], bits.shape)), start=np.array([[0], [1], [2], [5]]))
            np.testing.assert_array_equal(np.asarray(both[0].words), again.words)


UNIPOLAR, BIPOLAR = streams(bits_of((2, 3, 100))), streams(bits_of((2, 3, 100)), "bipolar")
HALF = streams(bits_of((1, 100)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: add(UNIPOLAR.words), "only Bitstreams combine, not ndarray"),
        (lambda: add(UNIPOLAR, axis=2), "no axis 2: the streams have 2 axes"),
        (lambda: scaled_add(UNIPOLAR[0, 0]), "no axis -1: the streams have 0 axes"),
        (lambda: or_add(UNIPOLAR, axis=0.5), "an axis is an integer"),
        (lambda: scaled_add([UNIPOLAR, UNIPOLAR]), "put them together with scdask.stack"),
        (lambda: scaled_add(UNIPOLAR, UNIPOLAR), "put them together with scdask.stack"),
        (lambda: or_add((UNIPOLAR, UNIPOLAR)), "put them together with scdask.stack"),
        (lambda: scaled_add(UNIPOLAR[:, :2], select=HALF[0]), r"a sequence of Bitstreams, not Bitstream\(shape=\(\)"),
        (lambda: scaled_add(UNIPOLAR, select=2), "an SNG, or a sequence of Bitstreams, not 2"),
        (lambda: or_add(BIPOLAR), "OR adds unipolar streams, not bipolar ones"),
        (lambda: scaled_add(UNIPOLAR[:, :0]), "one stream at least along axis -1, not 0"),
        (lambda: add(UNIPOLAR, depth=0), "depth of an accumulator is an integer from 1 to 28, not 0"),
        (lambda: add(UNIPOLAR, depth=True), "not True"),
        (lambda: scaled_add(UNIPOLAR, start=3), "an accumulator is an integer from 0 to 2, not 3"),
        (lambda: add(BIPOLAR, depth=3, start=[0, 7]), "an integer from -8 to 6, not 7"),
        (lambda: add(UNIPOLAR, start=0.5), "not of float64"),
        (lambda: add(UNIPOLAR, start=[0, 0, 0]), r"accumulators of shape \(3,\) and streams of shape \(2,\)"),
        (lambda: scaled_add(UNIPOLAR, select=HALF), "1 selects choose from 2 streams, not 3"),
        (lambda: scaled_add(UNIPOLAR, select=Bernoulli(1)), "whose numbers all streams share, not Bernoulli"),
        (lambda: scaled_add(UNIPOLAR[:, :2], select=[HALF[0].bits[:99]]), "length 99 and 100"),
        (lambda: scaled_add(UNIPOLAR, select=Sobol(2), start=1), "go without a select"),
        (lambda: accumulate(np.ones((2**24, 1), np.uint64), scale=1, low=0, high=2**30, length=9), "536870912 at most"),
        (lambda: accumulate(np.ones(4, np.uint64), scale=1, low=0, high=0, length=200), r"n >= 1, not \(4,\)"),
    ],
)
def test_what_does_not_fit_is_a_sentence(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()

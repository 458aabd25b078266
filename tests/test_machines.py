"""Machines and functions along time, against a loop over bits, on every library and in any chunking."""

import pickle

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chunked import names, random_chunks

import scdask as sc
from scdask import Bitstream, BitstreamError, Machine, vector_ops
from scdask.chunked import machines as chunked

TOGGLE = Machine([[0, 1], [1, 0]], [[0, 0], [0, 1]])
COUNTER = Machine.from_step(lambda s, x: (min(max(s + 2 * x - 1, 0), 7), int(s >= 4)), states=8, start=4)
HOLD = Machine.from_step(lambda q, x, y: (x if y else q, x if y else q), states=2, inputs=2)


def by_bits(machine, start, *bits):
    """The bits that a machine writes, and where it ends, step by step."""
    written, state = [], start
    for step in zip(*bits, strict=True):
        column = sum(int(bit) << i for i, bit in enumerate(step))
        tables = [machine.output] if machine.outputs == 1 else machine.output
        written.append([table[state][column] for table in tables])
        state = machine.next_state[state][column]
    return np.array(written, np.uint8).reshape(-1, machine.outputs).T, state


def some_machine(rng, states=None, inputs=None, outputs=None, counter=False):
    s = int(rng.choice([1, 2, 2, 3, 8, 17, 256])) if states is None else states
    k, m = inputs or int(rng.integers(1, 4)), outputs or int(rng.integers(1, 3))
    following = rng.integers(0, s, (s, 2**k))
    if counter:
        following = np.clip(np.arange(s)[:, None] + rng.integers(-2, 3, 2**k), 0, s - 1)
    return Machine(following, rng.integers(0, 2, (m, s, 2**k)[m == 1 :]), int(rng.integers(s)))


def some_streams(rng, machine, lead, length):
    """Streams for a machine, some of which broadcast, and their bits."""
    streams, bits = [], []
    for _ in range(machine.inputs):
        shape = tuple(n if rng.random() < 0.7 else 1 for n in lead)[int(rng.integers(0, 2)) :]
        bits.append((rng.random((*shape, length)) < rng.random((*shape, 1))).astype(np.uint8))
        streams.append(Bitstream(vector_ops.pack_bitstream(bits[-1]), length))
    full = np.broadcast_shapes(*(stream.shape for stream in streams))
    return streams, [np.broadcast_to(each, (*full, length)) for each in bits]


def expected(machine, start, bits):
    full = bits[0].shape[:-1]
    starts = np.broadcast_to(machine.start if start is None else start, full)
    outputs, states = np.zeros((machine.outputs, *bits[0].shape), np.uint8), np.zeros(full, np.uint8)
    for i in np.ndindex(full):
        outputs[(slice(None), *i)], states[i] = by_bits(machine, starts[i], *(each[i] for each in bits))
    return [vector_ops.pack_bitstream(each) for each in outputs], states


def check(results, outputs, states):
    *streams, found = results
    for stream, words in zip(streams, outputs, strict=True):
        np.testing.assert_array_equal(stream.words, words)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, states)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_a_machine_does_what_a_loop_over_bits_does(seed, length):
    rng = np.random.default_rng(seed)
    machine = some_machine(rng)
    streams, bits = some_streams(rng, machine, tuple(rng.integers(1, 4, 2)), length)
    start = rng.integers(0, machine.states, bits[0].shape[1:-1]) if seed % 2 else None
    check(sc.run(machine, *streams, start=start, return_states=True), *expected(machine, start, bits))


@pytest.mark.parametrize("states", [2, 256])
@pytest.mark.parametrize("length", [64 * 300 + 17, 64 * 256])
def test_long_streams(states, length):
    rng = np.random.default_rng(states)
    machine = some_machine(rng, states, inputs=2, outputs=2)
    streams, bits = some_streams(rng, machine, (2,), length)
    check(sc.run(machine, *streams, return_states=True), *expected(machine, None, bits))


@pytest.mark.parametrize(("states", "inputs"), [(2, 2), (3, 2), (8, 1), (16, 1), (13, 2), (8, 3), (40, 1), (200, 2)])
def test_many_streams(states, inputs):
    """Kernels take 32 streams at a time, 16, 4 or 1, and 8 words at a time: here none of these divides."""
    rng = np.random.default_rng(states)
    for outputs, rows, length in ((1, 71, 64 * 9), (2, 41, 64 * 11 + 13), (1, 9, 7)):
        machine = some_machine(rng, states, inputs, outputs)
        words = rng.integers(0, 2**64, (inputs, rows, -(-length // 64)), dtype=np.uint64)
        streams = [Bitstream(vector_ops.mask_tail(each, length), length) for each in words]
        start = rng.integers(0, states, rows)
        bits = [stream.unpack() for stream in streams]
        check(sc.run(machine, *streams, start=start, return_states=True), *expected(machine, start, bits))


@pytest.mark.parametrize("seed", range(6))
def test_every_library_gives_the_same_bits(backend, seed):
    rng = np.random.default_rng(seed)
    machine = some_machine(rng, states=[2, 3, 256][seed % 3], inputs=1 + seed % 3, outputs=1 + seed % 2)
    streams, bits = some_streams(rng, machine, (2, 2), [130, 64, 7][seed // 2])
    start = rng.integers(0, machine.states, bits[0].shape[1:-1])
    outputs, states = expected(machine, start, bits)
    given = [stream.map_words(backend.array) for stream in streams]
    with dask.config.set(num_workers=[1, 1000][seed % 2]):
        *found, last = sc.run(machine, *given, start=start, return_states=True)
    for stream, words in zip(found, outputs, strict=True):
        np.testing.assert_array_equal(backend.host(stream.words), words)
    np.testing.assert_array_equal(backend.host(last), states)


@pytest.mark.filterwarnings("ignore:Increasing number of chunks")
@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 10**6]))
def test_the_result_does_not_depend_on_chunks(seed, threads):
    rng = np.random.default_rng(seed)
    machine = some_machine(rng, counter=seed % 2)
    length = int(rng.integers(1, 900))
    streams, _ = some_streams(rng, machine, (2, 3), length)
    full = np.broadcast_shapes(*(stream.shape for stream in streams))
    start = rng.integers(0, machine.states, full) if seed % 3 else None
    *outputs, states = sc.run(machine, *streams, start=start, return_states=True)
    lazy = [stream.rechunk(random_chunks(rng, stream.words.shape)) for stream in streams]
    if seed % 5 and start is not None:
        start = da.from_array(start, chunks=random_chunks(rng, full))
    with dask.config.set(num_workers=threads, scheduler="sync"):
        results = dask.compute(*sc.run(machine, *lazy, start=start, return_states=True))
    check(results, [output.words for output in outputs], states)


def test_the_maps_of_blocks_are_used_where_there_are_more_threads_than_rows():
    x = sc.encode(np.linspace(0, 1, 6), 64 * 40, sng=sc.Sobol(1)).rechunk((3, 4))
    for machine, threads, mapped in ((COUNTER, 1, False), (COUNTER, 8, True), (TOGGLE, 4, False), (TOGGLE, 8, True)):
        with dask.config.set(num_workers=threads):
            lazy, states = sc.run(machine, x, return_states=True)
        assert ("sc-machine-map" in names(lazy)) == mapped
        found = dask.compute(lazy, states)
        check(found, [sc.run(machine, x.compute()).words], sc.run(machine, x.compute(), return_states=True)[1])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_what_a_block_does_to_each_state(seed):
    rng = np.random.default_rng(seed)
    machine = some_machine(rng, states=int(rng.integers(1, 20)), counter=seed % 2)
    length = int(rng.integers(1, 1200))
    _, bits = some_streams(rng, machine, (3,), length)
    if seed % 3:
        bits = [np.broadcast_to(np.arange(length) // (i + 1) % 2, each.shape) for i, each in enumerate(bits)]
    maps = vector_ops.machines.state_map(machine, *map(vector_ops.pack_bitstream, bits), length=length)
    for start in range(machine.states):
        np.testing.assert_array_equal(maps[..., start], expected(machine, start, bits)[1])


@pytest.mark.parametrize("threads", [1, 10**6])
def test_a_lazy_start_of_no_axes(threads):
    x = sc.encode(np.linspace(0, 1, 6), 640, sng=sc.Bernoulli(1))
    outputs, states = sc.run(COUNTER, x, start=3, return_states=True)
    parity = sc.map_time(running_parity, x, state=np.uint8(1))
    with dask.config.set(num_workers=threads, scheduler="sync"):
        lazy = x.rechunk((2, 3))
        results = dask.compute(*sc.run(COUNTER, lazy, start=da.from_array(np.array(3)), return_states=True))
        found = sc.map_time(running_parity, lazy, state=da.from_array(np.array(1, np.uint8))).compute()
    check(results, [outputs.words], states)
    np.testing.assert_array_equal(found.words, parity.words)
    assert {type(results[1]), type(results[0].words), type(found.words)} == {np.ndarray}


@pytest.mark.parametrize("threads", [1, 10**6])
@pytest.mark.parametrize("wrong", [-1, 255])
def test_the_last_states_of_what_is_no_state_are_an_error(threads, wrong):
    x = sc.encode(np.linspace(0, 1, 6), 640, sng=sc.Bernoulli(1), chunks=(2, 3))
    with dask.config.set(num_workers=threads, scheduler="sync"):
        _, states = sc.run(COUNTER, x, start=da.from_array(np.array([3] * 5 + [wrong]), chunks=2), return_states=True)
        with pytest.raises(BitstreamError, match=f"has no state {wrong}"):
            states.compute()


def test_time_in_parts_is_time_as_a_whole():
    x = sc.encode(np.linspace(0, 1, 5), 1000, sng=sc.Bernoulli(1))
    for machine in (COUNTER, TOGGLE):
        first, states = sc.run(machine, x.bits[:333], return_states=True)
        second = sc.run(machine, x.bits[333:], start=states)
        whole = sc.run(machine, x).unpack()
        np.testing.assert_array_equal(np.concatenate([first.unpack(), second.unpack()], -1), whole)


def test_lazy_streams_keep_their_chunks_and_nothing_is_computed():
    x = sc.encode(np.linspace(0, 1, 6), 640, sng=sc.Sobol(1), chunks=(2, 3))

    def refuse(*args, **kwargs):
        raise AssertionError("a graph was computed while it was built")

    with dask.config.set(scheduler=refuse):
        y, states = sc.run(COUNTER, x, return_states=True)
        z = sc.map_time(lambda words, length: words, x)
    assert y.chunks == z.chunks == x.chunks
    assert states.chunks == x.chunks[:1]
    assert not any("rechunk" in name for name in names(y))


def test_unknown_numbers_of_streams():
    x = sc.encode(np.linspace(0, 1, 8), 300, sng=sc.Sobol(1))
    chosen = x.rechunk((4, 2)).words[da.from_array(np.arange(8) % 3 == 0, chunks=4)]
    y, states = sc.run(COUNTER, Bitstream(chosen, 300), return_states=True)
    whole, ends = sc.run(COUNTER, x, return_states=True)
    np.testing.assert_array_equal(y.compute().words, whole.words[::3])
    np.testing.assert_array_equal(states.compute(), ends[::3])
    with pytest.raises(BitstreamError, match=r"chunks of .* streams do not combine"):
        sc.run(
            HOLD, Bitstream(chosen, 300), Bitstream(x.rechunk((4, 2)).words[da.arange(8, chunks=4) > 3], 300)
        ).compute()


def test_workers_run_the_blocks_of_a_row_one_after_the_other(cluster):
    x = sc.encode(np.linspace(0.1, 0.9, 6), 64 * 50, sng=sc.Bernoulli(2))
    lazy = sc.run(COUNTER, x.rechunk((2, 7)))
    np.testing.assert_array_equal(cluster.compute(lazy).result().words, sc.run(COUNTER, x).words)


def test_polarity_is_that_of_the_first_stream_or_as_told():
    x, y = sc.encode(0.5, 64, polarity="bipolar"), sc.encode(0.5, 64)
    assert sc.run(HOLD, x, y).polarity == "bipolar"
    assert sc.run(HOLD, x, y, polarity="unipolar").polarity == "unipolar"
    with pytest.raises(BitstreamError, match="polarity"):
        sc.run(HOLD, x, y, polarity="both")


def test_inputs_are_not_written_to():
    words = np.full((2, 3), 2**63 + 5, np.uint64)
    start = np.array([1, 2], np.uint8)
    for array in (words, start):
        array.flags.writeable = False
    *_, states = vector_ops.run_machine(COUNTER, words, length=192, start=start)
    assert states.flags.writeable
    assert start.tolist() == [1, 2]


def test_machines_are_values():
    same = Machine(np.array([[0, 1], [1, 0]]), [[False, False], [False, True]])
    assert same == TOGGLE != HOLD
    assert len({same, TOGGLE, HOLD}) == 2
    assert same.look_ups is same.look_ups
    copy = pickle.loads(pickle.dumps(same))
    assert copy == same
    assert "look_ups" not in vars(copy)
    assert dask.base.tokenize(same) == dask.base.tokenize(TOGGLE) != dask.base.tokenize(HOLD)
    with pytest.raises(AttributeError):
        same.start = 1
    assert Machine([[1, 0], [0, 1]], [1, 0]) == Machine([[1, 0], [0, 1]], [[1, 1], [0, 0]])
    assert repr(COUNTER) == "<Machine of 8 states, 1 input, 1 output, start 4>"


def test_a_machine_shows_its_tables():
    html = Machine.from_step(lambda s, x, y: (s ^ x, x & y, s), 2, 2, start=1)._repr_html_()
    for text in ("xy = 10", "1 (start)", "0 / 01", "Next state / the bits of both outputs"):
        assert text in html
    long = COUNTER.from_step(lambda s, x: (s, x), 100)._repr_html_()
    assert "The first 16 of 100 states." in long
    assert long.count("<tr>") == 17


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Machine([[0, 1, 0]], [[0, 0, 0]]), r"next_state has the shape .* not \(1, 3\)"),
        (lambda: Machine(np.zeros((257, 2), int), np.zeros(257, int)), r"1 to 256 states S, not \(257, 2\)"),
        (lambda: Machine([[0, 2]], [[0, 0]]), r"next_state holds 0 to 0, not 2 at \(0, 1\)"),
        (lambda: Machine([[0, 0]], [[0, -1]]), r"output holds 0 to 1, not -1 at \(0, 1\)"),
        (lambda: Machine([[0, 0]], [[0, 0], [0, 0]]), r"output of a machine .* not \(2, 2\)"),
        (lambda: Machine([[0, 0]], [[0.0, 1.0]]), "output of a machine is a rectangular table of integers"),
        (lambda: Machine([[0, 0], [0]], [0, 0]), "next_state of a machine is a rectangular table"),
        (lambda: Machine([[0, 0]], [0], start=1), "a machine of 1 states starts in 0 to 0, not 1"),
        (lambda: Machine.from_step(lambda s, x: (s, x), 0), "states of a machine: an integer from 1 to 256, not 0"),
        (lambda: Machine.from_step(lambda s, x: (s, x), 2, inputs=4), "inputs of a machine: .* not 4"),
        (
            lambda: Machine.from_step(lambda s, x: (s,), 2),
            r"step\(0, 0\) gives \(0,\), and not a tuple of the next state",
        ),
        (
            lambda: Machine.from_step(lambda s, x: None, 2),
            r"step\(0, 0\) gives None, and not a tuple of the next state",
        ),
        (
            lambda: Machine.from_step(lambda s, x: (s, (x, x)), 2),
            r"step\(0, 0\) gives \(0, \(0, 0\)\), and not a tuple",
        ),
        (
            lambda: Machine.from_step(lambda s, x, y: (s + (x & y), 0), 2, 2),
            r"step\(1, 1, 1\) gives \(2, 0\): a state is an integer from 0 to 1, not 2",
        ),
        (lambda: Machine.from_step(lambda s, x: (s, x / 2), 2), r"\(0, 0.0\): an output bit is an integer from 0 to 1"),
        (lambda: Machine.from_step(lambda s, x: (s, *[x] * (1 + s)), 2), "the same number each time"),
    ],
)
def test_what_is_no_machine_is_an_error(build, message):
    with pytest.raises(BitstreamError, match=message):
        build()


def test_what_does_not_fit_a_machine_is_an_error():
    x = sc.encode([0.5, 0.5], 100)
    for call, message in (
        (lambda: sc.run(HOLD, x), "2 inputs, 1 output, start 0> reads as many streams as it has inputs, not 1"),
        (lambda: sc.run("stanh", x), "a machine is a scdask.Machine, not 'stanh'"),
        (lambda: sc.run(HOLD, x, sc.encode(0.5, 64)), "length 100 and 64"),
        (lambda: sc.run(TOGGLE, x.words), "only Bitstreams combine"),
        (lambda: sc.run(TOGGLE, x, start=2), "a machine of 2 states has no state 2"),
        (lambda: sc.run(TOGGLE, x, start=-1), "has no state -1"),
        (lambda: sc.run(TOGGLE, x, start=0.5), "a state is an integer from 0 to 1, not of float64"),
        (lambda: sc.run(TOGGLE, x, start=[0, 0, 1]), r"states of shape \(3,\) and streams of shape \(2,\)"),
        (lambda: sc.run(TOGGLE, x.rechunk((1, 1)), start=2).compute(), "has no state 2"),
        (lambda: vector_ops.run_machine(TOGGLE, x.words, length=200), "2 words hold 65 to 128 bits"),
    ):
        with pytest.raises(BitstreamError, match=message):
            call()


def running_parity(words, state, length):
    """Whether the ones so far, this bit included, are odd in number: a prefix sum modulo 2."""
    parity = words.copy()
    for distance in (1, 2, 4, 8, 16, 32):
        parity ^= parity << np.uint64(distance)
    ends = parity >> np.uint64(63)
    before = np.bitwise_xor.accumulate(ends, axis=-1) ^ ends ^ state[..., None].astype(np.uint64)
    parity ^= np.uint64(0) - before
    return parity, (parity[..., -1] >> np.uint64((length - 1) % 64) & np.uint64(1)).astype(np.uint8)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 1000))
def test_a_function_along_time_gets_its_state(seed, length):
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, (3, 4, length), np.uint8)
    x = Bitstream(vector_ops.pack_bitstream(bits), length)
    state = rng.integers(0, 2, (3, 4), np.uint8)
    right = (np.cumsum(bits, -1) + state[..., None]) % 2
    y, last = sc.map_time(running_parity, x, state=state, return_states=True)
    np.testing.assert_array_equal(y.unpack(), right)
    np.testing.assert_array_equal(last, right[..., -1])
    lazy = x.rechunk(random_chunks(rng, x.words.shape))
    for given_state in (state, da.from_array(state, chunks=2)):
        found = dask.compute(
            *sc.map_time(running_parity, lazy, state=given_state, return_states=True), scheduler="sync"
        )
        np.testing.assert_array_equal(found[0].words, y.words)
        np.testing.assert_array_equal(found[1], last)


def inverted_while_even(words, state, length):
    """NOT while the words so far are even in number: the state is that number."""
    flips = (state[..., None] + words[..., :1] * 0 + 1) & 1
    return words ^ (flips * np.uint64(2**64 - 1)), state + np.uint64(words.shape[-1])


def test_a_function_along_time_gets_the_arrays_of_its_library(backend):
    x = sc.encode(np.linspace(0, 1, 4), 100, sng=sc.Sobol(1))
    given = x.map_words(lambda words: backend.array(words))
    found = sc.map_time(lambda words, length: ~words, given)
    np.testing.assert_array_equal(backend.host(found.words), (~x).words)
    if not backend.lazy:  # In other chunks it is another function.
        state = backend.array(np.arange(4, dtype=np.uint64))
        y, last = sc.map_time(inverted_while_even, given, state=state, return_states=True)
        np.testing.assert_array_equal(backend.host(y.words)[::2], (~x).words[::2])
        np.testing.assert_array_equal(backend.host(y.words)[1::2], x.words[1::2])
        np.testing.assert_array_equal(backend.host(last), np.arange(4) + 2)


def test_functions_along_time_of_several_streams_and_outputs():
    rng = np.random.default_rng(0)
    a = sc.encode(rng.random((2, 1)), 200, sng=sc.Bernoulli(1))
    b = sc.encode(rng.random(3), 200, sng=sc.Bernoulli(2))

    def both(a, b, length):
        return a & b, ~(a | b)  # Its padding is 1.

    for x, y in ((a, b), (a.rechunk((1, 1, 3)), b.rechunk((2, 2)))):
        found = sc.map_time(both, x, y, outputs=2, polarity="bipolar")
        assert [stream.shape for stream in found] == [(2, 3)] * 2
        assert {stream.polarity for stream in found} == {"bipolar"}
        np.testing.assert_array_equal(found[0].compute().words, (a & b).words)
        np.testing.assert_array_equal(found[1].compute().words, (~(a | b)).words)


def test_a_state_may_have_more_axes():
    x = sc.encode(np.linspace(0, 1, 6).reshape(2, 3), 700, sng=sc.Bernoulli(3))

    def later(words, state, length):
        joined = np.concatenate([state, words], axis=-1)
        return joined[..., : words.shape[-1]], joined[..., words.shape[-1] :]

    for state in (np.zeros((1, 3, 2), np.uint64), np.zeros((2, 3, 2), np.uint64)):
        y, kept = sc.map_time(later, x, state=state, return_states=True)
        np.testing.assert_array_equal(y.bits[128:].words, x.bits[:-128].words)
        lazy = dask.compute(*sc.map_time(later, x.rechunk((1, 2, 2)), state=state, return_states=True))
        np.testing.assert_array_equal(lazy[0].words, y.words)
        np.testing.assert_array_equal(lazy[1], kept)


def test_what_a_kernel_must_not_return_is_an_error():
    x = sc.encode([0.5, 0.5], 100)
    zero = np.zeros(2, int)
    for kernel, options, message in (
        (lambda words, length: words[:1], {}, r"a kernel returns words, uint64 \(2, 2\), .* not uint64 \(1, 2\)"),
        (lambda words, length: words.astype(float), {}, "not float64"),
        (lambda words, length: None, {}, "not NoneType"),
        (lambda words, length: words, {"outputs": 2}, "a kernel with 2 outputs returns a tuple"),
        (lambda words, state, length: words, {"state": zero}, "returns words and the next state, not ndarray"),
        (lambda words, length: (words,) * 3, {"outputs": 2}, "returns a tuple of them, not 3"),
        (lambda words, state, length: (words, 0), {"state": zero}, r"of its state, int64 \(2,\), not int \(\)"),
        (lambda words, state, length: (words, state * 0.5), {"state": zero}, r"int64 \(2,\), not float64 \(2,\)"),
        (lambda words, state, length: (words, state), {"state": np.zeros(3)}, r"a state of shape \(3,\)"),
        ("none", {}, "a kernel is a function of words"),
    ):
        with pytest.raises(BitstreamError, match=message):
            sc.map_time(kernel, x, **options)
    with pytest.raises(BitstreamError, match="a kernel takes one stream at least, and writes one, not 0 and 1"):
        sc.map_time(lambda *words, length: words[0])
    with pytest.raises(BitstreamError, match=r"not uint64 \(0, 2\) in the chunk \[.:., 0:2\]"):
        sc.map_time(lambda words, length: words[1:], x.rechunk((1, 2))).compute()


def test_the_threads_that_count_are_those_of_the_cluster_in_use(cluster):
    assert chunked._threads() == dask.system.CPU_COUNT
    with cluster.as_current(), dask.config.set(num_workers=7):
        assert chunked._threads() == 2
    with dask.config.set(num_workers=7):
        assert chunked._threads() == 7

"""Streams in arrays of other shapes, and parts of them in time, against NumPy on the bits."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scdask as sc
from scdask import Bitstream, BitstreamError, Sobol, vector_ops

LENGTH = 150


def streams(shape, seed=0, length=LENGTH, polarity="unipolar"):
    bits = np.random.default_rng(seed).integers(0, 2, (*shape, length), dtype=np.uint8)
    return Bitstream(vector_ops.pack_bitstream(bits), length, polarity), bits


CASES = {
    "stack": (lambda a, b, m: sc.stack([a, b]), lambda a, b, m: np.stack([a, b])),
    "stack last": (lambda a, b, m: sc.stack((a, b), axis=-1), lambda a, b, m: np.stack([a, b], axis=2)),
    "concatenate": (lambda a, b, m: sc.concatenate([a, b]), lambda a, b, m: np.concatenate([a, b])),
    "concatenate last": (
        lambda a, b, m: sc.concatenate([a, b[:, :1]], axis=-1),
        lambda a, b, m: np.concatenate([a, b[:, :1]], axis=1),
    ),
    "reshape": (lambda a, b, m: sc.reshape(a, (3, -1)), lambda a, b, m: a.reshape(3, 2, LENGTH)),
    "reshape method": (lambda a, b, m: a.reshape(6, 1), lambda a, b, m: a.reshape(6, 1, LENGTH)),
    "broadcast": (
        lambda a, b, m: sc.broadcast_to(a[:, None], (3, 2, 4, 3)),
        lambda a, b, m: np.broadcast_to(a[:, None], (3, 2, 4, 3, LENGTH)),
    ),
    "where": (lambda a, b, m: sc.where(m, a, b), lambda a, b, m: np.where(m[..., None], a, b)),
    "where of one": (
        lambda a, b, m: sc.where(m[:, :1], a, b[0, 0]),
        lambda a, b, m: np.where(m[:, :1, None], a, b[0, 0]),
    ),
    "bits": (lambda a, b, m: a.bits[3:140], lambda a, b, m: a[..., 3:140]),
    "whole words": (lambda a, b, m: a.bits[64:], lambda a, b, m: a[..., 64:]),
    "last bits": (lambda a, b, m: a.bits[-5:], lambda a, b, m: a[..., -5:]),
}


def test_every_library_does_what_numpy_does(backend):
    (a, a_bits), (b, b_bits) = streams((2, 3), 1), streams((2, 3), 2)
    mask = np.array([[True, False, True], [False, False, True]])
    given = [stream.map_words(backend.array) for stream in (a, b)]
    for mine, numpys in CASES.values():
        for m in (mask, backend.array(mask)):
            found, expected = mine(*given, m), numpys(a_bits, b_bits, mask)
            assert (*found.shape, found.length) == expected.shape
            words = vector_ops.pack_bitstream(np.ascontiguousarray(expected))
            np.testing.assert_array_equal(backend.host(found.words), words)


ends = st.one_of(st.none(), st.integers(-320, 320))


@settings(max_examples=80)
@given(st.integers(1, 300), ends, ends, st.integers(1, 3))
def test_parts_in_time_are_pythons_slices(length, start, stop, chunk):
    stream, bits = streams((2,), length=length)
    expected = bits[:, start:stop]
    for given_stream in (stream, stream.rechunk((1, chunk))):
        if not expected.size:
            with pytest.raises(BitstreamError, match="holds none"):
                given_stream.bits[start:stop]
            continue
        part = given_stream.bits[start:stop]
        assert (part.length, part.shape) == (expected.shape[1], (2,))
        assert (part.chunks is None) == (given_stream.chunks is None)
        # The constructor checks the padding.
        checked = Bitstream(part.words, part.length).compute(scheduler="synchronous")
        np.testing.assert_array_equal(checked.unpack(), expected)


def test_lazy_and_eager_mix_and_lazy_stays_lazy():
    (a, a_bits), (b, b_bits) = streams((2, 3), 1), streams((2, 3), 2)
    lazy = b.rechunk((1, 2, 2))
    for joined, expected in (
        (sc.stack([a, lazy]), np.stack([a_bits, b_bits])),
        (sc.concatenate([lazy, a], axis=1), np.concatenate([b_bits, a_bits], axis=1)),
        (sc.where(da.from_array(a_bits[..., 0] == 1, chunks=1), a, a), a_bits),
    ):
        assert joined.chunks
        np.testing.assert_array_equal(joined.compute().unpack(), expected)
    kept = sc.concatenate([lazy[da.from_array(np.array([True, False]))], lazy])
    np.testing.assert_array_equal(kept.compute().unpack(), np.concatenate([b_bits[:1], b_bits]))
    empty = sc.concatenate([lazy[:0], lazy])
    np.testing.assert_array_equal(sc.reshape(empty, 6).compute().unpack(), b_bits.reshape(6, LENGTH))
    assert sc.reshape(lazy[:0], (-1, 3)).shape == (0, 3)


def test_results_do_not_share_what_is_written_to():
    stream, bits = streams((2,))
    for part in (stream.bits[:100], stream.bits[64:], sc.where([True, True], stream, stream)):
        part.words[...] = 0
    np.testing.assert_array_equal(stream.unpack(), bits)


def test_the_generator_is_kept_where_it_is_known():
    a, b = (sc.encode([0.25, 0.5], 64, sng=Sobol(d)) for d in (1, 2))
    assert sc.stack([a, a]).sng == sc.reshape(a, (1, 2)).sng == Sobol(1)
    assert sc.stack([a, b]).sng is sc.where([True, False], a, b).sng is a.bits[:9].sng is None


OTHER = streams((2, 3), length=64)[0]
BIPOLAR = streams((2, 3), polarity="bipolar")[0]
STREAM = streams((2, 3))[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sc.stack([STREAM, OTHER]), "length 150 and 64"),
        (lambda: sc.concatenate([STREAM, BIPOLAR]), "polarity unipolar and bipolar"),
        (lambda: sc.where([True], STREAM, BIPOLAR), "polarity"),
        (lambda: sc.stack([STREAM, STREAM[0]]), r"\(2, 3\) and \(3,\)"),
        (lambda: sc.concatenate([STREAM, STREAM[:, :2]]), r"\(2, 3\) and \(2, 2\) do not fit together along axis 0"),
        (lambda: sc.stack([STREAM], axis=3), "no axis 3: the streams have 3 axes"),
        (lambda: sc.concatenate([STREAM], axis=-3), "no axis -3"),
        (lambda: sc.concatenate([STREAM], axis=0.5), "an axis is an integer, not 0.5"),
        (lambda: sc.concatenate([STREAM[0, 0]]), "no axis 0"),
        (lambda: sc.stack([]), r"one at least, is put together, not \[\]"),
        (lambda: sc.stack(STREAM), "a sequence of Bitstreams"),
        (lambda: sc.concatenate([STREAM, np.ones(3)]), "only Bitstreams combine, not ndarray"),
        (lambda: sc.reshape(STREAM, (4, -1)), r"6 streams of shape \(2, 3\) do not fill the shape \(4, -1\)"),
        (lambda: sc.reshape(STREAM, "ab"), "a shape is an integer or a tuple"),
        (lambda: STREAM.reshape(-1, -1), "do not fill"),
        (lambda: sc.broadcast_to(STREAM, (2, 4)), r"\(2, 3\) do not broadcast to \(2, 4\)"),
        (lambda: sc.broadcast_to(STREAM, 3), "do not broadcast"),
        (lambda: sc.where([1, 0, 1], STREAM, STREAM), "a mask is of bool, not int64"),
        (lambda: sc.where(np.ones(4, bool), STREAM, STREAM), "do not broadcast"),
        (lambda: STREAM.bits[5], "by a slice such as"),
        (lambda: STREAM.bits[::2], "not in steps of 2"),
        (lambda: STREAM.bits[::0], "not in steps of 0"),
        (lambda: STREAM.bits[0.5:], "a slice of integers"),
        (lambda: STREAM.bits[9:9], r"bits\[9:9\] of streams of 150 bits holds none"),
    ],
)
def test_what_does_not_fit_is_a_sentence(call, message):
    with pytest.raises(BitstreamError, match=message):
        call()


def test_streams_of_unknown_number():
    lazy = STREAM.rechunk((1, 3))[da.from_array(np.array([True, True]), chunks=1)]
    assert lazy.bits[10:20].compute().shape == (2, 3)
    for call in (lambda: lazy.reshape(6), lambda: sc.concatenate([lazy, lazy], axis=1)):
        with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
            call()

"""Every index that NumPy takes, against NumPy's own indexing of the bits."""

import itertools

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import scdask as sc
from scdask import Bitstream, BitstreamError, Sobol, vector_ops

SHAPE, LENGTH = (3, 4, 2), 100
BITS = np.random.default_rng(0).integers(0, 2, (*SHAPE, LENGTH), dtype=np.uint8)
EAGER = Bitstream(vector_ops.pack_bitstream(BITS), LENGTH)
LAZY = EAGER.rechunk((2, 3, 1, 1))
MASK = BITS[..., 0] == 1

bounds = st.sampled_from([None, -9, -4, -2, -1, 0, 1, 3, 9])
integers = st.sampled_from([0, 1, -1, np.int8(1), np.array(-2)])
lists = st.sampled_from([[], [0], [1, 0], [-1, 1, 1], [[0, 1], [1, 0]], (0, 1), [True, False, True], [5]])
shapes = st.sampled_from([(), (1,), (2,), (3,), (2, 2), (3, 1), (0,)])
parts = st.one_of(
    st.builds(slice, bounds, bounds, st.sampled_from([None, 1, 2, -1, -2, -7])),
    integers,
    shapes.flatmap(lambda shape: arrays(np.int64, shape, elements=st.integers(-2, 1))),
    lists,
    st.sampled_from([SHAPE, SHAPE[:2], SHAPE[1:], SHAPE[:1], SHAPE[1:2], (4, 3)]).flatmap(lambda s: arrays(bool, s)),
    st.booleans(),
    st.none(),
    st.just(...),
)


def indexed(array, index):
    try:
        return array[index]
    except (IndexError, ValueError) as error:
        return type(error)


@settings(max_examples=200)
@given(st.lists(parts, max_size=5).map(tuple))
def test_eager_and_lazy_pick_what_numpy_picks(index):
    whole = index if any(part is Ellipsis for part in index) else (*index, ...)
    expected = indexed(BITS, (*whole, slice(None)))
    for stream in (EAGER, LAZY):
        picked = indexed(stream, index)
        if isinstance(expected, type):
            assert picked is expected
        else:
            assert picked.shape == expected.shape[:-1]
            np.testing.assert_array_equal(picked.compute(scheduler="synchronous").unpack(), expected)


SOME = [
    (slice(-9, None, -1), slice(9, -9, -2)),
    ([2, -1], slice(None), [1, 0]),
    (slice(None), [[0, 1]], ..., [0]),
    MASK[..., 0],
    (1, MASK[1]),
    (True, [0, 2]),
    (None, False),
    (slice(None), True, [0]),
    (0, True),
    [],
    (..., None, -1),
    (np.array([2, -1], ">i4"), slice(-(10**30), 10**30, 10**30)),
    (slice(None), range(2)),
    range(0),
    (np.array([2**64 - 1, 0], np.uint64), slice(None), np.array([1], np.uint8)),
]


@pytest.mark.parametrize("index", SOME, ids=map(str, range(len(SOME))))
def test_every_library_picks_what_numpy_picks(backend, index):
    picked = Bitstream(backend.array(EAGER.words), LENGTH)[index]
    np.testing.assert_array_equal(backend.host(picked.words), EAGER[index].words)


def lazy(values):
    return da.from_array(np.array(values), chunks=2)


@pytest.mark.parametrize(
    ("index", "make"),
    [
        ([2, 0, -1], lambda a: a),
        ([[0, 1], [-1, 2]], lambda a: (slice(None), a)),
        (np.array(-1), lambda a: a),
        ([1, 0], lambda a: (0, slice(None), a)),
        ([1, 0], lambda a: (None, slice(1, None), a, slice(None, None, -1))),
        (MASK, lambda a: a),
        (MASK[..., 0], lambda a: a),
        (MASK[0], lambda a: (slice(1, None), a)),
        (MASK[0, 0], lambda a: (..., a)),
        (MASK[:, 0, 0], lambda a: (a, 1)),
        (MASK[0, 0], lambda a: (1, slice(None), a)),
    ],
)
def test_lazy_arrays_as_indices(index, make):
    picked, expected = LAZY[make(lazy(index))], EAGER[make(index)]
    assert all(n in (m, np.nan) or np.isnan(n) for n, m in zip(picked.shape, expected.shape, strict=True))
    np.testing.assert_array_equal(picked.compute(scheduler="synchronous").words, expected.words)


def test_wrong_indices_are_refused():
    for mask in (MASK.T, lazy(MASK.T), lazy(MASK[:2])):
        with pytest.raises(IndexError, match=r"mask of shape|boolean index did not match"):
            LAZY[mask]
    with pytest.raises(IndexError, match="index 5 is out of bounds for an axis of 3 streams"):
        LAZY[lazy([0, 5])].compute(scheduler="synchronous")
    with pytest.raises(IndexError, match="integer"):
        LAZY[lazy([0.5])]
    with pytest.raises(BitstreamError, match="beside slices"):
        LAZY[lazy([0]), [0]]
    with pytest.raises(BitstreamError, match="an axis or more"):
        LAZY[da.from_array(np.array(True))]


def test_streams_of_unknown_number():
    keep = MASK[:, 0, 0]
    unknown, known = LAZY[lazy(keep)], EAGER[keep]
    for index in (slice(None), (slice(None), [1, -1]), (..., 0), None):
        np.testing.assert_array_equal(unknown[index].compute().words, known[index].words)
    for index in (0, slice(1), [0], (slice(None, None, -1), 0), keep[keep]):
        with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
            unknown[index]
    with pytest.raises(IndexError):
        LAZY[lazy([True, False, True])][:, 9]


def test_streams_of_unknown_number_combine_only_if_they_are_as_many():
    stream = sc.encode(np.linspace(0, 1, 4), 100, sng=Sobol(1), chunks=(2,))
    a, b, c = (stream[lazy(np.array(keep, bool))] for keep in ([0, 1, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]))
    for gate in (sc.xnor, lambda a, b: a & b, sc.scc):
        with pytest.raises(BitstreamError, match="chunks of 1 and 2 streams do not combine"):
            gate(a, b).compute()
        with pytest.raises(BitstreamError, match="compute_chunk_sizes"):
            gate(a, stream)
    eager = sc.encode(np.linspace(0, 1, 4), 100, sng=Sobol(1))
    np.testing.assert_array_equal((a & c).compute().words, (eager[1:] & eager[1:]).words)


def cut(words, sizes):
    """Dask words with chunks of these sizes, some of which are 0."""
    ends = itertools.pairwise(np.cumsum([0, *sizes]))
    return da.concatenate([da.from_array(words[a:b], chunks=-1, asarray=True) for a, b in ends])


GATES = {
    "and": lambda a, b: (a & b).words,
    "not": lambda a, b: (~a).words,
    "xnor": lambda a, b: sc.xnor(a, b).words,
    "mux": lambda a, b: sc.mux(b, a, b).words,
    "all pairs": lambda a, b: sc.xnor(a[:, None], b).words,
    "scc": sc.scc,
    "matrix": lambda a, b: sc.scc_matrix(a),
    "decode": lambda a, b: a.decode(),
    "bits": lambda a, b: vector_ops.pack_bitstream(b.unpack()),
    "mac": lambda a, b: vector_ops.vec_mac(a.words[None], b.words),
    "mac of pairs": lambda a, b: vector_ops.vec_mac(a.words[:, None], b.words[:, None], "xnor", 100),
    "encode": lambda a, b: sc.encode(a.decode(), 100).words,
    "matmul": lambda a, b: sc.matmul(a.decode()[None], b.decode()[None], 64),
}


@pytest.mark.parametrize(
    ("sizes", "others"),
    [((0, 1), (1,)), ((1, 0), (0, 1)), ((0, 1, 0), (1,)), ((0, 3), (1, 0, 2)), ((0, 2, 0, 1), (3,)), ((0, 0), (0,))],
)
def test_chunks_without_streams(sizes, others):
    rng = np.random.default_rng(1)
    a, b = (vector_ops.pack_bitstream(rng.integers(0, 2, (sum(sizes), 100))) for _ in range(2))
    eager = [Bitstream(words, 100) for words in (a, b)]
    lazily = [Bitstream(cut(words, n), 100) for words, n in ((a, sizes), (b, others))]
    for name, gate in GATES.items():
        expected, found = gate(*eager), gate(*lazily)
        assert found.shape == np.shape(expected), name
        np.testing.assert_array_equal(found.compute(scheduler="synchronous"), expected, err_msg=name)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint64])
def test_an_index_of_few_bits_reaches_along_a_long_axis(dtype):
    stream = sc.encode(np.linspace(0, 1, 400), 64, sng=Sobol(1))
    chosen = np.array([100, 3, -1]).astype(dtype) if dtype != np.uint8 else np.array([200, 3], dtype)
    for index in (chosen, da.from_array(chosen, chunks=2)):
        np.testing.assert_array_equal(stream.rechunk(150)[index].compute().words, stream[chosen].words)

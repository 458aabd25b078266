"""Arguments of any kind: what is wrong is an error of scdask, whatever was given."""

from contextlib import suppress

import dask.array as da
import numpy as np
import pytest

import scdask as sc
from scdask import vector_ops
from scdask.generators import product_error

STREAM = sc.encode([0.5, 0.25], 64)
WORDS = STREAM.words
ANYTHING = [None, 1, 0.5, 1j, b"and", [], ["and"], {}, np.array(["and", "or"]), np.zeros(2), np.zeros(3, [("a", int)])]
FOREIGN = pytest.mark.parametrize("given", [*ANYTHING, STREAM, [STREAM]], ids=repr)


@FOREIGN
def test_a_choice_may_be_anything(given):
    for choose in (
        lambda: sc.Bitstream(WORDS, 64, given),
        lambda: sc.encode(0.5, 64, polarity=given),
        lambda: sc.Thermometer(rounding=given),
        lambda: sc.LFSR(8, shift=given),
        lambda: sc.matmul([[0.5]], [[0.5]], 64, mode=given),
        lambda: vector_ops.vec_mac(WORDS[None], WORDS, given),
        lambda: vector_ops.gates.gate(given, WORDS, WORDS),
    ):
        with pytest.raises(sc.BitstreamError):
            choose()


@pytest.mark.parametrize("given", [STREAM, [STREAM]], ids=repr)
def test_a_bitstream_is_no_array(given):
    for take in (vector_ops.vec_not, vector_ops.pack_bitstream, sc.encode, sc.Bitstream):
        with pytest.raises(sc.UnsupportedArrayError, match="a Bitstream is no array of numbers"):
            take(given, length=64) if take is not vector_ops.pack_bitstream else take(given)


@FOREIGN
def test_chunks_may_be_anything(given):
    for lazily in (lambda: STREAM.rechunk(given), lambda: sc.encode([0.5, 0.25], 64, chunks=given)):
        with suppress(sc.BitstreamError):
            assert lazily().compute().shape == (2,)


@pytest.mark.parametrize("given", ANYTHING, ids=repr)
def test_what_is_no_stream_generator_or_sequence_is_told(given):
    for take in (
        lambda: sc.decode(given),
        lambda: sc.stack(given),
        lambda: sc.concatenate(np.array(5)),
        lambda: sc.stack([STREAM], axis=da.zeros((2, 0), dtype=int)),
        lambda: product_error(given, sc.Sobol(1)),
        lambda: product_error(sc.Sobol(1), sc.Sobol(2), [given]),
        lambda: sc.SCMLP.from_arrays(given, 1j, calibration=[[0.5]]),
        lambda: sc.MPIDriver(root=np.zeros(2, int)),
        lambda: sc.compute(1, retries=np.zeros((1, 1), int)),
    ):
        with pytest.raises(sc.ScdaskError):
            take()


@pytest.mark.parametrize("given", [np.zeros(2), [], "False", None, STREAM], ids=repr)
def test_a_flag_is_true_or_false(given):
    for make in (lambda: sc.Bernoulli(shared=given), lambda: sc.LFSR(8, spread=given)):
        with pytest.raises(sc.BitstreamError, match="is True or False, not"):
            make()


@FOREIGN
def test_pairs_of_generators_may_be_anything(given):
    network = sc.SCSequential([sc.SCDense([[1.0]], [0.0])])
    for pairs in (given, [given], [(given, sc.Sobol(1))]):
        if pairs is None:  # Those that it has stay.
            continue
        with pytest.raises(sc.BitstreamError):
            network.with_generators(pairs)


@pytest.mark.parametrize("chunks", ["auto", ("auto", 1), (-1, "auto", 1), ("1 MiB", 2)])
def test_chunks_of_no_streams(chunks):
    nothing = np.zeros((0, 2))
    for lazy in (sc.encode(nothing, 64).rechunk(chunks), sc.encode(nothing, 64, chunks=chunks)):
        assert lazy.compute().shape == (0, 2)

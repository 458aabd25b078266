"""UMUL, against a loop over bits."""

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chunked import random_chunks

import scdask as sc
from scdask import Bitstream, BitstreamError, vector_ops
from scdask.arithmetic import umul
from scdask.chunked import umul as chunked
from scdask.core import contract
from scdask.vector_ops import umul as operations

SNGS = [sc.Sobol(1), sc.Bernoulli(3), sc.LFSR(), sc.Thermometer(), sc.LFSR(spread=True), sc.Halton(3)]


def by_bits(x, number, polarity):
    """The generator of the number goes on at a one; if bipolar, a second one at a zero."""
    ones = zeros = 0
    out = []
    for bit in x:
        if bit:
            out.append(number[ones])
            ones += 1
        elif polarity == "bipolar":
            out.append(1 - number[zeros])
            zeros += 1
        else:
            out.append(0)
    return out


def some(seed):
    """Streams, numbers and a generator, and the bits of the product."""
    rng = np.random.default_rng(seed)
    polarity, length = ("unipolar", "bipolar")[seed % 2], int(rng.integers(1, 700))
    lead = tuple(rng.integers(1, 4, 2))
    shapes = [tuple(n if rng.random() < 0.7 else 1 for n in lead)[int(rng.integers(0, 3)) :] for _ in range(2)]
    bits = rng.integers(0, 2, (*shapes[0], length), np.uint8)
    numbers = rng.uniform(-1 if polarity == "bipolar" else 0, 1, shapes[1])
    sng = SNGS[rng.integers(len(SNGS))]
    x = Bitstream(vector_ops.pack_bitstream(bits), length, polarity)
    full = np.broadcast_shapes(*shapes)
    theirs = np.broadcast_to(sc.encode(numbers, length, polarity=polarity, sng=sng).unpack(), (*full, length))
    bits = np.broadcast_to(bits, (*full, length))
    product = np.array([by_bits(bits[i], theirs[i], polarity) for i in np.ndindex(full)], np.uint8)
    return x, numbers, sng, product.reshape(*full, length)


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_a_generator_that_waits(seed):
    x, numbers, sng, product = some(seed)
    found = umul(x, numbers, sng)
    assert (found.polarity, found.length) == (x.polarity, x.length)
    np.testing.assert_array_equal(found.words, vector_ops.pack_bitstream(product))


@pytest.mark.filterwarnings("ignore:Increasing number of chunks")
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 10**6]))
def test_the_product_does_not_depend_on_chunks(seed, threads):
    x, numbers, sng, product = some(seed)
    rng = np.random.default_rng(seed)
    lazy = x.rechunk(random_chunks(rng, x.words.shape))
    if numbers.shape and seed % 3:
        numbers = da.from_array(numbers, chunks=random_chunks(rng, numbers.shape))
    with dask.config.set(num_workers=threads, scheduler="sync"):
        found = umul(lazy, numbers, sng)
        np.testing.assert_array_equal(found.words.compute(), vector_ops.pack_bitstream(product))


@pytest.mark.parametrize("seed", [7])
def test_every_library_gives_the_same_bits(backend, seed):
    x, numbers, sng, product = some(seed)
    found = umul(x.map_words(backend.array), backend.array(numbers), sng)
    np.testing.assert_array_equal(backend.host(found.words), vector_ops.pack_bitstream(product))
    np.testing.assert_array_equal(
        backend.host(umul(x.map_words(backend.array), numbers, sng).words), backend.host(found.words)
    )


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_a_block_makes_only_the_bits_that_it_is_asked_for(polarity, monkeypatch):
    """Streams of few ones ask for early bits of the number, and those of many for late ones."""
    n_words, made = 200, []

    def encode_part(values, sng, length, polarity, part):
        made.append(int(np.prod(values.shape)) * (part.last - part.first))
        return encode(values, sng, length, polarity, part)

    encode = contract.encode_part
    monkeypatch.setattr(contract, "encode_part", encode_part)
    monkeypatch.setattr(chunked, "PIECE", 0)
    x = sc.encode(np.linspace(0.05, 0.95, 6).reshape(2, 3), 64 * n_words, sng=sc.Bernoulli(1))
    x = Bitstream(x.words, x.length, polarity)
    for numbers in (0.3, np.linspace(0, 1, 3)):
        right = umul(x, numbers)
        lazy = umul(x.rechunk((2, 3, 10)), numbers)
        made.clear()
        np.testing.assert_array_equal(lazy.words.compute(scheduler="sync"), right.words)
        assert sum(made) < 2.5 * 6 * n_words * (1 + (polarity == "bipolar"))


def test_the_published_error():
    """For both operands on Sobol 1: that of AND of Sobol 1 and 2."""
    p = np.arange(33) / 32
    product = umul(sc.encode(p[:, None], 256, sng=sc.Sobol(1)), p)
    error = product.decode() - p[:, None] * p
    assert round(float(np.sqrt((error**2).mean())), 5) == 0.00125


def test_bits_move_to_the_ones_of_a_mask():
    rng = np.random.default_rng(0)
    bits, masks = rng.integers(0, 2**64, (2, 300), dtype=np.uint64)
    masks[:3] = 0, 2**64 - 1, 2**63
    for bit, mask, found in zip(bits.tolist(), masks.tolist(), operations.expand(bits, masks).tolist(), strict=True):
        places = [t for t in range(64) if mask >> t & 1]
        assert found == sum((bit >> i & 1) << t for i, t in enumerate(places))


def test_what_cannot_be_multiplied_is_an_error():
    x = sc.encode([0.5, 0.5], 100)
    for call, message in (
        (lambda: umul(x, 1.5), r"1\.5"),
        (lambda: umul(x, -0.5), r"-0\.5"),
        (lambda: umul(x, [0.1, 0.2, 0.3]), r"streams of shape \(2,\) and \(3,\) values do not broadcast"),
        (lambda: umul(x, 0.5, "Sobol"), "sng is a stochastic number generator"),
        (lambda: umul(x.words, 0.5), "only Bitstreams"),
        (lambda: umul(x.rechunk((1, 1)), da.from_array([0.5, 2.0], chunks=1)).compute(), r"2\.0.*in the chunk"),
    ):
        with pytest.raises(BitstreamError, match=message):
            call()

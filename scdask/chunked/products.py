"""Products of numbers by streams: weights are encoded once, inputs in the task that multiplies them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_real
from ..vector_ops import products
from .blocks import (
    as_they_are,
    blockwise,
    check_block,
    compute_once,
    in_chunk,
    is_numpy,
    like_blocks,
    sum_blocks,
    unified,
)
from .compat import ArraySliceDep
from .device import as_dask, implements
from .encoding import encode_part
from .sizes import check_known

if TYPE_CHECKING:
    import dask.array as da

    from ..core.words import Part, Region
    from ..vector_ops.products import Streams


@implements(products.encoded_product)
def encoded_product(weights: Any, inputs: Any, streams: Streams) -> da.Array:
    w, x = as_dask(weights), as_dask(inputs)
    check_known(x)
    if is_numpy(w._meta) and not is_numpy(x._meta):
        w = like_blocks(w, x)
    # Neurons stay whole, so that no input is encoded twice; ranges of words bound the memory instead.
    n_neurons = len(w)
    w = w.rechunk({0: -1})
    _, (w, x) = unified((w, "ni"), (x, "bi"))
    if streams.mode == "split":
        signs = {"n": (2 * n_neurons,)}
        w = blockwise("sc-split", products.split_signs, "ni", w, "ni", adjust_chunks=signs, dtype=w.dtype)
    ranges = list(products.word_ranges((len(w), max(w.chunks[1], default=1)), streams))
    word_chunks = tuple(map(len, ranges))
    w_words = encode_weights(w, streams, word_chunks)
    if x.numblocks[0] > 1:
        w_words = compute_once(w_words)
    counts = blockwise(
        "sc-mac",
        _product_block,
        "bnik",
        w_words,
        "nik",
        x,
        "bi",
        ArraySliceDep(x.chunks),
        "bi",
        ArraySliceDep((word_chunks,)),
        "k",
        part=products.input_part(x.shape, streams),
        streams=streams,
        adjust_chunks={"n": (n_neurons,), "i": 1, "k": 1},
        dtype=np.int64,
    )
    total = None if streams.mode == "split" else w.shape[1] * streams.bits
    return sum_blocks("sc-mac", counts, as_they_are, (2, 3), total)


def encode_weights(w: da.Array, streams: Streams, word_chunks: tuple[int, ...]) -> da.Array:
    """The words of the weights, in chunks of words of these sizes."""
    part, chunks = products.weight_part(w.shape, streams.words), (*w.chunks, word_chunks)
    encoded = encode_part(w, streams.w_sng, streams.length, streams.polarity, part, chunks)
    if streams.faults is None:
        return encoded
    rates = products.fault_rates(w, streams.faults)
    return contract.gate(
        "xor", encoded, encode_part(rates, streams.faults.w_sng, streams.length, "unipolar", part, chunks)
    )


def _product_block(w_words: Any, x: Any, region: Region, words: tuple[slice], part: Part, streams: Streams) -> Any:
    counts = in_chunk(_product, region, w_words, x, region, streams, part.block(region, words[0]))
    return counts[..., None, None]


def _product(w_words: Any, x: Any, region: Region, streams: Streams, part: Part) -> Any:
    inputs = as_real(x, "inputs")
    check_block(inputs, region)
    return products.encoded_counts(w_words, inputs, streams, part)

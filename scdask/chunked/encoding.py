"""Encoding: a block of words knows which streams and which words of them it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from ..core import contract
from ..core.checks import as_real, check_encoding, check_polarity
from ..core.words import Part
from ..vector_ops.encoding import beside as beside_of
from ..vector_ops.products import as_weights
from .blocks import axes_of, blockwise, check_block, in_chunk, is_numpy, like_blocks
from .compat import ArraySliceDep
from .device import as_dask, implements
from .sizes import check_known, word_chunks

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.words import Polarity, Region
    from ..generators import SNG


def encode_words(
    values: Any, sng: SNG, length: int, polarity: Polarity = "unipolar", *, chunks: Any = None
) -> da.Array:
    """`vector_ops.encode_words` as tasks; `chunks` is over the words (*values.shape, n_words)."""
    check_polarity(polarity)
    length = check_encoding(length, sng)
    given = as_real(values, "values to encode")
    if not isinstance(given, da.Array):
        contract.probabilities(given, polarity)  # What is in memory can be refused at once.
    return encode_part(given, sng, length, polarity, Part.all_of(given.shape, length), chunks)


@implements(contract.encode_part)
def encode_part(values: Any, sng: SNG, length: int, polarity: Polarity, part: Part, chunks: Any = None) -> da.Array:
    check_known(values)
    chunks = word_chunks(values, part.last - part.first, chunks)
    values = as_dask(values, chunks[:-1])
    axes = axes_of(values).upper()
    return blockwise(
        "sc-encode",
        _encode_block,
        axes + "k",
        values,
        axes,
        ArraySliceDep(values.chunks),
        axes,
        ArraySliceDep(chunks[-1:]),
        "k",
        part=part,
        sng=sng,
        length=length,
        polarity=polarity,
        dtype=np.uint64,
    )


def _encode_block(
    values: Any, region: Region, words: tuple[slice], part: Part, sng: SNG, length: int, polarity: Polarity
) -> Any:
    return in_chunk(_encode, region, values, region, sng, length, polarity, part.block(region, words[0]))


def _encode(values: Any, region: Region, sng: SNG, length: int, polarity: Polarity, part: Part) -> Any:
    given = as_real(values, "values to encode")
    check_block(given, region)
    return contract.encode_part(given, sng, length, polarity, part)


@implements(beside_of)
def beside(words: Any, p: Any, sng: SNG, length: int) -> da.Array:
    words = as_dask(words)
    check_known(words)
    lead = words.chunks[:-1]
    along = lead[len(lead) - p.ndim :]
    p = as_dask(p, tuple(sizes if n > 1 else (n,) for sizes, n in zip(along, p.shape, strict=True)))
    values = da.broadcast_to(p, words.shape[:-1], chunks=lead)
    if not is_numpy(words._meta):
        values = like_blocks(values, words)
    return encode_part(values, sng, length, "unipolar", Part.all_of(values.shape, length), words.chunks)


@implements(contract.probabilities)
def probabilities(values: da.Array, polarity: Polarity) -> da.Array:
    return _number_blocks("sc-probabilities", _probabilities, values, polarity=polarity)


def _probabilities(values: Any, polarity: Polarity) -> Any:
    return contract.probabilities(as_real(values, "values to encode"), polarity)


@implements(contract.finite)
def finite(weights: da.Array) -> da.Array:
    return _number_blocks("sc-weights", as_weights, weights)


def _number_blocks(kind: str, convert: Callable[..., Any], values: da.Array, **options: Any) -> da.Array:
    axes = axes_of(values)
    region = ArraySliceDep(values.chunks)
    return blockwise(
        kind, _number_block, axes, values, axes, region, axes, convert=convert, dtype=np.float64, **options
    )


def _number_block(values: Any, region: Region, convert: Callable[..., Any], **options: Any) -> Any:
    return in_chunk(convert, region, values, **options)

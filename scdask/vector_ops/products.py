"""Products of numbers by streams: both operands are encoded and multiplied, a tile at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core import contract
from ..core.checks import as_real, check_encoding, check_mode, check_product
from ..core.dispatch import composed
from ..core.words import OPERAND_GATE, OPERAND_POLARITY, Part, words_for
from ..errors import BitstreamError
from .numbers import concatenate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.words import Mode
    from ..generators import SNG

OPERAND_BYTES = 2**26  # bytes of encoded weights held at once
MOST_RANGES = 100_000  # ranges of words that a product goes through one after the other
TILE_BYTES = 2**25  # bytes of encoded inputs held at once


def as_weights(values: Any) -> Any:
    """Weights as finite float64.

    Parameters
    ----------
    values : array_like of real numbers

    Returns
    -------
    array of float64, of the same shape

    Raises
    ------
    BitstreamError
        If a value is not real or not finite (for a Dask array: when it is computed).
    """
    return contract.finite(as_real(values, "weights"))


def encode_mac(weights: Any, inputs: Any, w_sng: SNG, x_sng: SNG, length: int, mode: Mode) -> Any:
    """Encode both operands and multiply-accumulate them, with only a part of the streams in memory at any time.

    Parameters
    ----------
    weights : array of float, shape (n_neurons, n_inputs)
        In [-1, 1].
    inputs : array of float, shape (batch, n_inputs)
        In [0, 1], or [-1, 1] in bipolar mode.
    w_sng, x_sng : SNG
        The generators of the weights and of the inputs.
    length : int
        Length of a stream in bits.
    mode : {"split", "bipolar"}
        "split": the ones of x AND w+ less those of x AND w-, where w = w+ - w-, all unipolar.
        "bipolar": the ones of x XNOR w.

    Returns
    -------
    array of int64, shape (batch, n_neurons)
        Summed over the inputs.

    Raises
    ------
    BitstreamError
        If a value is outside its range or NaN, the shapes do not fit, or a generator cannot make such streams.
    """
    weights, inputs = as_weights(weights), as_real(inputs, "inputs")
    return encoded_product(
        weights, inputs, w_sng, x_sng, check_layer(weights, inputs, w_sng, x_sng, length, mode), mode
    )


def check_layer(weights: Any, inputs: Any, w_sng: Any, x_sng: Any, length: Any, mode: Any) -> int:
    """The length as an int, if the operands of a layer fit each other and its generators."""
    check_mode(mode)
    check_product(weights, inputs)
    return check_encoding(length, w_sng, x_sng)


@composed
def encoded_product(weights: Any, inputs: Any, w_sng: SNG, x_sng: SNG, length: int, mode: Mode) -> Any:
    """`encode_mac` of arrays that are known to fit."""
    weights, inputs = brought_together(weights, inputs)
    operand = split_signs(weights) if mode == "split" else weights
    operand_part, input_part = Part.all_of(operand.shape, length), Part.all_of(inputs.shape, length)
    counts: Any = 0
    for first, last in word_ranges(operand.shape, length):
        words = replace(operand_part, first=first, last=last)
        w = contract.encode_part(operand, w_sng, length, OPERAND_POLARITY[mode], words)
        counts = counts + encoded_counts(w, inputs, x_sng, length, mode, replace(input_part, first=first, last=last))
    return counts if mode == "split" else weights.shape[1] * length - counts


@composed
def brought_together(weights: Any, inputs: Any) -> tuple[Any, Any]:
    """Move the operands to where their product is computed, if that is better done before they are encoded."""
    return weights, inputs


def split_signs(weights: Any) -> Any:
    """w+ stacked on w-, both >= 0, where w = w+ - w-."""
    return contract.exactly(_signs, weights)


def _signs(weights: Any) -> Any:
    return concatenate(weights.clip(0.0), (-weights).clip(0.0))


def word_ranges(shape: tuple[int, ...], length: int) -> Iterator[tuple[int, int]]:
    """Ranges of words such that one range of the streams of `shape` values takes at most OPERAND_BYTES."""
    n_words = words_for(length)
    size = max(1, OPERAND_BYTES // (8 * max(1, math.prod(shape))))
    starts = range(0, n_words, size)
    if len(starts) > MOST_RANGES:
        raise BitstreamError(
            f"{shape} weights of {length} bits take {len(starts)} steps, over the {MOST_RANGES} allowed"
        )
    return ((first, min(first + size, n_words)) for first in starts)


@composed
def encoded_counts(packed_weights: Any, inputs: Any, sng: SNG, length: int, mode: Mode, part: Part) -> Any:
    """The counts of `encoded_product` over a part, in bipolar mode of XOR instead of XNOR.

    The weights are packed, in split mode w+ stacked on w-. The inputs, which are those of a part of all inputs, are
    encoded a tile of rows at a time, used and dropped.
    """
    row_bytes = 8 * max(1, inputs.shape[1]) * (part.last - part.first)
    rows = max(4, TILE_BYTES // row_bytes // 4 * 4)
    gate = OPERAND_GATE[mode]
    counts = []
    for row in range(0, max(1, len(inputs)), rows):
        tile = inputs[row : row + rows]
        first = part.region[0].start + row
        region = (slice(first, first + len(tile)), part.region[1])
        x = contract.encode_part(tile, sng, length, OPERAND_POLARITY[mode], replace(part, region=region))
        counts.append(contract.gate_counts(packed_weights, x, gate))
    total = concatenate(*counts) if len(counts) > 1 else counts[0]
    if mode == "bipolar":
        return total
    neurons = len(packed_weights) // 2
    return total[:, :neurons] - total[:, neurons:]

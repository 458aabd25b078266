"""Products of numbers by streams: both operands are encoded and multiplied, a tile at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.checks import as_real, check_encoding, check_mode, check_product
from ..core.dispatch import composed
from ..core.words import OPERAND_GATE, OPERAND_POLARITY, WORD, Part, bits_in, words_for
from ..errors import BitstreamError
from .numbers import concatenate, pad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..core.words import MacGate, Mode, Polarity
    from ..generators import SNG

OPERAND_BYTES = 2**26  # bytes of encoded weights held at once
PIECES = (8, 16, 32)  # bits of streams that lie side by side in a word
MOST_RANGES = 100_000  # ranges of words that a product goes through one after the other
TILE_BYTES = 2**25  # bytes of encoded inputs held at once


@dataclass(frozen=True)
class Faults:
    """Bits of operands that flip.

    Parameters
    ----------
    rate : float
        How probable it is that a bit flips.
    x_sng, w_sng : SNG
        The random bits by which those of the inputs and of the weights flip, each stream by bits of its own.
    """

    rate: float
    x_sng: SNG
    w_sng: SNG


@dataclass(frozen=True)
class Streams:
    """How the operands of a product become streams, and which words of them are multiplied.

    Parameters
    ----------
    length : int
        Length of a stream in bits.
    mode : {"split", "bipolar"}
        "split": w = w+ - w-, all unipolar, and AND. "bipolar": XNOR.
    x_sng, w_sng : SNG
        The generators of the inputs and of the weights.
    signed : bool
        Whether inputs are in [-1, 1] in split mode too: x = x+ - x-, two unipolar streams, and four ANDs.
    first, last : int
        The words, from `first` up to `last`; None is the end.
    start : int
        The number of the first sample among all samples, which are numbered so that streams do not depend on chunks.
    faults : Faults, optional
        Which bits flip once the operands are streams.
    """

    length: int
    mode: Mode
    x_sng: SNG
    w_sng: SNG
    signed: bool = False
    first: int = 0
    last: int | None = None
    start: int = 0
    faults: Faults | None = None

    @property
    def words(self) -> range:
        """The words that are multiplied."""
        return range(self.first, words_for(self.length) if self.last is None else self.last)

    @property
    def bits(self) -> int:
        """The bits of a stream in these words."""
        return bits_in(self.words.start, self.words.stop, self.length)

    @property
    def polarity(self) -> Polarity:
        """That of the streams of both operands."""
        return OPERAND_POLARITY[self.mode]

    @property
    def gate(self) -> MacGate:
        """The gate that multiplies."""
        return OPERAND_GATE[self.mode]

    @property
    def both_signs(self) -> bool:
        """Whether an input is two streams."""
        return self.signed and self.mode == "split"


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
    length = check_layer(weights, inputs, w_sng, x_sng, length, mode)
    return encoded_product(weights, inputs, Streams(length, mode, x_sng, w_sng))


def check_layer(weights: Any, inputs: Any, w_sng: Any, x_sng: Any, length: Any, mode: Any) -> int:
    """The length as an int, if the operands of a layer fit each other and its generators."""
    check_mode(mode)
    check_product(weights, inputs)
    return check_encoding(length, w_sng, x_sng)


@composed
def encoded_product(weights: Any, inputs: Any, streams: Streams) -> Any:
    """`encode_mac` of arrays that are known to fit: int64 (batch, n_neurons)."""
    weights, inputs = brought_together(weights, inputs)
    operand = split_signs(weights) if streams.mode == "split" else weights
    part = input_part(inputs.shape, streams)
    counts: Any = 0
    for words in word_ranges(operand.shape, streams):
        w = encode_weights(operand, streams, words)
        counts = counts + encoded_counts(w, inputs, streams, replace(part, first=words.start, last=words.stop))
    return counts if streams.mode == "split" else weights.shape[1] * streams.bits - counts


@composed
def brought_together(weights: Any, inputs: Any) -> tuple[Any, Any]:
    """Move the operands to where their product is computed, if that is better done before they are encoded."""
    return weights, inputs


def encode_weights(operand: Any, streams: Streams, words: range) -> Any:
    """The words of the weights, which are split by signs in split mode."""
    part = weight_part(operand.shape, words)
    encoded = contract.encode_part(operand, streams.w_sng, streams.length, streams.polarity, part)
    if streams.faults is None:
        return encoded
    faults = contract.encode_part(
        fault_rates(operand, streams.faults), streams.faults.w_sng, streams.length, "unipolar", part
    )
    return contract.gate("xor", encoded, faults)


def fault_rates(values: Any, faults: Faults) -> Any:
    """How probable it is that a bit of the stream of each value flips."""
    return contract.exactly(_rates, values, rate=faults.rate)


def _rates(values: Any, rate: float) -> Any:
    return 0.0 * values + rate


def weight_part(shape: tuple[int, ...], words: range) -> Part:
    """The part of all weights that some words of them are."""
    return Part(tuple(slice(0, n) for n in shape), shape, words.start, words.stop)


def input_part(shape: tuple[int, ...], streams: Streams) -> Part:
    """The part of all samples that inputs are, which are numbered from `streams.start` on."""
    region = (slice(streams.start, streams.start + shape[0]), *(slice(0, n) for n in shape[1:]))
    words = streams.words
    return Part(region, (streams.start + shape[0], *shape[1:]), words.start, words.stop)


def split_signs(weights: Any, groups: int = 1) -> Any:
    """w+ and w-, both >= 0, where w = w+ - w-: those of all neurons of a group, one after the other."""
    shape = (groups, len(weights) // groups, *weights.shape[1:])
    both = contract.exactly(_signs, weights.reshape(shape))
    return both.reshape(2 * len(weights), *weights.shape[1:])


def _signs(values: Any) -> Any:
    return concatenate(values.clip(0.0), (-values).clip(0.0), axis=1)


def encode_inputs(inputs: Any, streams: Streams, part: Part) -> Any:
    """The words of inputs, or of both signs of each: (batch, ...) then are (2 batch, ...), + and - of a sample.

    The part is that of the inputs; signs have an axis of their own, after that of the samples.
    """
    if streams.both_signs:
        values = contract.exactly(_both_signs, inputs)
        samples, *others = part.region
        rows, *shape = part.shape
        part = replace(part, region=(samples, slice(0, 2), *others), shape=(rows, 2, *shape))
    else:
        values = inputs
    words = contract.encode_part(values, streams.x_sng, streams.length, streams.polarity, part)
    if streams.faults is not None:
        rates = fault_rates(values, streams.faults)
        faults = contract.encode_part(rates, streams.faults.x_sng, streams.length, "unipolar", part)
        words = contract.gate("xor", words, faults)
    return words.reshape(-1, *words.shape[2:]) if streams.both_signs else words


def _both_signs(inputs: Any) -> Any:
    return _signs(inputs.astype(float)[:, None])


@composed
def bits_of_word(words: Any, first: int, last: int, groups: int = 1) -> Any:
    """Only bits `first` up to `last` of streams (..., n, 1) that are a word each, for a gate and a count.

    The others are 0. Pieces of 8, 16 or 32 bits of several streams lie side by side in a word instead, which takes as
    many words less: (..., groups, n_words), where the streams are in so many groups.
    """
    size = last - first
    *lead, n, _ = words.shape
    if size not in PIECES or first % size or n == groups:
        return words & np.uint64((1 << last) - (1 << first))
    a_word = WORD // size
    pieces = words.reshape(*lead, groups, n // groups).copy().view(f"u{size // 8}")[..., first // size :: a_word]
    if n // groups % a_word:
        pieces = pad(pieces, ((0, 0),) * (pieces.ndim - 1) + ((0, -(n // groups) % a_word),))
    return pieces.copy().view(np.uint64)


def signed_sum(counts: Any, streams: Streams, groups: int = 1) -> Any:
    """The ones of products of several signs, each with its sign: counts (rows, ..., n) of weights of `split_signs`."""
    if streams.both_signs:
        counts = counts[0::2] - counts[1::2]
    if streams.mode == "bipolar":
        return counts
    *places, both = counts.shape
    of_groups = counts.reshape(*places, groups, 2, both // (2 * groups))
    return (of_groups[..., 0, :] - of_groups[..., 1, :]).reshape(*places, both // 2)


def word_ranges(shape: tuple[int, ...], streams: Streams) -> Iterator[range]:
    """Ranges of words such that one range of the streams of `shape` values takes at most OPERAND_BYTES."""
    words = streams.words
    size = max(1, OPERAND_BYTES // (8 * max(1, math.prod(shape))))
    starts = range(words.start, words.stop, size)
    if len(starts) > MOST_RANGES:
        raise BitstreamError(
            f"{shape} weights of {streams.length} bits take {len(starts)} steps, over the {MOST_RANGES} allowed"
        )
    return (range(first, min(first + size, words.stop)) for first in starts)


@composed
def encoded_counts(packed_weights: Any, inputs: Any, streams: Streams, part: Part) -> Any:
    """The counts of `encoded_product` over a part, in bipolar mode of XOR instead of XNOR.

    The weights are packed, in split mode w+ stacked on w-. The inputs, which are those of a part of all inputs, are
    encoded a tile of rows at a time, used and dropped.
    """
    row_bytes = 8 * max(1, inputs.shape[1]) * (part.last - part.first) * (1 + streams.both_signs)
    rows = max(4, TILE_BYTES // row_bytes // 4 * 4)
    counts = []
    for row in range(0, max(1, len(inputs)), rows):
        tile = inputs[row : row + rows]
        first = part.region[0].start + row
        region = (slice(first, first + len(tile)), part.region[1])
        x = encode_inputs(tile, streams, replace(part, region=region))
        counts.append(signed_sum(contract.gate_counts(packed_weights, x, streams.gate), streams))
    return concatenate(*counts) if len(counts) > 1 else counts[0]

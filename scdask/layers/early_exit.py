"""As few cycles as each sample needs: a network looks at growing parts of its streams, until a rule says stop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core.checks import INTEGERS
from ..core.contract import on_host, pick
from ..core.words import WORD, words_for
from ..errors import BitstreamError
from ..vector_ops import products
from ..vector_ops.numbers import concatenate, resizable
from .activations import Softmax
from .base import cut, encodes
from .products import ProductLayer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from ..vector_ops.products import Streams
    from .network import SCSequential


class EarlyExit(NamedTuple):
    """What `predict` finds with a rule that stops it; of a Dask array all three are lazy, and of one graph.

    Parameters
    ----------
    label : array, shape (batch,)
        What the network reads out: labels, (batch, n) indicators, or values.
    cycles : array of int64, shape (batch,)
        The bits of each stream that the sample took.
    margin : array of float64, shape (batch,)
        How sure the network is, see `Margin`; NaN where values are read out.
    """

    label: Any
    cycles: Any
    margin: Any


def checks(length: int, first: int = 16) -> list[int]:
    """The cycles after which it is asked whether a sample is decided.

    They are `first` times 1, 2, 3, 4, 8, 64, 512, ... as far as half the length, and then the length. Most samples are
    decided early, where a check costs few bits. Later there are few checks, because layers after the first that encodes
    count again from bit 0 at each: a sample that takes all of 1,024 cycles costs them 1.3 times a plain run.

    Examples
    --------
    >>> checks(1024)
    [16, 32, 48, 64, 128, 1024]
    """
    found = [first * n for n in (1, 2, 3, 4, 8)]
    while 16 * found[-1] <= length:
        found.append(8 * found[-1])
    return [*(n for n in found if 2 * n <= length), length]


class Rule(ABC):
    """When a sample goes no further.

    `one & other` waits for both: Margin(0.9) & Stability(2) does not trust a single check, as margins of few bits
    mislead.
    """

    def __and__(self, other: Rule) -> Rule:
        return Both(self, other) if isinstance(other, Rule) else NotImplemented

    def points(self, length: int) -> list[int]:
        """The cycles after which the rule is asked, the last being the most that a sample takes."""
        return checks(length)

    @abstractmethod
    def decided(self, margin: NDArray[np.float64], same: NDArray[np.int64]) -> NDArray[np.bool]:
        """Which samples go no further: of their margins, and for how many checks in a row each had its label."""


def _points(at: Sequence[int] | None, length: int) -> list[int]:
    """The given cycles up to a length, with the length; or the usual ones."""
    return checks(length) if at is None else [n for n in at if n < length] + [length]


def _check_points(at: Any) -> tuple[int, ...] | None:
    if at is None:
        return None
    found = tuple(at) if hasattr(at, "__iter__") else ()
    if not found or not all(isinstance(n, INTEGERS) and n > 0 for n in found) or list(found) != sorted(set(found)):
        raise BitstreamError(f"checks are at growing numbers of cycles, not {at!r}")
    return tuple(map(int, found))


@dataclass(frozen=True)
class Margin(Rule):
    """Stop where the two most probable labels are at least so far apart.

    The margin of a sample is the difference of the two largest softmax probabilities of the network's outputs z. Of one
    output for two classes these are 1 / (1 + exp(-z)) and the rest, so that it is tanh(|z| / 2); of several labels a
    sample (multilabel) it is the smallest of their margins. A `Softmax` at the end of the network is not applied twice.

    The outputs of few bits have errors of their own, with which a margin can be large by chance: the rule needs a large
    `least`, most of all with `Bernoulli` streams.

    Parameters
    ----------
    least : float
        Above 0, at most 1.
    at : sequence of int, optional
        The cycles after which it is asked; by default `checks`. Fewer checks, such as (16, 64), take more cycles, and
        on a computer often less time.

    References
    ----------
    Kim, Kim, Jang, Choi, Lee: Dynamic energy-accuracy trade-off using stochastic computing in deep neural networks.
    DAC 2016: early decision termination.
    """

    least: float
    _: KW_ONLY
    at: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.least, float | int | np.number) or not 0 < self.least <= 1:
            raise BitstreamError(f"a margin is above 0 and at most 1, not {self.least!r}")
        object.__setattr__(self, "at", _check_points(self.at))

    def points(self, length: int) -> list[int]:
        """The cycles after which the rule is asked."""
        return _points(self.at, length)

    def decided(self, margin: NDArray[np.float64], same: NDArray[np.int64]) -> NDArray[np.bool]:
        """Which samples go no further."""
        return margin >= self.least


@dataclass(frozen=True)
class Stability(Rule):
    """Stop where the label has stayed the same at so many checks in a row.

    Parameters
    ----------
    checks : int
        2 at least.
    at : sequence of int, optional
        The cycles after which it is asked; by default `checks`.
    """

    checks: int
    _: KW_ONLY
    at: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.checks, bool) or not isinstance(self.checks, INTEGERS) or self.checks < 2:
            raise BitstreamError(f"a label is stable over 2 checks or more, not {self.checks!r}")
        object.__setattr__(self, "at", _check_points(self.at))

    def points(self, length: int) -> list[int]:
        """The cycles after which the rule is asked."""
        return _points(self.at, length)

    def decided(self, margin: NDArray[np.float64], same: NDArray[np.int64]) -> NDArray[np.bool]:
        """Which samples go no further."""
        return same >= self.checks


@dataclass(frozen=True)
class Cycles(Rule):
    """Stop all samples after so many cycles.

    Parameters
    ----------
    count : int
        1 at least, and at most the length of the streams.
    """

    count: int

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, INTEGERS) or self.count < 1:
            raise BitstreamError(f"a sample takes 1 cycle or more, not {self.count!r}")

    def points(self, length: int) -> list[int]:
        """The cycles after which all stop."""
        if self.count > length:
            raise BitstreamError(f"streams of {length} bits have no {self.count} cycles")
        return [int(self.count)]

    def decided(self, margin: NDArray[np.float64], same: NDArray[np.int64]) -> NDArray[np.bool]:
        """All samples."""
        return np.ones(len(margin), np.bool)


@dataclass(frozen=True)
class Both(Rule):
    """Stop where two rules say so at one check, see `Rule`."""

    one: Rule
    other: Rule

    def points(self, length: int) -> list[int]:
        """The cycles after which one of the rules is asked."""
        return sorted({*self.one.points(length), *self.other.points(length)})

    def decided(self, margin: NDArray[np.float64], same: NDArray[np.int64]) -> NDArray[np.bool]:
        """Which samples go no further."""
        return self.one.decided(margin, same) & self.other.decided(margin, same)


def check_rule(rule: Any, network: SCSequential, lengths: list[int]) -> None:
    """Raise unless a network can be stopped by a rule."""
    if not isinstance(rule, Rule):
        raise BitstreamError(f"stop is a rule, such as Margin(0.99), Stability(3) or Cycles(128), not {rule!r}")
    if network.readout == "values" and not isinstance(rule, Cycles):
        raise BitstreamError(f"values have no labels that {rule} could wait for; Cycles stops a regression")
    for layer in network.encoding_layers:
        if not isinstance(layer, ProductLayer):
            raise BitstreamError(f"only SCDense and SCConv2d can be cut at some cycles, not {layer}")
    if not network.encoding_layers:
        raise BitstreamError("a network in which no layer encodes has no cycles")
    most = max(lengths)
    points = rule.points(most)
    if max(_check_points(points) or (most + 1,)) > most:
        raise BitstreamError(f"{rule} asks after {points} cycles of {most}")


def run_until(network: SCSequential, lengths: list[int], rule: Rule, x: Any, start: int) -> NDArray[np.float64]:
    """Logits, cycles and margin of samples, side by side: (batch, outputs + 2), on the host.

    `start` is the number of the first sample. Samples that are decided are taken out, so that the rest shrinks.
    """
    layers, x = list(zip(network.layers, lengths, strict=True)), resizable(x)
    first = next(i for i, (layer, _) in enumerate(layers) if encodes(layer))
    for layer, length in layers[:first]:
        x = layer(x, length)
    base = _First(*layers[first], x, start)
    rest = [_Counter(*pair) if encodes(pair[0]) else pair[0] for pair in layers[first + 1 :]]
    rows = np.arange(len(x))
    found = np.empty((len(x), network.shapes[-1][0] + 2))
    labels: Any = None
    same = np.zeros(len(x), np.int64)
    points = rule.points(max(lengths))
    for cycles in points:
        if not len(rows):
            break
        hidden = base.outputs(cycles)
        for layer in rest:
            if isinstance(layer, _Counter):
                hidden = layer.outputs(cut(hidden, layer.layer), base.samples, cycles)
            else:
                hidden = layer(cut(hidden, layer), 0)
        logits = on_host(hidden)
        margin = margins(network, logits)
        before, labels = labels, logits > 0 if _each_alone(network) else logits.argmax(axis=1)[:, None]
        if before is not None:
            same *= (labels == before).all(axis=1)
        same += 1
        done = rule.decided(margin, same) | (cycles == points[-1])
        at = rows[done]
        found[at, :-2], found[at, -2], found[at, -1] = logits[done], cycles, margin[done]
        if done.any():
            stay = ~done
            rows, labels, same = rows[stay], labels[stay], same[stay]
            base.keep(stay)
    return found


def margins(network: SCSequential, logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """How sure a network is of each sample, of its outputs (batch, n): see `Margin`."""
    if network.readout == "values":
        return np.full(len(logits), np.nan)
    if _each_alone(network):
        sure: NDArray[np.float64] = np.tanh(abs(logits) / 2).min(axis=1)
        return sure
    *_, second, first = np.partition(logits, -2, axis=1).T
    if isinstance(network.layers[-1], Softmax):
        return first - second  # type: ignore[no-any-return]
    apart: NDArray[np.float64] = -np.expm1(second - first) / np.exp(logits - first[:, None]).sum(axis=1)
    return apart


def _each_alone(network: SCSequential) -> bool:
    """Whether the sign of an output says its label."""
    return network.readout == "labels" or network.shapes[-1] == (1,)


class _Counter:
    """A layer that counts the first bits of its streams. It keeps the words of its weights if they are small enough."""

    def __init__(self, layer: ProductLayer, length: int) -> None:
        self.layer = layer
        self.streams = layer.streams(length)
        self.length = self.streams.length
        self._groups = getattr(layer, "groups", 1)
        self._signs: Any = None
        self._kept: Any = None

    def outputs(self, x: Any, samples: NDArray[np.uint64], cycles: int) -> Any:
        """The outputs of inputs of the network's samples with these numbers, from the first cycles of all streams."""
        bits = min(cycles, self.length)
        return self._in_binary(self.added(self.layer.scaled(x), samples, 0, bits), bits)

    def _in_binary(self, counts: Any, bits: int) -> Any:
        if self.streams.mode == "bipolar":
            counts = self.layer.fan_in * bits - counts
        return self.layer.outputs(counts, bits)

    def added(self, x: Any, samples: NDArray[np.uint64], first: int, last: int) -> Any:
        """What the bits `first` to `last` of scaled inputs add to the counts; a tile of inputs is encoded at a time."""
        row = 8 * max(1, math.prod(x.shape[1:])) * (1 + self.streams.both_signs)
        counts: Any = None
        for words in self._ranges(x, range(first // WORD, words_for(last)), max(1, products.TILE_BYTES // row)):
            streams, weights = self.limited(words), self.weights(x, words)
            rows = max(1, products.TILE_BYTES // (row * len(words)))
            tiles = []
            for tile in range(0, len(x), rows):
                some = slice(tile, tile + rows)
                inputs = self.layer.input_words(x[some], streams, samples[some])
                tiles.append(self.counted(weights, inputs, streams, first, last))
            counts = _sum(counts, concatenate(*tiles) if len(tiles) > 1 else tiles[0])
        return counts

    def _ranges(self, x: Any, words: range, most: int) -> Iterator[range]:
        for held in products.word_ranges(self._operand(x).shape, self.limited(words)):
            for word in range(held.start, held.stop, most):
                yield range(word, min(word + most, held.stop))

    def counted(self, weights: Any, inputs: Any, streams: Streams, first: int, last: int) -> Any:
        """The counts of the bits `first` to `last`, as far as they are in the words of both, which `streams` says."""
        counts: Any = None
        for words, bits in _pieces(streams.words, first, last, self.length):
            here = slice(words.start - streams.words.start, words.stop - streams.words.start)
            w, x = weights[..., here], inputs[..., here]
            if bits is not None:
                w, x = products.bits_of_word(w, *bits), products.bits_of_word(x, *bits, self._groups)
            counts = _sum(counts, self.layer.word_counts(w, x, streams))
        return counts

    def limited(self, words: range) -> Streams:
        """Some words of the streams."""
        return replace(self.streams, first=words.start, last=words.stop)

    def _operand(self, x: Any) -> Any:
        if self._signs is None:
            self._signs, _ = products.brought_together(self.layer.encoded_signs, x)
        return self._signs

    def weights(self, x: Any, words: range) -> Any:
        """The words of the weights beside inputs x, which are kept where those of all their bits are not too large."""
        operand, n_words = self._operand(x), words_for(self.length)
        if 8 * operand.size * n_words > products.OPERAND_BYTES:
            return products.encode_weights(operand, self.streams, words)
        have = 0 if self._kept is None else self._kept.shape[-1]
        if have < words.stop:
            more = range(have, max(words.stop, min(4 * have, n_words)))
            new = products.encode_weights(operand, self.streams, more)
            self._kept = new if self._kept is None else concatenate(self._kept, new, axis=-1)
        return self._kept[..., words.start : words.stop]


def _sum(counts: Any, more: Any) -> Any:
    return more if counts is None else counts + more


def _pieces(words: range, first: int, last: int, length: int) -> Iterator[tuple[range, tuple[int, int] | None]]:
    """The bits `first` to `last` that are in some words, in whole words and, with which bits of it, in a single one."""
    bit, stop = max(first, WORD * words.start), min(last, WORD * words.stop)
    while bit < stop:
        word = bit // WORD
        whole = words_for(stop) if stop == length else stop // WORD
        if bit % WORD == 0 and whole > word:
            yield range(word, whole), None
            bit = WORD * whole
        else:
            end = min(stop, WORD * (word + 1))
            yield range(word, word + 1), (bit - WORD * word, end - WORD * word)
            bit = end


class _First(_Counter):
    """The first layer that encodes: its inputs stay the same, so that it only counts the bits that are new."""

    def __init__(self, layer: ProductLayer, length: int, x: Any, start: int) -> None:
        super().__init__(layer, length)
        self._x = layer.scaled(x)
        self.samples = np.arange(start, start + len(x), dtype=np.uint64)
        self._counts: Any = None
        self._bits = 0
        self._word: Any = None  # the word of each stream of which some bits are counted

    def outputs(self, cycles: int) -> Any:  # type: ignore[override]
        """The outputs from the first cycles of all streams."""
        last = min(cycles, self.length)
        first, self._bits = self._bits, last
        if first % WORD and first < last:
            stop = min(last, WORD * words_for(first))
            self._count_word(first, stop)
            first = stop
            if stop % WORD == 0:
                self._word = None
        whole = last if last == self.length else last // WORD * WORD
        if first < whole:
            self._counts = _sum(self._counts, self.added(self._x, self.samples, first, whole))
            first = whole
        if first < last:
            self._count_word(first, last)
        return self._in_binary(self._counts, last)

    def _count_word(self, first: int, last: int) -> None:
        words = range(first // WORD, first // WORD + 1)
        streams = self.limited(words)
        if self._word is None:
            self._word = self.layer.input_words(self._x, streams, self.samples)
        more = self.counted(self.weights(self._x, words), self._word, streams, first, last)
        self._counts = _sum(self._counts, more)

    def keep(self, stay: NDArray[np.bool]) -> None:
        """Go on with these samples only."""
        self._x, self._counts = pick(self._x, (stay,)), pick(self._counts, (stay,))
        self.samples = self.samples[stay]
        if self._word is not None:
            self._word = pick(self._word, (np.repeat(stay, 2) if self.streams.both_signs else stay,))

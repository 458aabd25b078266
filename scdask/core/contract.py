"""The contract of the array layer: the primitives that each backend implements.

A primitive trusts its arguments, because `vector_ops` has checked them. Only what depends on the values, such as a
probability above 1, is an error of the kernel. `words` are native uint64, with the words of a stream on the last axis
and any number of axes before it, and their padding is 0 unless a docstring says otherwise. Dask arrays stay lazy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import metering
from .dispatch import primitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from .machines import Machine
    from .words import MacGate, Part, Polarity


@primitive(work=metering.packing)
def pack(bits: Any) -> Any:
    """Pack bool or integers (..., N) into words (..., ceil(N / 64)); a BitstreamError says where one is not 0 or 1."""


@primitive(work=metering.unpacking)
def unpack(words: Any, length: int) -> Any:
    """Unpack words (..., ceil(length / 64)) into bits, uint8 (..., length)."""


@primitive()
def check_tail(words: Any, length: int) -> Any:
    """Return the words, unless a stream has ones at or past bit `length`: a BitstreamError says which one."""


@primitive(work=metering.gating)
def gate(kind: str, *operands: Any, length: int | None = None) -> Any:
    """Apply a gate of `core.gates` to operands that broadcast; with a length, the padding of the result is 0."""


@primitive(work=metering.counting)
def word_ones(words: Any) -> Any:
    """Count the ones of each word: uint8 of the same shape."""


@primitive(work=metering.counting)
def stream_ones(words: Any) -> Any:
    """Count the ones of each stream, padding included: int64 of the shape less the last axis."""


@primitive(work=metering.accumulating)
def gate_counts(weights: Any, inputs: Any, gate: MacGate, total: int | None = None) -> Any:
    """Count the ones of AND, or for "xnor" of XOR, over the inputs of a neuron; with `total`, return total - count.

    Weights are words (n_neurons, n_inputs, n_words), inputs (n_inputs, n_words) or (batch, n_inputs, n_words); the
    counts are int64 (n_neurons,) or (batch, n_neurons). XNOR has the bits that XOR has not: with the number of bits
    as `total` these are its ones, and padding never counts.
    """


@primitive(work=metering.encoding)
def encode_part(values: Any, sng: Any, length: int, polarity: Polarity, part: Part) -> Any:
    """Encode `values`, which are those of a part of an array of streams: the words of that part.

    A value that is past the range of its polarity by `core.words.rounding` is taken as its end; where one is outside,
    a BitstreamError says.
    """


@primitive(work=metering.stepping)
def run_machine(machine: Machine, start: Any, *words: Any, length: int) -> Any:
    """Run a machine over operands that broadcast, from the states `start`, integers that broadcast to the streams.

    The words of its outputs, whose padding is 0, and the states after bit `length`, uint8, of the streams' shape. A
    BitstreamError says which start is no state.
    """


@primitive(work=metering.counting)
def count_columns(words: Any, digits: int, total: int) -> Any:
    """Count the ones of n streams at each bit: of words (..., n, n_words), words (..., total, n_words).

    They are the binary digits of the counts, from the lowest on. Stream i counts 2 ** (i % digits), n is a multiple of
    `digits`, and `total` digits are enough.
    """


@primitive(work=metering.adding)
def accumulate(
    words: Any,
    start: Any,
    *,
    scale: int,
    offset: int,
    low: int,
    high: int,
    worth: int,
    digits: int,
    length: int,
) -> Any:
    """Add streams by accumulators, from the values `start`, integers that broadcast to the rows (...).

    Of words (..., n, n_words), n streams a row, a step reads the ones at a bit: stream i counts 2 ** (i % digits), and
    n is a multiple of `digits`. With c as their sum, a step adds worth * c - offset to the accumulator, where `worth`
    is 1 or 2; then it writes a one, and subtracts `scale`, if there is that much; last it clips the accumulator to
    low ... high. All fits 32 bits.

    The words of the outputs (..., n_words), whose padding is 0, and the accumulators after bit `length`, int32 (...).
    A BitstreamError says which start is outside of low ... high.
    """


@primitive()
def probabilities(values: Any, polarity: Polarity) -> Any:
    """The probability of a one for each value, float64, with the ranges and the error of `encode_part`."""


@primitive()
def finite(weights: Any) -> Any:
    """The weights as float64; a BitstreamError says where one is not finite."""


@primitive()
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Compute func(*arrays, **options) in float64, with NumPy's rounding in every library.

    Dask arrays broadcast, and `func` is called for each block.
    """


@primitive()
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    """words[index] by NumPy's rules, in the library of the words; arrays in the index are NumPy's or Dask's."""


@primitive()
def on_host(array: Any) -> Any:
    """The array as a NumPy array, or as a Dask array of NumPy blocks."""


PRIMITIVES = {name: value for name, value in vars().items() if getattr(value, "is_primitive", False)}

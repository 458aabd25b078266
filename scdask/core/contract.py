"""The contract of the array layer: the primitives that each backend implements.

Their arguments are trusted, as `vector_ops` has checked them; what only a look at the values shows is an error of the
kernel. `words` are native uint64 with the words of a stream on the last axis, any number of axes leads, and padding is
0 unless it is said otherwise. Dask arrays stay lazy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import metering
from .dispatch import primitive

if TYPE_CHECKING:
    from collections.abc import Callable

    from .words import Gate, Polarity, Region


@primitive(work=metering.packing)
def pack(bits: Any) -> Any:
    """Words (..., ceil(N / 64)) of bool or integers (..., N); a BitstreamError says where one is neither 0 nor 1."""


@primitive(work=metering.unpacking)
def unpack(words: Any, length: int) -> Any:
    """Bits, uint8 (..., length), of words (..., ceil(length / 64))."""


@primitive()
def check_tail(words: Any, length: int) -> Any:
    """The words themselves; a BitstreamError says which stream has ones at or past bit `length`."""


@primitive(work=metering.gating)
def gate(kind: str, *operands: Any, length: int | None = None) -> Any:
    """New words of a gate of `core.gates`, over operands that broadcast; with a length their padding is 0."""


@primitive(work=metering.counting)
def word_ones(words: Any) -> Any:
    """Ones of each word, uint8 of the same shape."""


@primitive(work=metering.counting)
def stream_ones(words: Any) -> Any:
    """Ones of each stream, padding included, int64 of the shape less the last axis."""


@primitive(work=metering.accumulating)
def gate_counts(weights: Any, inputs: Any, gate: Gate, total: int | None = None) -> Any:
    """Ones of AND, or for "xnor" of XOR, summed over the inputs of a neuron; with `total` what is left of it.

    Weights are words (n_neurons, n_inputs, n_words), inputs (n_inputs, n_words) or (batch, n_inputs, n_words); the
    counts are int64 (n_neurons,) or (batch, n_neurons). Where the padding is 0, XNOR has the bits that XOR has not.
    """


@primitive(work=metering.encoding)
def encode_region(
    values: Any,
    sng: Any,
    length: int,
    polarity: Polarity,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Any:
    """The words from words[0] up to words[1] of the streams of `values`, which are a region of an array of `shape`.

    A BitstreamError says where a value is outside the range of its polarity.
    """


@primitive()
def probabilities(values: Any, polarity: Polarity) -> Any:
    """The probability of a one for each value, float64; a BitstreamError says where one is outside its range."""


@primitive()
def finite(weights: Any) -> Any:
    """Real numbers as float64; a BitstreamError says where one is not finite."""


@primitive()
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """func(*arrays, **options) in float64, rounded as NumPy rounds by every library.

    Dask arrays go through it block by block; they broadcast.
    """


@primitive()
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    """words[index], by NumPy's rules, as words of the same library; arrays in the index are NumPy's or Dask's."""


@primitive()
def on_host(array: Any) -> Any:
    """The array as NumPy's, or Dask's of NumPy blocks."""


PRIMITIVES = {name: value for name, value in vars().items() if getattr(value, "is_primitive", False)}

"""Operations on bitstreams packed into uint64 words.

Bit t of a stream is bit t % 64 of word t // 64 (LSB first). Words are on the last axis, any number of axes leads.
The bits of the last word at and past the stream's length are padding, and 0.
"""

from __future__ import annotations

import math
import operator
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from . import jit_kernels
from ._dispatch import Work, array_function, as_numpy
from .errors import BitstreamError
from .jit_kernels import DIGITS, WORD, empty_words, readonly, tail_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from .encoding import SNG

Gate = Literal["and", "xnor"]
Polarity = Literal["unipolar", "bipolar"]
Mode = Literal["split", "bipolar"]
Region = tuple[slice, ...]
RANGES = {"unipolar": (0.0, 1.0), "bipolar": (-1.0, 1.0)}

OPERAND_BYTES = 2**26  # of encoded weights held at once by `encode_mac`
MOST_RANGES = 100_000  # of words that `encode_mac` goes through one after the other
TILE_BYTES = 2**25  # of encoded inputs held at once by `encode_mac`
SEGMENT = 4096  # bits of a shared sequence that one look-up table serves: 2 MiB
NEAR_BYTES = 2**20  # that a kernel moves where they stay in a second-level cache
READ_BATCH = 8  # inputs below which a MAC waits for its weights to be read


def words_for(length: int) -> int:
    """The number of words that hold `length` bits."""
    return -(-length // WORD)


# What calls do, for the meters of workers


def _moved(**sizes: float) -> dict[str, float]:
    """Bytes read and written, of a cache or of the memory beyond."""
    place = "near" if sum(sizes.values()) <= NEAR_BYTES else "far"
    return {f"{way}_{place}": size for way, size in sizes.items()}


def _packing(words: Any, bitstream: Any) -> Work:
    bits = np.size(bitstream)
    return Work("pack", bits, _moved(read=bits, write=words.nbytes))


def _unpacking(bits: Any, packed: Any, *args: Any, **kwargs: Any) -> Work:
    return Work("pack", bits.size, _moved(read=packed.nbytes, write=bits.nbytes))


def _gating(words: Any, *args: Any, **kwargs: Any) -> Work:
    read = sum(operand.nbytes for operand in (*args, *kwargs.values()) if hasattr(operand, "nbytes"))
    return Work("gate", WORD * words.size, _moved(read=read, write=words.nbytes))


def _counting(counts: Any, packed: Any) -> Work:
    return Work("popcount", WORD * packed.size, _moved(read=packed.nbytes))


def _accumulating(counts: Any, weights: Any, inputs: Any, gate: Gate) -> Work:
    batch = math.prod(inputs.shape[:-2])
    bitops = WORD * batch * weights.size
    return Work("mac", bitops, {"arithmetic": bitops} if batch >= READ_BATCH else _moved(read=weights.nbytes))


def _encoding(
    packed: Any,
    values: Any,
    sng: SNG,
    length: int,
    polarity: Polarity,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Work:
    streams = math.prod(packed.shape[:-1])
    bits = streams * max(0, min(WORD * words[1], length) - WORD * words[0])
    uses = _moved(write=packed.nbytes) if sng.key() is None else {"digits": DIGITS * bits}
    return Work("encode", bits, uses, streams if words[0] == 0 else 0)


# Packing


@partial(array_function, work=_packing)
def pack_bitstream(bitstream: Any) -> Any:
    """Pack the bits on the last axis into uint64 words, LSB first.

    Parameters
    ----------
    bitstream : array_like of bool or integers, shape (..., N)
        Zeros and ones.

    Returns
    -------
    ndarray or dask Array of uint64, shape (..., ceil(N / 64))

    Raises
    ------
    BitstreamError
        If there is anything but 0 and 1 (for a Dask array: when it is computed), or no axis.

    Examples
    --------
    >>> pack_bitstream([1, 0, 1, 1])
    array([13], dtype=uint64)
    """
    bits = _bytes_of_bits(bitstream)
    *lead, length = bits.shape
    out = empty_words((*lead, words_for(length)))
    rows = readonly(bits.reshape(-1, length) if bits.size else bits.reshape(0, 0))
    if rows.size and jit_kernels.pack(rows, out.reshape(len(rows), -1)) > 1 and np.asarray(bitstream).dtype != bool:
        raise _not_bits(np.asarray(bitstream))
    return out


def _bytes_of_bits(bitstream: Any) -> NDArray[np.uint8]:
    bits = as_numpy(bitstream, "bits")
    if bits.size == 0 and not hasattr(bitstream, "dtype"):
        bits = bits.astype(bool)
    check_bit_array(bits)
    if bits.itemsize > 1:
        if ((bits != 0) & (bits != 1)).any():
            raise _not_bits(bits)
        return bits.astype(np.uint8)
    return bits.view(np.uint8)


def check_bit_array(bits: Any) -> None:
    """Raise unless the array's type and shape can be bits."""
    if kind_of(bits) not in "biu":
        raise BitstreamError(f"a bitstream holds 0 and 1 as bool or integers, not {bits.dtype}")
    if bits.ndim == 0:
        raise BitstreamError(f"a bitstream has its bits on the last axis, but this array has none: {bits!r}")


def _not_bits(bits: NDArray[Any]) -> BitstreamError:
    place = tuple(int(i) for i in np.argwhere((bits != 0) & (bits != 1))[0])
    return BitstreamError(f"a bitstream holds only 0 and 1, but there is {bits[place]} at {place}")


@partial(array_function, work=_unpacking)
def unpack_bitstream(packed: Any, original_length: int, original_shape: tuple[int, ...] | None = None) -> Any:
    """Unpack words into one byte a bit.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    original_length : int
        Length of one stream in bits; n_words must be ceil(original_length / 64).
    original_shape : tuple of int, optional
        Shape of the result; it wins over `original_length`, which then follows from it and the number of streams.

    Returns
    -------
    ndarray or dask Array of uint8, shape (..., original_length) or `original_shape`

    Raises
    ------
    BitstreamError
        If the words are not uint64 or are not those of such a stream.
    """
    words = as_words(packed)
    length, shape = unpacked_shape(words.shape, original_length, original_shape)
    *lead, n_words = words.shape
    streams = math.prod(lead)
    out = empty_words((-(-streams * length // 8),)).view(np.uint8)[: streams * length].reshape(streams, length)
    if out.size:
        jit_kernels.unpack(readonly(words.reshape(streams, n_words)), out)
    return out.reshape(shape)


def unpacked_shape(
    shape: tuple[int, ...], length: int, original_shape: tuple[int, ...] | None
) -> tuple[int, tuple[int, ...]]:
    """The length of a stream and the shape of the result of unpacking words of shape `shape`."""
    if original_shape is None:
        length = check_length(length, shape[-1])
        return length, (*shape[:-1], length)
    try:
        new = tuple(operator.index(n) for n in np.atleast_1d(np.array(original_shape, object)))
    except TypeError:
        raise BitstreamError(f"original_shape is a tuple of integers, not {original_shape!r}") from None
    streams, total = math.prod(shape[:-1]), math.prod(new)
    if min(new, default=0) < 0 or (total % streams if streams else total):
        raise BitstreamError(f"{streams} streams of words {shape} cannot be unpacked into the shape {new}")
    return check_length(total // streams if streams else new[-1], shape[-1]), new


def check_length(length: Any, n_words: int) -> int:
    """The length as an int, if a stream of so many bits fills exactly `n_words` words."""
    if isinstance(length, bool) or not isinstance(length, int | np.integer):
        raise BitstreamError(f"the length of a stream is an integer, not {length!r}")
    if length < 0 or words_for(int(length)) != n_words:
        low = WORD * (n_words - 1) + 1 if n_words else 0
        raise BitstreamError(f"{n_words} words hold {low} to {WORD * n_words} bits of a stream, not {length}")
    return int(length)


def kind_of(array: Any) -> str:
    """The kind of the dtype as NumPy names it; it does not know the small floats of ml_dtypes, nor JAX's keys."""
    kind: str = getattr(array.dtype, "kind", "O")
    return "f" if kind == "V" and "float" in array.dtype.name else kind


def check_words(words: Any) -> None:
    """Raise unless the array's type and shape can be packed words."""
    if kind_of(words) != "u" or words.dtype.itemsize != 8:
        raise BitstreamError(f"packed words are uint64, not {words.dtype}; pack_bitstream makes them from bits")
    if words.ndim == 0:
        raise BitstreamError("packed words have the words on the last axis, but this array has no axis")


@array_function
def as_words(packed: Any) -> Any:
    """The array as native uint64, or an error that says what it is instead."""
    words = as_numpy(packed, "packed words")
    check_words(words)
    return words.astype(np.uint64, copy=False)


@array_function
def check_tail(packed: Any, length: int) -> Any:
    """The words themselves, once their padding is known to be 0.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int
        Length of a stream in bits.

    Raises
    ------
    BitstreamError
        If a bit at or past `length` is 1, or the length does not fit the words.
    """
    words = as_words(packed)
    length = check_length(length, words.shape[-1])
    if length % WORD:
        padding = words[..., -1] & ~tail_mask(length)
        if padding.any():
            stream = tuple(int(i) for i in np.argwhere(padding)[0])
            raise BitstreamError(f"stream {stream} of {length} bits has ones in its padding, past bit {length - 1}")
    return words


@array_function
def mask_tail(packed: Any, length: int) -> Any:
    """The words with their padding cleared.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int
        Length of a stream in bits.

    Returns
    -------
    array of uint64, of the same shape

    Raises
    ------
    BitstreamError
        If the words are not uint64, or the length does not fit them.
    """
    return _without_padding(as_words(packed).copy(), length)


# Gates


def check_gate(*operands: Any) -> None:
    """Raise unless the packed operands have the same number of words and leading axes that broadcast."""
    for words in operands:
        check_words(words)
    if len({words.shape for words in operands}) == 1:
        return
    counts = [words.shape[-1] for words in operands]
    if len(set(counts)) > 1:
        raise BitstreamError(f"the operands of a gate hold {' and '.join(map(str, counts))} words a stream")
    known = [tuple(1 if np.isnan(n) else n for n in words.shape[:-1]) for words in operands]
    try:
        np.broadcast_shapes(*known)
    except ValueError:
        shapes = " and ".join(str(words.shape) for words in operands)
        raise BitstreamError(f"words of shapes {shapes} do not broadcast") from None


def _operands(*packed: Any) -> list[NDArray[np.uint64]]:
    words = [as_numpy(p, "packed words") for p in packed]
    check_gate(*words)
    return words


@partial(array_function, work=_gating)
def vec_and(a_packed: Any, b_packed: Any) -> Any:
    """AND: the product of independent unipolar streams.

    Parameters
    ----------
    a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        If the words are not uint64, differ in number, or do not broadcast.
    """
    a, b = _operands(a_packed, b_packed)
    return a & b


@partial(array_function, work=_gating)
def vec_or(a_packed: Any, b_packed: Any) -> Any:
    """OR: a + b - ab of independent unipolar streams, max(a, b) of fully correlated ones.

    Parameters, returns and errors are those of `vec_and`.
    """
    a, b = _operands(a_packed, b_packed)
    return a | b


@partial(array_function, work=_gating)
def vec_xor(a_packed: Any, b_packed: Any) -> Any:
    """XOR: |a - b| of fully correlated unipolar streams.

    Parameters, returns and errors are those of `vec_and`.
    """
    a, b = _operands(a_packed, b_packed)
    return a ^ b


@partial(array_function, work=_gating)
def vec_xnor(a_packed: Any, b_packed: Any, length: int | None = None) -> Any:
    """XNOR: the product of independent bipolar streams.

    Parameters
    ----------
    a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.
    length : int, optional
        Length of a stream in bits. With it the padding of the result is 0; without it every bit of a word counts.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        As for `vec_and`, or if the length does not fit the words.
    """
    a, b = _operands(a_packed, b_packed)
    return _without_padding(jit_kernels.xnor_word(a, b), length)


@partial(array_function, work=_gating)
def vec_not(packed: Any, length: int | None = None) -> Any:
    """NOT: 1 - p of a unipolar stream, -v of a bipolar one.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int, optional
        Length of a stream in bits. With it the padding of the result is 0; without it every bit of a word counts.

    Returns
    -------
    array of uint64, of the same shape

    Raises
    ------
    BitstreamError
        If the words are not uint64, or the length does not fit them.
    """
    return _without_padding(~as_words(packed), length)


@partial(array_function, work=_gating)
def vec_mux(select_packed: Any, a_packed: Any, b_packed: Any) -> Any:
    """MUX: `a` where `select` is 1, else `b`; the scaled sum s * a + (1 - s) * b for a `select` independent of both.

    Parameters
    ----------
    select_packed, a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        As for `vec_and`.
    """
    return jit_kernels.mux_word(*_operands(select_packed, a_packed, b_packed))


def _without_padding(words: NDArray[np.uint64], length: int | None) -> NDArray[np.uint64]:
    if length is not None:
        length = check_length(length, words.shape[-1])
        if length % WORD:
            words[..., -1] &= tail_mask(length)
    return words


# Counting


@partial(array_function, work=_counting)
def popcount(packed: Any) -> Any:
    """Ones in each word.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    array of uint8, of the same shape
    """
    return np.bitwise_count(as_words(packed))


@partial(array_function, work=_counting)
def stream_popcount(packed: Any) -> Any:
    """Ones in each stream: the accumulative parallel counter.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    array of int64, shape (...)
    """
    words = as_words(packed)
    out = np.zeros(words.shape[:-1], np.int64)
    if words.size:
        jit_kernels.popcount(np.ascontiguousarray(words), out.reshape(-1))
    return out


@partial(array_function, work=_counting)
def vec_popcount(packed: Any) -> Any:
    """Ones in the whole array.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)

    Returns
    -------
    int, or a lazy int64 scalar for a Dask array
    """
    words = np.ascontiguousarray(as_words(packed))
    out = np.zeros(1, np.int64)
    jit_kernels.popcount(words.reshape(-1), out)
    return int(out[0])


# Multiply-accumulate


@array_function
def vec_mac(packed_weights: Any, packed_inputs: Any, gate: Gate = "and", length: int | None = None) -> Any:
    """Multiply-accumulate: the ones of gate(weight, input), summed over the inputs of a neuron. No product is stored.

    Parameters
    ----------
    packed_weights : array of uint64, shape (n_neurons, n_inputs, n_words)
    packed_inputs : array of uint64, shape (n_inputs, n_words) or (batch, n_inputs, n_words)
    gate : {"and", "xnor"}
        AND multiplies unipolar streams, XNOR bipolar ones.
    length : int, optional
        Length of a stream in bits. Required for "xnor"; with it the padding of the operands must be 0.

    Returns
    -------
    array of int64, shape (n_neurons,) or (batch, n_neurons)

    Raises
    ------
    BitstreamError
        If the shapes, the dtype, the length or the padding do not fit.
    """
    weights, inputs = as_words(packed_weights), as_words(packed_inputs)
    length = check_mac(weights, inputs, gate, length)
    if length is not None:
        weights, inputs = check_tail(weights, length), check_tail(inputs, length)
    counts = gate_counts(weights, inputs, gate)
    return counts if gate == "and" or length is None else weights.shape[1] * length - counts


def check_mac(weights: Any, inputs: Any, gate: str, length: int | None) -> int | None:
    """The length as an int, if the operands of a MAC fit each other and its gate."""
    check_words(weights)
    check_words(inputs)
    if gate not in ("and", "xnor"):
        raise BitstreamError(f'the gate of a MAC is "and" or "xnor", not {gate!r}')
    if weights.ndim != 3 or inputs.ndim not in (2, 3) or weights.shape[1:] != inputs.shape[-2:]:
        raise BitstreamError(
            "a MAC takes weights (n_neurons, n_inputs, n_words) and inputs (n_inputs, n_words) or "
            f"(batch, n_inputs, n_words), not {weights.shape} and {inputs.shape}"
        )
    if length is not None:
        return check_length(length, weights.shape[-1])
    if gate == "xnor":
        raise BitstreamError("a MAC with XNOR counts padding unless it is given the length of a stream")
    return None


@partial(array_function, work=_accumulating)
def gate_counts(weights: Any, inputs: Any, gate: Gate) -> Any:
    """The counts of `vec_mac`, but for "xnor" those of XOR: where the padding is 0, XNOR has the rest of the bits."""
    weights, inputs = as_words(weights), as_words(inputs)
    check_mac(weights, inputs, "and", None)
    batch = inputs if inputs.ndim == 3 else inputs[None]
    counts = np.zeros((len(batch), len(weights)), np.int64)
    if counts.size and batch[0].size:
        jit_kernels.mac(batch, weights, gate == "xnor", counts)
    return counts if inputs.ndim == 3 else counts[0]


# Encoding


@array_function
def encode_words(values: Any, sng: SNG, length: int, polarity: Polarity = "unipolar") -> Any:
    """Encode real numbers as packed streams: a bit is 1 where the generator's number is below the probability.

    Parameters
    ----------
    values : array_like of float, any shape
        In [0, 1] for unipolar, [-1, 1] for bipolar streams.
    sng : SNG
        The stochastic number generator.
    length : int
        Length of a stream in bits.
    polarity : {"unipolar", "bipolar"}

    Returns
    -------
    array of uint64, shape (*values.shape, n_words)

    Raises
    ------
    BitstreamError
        If a value is outside its range or NaN, or is not real, or the generator cannot make such streams.
    """
    length = check_encoding(length, sng, polarity)
    given = values if hasattr(values, "dtype") else as_numpy(values, "values to encode")
    return encode_region(given, sng, length, polarity, whole(given.shape), given.shape, (0, words_for(length)))


def whole(shape: tuple[int, ...]) -> Region:
    """The region that is all of an array of shape `shape`."""
    return tuple(slice(0, n) for n in shape)


def check_encoding(length: Any, sng: Any, polarity: Any = "unipolar") -> int:
    """The length as an int, if the generator can make streams of so many bits."""
    if polarity not in get_args(Polarity):
        raise BitstreamError(f'the polarity of a stream is "unipolar" or "bipolar", not {polarity!r}')
    if isinstance(sng, type) or not hasattr(sng, "longest"):
        raise BitstreamError(f"sng is a stochastic number generator such as Sobol(1), not {sng!r}")
    if isinstance(length, bool) or not isinstance(length, int | np.integer) or not 1 <= length <= sng.longest:
        raise BitstreamError(f"the length of a stream of {sng} is an integer from 1 to {sng.longest}, not {length!r}")
    return int(length)


@partial(array_function, work=_encoding)
def encode_region(
    values: Any,
    sng: SNG,
    length: int,
    polarity: Polarity,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Any:
    """The words from words[0] up to words[1] of the streams of `values`, which are a region of an array of `shape`."""
    p = probabilities(values, polarity)
    first, last = words
    out = empty_words((*p.shape, last - first))
    if not out.size:
        return out
    flat, rows, key = readonly(p.reshape(-1)), out.reshape(p.size, -1), sng.key()
    if key is None:
        for start, stop in table_spans(p.size, length, words):
            jit_kernels.look_up(flat, *sng.table(length, start, stop), start // WORD - first, rows)
        return out
    streams = readonly(stream_numbers(region, shape).reshape(-1))
    jit_kernels.bernoulli(flat.view(np.uint64), streams, first, *key, rows)
    if WORD * last > length:
        rows[:, -1] &= tail_mask(length)
    return out


def table_spans(streams: int, length: int, words: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """The bits that each look-up table serves: fewer where so few streams are looked up that a table costs more."""
    segment = min(SEGMENT, max(SEGMENT // 8, 1 << streams.bit_length()))
    last = min(WORD * words[1], length)
    return ((start, min(start + segment, last)) for start in range(WORD * words[0], last, segment))


def check_real(values: Any) -> None:
    """Raise unless the array's type can be encoded."""
    if kind_of(values) not in "biuf":
        raise BitstreamError(f"streams encode real numbers, not {values.dtype}")


@array_function
def probabilities(values: Any, polarity: Polarity) -> Any:
    """The probability of a one for each value, as float64."""
    given = as_numpy(values, "values to encode")
    check_real(given)
    low, high = RANGES[polarity]
    p = given.astype(np.float64, copy=False)
    if p.size and not (p.min() >= low and p.max() <= high):  # NaN is the minimum where there is one
        place = tuple(int(i) for i in np.argwhere(~((p >= low) & (p <= high)))[0])
        raise BitstreamError(f"{polarity} streams encode {low:g} to {high:g}, but there is {given[place]} at {place}")
    return p if polarity == "unipolar" else (p + 1) / 2


def stream_numbers(region: Region, shape: tuple[int, ...], xp: Any = np) -> Any:
    """The places, in C order of an array of shape `shape`, of the elements in `region`, as uint64 of the library xp."""
    numbers = xp.zeros((1,) * len(region), np.uint64)
    stride = 1
    for axis in reversed(range(len(region))):
        along = xp.arange(region[axis].start, region[axis].stop, dtype=np.uint64) * np.uint64(stride)
        numbers = numbers + along.reshape(-1, *[1] * (len(region) - axis - 1))
        stride *= shape[axis]
    return numbers


# Layers


@array_function
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
    given = as_numpy(values, "weights")
    check_real(given)
    weights = given.astype(np.float64, copy=False)
    if not np.isfinite(weights).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(weights))[0])
        raise BitstreamError(f"weights are finite, but there is {weights[place]} at {place}")
    return weights


@array_function
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
    weights = as_weights(weights)
    inputs = inputs if hasattr(inputs, "dtype") else as_numpy(inputs, "inputs")
    length = check_layer(weights, inputs, w_sng, x_sng, length, mode)
    operand = split_signs(weights) if mode == "split" else weights
    region = whole(operand.shape)
    counts: Any = 0
    for words in word_blocks(operand.shape, length):
        w = encode_region(operand, w_sng, length, OPERAND_POLARITY[mode], region, operand.shape, words)
        counts = counts + encoded_counts(w, inputs, x_sng, length, mode, whole(inputs.shape), inputs.shape, words)
    return counts if mode == "split" else weights.shape[1] * length - counts


OPERAND_POLARITY: dict[Mode, Polarity] = {"split": "unipolar", "bipolar": "bipolar"}


def check_layer(weights: Any, inputs: Any, w_sng: Any, x_sng: Any, length: Any, mode: Any) -> int:
    """The length as an int, if the operands of a layer fit each other and its generators."""
    check_mode(mode)
    check_real(weights)
    check_real(inputs)
    if weights.ndim != 2 or inputs.ndim != 2 or weights.shape[1] != inputs.shape[1]:
        raise BitstreamError(
            "a layer takes weights (n_neurons, n_inputs) and inputs (batch, n_inputs), "
            f"not {weights.shape} and {inputs.shape}"
        )
    check_encoding(length, w_sng)
    return check_encoding(length, x_sng)


def check_mode(mode: Any) -> None:
    """Raise unless it is one of the two ways to multiply signed weights."""
    if mode not in get_args(Mode):
        raise BitstreamError(f'the mode of a product is "split" or "bipolar", not {mode!r}')


@array_function
def split_signs(weights: Any) -> Any:
    """w+ stacked on w-, both >= 0, where w = w+ - w-."""
    return concatenate(weights.clip(0.0), (-weights).clip(0.0))


@array_function
def concatenate(*arrays: Any) -> Any:
    """The arrays, one after the other along the first axis."""
    return np.concatenate(arrays)


def word_blocks(shape: tuple[int, ...], length: int) -> Iterator[tuple[int, int]]:
    """Ranges of words such that one range of the streams of `shape` values takes at most OPERAND_BYTES."""
    n_words = words_for(length)
    size = max(1, OPERAND_BYTES // (8 * max(1, math.prod(shape))))
    starts = range(0, n_words, size)
    if len(starts) > MOST_RANGES:
        raise BitstreamError(
            f"{shape} weights of {length} bits take {len(starts)} steps, over the {MOST_RANGES} allowed"
        )
    return ((first, min(first + size, n_words)) for first in starts)


@array_function
def encoded_counts(
    packed_weights: Any,
    inputs: Any,
    sng: SNG,
    length: int,
    mode: Mode,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Any:
    """The counts of `encode_mac` over a range of words, in bipolar mode of XOR instead of XNOR.

    The weights are packed, in split mode w+ on w-. The inputs, a region of an array of `shape`, are encoded a tile of
    rows at a time, used and dropped.
    """
    row_bytes = 8 * max(1, inputs.shape[1]) * (words[1] - words[0])
    rows = max(4, TILE_BYTES // row_bytes // 4 * 4)
    gate: Gate = "and" if mode == "split" else "xnor"
    counts = []
    for row in range(0, max(1, len(inputs)), rows):
        tile = inputs[row : row + rows]
        first = region[0].start + row
        part = (slice(first, first + len(tile)), region[1])
        x = encode_region(tile, sng, length, OPERAND_POLARITY[mode], part, shape, words)
        counts.append(gate_counts(packed_weights, x, gate))
    total = concatenate(*counts) if len(counts) > 1 else counts[0]
    if mode == "bipolar":
        return total
    neurons = len(packed_weights) // 2
    return total[:, :neurons] - total[:, neurons:]


# Arithmetic


@array_function
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """func(*arrays, **options) in float64, rounded as NumPy rounds by every library.

    Dask arrays go through it block by block; they broadcast.
    """
    return func(*arrays, **options)


@array_function
def in_64_bits(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """func(*arrays, **options) where the library of the arrays, which are no Dask arrays, keeps 64 bits."""
    return func(*arrays, **options)


@array_function
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    """words[index], by NumPy's rules, as words of the same library."""
    return words[plain_index(index)]


def plain_index(index: tuple[Any, ...]) -> tuple[Any, ...]:
    """The index with arrays of other libraries, but for Dask's, as NumPy's."""
    return tuple(on_host(part)[()] if hasattr(part, "dtype") and not hasattr(part, "dask") else part for part in index)


@array_function
def divide(a: Any, b: Any) -> Any:
    """The quotient, rounded to the nearest float64."""
    return a / b


@array_function
def largest(weights: Any) -> Any:
    """The largest |weight|, or 1 if all are 0."""
    return or_one(abs(weights).max() if weights.size else np.float64(0))


def or_one(value: Any) -> Any:
    """The value, or 1 for 0."""
    return value + (value == 0)


@array_function
def on_host(array: Any) -> Any:
    """The array as NumPy's, or Dask's of NumPy blocks."""
    return array


@array_function
def from_numpy(like: Any) -> Callable[[Any], Any]:
    """The function that makes an array of the library of `like`, which is no Dask array, of a NumPy array."""
    return np.asarray

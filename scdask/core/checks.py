"""Checks of arguments, for arrays of any library: the public function that takes an argument checks it once.

Each returns the argument in the form that kernels take, or nothing.
"""

from __future__ import annotations

import operator
from math import prod
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..errors import BitstreamError, UnsupportedArrayError
from .contract import on_host
from .dispatch import BACKENDS, backend_of, library_of
from .words import WORD, MacGate, Mode, Polarity, words_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

UINT64 = np.dtype(np.uint64)
# They stand here because `a | b` in an `isinstance`, and `get_args`, would be made anew in each call.
INTEGERS, NUMPY_TYPES = (int, np.integer), (np.ndarray, np.generic)
POLARITIES, MODES, MAC_GATES = get_args(Polarity), get_args(Mode), get_args(MacGate)
TABLES = ("pandas", "polars")  # libraries whose columns are NumPy arrays with more around them


def as_numpy(values: Any, name: str) -> NDArray[Any]:
    """Plain values as a NumPy array; `name` says what they are in an error.

    Masked arrays, whose mask would be lost, and arrays of other libraries, which would be computed, are refused.
    """
    for part in values if isinstance(values, list | tuple) else [values]:
        if not hasattr(part, "dtype"):
            continue
        if not (isinstance(part, NUMPY_TYPES) or library_of(part) in TABLES) or isinstance(part, np.ma.MaskedArray):
            cls = type(part)
            raise UnsupportedArrayError(f"{name}: a NumPy array, not {cls.__module__}.{cls.__qualname__}")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise BitstreamError(f"{name}: a rectangular array is needed, but {error}") from None


def as_array(values: Any, name: str) -> Any:
    """Plain values as a NumPy array; arrays of a library that has kernels stay as they are."""
    if type(values) is np.ndarray:
        return values
    if not hasattr(values, "dtype"):
        return as_numpy(values, name)
    backend = None if library_of(values) in TABLES else backend_of(values, name)
    return as_numpy(values, name) if backend is None or backend.name == "numpy" else values


def as_host(values: Any, name: str) -> NDArray[Any]:
    """Plain values, or an array of a library that has kernels, as a NumPy array: a lazy one is computed."""
    found = on_host(as_array(values, name))
    return as_numpy(found.compute() if hasattr(found, "compute") else found, name)


def kind_of(array: Any) -> str:
    """The kind of the dtype as NumPy names it, also of the small floats of ml_dtypes and of JAX's keys."""
    kind: str = getattr(array.dtype, "kind", "O")
    return "f" if kind == "V" and "float" in array.dtype.name else kind


# Bits and words


def as_bits(bitstream: Any) -> Any:
    """The bits as an array, once its dtype and shape are known to fit bits."""
    bits = as_array(bitstream, "bits")
    if bits.size == 0 and not hasattr(bitstream, "dtype"):
        bits = bits.astype(bool)
    if kind_of(bits) not in "biu":
        raise BitstreamError(f"a bitstream holds 0 and 1 as bool or integers, not {bits.dtype}")
    if bits.ndim == 0:
        raise BitstreamError(f"a bitstream has its bits on the last axis, but this array has none: {bits!r}")
    return bits


def as_words(packed: Any) -> Any:
    """The words as native uint64, once they are known to be uint64 with an axis of words."""
    words = packed if type(packed) is np.ndarray else as_array(packed, "packed words")
    if words.dtype is not UINT64:
        if kind_of(words) != "u" or words.dtype.itemsize != 8:
            cut = words.dtype == np.uint32 and backend_of(words) is BACKENDS["jax"]
            way = (
                ": to_jax keeps the 64 bits that jnp.asarray cuts off"
                if cut
                else "; pack_bitstream makes them from bits"
            )
            raise BitstreamError(f"packed words are uint64, not {words.dtype}{way}")
        if not words.dtype.isnative:
            words = words.astype(UINT64)
    if words.ndim == 0:
        raise BitstreamError("packed words have the words on the last axis, but this array has no axis")
    return words


def check_length(length: Any, n_words: int) -> int:
    """The length as an int, if a stream of so many bits fills exactly `n_words` words."""
    if isinstance(length, bool) or not isinstance(length, INTEGERS):
        raise BitstreamError(f"the length of a stream is an integer, not {length!r}")
    bits = int(length)
    if bits < 0 or words_for(bits) != n_words:
        low = WORD * (n_words - 1) + 1 if n_words else 0
        raise BitstreamError(f"{n_words} words hold {low} to {WORD * n_words} bits of a stream, not {length}")
    return bits


def unpacked_shape(
    shape: tuple[int, ...], length: int, original_shape: tuple[int, ...] | None
) -> tuple[int, tuple[int, ...]]:
    """The length of a stream and the shape of the result of unpacking words of shape `shape`."""
    if original_shape is None:
        length = check_length(length, shape[-1])
        return length, (*shape[:-1], length)
    try:
        new = tuple(operator.index(n) for n in np.atleast_1d(np.array(original_shape, object)))
    except (TypeError, ValueError):
        raise BitstreamError(f"original_shape is a tuple of integers, not {original_shape!r}") from None
    streams, total = prod(shape[:-1]), prod(new)
    if min(new, default=0) < 0 or (total % streams if streams else total):
        raise BitstreamError(f"{streams} streams of words {shape} cannot be unpacked into the shape {new}")
    return check_length(total // streams if streams else new[-1], shape[-1]), new


def check_operands(*operands: Any) -> None:
    """Raise unless all operands have the same number of words a stream, and leading axes that broadcast."""
    shape = operands[0].shape
    for words in operands:
        if words.shape != shape:
            break
    else:
        return
    counts = [words.shape[-1] for words in operands]
    if len(set(counts)) > 1:
        raise BitstreamError(f"the operands of a gate hold {' and '.join(map(str, counts))} words a stream")
    known = [tuple(1 if np.isnan(n) else n for n in words.shape[:-1]) for words in operands]
    try:
        np.broadcast_shapes(*known)
    except ValueError:
        shapes = " and ".join(str(words.shape[:-1]) for words in operands)
        raise BitstreamError(f"streams of shapes {shapes} do not broadcast") from None


def check_mac(weights: Any, inputs: Any, gate: str, length: int | None) -> int | None:
    """The length as an int, if the operands of a MAC fit each other and its gate."""
    check_choice("the gate of a MAC", gate, MAC_GATES)
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


# Numbers and generators


def as_real(values: Any, name: str) -> Any:
    """The values as an array of real numbers; `name` says what they are in an error."""
    given = as_array(values, name)
    if kind_of(given) not in "biuf":
        raise BitstreamError(f"{name}: streams encode real numbers, not {given.dtype}")
    return given


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise unless the value is one of the choices; `name` says what it is in an error."""
    if not isinstance(value, str) or value not in choices:
        either = " or ".join(f'"{choice}"' for choice in choices)
        raise BitstreamError(f"{name} is {either}, not {value!r}")


def check_polarity(polarity: Any) -> None:
    """Raise unless the polarity is "unipolar" or "bipolar"."""
    check_choice("the polarity of a stream", polarity, POLARITIES)


def check_generator(sng: Any) -> None:
    """Raise unless `sng` is a stochastic number generator."""
    if isinstance(sng, type) or not hasattr(sng, "longest"):
        raise BitstreamError(f"sng is a stochastic number generator such as Sobol(1), not {sng!r}")
    try:
        hash(sng)
    except TypeError as error:
        raise BitstreamError(f"a stochastic number generator is hashable, but {error}") from None


def check_encoding(length: Any, *generators: Any) -> int:
    """The length as an int, if each generator can make streams of so many bits."""
    for sng in generators:
        check_generator(sng)
        if isinstance(length, bool) or not isinstance(length, INTEGERS) or not 1 <= length <= sng.longest:
            raise BitstreamError(
                f"the length of a stream of {sng} is an integer from 1 to {sng.longest}, not {length!r}"
            )
    return int(length)


def check_mode(mode: Any) -> None:
    """Raise unless the mode is "split" or "bipolar"."""
    check_choice("the mode of a product", mode, MODES)


def check_product(weights: Any, inputs: Any) -> None:
    """Raise unless weights and inputs can be multiplied."""
    if weights.ndim != 2 or inputs.ndim != 2 or weights.shape[1] != inputs.shape[1]:
        raise BitstreamError(
            "a layer takes weights (n_neurons, n_inputs) and inputs (batch, n_inputs), "
            f"not {weights.shape} and {inputs.shape}"
        )

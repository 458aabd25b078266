"""The names of the reference: kernels that fill an array which the caller gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_numpy, as_words, check_mac
from ..core.words import WORD, words_for
from ..errors import BitstreamError
from ..vector_ops.mac import vec_mac
from ..vector_ops.packing import pack_bitstream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words


def jit_pack_bits(bitstream: NDArray[Any], packed_arr: Words) -> None:
    """Pack bits into a given array of words.

    Parameters
    ----------
    bitstream : array of bool or integers, shape (..., N)
        Zeros and ones.
    packed_arr : ndarray of uint64, shape (..., ceil(N / 64))
        Filled with the packed bits, LSB first.

    Raises
    ------
    BitstreamError
        If the output does not fit, before anything is written; or if there is anything but 0 and 1.
    """
    bits = as_numpy(bitstream, "bits")
    shape = (*bits.shape[:-1], words_for(bits.shape[-1])) if bits.ndim else ()
    _check_output(packed_arr, shape)
    if packed_arr.dtype.kind != "u" or packed_arr.dtype.itemsize != 8:
        raise BitstreamError(f"packed words are uint64, but the output is {packed_arr.dtype}")
    packed_arr[...] = pack_bitstream(bitstream)


def jit_vec_mac(packed_weights: Words, packed_inputs: Words, outputs: NDArray[Any]) -> None:
    """Multiply-accumulate into a given array: the ones of weight AND input, summed over the inputs of a neuron.

    Parameters
    ----------
    packed_weights : ndarray of uint64, shape (n_neurons, n_inputs, n_words)
    packed_inputs : ndarray of uint64, shape (n_inputs, n_words) or (batch, n_inputs, n_words)
    outputs : ndarray, shape (n_neurons,) or (batch, n_neurons)
        Filled with the counts; its dtype must hold the largest possible count exactly.

    Raises
    ------
    BitstreamError
        If the operands or the output do not fit, before anything is written.
    """
    weights, inputs = (as_words(as_numpy(p, "packed words")) for p in (packed_weights, packed_inputs))
    check_mac(weights, inputs, "and", None)
    _check_output(outputs, (*inputs.shape[:-2], len(weights)))
    largest = WORD * weights.shape[1] * weights.shape[2]
    kind = outputs.dtype.kind
    holds = (
        np.iinfo(outputs.dtype).max if kind in "iu" else 2 ** (np.finfo(outputs.dtype).nmant + 1) if kind == "f" else 0
    )
    if holds < largest:
        raise BitstreamError(f"a count can be {largest}, more than the output's {outputs.dtype} holds")
    outputs[...] = vec_mac(weights, inputs)


def _check_output(output: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(output, np.ndarray):
        raise BitstreamError(f"the output is a NumPy array to fill, not {type(output).__name__}")
    if output.shape != shape:
        raise BitstreamError(f"the output has shape {output.shape}, but the result has {shape}")
    if not output.flags.writeable:
        raise BitstreamError("the output is read-only")

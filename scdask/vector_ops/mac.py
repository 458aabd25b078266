"""Multiply-accumulate of packed words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import contract
from ..core.checks import as_words, check_mac

if TYPE_CHECKING:
    from ..core.words import MacGate


def vec_mac(packed_weights: Any, packed_inputs: Any, gate: MacGate = "and", length: int | None = None) -> Any:
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
    if length is None:
        return contract.gate_counts(weights, inputs, gate)
    weights, inputs = contract.check_tail(weights, length), contract.check_tail(inputs, length)
    return contract.gate_counts(weights, inputs, gate, weights.shape[1] * length if gate == "xnor" else None)

"""The names of the reference, which take arrays of the host too."""

from __future__ import annotations

from typing import Any

from .. import vector_ops
from .device import to_jax


def jax_pack_bitstream(bits: Any) -> Any:
    """`vector_ops.pack_bitstream` as a JAX array."""
    return vector_ops.pack_bitstream(to_jax(bits))


def jax_vec_and(a: Any, b: Any) -> Any:
    """`vector_ops.vec_and` as a JAX array."""
    return vector_ops.vec_and(to_jax(a), to_jax(b))


def jax_popcount(packed: Any) -> Any:
    """`vector_ops.popcount`, the ones in each word, as a JAX array."""
    return vector_ops.popcount(to_jax(packed))


def jax_vec_mac(packed_weights: Any, packed_inputs: Any) -> Any:
    """`vector_ops.vec_mac` as a JAX array."""
    return vector_ops.vec_mac(to_jax(packed_weights), to_jax(packed_inputs))

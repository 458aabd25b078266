"""The names of the reference, which take arrays of the host too."""

from __future__ import annotations

from typing import Any

from .. import vector_ops
from .device import to_device


def gpu_pack_bitstream(bits: Any) -> Any:
    """`vector_ops.pack_bitstream` on the GPU."""
    return vector_ops.pack_bitstream(to_device(bits))


def gpu_vec_and(a: Any, b: Any) -> Any:
    """`vector_ops.vec_and` on the GPU."""
    return vector_ops.vec_and(to_device(a), to_device(b))


def gpu_popcount(packed: Any) -> Any:
    """`vector_ops.popcount`, the ones in each word, on the GPU."""
    return vector_ops.popcount(to_device(packed))


def gpu_vec_mac(packed_weights: Any, packed_inputs: Any) -> Any:
    """`vector_ops.vec_mac` on the GPU."""
    return vector_ops.vec_mac(to_device(packed_weights), to_device(packed_inputs))

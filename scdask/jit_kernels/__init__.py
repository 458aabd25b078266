"""NumPy arrays: Numba kernels over one chunk of packed words.

A kernel takes words of the machine's byte order: `mac.mac` of any strides and alignment, `counting.count_rows`
contiguous ones of any alignment, the others what `core.llvm.readonly` gives, so that each is compiled once, for
read-only arrays, which any array can be viewed as. Kernels are compiled at their first call, and kept on disk.

The two public functions are those of `sc_neurocore.accel.jit_kernels`, which fill an array that the caller gives.
"""

from ..core.dispatch import loaded
from . import counting, encoding, gates, mac, numbers, packing
from .device import from_numpy, wait, works
from .reference import jit_pack_bits, jit_vec_mac

__all__ = ["jit_pack_bits", "jit_vec_mac"]

loaded("numpy")

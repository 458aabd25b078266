"""NumPy arrays: Numba kernels over one chunk of packed words.

Kernels take words of the machine's byte order: `mac.mac` takes words of any strides and alignment,
`counting.count_rows` contiguous ones of any alignment, and the others what `core.llvm.readonly` gives. So each is
compiled once, for read-only arrays, because any array can be viewed as one.

Compilation
    Kernels are compiled at their first call, all of them in 10 to 15 seconds (machines take 1 to 3 more for each number
    of their inputs and outputs), and kept on disk: beside scdask, or in your cache folder where that is read-only, or
    in the folder that the environment variable NUMBA_CACHE_DIR names. Only where none of these can be written to does
    each process compile for itself.
Strides
    Words may have any strides and alignment. A batched MAC takes at most 1.3 times as long in Fortran order as in C
    order; the MAC of a single input, which memory bounds, 3 to 5 times as long.
Threads
    A kernel runs on the thread that calls it, and lets go of Python's lock (GIL). More cores are Dask's to use.
Convolutions
    The rows of a MAC may be windows of images: it gathers their words as it copies rows to its blocks.
Processors
    A batched MAC gates and counts vectors where the processor counts their ones by itself (AVX-512 VPOPCNTDQ). On
    other x86 processors it looks counts up, 16 or 32 of them in an instruction (SSSE3, AVX2): `mac_tables`. Kernels for
    x86-64-v2, v3 and v4 give the same bits and counts.
Machines
    Machines of few states are run by byte shuffles too, 32 streams at a time, where there are 8 streams or more; others
    by look-ups of up to 8 steps at once. Those of two states take no look-ups, but some 40 operations a word.
Speed
    `scdask bench` measures it here, against NumPy and the limits of the machine.

The two public functions are those of `sc_neurocore.accel.jit_kernels`, which fill an array that the caller gives.
"""

from . import adders, conv, counting, encoding, gates, mac, machines, numbers, packing, umul
from .device import ARRAYS, from_numpy, wait, works
from .reference import jit_pack_bits, jit_vec_mac

__all__ = ["jit_pack_bits", "jit_vec_mac"]

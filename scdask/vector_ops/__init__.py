"""Operations on bitstreams packed into uint64 words.

Bit t of a stream is bit t % 64 of word t // 64 (LSB first). Words are on the last axis, any number of axes leads.
The bits of the last word at and past the stream's length are padding, and 0. The functions take NumPy, Dask, CuPy and
JAX arrays, and the arrays that come in decide which kernels run.

>>> from scdask import vector_ops
>>> words = vector_ops.pack_bitstream([[1, 0, 1, 1], [1, 1, 1, 1]])
>>> words
array([[13],
       [15]], dtype=uint64)
>>> vector_ops.vec_popcount(vector_ops.vec_not(words, length=4))
1
>>> vector_ops.vec_mac(words[None], words)  # one neuron with two inputs
array([7])

Differences from `sc_neurocore.accel.vector_ops`, whose names these are:

- The length of `unpack_bitstream` is that of one stream, whatever the number of streams: words (batch, n_words) of
  length N give bits (batch, N), not the first N bits of all.
- `vec_xnor` and `vec_not` take the length of a stream, and then keep its padding 0; without it they count every bit of
  a word, as the reference does.
- Anything but 0 and 1 in the bits, words that are not uint64, and shapes that do not fit are errors.
- `vec_mac`, `stream_popcount`, `prefix_popcount`, `vec_or`, `vec_xor` and `mask_tail` are new.

In `jax_backend` deeper layers of `jax_forward_pass` are fed by the spikes of the layer below in the same step, and the
reset is not differentiated.
"""

from ..core.words import MacGate as Gate
from ..core.words import Mode, Polarity, Region, words_for
from .counting import popcount, prefix_popcount, stream_popcount, vec_popcount
from .encoding import encode_words
from .gates import vec_and, vec_mux, vec_not, vec_or, vec_xnor, vec_xor
from .mac import vec_mac
from .machines import map_words, run_machine
from .numbers import divide, largest, to_host
from .packing import check_tail, mask_tail, pack_bitstream, unpack_bitstream
from .products import as_weights, encode_mac

__all__ = [
    "check_tail",
    "map_words",
    "mask_tail",
    "pack_bitstream",
    "popcount",
    "prefix_popcount",
    "run_machine",
    "stream_popcount",
    "unpack_bitstream",
    "vec_and",
    "vec_mac",
    "vec_mux",
    "vec_not",
    "vec_or",
    "vec_popcount",
    "vec_xnor",
    "vec_xor",
]


def __dir__() -> list[str]:
    return __all__

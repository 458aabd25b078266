"""Dask arrays: graphs whose tasks run the kernels of their blocks' library, without any bit logic of their own.

What Dask was told of a block may be false, which shows only in the task that gets the block. So tasks call the public
functions, which check what they are given, once a block.

`scdask.encode`, the gates, `scdask.matmul` and the functions of `scdask.vector_ops` come here with a Dask array, and
stay lazy. `help(scdask.cluster)` says how to choose chunks, and where a graph is computed.
"""

from . import adders, conv, counting, gates, indexing, mac, machines, numbers, packing, products, umul
from .device import ARRAYS, as_dask, from_numpy, wait, works
from .encoding import encode_words
from .sizes import warn_of_many_blocks

__all__ = ["as_dask", "encode_words"]

"""JAX arrays: kernels under XLA, and spiking neurons that can be trained.

They were tested on CPUs only. With JAX (`pip install "scdask[jax]"`) all functions, streams and layers of scdask take
JAX arrays, give JAX arrays with the same bits, and work under `jax.jit`, `jax.vmap` and `jax.shard_map`. `to_jax` moves
arrays, lazy arrays and Bitstreams there, `to_host` back:

>>> import dask.array as da
>>> import jax
>>> import numpy as np
>>> import scdask as sc
>>> from scdask.jax_backend import jax_forward_pass, to_host, to_jax
>>> p = to_jax(np.linspace(0, 1, 5))
>>> square = jax.jit(lambda p: (sc.encode(p, 256, sng=sc.Sobol(1)) & sc.encode(p, 256, sng=sc.Sobol(2))).decode())
>>> to_host(square(p))
array([0.    , 0.0625, 0.25  , 0.5625, 1.    ])
>>> lazy = sc.encode(to_jax(da.from_array(np.linspace(0, 1, 5), chunks=2)), 256, sng=sc.Sobol(1))
>>> type(lazy.compute().words).__name__, to_host(lazy.decode()).compute()
('ArrayImpl', array([0.  , 0.25, 0.5 , 0.75, 1.  ]))

Spiking neurons are `jax_lif_step`, `jax_forward_pass` and `jax_surrogate_gradient_step`, a step of training with a
surrogate gradient; `scdask.snn` trains whole networks.

>>> spikes, v = jax_forward_pass([np.eye(2)], np.array([0.5, 0.05]), n_steps=8)
>>> spikes[0].astype(int).T.tolist()
[[0, 0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]]

JAX makes 64-bit values only where `jax_enable_x64` is on, and by default it is off. No setting is changed here: each
function turns it on for itself alone (`jax.enable_x64`), so that words are uint64 and counts int64 whatever the setting
is. Arithmetic of your own on such arrays does the same, or takes `to_host(array)`; outside of such a scope JAX cuts the
results to 32 bits, mostly with a warning. The same goes for Dask's own reductions of JAX chunks: write
`to_host(stream.decode()).mean()`. Move words with `to_jax`; `jnp.asarray` would cut them, as `jax.device_put` does with
arrays that are sharded over devices, and scdask refuses what they leave.

Results stay on the device of the input, or on the devices that it is sharded over. `to_jax(x, device)` moves arrays and
Bitstreams to a device or a sharding of JAX.

Under `jax.jit`, `jax.vmap` and `jax.shard_map` the values of traced arrays cannot be looked at: there a bit that is not
0 is 1, padding is not checked, and a value outside the range of a stream is encoded as the nearest one inside, NaN as
0. XLA also holds the streams of all inputs of `matmul` at once there, and may round the numbers between two layers
differently in the last bit. Under `vmap` and `shard_map` the streams of each part are numbered from 0, as they are
where the part is encoded alone, so that `Bernoulli` gives all parts the same random numbers.

On a CPU, XLA calls the kernels for NumPy arrays to pack, unpack, encode, multiply and add large arrays, also under
`jax.jit`, `jax.vmap`, `jax.lax.scan` and `jax.shard_map`; large MACs and Bernoulli streams take all cores. A call takes
about 0.03 ms more than a function that XLA has compiled, so small arrays are left to XLA. Arrays that are sharded over
several CPU devices are left to it too. Under `jax.jit` alone their shards cannot be seen, and XLA gathers them for the
kernels: `jax.shard_map` keeps them apart. `jax.export` takes the kernels' calls, whose names begin with `scdask_`, only
if its `disabled_checks` allow each.

The names of `sc_neurocore.accel.jax_backend` are here too. `HAS_JAX` says whether JAX is installed. Without it the
package can be imported all the same: `jnp` is NumPy, `to_jax` leaves arrays on the host and warns once, so that the
functions on bits run on the kernels for NumPy arrays, and the neurons say what to install.
"""

from ..core.dispatch import loaded
from ..vector_ops.numbers import to_host
from . import adders, counting, encoding, gates, mac, machines, numbers, packing
from .device import ARRAYS, HAS_JAX, from_numpy, jax, jnp, to_jax, uncut, wait, works
from .neurons import jax_forward_pass, jax_lif_step, jax_surrogate_gradient_step, spike
from .reference import jax_pack_bitstream, jax_popcount, jax_vec_and, jax_vec_mac

__all__ = [
    "HAS_JAX",
    "jax_forward_pass",
    "jax_lif_step",
    "jax_pack_bitstream",
    "jax_popcount",
    "jax_surrogate_gradient_step",
    "jax_vec_and",
    "jax_vec_mac",
    "jnp",
    "spike",
    "to_host",
    "to_jax",
]

if HAS_JAX:
    loaded("jax")

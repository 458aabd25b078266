"""JAX arrays: our functions, also under jit, those of sc-neurocore's JAX backend, and ours on NumPy arrays, in turn.

Runs of one case give the same bits and counts, which is checked first; networks differ. The last columns are the time
of the others over ours. JAX and the kernels that it calls use all cores, NumPy arrays one: `taskset -c 0` compares them
on one core.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from graphs import least_times, random_words
from rich.console import Console
from rich.table import Table
from sc_neurocore.accel import jax_backend as peer  # turns 64 bits on for all of JAX

from scdask import Bernoulli, Sobol, vector_ops
from scdask.jax_backend import jax_forward_pass, jax_surrogate_gradient_step, to_jax


def cases():
    """Yield the name, the work of a run in bits or pairs of bits, our function, its arrays, and theirs."""
    for shape in [(256, 256, 16), (1024, 512, 16), (4096, 512, 16)]:
        arrays = random_words(*shape), random_words(*shape[1:])
        name = f"MAC {' x '.join(map(str, shape))}, one input"
        yield name, 64 * arrays[0].size, vector_ops.vec_mac, arrays, peer.jax_vec_mac
    for batch in (16, 64, 256):
        arrays = random_words(256, 256, 16), random_words(batch, 256, 16)
        yield f"MAC 256 x 256 x 16, batch {batch}", 2**26 * batch, vector_ops.vec_mac, arrays, one_by_one
    rng = np.random.default_rng(0)
    bits, words, p = rng.integers(0, 2, 2**20, dtype=np.uint8), random_words(4096, 16), rng.random(4096)
    for name, func, array, theirs in [
        ("pack", vector_ops.pack_bitstream, bits, peer.jax_pack_bitstream),
        ("unpack", partial(vector_ops.unpack_bitstream, original_length=1024), words, None),
        ("popcount of each word", vector_ops.popcount, words, peer.jax_popcount),
        ("popcount of each stream", vector_ops.stream_popcount, words, None),
        ("popcount of all", vector_ops.vec_popcount, words, None),
        ("encode Bernoulli", partial(vector_ops.encode_words, sng=Bernoulli(1), length=1024), p, None),
        ("encode Sobol", partial(vector_ops.encode_words, sng=Sobol(1), length=1024), p, None),
    ]:
        yield name, bits.size if array is bits else 4096 * 1024, func, (array,), theirs
    for name, func, array in [
        ("popcount of 4 words", vector_ops.popcount, words[0, :4]),
        ("pack 256 bits", vector_ops.pack_bitstream, bits[:256]),
        ("encode 4 x 64 bits, Sobol", partial(vector_ops.encode_words, sng=Sobol(1), length=64), p[:4]),
    ]:
        yield name, None, func, (array,), None


def one_by_one(w, x):
    return jnp.stack([peer.jax_vec_mac(w, row) for row in x])


def runs():
    """Yield the name, the work, and the runs of each case."""
    for name, work, func, arrays, theirs in cases():
        on_jax = tuple(map(to_jax, arrays))
        found = {"ours": partial(func, *on_jax), "jit": partial(jax.jit(func), *on_jax)}
        if theirs:
            found["theirs"] = partial(theirs, *on_jax)
        found["numpy"] = partial(func, *arrays)
        first, *others = (np.asarray(run()) for run in found.values())
        for other in others:
            np.testing.assert_array_equal(first, other)
        yield name, work, found
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(0, 1 / 8, (100, 64))), jnp.asarray(rng.normal(0, 0.3, (10, 100)))]
    x, targets = jnp.asarray(rng.random((64, 64))), jnp.eye(10)[rng.integers(0, 10, 64)]
    for name, ours, theirs, args in [
        ("forward pass", jax_forward_pass, peer.jax_forward_pass, (weights, x, 25)),
        ("training step", jax_surrogate_gradient_step, peer.jax_surrogate_gradient_step, (weights, x, targets)),
    ]:
        yield f"{name}, 64-100-10, batch 64", None, {"ours": partial(ours, *args), "theirs": partial(theirs, *args)}


def timed(run):
    return lambda: jax.block_until_ready(run())


def main():
    table = Table(title="JAX arrays", caption=f"JAX {jax.__version__} on {jax.devices()[0].device_kind}.")
    table.add_column("")
    for column in ("ours", "under jit", "sc-neurocore", "NumPy arrays"):
        table.add_column(column, justify="right")
    for name, work, named in runs():
        least = least_times({key: timed(run) for key, run in named.items()})
        unit = "Gbitop/s" if name.startswith("MAC") else "Gbit/s"
        speed = f"{work / least['ours'] / 1e9:.1f} {unit}" if work else f"{1e3 * least['ours']:.3f} ms"
        ratios = [f"{least[key] / least['ours']:.2f}" if key in least else "" for key in ("jit", "theirs", "numpy")]
        table.add_row(name, speed, *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()

"""JAX arrays: our functions, those of sc-neurocore's JAX backend, and our Numba kernels on NumPy arrays, in turn.

Runs of one case give the same bits and counts, which is checked first; networks differ. The last columns are the time
of the others over ours. JAX computes on all cores, the Numba kernels on one.
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
from scdask.jax_backend import jax_forward_pass, jax_surrogate_gradient_step, jax_vec_mac, to_jax


def cases():
    """Yield the name, the work of a run in bits or pairs of bits, and its runs: ours, theirs, on NumPy arrays."""
    for shape in [(256, 256, 16), (1024, 512, 16), (4096, 512, 16)]:
        w, x = random_words(*shape), random_words(*shape[1:])
        on_jax = to_jax(w), to_jax(x)
        yield (
            f"MAC {' x '.join(map(str, shape))}, one input",
            64 * w.size,
            partial(jax_vec_mac, *on_jax),
            partial(peer.jax_vec_mac, *on_jax),
            partial(vector_ops.vec_mac, w, x),
        )
    for batch in (16, 64, 256):
        w, x = random_words(256, 256, 16), random_words(batch, 256, 16)
        on_jax = to_jax(w), to_jax(x)
        yield (
            f"MAC 256 x 256 x 16, batch {batch}",
            64 * w.size * batch,
            partial(jax_vec_mac, *on_jax),
            partial(one_by_one, *on_jax),
            partial(vector_ops.vec_mac, w, x),
        )
    rng = np.random.default_rng(0)
    bits, words, p = rng.integers(0, 2, 2**20, dtype=np.uint8), random_words(4096, 16), rng.random(4096)
    for name, func, array, theirs in [
        ("pack", vector_ops.pack_bitstream, bits, peer.jax_pack_bitstream),
        ("unpack", partial(vector_ops.unpack_bitstream, original_length=1024), words, None),
        ("popcount of each stream", vector_ops.stream_popcount, words, None),
        ("popcount of all", vector_ops.vec_popcount, words, None),
        ("encode Bernoulli", partial(vector_ops.encode_words, sng=Bernoulli(1), length=1024), p, None),
        ("encode Sobol", partial(vector_ops.encode_words, sng=Sobol(1), length=1024), p, None),
    ]:
        bits_of_work = array.size if array is bits else 4096 * 1024
        on_jax = to_jax(array)
        yield name, bits_of_work, partial(func, on_jax), theirs and partial(theirs, on_jax), partial(func, array)
    yield from networks()


def one_by_one(w, x):
    return jnp.stack([peer.jax_vec_mac(w, row) for row in x])


def networks():
    rng = np.random.default_rng(0)
    weights = [jnp.asarray(rng.normal(0, 1 / 8, (100, 64))), jnp.asarray(rng.normal(0, 0.3, (10, 100)))]
    x, targets = jnp.asarray(rng.random((64, 64))), jnp.eye(10)[rng.integers(0, 10, 64)]
    for name, ours, theirs, args in [
        ("forward pass", jax_forward_pass, peer.jax_forward_pass, (weights, x, 25)),
        ("training step", jax_surrogate_gradient_step, peer.jax_surrogate_gradient_step, (weights, x, targets)),
    ]:
        yield f"{name}, 64-100-10, batch 64", None, partial(ours, *args), partial(theirs, *args), None


def timed(run):
    return lambda: jax.block_until_ready(run())


def main():
    table = Table(title="JAX arrays", caption=f"JAX {jax.__version__} on {jax.devices()[0].device_kind}.")
    table.add_column("")
    for column in ("ours", "sc-neurocore", "NumPy arrays"):
        table.add_column(column, justify="right")
    for name, work, *runs in cases():
        named = {key: run for key, run in zip(("ours", "theirs", "numpy"), runs, strict=True) if run}
        if work:
            first, *others = (np.asarray(run()) for run in named.values())
            for other in others:
                np.testing.assert_array_equal(first, other)
        least = least_times({key: timed(run) for key, run in named.items()})
        unit = "Gbitop/s" if name.startswith("MAC") else "Gbit/s"
        speed = f"{work / least['ours'] / 1e9:.1f} {unit}" if work else f"{1e3 * least['ours']:.2f} ms"
        ratios = [f"{least[key] / least['ours']:.2f}" if key in least else "" for key in ("theirs", "numpy")]
        table.add_row(name, speed, *ratios)
    Console().print(table)


if __name__ == "__main__":
    main()

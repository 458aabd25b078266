"""Networks: convolutions with the MAC that they are made of, and a LeNet-5 with other ways to compute it.

Runs that are compared give the same counts, which is checked first. PyTorch is left out where it is not installed.
"""

import json
import resource
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec

import click
import dask.array as da
import numpy as np
from graphs import THREADS, least_times, random_words
from rich.console import Console
from rich.table import Table
from sc_neurocore import VectorizedSCLayer
from sc_neurocore.accel.jit_kernels import jit_vec_mac

import scdask as sc
from scdask import vector_ops
from scdask.jit_kernels.conv import windows_of
from scdask.layers import Flatten, MaxPool2d, SCConv2d, SCDense, SCSequential
from scdask.vector_ops import products
from scdask.vector_ops.conv import Window, window_counts

LENGTH, IMAGES, FEW = 256, 1000, 50  # bits of a stream, images, and images of what is slow
SHAPES = {  # images, channels, size with padding, neurons, kernel
    "LeNet-5, 1 -> 6, 5 x 5 on 28 x 28, batch 64": (64, 1, 28, 6, 5),
    "LeNet-5, 6 -> 16, 5 x 5 on 12 x 12, batch 64": (64, 6, 12, 16, 5),
    "VGG, 64 -> 64, 3 x 3 on 56 x 56": (1, 64, 58, 64, 3),
    "VGG, 128 -> 128, 3 x 3 on 28 x 28": (1, 128, 30, 128, 3),
    "VGG, 512 -> 512, 3 x 3 on 14 x 14": (1, 512, 16, 512, 3),
}


def lenet():
    """A LeNet-5 of random weights, for images in [0, 1]."""
    rng = np.random.default_rng(0)

    def layer(kind, *shape):
        return kind(rng.normal(size=shape) / np.sqrt(np.prod(shape[1:])), rng.normal(size=shape[0]) / 10)

    layers = [layer(SCConv2d, 6, 1, 5, 5), MaxPool2d(2), layer(SCConv2d, 16, 6, 5, 5), MaxPool2d(2), Flatten()]
    layers += [layer(SCDense, *shape) for shape in ((120, 256), (84, 120), (10, 84))]
    return SCSequential(layers, input_shape=(1, 28, 28)).calibrated(rng.random((100, 1, 28, 28)))


def images(count):
    """Images of random numbers."""
    return np.random.default_rng(1).random((count, 1, 28, 28))


def add(rows, work, measured, compared=""):
    """Add a row, and say at once that the work is done."""
    rows.append((work, measured, compared))
    click.echo(f"{work}: {measured} {compared}", err=True)


def convolutions(rows):
    """Convolutions with the MAC of as many rows that lie in memory, of which none is part of another."""
    for name, (batch, channels, size, neurons, kernel) in SHAPES.items():
        window, n_words = Window((kernel, kernel)), LENGTH // 64
        words = random_words(batch, size, size, channels, n_words)
        weights = random_words(2 * neurons, kernel, kernel, channels, n_words)
        windows = np.ascontiguousarray(windows_of(words, window))
        places = windows.shape[:3]
        flat = windows.reshape(-1, kernel**2 * channels, n_words)
        rng = np.random.default_rng(2)
        layer = SCConv2d(rng.normal(size=(neurons, channels, kernel, kernel)), np.zeros(neurons))
        numbers = rng.random((batch, channels, size, size))
        runs = {
            "MAC": partial(vector_ops.vec_mac, weights.reshape(2 * neurons, -1, n_words), flat),
            "convolution": partial(window_counts, weights, words, "and", window),
            "with encoding": partial(layer.counts, numbers, layer.streams(LENGTH)),
        }
        assert np.array_equal(runs["MAC"]().reshape(*places, -1), runs["convolution"]())
        times = least_times(runs, rounds=3)
        speed = 64 * weights.size * len(flat) / times["convolution"] / 1e9
        shares = [f"{name} {times['MAC'] / times[name]:.2f}" for name in ("convolution", "with encoding")]
        add(rows, name, f"{speed:.3g} Gbitop/s", f"share of the MAC: {', '.join(shares)}")


def in_torch(network):
    """The network in floats."""
    import torch

    torch.set_num_threads(1)
    weights = [[torch.tensor(a, dtype=torch.float32) for a in (w.weights, w.bias)] for w in network.encoding_layers]
    apply = torch.nn.functional

    def run(x):
        for w, b in weights[:2]:
            x = apply.max_pool2d(apply.conv2d(x, w, b), 2).relu()
        x = x.flatten(1)
        for w, b in weights[2:]:
            x = apply.linear(x, w, b).relu()
        return x

    return lambda x: run(torch.tensor(x, dtype=torch.float32))


def by_cycles(layer, x):
    """The counts of a layer, a cycle after the other, with a float for each bit, as UnarySim's modules work."""
    import torch

    torch.set_num_threads(1)
    xs, ws = (sc.encode(np.linspace(0, 1, LENGTH + 1), LENGTH, sng=s).unpack() for s in (layer.x_sng, layer.w_sng))
    # Bit t of p is whether p is at least so much: the numbers of the generators, as comparators have them.
    x_numbers, w_numbers = ((LENGTH + 0.5 - bits.sum(axis=0)) / LENGTH for bits in (xs, ws))
    product = torch.nn.functional.conv2d if layer.weights.ndim == 4 else torch.nn.functional.linear
    x = torch.tensor(x / layer.input_scale, dtype=torch.float32)
    w = torch.tensor(layer.weights / layer.weight_scale, dtype=torch.float32)
    counts = 0
    for u, v in zip(x_numbers, w_numbers, strict=True):
        bits, plus, minus = (x >= u).float(), (w >= v).float(), (-w >= v).float()
        counts = counts + product(bits, plus) - product(bits, minus)
    return counts.numpy().astype(np.int64)


def network_by_cycles(network, x):
    """The network, a cycle after the other."""
    hidden = x
    for layer, inner in zip(network.layers, network.inner, strict=True):
        if layer in network.encoding_layers:
            hidden = hidden.clip(0, layer.input_scale) if inner else hidden
            hidden = layer.outputs(by_cycles(layer, hidden), LENGTH)
        else:
            hidden = layer.exact(hidden)
    return hidden


def alone():
    """CPU seconds, peak memory and the accuracy of a process that has nothing else to do, once kernels are compiled."""
    network, x = lenet(), images(IMAGES)
    network.logits(x[:1], LENGTH)
    start = time.process_time()
    logits = network.logits(x, LENGTH)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    exact = network.exact(x)
    rmse = np.sqrt(np.mean((logits - exact) ** 2)) / exact.std()
    return {"seconds": seconds, "peak": peak, "rmse": rmse}


def networks(rows):
    """A LeNet-5 with the float network, and with what others do to compute it."""
    command = [sys.executable, __file__, "--alone"]
    mine = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    name = f"LeNet-5, {IMAGES:,} images, N = {LENGTH}"
    add(rows, name, f"{mine['seconds']:.3g} CPU s, {mine['peak']:.0f} MiB", f"RMSE {mine['rmse']:.2g} of the spread")
    network, x = lenet(), images(IMAGES)
    runs = {"ours": partial(network.logits, x, LENGTH), "NumPy, floats": partial(network.exact, x)}
    if find_spec("torch"):
        runs["PyTorch, floats"] = partial(in_torch(network), x)
    ours, *others = least_times(runs, rounds=3).items()
    ratios = ", ".join(f"{other} {seconds / ours[1]:.3g}" for other, seconds in others)
    add(rows, name, f"{IMAGES / ours[1]:,.0f} images/s", f"times of ours: {ratios}")
    if find_spec("torch"):
        few = x[:FEW]
        np.testing.assert_allclose(network_by_cycles(network, few), network.logits(few, LENGTH), atol=1e-9)
        runs = {"ours": partial(network.logits, few, LENGTH), "cycles": partial(network_by_cycles, network, few)}
        times = least_times(runs, rounds=1)
        ratio = times["cycles"] / times["ours"]
        add(rows, f"LeNet-5, {FEW} images", f"{FEW / times['ours']:,.0f} images/s", f"cycles in PyTorch {ratio:.3g}")


def peers(rows):
    """The second layer of a LeNet-5 with sc-neurocore, whose layers and MAC take one window at a time."""
    rng = np.random.default_rng(3)
    layer, x = SCConv2d(rng.random((16, 6, 5, 5)), np.zeros(16)), rng.random((8, 6, 12, 12))
    streams, window = layer.streams(LENGTH), layer.window
    images = sc.encode(np.moveaxis(x, 1, -1), LENGTH, sng=layer.x_sng).words
    weights = sc.encode(np.moveaxis(layer.operand, 1, -1), LENGTH, sng=layer.w_sng).words
    windows = np.ascontiguousarray(windows_of(images, window)).reshape(-1, 150, images.shape[-1])
    flat = weights.reshape(16, 150, -1)
    peer = VectorizedSCLayer(150, 16, length=LENGTH, use_gpu=False, seed=0)
    numbers = rng.random((64, 150))

    def its_mac():
        out = np.empty((len(windows), 16), np.int64)
        for one, row in zip(windows, out, strict=True):
            jit_vec_mac(flat, one, row)
        return out

    runs = {
        "ours": partial(window_counts, weights, images, "and", window),
        "its MAC": its_mac,
        "our layer": partial(layer.counts, x, streams),
        "its layer": lambda: [peer.forward(window) for window in numbers],
    }
    assert np.array_equal(its_mac(), runs["ours"]().reshape(-1, 16))
    times = least_times(runs, rounds=3)
    layers = len(windows) / len(numbers) * times["its layer"] / times["our layer"]
    ratios = f"sc-neurocore: its MAC of encoded windows {times['its MAC'] / times['ours']:.3g}, its layer {layers:.3g}"
    add(rows, "LeNet-5, 6 -> 16, 8 images", f"{times['our layer'] * 1e3:.2g} ms", ratios)


def memory(rows):
    """What a convolution of a large image takes."""
    rng = np.random.default_rng(4)
    layer, x = SCConv2d(rng.normal(size=(16, 16, 3, 3)), np.zeros(16), padding=1), rng.random((1, 16, 512, 512))
    tracemalloc.start()
    outputs = layer(x, 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sizes = {"outputs": outputs.nbytes, "a tile": products.TILE_BYTES, "all streams": 128 * x.size}
    compared = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in sizes.items())
    add(rows, "16 -> 16, 3 x 3 on 512 x 512, N = 1,024", f"peak {peak / 2**20:.0f} MiB", compared)


def lazy(rows):
    """A LeNet-5 over Dask on threads, with the kernels on as many."""
    network, x = lenet(), images(IMAGES)
    chunk = IMAGES // 8
    graph = network.logits(da.from_array(x, chunks=(chunk, 1, 28, 28)).persist(scheduler="sync"), LENGTH)
    parts = np.split(x, 8)

    def kernels():
        with ThreadPoolExecutor(THREADS) as pool:
            return np.concatenate(list(pool.map(lambda part: network.logits(part, LENGTH), parts)))

    dask_run = partial(graph.compute, scheduler="threads", num_workers=THREADS)
    assert np.array_equal(dask_run(), kernels())
    times = least_times({"ours": dask_run, "kernels": kernels}, rounds=3)
    ratio = times["kernels"] / times["ours"]
    add(
        rows,
        "LeNet-5 over Dask, 8 chunks",
        f"{IMAGES / times['ours']:,.0f} images/s",
        f"share of its kernels {ratio:.2f}",
    )


@click.command()
@click.option("--alone", "by_itself", is_flag=True, hidden=True)
def main(by_itself):
    """Print the table."""
    if by_itself:
        click.echo(json.dumps(alone()))
        return
    rows = []
    for part in (convolutions, networks, peers, memory, lazy):
        part(rows)
    table = Table("work", "measured", "compared", title="scdask networks")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    main()

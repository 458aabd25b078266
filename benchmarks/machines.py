"""Circuits with memory: our kernels, a compiled loop over bits, and step by step in PyTorch, NumPy and sc-neurocore.

All runs of a case give the same bits, which is checked first; others have a byte or a float for each, and ours stay
packed. The last column is the time of the others over ours.
PyTorch is left out where it is not installed.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import chain

import dask
import dask.array as da
import numba
import numpy as np
from graphs import THREADS, least_times, random_words
from rich.console import Console
from rich.table import Table
from sc_neurocore.utils.fsm_activations import TanhFSM

import scdask as sc
from scdask import vector_ops
from scdask.arithmetic import cordiv_machine, stanh_machine
from scdask.correlation import synchronizer
from scdask.vector_ops.umul import deposit

STREAMS, LENGTH, FEW = 4096, 8192, 64  # streams, their bits, and the streams of what is slow


def ahead(states):
    """A saturating counter whose output is that of the state after the step, as sc-neurocore has it."""

    def step(s, x):
        following = min(max(s + 2 * x - 1, 0), states - 1)
        return following, int(following >= states // 2)

    return sc.Machine.from_step(step, states, start=states // 2)


@numba.njit
def by_bits(following, written, start, words, out):
    """A compiled loop over the bits of streams (inputs, streams, n_words)."""
    for r in range(words.shape[1]):
        state = start
        for w in range(words.shape[2]):
            packed = np.uint64(0)
            for t in range(64):
                column = np.uint64(0)
                for i in range(words.shape[0]):
                    column |= (words[i, r, w] >> np.uint64(t) & np.uint64(1)) << np.uint64(i)
                packed |= np.uint64(written[state, column]) << np.uint64(t)
                state = following[state, column]
            out[r, w] = packed


def loop_over_bits(machine, *words):
    """The first output of a machine."""
    out = np.empty_like(words[0])
    written = np.array(machine.output, np.uint64).reshape(-1, machine.states, 2**machine.inputs)[0]
    by_bits(np.array(machine.next_state), written, machine.start, np.stack(words), out)
    return out


@numba.njit
def deposit_by_bits(masks, bits, out):
    """UMUL bit by bit."""
    for r in range(masks.shape[0]):
        at = 0
        for w in range(masks.shape[1]):
            packed = np.uint64(0)
            for t in range(64):
                if masks[r, w] >> np.uint64(t) & np.uint64(1):
                    packed |= (bits[r, at >> 6] >> np.uint64(at & 63) & np.uint64(1)) << np.uint64(t)
                    at += 1
            out[r, w] = packed
    return out


def steps_in_torch(bits):
    """A counter of 8 states, all streams at once, a step of the clock after the other, as UnarySim's modules work."""
    import torch

    torch.set_num_threads(1)
    given = torch.from_numpy(bits)

    def run():
        state, out = torch.full((len(bits),), 4.0), torch.empty(bits.shape)
        for t in range(bits.shape[1]):
            out[:, t] = (state >= 4).float()
            state = (state + 2 * given[:, t] - 1).clamp(0, 7)
        return out.numpy()

    return run


def steps_in_numpy(bits):
    """The same in NumPy."""
    state, out = np.full(len(bits), 4.0), np.empty(bits.shape)
    for t in range(bits.shape[1]):
        out[:, t] = state >= 4
        state = np.clip(state + 2 * bits[:, t] - 1, 0, 7)
    return out


def steps_in_python(bits):
    """The tanh of sc-neurocore, whose output is that of the state after the step."""
    return np.stack([TanhFSM(8).process(row) for row in bits])


def ones_on_threads(machine, words):
    """The kernel and the ones of what it writes, the streams in parts that threads take in turn."""
    with ThreadPoolExecutor(THREADS) as pool:
        parts = np.array_split(words, 4 * THREADS)
        return np.concatenate(
            list(pool.map(lambda part: vector_ops.stream_popcount(first_output(machine, part)), parts))
        )


def cases():
    """Yield the name, the bits, and the runs of each case."""
    x, y = random_words(2, STREAMS, LENGTH // 64)
    for name, machine, words in (
        ("stanh, 8 states", stanh_machine(8), (x,)),
        ("stanh, 32 states", stanh_machine(32), (x,)),
        ("CORDIV", cordiv_machine(), (x, y)),
        ("synchronizer of depth 1", synchronizer(1), (x, y)),
    ):
        ours, loop = partial(first_output, machine, *words), partial(loop_over_bits, machine, *words)
        yield name, x.size * 64, {"ours": ours, "compiled loop": loop}
    loop = partial(deposit_by_bits, x, y, np.empty_like(x))
    ours = partial(deposit, x, y, np.zeros(STREAMS, np.int64))
    yield "uMUL of two streams", x.size * 64, {"ours": ours, "compiled loop": loop}

    bits = vector_ops.unpack_bitstream(x, LENGTH).astype(np.float32)
    runs = {
        "ours": partial(first_output, stanh_machine(8), x),
        "NumPy, a step at a time": partial(steps_in_numpy, bits),
    }
    if find_spec("torch"):
        runs["PyTorch, a step at a time"] = steps_in_torch(bits)
    yield "stanh, 8 states", x.size * 64, runs
    runs = {"ours": partial(first_output, ahead(8), x[:FEW])}
    runs["sc-neurocore"] = partial(steps_in_python, bits[:FEW].astype(np.uint8))
    yield f"stanh, 8 states, {FEW} streams", FEW * LENGTH, runs


def lazy_cases():
    """Yield the same of Dask graphs on threads, over chunks in memory, against the kernel on as many."""
    rows = sc.encode(np.broadcast_to(0.5, 10**6), LENGTH, chunks="auto").chunks[0][0]
    machine, x = stanh_machine(8), random_words(6 * rows, LENGTH // 64)
    for name, chunks in (
        ("6 chunks as by default", (rows, -1)),
        ("2 x 4 chunks, 4 of time", (3 * rows, LENGTH // 256)),
    ):
        ones = sc.run(machine, chunked(x, chunks)).popcount()
        run = partial(ones.compute, scheduler="threads", num_workers=THREADS)
        yield f"stanh over Dask, {name}", x.size * 64, {"ours": run, "kernel": partial(ones_on_threads, machine, x)}
    x = random_words(8, 2**20)
    with dask.config.set(num_workers=THREADS):
        ones = sc.run(machine, chunked(x, (8, 2**17))).popcount()
    run = partial(ones.compute, scheduler="threads", num_workers=THREADS)

    def kernel():
        return vector_ops.stream_popcount(vector_ops.run_machine(machine, x, length=64 * x.shape[1])[0])

    yield "stanh over Dask, 8 streams, 8 chunks of time", x.size * 64, {"ours": run, "kernel, one thread": kernel}


def chunked(words, chunks):
    """Streams in chunks that are in memory, each by itself."""
    lazy = da.from_array(words, chunks=chunks).map_blocks(np.array, dtype=words.dtype, meta=words[:0])
    return sc.Bitstream(lazy.persist(scheduler="sync"), 64 * words.shape[-1])


def first_output(machine, *words):
    """The words that a machine writes."""
    return vector_ops.run_machine(machine, *words, length=LENGTH)[0]


def packed(result):
    """The words of a result, which others have as a number a bit."""
    return (
        result if result.dtype == np.uint64 or result.ndim < 2 else vector_ops.pack_bitstream(result.astype(np.uint8))
    )


def main():
    """Print the table."""
    table = Table("circuit", "ours, Gbit/s", "the others' time over ours", title="scdask machines")
    for name, bits, runs in chain(cases(), lazy_cases()):
        results = [packed(run()) for run in runs.values()]
        for result in results[1:]:
            assert np.array_equal(results[0], result), name
        mine, *others = least_times(runs, rounds=3).items()
        ratios = ", ".join(f"{other} {seconds / mine[1]:.3g}" for other, seconds in others)
        table.add_row(name, f"{bits / mine[1] / 1e9:.3g}", ratios)
        print(name, ratios)
    Console().print(table)


if __name__ == "__main__":
    main()

"""CuPy arrays on a GPU: our kernels, CuPy's own operations, sc-neurocore's GPU backend, and the limits of the card.

Runs of one case give the same result, which is checked first. Last in a row is the time of the others over ours.
The share is that of the card's limit: the bandwidth of a copy, measured here, or the rate of the popcount instruction,
16 a cycle on each multiprocessor, which the tensor cores go past.
"""

import json
from functools import partial
from itertools import chain
from pathlib import Path

import click
import cupy
import numpy as np
from graphs import least_times

from scdask import Bernoulli, Sobol, encode, gpu_backend, vector_ops
from scdask.core.words import WORD
from scdask.gpu_backend import mac

try:
    from sc_neurocore.accel import gpu_backend as peer
except ImportError:
    peer = None


def random_words(seed, *shape):
    return encode(cupy.zeros(shape[:-1], np.float64) + 0.5, WORD * shape[-1], sng=Bernoulli(seed)).words


def timed(run):
    def call():
        run()
        cupy.cuda.Device().synchronize()

    return call


def macs(shrink):
    """Yield name, pairs of bits, the bytes that must be read, runs, and the batch of which CuPy's runs do one input."""
    neurons, inputs, words = 4096 // shrink, 1024 // shrink, 16
    w = random_words(1, neurons, inputs, words)
    for batch in (neurons, 8):
        x = random_words(2, batch, inputs, words)
        flat = [array.reshape(len(array), -1) for array in (x, w)]
        runs = {
            "ours": partial(vector_ops.vec_mac, w, x),
            "popcount tiles": partial(mac._mac, *flat, xor=False, tensor_cores=False),
            "CuPy": partial(gated_by_cupy, w, x[0]),
        }
        if peer:
            runs["sc-neurocore"] = partial(peer.gpu_vec_mac, w, x[0])
        yield (
            f"MAC {neurons} x {inputs} x {words}, batch {batch}",
            batch * w.size * WORD,
            w.nbytes + x.nbytes,
            runs,
            batch,
        )
        yield (
            f"XNOR MAC {neurons} x {inputs} x {words}, batch {batch}",
            batch * w.size * WORD,
            w.nbytes + x.nbytes,
            {"ours": partial(vector_ops.vec_mac, w, x, "xnor", WORD * words)},
            batch,
        )


def one_input(shrink):
    """Yield what `macs` does."""
    neurons, inputs, words = 4096 // shrink, 1024 // shrink, 16
    w, x = random_words(1, neurons, 8 * inputs, words), random_words(2, 8 * inputs, words)
    runs = {"ours": partial(vector_ops.vec_mac, w, x), "CuPy": partial(gated_by_cupy, w, x)}
    if peer:
        runs["sc-neurocore"] = partial(peer.gpu_vec_mac, w, x)
    yield f"MAC of one input, {size(w.nbytes)} of weights", w.size * WORD, w.nbytes, runs, 1


def gated_by_cupy(w, x):
    return cupy.bitwise_count(w & x).sum(axis=(1, 2), dtype=np.int64)


def packing(shrink):
    """Yield what `macs` does; the bytes are those read and written."""
    rows, length = 2**20 // shrink, 1024
    bits = cupy.asarray(np.random.default_rng(0).integers(0, 2, (rows, length), dtype=np.uint8))
    words = vector_ops.pack_bitstream(bits)
    both = bits.size + words.nbytes
    runs = {
        "ours": partial(vector_ops.pack_bitstream, bits),
        "CuPy": lambda: cupy.packbits(bits, bitorder="little").view(np.uint64).reshape(words.shape),
    }
    if peer and rows * length <= 2**26:  # it takes 64 bytes a bit
        runs["sc-neurocore"] = partial(peer.gpu_pack_bitstream, bits)
    yield f"pack {size(bits.nbytes)} of bits", bits.size, both, runs, 1
    yield (
        f"unpack {size(bits.nbytes)} of bits",
        bits.size,
        both,
        {
            "ours": partial(vector_ops.unpack_bitstream, words, length),
            "CuPy": lambda: cupy.unpackbits(words.view(np.uint8).ravel(), bitorder="little").reshape(bits.shape),
        },
        1,
    )


def counting_and_gates(shrink):
    """Yield what `packing` does."""
    rows, length = 2**20 // shrink, 1024
    words = random_words(3, 32 * rows, length // WORD)
    other = random_words(4, 32 * rows, length // WORD)
    work = words.size * WORD
    runs = {"ours": partial(vector_ops.popcount, words), "CuPy": partial(cupy.bitwise_count, words)}
    if peer:
        runs["sc-neurocore"] = partial(peer.gpu_popcount, words)
    yield f"popcount of each word, {size(words.nbytes)}", work, words.nbytes + words.size, runs, 1
    yield (
        f"popcount of each stream, {size(words.nbytes)}",
        work,
        words.nbytes,
        {
            "ours": partial(vector_ops.stream_popcount, words),
            "CuPy": lambda: cupy.bitwise_count(words).sum(axis=-1, dtype=np.int64),
        },
        1,
    )
    yield (
        f"and, {size(words.nbytes)}",
        work,
        3 * words.nbytes,
        {"ours": partial(vector_ops.vec_and, words, other), "CuPy": lambda: words & other},
        1,
    )
    yield (
        f"xnor with tail, {size(words.nbytes)}",
        work,
        3 * words.nbytes,
        {
            "ours": partial(vector_ops.vec_xnor, words, other, length - 1),
            "CuPy": lambda: ~(words ^ other) & tail(length - 1),
        },
        1,
    )


def encoding(shrink):
    """Yield what `packing` does."""
    rows, length = 2**20 // shrink, 1024
    p = cupy.asarray(np.random.default_rng(0).random(4 * rows))
    out = p.size * length // 8
    yield (
        f"encode Bernoulli, N = {length}, {size(out)}",
        p.size * length,
        out,
        {"ours": partial(vector_ops.encode_words, p, Bernoulli(1), length)},
        1,
    )
    numbers = cupy.asarray(Sobol(1).numbers(length, 0, length))
    yield (
        f"encode Sobol, N = {length}, {size(out)}",
        p.size * length,
        out,
        {
            "ours": partial(vector_ops.encode_words, p, Sobol(1), length),
            "CuPy": lambda: cupy.packbits(numbers < p[:, None], bitorder="little").view(np.uint64).reshape(len(p), -1),
        },
        1,
    )


CASES = (macs, one_input, packing, counting_and_gates, encoding)


def tail(length):
    kept = np.full(vector_ops.words_for(length), ~np.uint64(0))
    kept[-1] >>= np.uint64(-length % WORD)
    return cupy.asarray(kept)


def size(n_bytes):
    return f"{n_bytes / 2**30:.3g} GiB" if n_bytes >= 2**28 else f"{n_bytes / 2**20:.3g} MiB"


def bandwidth(shrink):
    """Bytes a second that a copy reads and writes."""
    source = cupy.zeros(2**28 // shrink, np.uint64)
    target = cupy.zeros(2**28 // shrink, np.uint64)
    return 2 * source.nbytes / least_times({"copy": timed(lambda: target.__setitem__(..., source))})["copy"]


def popcount_rate():
    """Bits a second that the popcount instruction counts."""
    attributes = cupy.cuda.Device().attributes
    return attributes["MultiProcessorCount"] * 16 * 32 * attributes["ClockRate"] * 1e3


def measure(runs, part):
    """The least time of each run; those of CuPy and sc-neurocore in a MAC do one input of a batch of `part`."""
    alone = {key for key in runs if part > 1 and key in ("CuPy", "sc-neurocore")}
    first, *rest = runs
    result = runs[first]()
    for name in rest:
        other = runs[name]()
        np.testing.assert_array_equal(cupy.asnumpy(result[0] if name in alone else result), cupy.asnumpy(other), name)
        del other
    del result
    least = least_times({key: timed(run) for key, run in runs.items()})
    return {key: seconds * (part if key in alone else 1) for key, seconds in least.items()}


def row(name, work, moved, runs, part, card):
    least = measure(runs, part)
    ours = least.pop("ours")
    popcounts = card["popcount_bits_per_second"]
    return {
        "case": name,
        "seconds": ours,
        "bits_per_second": work / ours,
        "share_of_bandwidth": moved / ours / card["copy_bytes_per_second"],
        "share_of_popcount": work / ours / popcounts if "MAC" in name else None,
        "ratios": {key: seconds / ours for key, seconds in least.items()},
    }


def line(row):
    popcounts = row["share_of_popcount"]
    parts = [
        f"{row['bits_per_second'] / 1e12:.3g} Tbit{'op' * (popcounts is not None)}/s",
        f"{row['share_of_bandwidth']:.2f} of bandwidth",
        *([] if popcounts is None else [f"{popcounts:.2f} of popcount"]),
        *(f"{name} {ratio:.3g}" for name, ratio in row["ratios"].items()),
    ]
    return f"{row['case']}: {', '.join(parts)}"


@click.command(help=__doc__.split("\n\n")[0])
@click.option("--shrink", default=1, show_default=True, help="Divide the sizes, for a card with less than 40 GB.")
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the rows to a file too.")
def main(shrink, path):
    card = {
        "device": gpu_backend.devices()[0],
        "copy_bytes_per_second": bandwidth(shrink),
        "popcount_bits_per_second": popcount_rate(),
    }
    say = partial(print, flush=True)  # A run that is cut short has told what it found.
    say(f"{card['device']}, CuPy {cupy.__version__}")
    say(f"copy {card['copy_bytes_per_second'] / 1e12:.2f} TB/s", end=", ")
    say(f"popcount {card['popcount_bits_per_second'] / 1e12:.0f} Tbit/s; the time of others is over ours")
    rows, failed = [], 0
    for case in chain.from_iterable(cases(shrink) for cases in CASES):
        try:
            rows.append(row(*case, card))
        except Exception as error:  # The other rows are worth having.
            failed += 1
            say(f"{case[0]}: failed: {error}")
            continue
        say(line(rows[-1]))
        if path:
            path.write_text(json.dumps(card | {"rows": rows}, indent=2) + "\n")
    if failed:
        raise click.ClickException(f"{failed} of {failed + len(rows)} cases failed")


if __name__ == "__main__":
    main()

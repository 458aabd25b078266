"""The speed of each kernel on this machine: against NumPy, other packages, and the machine's measured limits."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.digits import DIGITS
from ..core.llvm import empty_words
from ..core.words import WORD, tail_mask
from ..encoding import encode
from ..errors import ScdaskError
from ..generators import SHARED, SNG, Bernoulli, Sobol
from ..vector_ops import (
    pack_bitstream,
    stream_popcount,
    unpack_bitstream,
    vec_mac,
    vec_mux,
    vec_popcount,
    vec_xnor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from ..limits import Limits

    Runs = dict[str, Callable[[], Any]]


@dataclass(frozen=True)
class Case:
    """One kernel with operands of one size: the runs that are timed, ours first, and what each of them does.

    `work` counts bits, or bit operations for a MAC. `uses` is what a run takes of the machine: bytes read and written,
    bit operations, random digits. All runs give the same result, unless the case is not `comparable`.
    """

    name: str
    runs: Runs
    work: float
    uses: dict[str, float]
    comparable: bool = True

    @property
    def unit(self) -> str:
        """What `work` counts."""
        return "Gbitop/s" if self.name.startswith("MAC") else "Gbit/s"


@dataclass(frozen=True)
class Speed:
    """What was measured of a case: the time of the quickest call of each run.

    `share` is the time that our run would take if it did nothing but use each of the `limits` in turn, over its time.
    """

    case: str
    unit: str
    seconds: dict[str, float]
    work: float
    limits: tuple[str, ...]
    share: float

    @property
    def rate(self) -> float:
        """The speed of our run in the unit."""
        return self.work / self.seconds["scdask"] / 1e9

    @property
    def ratios(self) -> dict[str, float]:
        """The time of each other run over ours."""
        return {name: t / self.seconds["scdask"] for name, t in self.seconds.items() if name != "scdask"}


def _words(rng: np.random.Generator, *shape: int) -> NDArray[np.uint64]:
    return rng.integers(0, 2**64, shape, dtype=np.uint64)


def _numpy_mac(w: NDArray[np.uint64], x: NDArray[np.uint64]) -> NDArray[np.int64]:
    return np.stack([np.bitwise_count(w & sample).sum(axis=(1, 2), dtype=np.int64) for sample in x])


def _macs(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    for batch, neurons, inputs, n_words in (
        (64, 256, 256, 16),
        (128, 1024, 512, 16),
        (61, 253, 256, 17),
        (64, 256, 256, 1),
        (64, 256, 256, 2),
        (64, 256, 256, 4),
    ):
        w, x = _words(rng, neurons, inputs, n_words), _words(rng, batch, inputs, n_words)
        runs: Runs = {"scdask": partial(vec_mac, w, x)}
        work = batch * w.size * WORD
        if work < 2e10:
            runs["NumPy"] = partial(_numpy_mac, w, x)
        if peers:
            from .peers import mac

            runs |= mac(w, x)
        yield Case(f"MAC {neurons} x {inputs} x {n_words} words, batch {batch}", runs, work, {"arithmetic": work})

    w, x = _words(rng, 256, 256, 16), _words(rng, 64, 256, 16)
    work = len(x) * w.size * WORD
    plain = partial(vec_mac, w, x)
    runs = {"scdask": partial(vec_mac, w, x, "xnor", 1024), "ours by AND": plain}
    yield Case("MAC by XNOR", runs, work, {"arithmetic": work}, comparable=False)
    runs = {"scdask": partial(vec_mac, np.asfortranarray(w), np.asfortranarray(x)), "ours, contiguous": plain}
    yield Case("MAC, Fortran order", runs, work, {"arithmetic": work})
    runs = {
        "scdask": partial(vec_mac, np.repeat(w, 2, 2)[..., ::2], np.repeat(x, 2, 0)[::2]),
        "ours, contiguous": plain,
    }
    yield Case("MAC, every second word and input", runs, work, {"arithmetic": work})
    runs = {"scdask": partial(_halves, w, x, 2), "ours, one thread": partial(_halves, w, x, 1)}
    yield Case("MAC, two threads", runs, work, {"arithmetic_of_two": work})
    if peers:
        from .peers import dense_batch

        p, q = (rng.integers(0, 2, (n, 256)).astype(float) for n in (256, 64))
        packed = _encode(p, 1024, Bernoulli())
        runs = {"scdask": lambda: vec_mac(packed, _encode(q, 1024, Bernoulli()))} | dense_batch(p, q, 1024)
        yield Case("MAC and encoding of its inputs, batch 64", runs, work, {"arithmetic": work})


def _halves(w: NDArray[np.uint64], x: NDArray[np.uint64], threads: int) -> NDArray[np.int64]:
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(lambda half: vec_mac(half, x), np.split(w, 2))), axis=1)


def _single_macs(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    w, x = _words(rng, 4096, 512, 16), _words(rng, 1, 512, 16)
    runs: Runs = {"scdask": partial(vec_mac, w, x), "NumPy": partial(_numpy_mac, w, x)}
    if peers:
        from .peers import single_mac

        runs |= single_mac(w, x)
    yield Case("MAC of one input, 256 MiB of weights", runs, w.size * WORD, {"read_far": w.nbytes})


def _packing(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    for distance, size in (("near", 2**20), ("far", 2**28)):
        bits = rng.integers(0, 2, size, dtype=np.uint8)
        words = pack_bitstream(bits)
        runs: Runs = {"scdask": partial(pack_bitstream, bits), "NumPy": partial(_numpy_pack, bits)}
        if peers and distance == "near":
            from .peers import pack

            runs |= pack(bits)
        yield Case(f"pack {_size(size)} of bits", runs, size, {f"read_{distance}": size, f"write_{distance}": size / 8})
        by_numpy = partial(np.unpackbits, words.view(np.uint8), bitorder="little")
        runs = {"scdask": partial(unpack_bitstream, words, size), "NumPy": by_numpy}
        yield Case(
            f"unpack {_size(size)} of bits", runs, size, {f"read_{distance}": size / 8, f"write_{distance}": size}
        )


def _numpy_pack(bits: NDArray[Any]) -> NDArray[np.uint64]:
    return np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)


def _size(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 2**20 else f"{size >> 10} KiB"


def _popcounts(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    for distance, size in (("near", 2**19), ("far", 2**28)):
        words = _words(rng, size // 128, 16)
        runs: Runs = {"scdask": partial(vec_popcount, words), "NumPy": partial(_numpy_popcount, words, None)}
        if peers:
            from .peers import popcount

            runs |= popcount(words.reshape(-1))
        yield Case(f"popcount of {_size(size)}", runs, words.size * WORD, {f"read_{distance}": size})
        runs = {"scdask": partial(stream_popcount, words), "NumPy": partial(_numpy_popcount, words, -1)}
        yield Case(f"popcount of each stream, {_size(size)}", runs, words.size * WORD, {f"read_{distance}": size})


def _numpy_popcount(words: NDArray[np.uint64], axis: int | None) -> Any:
    return np.bitwise_count(words).sum(axis=axis, dtype=np.int64)


def _gates(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    length = 1000
    for distance, size in (("near", 2**18), ("far", 2**27)):
        s, a, b = (_words(rng, size // 128, 16) for _ in range(3))
        runs: Runs = {"scdask": partial(vec_xnor, a, b, length), "NumPy": partial(_numpy_xnor, a, b, length)}
        yield Case(
            f"xnor with tail, {_size(size)}",
            runs,
            a.size * WORD,
            {f"read_{distance}": 2 * size, f"write_{distance}": size},
        )
        runs = {"scdask": partial(vec_mux, s, a, b), "NumPy": partial(_numpy_mux, s, a, b)}
        yield Case(
            f"mux, {_size(size)}", runs, a.size * WORD, {f"read_{distance}": 3 * size, f"write_{distance}": size}
        )


def _numpy_xnor(a: NDArray[np.uint64], b: NDArray[np.uint64], length: int) -> NDArray[np.uint64]:
    mask = np.full(a.shape[-1], 2**64 - 1, np.uint64)
    mask[-1] = tail_mask(length)
    return ~(a ^ b) & mask


def _numpy_mux(s: NDArray[np.uint64], a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (s & a) | (~s & b)


def _encoding(rng: np.random.Generator, peers: bool) -> Iterator[Case]:
    p, length = rng.random(4096), 1024
    bits = p.size * length
    runs: Runs = {
        "scdask": partial(_encode, p, length, Bernoulli(1)),
        "NumPy": lambda: _numpy_pack(rng.random((len(p), length)) < p[:, None]),
    }
    if peers:
        from .peers import bernoulli

        runs |= bernoulli(p, length)
    yield Case("encode Bernoulli, N = 1024", runs, bits, {"digits": DIGITS * bits}, comparable=False)
    for sng in SHARED:
        numbers = sng.numbers(length, 0, length)
        runs = {"scdask": partial(_encode, p, length, sng), "NumPy": partial(_numpy_compare, p, numbers)}
        yield Case(f"encode {type(sng).__name__}, N = 1024", runs, bits, {"write_near": bits / 8})
    for length in (64, 256, 1024, 4096):
        p = rng.random(2**22 // length)
        runs = {"scdask": partial(_encode, p, length, Sobol()), "memset": partial(_memset, 2**19)}
        case = f"encode Sobol, N = {length}, {_size(2**19)}"
        yield Case(case, runs, p.size * length, {"write_near": 2**19}, comparable=False)
    many = rng.random(2**21)
    runs = {"scdask": partial(_encode, many, length, Sobol())}
    yield Case("encode Sobol, N = 1024, 256 MiB", runs, many.size * length, {"write_far": many.size * length / 8})


def _encode(p: NDArray[np.float64], length: int, sng: SNG) -> NDArray[np.uint64]:
    words: NDArray[np.uint64] = encode(p, length, sng=sng).words
    return words


def _memset(size: int) -> None:
    """Fill a new array, as encoding does, by what libraries take for the quickest way."""
    empty_words((size // 8,)).view(np.uint8).fill(0)


def _numpy_compare(p: NDArray[np.float64], numbers: NDArray[np.float64]) -> NDArray[np.uint64]:
    return _numpy_pack(numbers < p[:, None])


def cases(peers: bool = False) -> Iterator[Case]:
    """Each case in turn, with its data, which the next one replaces."""
    rng = np.random.default_rng(0)
    for group in (_macs, _single_macs, _packing, _popcounts, _gates, _encoding):
        yield from group(rng, peers)


def check(case: Case) -> None:
    """Raise unless all runs of a comparable case give the same result."""
    ours = np.asarray(case.runs["scdask"]())
    for name, run in case.runs.items() if case.comparable else ():
        if not np.array_equal(np.asarray(run()).reshape(-1), ours.reshape(-1)):
            raise ScdaskError(f"{name} and scdask do not agree on {case.name}")


def measure(case: Case, limits: Limits, seconds: float = 0.6) -> Speed:
    """Time the runs of a case in turn, so that all of them meet the same noise, and keep the least time of each."""
    check(case)
    times = {name: _seconds(run, 1) for name, run in case.runs.items()}
    calls = {name: max(1, int(5e-3 / t)) for name, t in times.items()}
    end = perf_counter() + seconds
    least = dict.fromkeys(case.runs, math.inf)
    while math.isinf(least["scdask"]) or perf_counter() < end:
        for name, run in case.runs.items():
            least[name] = min(least[name], _seconds(run, calls[name]))
    shortest = sum(amount / getattr(limits, limit) for limit, amount in case.uses.items())
    return Speed(case.name, case.unit, least, case.work, tuple(case.uses), shortest / least["scdask"])


def _seconds(run: Callable[[], Any], calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        run()
    return (perf_counter() - start) / calls

"""Other packages that do what our kernels do, each on one thread; `scdask bench --peers` compares with them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import require
from ..vector_ops import stream_popcount

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Runs = dict[str, Callable[[], Any]]


def require_all() -> None:
    """Raise unless every package that the functions below run is installed."""
    os.environ.setdefault("RAYON_NUM_THREADS", "1")  # The Rust engine reads this once.
    for module in ("numkong", "simsimd", "faiss", "sc_neurocore", "sc_neurocore_engine"):
        require(module, "bench")


def mac(weights: NDArray[np.uint64], inputs: NDArray[np.uint64]) -> Runs:
    """Batched multiply-accumulates; Hamming distances become counts by |a & b| = (|a| + |b| - |a ^ b|) / 2."""
    numkong, simsimd, faiss = (require(name, "bench") for name in ("numkong", "simsimd", "faiss"))
    faiss.omp_set_num_threads(1)
    w, x = (a.reshape(len(a), -1).view(np.uint8) for a in (weights, inputs))
    packed = numkong.dots_pack(w, dtype="uint1")
    w_ones, x_ones = (stream_popcount(a.view(np.uint64)) for a in (w, x))

    def from_distances(distances: Any) -> NDArray[np.int64]:
        counts: NDArray[np.int64] = (x_ones[:, None] + w_ones - np.asarray(distances).astype(np.int64)) // 2
        return counts

    def by_faiss() -> NDArray[np.int64]:
        distances = np.empty((len(x), len(w)), np.int32)
        a, b, out = (faiss.swig_ptr(array) for array in (x, w, distances))
        faiss.hammings(a, b, len(x), len(w), x.shape[1], out)
        return from_distances(distances)

    return {
        "numkong": lambda: np.asarray(numkong.dots_packed(x, packed)),
        "simsimd": lambda: from_distances(simsimd.cdist(x, w, "hamming", dtype="bin8")),
        "faiss": by_faiss,
        "sc-neurocore": _reference_mac(weights, inputs),
    }


def _reference_mac(weights: NDArray[np.uint64], inputs: NDArray[np.uint64]) -> Callable[[], Any]:
    fill = require("sc_neurocore.accel.jit_kernels", "bench").jit_vec_mac

    def run() -> NDArray[np.int64]:
        out = np.empty((len(inputs), len(weights)), np.int64)
        for sample, row in zip(inputs, out, strict=True):
            fill(weights, sample, row)
        return out

    return run


def single_mac(weights: NDArray[np.uint64], inputs: NDArray[np.uint64]) -> Runs:
    """Multiply-accumulates of one input."""
    return {"sc-neurocore": _reference_mac(weights, inputs)}


def dense_batch(weights: NDArray[np.float64], inputs: NDArray[np.float64], length: int) -> Runs:
    """Layers of the Rust engine, which encode numbers of 0 and 1 themselves, as it takes no packed batch."""
    layer = require("sc_neurocore_engine", "bench").DenseLayer(weights.shape[1], len(weights), length)
    layer.set_weights(weights.tolist())
    layer.refresh_packed_weights()
    return {"Rust engine": lambda: np.rint(layer.forward_batch_numpy(inputs) * length).astype(np.int64)}


def pack(bits: NDArray[np.uint8]) -> Runs:
    """Packing a stream."""
    reference = require("sc_neurocore.accel.vector_ops", "bench")
    return {
        "Rust engine": lambda: require("sc_neurocore_engine", "bench").pack_bitstream_numpy(bits),
        "sc-neurocore": lambda: reference.pack_bitstream(bits),
    }


def popcount(words: NDArray[np.uint64]) -> Runs:
    """Ones of an array."""
    engine = require("sc_neurocore_engine", "bench")
    return {"Rust engine": lambda: engine.popcount_numpy(words)}


def bernoulli(p: NDArray[np.float64], length: int) -> Runs:
    """Random streams; their p has 8 bits."""
    engine = require("sc_neurocore_engine", "bench")
    return {"Rust engine (8-bit p)": lambda: engine.batch_encode_numpy(p, length)}

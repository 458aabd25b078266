"""Dask arrays: the functions of `vector_ops` mapped over chunks, without any bit logic of their own."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import dask
import dask.array as da
import numpy as np
from dask.array.core import normalize_chunks
from dask.utils import parse_timedelta

from . import vector_ops
from ._dask_compat import ArraySliceDep, meta_from_array, unify_chunks
from ._dispatch import array_function, as_numpy
from .errors import BitstreamError
from .jit_kernels import WORD
from .vector_ops import words_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .encoding import SNG
    from .vector_ops import Gate, Mode, Polarity

# One thread's rates in bits a second, only to size chunks: a task should run long enough to hide Dask's own cost.
ENCODE_RATE = 5e9
MAC_RATE = 1e12
TASK_SECONDS = 0.05  # the default of the Dask option scdask.task-seconds
SPLIT_EVERY = 16
MANY_BLOCKS = 100_000
PLAN_SECONDS = 6e-5  # that Dask takes to optimise a block


def task_bits(rate: float) -> float:
    """The bits that a kernel of this rate handles in the time that a task should take."""
    asked = dask.config.get("scdask.task-seconds", TASK_SECONDS)
    try:
        seconds = parse_timedelta(asked)
    except (ValueError, KeyError):
        seconds = 0
    if not seconds > 0:
        raise BitstreamError(f"the Dask option scdask.task-seconds is a positive time, not {asked!r}")
    return rate * float(seconds)


class DeviceMeta(np.ndarray):
    """The empty array that stands for CuPy blocks in a graph that is built where there is no GPU."""


def _is_numpy(meta: Any) -> bool:
    return isinstance(meta, np.ndarray | np.generic) and not isinstance(meta, DeviceMeta)


@array_function
def as_dask(array: Any, chunks: Any = None) -> da.Array:
    """The array as Dask's, of blocks of its library; by default one block."""
    return da.asarray(array) if chunks is None else da.from_array(array, chunks=chunks)


def _as_it_is(array: da.Array, chunks: Any = None) -> da.Array:
    return array if chunks is None else array.rechunk(chunks)


def _meta(arrays: Iterable[Any], ndim: int, dtype: Any) -> Any:
    """An empty array of the library of the blocks' results: NumPy's gives way to another."""
    metas = [array._meta for array in arrays if isinstance(array, da.Array)]
    like = next((meta for meta in metas if not _is_numpy(meta)), metas[0])
    return vector_ops.in_64_bits(partial(meta_from_array, ndim=ndim, dtype=dtype), like)


def _blocks(kind: str, func: Callable[..., Any], out: str, *args: Any, dtype: Any, **kwargs: Any) -> da.Array:
    """`da.blockwise` over arrays whose chunks agree, with our task name and no trial run for the meta."""
    meta = _meta(args, len(out), dtype)
    return da.blockwise(func, out, *args, token=kind, dtype=dtype, meta=meta, align_arrays=False, **kwargs)


def _axes(array: Any) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[26 - array.ndim :]


def _where(region: tuple[slice, ...]) -> str:
    return f"in the chunk [{', '.join(f'{s.start}:{s.stop}' for s in region)}]"


def _in_chunk(func: Callable[..., Any], region: tuple[slice, ...], *args: Any, **kwargs: Any) -> Any:
    try:
        return func(*args, **kwargs)
    except BitstreamError as error:
        raise BitstreamError(f"{error} {_where(region)}") from None


def _compute_once(array: da.Array) -> da.Array:
    """The array as tasks that Dask does not fuse into, and run again in, each of several users."""
    (done,) = dask.optimize(array)
    return done


# Packing


def pack_bitstream(bitstream: da.Array) -> da.Array:
    vector_ops.check_bit_array(bitstream)
    bits = bitstream
    if any(n % WORD for n in bits.chunks[-1][:-1]):
        bits = bits.rechunk({bits.ndim - 1: WORD * words_for(max(bits.chunks[-1]))})
    axes = _axes(bits)
    words = tuple(words_for(n) for n in bits.chunks[-1])
    return _blocks(
        "sc-pack",
        _pack_block,
        axes,
        bits,
        axes,
        ArraySliceDep(bits.chunks),
        axes,
        adjust_chunks={"z": words},
        dtype=np.uint64,
    )


def _pack_block(bits: Any, region: tuple[slice, ...]) -> Any:
    return _in_chunk(vector_ops.pack_bitstream, region, bits)


def unpack_bitstream(packed: da.Array, original_length: int, original_shape: tuple[int, ...] | None = None) -> da.Array:
    vector_ops.check_words(packed)
    length, shape = vector_ops.unpacked_shape(packed.shape, original_length, original_shape)
    bits = tuple(_bits_in(region, length) for region in _word_regions(packed))
    unpacked = _over_words("sc-unpack", vector_ops.unpack_bitstream, [packed], length, np.uint8, {"z": bits})
    return unpacked if original_shape is None else unpacked.reshape(shape)


def _word_regions(packed: da.Array) -> Iterator[slice]:
    stop = 0
    for n in packed.chunks[-1]:
        start, stop = stop, stop + n
        yield slice(start, stop)


def _bits_in(words: slice, length: int) -> int:
    """How many of a stream's bits are in these words."""
    return int(min(WORD * words.stop, length) - min(WORD * words.start, length))


def _over_words(
    kind: str,
    func: Callable[..., Any],
    operands: list[Any],
    length: int,
    dtype: Any,
    adjust_chunks: dict[str, tuple[int, ...]] | None = None,
) -> da.Array:
    """`func(*blocks, length)` where `length` is what each block holds of the streams' length."""
    vector_ops.check_gate(*operands)
    length = vector_ops.check_length(length, operands[0].shape[-1])
    axes = _axes(max(operands, key=lambda a: a.ndim))
    chunks, pairs = _broadcast(operands)
    return _blocks(
        kind,
        partial(_length_block, func),
        axes,
        ArraySliceDep(tuple(chunks[axis] for axis in axes)),
        axes,
        *pairs,
        length=length,
        adjust_chunks=chunks | (adjust_chunks or {}),
        dtype=dtype,
    )


def _broadcast(arrays: list[da.Array]) -> tuple[dict[str, tuple[int, ...]], list[Any]]:
    """The chunks of each axis of the arrays' broadcast, and the aligned arrays, each followed by its axes."""
    chunks, aligned = unify_chunks(*(x for a in arrays for x in (a, _axes(a))))
    return chunks, [x for a in aligned for x in (a, _axes(a))]


def _length_block(func: Callable[..., Any], region: tuple[slice, ...], *blocks: Any, length: int) -> Any:
    return _in_chunk(func, region, *blocks, _bits_in(region[-1], length))


def as_words(packed: da.Array) -> da.Array:
    vector_ops.check_words(packed)
    return packed


def check_tail(packed: da.Array, length: int) -> da.Array:
    vector_ops.check_words(packed)
    return _over_words("sc-check", vector_ops.check_tail, [packed], length, np.uint64)


def mask_tail(packed: da.Array, length: int) -> da.Array:
    vector_ops.check_words(packed)
    return _over_words("sc-mask", vector_ops.mask_tail, [packed], length, np.uint64)


# Gates


def _gate(kind: str, func: Callable[..., Any], *operands: Any, length: int | None = None) -> da.Array:
    arrays = [as_dask(a) for a in operands]
    vector_ops.check_gate(*arrays)
    if length is not None:
        return _over_words(kind, func, arrays, length, np.uint64)
    chunks, pairs = _broadcast(arrays)
    return _blocks(kind, func, _axes(max(arrays, key=lambda a: a.ndim)), *pairs, adjust_chunks=chunks, dtype=np.uint64)


def vec_and(a_packed: Any, b_packed: Any) -> da.Array:
    return _gate("sc-and", vector_ops.vec_and, a_packed, b_packed)


def vec_or(a_packed: Any, b_packed: Any) -> da.Array:
    return _gate("sc-or", vector_ops.vec_or, a_packed, b_packed)


def vec_xor(a_packed: Any, b_packed: Any) -> da.Array:
    return _gate("sc-xor", vector_ops.vec_xor, a_packed, b_packed)


def vec_xnor(a_packed: Any, b_packed: Any, length: int | None = None) -> da.Array:
    return _gate("sc-xnor", vector_ops.vec_xnor, a_packed, b_packed, length=length)


def vec_not(packed: Any, length: int | None = None) -> da.Array:
    return _gate("sc-not", vector_ops.vec_not, packed, length=length)


def vec_mux(select_packed: Any, a_packed: Any, b_packed: Any) -> da.Array:
    return _gate("sc-mux", vector_ops.vec_mux, select_packed, a_packed, b_packed)


# Counting


def popcount(packed: da.Array) -> da.Array:
    vector_ops.check_words(packed)
    return _blocks("sc-popcount", vector_ops.popcount, _axes(packed), packed, _axes(packed), dtype=np.uint8)


def _sum_blocks(kind: str, array: da.Array, chunk: Callable[..., Any], axis: Any, total: int | None = None) -> da.Array:
    """Sum what `chunk` makes of each block over `axis` in a tree; with `total`, what is left of it."""
    axes = tuple(range(array.ndim) if axis is None else np.atleast_1d(axis).tolist())
    aggregate = partial(_add, total=total)
    if all(array.numblocks[a] == 1 for a in axes):  # nothing to add up: the same task can finish it
        names = _axes(array)
        kept = "".join(name for a, name in enumerate(names) if a not in axes)
        return _blocks(kind, partial(_sum_block, chunk, aggregate, axes), kept, array, names, dtype=np.int64)
    return _reduce(
        kind,
        array,
        chunk,
        _add,
        aggregate,
        axis=axis,
        dtype=np.dtype(np.int64),
        split_every=SPLIT_EVERY if axis is None else dict.fromkeys(axes, SPLIT_EVERY),
    )


def _reduce(
    kind: str, array: da.Array, chunk: Callable[..., Any], combine: Any, aggregate: Any, *, axis: Any, **kwargs: Any
) -> da.Array:
    """`da.reduction` with our task name and no trial run for the meta, whose dtypes it changes on the way."""
    reduce = partial(da.reduction, array, chunk=chunk, combine=combine, aggregate=aggregate, axis=axis, **kwargs)
    meta = _meta([array], 0 if axis is None else array.ndim - np.size(axis), kwargs["dtype"])
    return vector_ops.in_64_bits(lambda meta: reduce(name=kind, meta=meta), meta)


def _sum_block(chunk: Callable[..., Any], aggregate: Callable[..., Any], axes: tuple[int, ...], block: Any) -> Any:
    while isinstance(block, list):  # one for each axis that is summed
        (block,) = block
    return aggregate(chunk(block, axis=axes, keepdims=True), axis=axes, keepdims=False)


def _sum(counts: Any, axis: Any, keepdims: bool, total: int | None = None) -> Any:
    ones = counts.sum(axis=axis, keepdims=keepdims)
    return ones if total is None else total - ones


_add = partial(vector_ops.in_64_bits, _sum)


def _as_is(counts: Any, axis: Any, keepdims: bool) -> Any:
    return counts


def _stream_counts(words: Any, axis: Any, keepdims: bool) -> Any:
    return vector_ops.stream_popcount(words)[..., None]


def _total_count(words: Any, axis: Any, keepdims: bool) -> Any:
    return _add(vector_ops.stream_popcount(words), axis=None, keepdims=True)[..., None]


def stream_popcount(packed: da.Array) -> da.Array:
    vector_ops.check_words(packed)
    return _sum_blocks("sc-popcount", packed, _stream_counts, packed.ndim - 1)


def vec_popcount(packed: da.Array) -> da.Array:
    vector_ops.check_words(packed)
    return _sum_blocks("sc-popcount", packed, _total_count, None)


# Multiply-accumulate


def vec_mac(packed_weights: Any, packed_inputs: Any, gate: Gate = "and", length: int | None = None) -> da.Array:
    weights, inputs = as_dask(packed_weights), as_dask(packed_inputs)
    length = vector_ops.check_mac(weights, inputs, gate, length)
    if length is not None:
        weights, inputs = check_tail(weights, length), check_tail(inputs, length)
    batch = "b" if inputs.ndim == 3 else ""
    _, (weights, inputs) = unify_chunks(weights, "nik", inputs, batch + "ik")
    if batch and inputs.numblocks[0] > 1:
        weights = _compute_once(weights)
    if weights.numblocks[0] > 1:
        inputs = _compute_once(inputs)
    counts = _blocks(
        "sc-mac",
        _mac_block,
        batch + "nik",
        weights,
        "nik",
        inputs,
        batch + "ik",
        gate=gate,
        adjust_chunks={"i": 1, "k": 1},
        dtype=np.int64,
    )
    total = weights.shape[1] * length if gate == "xnor" and length is not None else None
    return _sum_blocks("sc-mac", counts, _as_is, (counts.ndim - 2, counts.ndim - 1), total)


def _mac_block(weights: Any, inputs: Any, gate: Gate) -> Any:
    return vector_ops.gate_counts(weights, inputs, gate)[..., None, None]


# Encoding


def encode_words(
    values: Any,
    sng: SNG,
    length: int,
    polarity: Polarity = "unipolar",
    *,
    chunks: Any = None,
) -> da.Array:
    """`vector_ops.encode_words` as tasks; `chunks` is over the words (*values.shape, n_words)."""
    length = vector_ops.check_encoding(length, sng, polarity)
    if not isinstance(values, da.Array):
        values = values if hasattr(values, "dtype") else as_numpy(values, "values to encode")
        vector_ops.probabilities(values, polarity)
    vector_ops.check_real(values)
    _check_known(values)
    chunks = _word_chunks(values, words_for(length), chunks)
    lead, words = chunks[:-1], chunks[-1]
    values = as_dask(values, lead)
    axes = _axes(values).upper()
    return _blocks(
        "sc-encode",
        _encode_block,
        axes + "k",
        values,
        axes,
        ArraySliceDep(values.chunks),
        axes,
        ArraySliceDep((words,)),
        "k",
        shape=values.shape,
        sng=sng,
        length=length,
        polarity=polarity,
        dtype=np.uint64,
    )


def _check_known(values: Any) -> None:
    if any(np.isnan(n) for n in values.shape):
        raise BitstreamError("streams of unknown chunk sizes cannot be numbered: call compute_chunk_sizes() first")


def larger_chunks(words: da.Array) -> tuple[tuple[int, ...], ...] | None:
    """Chunks by the time that a task takes, if the encoded words have very many, much smaller blocks."""
    fewest = 64 * words.size / task_bits(ENCODE_RATE) if words.npartitions > MANY_BLOCKS else math.inf
    values = np.broadcast_to(0, words.shape[:-1])
    return _word_chunks(values, words.shape[-1], "auto") if 2 * fewest < words.npartitions else None


def _word_chunks(values: Any, n_words: int, chunks: Any) -> tuple[tuple[int, ...], ...]:
    """Chunks of the words of `values`: as asked for, or kept from the values, or by the time that a task takes."""
    shape = (*values.shape, n_words)
    if 0 in shape and (chunks is None or chunks == "auto"):
        return tuple((n,) for n in shape)
    limit = None
    if isinstance(chunks, tuple) and len(chunks) == values.ndim:
        chunks = (*chunks, -1)
    if chunks is None:
        chunks, limit = (*values.chunks, "auto"), dask.config.get("array.chunk-size")
    elif chunks == "auto":
        limit = int(task_bits(ENCODE_RATE) / 8)
        chunks = (*["auto"] * values.ndim, -1 if values.ndim and 8 * n_words <= limit else "auto")
    try:
        normal: tuple[tuple[int, ...], ...] = normalize_chunks(chunks, shape, limit=limit, dtype=np.dtype(np.uint64))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise BitstreamError(f"words of shape {shape} cannot have the chunks {chunks!r}: {error}") from error
    return normal


def _encode_block(
    values: Any,
    region: tuple[slice, ...],
    words: tuple[slice],
    shape: tuple[int, ...],
    sng: SNG,
    length: int,
    polarity: Polarity,
) -> Any:
    return _in_chunk(
        vector_ops.encode_region,
        region,
        values,
        sng,
        length,
        polarity,
        region,
        shape,
        (words[0].start, words[0].stop),
    )


def as_weights(values: da.Array) -> da.Array:
    vector_ops.check_real(values)
    axes = _axes(values)
    region = ArraySliceDep(values.chunks)
    return _blocks("sc-weights", _weights_block, axes, values, axes, region, axes, dtype=np.float64)


def _weights_block(values: Any, region: tuple[slice, ...]) -> Any:
    return _in_chunk(vector_ops.as_weights, region, values)


def encode_mac(weights: Any, inputs: Any, w_sng: SNG, x_sng: SNG, length: int, mode: Mode) -> da.Array:
    """One task a block of inputs and range of words: weights are encoded once, inputs inside the task."""
    w, x = as_dask(weights), as_dask(inputs)
    length = vector_ops.check_layer(w, x, w_sng, x_sng, length, mode)
    _check_known(x)
    if _is_numpy(w._meta) and not _is_numpy(x._meta):
        w = _like(w, x)
    # Neurons stay whole, so that no input is encoded twice; ranges of words bound the memory instead.
    n_neurons = len(w)
    w = w.rechunk({0: -1})
    _, (w, x) = unify_chunks(w, "ni", x, "bi")
    if mode == "split":
        signs = {"n": (2 * n_neurons,)}
        w = _blocks("sc-split", vector_ops.split_signs, "ni", w, "ni", adjust_chunks=signs, dtype=w.dtype)
    ranges = vector_ops.word_blocks((len(w), max(w.chunks[1], default=1)), length)
    word_chunks = tuple(last - first for first, last in ranges)
    polarity = vector_ops.OPERAND_POLARITY[mode]
    w_words = encode_words(w, w_sng, length, polarity, chunks=(*w.chunks, word_chunks))
    if x.numblocks[0] > 1:
        w_words = _compute_once(w_words)
    counts = _blocks(
        "sc-mac",
        _encode_mac_block,
        "bnik",
        w_words,
        "nik",
        x,
        "bi",
        ArraySliceDep(x.chunks),
        "bi",
        ArraySliceDep((word_chunks,)),
        "k",
        shape=x.shape,
        sng=x_sng,
        length=length,
        mode=mode,
        adjust_chunks={"n": (n_neurons,), "i": 1, "k": 1},
        dtype=np.int64,
    )
    total = None if mode == "split" else w.shape[1] * length
    return _sum_blocks("sc-mac", counts, _as_is, (2, 3), total)


def _encode_mac_block(
    w_words: Any,
    x: Any,
    region: tuple[slice, ...],
    words: tuple[slice],
    shape: tuple[int, ...],
    sng: SNG,
    length: int,
    mode: Mode,
) -> Any:
    counts = _in_chunk(
        vector_ops.encoded_counts,
        region,
        w_words,
        x,
        sng,
        length,
        mode,
        region,
        shape,
        (words[0].start, words[0].stop),
    )
    return counts[..., None, None]


# Arithmetic


def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> da.Array:
    operands = [as_dask(a) for a in arrays]
    chunks, pairs = _broadcast(operands)
    axes = _axes(max(operands, key=lambda a: a.ndim))
    each = partial(vector_ops.exactly, func, **options)
    return _blocks("sc-scale", each, axes, *pairs, adjust_chunks=chunks, dtype=np.float64)


def largest(weights: da.Array) -> da.Array:
    most = partial(vector_ops.exactly, _most)
    top = _reduce("sc-largest", weights, most, most, most, axis=None, dtype=np.dtype(np.float64))
    return exactly(vector_ops.or_one, top)


def _most(weights: Any, axis: Any, keepdims: bool) -> Any:
    sizes = abs(weights)
    return (sizes.max if sizes.size else sizes.sum)(axis=axis, keepdims=keepdims)


def pick(words: da.Array, index: tuple[Any, ...]) -> da.Array:
    index = vector_ops.plain_index(index)
    if _is_numpy(words._meta) or not any(isinstance(part, list | np.ndarray | da.Array) for part in index):
        return words[index]
    # Dask gathers with np.take, which JAX refuses, and for which CuPy wraps indices around.
    return _like(on_host(words)[index], words)


def _like(array: da.Array, other: da.Array) -> da.Array:
    """An array of NumPy blocks as one of blocks of the library of the other's."""
    meta = _meta([other], array.ndim, array.dtype)
    return array.map_blocks(vector_ops.from_numpy(meta), dtype=array.dtype, meta=meta)


def on_host(array: da.Array) -> da.Array:
    # Whatever the meta is: some of Dask's functions lose a DeviceMeta.
    return array.map_blocks(vector_ops.on_host, dtype=array.dtype, meta=np.empty((0,) * array.ndim, array.dtype))


as_dask.register(da.Array, _as_it_is)
for _func in (
    pack_bitstream,
    unpack_bitstream,
    as_words,
    check_tail,
    mask_tail,
    vec_and,
    vec_or,
    vec_xor,
    vec_xnor,
    vec_not,
    vec_mux,
    popcount,
    stream_popcount,
    vec_popcount,
    vec_mac,
    encode_words,
    as_weights,
    encode_mac,
    exactly,
    largest,
    on_host,
    pick,
):
    getattr(vector_ops, _func.__name__).register(da.Array, _func)

"""CuPy arrays: the functions of `vector_ops` as CUDA kernels, and the way to a GPU and back.

The kernels are in gpu_kernels.cu, which CuPy compiles for the GPU at hand at their first call, and keeps on disk.

Without a GPU, or without CuPy, `to_device` leaves arrays on the host, where the Numba kernels run, and warns once. So
the same program runs everywhere, with the same bits.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache, wraps
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import warn

import dask.array as da
import numpy as np

from . import vector_ops
from ._dispatch import as_numpy
from .bitstream import Bitstream, wrap_words
from .bitstream import to_host as to_host
from .chunked import DeviceMeta
from .errors import MixedArrayError, UnsupportedArrayError
from .jit_kernels import ONES, WORD, tail_mask

if TYPE_CHECKING:
    from collections.abc import Callable

    from .encoding import SNG
    from .vector_ops import Gate, Polarity, Region

try:
    import cupy
except ImportError:
    cupy = None

THREADS = 256  # in a block
BLOCKS = 32  # of a launch, for each multiprocessor
WARP = 32
GATES = ("and", "or", "xor", "xnor", "not", "mux")  # as the kernel numbers them
LEADING_AXES = 3  # that the kernel of the gates takes
TABLES = 16  # of shared sequences, up to 2 MiB each, that are kept on the devices
FEW_ROWS = 4  # up to so many, a MAC reads the other operand once at the speed of memory, without tensor cores
TENSOR_TILE = 128  # rows of both operands in a block of the tensor-core kernel
LONGEST_PART = 2**24  # words of a row whose counts fit 32 bits in every thread
PART_ALIGNMENT = 8  # words


@cache
def why_no_gpu() -> str | None:
    """What stands against the use of a GPU in this process, or None."""
    if cupy is None:
        return "CuPy is not installed (pip install 'scdask[gpu-cuda13]')"
    return None if cupy.is_available() else "CuPy finds no CUDA device"


def devices() -> list[str]:
    """The names of the GPUs that this process sees."""
    runtime = cupy.cuda.runtime
    return [runtime.getDeviceProperties(i)["name"].decode() for i in range(runtime.getDeviceCount())]


@cache
def _warn_once(reason: str) -> None:
    warn(f"{reason}: arrays stay on the host, where the Numba kernels run", RuntimeWarning, stacklevel=3)


# To the device and back


def to_device(arr: Any) -> Any:
    """Copy an array to the GPU, or leave it on the host, with one warning, if there is none.

    Parameters
    ----------
    arr : array_like, array of another library, dask Array or Bitstream
        A Dask array is moved block by block, where its tasks run: to build the graph takes no GPU.

    Returns
    -------
    cupy.ndarray, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype. A CuPy array is returned as it is. Without a GPU, a NumPy array.

    Raises
    ------
    UnsupportedArrayError
        If it is a masked array or no array of numbers.
    """
    if cupy is not None and isinstance(arr, cupy.ndarray):
        return arr
    if isinstance(arr, Bitstream):
        return wrap_words(to_device(arr.words), arr.length, arr.polarity, arr.sng)
    if isinstance(arr, da.Array):
        empty = np.empty((0,) * arr.ndim, _native(arr.dtype))
        meta = empty.view(DeviceMeta) if why_no_gpu() else cupy.empty(empty.shape, empty.dtype)
        return arr.map_blocks(to_device, dtype=meta.dtype, meta=meta)
    values = as_numpy(vector_ops.on_host(arr) if hasattr(arr, "dtype") else arr, "what goes to a GPU")
    values = values.astype(_native(values.dtype), copy=False)
    reason = why_no_gpu()
    if reason is None:
        return cupy.asarray(values)
    if values.size:  # with an empty array Dask asks what a function makes of blocks, maybe on other machines
        _warn_once(reason)
    return values


def _native(dtype: Any) -> Any:
    """The dtype as CuPy has it."""
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise UnsupportedArrayError(f"CuPy has no arrays of {dtype}")
    return dtype.newbyteorder("=")


def _on_its_device(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func` on the device that its arrays are on."""

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = {arg.device.id: arg.device for arg in (*args, *kwargs.values()) if isinstance(arg, cupy.ndarray)}
        if len(found) > 1:
            raise MixedArrayError(f"{func.__name__} was given arrays on the devices {sorted(found)}; move them to one")
        with found.popitem()[1]:
            return func(*args, **kwargs)

    return call


# Launching


@cache
def _kernel(name: str) -> Any:
    return _module().get_function(name)


@cache
def _module() -> Any:
    return cupy.RawModule(code=Path(__file__).with_name("gpu_kernels.cu").read_text(), options=("--std=c++17",))


def _launch(name: str, blocks: int, threads: int, *args: Any) -> None:
    """Start a kernel; Python integers are its 64-bit ones."""
    values = tuple(np.int64(arg) if isinstance(arg, int) else arg for arg in args)
    _kernel(name)((blocks,), (threads,), values)


def _launch_over(name: str, items: int, *args: Any) -> None:
    """Start a kernel with a thread for each of so many items, or so many threads as pay."""
    _launch(name, min(-(-items // THREADS), BLOCKS * _multiprocessors()), THREADS, *args)


def _multiprocessors() -> int:
    return _properties(cupy.cuda.Device().id)[0]


@cache
def _properties(device: int) -> tuple[int, bool]:
    """Multiprocessors of a device, and whether its tensor cores have AND and popcount of 1-bit matrices."""
    found = cupy.cuda.Device(device)
    return found.attributes["MultiProcessorCount"], int(found.compute_capability) >= 80


NULL = np.uint64(0)


# Packing


def pack_bitstream(bitstream: Any) -> Any:
    vector_ops.check_bit_array(bitstream)
    bits, given = cupy.ascontiguousarray(bitstream), bitstream
    if bits.dtype.itemsize > 1:
        if bool(((bits != 0) & (bits != 1)).any()):
            vector_ops.pack_bitstream(given.get())  # which says where
        bits = bits.astype(np.uint8)
    *lead, length = bits.shape
    rows, n_words = math.prod(lead), vector_ops.words_for(length)
    out, other = cupy.empty((*lead, n_words), np.uint64), cupy.zeros(1, np.int32)
    if out.size:
        _launch_over("pack", 8 * out.size, bits, rows, length, n_words, out, other)
        if bits.dtype != np.bool and bool(other[0]):
            vector_ops.pack_bitstream(given.get())
    return out


def unpack_bitstream(packed: Any, original_length: int, original_shape: tuple[int, ...] | None = None) -> Any:
    words = cupy.ascontiguousarray(as_words(packed))
    length, shape = vector_ops.unpacked_shape(words.shape, original_length, original_shape)
    *lead, n_words = words.shape
    rows = math.prod(lead)
    out = cupy.empty((rows, length), np.uint8)
    if out.size:
        _launch_over("unpack", rows * -(-length // 8), words, rows, length, n_words, out)
    return out.reshape(shape)


def as_words(packed: Any) -> Any:
    if not isinstance(packed, cupy.ndarray):
        return cupy.asarray(vector_ops.as_words(packed))
    vector_ops.check_words(packed)
    return packed


def check_tail(packed: Any, length: int) -> Any:
    words = as_words(packed)
    length = vector_ops.check_length(length, words.shape[-1])
    if length % WORD and bool((words[..., -1] & ~tail_mask(length)).any()):
        vector_ops.check_tail(words.get(), length)  # which says where
    return words


def mask_tail(packed: Any, length: int) -> Any:
    return _gate("and", packed, packed, length=length)


# Gates


def _gate(kind: str, *packed: Any, length: int | None = None) -> Any:
    operands = [cupy.ascontiguousarray(as_words(p)) for p in packed]
    vector_ops.check_gate(*operands)
    shape = np.broadcast_shapes(*(words.shape for words in operands))
    last = ONES if length is None else tail_mask(vector_ops.check_length(length, shape[-1]))
    out = cupy.empty(shape, np.uint64)
    if not out.size:
        return out
    axes = _merged_axes(operands, shape, last == ONES)
    if len(axes) > LEADING_AXES + 1:
        operands = [cupy.ascontiguousarray(cupy.broadcast_to(words, shape)) for words in operands]
        axes = _merged_axes(operands, shape, last == ONES)
    *leading, (n_words, _) = axes
    leading += [(1, (0,) * len(operands))] * (LEADING_AXES - len(leading))
    places: list[Any] = []
    for i, words in enumerate(operands):
        places += [words, *(steps[i] for _, steps in leading)]
    places += [NULL, 0, 0, 0] * (3 - len(operands))
    lengths = [n for n, _ in leading]
    _launch_over("gate", out.size, np.int32(GATES.index(kind)), *places, *lengths, n_words, last, out)
    return out


def _merged_axes(operands: list[Any], shape: tuple[int, ...], with_words: bool) -> list[tuple[int, tuple[int, ...]]]:
    """The axes as (length, steps in words of each operand), where axes that are one in all operands are merged."""
    merged = [(shape[-1], (1,) * len(operands))]
    for axis in range(2, len(shape) + 1):
        n = shape[-axis]
        steps = tuple(
            words.strides[-axis] // 8 if words.ndim >= axis and words.shape[-axis] > 1 else 0 for words in operands
        )
        inner, inner_steps = merged[0]
        if n == 1:
            continue
        if steps == tuple(inner * step for step in inner_steps) and (len(merged) > 1 or with_words):
            merged[0] = (n * inner, inner_steps)
        else:
            merged.insert(0, (n, steps))
    return merged


def vec_and(a_packed: Any, b_packed: Any) -> Any:
    return _gate("and", a_packed, b_packed)


def vec_or(a_packed: Any, b_packed: Any) -> Any:
    return _gate("or", a_packed, b_packed)


def vec_xor(a_packed: Any, b_packed: Any) -> Any:
    return _gate("xor", a_packed, b_packed)


def vec_xnor(a_packed: Any, b_packed: Any, length: int | None = None) -> Any:
    return _gate("xnor", a_packed, b_packed, length=length)


def vec_not(packed: Any, length: int | None = None) -> Any:
    return _gate("not", packed, length=length)


def vec_mux(select_packed: Any, a_packed: Any, b_packed: Any) -> Any:
    return _gate("mux", select_packed, a_packed, b_packed)


# Counting


def popcount(packed: Any) -> Any:
    words = cupy.ascontiguousarray(as_words(packed))
    out = cupy.empty(words.shape, np.uint8)
    if out.size:
        _launch_over("popcount_words", words.size, words, words.size, out)
    return out


def stream_popcount(packed: Any) -> Any:
    words = cupy.ascontiguousarray(as_words(packed))
    *lead, n_words = words.shape
    rows = math.prod(lead)
    if not words.size:
        return cupy.zeros(tuple(lead), np.int64)
    lanes = min(WARP, 1 << (n_words - 1).bit_length())
    busy = BLOCKS * THREADS * _multiprocessors()
    parts = max(1, min(busy // (rows * WARP), n_words // (16 * WARP)))
    out = (cupy.empty if parts == 1 else cupy.zeros)(tuple(lead), np.int64)
    _launch_over("popcount_streams", rows * parts * lanes, words, rows, n_words, np.int32(lanes), parts, out)
    return out


def vec_popcount(packed: Any) -> Any:
    words = as_words(packed)
    return int(stream_popcount(words.reshape(1, words.size))[0])


# Multiply-accumulate


def gate_counts(weights: Any, inputs: Any, gate: Gate) -> Any:
    weights, inputs = as_words(weights), as_words(inputs)
    vector_ops.check_mac(weights, inputs, "and", None)
    width = weights.shape[1] * weights.shape[2]
    shape = (*inputs.shape[:-2], len(weights))
    if not width or 0 in shape:
        return cupy.zeros(shape, np.int64)
    w, x = (cupy.ascontiguousarray(words).reshape(-1, width) for words in (weights, inputs))
    tensor_cores = min(len(w), len(x)) > FEW_ROWS and _properties(cupy.cuda.Device().id)[1]
    return _mac(x, w, gate == "xnor", tensor_cores).reshape(shape)


def _mac(x: Any, w: Any, xor: bool, tensor_cores: bool) -> Any:
    """The counts (rows of x, rows of w) of AND or XOR of rows of words."""
    (rows_x, width), rows_w = x.shape, len(w)
    if tensor_cores:
        tiles, threads = -(-rows_x // TENSOR_TILE) * -(-rows_w // TENSOR_TILE), 256
        parts, part_words = _parts(width, tiles, 2 * _multiprocessors(), 128)
    else:
        rows = 1 if rows_x == 1 else 4
        tiles, threads = -(-rows_x // rows) * -(-rows_w // 4), 128
        parts, part_words = _parts(width, tiles, 8 * _multiprocessors(), 1024)
    counts = (cupy.empty if parts == 1 else cupy.zeros)((rows_x, rows_w), np.int64)
    pairs = width % 2 == 0 and all(words.data.ptr % 16 == 0 for words in (x, w))
    operands = (x, rows_x, w, rows_w, width, parts, part_words)
    if tensor_cores:
        ones = [stream_popcount(words) if xor else NULL for words in (x, w)]
        name, last = f"mac_tensor_{16 if pairs else 8}", (*ones, counts)
    else:
        name, last = f"mac_tile_{rows}_{2 if pairs else 1}", (np.int32(xor), counts)
    _launch(name, min(tiles * parts, 2**30), threads, *operands, *last)
    return counts


def _parts(width: int, tiles: int, blocks: int, shortest: int) -> tuple[int, int]:
    """How many parts rows are cut into, and their words, so that so many blocks have work and no count overflows."""
    wanted = max(1, min(blocks // tiles, width // shortest), -(-width // LONGEST_PART))
    part_words = -(-width // wanted)
    part_words = -(-part_words // PART_ALIGNMENT) * PART_ALIGNMENT
    return -(-width // part_words), part_words


# Encoding


def encode_region(
    values: Any,
    sng: SNG,
    length: int,
    polarity: Polarity,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Any:
    p = cupy.ascontiguousarray(probabilities(values, polarity))
    first, last = words
    n_words = last - first
    out = cupy.empty((*values.shape, n_words), np.uint64)
    if not out.size:
        return out
    key = sng.key()
    if key is None:
        for start, stop in vector_ops.table_spans(p.size, length, words):
            ranked, table = _table(cupy.cuda.Device().id, sng, length, start, stop)
            columns = (table, table.shape[1], start // WORD - first, n_words)
            _launch_over("look_up", p.size * table.shape[1], p, p.size, ranked, np.int32(len(ranked)), *columns, out)
        return out
    streams = cupy.ascontiguousarray(vector_ops.stream_numbers(region, shape, cupy))
    kept = tail_mask(length) if WORD * last > length else ONES
    place = (np.uint64(first), n_words, *map(np.uint64, key), kept)
    _launch_over("bernoulli", out.size, p, streams, p.size, *place, out)
    return out


@lru_cache(maxsize=TABLES)
def _table(device: int, sng: SNG, length: int, start: int, stop: int) -> tuple[Any, Any]:
    """The numbers of a shared sequence in order, and the stream of each place between them, on the device."""
    ranked, _, _, rows = sng.table(length, start, stop)
    table = cupy.asarray(ranked[: stop - start]), cupy.asarray(rows)
    cupy.cuda.get_current_stream().synchronize()  # other streams will read it
    return table


def probabilities(values: Any, polarity: Polarity) -> Any:
    vector_ops.check_real(values)
    low, high = vector_ops.RANGES[polarity]
    p = values.astype(np.float64, copy=False)
    if not bool(((p >= low) & (p <= high)).all()):
        vector_ops.probabilities(values.get(), polarity)  # which says where
    return p if polarity == "unipolar" else (p + 1) / 2


# Layers


def as_weights(values: Any) -> Any:
    vector_ops.check_real(values)
    weights = values.astype(np.float64, copy=False)
    if not bool(cupy.isfinite(weights).all()):
        vector_ops.as_weights(values.get())  # which says where
    return weights


def encode_mac(weights: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    generic: Any = vector_ops.encode_mac
    return generic.__wrapped__(to_device(weights), to_device(inputs), *args, **kwargs)


def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    return func(*(to_device(array) if isinstance(array, np.ndarray) else array for array in arrays), **options)


def on_host(array: Any) -> Any:
    return array.get()


def pick(words: Any, index: tuple[Any, ...]) -> Any:
    known = vector_ops.plain_index(index)
    np.broadcast_to(False, words.shape)[known]  # raises an IndexError where CuPy wraps around
    return words[tuple(chain.from_iterable(map(_index_arrays, known)))]


def _index_arrays(part: Any) -> list[Any]:
    """An index as CuPy takes it: arrays on the device, integers for a mask."""
    if not isinstance(part, np.ndarray | list):
        return [part]
    found = np.asarray(part)
    if found.dtype == np.bool and found.ndim:
        return [cupy.asarray(places) for places in found.nonzero()]
    return [cupy.asarray(found if found.size else found.astype(np.intp))]


def from_numpy(like: Any) -> Callable[[Any], Any]:
    return to_device


# The names of the reference


def gpu_pack_bitstream(bits: Any) -> Any:
    """`vector_ops.pack_bitstream` on the GPU."""
    return vector_ops.pack_bitstream(to_device(bits))


def gpu_vec_and(a: Any, b: Any) -> Any:
    """`vector_ops.vec_and` on the GPU."""
    return vector_ops.vec_and(to_device(a), to_device(b))


def gpu_popcount(packed: Any) -> Any:
    """`vector_ops.popcount`, the ones in each word, on the GPU."""
    return vector_ops.popcount(to_device(packed))


def gpu_vec_mac(packed_weights: Any, packed_inputs: Any) -> Any:
    """`vector_ops.vec_mac` on the GPU."""
    return vector_ops.vec_mac(to_device(packed_weights), to_device(packed_inputs))


# Where these kernels are found

vector_ops.from_numpy.register(DeviceMeta, from_numpy)
if cupy is not None:
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
        gate_counts,
        probabilities,
        encode_region,
        as_weights,
        encode_mac,
        exactly,
        on_host,
        pick,
        from_numpy,
    ):
        getattr(vector_ops, _func.__name__).register(cupy.ndarray, _on_its_device(_func))
    for _name in ("vec_mac", "encode_words", "encoded_counts", "split_signs", "divide", "largest", "in_64_bits"):
        _generic = getattr(vector_ops, _name)  # whose NumPy body does for CuPy
        _generic.register(cupy.ndarray, _on_its_device(_generic.__wrapped__))

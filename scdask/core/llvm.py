"""What the Numba kernels share: how they are compiled, and the pieces of LLVM that they are made of.

LLVM's vectoriser prefers 256-bit registers on many AVX-512 machines and gives up half of the speed there, so the inner
loops are explicit vectors. Numba's cache sees a change of the file that holds a kernel, but not of this one: clear it
after a change here.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.ma  # Numba does so at a first call, and a child forked meanwhile would wait for ever
from llvmlite import ir
from numba import int64, njit, types, vectorize
from numba.core import cgutils, config
from numba.core.caching import FunctionCache
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from .._locks import fork_safe
from ..errors import MissingBackendError
from .digits import ROTATIONS, ROUNDS
from .words import WORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Words = NDArray[np.uint64]

if config.DISABLE_JIT:
    raise MissingBackendError(
        "the kernels of scdask are compiled, and cannot run as Python: unset the environment variable "
        "NUMBA_DISABLE_JIT, which switches Numba's compiler off"
    )

fork_safe(global_compiler_lock)

LANES = 8  # words in a vector
FEW = 256  # words that are not worth aligning
AHEAD = 512  # bytes from a load to the prefetch that runs ahead of it

I64 = ir.IntType(64)
V8 = ir.VectorType(I64, LANES)
BYTES = ir.VectorType(ir.IntType(8), WORD)
BITS = ir.VectorType(ir.IntType(1), WORD)


class _Cache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function on disk, which is left out where it cannot be used."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is cached, if it is whole; files that an interrupted write has left are emptied, to be filled again."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # What unpickling half a file raises may be anything.
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Cache what was compiled."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # The disk may be full, or hold what can neither be read nor replaced.
            _warn_without_cache(f"{self.cache_path} cannot be written: {error}")


_told: list[str] = []  # why kernels are not cached, if that was said


def _warn_without_cache(reason: str) -> None:
    """Warn once in a process, of however many kernels."""
    if not _told:
        _told.append(reason)
        warnings.warn(
            f"the compiled kernels of scdask are not kept, so each process compiles them anew: {reason}; "
            "the environment variable NUMBA_CACHE_DIR can name another folder for them",
            RuntimeWarning,
            stacklevel=2,
        )


def _cache_of(func: Callable[..., Any]) -> Any:
    """The cache of a function, or None if neither the installation nor the user's cache folder can be written to."""
    try:
        return _Cache(func)
    except (RuntimeError, OSError) as error:
        _warn_without_cache(str(error))
        return None


def compiled(func: Callable[..., Any]) -> Any:
    """Compile a function at its first call, to run without the GIL, and cache it on disk for later processes."""
    dispatcher = njit(nogil=True)(func)
    if (kept := _cache_of(func)) is not None:
        dispatcher._cache = kept  # This is what cache=True sets.
    return dispatcher


def compiled_ufunc(func: Callable[..., Any], signature: str) -> Any:
    """Compile a function now, to an operation on each element of arrays, and cache it on disk for later processes."""
    ufunc = vectorize(func)
    if (kept := _cache_of(func)) is not None:
        ufunc._dispatcher.cache = kept
    ufunc.add(signature)
    ufunc.disable_compile()
    return ufunc


def readonly(array: NDArray[Any]) -> NDArray[Any]:
    """The array as kernels take their inputs: C-contiguous, aligned, native, read-only."""
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned and array.dtype.isnative):
        array = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    view = array.view()
    view.setflags(write=False)
    return view


def empty_words(shape: tuple[int, ...]) -> Words:
    """An uninitialised array of words; one of many starts on a cache line, where vector stores are fastest."""
    size = math.prod(shape)
    if size < FEW:
        return np.empty(shape, np.uint64)
    buffer = np.empty(size + LANES, np.uint64)
    return np.ndarray(shape, np.uint64, buffer, -address_of(buffer) % 64)


@compiled
def address_of(array):
    """The address of an array, six times as quick as array.ctypes.data outside of compiled code."""
    return int64(array.ctypes.data)


def constant(value: int) -> Any:
    """A 64-bit integer constant."""
    return ir.Constant(I64, value % 2**64)


def splat(builder: Any, value: Any, lanes: int = LANES) -> Any:
    """A vector that has the value in each lane."""
    kind = ir.VectorType(I64, lanes)
    if isinstance(value, int):
        return ir.Constant(kind, [value % 2**64] * lanes)
    i32 = ir.IntType(32)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(i32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(i32, lanes), [0] * lanes))


def load(builder: Any, address: Any, kind: Any = V8, align: int = 1) -> Any:
    """Read a vector, or a value of another type `kind`, from an address."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: Any, value: Any, address: Any, align: int = 8) -> None:
    """Write a value to an address."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def prefetch(builder: Any, address: Any, ahead: int = AHEAD) -> None:
    """Prefetch what lies `ahead` bytes after `address`: the hardware alone does not look that far ahead."""
    flag = ir.IntType(32)
    pointer = builder.inttoptr(builder.add(address, constant(ahead)), ir.IntType(8).as_pointer())
    # The flags ask for a read, into the second-level cache, of data.
    call_llvm(builder, "llvm.prefetch.p0", ir.VoidType(), pointer, *(flag(v) for v in (0, 2, 1)))


def call_llvm(builder: Any, name: str, result: Any, *args: Any) -> Any:
    """Call a function of LLVM, whose result is of the type `result`."""
    kind = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)


@cache
def target_has(feature: str) -> bool:
    """Whether the processor that Numba compiles for has a feature, by LLVM's name."""
    return f"+{feature}" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def register_lanes() -> int:
    """How many words a register has."""
    return 8 if target_has("avx512f") else 4 if target_has("avx2") else 2


def shuffled_bytes() -> int:
    """How many bytes a vector has that looks up each in a table, or 0 where counting ones of vectors is quicker."""
    if target_has("avx512vpopcntdq"):
        return 0
    return 32 if target_has("avx2") else 16 if target_has("ssse3") else 0


def pick_lanes(builder: Any, a: Any, b: Any, lanes: Iterable[int]) -> Any:
    """Some lanes of two vectors, by numbers that count on from a to b."""
    chosen = list(lanes)
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))


def sums_of(builder: Any, vectors: list[Any]) -> Any:
    """The sums of some vectors, a power of two, as one vector: halves are added, two vectors at a time."""
    cells, lanes = 1, vectors[0].type.count  # sums in a vector, and lanes that each still has
    while lanes > 1:
        merged = []
        for pair in (vectors[i : i + 2] for i in range(0, len(vectors), 2)):
            starts = [cell * lanes for cell in range(cells * len(pair))]
            low = [start + lane for start in starts for lane in range(lanes // 2)]
            high = [lane + lanes // 2 for lane in low]
            merged.append(builder.add(*(pick_lanes(builder, pair[0], pair[-1], half) for half in (low, high))))
        cells, lanes, vectors = cells * len(pair), lanes // 2, merged
    return vectors[0]


def sum_of(builder: Any, vector: Any) -> Any:
    """The sum of the lanes."""
    return call_llvm(builder, f"llvm.vector.reduce.add.v{vector.type.count}i64", I64, vector)


def turned(builder: Any, vector: Any, bits: int) -> Any:
    """The lanes, rotated to the left: whole bytes by a shuffle, because only AVX-512 rotates."""
    lanes = vector.type.count
    if bits % 8:
        name = f"llvm.fshl.v{lanes}i64"
        return call_llvm(builder, name, vector.type, vector, vector, splat(builder, bits, lanes))
    places = [8 * lane + (byte - bits // 8) % 8 for lane in range(lanes) for byte in range(8)]
    octets = builder.bitcast(vector, ir.VectorType(ir.IntType(8), 8 * lanes))
    return builder.bitcast(pick_lanes(builder, octets, octets, places), vector.type)


def threefry_vectors(builder: Any, keys: list[Any], x0: Any, x1: Any) -> list[Any]:
    """`threefry` of vectors of counters to which the key is already added."""
    for i in range(ROUNDS):
        x0 = builder.add(x0, x1)
        x1 = builder.xor(turned(builder, x1, ROTATIONS[i % 8]), x0)
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = builder.add(x0, keys[j % 3])
            x1 = builder.add(x1, builder.add(keys[(j + 1) % 3], splat(builder, j, x1.type.count)))
    return [x0, x1]


def seeded_vectors(builder: Any, keys: list[Any], x0: Any, x1: Any) -> list[Any]:
    """The states of SFC64 that `threefry` begins, of counters to which the key is already added."""
    a, b = threefry_vectors(builder, keys, x0, x1)
    return [a, b, builder.xor(a, turned(builder, b, 24))]


def sfc64_vectors(builder: Any, state: list[Any], count: Any) -> tuple[Any, list[Any]]:
    """`digits.sfc64` of vectors."""
    a, b, c = state
    lanes = c.type.count
    number = builder.add(builder.add(a, count), b)
    a = builder.xor(b, builder.lshr(b, splat(builder, 11, lanes)))
    b = builder.add(c, builder.shl(c, splat(builder, 3, lanes)))
    return number, [a, b, builder.add(turned(builder, c, 24), number)]


def _copier(far: bool) -> Any:
    """A function that copies words, with prefetches of what follows them if they are in no cache."""

    @intrinsic
    def copy(typing_context, target, source, count):
        """Copy eight or more words, whole vectors first."""

        def codegen(context, builder, signature, args):
            target, source, count = args

            def copy_vector(at: Any) -> None:
                here = builder.add(source, at)
                if far:
                    prefetch(builder, here)
                store(builder, load(builder, here), builder.add(target, at))

            last = builder.sub(builder.shl(count, constant(3)), constant(64))
            with cgutils.for_range_slice(builder, constant(0), last, constant(64), I64) as (at, _):
                copy_vector(at)
            copy_vector(last)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 3), codegen

    return copy


copy_words, copy_far_words = _copier(far=False), _copier(far=True)


@intrinsic
def copy_word(typing_context, target, source):
    """Copy a word."""

    def codegen(context, builder, signature, args):
        store(builder, load(builder, args[1], I64), args[0])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen


@intrinsic
def prefetch_words(typing_context, address, count):
    """Prefetch the cache lines of words."""

    def codegen(context, builder, signature, args):
        size = builder.shl(args[1], constant(3))
        with cgutils.for_range_slice(builder, constant(0), size, constant(64), I64) as (at, _):
            prefetch(builder, builder.add(args[0], at), 0)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), codegen

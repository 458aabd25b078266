"""Bitstreams: packed words, their length, and what a one stands for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, get_args
from uuid import uuid4

import numpy as np

from . import _html, vector_ops
from ._dispatch import as_numpy
from ._extras import require
from .errors import BitstreamError
from .vector_ops import Polarity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .encoding import SNG

FORMAT = 1  # of the attributes of a Zarr store


@dataclass(frozen=True, eq=False, repr=False)
class Bitstream:
    """An array of bitstreams of one length, packed into uint64 words.

    The padding after a stream's last bit is 0, after every operation. Gates (`&`, `|`, `^`, `~`, `xnor`, `mux`) take
    streams of one length and polarity, whose shapes broadcast. A Bitstream of Dask words is a Dask collection.

    Parameters
    ----------
    words : array of uint64, shape (..., n_words)
        Bit t of a stream is bit t % 64 of word t // 64. NumPy, Dask, CuPy or JAX. They are not copied.
    length : int
        Bits of a stream, N >= 1; n_words is ceil(N / 64).
    polarity : {"unipolar", "bipolar"}
        Whether a stream stands for its share of ones p, or for 2p - 1.

    Attributes
    ----------
    sng : SNG or None
        The generator that `encode` was given, for display: None where it is not known, such as after a gate.

    Raises
    ------
    BitstreamError
        If the words are not uint64, do not fit the length, or have ones in the padding (for Dask words: when they
        are computed).
    """

    words: Any
    length: int
    polarity: Polarity = "unipolar"
    sng: SNG | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.polarity not in get_args(Polarity):
            raise BitstreamError(f'the polarity of a stream is "unipolar" or "bipolar", not {self.polarity!r}')
        object.__setattr__(self, "words", vector_ops.check_tail(self.words, self.length))
        object.__setattr__(self, "length", int(self.length))
        if self.length < 1:
            raise BitstreamError(f"a bitstream has at least one bit, not {self.length}")

    def _with(self, words: Any) -> Bitstream:
        return wrap_words(words, self.length, self.polarity, self.sng)

    # as an array of streams

    __array_ufunc__ = None  # so that NumPy leaves an operator with a Bitstream to us

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a Bitstream is no array of numbers: take its .words, .unpack() or .decode()")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of streams: that of the words less the last axis."""
        shape: tuple[int, ...] = self.words.shape[:-1]
        return shape

    @property
    def ndim(self) -> int:
        """Number of axes of the array of streams."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of streams, NaN where Dask does not know it."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed words, NaN where Dask does not know them."""
        nbytes: int = self.words.nbytes
        return nbytes

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...] | None:
        """Chunks of the words, over (*shape, n_words); None if they are not a Dask array."""
        return getattr(self.words, "chunks", None)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a single bitstream has no len(); its number of bits is .length")
        if np.isnan(self.shape[0]):
            raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
        return self.shape[0]

    def __iter__(self) -> Iterator[Bitstream]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Bitstream:
        """Streams by NumPy's rules of indexing; the bits of a stream stay whole."""
        if self.chunks and self.ndim > 1 and getattr(index, "dtype", None) == np.bool and index.ndim == self.ndim:
            # Dask takes a mask over all axes or over one.
            return self._with(self.words.reshape(-1, self.words.shape[-1]))[index.ravel()]
        parts = index if isinstance(index, tuple) else (index,)
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, Ellipsis)
        return self._with(vector_ops.pick(self.words, (*parts, slice(None))))

    def __repr__(self) -> str:
        chunks = f", chunks={self.chunks}" if self.chunks else ""
        return f"Bitstream(shape={self.shape}, length={self.length}, polarity={self.polarity!r}{chunks})"

    def _repr_html_(self) -> str:
        facts = {
            "Shape": self.shape,
            "Length": f"{self.length:,} bits",
            "Polarity": self.polarity,
            "SNG": self.sng or "not known",
            "Words": f"{self.words.shape} uint64",
            "Memory": _html.size(self.nbytes),
        }
        picture = ""
        if self.chunks:
            largest = _html.size(8 * math.prod(self.words.chunksize))
            facts["Chunks"] = f"{self.words.npartitions:,} of up to {self.words.chunksize} words, {largest}"
            if all(n > 0 for n in self.words.shape):  # not for NaN either
                picture = _html.in_colours_of_page(self.words.to_svg(size=120))
        return _html.facts("Bitstream", facts, picture)

    # gates

    def _gate(self, other: Any, gate: Callable[..., Any]) -> Any:
        if not isinstance(other, Bitstream):
            return NotImplemented
        check_alike(self, other)
        return wrap_words(gate(self.words, other.words), self.length, self.polarity)

    def __and__(self, other: Any) -> Any:
        """AND: the product of independent unipolar streams."""
        return self._gate(other, vector_ops.vec_and)

    def __or__(self, other: Any) -> Any:
        """OR: the maximum of fully correlated unipolar streams."""
        return self._gate(other, vector_ops.vec_or)

    def __xor__(self, other: Any) -> Any:
        """XOR: the absolute difference of fully correlated unipolar streams."""
        return self._gate(other, vector_ops.vec_xor)

    def __invert__(self) -> Bitstream:
        """NOT: 1 - p of unipolar streams, -v of bipolar ones."""
        return wrap_words(vector_ops.vec_not(self.words, self.length), self.length, self.polarity)

    # reading out

    def popcount(self) -> Any:
        """Ones of each stream, int64 of shape `shape`."""
        counts = vector_ops.stream_popcount(self.words)
        return counts if self.shape or self.chunks else counts[()]

    def decode(self) -> Any:
        """The numbers that the streams stand for: ones / N, or 2 * ones / N - 1 if bipolar; float64 of `shape`."""
        return vector_ops.exactly(_decode, self.popcount(), length=self.length, polarity=self.polarity)

    def unpack(self) -> Any:
        """The bits, uint8 of shape (*shape, length)."""
        return vector_ops.unpack_bitstream(self.words, self.length)

    def plot(self, ax: Any = None) -> Any:
        """Draw the bits as a picture, a row a stream, on Matplotlib's axes: see `scdask.plotting.plot_stream`."""
        from .plotting import plot_stream

        return plot_stream(self, ax=ax)

    # as a Dask collection

    def rechunk(self, chunks: Any) -> Bitstream:
        """The same streams, lazy, with other chunks over (*shape, n_words), or over `shape` with the words whole."""
        from .chunked import as_dask

        if isinstance(chunks, tuple) and len(chunks) == self.ndim:
            chunks = (*chunks, -1)
        return self._with(self.words.rechunk(chunks) if self.chunks else as_dask(self.words, chunks))

    def compute(self, **kwargs: Any) -> Bitstream:
        """The same streams with their words in memory. Keywords are those of `dask.compute`."""
        return self._with(self.words.compute(**kwargs)) if self.chunks else self

    def persist(self, **kwargs: Any) -> Bitstream:
        """The same streams with their chunks kept where they were computed. Keywords are those of `dask.persist`."""
        return self._with(self.words.persist(**kwargs)) if self.chunks else self

    def __dask_graph__(self) -> Any:
        return self.words.__dask_graph__() if self.chunks else None

    def __dask_keys__(self) -> Any:
        return self.words.__dask_keys__()

    def __dask_layers__(self) -> Any:
        return self.words.__dask_layers__()

    def __dask_tokenize__(self) -> Any:
        from dask.base import normalize_token

        return "Bitstream", normalize_token(self.words), self.length, self.polarity

    @property
    def __dask_optimize__(self) -> Any:
        return self.words.__dask_optimize__

    @property
    def __dask_scheduler__(self) -> Any:
        return self.words.__dask_scheduler__

    def __dask_postcompute__(self) -> Any:
        return self._rebuild, (self.words.__dask_postcompute__(),)

    def __dask_postpersist__(self) -> Any:
        return self._rebuild_persisted, (self.words.__dask_postpersist__(),)

    def _rebuild(self, results: Any, finish: tuple[Callable[..., Any], tuple[Any, ...]]) -> Bitstream:
        function, args = finish
        return self._with(function(results, *args))

    def _rebuild_persisted(
        self,
        graph: Mapping[Any, Any],
        finish: tuple[Callable[..., Any], tuple[Any, ...]],
        rename: Mapping[str, str] | None = None,
    ) -> Bitstream:
        function, args = finish
        return self._with(function(graph, *args, rename=rename))

    # storage

    def to_zarr(self, store: Any, *, overwrite: bool = False, progress: bool = False) -> None:
        """Write the words to a Zarr array, uncompressed and chunk for chunk, with length and polarity as attributes.

        The attributes are written last, so that a store which was left half-written is not taken for a whole one.
        What a path held before is replaced only when all is written, so that a result may be lazily read from it.

        Parameters
        ----------
        store : path or Zarr store
        overwrite : bool
            Replace the Zarr array at a path on this machine.
        progress : bool
            Whether to show how many tasks are done, as `scdask.compute` does. Words in memory are one write.

        Raises
        ------
        BitstreamError
            If something is there and `overwrite` is false, or it is no Zarr array, or `store` is not such a path.
        """
        zarr = require("zarr", "zarr")
        if any(np.isnan(n) for n in self.shape):
            raise BitstreamError("Zarr needs known chunk sizes: call words.compute_chunk_sizes() first")
        if store is None:
            raise BitstreamError("a Zarr store is a path or a store object, not None")
        target = store
        if overwrite:
            if not isinstance(store, str | Path) or "://" in str(store):
                raise BitstreamError(f"only an array at a path of this machine is replaced, not {store}")
            store = Path(store).resolve()
            if store.exists() and not _is_array(store):
                raise BitstreamError(f"{store} is no Zarr array, and is not replaced")
            target = store.with_name(f".{store.name}.{uuid4().hex}")
        chunks = self.words.chunksize if self.chunks else self.words.shape
        try:
            array = zarr.create_array(
                target,
                shape=self.words.shape,
                chunks=tuple(max(1, n) for n in chunks),
                dtype="uint64",
                compressors=None,
                fill_value=0,
            )
        except (zarr.errors.ContainsArrayError, zarr.errors.ContainsGroupError, FileExistsError) as error:
            raise BitstreamError(f"{store} is there already: pass overwrite=True to replace an array") from error
        try:
            if self.chunks:
                import dask.array as da

                from .cluster import compute

                words = vector_ops.on_host(self.words).rechunk(self.words.chunksize)
                compute(da.store(words, array, lock=False, compute=False), name="to-zarr", progress=progress)
            else:
                array[...] = vector_ops.on_host(self.words)
            attributes = {"format": FORMAT, "length": self.length, "polarity": self.polarity, "id": uuid4().hex}
            array.attrs["scdask"] = attributes
        except BaseException:
            if overwrite:
                rmtree(target, ignore_errors=True)
            raise
        if overwrite:
            old = target.with_name(f"{target.name}.old")
            if store.exists():
                store.rename(old)
            target.rename(store)
            rmtree(old, ignore_errors=True)


def _decode(ones: Any, length: int, polarity: Polarity) -> Any:
    share = vector_ops.divide(ones, length)
    return share if polarity == "unipolar" else 2 * share - 1


def _is_array(path: Path) -> bool:
    try:
        return bool(json.loads((path / "zarr.json").read_text())["node_type"] == "array")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def open_zarr(store: Any) -> Bitstream:
    """A lazy Bitstream of the words in a Zarr store that `Bitstream.to_zarr` wrote, one Dask chunk a Zarr chunk.

    Parameters
    ----------
    store : path or Zarr store

    Returns
    -------
    Bitstream

    Raises
    ------
    BitstreamError
        If there is no Zarr array, or it was not written (to its end) by scdask, or by a newer format of it.
    """
    zarr = require("zarr", "zarr")
    import dask.array as da
    from dask.base import tokenize

    try:
        array = zarr.open_array(store, mode="r")
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise BitstreamError(f"{store} holds no Zarr array: {error}") from error
    ours = array.attrs.get("scdask")
    if not isinstance(ours, dict):
        raise BitstreamError(f"{store} was not written by scdask, or not to its end: it has no scdask attributes")
    if ours.get("format") != FORMAT:
        raise BitstreamError(f"{store} has the format {ours.get('format')} of scdask, this version reads {FORMAT}")
    # The name holds the id, so that chunks of an array that was replaced are not taken for those of its successor.
    words = da.from_zarr(array, name=f"open-zarr-{tokenize(str(array.store_path), ours.get('id'))}")
    return Bitstream(words, ours.get("length", 0), ours.get("polarity", ""))


def wrap_words(words: Any, length: int, polarity: Polarity, sng: SNG | None = None) -> Bitstream:
    """A Bitstream of words that an operation of ours made, without checking their padding again."""
    stream = object.__new__(Bitstream)
    stream.__dict__.update(words=words, length=length, polarity=polarity, sng=sng)
    return stream


def to_host(arr: Any) -> Any:
    """Bring an array back from a device as a NumPy array.

    Parameters
    ----------
    arr : array_like, cupy.ndarray, jax.Array, dask Array of such blocks, or Bitstream

    Returns
    -------
    ndarray, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype; read-only if it comes from JAX. A NumPy array is returned as it is.
    """
    if isinstance(arr, Bitstream):
        return wrap_words(to_host(arr.words), arr.length, arr.polarity, arr.sng)
    return vector_ops.on_host(arr) if hasattr(arr, "dtype") else as_numpy(arr, "what comes from a device")


def check_alike(*streams: Bitstream, names: tuple[str, ...] = ("length", "polarity")) -> None:
    """Raise unless they are Bitstreams of one length and one polarity."""
    for stream in streams:
        if not isinstance(stream, Bitstream):
            raise BitstreamError(f"only Bitstreams combine, not {type(stream).__name__}")
    for name in names:
        found = {getattr(stream, name): None for stream in streams}
        if len(found) > 1:
            raise BitstreamError(f"streams of {name} {' and '.join(map(str, found))} do not combine")


def xnor(a: Bitstream, b: Bitstream) -> Bitstream:
    """XNOR of two streams: the product of independent bipolar ones.

    Parameters
    ----------
    a, b : Bitstream
        Of one length and polarity; shapes broadcast.

    Returns
    -------
    Bitstream
    """
    check_alike(a, b)
    return wrap_words(vector_ops.vec_xnor(a.words, b.words, a.length), a.length, a.polarity)


def mux(select: Bitstream, a: Bitstream, b: Bitstream) -> Bitstream:
    """MUX of two streams: `a` where `select` is 1, else `b`; the scaled sum s * a + (1 - s) * b.

    Parameters
    ----------
    select : Bitstream
        Its probability of a one is the weight of `a`, whatever its polarity; it must be independent of both.
    a, b : Bitstream
        Of the length of `select` and one polarity; shapes broadcast.

    Returns
    -------
    Bitstream
        Of the polarity of `a` and `b`.
    """
    check_alike(select, a, b, names=("length",))
    check_alike(a, b)
    return wrap_words(vector_ops.vec_mux(select.words, a.words, b.words), a.length, a.polarity)

"""Bitstreams: packed words, their length, and what a one stands for.

Index and rechunk
-----------------
Streams are indexed as an array of their shape is, and their bits by `bits` (`help(scdask.manipulation)`). They are
rechunked over that shape, or over it and the axis of words; bits stay as they are:

>>> import dask.array as da
>>> import scdask as sc
>>> x = sc.encode(da.arange(1000, chunks=250) / 1000, 1024, sng=sc.Bernoulli(seed=1))
>>> x[::100].shape, x.rechunk((500,)).chunks, x.rechunk((1000, 4)).chunks
((10,), ((500, 500), (16,)), ((1000,), (4, 4, 4, 4)))

Compute
-------
A lazy Bitstream is a Dask collection: `compute`, `persist`, `dask.compute`, `scdask.compute` and the methods of a
distributed `Client` take it as it is. What is wrong in a chunk, such as a probability above 1, is an error when the
chunk is computed.

>>> float(x[500].compute().decode()) == float(x[500].decode().compute())
True

Keep
----
The words go to Zarr (https://zarr.dev) uncompressed and chunk for chunk, and come back with length and polarity. It
needs `pip install "scdask[zarr]"`. ::

    x.to_zarr("x.zarr")
    x = scdask.open_zarr("x.zarr")  # lazy

Padding
-------
Bit t of a stream is bit t % 64 of word t // 64. A stream of 100 bits takes two words, and 28 bits of the second are
padding. They are 0 after every operation, NOT and XNOR included, and words with ones there are refused:

>>> (~sc.encode(0.0, 100)).popcount()
np.int64(100)
>>> import numpy as np
>>> sc.Bitstream(np.full(2, 2**64 - 1, dtype=np.uint64), 100)
Traceback (most recent call last):
    ...
scdask.errors.BitstreamError: stream () of 100 bits has ones in its padding, past bit 99
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _html, _stores, plotting
from .core import contract
from .core.checks import check_polarity
from .core.dispatch import BACKENDS, library_of, when_loaded
from .core.gates import GATES
from .errors import BitstreamError, UnsupportedArrayError
from .generators.independence import tell_of_correlation
from .vector_ops.counting import check_prefixes, prefix_popcount, stream_popcount
from .vector_ops.gates import gate as gate_words
from .vector_ops.numbers import as_dask, divide
from .vector_ops.numbers import broadcast_to as broadcast_words
from .vector_ops.numbers import reshape as reshape_words
from .vector_ops.numbers import to_host as to_host
from .vector_ops.packing import bits_between, check_tail, unpack_bitstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .core.words import Polarity
    from .generators import SNG

__all__ = ["Bitstream", "multiply", "mux", "open_zarr", "to_host", "xnor"]


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
        The generator that `encode` was given: None where it is not known, such as after a gate, or for a selection of
        streams that each have numbers of their own. A gate of streams whose generators correlate warns.

    Raises
    ------
    BitstreamError
        If the words are not uint64, do not fit the length, or have ones in the padding (for Dask words: when they
        are computed).
    """

    words: Any
    length: int
    polarity: Polarity = "unipolar"
    sng: ClassVar[SNG | None] = None  # This is no field: Dask makes a dataclass anew of its fields, in their order.

    def __post_init__(self) -> None:
        check_polarity(self.polarity)
        object.__setattr__(self, "words", check_tail(self.words, self.length))
        object.__setattr__(self, "length", int(self.length))
        if self.length < 1:
            raise BitstreamError(f"a bitstream has at least one bit, not {self.length}")

    def _with(self, words: Any) -> Bitstream:
        return wrap_words(words, self.length, self.polarity, self.sng)

    def _moved(self, words: Any) -> Bitstream:
        """Streams of these, at other places: their generator is known if it does not number streams."""
        return wrap_words(words, self.length, self.polarity, None if self.sng and self.sng.own else self.sng)

    def map_words(self, function: Callable[[Any], Any]) -> Bitstream:
        """The same streams with the words that a function makes of theirs, such as `to_device`."""
        return self._with(function(self.words))

    # As an array of streams

    __array_ufunc__ = None  # NumPy then leaves operators with a Bitstream to us.

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedArrayError("a Bitstream is no array of numbers: take its .words, .unpack() or .decode()")

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
        parts = index if isinstance(index, tuple) else (index,)
        if not any(part is Ellipsis for part in parts):
            parts = (*parts, Ellipsis)
        return self._moved(contract.pick(self.words, (*parts, slice(None))))

    def reshape(self, *shape: Any) -> Bitstream:
        """The same streams in an array of another shape: see `scdask.reshape`."""
        new = _shape(shape[0] if len(shape) == 1 else shape)
        if self.chunks and np.isnan(self.size):
            raise BitstreamError("the number of streams is not known: call words.compute_chunk_sizes() first")
        left = [axis for axis, n in enumerate(new) if n == -1]
        rest = math.prod(n for n in new if n != -1)
        if len(left) == 1 and rest and self.size % rest == 0:
            new = (*new[: left[0]], self.size // rest, *new[left[0] + 1 :])
        if min(new, default=0) < 0 or math.prod(new) != self.size:
            raise BitstreamError(f"{self.size} streams of shape {self.shape} do not fill the shape {new}")
        return self._with(reshape_words(self.words, (*new, self.words.shape[-1])))

    def broadcast_to(self, shape: Any) -> Bitstream:
        """The streams repeated along new axes and those of length 1: see `scdask.broadcast_to`."""
        new = _shape(shape)
        pairs = zip(reversed(self.shape), reversed(new), strict=False)
        if min(new, default=0) < 0 or len(new) < self.ndim or any(n not in (1, m) for n, m in pairs):
            raise BitstreamError(f"streams of shape {self.shape} do not broadcast to {new}")
        return self._moved(broadcast_words(self.words, (*new, self.words.shape[-1])))

    @property
    def bits(self) -> Bits:
        """The bits of all streams in time: `stream.bits[start:stop]` has those from `start` up to `stop`."""
        return Bits(self)

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
            if all(n > 0 for n in self.words.shape):  # This is false for NaN too.
                picture = _html.in_colours_of_page(self.words.to_svg(size=120))
        return _html.facts("Bitstream", facts, picture)

    # Gates

    def __and__(self, other: Any) -> Any:
        """AND: the product of independent unipolar streams."""
        return gate("and", self, other) if isinstance(other, Bitstream) else NotImplemented

    def __or__(self, other: Any) -> Any:
        """OR: the maximum of fully correlated unipolar streams, p + q - p q of independent ones."""
        return gate("or", self, other) if isinstance(other, Bitstream) else NotImplemented

    def __xor__(self, other: Any) -> Any:
        """XOR: the absolute difference of fully correlated unipolar streams, p + q - 2 p q of independent ones."""
        return gate("xor", self, other) if isinstance(other, Bitstream) else NotImplemented

    def __invert__(self) -> Bitstream:
        """NOT: 1 - p of unipolar streams, -v of bipolar ones."""
        words = gate_words("not", self.words, length=self.length)
        return wrap_words(words, self.length, self.polarity)

    # Reading out

    def popcount(self) -> Any:
        """Ones of each stream, int64 of shape `shape`."""
        counts = stream_popcount(self.words)
        return counts if self.shape or self.chunks else counts[()]

    def decode(self, at: Sequence[int] | None = None) -> Any:
        """The numbers that the streams stand for: ones / N, or 2 * ones / N - 1 if bipolar; float64 of `shape`.

        Parameters
        ----------
        at : sequence of int, length n, optional
            Read the numbers after so many bits each, 1 to N, all in one pass: float64 of shape (*shape, n). So they
            approach their value (progressive precision).

        Raises
        ------
        BitstreamError
            If `at` holds anything else.

        Examples
        --------
        >>> from scdask import Sobol, encode
        >>> encode([0.25, 0.7], 256, sng=Sobol(1)).decode(at=[4, 16, 256]).round(3)
        array([[0.25 , 0.25 , 0.25 ],
               [0.75 , 0.75 , 0.699]])
        """
        if at is None:
            return contract.exactly(_decode, self.popcount(), length=self.length, polarity=self.polarity)
        bits = check_prefixes(at, self.length)
        counts = prefix_popcount(self.words, bits)
        return contract.exactly(_decode, counts, np.array(bits), polarity=self.polarity)

    def unpack(self) -> Any:
        """The bits, uint8 of shape (*shape, length)."""
        return unpack_bitstream(self.words, self.length)

    def plot(self, ax: Any = None) -> Any:
        """Draw the bits as a picture, a row a stream, on Matplotlib's axes: see `scdask.plotting.plot_stream`."""
        return plotting.plot_stream(self, ax=ax)

    # As a Dask collection

    def rechunk(self, chunks: Any) -> Bitstream:
        """The same streams, lazy, with other chunks over (*shape, n_words), or over `shape` with the words whole."""
        if isinstance(chunks, tuple) and len(chunks) == self.ndim:
            chunks = (*chunks, -1)
        try:
            return self._with(as_dask(self.words, chunks))
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError) as error:  # what Dask raises
            raise BitstreamError(
                f"words of shape {self.words.shape} cannot have the chunks {chunks!r}: {error}"
            ) from error

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

    # Storage

    def to_zarr(self, store: Any, *, overwrite: bool = False, progress: bool = False) -> None:
        """Write the words to a Zarr array, uncompressed and chunk for chunk, with length and polarity as attributes.

        At a path nothing is there, or what was there before, until all is written: also if the process is killed or
        others write there too, and so that the streams may be read lazily from there. In another store the attributes
        are written last, so that one which was left half-written is not taken for a whole one.

        Parameters
        ----------
        store : path, URL that fsspec knows, or Zarr store
            A leading ~ is the home folder. The workers of a cluster must see it too.
        overwrite : bool
            Replace the Zarr array at a path on this machine.
        progress : bool
            Whether to show how many tasks are done, as `scdask.compute` does. Words in memory are one write.

        Raises
        ------
        BitstreamError
            If something is there and `overwrite` is false, or it is no Zarr array, or `store` is not such a path, or
            the processes that compute the chunks cannot write to it, as to a store in the memory of this one.
        MissingBackendError
            If a URL takes a package that is not installed.
        """
        about = {"length": self.length, "polarity": self.polarity}
        _stores.write_zarr(self.words, store, about, overwrite=overwrite, progress=progress)


@dataclass(frozen=True)
class Bits:
    """The bits of streams in time, of which a slice is a Bitstream.

    >>> import scdask as sc
    >>> stream = sc.encode([0.25, 0.5], 1000)
    >>> stream.bits[:100].length, stream.bits[-90:].shape
    (100, (2,))
    """

    stream: Bitstream

    def __getitem__(self, part: slice) -> Bitstream:
        """The streams of bits `start` to `stop`, with ends as Python's, lazy where the streams are.

        Raises
        ------
        BitstreamError
            If it is no slice, has a step other than 1, or holds no bit.
        """
        length = self.stream.length
        if not isinstance(part, slice):
            raise BitstreamError(f"bits are picked by a slice such as bits[:100], not by {part!r}")
        try:
            start, stop, step = part.indices(length)
        except TypeError as error:
            raise BitstreamError(f"bits are picked by a slice of integers: {error}") from None
        except ValueError:
            step = 0
        if step != 1:
            raise BitstreamError(f"bits are picked one after the other, not in steps of {part.step}")
        if stop <= start:
            raise BitstreamError(f"bits[{part.start}:{part.stop}] of streams of {length} bits holds none")
        return wrap_words(bits_between(self.stream.words, start, stop), stop - start, self.stream.polarity)


def _shape(shape: Any) -> tuple[int, ...]:
    """A shape as NumPy takes it: an integer, or integers."""
    try:
        return tuple(operator.index(n) for n in (shape if hasattr(shape, "__iter__") else [shape]))
    except (TypeError, ValueError):
        raise BitstreamError(f"a shape is an integer or a tuple of integers, not {shape!r}") from None


def _decode(ones: Any, length: int, polarity: Polarity) -> Any:
    share = divide(ones, length)
    return share if polarity == "unipolar" else 2 * share - 1


def open_zarr(store: Any) -> Bitstream:
    """A lazy Bitstream of the words in a Zarr store that `Bitstream.to_zarr` wrote, one Dask chunk a Zarr chunk.

    Parameters
    ----------
    store : path, URL that fsspec knows, or Zarr store

    Returns
    -------
    Bitstream

    Raises
    ------
    BitstreamError
        If there is no Zarr array, or scdask did not write it (to its end), or wrote it in a newer format; when it is
        computed, if a chunk cannot be read or its file is lost (which a store of scdask 0.1.0 cannot tell from zeros).
    MissingBackendError
        If a URL takes a package that is not installed.
    """
    words, about = _stores.open_zarr(store)
    return Bitstream(words, about.get("length", 0), about.get("polarity", ""))


def wrap_words(words: Any, length: int, polarity: Polarity, sng: SNG | None = None) -> Bitstream:
    """A Bitstream of words that come from our own operations, so that their padding is not checked again."""
    stream = object.__new__(Bitstream)
    fields = stream.__dict__
    fields["words"], fields["length"], fields["polarity"], fields["sng"] = words, length, polarity, sng
    return stream


def check_alike(*streams: Bitstream, polarity: bool = True) -> None:
    """Raise unless all streams are Bitstreams of one length, and of one polarity unless that is `False`."""
    first = streams[0]
    for stream in streams:
        if not isinstance(stream, Bitstream):
            raise BitstreamError(f"only Bitstreams combine, not {type(stream).__name__}")
        if stream.length != first.length:
            raise BitstreamError(f"streams of length {first.length} and {stream.length} do not combine")
        if polarity and stream.polarity != first.polarity:
            raise BitstreamError(f"streams of polarity {first.polarity} and {stream.polarity} do not combine")


def gate(kind: str, a: Bitstream, b: Bitstream) -> Bitstream:
    """A gate of two streams of one length and polarity, by its name in `core.gates.GATES`; shapes broadcast."""
    check_alike(a, b)
    length = None if GATES[kind].keeps_padding else a.length
    words = gate_words(kind, a.words, b.words, length=length)
    tell_of_correlation(kind, a.sng, b.sng, a.length, stacklevel=3)
    return wrap_words(words, a.length, a.polarity)


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
    return gate("xnor", a, b)


def multiply(a: Bitstream, b: Bitstream) -> Bitstream:
    """The product of two independent streams: AND of unipolar, XNOR of bipolar ones.

    Parameters
    ----------
    a, b : Bitstream
        Of one length and polarity; shapes broadcast.

    Returns
    -------
    Bitstream

    Warns
    -----
    CorrelationWarning
        If their generators are known to correlate.

    Examples
    --------
    >>> from scdask import Sobol, encode
    >>> a, b = (encode(-0.5, 256, polarity="bipolar", sng=Sobol(d)) for d in (1, 2))
    >>> float(multiply(a, b).decode())
    0.25
    """
    check_alike(a, b)
    return gate("and" if a.polarity == "unipolar" else "xnor", a, b)


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
    check_alike(select, a, b, polarity=False)
    check_alike(a, b)
    words = gate_words("mux", select.words, a.words, b.words)
    for sng in {a.sng, b.sng}:
        tell_of_correlation("mux", select.sng, sng, a.length, stacklevel=2)
    return wrap_words(words, a.length, a.polarity)


def _register_with_jax() -> None:
    """Make a Bitstream a node of JAX's trees, so that `jit` and `vmap` take it."""
    import jax

    to_jax = BACKENDS["jax"].from_numpy
    jax.tree_util.register_pytree_node(
        Bitstream, lambda stream: ((to_jax(stream.words),), (stream.length, stream.polarity)), _unflattened
    )


def _unflattened(kind: tuple[int, Polarity], words: Any) -> Bitstream:
    if getattr(words[0], "dtype", None) == np.uint32:
        raise BitstreamError("packed words are uint64, not uint32: JAX has cut off half of their bits")
    if library_of(words[0]) == BACKENDS["jax"].libraries[0] and hasattr(words[0], "addressable_data"):
        BACKENDS["jax"].load().uncut(words[0])
    return wrap_words(words[0], *kind)


when_loaded("jax", _register_with_jax)

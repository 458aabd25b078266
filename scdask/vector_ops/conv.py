"""Convolutions of images by streams: each pixel is encoded once, and is part of many windows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from ..core import contract
from ..core.dispatch import composed
from ..core.words import Part
from . import products
from .numbers import concatenate, pad

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..core.words import MacGate
    from .products import Streams


@dataclass(frozen=True)
class Window:
    """Where the windows of a convolution or a pooling lie.

    Parameters
    ----------
    kernel : (int, int)
        Rows and columns of a window.
    stride, dilation : (int, int)
        Steps from window to window, and from pixel to pixel in a window.
    padding : (int, int, int, int)
        Pixels that are added at the top, the left, the bottom and the right.
    groups : int
        Groups of channels that are convolved apart.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def reach(self) -> tuple[int, int]:
        """The rows and columns that a window spans."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))  # type: ignore[return-value]

    def padded(self, top: int, left: int, bottom: int, right: int) -> Window:
        """The same windows with other pixels around the images."""
        return replace(self, padding=(top, left, bottom, right))

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """How many windows lie below each other, and side by side, in an image without its padding."""
        top, left, bottom, right = self.padding
        sizes = (height + top + bottom, width + left + right)
        return tuple(
            max(0, (n - span) // step + 1) for n, span, step in zip(sizes, self.reach, self.stride, strict=True)
        )  # type: ignore[return-value]

    def seen(self, rows: range, height: int) -> tuple[range, Window]:
        """The rows of images of a height that some rows of windows see, and the windows with what is around these."""
        top, left, _, right = self.padding
        low = self.stride[0] * rows.start - top
        high = max(low, self.stride[0] * (rows.stop - 1) + self.reach[0] - top)
        above, below = (min(n, high - low) for n in (max(0, -low), max(0, high - height)))
        return range(*(min(max(0, n), height) for n in (low, high))), self.padded(above, left, below, right)

    def bands(self, heights: tuple[int, ...], width: int) -> list[range]:
        """The rows of windows, cut where an image is cut into rows of so many heights: by the centres of windows."""
        rows = self.output_size(sum(heights), width)[0]
        first = self.padding[0] - (self.reach[0] - 1) // 2  # what is above the centre of the first window
        ends = [min(max(0, -(-(end + first) // self.stride[0])), rows) for end in accumulate(heights)]
        ends = [0, *ends[:-1], rows]
        return [range(a, b) for a, b in pairwise(ends) if a < b] or [range(0)]

    def taps(self, images: Any) -> Any:
        """The pixels that each place of a window sees, place by place: of padded images (batch, rows, columns, ...)."""
        rows, columns = self.padded(0, 0, 0, 0).output_size(*images.shape[1:3])
        for i in range(self.kernel[0]):
            for j in range(self.kernel[1]):
                at = [d * k for d, k in zip(self.dilation, (i, j), strict=True)]
                along = [
                    slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(at, self.stride, (rows, columns), strict=True)
                ]
                yield images[:, along[0], along[1]]


@composed
def window_counts(weights: Any, images: Any, gate: MacGate, window: Window) -> Any:
    """The ones of a gate of the streams of windows with those of weights, summed over a window: "xnor" stands for XOR.

    Parameters
    ----------
    weights : array of uint64, shape (n_neurons, rows, columns, channels / groups, n_words)
    images : array of uint64, shape (batch, height, width, channels, n_words)
        With their padding.
    gate : {"and", "xnor"}
    window : Window

    Returns
    -------
    array of int64, shape (batch, rows of windows, columns of windows, n_neurons)
    """
    groups, channels = window.groups, weights.shape[3]
    neurons = weights.shape[0] // groups
    found = []
    for g in range(groups):
        filters = weights[g * neurons : (g + 1) * neurons]
        counts: Any = 0
        for place, pixels in enumerate(window.taps(images[..., g * channels : (g + 1) * channels, :])):
            batch, rows, columns = pixels.shape[:3]
            i, j = divmod(place, window.kernel[1])
            x = pixels.reshape(-1, *pixels.shape[3:])
            counts = counts + contract.gate_counts(filters[:, i, j], x, gate).reshape(batch, rows, columns, neurons)
        found.append(counts)
    return concatenate(*found, axis=-1) if groups > 1 else found[0]


@composed
def windowed_product(weights: Any, images: Any, window: Window, streams: Streams) -> Any:
    """The counts of a convolution, of arrays that are known to fit.

    Parameters
    ----------
    weights : array of float, shape (n_neurons, rows, columns, channels / groups)
        In [-1, 1].
    images : array of float, shape (batch, height, width, channels)
        In the range of `streams`. What is added around them is 0.
    window : Window
    streams : Streams
        Streams are numbered in C order of the images with what is added around them.

    Returns
    -------
    array of int64, shape (batch, rows of windows, columns of windows, n_neurons)
        Summed over a window, as `products.encoded_product` has it.
    """
    weights, images = products.brought_together(weights, images)
    operand = products.split_signs(weights, window.groups) if streams.mode == "split" else weights
    rows = window.output_size(*images.shape[1:3])[0]
    counts: Any = None
    for words in products.word_ranges(operand.shape, streams):
        w = products.encode_weights(operand, streams, words)
        limited = replace(streams, first=words.start, last=words.stop)
        found = band_counts(w, images, window, limited, images.shape[1], range(rows))
        counts = found if counts is None else counts + found
    return counts if streams.mode == "split" else weights[0].size * streams.bits - counts


def band_counts(packed_weights: Any, images: Any, window: Window, streams: Streams, height: int, rows: range) -> Any:
    """The counts of `windowed_product` for some rows of windows, in bipolar mode of XOR instead of XNOR.

    `images` hold the rows that these windows see, of images of `height` rows. A tile of images and of rows at a time is
    encoded, used and dropped; with its counts it takes at most TILE_BYTES, or a row of windows of an image.
    """
    top, left, bottom, right = window.padding
    batch, _, width, channels = images.shape
    wide = left + width + right
    signs = 1 + streams.both_signs
    row_bytes = 8 * wide * channels * len(streams.words) * signs
    counts_bytes = 8 * window.output_size(height, width)[1] * len(packed_weights) * signs
    step, span = window.stride[0], window.reach[0]
    image_bytes = row_bytes * (span - step) + (row_bytes * step + counts_bytes) * len(rows)
    deep = max(1, products.TILE_BYTES // max(1, image_bytes))
    tall = max(1, len(rows))
    if image_bytes > products.TILE_BYTES:
        tall = max(1, (products.TILE_BYTES - row_bytes * (span - step)) // (row_bytes * step + counts_bytes))
    whole = (streams.start + batch, top + height + bottom, wide, channels)
    origin = window.seen(rows, height)[0].start
    bands = []
    for first in range(rows.start, max(rows.stop, rows.start + 1), tall):
        some = range(first, min(first + tall, rows.stop))
        seen, around = window.seen(some, height)
        low = step * first  # of the rows with their padding
        tiles = []
        for image in range(0, max(batch, 1), deep):
            pixels = images[image : image + deep, seen.start - origin : seen.stop - origin]
            pixels = contract.exactly(pad, pixels, widths=((0, 0), around.padding[::2], (left, right), (0, 0)))
            samples = slice(streams.start + image, streams.start + image + len(pixels))
            region = (samples, slice(low, low + pixels.shape[1]), slice(0, wide), slice(0, channels))
            part = Part(region, whole, streams.words.start, streams.words.stop)
            tiles.append(_tile(packed_weights, pixels, window, streams, part))
        bands.append(concatenate(*tiles) if len(tiles) > 1 else tiles[0])
    return concatenate(*bands, axis=1) if len(bands) > 1 else bands[0]


def _tile(packed_weights: Any, pixels: Any, window: Window, streams: Streams, part: Part) -> Any:
    return signed_counts(packed_weights, products.encode_inputs(pixels, streams, part), window, streams)


def signed_counts(packed_weights: Any, images: Any, window: Window, streams: Streams) -> Any:
    """The ones of the products, each with its sign, of the words of weights and of images with their padding."""
    counts = window_counts(packed_weights, images, streams.gate, window)
    return products.signed_sum(counts, streams, window.groups)


@composed
def of_windows(func: Callable[..., Any], images: Any, window: Window) -> Any:
    """func(images, window=window) of images (batch, channels, height, width): what it makes of each window, float64.

    Of Dask arrays, it is called for rows of images of some channels, with what is added around these.
    """
    return contract.exactly(func, images, window=window)

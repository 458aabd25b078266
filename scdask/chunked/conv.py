"""Convolutions and poolings: a task takes rows of images, and what its windows see of those above and below.

Weights are encoded once, images in the task that convolves them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_real
from ..vector_ops import conv, products
from ..vector_ops.numbers import concatenate
from .blocks import (
    as_they_are,
    blockwise,
    check_block,
    compute_once,
    in_chunk,
    is_numpy,
    joined,
    like_blocks,
    sum_blocks,
    without_empty_chunks,
)
from .compat import ArraySliceDep
from .device import as_dask, implements
from .products import encode_weights
from .sizes import check_known

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da

    from ..vector_ops.conv import Window
    from ..vector_ops.products import Streams


@implements(conv.windowed_product)
def windowed_product(weights: Any, images: Any, window: Window, streams: Streams) -> da.Array:
    w, x = as_dask(weights), as_dask(images)
    check_known(x)
    if is_numpy(w._meta) and not is_numpy(x._meta):
        w = like_blocks(w, x)
    w, x = w.rechunk(-1), without_empty_chunks(x).rechunk({2: -1, 3: -1})
    neurons, size = len(w), int(np.prod(w.shape[1:]))
    if streams.mode == "split":
        split = {"n": (2 * neurons,)}
        w = blockwise(
            "sc-split",
            products.split_signs,
            "nijc",
            w,
            "nijc",
            groups=window.groups,
            adjust_chunks=split,
            dtype=w.dtype,
        )
    ranges = list(products.word_ranges(w.shape, streams))
    word_chunks = tuple(map(len, ranges))
    w_words = encode_weights(w, streams, word_chunks)
    if x.numblocks[0] * x.numblocks[1] > 1:
        w_words = compute_once(w_words)
    columns = window.output_size(*x.shape[1:3])[1]
    bands = []
    for rows in window.bands(x.chunks[1], x.shape[2]):
        seen = window.seen(rows, x.shape[1])[0]
        counts = blockwise(
            "sc-conv",
            _block,
            "bhwnk",
            w_words,
            "nijck",
            x[:, seen.start : seen.stop],
            "byxc",
            ArraySliceDep(x.chunks[:1]),
            "b",
            ArraySliceDep((word_chunks,)),
            "k",
            window=window,
            streams=streams,
            shape=x.shape[1:],
            rows=rows,
            new_axes={"h": len(rows), "w": columns},
            adjust_chunks={"n": (neurons,), "k": 1},
            dtype=np.int64,
        )
        total = None if streams.mode == "split" else size * streams.bits
        bands.append(sum_blocks("sc-conv", counts, as_they_are, (4,), total))
    return concatenate(*bands, axis=1) if len(bands) > 1 else bands[0]


def _block(
    w_words: Any,
    x: Any,
    samples: tuple[slice],
    words: tuple[slice],
    window: Window,
    streams: Streams,
    shape: tuple[int, int, int],
    rows: range,
) -> Any:
    height, width, channels = shape
    seen = window.seen(rows, height)[0]
    region = (samples[0], slice(0, channels), slice(seen.start, seen.stop), slice(0, width))
    part = replace(
        streams,
        start=streams.start + samples[0].start,
        first=streams.first + words[0].start,
        last=streams.first + words[0].stop,
    )
    w, images = joined(w_words, 0), joined(x, 1)
    return in_chunk(_counts, region, w, images, window, part, height, rows, region)[..., None]


def _counts(
    w_words: Any, x: Any, window: Window, streams: Streams, height: int, rows: range, region: tuple[slice, ...]
) -> Any:
    images = as_real(x, "inputs")
    check_block(images.transpose(0, 3, 1, 2), region)
    return conv.band_counts(w_words, images, window, streams, height, rows)


@implements(conv.of_windows)
def of_windows(func: Callable[..., Any], images: da.Array, window: Window) -> da.Array:
    check_known(images)
    whole = without_empty_chunks(images).rechunk({3: -1})
    height, width = whole.shape[2:]
    columns = window.output_size(height, width)[1]
    bands = []
    for rows in window.bands(whole.chunks[2], width):
        seen, around = window.seen(rows, height)
        bands.append(
            blockwise(
                "sc-windows",
                _windows_block,
                "bchw",
                func,
                None,
                whole[:, :, seen.start : seen.stop],
                "bcyx",
                window=around,
                new_axes={"h": len(rows), "w": columns},
                dtype=np.float64,
            )
        )
    return concatenate(*bands, axis=2) if len(bands) > 1 else bands[0]


def _windows_block(func: Callable[..., Any], images: Any, window: Window) -> Any:
    return conv.of_windows(func, joined(images, 2), window)

"""Convolutions: weights are encoded once, images in the task that convolves them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_real
from ..vector_ops import conv, products
from .blocks import as_they_are, blockwise, compute_once, in_chunk, is_numpy, like_blocks, sum_blocks
from .compat import ArraySliceDep
from .device import as_dask, implements
from .encoding import encode_part
from .sizes import check_known

if TYPE_CHECKING:
    import dask.array as da

    from ..vector_ops.conv import Window
    from ..vector_ops.products import Streams


@implements(conv.windowed_product)
def windowed_product(weights: Any, images: Any, window: Window, streams: Streams) -> da.Array:
    w, x = as_dask(weights), as_dask(images)
    check_known(x)
    if is_numpy(w._meta) and not is_numpy(x._meta):
        w = like_blocks(w, x)
    w, x = w.rechunk(-1), x.rechunk({1: -1, 2: -1, 3: -1})
    neurons, size = len(w), int(np.prod(w.shape[1:]))
    if streams.mode == "split":
        split = {"n": (2 * neurons,)}
        w = blockwise(
            "sc-split", conv.split_groups, "nijc", w, "nijc", groups=window.groups, adjust_chunks=split, dtype=w.dtype
        )
    ranges = list(products.word_ranges(w.shape, streams))
    word_chunks = tuple(map(len, ranges))
    part = products.weight_part(w.shape, streams.words)
    w_words = encode_part(w, streams.w_sng, streams.length, streams.polarity, part, (*w.chunks, word_chunks))
    if x.numblocks[0] > 1:
        w_words = compute_once(w_words)
    rows, columns = window.output_size(*x.shape[1:3])
    counts = blockwise(
        "sc-conv",
        _block,
        "bhwnk",
        w_words,
        "nijck",
        x,
        "byxc",
        ArraySliceDep(x.chunks[:1]),
        "b",
        ArraySliceDep((word_chunks,)),
        "k",
        window=window,
        streams=streams,
        new_axes={"h": rows, "w": columns},
        adjust_chunks={"n": (neurons,), "k": 1},
        concatenate=True,
        dtype=np.int64,
    )
    total = None if streams.mode == "split" else size * streams.bits
    return sum_blocks("sc-conv", counts, as_they_are, (4,), total)


def _block(w_words: Any, x: Any, samples: tuple[slice], words: tuple[slice], window: Window, streams: Streams) -> Any:
    first = streams.first
    part = replace(
        streams,
        start=streams.start + samples[0].start,
        first=first + words[0].start,
        last=first + words[0].stop,
    )
    return in_chunk(_counts, samples, w_words, x, window, part)[..., None]


def _counts(w_words: Any, x: Any, window: Window, streams: Streams) -> Any:
    images = as_real(x, "inputs")
    height = images.shape[1]
    rows = range(window.output_size(*images.shape[1:3])[0])
    return conv.band_counts(w_words, images, window, streams, height, 0, rows)

"""Convolutions: a MAC whose rows are windows, which are gathered as it copies them to its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import metering
from ..core.dispatch import primitive
from ..core.llvm import readonly
from ..vector_ops import conv
from .device import implements
from .mac import mac

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.llvm import Words
    from ..core.words import MacGate
    from ..vector_ops.conv import Window


@implements(conv.window_counts)
def window_counts(weights: Words, images: Words, gate: MacGate, window: Window) -> NDArray[np.int64]:
    windows = windows_of(readonly(images), window)
    groups = np.split(np.moveaxis(windows, -2, 0), window.groups)
    filters = np.split(readonly(weights), window.groups)
    counts = [group_counts(f, np.moveaxis(x, 0, -2), gate) for f, x in zip(filters, groups, strict=True)]
    return np.concatenate(counts, axis=-1) if len(counts) > 1 else counts[0]


def windows_of(images: Words, window: Window) -> Words:
    """The windows as a view (batch, rows, columns, kernel rows, kernel columns, channels, words)."""
    batch, height, width, *pixel = images.shape
    image, *steps = images.strides[:3]
    rows, columns = window.padded(0, 0, 0, 0).output_size(height, width)
    strides = [step * n for step, n in zip(steps, window.stride, strict=True)]
    taps = [step * n for step, n in zip(steps, window.dilation, strict=True)]
    return np.lib.stride_tricks.as_strided(
        images,
        (batch, rows, columns, *window.kernel, *pixel),
        (image, *strides, *taps, *images.strides[3:]),
        writeable=False,
    )


@primitive(work=metering.convolving)
def group_counts(weights: Words, windows: Words, gate: MacGate) -> Any:
    """The counts (batch, rows, columns, n_neurons) of a group of channels, given its windows."""


@implements(group_counts)
def _group_counts(weights: Words, windows: Words, gate: MacGate) -> NDArray[np.int64]:
    places = windows.shape[:3]
    counts = np.zeros((*places, len(weights)), np.int64)
    if counts.size and weights.size:
        flat = weights.reshape(len(weights), -1, weights.shape[-1])
        mac(windows, flat, gate == "xnor", counts.reshape(-1, len(weights)))
    return counts

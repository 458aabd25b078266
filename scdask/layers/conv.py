"""Convolutions of images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.contract import exactly
from ..errors import BitstreamError
from ..vector_ops.conv import Window, signed_counts, windowed_product
from ..vector_ops.numbers import pad
from ..vector_ops.products import encode_inputs, input_part, split_signs
from .products import ProductLayer
from .windows import images_of, padding_of, pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..vector_ops.products import Streams


@dataclass(frozen=True, eq=False, repr=False)
class SCConv2d(ProductLayer):
    """A two-dimensional convolution of images, as PyTorch and ONNX have it (a cross-correlation).

    Each pixel is encoded once, and its stream is part of all windows that see it; no stream is copied into windows, and
    no product is stored. Pixels that are added around an image are 0.

    Parameters
    ----------
    weights : array_like of float, shape (n_neurons, channels / groups, rows, columns)
        The filters; a neuron is a channel of the output.
    bias : array_like of float, shape (n_neurons,)
    input_scale, mode, x_sng, w_sng, signed
        As those of every layer of products, see `scdask.layers.products.ProductLayer`.
    stride, dilation : int or (int, int)
        Steps from window to window, and from pixel to pixel within a window.
    padding : int, (int, int) or (int, int, int, int)
        Pixels that are added on all sides; above and below, and at the left and the right; or at the top, the left, the
        bottom and the right.
    groups : int
        Groups of channels that are convolved apart.

    Raises
    ------
    BitstreamError
        If the filters are not those of so many groups, or an argument is out of its range; by a call, if the images do
        not have the channels, no window fits in them, or a value is outside its range (for a Dask array: when it is
        computed).

    Notes
    -----
    Each product is that of `SCDense`: both streams of a product must be uncorrelated (SCC 0), and its error falls with
    1/N for Sobol streams, with 1/sqrt(N) for Bernoulli streams. Streams are numbered in C order of (sample, row,
    column, channel) of the images with what is added around them.

    Beyond inputs and outputs, a convolution takes some 32 MiB for a tile of streams and its counts, and at most 64 MiB
    of encoded weights. Images of a Dask array may be cut into samples and rows: a task takes rows, and what its windows
    see of those above and below. Width and channels are made whole. The weights are encoded once.

    Examples
    --------
    >>> import numpy as np
    >>> layer = SCConv2d(np.ones((1, 1, 2, 2)), [0.5])
    >>> layer(np.full((1, 1, 3, 3), 0.25), 256)
    array([[[[1.5, 1.5],
             [1.5, 1.5]]]])
    """

    AXES = "(n_neurons, channels / groups, rows, columns)"

    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "stride", pair("stride", self.stride))
        object.__setattr__(self, "dilation", pair("dilation", self.dilation))
        object.__setattr__(self, "padding", padding_of(self.padding))
        groups = self.groups
        if isinstance(groups, bool) or not isinstance(groups, int | np.integer) or groups < 1:
            raise BitstreamError(f"groups is an integer of at least 1, not {groups!r}")
        if len(self.weights) % groups or not self.weights[:1].size:
            raise BitstreamError(f"filters {self.weights.shape} cannot be those of {groups} groups")

    def __repr__(self) -> str:
        neurons, channels, *kernel = self.weights.shape
        return f"SCConv2d({channels * self.groups} -> {neurons}, {kernel[0]} x {kernel[1]}, {self.how()})"

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        others = {"Stride": self.stride, "Padding": self.padding, "Dilation": self.dilation, "Groups": self.groups}
        usual = {"Stride": (1, 1), "Padding": (0, 0, 0, 0), "Dilation": (1, 1), "Groups": 1}
        return super().facts() | {name: value for name, value in others.items() if value != usual[name]}

    @property
    def window(self) -> Window:
        """Where its windows lie."""
        kernel = self.weights.shape[2:]
        return Window(kernel, self.stride, self.padding, self.dilation, int(self.groups))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out, (n_neurons, rows, columns), for an image (channels, height, width)."""
        channels = self.weights.shape[1] * self.groups
        return (len(self.weights), *images_of(shape, self.window, channels))

    def products(self, shape: tuple[int, ...]) -> int:
        """Products of numbers that an image takes."""
        _, rows, columns = self.output_shape(shape)
        return int(self.weights.size) * rows * columns

    def counts(self, x: Any, streams: Streams) -> Any:
        """The ones of the products, each with its sign, summed: int64 (batch, n_neurons, rows, columns)."""
        counts = windowed_product(self._filters, x.transpose(0, 2, 3, 1), self.window, streams)
        return counts.transpose(0, 3, 1, 2)

    @property
    def _filters(self) -> Any:
        return np.ascontiguousarray(np.moveaxis(self.operand, 1, -1))

    @property
    def encoded_signs(self) -> Any:
        """The weights as they are encoded, (n_neurons, rows, columns, channels / groups)."""
        return split_signs(self._filters, self.groups) if self.mode == "split" else self._filters

    def input_words(self, x: Any, streams: Streams, samples: NDArray[np.uint64]) -> Any:
        """The words of scaled inputs, (batch, rows, columns, channels, n_words), with what is added around them."""
        top, left, bottom, right = self.padding
        images = exactly(pad, x.transpose(0, 2, 3, 1), widths=((0, 0), (top, bottom), (left, right), (0, 0)))
        part = input_part(images.shape, streams)
        return encode_inputs(images, streams, replace(part, region=(samples, *part.region[1:])))

    def word_counts(self, weights: Any, inputs: Any, streams: Streams) -> Any:
        """The counts of words of both, (batch, n_neurons, rows, columns)."""
        return signed_counts(weights, inputs, self.window, streams).transpose(0, 3, 1, 2)

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point."""
        top, left, bottom, right = self.padding
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        window, channels = self.window, self.weights.shape[1]
        taps = np.stack(list(Window.taps(window, np.moveaxis(padded, 1, -1))), axis=3)  # (batch, h, w, taps, channels)
        filters = self.weights.reshape(len(self.weights), channels, -1)
        size = len(filters) // self.groups
        found = [
            np.einsum(
                "bhwtc,nct->bnhw",
                taps[..., g * channels : (g + 1) * channels],
                filters[g * size : (g + 1) * size],
                optimize=True,
            )
            for g in range(self.groups)
        ]
        outputs: NDArray[np.float64] = np.concatenate(found, axis=1) + self.bias[:, None, None]
        return outputs

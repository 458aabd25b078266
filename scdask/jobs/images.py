"""Circuits on images: edges, gamma correction and a median, as Dask graphs over blocks of streams, a stream a pixel."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from functools import partial
from itertools import cycle, product
from math import log10, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import dask.array as da
import numpy as np

from .._extras import require
from .._files import refused_as, seekable
from ..arithmetic import bernstein, median, polynomial, subtract
from ..bitstream import mux, wrap_words
from ..chunked.sizes import ENCODE_RATE, task_bits
from ..core.checks import check_encoding
from ..core.contract import on_host
from ..core.dispatch import BACKENDS
from ..core.words import WORD
from ..encoding import encode
from ..errors import BitstreamError
from ..faults import flip
from ..generators import LFSR, SNG, Bernoulli, Sobol, Thermometer, independent
from ..manipulation import stack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..bitstream import Bitstream
    from ..computing import Place

    Window = Callable[[int, int], Bitstream]  # pixel (i, j) of each 3 x 3 pixels

GAMMA, DEGREE = 0.45, 6
GENERATORS = {"edges": 2, "gamma": DEGREE + 1, "median": 1}  # how many independent ones each circuit takes
SEEDS = 8  # from the seeds of one run to those of the next: more than DEGREE
COPIES = 16  # streams that the circuits hold of each pixel, about
SMALLEST = 16  # pixels: in smaller blocks there is more halo than image.


class Picture(NamedTuple):
    """An image: its pixels in [0, 1], (rows, columns) or (rows, columns, 3), and its alpha of the same kind, if any."""

    pixels: NDArray[np.float64]
    alpha: NDArray[np.float64] | None


@dataclass(frozen=True)
class Setting:
    """One run of a circuit: the generators by name, the length of the streams, the seed, and the rate of bit flips."""

    circuit: str
    sng: str
    length: int
    seed: int
    flip: float


@dataclass(frozen=True)
class Result(Setting):
    """What one run gave, beside the exact result.

    The root mean square error (RMSE) is that of the numbers in [0, 1]. The values that are off are those of the images
    of 8 bits that are not the same.
    """

    rmse: float
    values_off: int
    seconds: float

    @property
    def psnr(self) -> float | None:
        """The peak signal-to-noise ratio in dB, None if there is no error."""
        return -20 * log10(self.rmse) if self.rmse else None


# Circuits


def edges(pixels: Bitstream, select: Bitstream) -> Bitstream:
    """The edges of an image by the Roberts cross: half of |a - d| + |b - c|, for each 2 x 2 pixels a b, c d.

    XOR is the absolute difference of streams at SCC = +1, as those of one generator, and MUX the mean of both.

    Parameters
    ----------
    pixels : Bitstream of shape (rows, columns, ...)
        Lazy, unipolar, at SCC = +1 with each other.
    select : Bitstream
        Of as many ones as zeros, and independent of the pixels.

    Returns
    -------
    Bitstream
        Of the same shape; outside the image are the pixels of its border.
    """
    return mux(select, _of_windows(_falling, pixels), _of_windows(_rising, pixels))


def median_3x3(pixels: Bitstream) -> Bitstream:
    """The median of each pixel and its eight neighbours, by a network of AND and OR, at SCC = +1; as `edges`."""
    return _of_windows(_middle, pixels)


def _falling(window: Window) -> Bitstream:
    return subtract(window(1, 1), window(2, 2))


def _rising(window: Window) -> Bitstream:
    return subtract(window(1, 2), window(2, 1))


def _middle(window: Window) -> Bitstream:
    return median(stack([window(i, j) for i in range(3) for j in range(3)]), axis=0)


def _of_windows(circuit: Callable[[Window], Bitstream], pixels: Bitstream) -> Bitstream:
    """Apply a circuit of one bit to the 3 x 3 pixels around each pixel, in blocks that share a border of one pixel."""
    words = pixels.words
    found = da.map_overlap(
        partial(_of_block, circuit),
        words,
        depth={0: 1, 1: 1},
        boundary="nearest",
        trim=False,
        chunks=words.chunks,
        meta=words._meta,
    )
    return wrap_words(found, pixels.length, pixels.polarity)


def _of_block(circuit: Callable[[Window], Bitstream], words: Any) -> Any:
    block = wrap_words(words, WORD * words.shape[-1], "unipolar")
    rows, columns = (n - 2 for n in block.shape[:2])
    return circuit(lambda i, j: block[i : i + rows, j : j + columns]).words


# Runs


def generators(circuit: str, name: str, seed: int) -> Sequence[SNG]:
    """The generators of a circuit by the name of their kind: those of the pixels, then that of what is chosen by.

    The edges take one for all pixels, at SCC = +1, and one for the select; the median takes one; gamma correction takes
    six for each pixel, which are independent, and one for the coefficients. "mistake" is random bits, of which each
    pixel has its own for edges and median, and one sequence for all six of gamma: the correlation is the wrong one.
    """
    n, first = GENERATORS[circuit], SEEDS * seed
    if name == "sobol":
        return independent(n, seed=seed or None)
    if name == "lfsr":
        return [LFSR(16, taps, seed=1 + (0xACE0 + 9362 * k + 77 * seed) % 65535) for k, taps in _registers(n)]
    if name == "thermometer":
        if circuit == "gamma":
            raise BitstreamError(f"gamma takes {n} generators that are independent, and of thermometers there is one")
        return [Thermometer(), Sobol(1)][:n]
    if circuit == "gamma":
        return [Bernoulli(first + (0 if name == "mistake" and k < DEGREE else k), shared=True) for k in range(n)]
    return [Bernoulli(first + k, shared=name != "mistake") for k in range(n)]


def _registers(n: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    return zip(range(n), cycle([(16, 14, 13, 11), (16, 5, 3, 2)]), strict=False)


def settings(
    circuit: str, sngs: Sequence[str], lengths: Sequence[int], seed: int = 0, flip: float = 0
) -> list[Setting]:
    """All combinations as settings, once every generator is known to make streams of every length."""
    for sng, length in product(sngs, lengths):
        check_encoding(length, *generators(circuit, sng, seed))
    return [Setting(circuit, sng, length, seed, flip) for sng, length in product(sngs, lengths)]


def circuit(pixels: da.Array, setting: Setting) -> Bitstream:
    """The lazy streams of a result.

    Parameters
    ----------
    pixels : dask Array, shape (rows, columns, ...)
        In [0, 1]. The streams are the same in any chunks.
    setting : Setting

    Returns
    -------
    Bitstream of the same shape
    """
    *first, last = generators(setting.circuit, setting.sng, setting.seed)
    if setting.circuit == "median":
        return median_3x3(_encoded(pixels, last, setting))
    if setting.circuit == "edges":
        return edges(_encoded(pixels, first[0], setting), encode(0.5, setting.length, sng=last))
    coefficients = encode(bernstein(lambda x: x**GAMMA, DEGREE), setting.length, sng=last)
    streams = [_encoded(pixels, sng, setting, copy) for copy, sng in enumerate(first)]
    return polynomial(streams, coefficients)


def _encoded(pixels: da.Array, sng: SNG, setting: Setting, copy: int = 0) -> Bitstream:
    """The streams of pixels, with bits flipped at the rate of the setting."""
    stream = encode(pixels, setting.length, sng=sng)
    return flip(stream, setting.flip, SEEDS * setting.seed + copy) if setting.flip else stream


def run(
    pixels: NDArray[np.float64], settings: Iterable[Setting], place: Place
) -> Iterator[tuple[Result, NDArray[np.float64]]]:
    """Run one setting after the other, and yield each result, and its image of numbers in [0, 1], when it is there.

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns) or (rows, columns, channels)
        In [0, 1].
    settings : iterable of Setting
    place : Place
        The scheduler that computes.
    """
    right: dict[str, NDArray[np.float64]] = {}
    for setting in settings:
        if setting.circuit not in right:
            right[setting.circuit] = exact(setting.circuit, pixels)
        image = blocks(pixels, setting.length)
        if place.gpu:
            image = BACKENDS["cupy"].from_numpy(image)
        lazy = on_host(circuit(image, setting).decode())
        start = time.perf_counter()
        with warnings.catch_warnings():  # The image goes to the workers with the graph.
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            found = place.compute(lazy)
        seconds = time.perf_counter() - start
        off = int((in_8_bits(found) != in_8_bits(right[setting.circuit])).sum())
        rmse = float(np.sqrt(np.mean((found - right[setting.circuit]) ** 2)))
        yield Result(**vars(setting), rmse=rmse, values_off=off, seconds=seconds), found


def blocks(pixels: NDArray[np.float64], length: int) -> da.Array:
    """The pixels in blocks whose streams are work for a task."""
    side = int((task_bits(ENCODE_RATE) / (COPIES * length * prod(pixels.shape[2:]))) ** 0.5)
    return da.from_array(pixels, chunks=(max(side, SMALLEST),) * 2 + (-1,) * (pixels.ndim - 2))


def exact(circuit: str, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """The result of a circuit in floating point."""
    if circuit == "gamma":
        return pixels**GAMMA
    if circuit == "edges":
        a = np.pad(pixels, [(0, 1), (0, 1)] + [(0, 0)] * (pixels.ndim - 2), mode="edge")
        b, c, d = a[:-1, 1:], a[1:, :-1], a[1:, 1:]
        return (abs(pixels - d) + abs(b - c)) / 2
    from scipy.ndimage import median_filter

    return median_filter(pixels, (3, 3, 1)[: pixels.ndim], mode="nearest")  # type: ignore[no-any-return]


# Files


def read_image(path: str) -> Picture:
    """An image file, as far as scikit-image can read it.

    Numbers of any kind are brought to [0, 1] by the range of their type. Raises a BitstreamError unless it is one grey
    or colour image, with alpha or without.
    """
    imread, as_float = require("skimage.io", "images").imread, require("skimage.util", "images").img_as_float64
    apart, suffix = (FileNotFoundError, PermissionError), Path(path).suffix.lower()
    with warnings.catch_warnings(), refused_as(f"{path} is no image that can be read", apart):
        warnings.simplefilter("ignore")  # Libraries that try a file warn of what they find.
        if suffix in (".tif", ".tiff"):
            image = np.asarray(imread(path))
        else:  # What imageio opens itself it leaves open if it is no image.
            with seekable(path) as file:
                try:
                    image = np.asarray(imread(file))
                except OSError as error:
                    if "find a backend" in str(error):  # The rest of it is for who wrote imageio.
                        raise BitstreamError(f"{path} is no image that scikit-image can read") from error
                    raise
        if image.ndim == 4 and len(image) == 1:  # a GIF
            image = image[0]
        if not image.size or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[-1] not in (2, 3, 4)):
            raise BitstreamError(
                f"an image is (rows, columns), or has 2 to 4 channels beside, of at least one pixel each; {path} is "
                f"{image.shape}"
            )
        if image.shape[2:] == (4,) and suffix in (".jpg", ".jpeg"):
            raise BitstreamError(f"{path} has the four colours of print (CMYK): save it in RGB")
        values = as_float(image)
    if not (values.min() >= 0 and values.max() <= 1):
        raise BitstreamError(
            f"pixels are from 0 to 1, but those of {path} are from {values.min():g} to {values.max():g}"
        )
    if values.shape[2:] not in ((2,), (4,)):
        return Picture(values, None)
    return Picture(values[..., 0] if values.shape[-1] == 2 else values[..., :3], values[..., -1])


def write_image(file: Any, suffix: str, values: NDArray[np.float64], alpha: NDArray[np.float64] | None) -> None:
    """Write numbers in [0, 1], with the alpha that the image had, as an image of 8 bits to a binary file."""
    image = in_8_bits(values if alpha is None else np.dstack([values, alpha]))
    file.write(require("imageio.v3", "images").imwrite("<bytes>", image, extension=suffix))


def in_8_bits(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The nearest numbers of 8 bits."""
    return np.rint(values * 255).astype(np.uint8)

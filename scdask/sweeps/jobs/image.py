"""The error of circuits on images: edges, gamma correction and a median."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..._extras import require
from ...generators.independence import correlation_meant
from ...jobs import images
from ...jobs.names import CIRCUITS, IMAGE_SNGS
from .base import RATE, SEED, TEXT, Job, Known, asked, check_lengths, choice, digest, whole

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

OPTIONS = {"image": Known(TEXT, None)}
AXES = {
    "circuit": Known(choice(CIRCUITS), ["edges"]),
    "sng": Known(choice(IMAGE_SNGS), ["sobol", "lfsr", "bernoulli"]),
    "length": Known(whole(1), [16, 64, 256]),
    "seed": SEED,
    "flip": Known(RATE, [0.0]),
}


class Pictures(NamedTuple):
    """An image, and what each circuit makes of it in floating point."""

    pixels: NDArray[np.float64]
    exact: dict[str, NDArray[np.float64]]


def make(options: Mapping[str, Any], over: Mapping[str, Sequence[Any]], folder: Path) -> Job:
    """The job of images: option image, a file; axes circuit, sng, length, seed and flip."""
    chosen, filled = asked("image", options, over, OPTIONS, AXES)
    check_lengths(filled, lambda sng: images.generators("edges", sng, 0))
    if chosen["image"]:
        pixels = images.read_image(str(folder / chosen["image"])).pixels
    else:
        pixels = require("skimage.util", "images").img_as_float64(require("skimage.data", "images").camera())
    data = Pictures(pixels, {circuit: images.exact(circuit, pixels) for circuit in filled["circuit"]})
    about = {"job": "image", "shape": list(pixels.shape), "digest": digest(pixels)}
    first = filled["seed"][0]

    def where(setting: Mapping[str, Any]) -> bool:
        """Of a thermometer there is one, and it has no seed."""
        if setting["sng"] != "thermometer":
            return True
        return bool(setting["circuit"] != "gamma" and (setting["seed"] == first or setting["flip"] > 0))

    units = {"length": "bits", "flip": "flips a bit", "psnr": "dB"}
    return Job(errors_of_image, data, filled, about, "psnr", where, cost, units)


def cost(setting: Mapping[str, Any]) -> float:
    """The time of a cell, about: gamma correction encodes each pixel six times."""
    return float(setting["length"] * images.GENERATORS[setting["circuit"]])


def errors_of_image(data: Pictures, *, circuit: str, sng: str, length: int, seed: int, flip: float) -> dict[str, float]:
    """The errors of a circuit on an image.

    Parameters
    ----------
    data : Pictures
    circuit : {"edges", "gamma", "median"}
    sng : str
        The generators, as `scdask.jobs.images.generators` has them.
    length : int
        Bits of a stream.
    seed : int
        Of the generators and the faults.
    flip : float
        The rate at which bits of the streams of pixels flip.

    Returns
    -------
    dict of float
        rmse, the root mean square error of numbers in [0, 1]; and psnr, the peak signal-to-noise ratio -20 log10(rmse),
        in dB, which is infinite where there is no error.
    """
    setting = images.Setting(circuit, sng, length, seed, flip)
    with correlation_meant():
        lazy = images.circuit(images.blocks(data.pixels, length), setting).decode()
        found = lazy.compute(scheduler="synchronous")
    rmse = float(np.sqrt(np.mean((found - data.exact[circuit]) ** 2)))
    return {"psnr": -20 * float(np.log10(rmse)) if rmse else np.inf, "rmse": rmse}

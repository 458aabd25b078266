"""What an inference is asked for: a data set, or a model and data of one's own, and how they are found."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import read_npz, some
from ..errors import BitstreamError
from ..layers import load_model
from .digits import load_digits, train_perceptron
from .infer import check_data

if TYPE_CHECKING:
    from ..layers import SCSequential
    from .digits import Digits


@dataclass(frozen=True)
class Wanted:
    """What is to be classified, and by which network."""

    dataset: str | None
    network: Any
    model: str | None
    data: str | None
    percentile: float | None

    @property
    def name(self) -> str:
        """What results are named after."""
        network = self.network if self.dataset == "mnist" and not self.model else ""
        return " ".join(Path(given).name for given in (self.dataset, network, self.model) if given)

    def training(self) -> str:
        """What to say meanwhile."""
        if self.dataset == "mnist":
            return f"training the float {self.network} on 4,000 images, about a minute"
        return "training the float perceptron"

    def get(self) -> tuple[SCSequential, Any, Any]:
        """The network, which is trained without a model, the samples, and what is right."""
        if self.data and self.model:
            x, y = _data_of(self.data)
            network, calibration = load_model(self.model, x), x
        else:
            images = self._images()
            network = self._of_images(images)
            x, calibration = (part.reshape(-1, *network.input_shape) for part in (images.x_test, images.x_train))
            y = images.y_test
        if self.percentile:
            network = network.calibrated(calibration, self.percentile)
        check_data(network, x, y)
        return network, x, y

    def _images(self) -> Digits:
        if self.dataset == "digits":
            return load_digits()
        from .mnist import load_mnist  # It needs JAX.

        return load_mnist()

    def _of_images(self, images: Digits) -> SCSequential:
        """The network of a data set, trained if no model is given."""
        if self.model:
            return _loaded(self.model, images.x_train)
        if self.dataset == "digits":
            return train_perceptron(images)
        from .mnist import train_network

        return train_network(self.network, images)


def _loaded(model: str, images: Any) -> SCSequential:
    """The network of a file, which takes images as they are, as vectors, or of one channel."""
    pixels = images[0].size
    width = isqrt(pixels)
    refused = []
    for shape in dict.fromkeys((images.shape[1:], (pixels,), (1, width, width), (width, width))):
        try:
            return load_model(model, images.reshape(-1, *shape))
        except BitstreamError as error:
            refused.append(error)
    raise refused[0]


def _data_of(file: str) -> tuple[Any, Any]:
    arrays = read_npz(file)
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise BitstreamError(f"the data {file} have no array {missing[0]}, only {some(arrays)}")
    return arrays["x"], arrays["y"]

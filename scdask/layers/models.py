"""Files of models: whatever kind they are of."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import refused_as, seekable
from ..errors import BitstreamError
from .network import SCSequential
from .perceptron import SCMLP

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class _Contents(io.BytesIO):
    """What a pipe held, under its name."""

    name = ""

    def __str__(self) -> str:
        return self.name


def load_model(file: Any, calibration: ArrayLike | None = None, percentile: float = 100) -> SCSequential:
    """Read a network from an npz file of a perceptron, or from an ONNX file.

    Which of them it is, its first bytes tell.

    Parameters
    ----------
    file : path, file object or bytes
    calibration : array_like, shape (samples, *input_shape), optional
        Inputs like those to come; needed if the file has no scales. Scales that it has stay.
    percentile : float
        Of the sizes of the activations that the calibration inputs cause, this percentile becomes the scale of each
        hidden layer, see `SCSequential.calibrated`.

    Returns
    -------
    SCSequential
        A perceptron is an SCMLP.

    Raises
    ------
    BitstreamError
        If the file is none of these, is damaged, has no scales and none can be calibrated, or no layers do what it
        says. A message about a node of ONNX names the node.
    FileNotFoundError, PermissionError

    See Also
    --------
    SCMLP.load, SCSequential.from_onnx : They say what is in such files.
    """
    if isinstance(file, bytes):
        file = io.BytesIO(file)
    if isinstance(file, str | os.PathLike) and Path(file).expanduser().is_file():
        with Path(file).expanduser().open("rb") as opened:
            first = opened.read(2)
        source: Any = file
    else:
        apart = (FileNotFoundError, PermissionError)
        with refused_as(f"the model {file} cannot be read", apart), seekable(file) as opened:
            source = _Contents(opened.read())
        source.name, first = str(file), source.getvalue()[:2]
    if first == b"PK" or Path(str(file)).suffix == ".npz":
        return SCMLP.load(source, calibration, percentile)
    try:
        return SCSequential.from_onnx(source, calibration, percentile=percentile)
    except BitstreamError as error:
        if Path(str(file)).suffix == ".onnx" or "cannot be read" not in str(error):
            raise
        raise BitstreamError(f"{error}; nor is it an npz file") from None

"""What the table of backends asks of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..core.dispatch import implementing

implements = implementing("numpy")
ARRAYS = (np.ndarray, np.generic)


def from_numpy(array: Any) -> Any:
    """The array itself."""
    return array if hasattr(array, "dtype") else np.asarray(array)


def wait(result: Any) -> None:
    """Do nothing, because nothing is computed beside Python."""


def works() -> str:
    """Say that it works: Numba compiles for the processor at hand."""
    return "works"

"""Arguments that convolutions and poolings share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BitstreamError

if TYPE_CHECKING:
    from ..vector_ops.conv import Window


def pair(name: str, value: Any) -> tuple[int, int]:
    """One integer for both directions, or one each, as two of at least 1."""
    return _integers(name, value, 1, {1: (0, 0), 2: (0, 1)})  # type: ignore[return-value]


def padding_of(value: Any) -> tuple[int, int, int, int]:
    """The pixels at the top, the left, the bottom and the right: of one number, of two, or of all four."""
    return _integers("padding", value, 0, {1: (0, 0, 0, 0), 2: (0, 1, 0, 1), 4: (0, 1, 2, 3)})  # type: ignore[return-value]


def _integers(name: str, value: Any, least: int, places: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    given = tuple(value) if isinstance(value, tuple | list | np.ndarray) else (value,)
    if len(given) not in places or not all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= least for n in given
    ):
        raise BitstreamError(f"{name} is {' or '.join(map(str, places))} integers of at least {least}, not {value!r}")
    return tuple(int(given[i]) for i in places[len(given)])


def images_of(shape: tuple[int, ...], window: Window, channels: int | None = None) -> tuple[int, int]:
    """The rows and columns of windows in an image (channels, height, width), which must hold one at least."""
    if len(shape) != 3 or (channels is not None and shape[0] != channels):
        wanted = "channels" if channels is None else channels
        raise BitstreamError(f"a layer takes images ({wanted}, height, width), not samples of shape {shape}")
    rows, columns = window.output_size(*shape[1:])
    if not rows or not columns:
        raise BitstreamError(
            f"windows that span {window.reach} pixels do not fit in images of {shape[1:]} with {window.padding} around"
        )
    return rows, columns

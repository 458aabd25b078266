"""Checkpoints: npz files of a training, to go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..training.checkpoints import read_checkpoint, save_checkpoint
from .network import State, refuse_other_layers

if TYPE_CHECKING:
    from pathlib import Path

    from ..training.states import Weights
    from .network import Settings

__all__ = ["load_checkpoint", "save_checkpoint"]


def load_checkpoint(path: Path, settings: Settings) -> State:
    """Read a state to go on from; `train` checks that the data are the same.

    Parameters
    ----------
    path : Path
    settings : Settings
        Those of the checkpoint; there may be more epochs.

    Raises
    ------
    BitstreamError
        If there is no such file, it is no checkpoint, was made with other settings, or has more epochs already.
    """
    state: State = read_checkpoint(path, settings, State, _shapes)
    refuse_other_layers(state, settings)
    return state


def _shapes(weights: Weights, data: dict[str, Any]) -> list[tuple[int, int]]:
    sizes = (data["inputs"], *map(len, weights[:-1]), data["classes"])
    return list(zip(sizes[1:], sizes, strict=False))

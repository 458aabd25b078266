"""Checkpoints: npz files of a training, to go on from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import read_npz, some, write_npz
from ..errors import BitstreamError
from ..jax_backend.device import jax, needing_jax
from .network import State, refuse_other_layers
from .training import adam, refuse_changes

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from .network import Settings

HISTORY = ("losses", "train_accuracies", "test_accuracies")


@needing_jax
def save_checkpoint(path: Path, state: State, settings: Settings) -> None:
    """Write a state to an npz file that `load_checkpoint` reads, whole or not at all."""
    arrays = {"classes": state.classes} | {name: np.array(getattr(state, name)) for name in HISTORY}
    arrays |= {f"weights_{i}": w for i, w in enumerate(state.weights)}
    arrays |= {f"optimiser_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.optimiser))}
    arrays["made_with"] = np.array(json.dumps({"settings": asdict(settings), "data": state.data}))
    write_npz(path, arrays)


@needing_jax
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
    try:
        arrays = read_npz(path)
    except FileNotFoundError:
        raise BitstreamError(f"there is no checkpoint {path} to resume from") from None
    if "made_with" not in arrays:
        raise BitstreamError(f"{path} is no checkpoint, but has the arrays {some(arrays)}")
    try:
        made_with = json.loads(str(arrays["made_with"]))
        before = made_with["settings"] | {"hidden": tuple(made_with["settings"]["hidden"]), "epochs": settings.epochs}
        state = _state_of(arrays, made_with["data"], settings.learning_rate)
    except Exception as error:  # What is in the file may be anything.
        raise BitstreamError(f"{path} is no whole checkpoint: {error}") from error
    refuse_changes(f"the checkpoint {path} was made with", before, asdict(settings))
    refuse_other_layers(state, settings)
    if state.epoch > settings.epochs:
        raise BitstreamError(f"the checkpoint {path} has {state.epoch} epochs already, not {settings.epochs}")
    return state


def _state_of(arrays: dict[str, NDArray[Any]], data: dict[str, Any], learning_rate: float) -> State:
    """The state in the arrays of a checkpoint; a ValueError or KeyError says what does not fit."""
    count = sum(name.startswith("weights_") for name in arrays)
    weights = tuple(arrays[f"weights_{i}"] for i in range(count))
    sizes = (data["inputs"], *map(len, weights[:-1]), data["classes"])
    template = tuple(jax.ShapeDtypeStruct(shape, np.float32) for shape in zip(sizes[1:], sizes, strict=False))
    leaves, structure = jax.tree.flatten(jax.eval_shape(adam(learning_rate).init, template))
    found = [arrays[f"optimiser_{i}"] for i in range(len(leaves))]
    losses, train_accuracies, test_accuracies = (arrays[name] for name in HISTORY)
    epochs = losses.shape
    for array, kind, shapes in [
        *((w, np.float32, [t.shape]) for w, t in zip(weights, template, strict=True)),
        *((leaf, t.dtype, [t.shape]) for leaf, t in zip(found, leaves, strict=True)),
        *((history, np.float64, [(losses.size,)]) for history in (losses, train_accuracies)),
        (test_accuracies, np.float64, [epochs, (0,)]),
        (arrays["classes"], arrays["classes"].dtype, [(data["classes"],)]),
    ]:
        if (
            array.dtype != kind
            or array.shape not in shapes
            or (array.dtype.kind == "f" and not np.isfinite(array).all())
        ):
            raise ValueError(f"an array is {array.dtype} {array.shape}, or not finite")
    optimiser = jax.tree.unflatten(structure, found)
    history = (tuple(array.tolist()) for array in (losses, train_accuracies, test_accuracies))
    return State(weights, arrays["classes"], optimiser, data, *history)

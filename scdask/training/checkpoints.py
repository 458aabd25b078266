"""Checkpoints: npz files of a training, to go on from."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import read_npz, some, write_npz
from ..errors import BitstreamError
from ..jax_backend.device import jax, needing_jax
from .engine import adam, refuse_changes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from .states import State

HISTORY = ("losses", "train_accuracies", "test_accuracies")


@needing_jax
def save_checkpoint(path: Path, state: State, settings: Any) -> None:
    """Write a state to an npz file that `load_checkpoint` reads, whole or not at all."""
    arrays = {"classes": state.classes} | {name: np.array(getattr(state, name)) for name in HISTORY}
    arrays |= {f"weights_{i}": w for i, w in enumerate(state.weights)}
    arrays |= {f"optimiser_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(state.optimiser))}
    arrays["made_with"] = np.array(json.dumps({"settings": asdict(settings), "data": state.data}))
    write_npz(path, arrays)


@needing_jax
def read_checkpoint(
    path: Path,
    settings: Any,
    kind: Callable[..., State],
    shapes_of: Callable[[list[NDArray[Any]], dict[str, Any]], Sequence[tuple[int, ...]]],
) -> Any:
    """The state in a file.

    Parameters
    ----------
    path : Path
    settings : dataclass
        Those of the checkpoint; there may be more epochs.
    kind : callable
        Makes the state.
    shapes_of : callable
        Gives the shapes of the weights that go with the weights found and the data of the state.

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
        before = {name: tuple(v) if isinstance(v, list) else v for name, v in made_with["settings"].items()}
        state = _state_of(arrays, made_with["data"], kind, shapes_of)
    except Exception as error:  # What is in the file may be anything.
        raise BitstreamError(f"{path} is no whole checkpoint: {error}") from error
    given = asdict(settings)
    refuse_changes(f"the checkpoint {path} was made with", before | {"epochs": settings.epochs}, given)
    if state.epoch > settings.epochs:
        raise BitstreamError(f"the checkpoint {path} has {state.epoch} epochs already, not {settings.epochs}")
    return state


def _state_of(
    arrays: dict[str, NDArray[Any]],
    data: dict[str, Any],
    kind: Callable[..., State],
    shapes_of: Callable[[list[NDArray[Any]], dict[str, Any]], Sequence[tuple[int, ...]]],
) -> Any:
    """The state in the arrays of a checkpoint; a ValueError or KeyError says what does not fit."""
    count = sum(name.startswith("weights_") for name in arrays)
    weights = tuple(arrays[f"weights_{i}"] for i in range(count))
    template = tuple(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes_of(list(weights), data))
    leaves, structure = jax.tree.flatten(jax.eval_shape(adam(0.0).init, template))
    found = [arrays[f"optimiser_{i}"] for i in range(len(leaves))]
    losses, train_accuracies, test_accuracies = (arrays[name] for name in HISTORY)
    epochs = losses.shape
    for array, dtype, shapes in [
        *((w, np.float32, [t.shape]) for w, t in zip(weights, template, strict=True)),
        *((leaf, t.dtype, [t.shape]) for leaf, t in zip(found, leaves, strict=True)),
        *((history, np.float64, [(losses.size,)]) for history in (losses, train_accuracies)),
        (test_accuracies, np.float64, [epochs, (0,)]),
        (arrays["classes"], arrays["classes"].dtype, [(data["classes"],)]),
    ]:
        if (
            array.dtype != dtype
            or array.shape not in shapes
            or (array.dtype.kind == "f" and not np.isfinite(array).all())
        ):
            raise ValueError(f"an array is {array.dtype} {array.shape}, or not finite")
    optimiser = jax.tree.unflatten(structure, found)
    history = (tuple(array.tolist()) for array in (losses, train_accuracies, test_accuracies))
    return kind(weights, arrays["classes"], optimiser, data, *history)

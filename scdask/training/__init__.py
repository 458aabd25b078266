"""Training of networks of streams, in floating point and with streams in the loop, over any Dask scheduler."""

from .checkpoints import save_checkpoint
from .fitting import Settings, clipped, load_checkpoint, train, trained
from .states import State

__all__ = ["Settings", "State", "clipped", "load_checkpoint", "save_checkpoint", "train", "trained"]

"""Training of networks of streams, in floating point and with streams in the loop, over any Dask scheduler."""

from .checkpoints import save_checkpoint
from .fitting import Settings, clipped, train, trained
from .states import State

__all__ = ["Settings", "State", "clipped", "save_checkpoint", "train", "trained"]

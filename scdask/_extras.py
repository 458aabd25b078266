"""Packages that only some features need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .errors import MissingBackendError


def require(module: str, extra: str) -> Any:
    """Import a module of an optional package, or say which extra of scdask brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        package = module.partition(".")[0]
        raise MissingBackendError(f"{package} is not installed; pip install 'scdask[{extra}]' brings it") from None

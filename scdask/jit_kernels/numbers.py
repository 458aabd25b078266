"""Arithmetic and indexing, which are NumPy's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core import contract
from ..vector_ops.numbers import plain_index
from .device import implements

if TYPE_CHECKING:
    from collections.abc import Callable


@implements(contract.exactly)
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    return func(*arrays, **options)


@implements(contract.pick)
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    return words[plain_index(index)]


@implements(contract.on_host)
def on_host(array: Any) -> Any:
    return array

"""Arithmetic and indexing, by NumPy's rules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..vector_ops import numbers
from .device import beside, implements, jax, jitted, jnp, uncut

if TYPE_CHECKING:
    from collections.abc import Callable


FAR = 2**31 - 1  # past the end of every axis that JAX indexes


@implements(contract.exactly)
def exactly(func: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """Compute with NumPy, except for traced arrays, as XLA takes subnormals for 0 and multiplies by reciprocals."""
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        return func(*arrays, **options)
    on_host = (np.asarray(uncut(array)) if isinstance(array, jax.Array) else array for array in arrays)
    return beside(func(*on_host, **options), *arrays)


@implements(numbers.divide)
@jitted
def divide(a: Any, b: Any) -> Any:
    a, b = jnp.asarray(a, np.float64), jnp.asarray(b, np.float64)
    # XLA would multiply by the reciprocal of a common divisor. It cannot know that 0 * a is 0, which prevents that.
    return a / (b + 0 * a)


@implements(contract.pick)
def pick(words: Any, index: tuple[Any, ...]) -> Any:
    if not any(isinstance(part, jax.core.Tracer) for part in index):
        index = tuple(map(_plain, index))
        # This raises an IndexError where JAX would take the nearest element.
        np.broadcast_to(False, words.shape)[index]
        if any(isinstance(part, bool | np.bool) or (isinstance(part, np.ndarray) and not part.ndim) for part in index):
            # JAX puts the axis of a single bool elsewhere than NumPy does.
            *lead, n_words = words.shape
            chosen = np.arange(math.prod(lead)).reshape(*lead, 1)[index]
            return words.reshape(-1, n_words)[chosen[..., 0]]
    return words[index]


def _plain(part: Any) -> Any:
    """A part of an index as JAX takes it: arrays in the byte order of the machine, and slices within its integers."""
    if isinstance(part, slice):
        return slice(*(max(-FAR, min(n, FAR)) if isinstance(n, int) else n for n in (part.start, part.stop, part.step)))
    if isinstance(part, jax.Array | np.ndarray | range):
        found = np.asarray(part, np.intp if isinstance(part, range) else None)
        return found.astype(np.intp if found.dtype.kind in "iu" else found.dtype.newbyteorder("="), copy=False)
    return part


@implements(numbers.concatenate)
def concatenate(*arrays: Any, axis: int = 0) -> Any:
    return jnp.concatenate(arrays, axis)


@implements(numbers.pad)
def pad(array: Any, widths: tuple[tuple[int, int], ...]) -> Any:
    return jnp.pad(array, widths)


@implements(numbers.resizable)
def resizable(array: Any) -> Any:
    return contract.on_host(array)


@implements(numbers.broadcast_to)
def broadcast_to(array: Any, shape: tuple[int, ...]) -> Any:
    return jnp.broadcast_to(array, shape)

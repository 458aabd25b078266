"""Gates of packed words.

Each is the gate of a row of `core.gates` with that name, and `gate` is any of them.
"""

from __future__ import annotations

from typing import Any

from ..core import contract
from ..core.checks import as_words, check_length, check_operands
from ..core.gates import GATES
from ..errors import BitstreamError


def gate(kind: str, *packed: Any, length: int | None = None) -> Any:
    """A gate by its name in `core.gates.GATES`.

    Parameters
    ----------
    kind : str
    *packed : array of uint64, each (..., n_words)
        The word axes must match; leading axes broadcast.
    length : int, optional
        Length of a stream in bits. With it the padding of the result is 0; without it every bit of a word counts.

    Returns
    -------
    array of uint64
    """
    row = GATES.get(kind) if isinstance(kind, str) else None
    if row is None or len(packed) != len(row.inputs):
        known = ", ".join(f"{name} of {len(row.inputs)}" for name, row in GATES.items())
        raise BitstreamError(f"the gates are {known}, not {kind!r} of {len(packed)} operands")
    operands = tuple(map(as_words, packed))
    check_operands(*operands)
    if length is None:
        return contract.gate(kind, *operands)
    return contract.gate(kind, *operands, length=check_length(length, operands[0].shape[-1]))


def vec_and(a_packed: Any, b_packed: Any) -> Any:
    """AND: the product of independent unipolar streams.

    Parameters
    ----------
    a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        If the words are not uint64, differ in number, or do not broadcast.
    """
    return gate("and", a_packed, b_packed)


def vec_or(a_packed: Any, b_packed: Any) -> Any:
    """OR: a + b - ab of independent unipolar streams, max(a, b) of fully correlated ones.

    Parameters, returns and errors are those of `vec_and`.
    """
    return gate("or", a_packed, b_packed)


def vec_xor(a_packed: Any, b_packed: Any) -> Any:
    """XOR: |a - b| of fully correlated unipolar streams.

    Parameters, returns and errors are those of `vec_and`.
    """
    return gate("xor", a_packed, b_packed)


def vec_xnor(a_packed: Any, b_packed: Any, length: int | None = None) -> Any:
    """XNOR: the product of independent bipolar streams.

    Parameters
    ----------
    a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.
    length : int, optional
        Length of a stream in bits. With it the padding of the result is 0; without it every bit of a word counts.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        As for `vec_and`, or if the length does not fit the words.
    """
    return gate("xnor", a_packed, b_packed, length=length)


def vec_not(packed: Any, length: int | None = None) -> Any:
    """NOT: 1 - p of a unipolar stream, -v of a bipolar one.

    Parameters
    ----------
    packed : array of uint64, shape (..., n_words)
    length : int, optional
        Length of a stream in bits. With it the padding of the result is 0; without it every bit of a word counts.

    Returns
    -------
    array of uint64, of the same shape

    Raises
    ------
    BitstreamError
        If the words are not uint64, or the length does not fit them.
    """
    return gate("not", packed, length=length)


def vec_mux(select_packed: Any, a_packed: Any, b_packed: Any) -> Any:
    """MUX: `a` where `select` is 1, else `b`; the scaled sum s * a + (1 - s) * b for a `select` independent of both.

    Parameters
    ----------
    select_packed, a_packed, b_packed : array of uint64, shape (..., n_words)
        The word axes must match; leading axes broadcast.

    Returns
    -------
    array of uint64

    Raises
    ------
    BitstreamError
        As for `vec_and`.
    """
    return gate("mux", select_packed, a_packed, b_packed)

"""The gates, one row each, from which every backend makes its kernels.

A new gate is a row here and a public function in `vector_ops.gates`, which `vector_ops` hands on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class GateRow:
    """A gate, bit by bit.

    Parameters
    ----------
    name : str
    function : callable
        The gate of whole words, of up to three operands. NumPy runs it, Numba compiles it and JAX traces it.
    text : str
        The same in the operators that C and Verilog share, over the names of the function's parameters.
    keeps_padding : bool
        Whether inputs of 0 give 0, so that padding stays 0.
    correlated : str
        What it gives if its inputs overlap as much as they can, in shares of ones, where that is seldom meant.
    steps : int
        How many operations of NumPy it takes. NumPy would store the results between them, so Numba fuses several.
    """

    name: str
    function: Callable[..., Any]
    text: str
    keeps_padding: bool = True
    correlated: str = ""
    steps: int = 1

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of the operands."""
        return tuple(signature(self.function).parameters)


def _mask(a: Any) -> Any:
    return a | a  # This is a new array, whose padding may be written to.


def _and(a: Any, b: Any) -> Any:
    return a & b


def _or(a: Any, b: Any) -> Any:
    return a | b


def _xor(a: Any, b: Any) -> Any:
    return a ^ b


def _xnor(a: Any, b: Any) -> Any:
    return ~(a ^ b)


def _not(a: Any) -> Any:
    return ~a


def _mux(select: Any, a: Any, b: Any) -> Any:
    return (select & a) | (~select & b)


GATES = {
    row.name: row
    for row in (
        GateRow("mask", _mask, "a"),
        GateRow("and", _and, "a & b", correlated="their minimum, and no product"),
        GateRow("or", _or, "a | b"),
        GateRow("xor", _xor, "a ^ b"),
        GateRow(
            "xnor",
            _xnor,
            "~(a ^ b)",
            keeps_padding=False,
            correlated="1 less their absolute difference, and no product",
            steps=2,
        ),
        GateRow("not", _not, "~a", keeps_padding=False),
        GateRow("mux", _mux, "(select & a) | (~select & b)", correlated="no weighted sum", steps=4),
    )
}

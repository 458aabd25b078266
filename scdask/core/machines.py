"""Finite-state machines over bitstreams: tables, and what the kernels make of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _html
from ..errors import BitstreamError
from . import verilog

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Table = tuple[tuple[int, ...], ...]

MOST_STATES = 256
AT_ONCE = {1: 8, 2: 4, 3: 2}  # steps that one look-up takes, by the number of inputs
SHOWN = 16  # states that a notebook shows

# For functions of numbers: `cache` would take True and 1.0 for a 1 that it has seen, and nothing would check them.
typed_cache = lru_cache(maxsize=None, typed=True)


@dataclass(frozen=True)
class Machine:
    """A finite-state machine that reads up to three streams, and writes one or two, a bit of each in a step.

    It is a Mealy machine: in a step from state s with the input bits x, y, z it writes `output[s][i]` and goes on to
    `next_state[s][i]`, where i is x + 2 y + 4 z. Machines are values: hashable, and equal where their tables are.
    `from_step` makes the tables from a function, and `scdask.run` runs a machine over streams.

    Parameters
    ----------
    next_state : array_like of int, shape (S, 2**k)
        S states, 1 to 256, and k input bits, 1 to 3.
    output : array_like of int, shape (S, 2**k), (S,) or (2, S, 2**k)
        0 or 1. Of shape (S,) it depends on the state alone, before the step (a Moore machine). Two tables make a
        machine that writes two streams.
    start : int
        The state in which a stream begins.

    Raises
    ------
    BitstreamError
        If a table has another shape, or holds what is no state or no bit.

    Examples
    --------
    A toggle flip-flop, which passes every second one of its input on:

    >>> import scdask as sc
    >>> half = sc.Machine(next_state=[[0, 1], [1, 0]], output=[[0, 0], [0, 1]])
    >>> half.states, half.inputs, half.outputs
    (2, 1, 1)
    >>> float(sc.run(half, sc.encode(0.75, 256, sng=sc.Sobol(1))).decode())
    0.375
    """

    next_state: Table
    output: Table | tuple[Table, Table]
    start: int = 0

    def __post_init__(self) -> None:
        following = _integers("next_state", self.next_state)
        if following.ndim != 2 or following.shape[1] not in (2, 4, 8) or not 1 <= len(following) <= MOST_STATES:
            raise BitstreamError(
                f"next_state has the shape (S, 2), (S, 4) or (S, 8) with 1 to {MOST_STATES} states S, "
                f"not {following.shape}"
            )
        written = _integers("output", self.output)
        if written.shape == following.shape[:1]:
            written = np.repeat(written[:, None], following.shape[1], axis=1)
        if written.shape not in (following.shape, (2, *following.shape)):
            raise BitstreamError(
                f"the output of a machine with next_state {following.shape} has the shape {following.shape}, "
                f"{following.shape[:1]} or {(2, *following.shape)}, not {written.shape}"
            )
        for name, table, limit in (("next_state", following, len(following)), ("output", written, 2)):
            wrong = np.argwhere((table < 0) | (table >= limit))
            if len(wrong):
                place = tuple(wrong[0].tolist())
                raise BitstreamError(f"{name} holds 0 to {limit - 1}, not {table[place]} at {place}")
        start = _integers("start", self.start)
        if start.ndim or not 0 <= start < len(following):
            raise BitstreamError(
                f"a machine of {len(following)} states starts in 0 to {len(following) - 1}, not {start}"
            )
        for name, value in (("next_state", following), ("output", written), ("start", start)):
            object.__setattr__(self, name, _frozen(value.tolist()))

    @classmethod
    def from_step(cls, step: Callable[..., tuple[int, ...]], states: int, inputs: int = 1, start: int = 0) -> Machine:
        """Make a machine of a function that does a step.

        Parameters
        ----------
        step : callable
            step(state, *bits) gives the next state and the output bit, or bits.
        states : int
            S, 1 to 256.
        inputs : int
            k, 1 to 3.
        start : int
            The state in which a stream begins.

        Returns
        -------
        Machine

        Raises
        ------
        BitstreamError
            If the function gives anything else than a state and one bit or two.

        Examples
        --------
        The flip-flop above:

        >>> Machine.from_step(lambda state, x: (state ^ x, state & x), states=2) == Machine(
        ...     [[0, 1], [1, 0]], [[0, 0], [0, 1]]
        ... )
        True
        """
        for name, value, most in (("states", states, MOST_STATES), ("inputs", inputs, 3)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= most:
                raise BitstreamError(
                    f"{name} of a machine: an integer from 1 to {most}, not {value!r}; larger ones go with map_time"
                )
        steps: list[list[Any]] = []
        for state in range(states):
            steps.append([])
            for column in range(2**inputs):
                bits = tuple(column >> i & 1 for i in range(inputs))
                found = step(state, *bits)
                _check_step(f"step({', '.join(map(str, (state, *bits)))})", found, states)
                steps[-1].append(found)
        if len({len(found) for row in steps for found in row}) > 1:
            raise BitstreamError("a step gives the next state and one output bit or two, the same number each time")
        following, *written = np.moveaxis(np.array(steps, np.int64), -1, 0)
        return cls(following, written[0] if len(written) == 1 else written, start)  # type: ignore[arg-type]

    @property
    def states(self) -> int:
        """S, the number of states."""
        return len(self.next_state)

    @property
    def inputs(self) -> int:
        """k, the number of streams that it reads."""
        return len(self.next_state[0]).bit_length() - 1

    @property
    def outputs(self) -> int:
        """m, the number of streams that it writes."""
        return len(self._written)

    @cached_property
    def _following(self) -> NDArray[np.uint8]:
        return np.array(self.next_state, np.uint8)

    @cached_property
    def _written(self) -> NDArray[np.uint8]:
        return np.array(self.output, np.uint8).reshape(-1, self.states, 2**self.inputs)

    @cached_property
    def single_steps(self) -> NDArray[np.uint32]:
        """What a step does, for kernels: shape (S * 2**k,), at s * 2**k + i, as in `look_ups` with one step."""
        return self._steps(1)

    @cached_property
    def look_ups(self) -> NDArray[np.uint32]:
        """What `AT_ONCE` steps do, for kernels: n steps from a state, with n bits of each input.

        Entry s << n k | bits holds the next state, shifted to the left by 16 + n k, the n bits of the second output,
        shifted by n, and those of the first. The bits are those of the first input, then, shifted by n, of the second,
        and so on; earlier steps have lower bits.
        """
        return self._steps(AT_ONCE[self.inputs])

    def _steps(self, n: int) -> NDArray[np.uint32]:
        k = self.inputs
        bits = np.arange(2 ** (n * k))
        state = np.broadcast_to(np.arange(self.states)[:, None], (self.states, len(bits)))
        entries = np.zeros(state.shape, np.int64)
        for step in range(n):
            column = sum((bits >> i * n + step & 1) << i for i in range(k))
            for j, table in enumerate(self._written):
                entries |= table[state, column].astype(np.int64) << j * n + step
            state = self._following[state, column]
        return (entries | state.astype(np.int64) << 16 + n * k).astype(np.uint32).reshape(-1)

    @cached_property
    def polynomials(self) -> NDArray[np.uint64]:
        """A machine of two states in polynomials over its inputs, for kernels: uint64 (2 + 2 m) * 2**k, 0 or all ones.

        With the state q as a bit, a step makes it (keep & q) ^ set, and output j is (with_j & q) ^ without_j. Rows
        are keep, set, with_0, without_0 and so on. AND multiplies, XOR adds, and coefficient i of a row is that of the
        product of the inputs whose bits are set in i.
        """
        assert self.states == 2
        pairs = [table.T for table in (self._following, *self._written)]  # (2**k, 2): by the inputs and the state
        rows = np.array([row for pair in pairs for row in (pair[:, 0] ^ pair[:, 1], pair[:, 0])], np.uint64)
        for i in range(self.inputs):
            rows = rows.reshape(len(rows), -1, 2, 2**i)
            rows[:, :, 1] ^= rows[:, :, 0]
        return np.uint64(0) - rows.reshape(-1)

    @cached_property
    def shifts(self) -> NDArray[np.int64] | None:
        """By how much each column shifts a saturating counter, or None if the machine is none.

        A column of a counter takes s to min(max(s + d, lo), hi); so does what any number of steps does.
        """
        found = [_shift(column) for column in self._following.T.astype(np.int64)]
        return None if None in found else np.array(found, np.int64)

    def check_states(self, states: NDArray[Any]) -> NDArray[np.uint8]:
        """The states as uint8, unless one is none of the machine's."""
        if states.dtype != np.uint8 or self.states < MOST_STATES:
            wrong = states[(states < 0) | (states >= self.states)]
            if wrong.size:
                raise BitstreamError(f"a machine of {self.states} states has no state {wrong.flat[0]}")
        return states.astype(np.uint8, copy=False)

    def to_verilog(self, name: str) -> str:
        """Write the machine as a Verilog module, which gives the bits that `scdask.run` gives.

        The state is a register, which moves at the rising edge of the clock; the outputs are combinational, and those
        of the state and the inputs of the same cycle. Bit t of the streams is that of cycle t after a reset.

        Parameters
        ----------
        name : str
            Of the module.

        Returns
        -------
        str
            Verilog-2001, which can be synthesised. The inputs are x, y and z, as many as the machine reads; the output
            is out, or out0 and out1; and there are clk, rst and enable.

        Raises
        ------
        BitstreamError
            If the name is no identifier of Verilog.

        Examples
        --------
        A flip-flop that keeps its bit where y is 0:

        >>> keep = Machine.from_step(lambda q, x, y: (x if y else q, x if y else q), states=2, inputs=2)
        >>> print(keep.to_verilog("keep"))
        // A finite-state machine of 2 states, which scdask wrote from its tables.
        // Bit t of a stream is that of cycle t after a reset.
        module keep (
            input  wire clk,     // the state moves at its rising edge
            input  wire rst,     // synchronous: back to the start, state 0
            input  wire enable,  // 1: the state moves; 0: it stays
            input  wire x,       // a bit of the first stream
            input  wire y,       // a bit of the second stream
            output reg  out      // the bit of this cycle, of the state and the inputs
        );
            reg [0:0] state;
            reg [0:0] next;
        <BLANKLINE>
            always @*
                case (state)
                    1'd0: {next, out} = y ? (x ? {1'd1, 1'b1} : {1'd0, 1'b0}) : {1'd0, 1'b0};
                    1'd1: {next, out} = y ? (x ? {1'd1, 1'b1} : {1'd0, 1'b0}) : {1'd1, 1'b1};
                    default: {next, out} = {1'd0, 1'b0};
                endcase
        <BLANKLINE>
            always @(posedge clk)
                if (rst) begin
                    state <= 1'd0;
                end else if (enable) begin
                    state <= next;
                end
        endmodule
        <BLANKLINE>
        """
        return verilog.machine(name, self.next_state, self._written.tolist(), self.start)

    def __reduce__(self) -> Any:
        return type(self), (self.next_state, self.output, self.start)  # without what is kept for kernels

    def __repr__(self) -> str:
        counts = ((self.states, "state"), (self.inputs, "input"), (self.outputs, "output"))
        shown = ", ".join(f"{n} {name}{'s' * (n > 1)}" for n, name in counts)
        return f"<Machine of {shown}, start {self.start}>"

    def _repr_html_(self) -> str:
        names = "xyz"[: self.inputs]
        heads = [
            f"{names} = {''.join(str(column >> i & 1) for i in range(self.inputs))}" for column in range(2**self.inputs)
        ]
        rows = [
            [
                f"{state} (start)" if state == self.start else state,
                *(
                    f"{following} / {''.join(map(str, self._written[:, state, column]))}"
                    for column, following in enumerate(self.next_state[state])
                ),
            ]
            for state in range(min(self.states, SHOWN))
        ]
        written = "output" if self.outputs == 1 else "the bits of both outputs"
        more = f" The first {SHOWN} of {self.states} states." if self.states > SHOWN else ""
        return _html.table(
            "Machine",
            ["state", *heads],
            rows,
            f"Next state / {written}, by the input bits, of which x is the first.{more}",
        )


def _check_step(call: str, found: Any, states: int) -> None:
    """Raise unless a step gives a state and one bit or two."""
    if not isinstance(found, tuple) or len(found) not in (2, 3) or any(np.ndim(n) for n in found):
        raise BitstreamError(f"{call} gives {found!r}, and not a tuple of the next state and one output bit or two")
    state, *bits = found
    for what, value, count in (("a state", state, states), *(("an output bit", bit, 2) for bit in bits)):
        if not isinstance(value, int | np.integer | np.bool) or not 0 <= value < count:
            raise BitstreamError(f"{call} gives {found!r}: {what} is an integer from 0 to {count - 1}, not {value!r}")


def _integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    """The values as an array of integers, if they are such and rectangular."""
    try:
        found = np.asarray(values)
    except ValueError:
        found = np.empty(0)
    if found.dtype.kind not in "biu" or not found.size:
        raise BitstreamError(f"{name} of a machine is a rectangular table of integers, not {values!r}")
    return found.astype(np.int64)


def _frozen(values: Any) -> Any:
    return tuple(map(_frozen, values)) if isinstance(values, list) else values


def _shift(column: NDArray[np.int64]) -> int | None:
    """The d of a map of states that is min(max(s + d, lo), hi), 0 for a constant one; None for another map."""
    low, high, states = int(column[0]), int(column[-1]), np.arange(len(column))
    if low == high:
        return 0 if (column == low).all() else None
    within = np.flatnonzero((column > low) & (column < high))
    # Without a state between the ends, the map is a step: states up to some one go to `low`, and those above to `high`.
    at = int(within[0]) if len(within) else int(np.argmax(column == high))
    shift = int(column[at]) - at
    return shift if (column == np.clip(states + shift, low, high)).all() else None

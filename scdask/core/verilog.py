"""Text of Verilog-2001 modules."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYWORDS = """
    always and assign automatic begin buf bufif0 bufif1 case casex casez cell cmos config deassign default defparam
    design disable edge else end endcase endconfig endfunction endgenerate endmodule endprimitive endspecify
    endtable endtask event for force forever fork function generate genvar highz0 highz1 if ifnone incdir include
    initial inout input instance integer join large liblist library localparam macromodule medium module nand
    negedge nmos nor noshowcancelled not notif0 notif1 or output parameter pmos posedge primitive pull0 pull1
    pulldown pullup pulsestyle_ondetect pulsestyle_onevent rcmos real realtime reg release repeat rnmos rpmos rtran
    rtranif0 rtranif1 scalared showcancelled signed small specify specparam strong0 strong1 supply0 supply1 table
    task time tran tranif0 tranif1 tri tri0 tri1 triand trior trireg unsigned use vectored wait wand weak0 weak1
    while wire wor xnor xor
"""


def module(name: Any, comment: Sequence[str], ports: Sequence[tuple[str, str]], body: Sequence[str]) -> str:
    """The text of a module of that name.

    `ports` are pairs of a declaration and of what the port means. The lines of `comment` and `body` come without the
    marks of a comment, and without an indent.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*", name) or name in KEYWORDS.split():
        raise BitstreamError(
            f"a module of Verilog is named by letters, digits and _, no digit first, and no keyword, unlike {name!r}"
        )
    last = len(ports) - 1
    declared = [declaration + ("," if i < last else "") for i, (declaration, _) in enumerate(ports)]
    width = max(map(len, declared))
    lines = [
        *(f"// {line}" for line in comment),
        f"module {name} (",
        *(f"    {left:{width}}  // {meaning}" for left, (_, meaning) in zip(declared, ports, strict=True)),
        ");",
        *(f"    {line}".rstrip() for line in body),
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def clocked(reset: Sequence[str], step: Sequence[str]) -> list[str]:
    """The lines of a block that does `reset` or `step` at the edge of the clock."""
    return [
        "always @(posedge clk)",
        "    if (rst) begin",
        *(f"        {line}" for line in reset),
        "    end else if (enable) begin",
        *(f"        {line}" for line in step),
        "    end",
    ]


def machine(name: Any, next_state: Sequence[Sequence[int]], outputs: Sequence[Any], start: int) -> str:
    """The text of a finite-state machine, from its tables."""
    states, bits = len(next_state), max(1, (len(next_state) - 1).bit_length())
    inputs = "xyz"[: len(next_state[0]).bit_length() - 1]
    ports = ["out"] if len(outputs) == 1 else ["out0", "out1"]
    target = _joined("next", *ports)

    def entry(state: int, *written: int) -> str:
        return _joined(f"{bits}'d{state}", *(f"1'b{bit}" for bit in written))

    def case(state: int) -> str:
        columns = zip(next_state[state], *(table[state] for table in outputs), strict=True)
        return f"        {bits}'d{state}: {target} = {_choice([entry(*column) for column in columns], inputs)};"

    body = [
        f"reg [{bits - 1}:0] state;",
        f"reg [{bits - 1}:0] next;",
        "",
        "always @*",
        "    case (state)",
        *(case(state) for state in range(states)),
        f"        default: {target} = {entry(start, *(0 for _ in ports))};",
        "    endcase",
        "",
        *clocked([f"state <= {bits}'d{start};"], ["state <= next;"]),
    ]
    places = zip(inputs, ("first", "second", "third"), strict=False)
    return module(
        name,
        [
            f"A finite-state machine of {states} states, which scdask wrote from its tables.",
            "Bit t of a stream is that of cycle t after a reset.",
        ],
        [
            ("input  wire clk", "the state moves at its rising edge"),
            ("input  wire rst", f"synchronous: back to the start, state {start}"),
            ("input  wire enable", "1: the state moves; 0: it stays"),
            *((f"input  wire {port}", f"a bit of the {place} stream") for port, place in places),
            *((f"output reg  {port}", "the bit of this cycle, of the state and the inputs") for port in ports),
        ],
        body,
    )


def _joined(*parts: str) -> str:
    return f"{{{', '.join(parts)}}}"


def _choice(entries: list[str], inputs: str) -> str:
    """The one of the entries, 2**k in their order, that k inputs choose."""
    half = len(entries) // 2
    if not half:
        return entries[0]
    low, high = (_choice(part, inputs[:-1]) for part in (entries[:half], entries[half:]))
    if low == high:
        return low
    return f"{inputs[-1]} ? {_bracketed(high)} : {_bracketed(low)}"


def _bracketed(choice: str) -> str:
    return f"({choice})" if "?" in choice else choice


def generator(name: Any, sng: Any, length: int, width: int, body: Sequence[str]) -> str:
    """The text of a stochastic number generator; `body` drives `number`, of `width` bits."""
    return module(
        name,
        [
            f"The generator {sng}, for streams of {length} bits, which scdask wrote.",
            "Bit t of a stream is that of cycle t after a reset.",
        ],
        [
            ("input  wire clk", "the next number comes at its rising edge"),
            ("input  wire rst", "synchronous: back to the first number"),
            ("input  wire enable", "1: the number moves; 0: it stays"),
            (
                f"input  wire [{width}:0] threshold",
                f"taken at a reset; for p: {sng}.threshold(p, {length})",
            ),
            (f"output wire [{width - 1}:0] number", "for the comparators of more streams"),
            ("output wire out", "the bit of this cycle"),
        ],
        [
            f"reg [{width}:0] held;",
            *body,
            "",
            "always @(posedge clk)",
            "    if (rst) held <= threshold;",
            "",
            "assign out = {1'b0, number} < held;",
        ],
    )

// Circuits with memory, by hand, from their definitions.

// CORDIV: the quotient is the dividend where the divisor is 1, and else the bit before.
module cordiv (
    input  wire clk,
    input  wire rst,
    input  wire enable,
    input  wire x,
    input  wire y,
    output wire out
);
    reg held;
    assign out = y ? x : held;

    always @(posedge clk)
        if (rst)
            held <= 1'b0;
        else if (enable)
            held <= out;
endmodule

// tanh by a saturating counter of 2**BITS states, which starts in the middle: its highest bit, before the step.
module stanh #(
    parameter BITS = 3
) (
    input  wire clk,
    input  wire rst,
    input  wire enable,
    input  wire x,
    output wire out
);
    reg [BITS-1:0] count;
    assign out = count[BITS-1];

    always @(posedge clk)
        if (rst)
            count <= 1 << (BITS - 1);
        else if (enable && x && !(&count))
            count <= count + 1'b1;
        else if (enable && !x && (|count))
            count <= count - 1'b1;
endmodule

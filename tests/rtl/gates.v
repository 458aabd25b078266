// Multipliers and a scaled adder of streams, by hand.

module and2 (
    input  wire a,
    input  wire b,
    output wire out
);
    assign out = a & b;
endmodule

module xnor2 (
    input  wire a,
    input  wire b,
    output wire out
);
    assign out = a ~^ b;
endmodule

module mux2 (
    input  wire select,
    input  wire a,
    input  wire b,
    output wire out
);
    assign out = select ? a : b;
endmodule

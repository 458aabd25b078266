// Accumulative parallel counter, by hand: the ones of all streams, up to the cycle before.

module apc #(
    parameter STREAMS = 3,
    parameter BITS = 16
) (
    input  wire clk,
    input  wire rst,
    input  wire enable,
    input  wire [STREAMS-1:0] bits,
    output reg  [BITS-1:0] count
);
    integer i;
    reg [BITS-1:0] ones;

    always @* begin
        ones = 0;
        for (i = 0; i < STREAMS; i = i + 1)
            ones = ones + bits[i];
    end

    always @(posedge clk)
        if (rst)
            count <= 0;
        else if (enable)
            count <= count + ones;
endmodule

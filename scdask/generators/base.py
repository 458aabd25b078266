"""What a generator is: a value that gives the numbers which probabilities are compared with."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numba import uint64

from ..core import contract, verilog
from ..core.checks import as_host, as_real, check_encoding, check_polarity
from ..core.llvm import compiled, empty_words
from ..core.words import words_for
from ..errors import BitstreamError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.words import Polarity


class SNG:
    """A stochastic number generator: what a probability is compared with, bit by bit.

    Bit t of a stream of N bits is 1 where number t of its generator is below the probability p. So 0 gives no ones,
    and 1 only ones.

    **How many ones.** `Sobol`, `Halton`, `VanDerCorput` and `Thermometer` give the integer nearest to p N, at every N
    (halves down): the stream of p has its ones at the K = ceil(p N - 1/2) smallest of the first N numbers. That is
    exact for k / N, and unbiased for all other p. In hardware, for N = 2**m: a register of m + 1 bits holds K (m bits
    do without p = 1), and the comparator sees the m highest bits of the sequence. (For other N, the register holds the
    K-th smallest number itself, which is found when p is loaded; a sequence needs no more bits.) `to_verilog` writes
    this hardware, and `threshold` gives what the register holds. To simulate a narrower register of w bits, round p to
    k / 2**w first. The first bits of such a stream are those of K / N, not of p: of `VanDerCorput` and of `Sobol`
    without a seed, n = 2**i of N = 2**m bits have ceil(n K / N) ones.

    ``rounding="up"`` compares p itself with the sequence instead, in a register as wide as p. Then the first n bits of
    a stream of N are the stream of n bits (not for `Thermometer`, which is another sequence at each N). At N = 2**m
    `VanDerCorput` and `Sobol` without a seed have ceil(p N) ones, half a one too many on average; at other N, and for
    `Halton`, up to two too many were seen. At a few bits, up to 16, nets may do better with it.

    `Bernoulli` has p N ones on average, at every N and in every prefix. `LFSR` compares p itself with its states 1 to
    2**width - 1: over a period X / 2**width gives X - 1 ones, real p the integer below p 2**width (1: all), which has
    no bias over all p.

    **Generators of your own** are subclasses. They are values: pure (the numbers depend on the arguments and nothing
    else), hashable, equal where they give the same numbers, and picklable, as frozen dataclasses are. All elements
    share the sequence of `numbers`; a class that has `own_numbers` instead gives each element a sequence of its own.
    What is checked when they are used is that they are hashable, and that numbers are as many as asked for, and from 0
    up to 1.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from scdask import SNG, encode
    >>> @dataclass(frozen=True)
    ... class Weyl(SNG):
    ...     def numbers(self, length, start, stop):
    ...         return np.arange(start, stop) * 0.6180339887498949 % 1
    >>> encode([0.25, 0.5], 1024, sng=Weyl()).popcount()
    array([258, 512])
    >>> @dataclass(frozen=True)
    ... class Shifted(SNG):
    ...     def own_numbers(self, length, start, stop, streams):
    ...         return (np.arange(start, stop) / length + streams[:, None] * 0.618) % 1
    >>> encode([0.25, 0.25], 1024, sng=Shifted()).popcount()
    array([256, 256])

    Attributes
    ----------
    longest : int
        Bits of the longest stream.
    """

    longest: ClassVar[int] = 2**53

    def __repr__(self) -> str:
        kind: Any = type(self)
        if not is_dataclass(kind):
            return super().__repr__()
        shown = [f for f in fields(kind) if not f.kw_only or getattr(self, f.name) != f.default]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    def numbers(self, length: int, start: int, stop: int) -> NDArray[np.float64]:
        """Numbers in [0, 1) of bits `start` to `stop` of a stream of `length` bits; `start` a multiple of 64."""
        return self.own_numbers(length, start, stop, np.zeros(1, np.uint64))[0]  # type: ignore[no-any-return]

    @property
    def own(self) -> bool:
        """Whether each element has numbers of its own; False if all compare one sequence."""
        return type(self).own_numbers is not SNG.own_numbers

    def own_numbers(self, length: int, start: int, stop: int, streams: NDArray[np.uint64]) -> NDArray[np.float64]:
        """What `numbers` are, of some elements, which are numbered in C order: shape (len(streams), stop - start)."""
        raise BitstreamError(f"a generator has numbers, or own_numbers, but {type(self).__qualname__} has neither")

    def drawn(self, length: int, start: int, stop: int, streams: NDArray[np.uint64] | None = None) -> NDArray[Any]:
        """The `numbers`, or the `own_numbers` of some streams, once they are known to be such, and none -0."""
        shape: tuple[int, ...] = (stop - start,)
        if streams is None:
            given = self.numbers(length, start, stop)
        else:
            given, shape = self.own_numbers(length, start, stop, streams), (len(streams), *shape)
        try:
            numbers = np.asarray(given, np.float64)
        except (ValueError, TypeError):
            numbers = np.empty(0)
        if numbers.shape != shape or not ((numbers >= 0) & (numbers < 1)).all():
            of = "" if streams is None else f" for each of {len(streams)} elements"
            raise BitstreamError(f"{self} does not give {stop - start} numbers from 0 up to 1{of}")
        return numbers + 0.0

    def to_verilog(self, name: str, length: int) -> str:
        """Write the generator as a Verilog module, which gives the bits that `encode` gives.

        It compares a threshold, which its register takes at a reset, with its numbers as integers. The number is an
        output too: further streams that share the sequence need a register and a comparator each, no module more.

        `LFSR` is its register, `Thermometer` a counter, `VanDerCorput` a counter with its bits reversed, `Halton` one
        with its digits reversed. `Sobol` XORs the direction number of the lowest zero bit of a counter to the point. A
        counter has the digits that N numbers need, and begins anew after the last: for N = 2**m after N cycles.

        Parameters
        ----------
        name : str
            Of the module.
        length : int
            Bits of a stream, N.

        Returns
        -------
        str
            Verilog-2001, which can be synthesised, with the inputs clk, rst, enable and threshold, and the outputs
            number and out. Bit t of a stream is out in cycle t after a reset. Where enable is 0 the number stays.

        Raises
        ------
        BitstreamError
            If the name is no identifier of Verilog, or the generator is another, or `LFSR` with a register for each
            element.

        See Also
        --------
        threshold : The integer for a probability.

        Examples
        --------
        >>> from scdask import Sobol
        >>> print(Sobol(2).to_verilog("sobol2", 16))
        // The generator Sobol(dimension=2), for streams of 16 bits, which scdask wrote.
        // Bit t of a stream is that of cycle t after a reset.
        module sobol2 (
            input  wire clk,              // the next number comes at its rising edge
            input  wire rst,              // synchronous: back to the first number
            input  wire enable,           // 1: the number moves; 0: it stays
            input  wire [4:0] threshold,  // taken at a reset; for p: Sobol(dimension=2).threshold(p, 16)
            output wire [3:0] number,     // for the comparators of more streams
            output wire out               // the bit of this cycle
        );
            reg [4:0] held;
            reg [3:0] count;
            reg [3:0] point;
            reg [3:0] direction;
        <BLANKLINE>
            always @*
                casez (count)
                    4'b???0: direction = 4'h8;
                    4'b??01: direction = 4'hc;
                    4'b?011: direction = 4'ha;
                    default: direction = 4'hf;
                endcase
        <BLANKLINE>
            always @(posedge clk)
                if (rst) begin
                    count <= 4'd0;
                    point <= 4'h0;
                end else if (enable) begin
                    count <= count + 4'd1;
                    point <= point ^ direction;
                end
        <BLANKLINE>
            assign number = point;
        <BLANKLINE>
            always @(posedge clk)
                if (rst) held <= threshold;
        <BLANKLINE>
            assign out = {1'b0, number} < held;
        endmodule
        <BLANKLINE>
        """
        self._check_circuit()
        length = check_encoding(length, self)
        return verilog.generator(name, self, length, *self._circuit(length))

    def threshold(self, p: Any, length: int, polarity: Polarity = "unipolar") -> NDArray[np.int64]:
        """The integers that `to_verilog` compares with, so that its bits are those of `encode`.

        For `LFSR` that is p 2**width, rounded up. For `Sobol` and `VanDerCorput` with N = 2**m bits, and `Thermometer`
        with any, it is the number of ones, such as the integer nearest to p N. Otherwise it is the smallest of the N
        numbers that p is not above, as an integer, or 1 more than the greatest if there is none.

        Parameters
        ----------
        p : array_like of real numbers, any shape
            In [0, 1] for unipolar, [-1, 1] for bipolar streams.
        length : int
            Bits of a stream, N, as given to `to_verilog`; at most 2**24, but for `LFSR`, where it does not matter.
        polarity : {"unipolar", "bipolar"}

        Returns
        -------
        array of int64, of the shape of p

        Raises
        ------
        BitstreamError
            Where `to_verilog` and `encode` raise it.

        Examples
        --------
        >>> from scdask import LFSR, Sobol
        >>> Sobol(2).threshold([0.25, 0.3, 1], 16)
        array([ 4,  5, 16])
        >>> int(LFSR(8).threshold(0.5, 255, "bipolar"))
        192
        """
        self._check_circuit()
        check_polarity(polarity)
        length = check_encoding(length, self)
        probabilities = contract.probabilities(as_real(as_host(p, "p"), "p"), polarity)
        bits, _ = self._circuit(length)
        return np.asarray(self._thresholds(probabilities, length, bits))

    def _check_circuit(self) -> None:
        if "_circuit" not in vars(type(self)):  # That of a base need not have the numbers of a class of one's own.
            raise BitstreamError(
                f"Verilog is written of LFSR, Sobol, Halton, VanDerCorput and Thermometer, and not of {self}"
            )

    def _circuit(self, length: int) -> tuple[int, list[str]]:
        """The bits of `number`, and the lines of Verilog that drive it."""
        raise NotImplementedError

    def _thresholds(self, p: NDArray[np.float64], length: int, bits: int) -> NDArray[np.int64]:
        raise NotImplementedError

    def key(self) -> tuple[np.uint64, np.uint64] | None:
        """The key, if the numbers are those of `Bernoulli`, for which backends have kernels."""
        return None

    def table(self, length: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any]]:
        """All streams of a shared sequence, bits `start` to `stop`, and what finds the stream of a probability.

        n numbers make only n + 1 different streams: row k of the last array, packed, has its ones at the k smallest
        numbers, and is the stream of all p that k numbers are below. The results before it are the `numbers`, `guide`
        and `stride` of `jit_kernels.encoding.look_up`.
        """
        return _table(self, length, start, stop)


@lru_cache(maxsize=16)
def _table(sng: SNG, length: int, start: int, stop: int) -> tuple[NDArray[Any], NDArray[Any], int, NDArray[Any]]:
    numbers = sng.drawn(length, start, stop)
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    n = len(order)
    rows = empty_words((n + 1, words_for(n)))
    _fill_table(order, rows)
    cells = 2 << n.bit_length()
    guide = np.searchsorted(ranked, np.arange(cells + 1) / cells)
    dyadic = n.bit_count() == 1 and (ranked[0] * 2.0**53).is_integer()
    if dyadic and (ranked == ranked[0] + np.arange(n) / n).all():
        return ranked, guide, 0, rows
    stride = 1 << int(np.diff(guide).max()).bit_length() - 1
    return np.append(ranked, np.full(2 * stride, 2.0)), guide, stride, rows


@compiled
def _fill_table(order, out):
    """out[k], k = 0..len(order): the packed stream whose ones are at the k positions order[:k]."""
    for w in range(out.shape[1]):
        out[0, w] = 0
    for k in range(order.size):
        for w in range(out.shape[1]):
            out[k + 1, w] = out[k, w]
        out[k + 1, order[k] >> 6] |= uint64(1) << uint64(order[k] & 63)


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool | int):
        raise BitstreamError(f"{name} is True or False, not {value!r}")
    return bool(value)


def integer(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not low <= value <= high:
        raise BitstreamError(f"{name} is an integer from {low} to {high}, not {value!r}")
    return int(value)

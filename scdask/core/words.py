"""Packed words: bit t of a stream is bit t % 64 of word t // 64; bits past its length are padding, and 0.

Padding is 0 in every Bitstream and after each of its operations. The gates that would set it, NOT and XNOR, clear it,
if they are told the length of a stream; the others cannot set it. So counts of ones never have to look at the length.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import repeat
from typing import Any, Literal

import numpy as np

WORD = 64  # bits in a word
ONES = np.uint64(2**64 - 1)

Polarity = Literal["unipolar", "bipolar"]
Mode = Literal["split", "bipolar"]
MacGate = Literal["and", "xnor"]  # the gates of a MAC; `core.gates` has all
Region = tuple[slice, ...]

RANGES: dict[Polarity, tuple[float, float]] = {"unipolar": (0.0, 1.0), "bipolar": (-1.0, 1.0)}
OPERAND_POLARITY: dict[Mode, Polarity] = {"split": "unipolar", "bipolar": "bipolar"}
OPERAND_GATE: dict[Mode, MacGate] = {"split": "and", "bipolar": "xnor"}


def rounding(dtype: np.dtype[Any]) -> float:
    """How far past the range of its polarity a value is taken as its end: 4 units in the last place of 1.

    Rounding pushes values there, in scalers for one. The smaller floats have the slack of float32.
    """
    return 2.0**-50 if dtype.itemsize >= 8 else 2.0**-21


def words_for(length: int) -> int:
    """The number of words that hold `length` bits."""
    return -(-length // WORD)


_TAILS = (ONES, *(np.uint64(2**used - 1) for used in range(1, WORD)))


def tail_mask(length: int) -> np.uint64:
    """The bits of the last word that belong to a stream of `length` bits."""
    return _TAILS[length % WORD]


def bits_in(first: int, last: int, length: int) -> int:
    """How many bits of a stream are in its words from `first` up to `last`."""
    return int(min(WORD * last, length) - min(WORD * first, length))


@dataclass  # Setting the fields of a frozen one takes as long as a small kernel.
class Part:
    """Some words of some streams of an array.

    Parameters
    ----------
    region : tuple of slice
        Where the streams are, an axis each; along the first also an array of uint64, a place each.
    shape : tuple of int
        Shape of the array of all streams, in which they are numbered in C order.
    first, last : int
        The words, from `first` up to `last`.
    """

    region: tuple[Any, ...]
    shape: tuple[int, ...]
    first: int
    last: int

    @classmethod
    def all_of(cls, shape: tuple[int, ...], length: int) -> Part:
        """All words of all streams of `length` bits."""
        return cls(tuple(map(slice, repeat(0), shape)), shape, 0, words_for(length))

    def block(self, region: Region, words: slice) -> Part:
        """The part that a block of this part is; the block is said by where it begins and ends within this part."""
        ends = zip(self.region, region, strict=True)
        moved = tuple(slice(of.start + along.start, of.start + along.stop) for of, along in ends)
        return Part(moved, self.shape, self.first + words.start, self.first + words.stop)

"""uMUL: a block needs the bits of its numbers from where the block before it stopped, and makes these alone."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.dispatch import NUMPY, backend_of
from ..core.words import WORD, Part, words_for
from ..vector_ops.counting import stream_popcount
from ..vector_ops.numbers import concatenate
from ..vector_ops.umul import products, taken_by
from .blocks import check_block
from .device import as_dask, implements
from .machines import Scan
from .sizes import check_known

if TYPE_CHECKING:
    import dask.array as da

    from ..core.words import Polarity
    from ..generators import SNG

COST = 1.1  # Counting the ones of a block takes little of the time of a product.
PIECE = 2**15  # words of numbers that are not worth a call for fewer streams


@implements(products)
def products_of(words: Any, values: Any, sng: SNG, length: int, polarity: Polarity) -> da.Array:
    numbers = as_dask(values)
    check_known(numbers)
    block = partial(_product_block, sng, length, polarity, numbers.shape)
    scan = Scan("sc-umul", block, length, 1, np.int64, _ones_block, COST, np.add, placed=True)
    return scan.over((words, numbers[..., None]), np.int64(0))[0]


def _ones_block(words: Any, values: Any, length: int) -> Any:
    return contract.on_host(stream_popcount(words))


def _product_block(
    sng: SNG,
    total: int,
    polarity: Polarity,
    shape: tuple[int, ...],
    words: Any,
    values: Any,
    before: Any,
    length: int,
    region: tuple[slice, ...],
) -> Any:
    *lead, along = region
    check_block(values, (*_own(lead, shape), slice(0, 1)))
    counted = contract.on_host(stream_popcount(words))
    ones = np.broadcast_to(contract.on_host(before), counted.shape)

    def taken(masks: Any, values: Any, starts: Any, stops: Any, lead: list[slice], inverted: bool) -> Any:
        """The bits of the numbers from `starts` to `stops`; of fewer streams at a time, if these are far apart."""
        first = min(int(starts.min(initial=total)) // WORD, words_for(total) - 1)
        last = max(words_for(int(stops.max(initial=0))), first + 1)
        count = math.prod(np.broadcast_shapes(starts.shape, values.shape))
        if last - first > 2 * (masks.shape[-1] + 1) and (last - first) * count > PIECE:
            axis = int(np.argmax(starts.shape)) - starts.ndim
            half, pieces = starts.shape[axis] // 2, []
            for these in (slice(0, half), slice(half, starts.shape[axis])):
                at = (..., these, *[slice(None)] * (-1 - axis))
                chosen = values[at] if values.ndim >= -axis and values.shape[axis] > 1 else values
                place = slice(lead[axis].start + these.start, lead[axis].start + these.stop)
                there = [place if i == len(lead) + axis else along for i, along in enumerate(lead)]
                given = contract.pick(masks, (*at, slice(None))), chosen, starts[at], stops[at]
                pieces.append(taken(*given, there, inverted))
            return concatenate(*pieces, axis=len(lead) + axis)
        part = Part(_own(lead, shape), shape, first, last)
        numbers = contract.encode_part(values, sng, total, polarity, part)
        if inverted:
            numbers = contract.gate("not", numbers)
        return taken_by(masks, numbers, (backend_of(words) or NUMPY).from_numpy(starts - WORD * first))

    product = taken(words, values[..., 0], ones, ones + counted, lead, False)
    if polarity == "bipolar":
        others, zeros = contract.gate("not", words, length=length), WORD * along.start - ones
        rest = taken(others, values[..., 0], zeros, zeros + length - counted, lead, True)
        product = contract.gate("or", product, rest)
    return product, ones + counted


def _own(lead: list[slice], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the numbers of some streams are in their array, of this shape."""
    places = lead[len(lead) - len(shape) :]
    return tuple(slice(0, 1) if n == 1 else place for n, place in zip(shape, places, strict=True))

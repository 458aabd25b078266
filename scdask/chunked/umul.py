"""uMUL: a block needs the bits of its numbers from where the block before it stopped, and makes these alone."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.dispatch import NUMPY, backend_of
from ..core.words import WORD, Part, words_for
from ..vector_ops.counting import stream_popcount
from ..vector_ops.umul import products, products_from
from .blocks import check_block
from .device import as_dask, implements
from .machines import Scan
from .sizes import check_known

if TYPE_CHECKING:
    import dask.array as da

    from ..core.words import Polarity
    from ..generators import SNG

COST = 1.1  # Counting the ones of a block takes little of the time of a product.


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
    places = lead[len(lead) - len(shape) :]
    own = tuple(slice(0, 1) if n == 1 else place for n, place in zip(shape, places, strict=True))
    check_block(values, (*own, slice(0, 1)))
    counted = contract.on_host(stream_popcount(words))
    ones = np.broadcast_to(contract.on_host(before), counted.shape)
    zeros = WORD * along.start - ones
    asked = [(ones, ones + counted)]
    if polarity == "bipolar":
        asked.append((zeros, zeros + length - counted))
    first = min((int(start.min()) // WORD for start, _ in asked if start.size), default=0)
    last = max((words_for(int(stop.max())) for _, stop in asked if stop.size), default=0)
    first = min(first, words_for(total) - 1)
    part = Part(own, shape, first, max(last, first + 1))
    starts = map((backend_of(words) or NUMPY).from_numpy, (ones, zeros))
    return products_from(words, length, values[..., 0], sng, total, polarity, part, *starts), ones + counted

"""Encoding: comparisons of probabilities with the numbers of a generator."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.digits import sfc64, state_of, threefry
from ..core.words import WORD, tail_mask
from ..vector_ops.encoding import SEGMENT, own_tiles, stream_numbers
from .device import implements, jitted, jnp, known, lax, to_jax

if TYPE_CHECKING:
    from ..core.words import Part, Polarity
    from ..generators import SNG

STEP = 8  # binary digits that a step of the Bernoulli encoder draws
FEW_STREAMS = 1024  # Up to this many long streams are compared with all numbers; others are looked up in tables.


@implements(contract.encode_part)
def encode_part(values: Any, sng: SNG, length: int, polarity: Polarity, part: Part) -> Any:
    p = _sortable(probabilities(values, polarity)).reshape(-1)
    first, last = part.first, part.last
    key = sng.key()
    if not p.size or first == last:
        flat = jnp.broadcast_to(p[:, None], (p.size, last - first))
    elif key is None and sng.own:
        flat = jnp.broadcast_to((p & np.uint64(0))[:, None], (p.size, last - first))
        for tile, numbers in own_tiles(sng, length, part):
            flat = flat.at[tile].set(contract.pack(numbers.view(np.uint64) < p[tile[0], None]))
    elif key is None:
        bits = WORD * first, min(WORD * last, length)
        long = bits[1] - bits[0] > 4 * SEGMENT
        flat = (_compare if long and p.size <= FEW_STREAMS else _look_up)(p, sng, length, *bits)
    else:
        streams = stream_numbers(part).reshape(-1)
        flat = _bernoulli(p, streams, np.uint64(first), tuple(map(np.uint64, key)), last - first)
        if WORD * last > length:
            flat = flat.at[:, -1].set(flat[:, -1] & tail_mask(length))
    return flat.reshape(*values.shape, last - first)


@implements(contract.probabilities)
def probabilities(values: Any, polarity: Polarity) -> Any:
    p = _as_float64(values)
    if known(_outside(p, polarity)):
        # This raises an error that says where, unless all are in the range but for rounding.
        return to_jax(contract.probabilities(np.asarray(values), polarity), values.sharding)
    return p if polarity == "unipolar" else (p + 1) / 2


@partial(jitted, static_argnums=1)
def _outside(p: Any, polarity: Polarity) -> Any:
    """Whether a value is outside its range, decided by its bits: XLA takes a subnormal below 0 for 0."""
    bits = lax.bitcast_convert_type(p, np.uint64)
    size = bits & np.uint64(2**63 - 1)
    return ((size > _ONE) | ((bits != size) & (size > 0) & (polarity == "unipolar"))).any()


@jitted
def _as_float64(values: Any) -> Any:
    """Real numbers as float64, bit for bit: XLA alone takes a subnormal float32 for 0."""
    if values.dtype == np.float64 or not jnp.issubdtype(values.dtype, jnp.floating):
        return values.astype(np.float64)
    single = values.astype(np.float32)
    bits = lax.bitcast_convert_type(single, np.uint32)
    size = bits & np.uint32(2**31 - 1)
    subnormal = size.astype(np.float64) * 2.0**-149
    return jnp.where(size < 2**23, jnp.where(bits > size, -subnormal, subnormal), single.astype(np.float64))


def _sortable(p: Any) -> Any:
    """The bits of probabilities, as unsigned integers in their order; below 0 and NaN become 0, above 1 becomes 1."""
    bits = lax.bitcast_convert_type(p, np.uint64)
    return jnp.where(bits > _INFINITY, np.uint64(0), jnp.minimum(bits, _ONE))


_ONE, _INFINITY = np.array([1, np.inf]).view(np.uint64)


def _compare(p: Any, sng: SNG, length: int, start: int, stop: int) -> Any:
    numbers = sng.drawn(length, start, stop).view(np.uint64)
    padded = np.pad(numbers, (0, -len(numbers) % WORD), constant_values=2**64 - 1)
    return _below(p, padded.reshape(-1, WORD))


@jitted
def _below(p: Any, numbers: Any) -> Any:
    ones = [(numbers[:, i] < p[:, None]).astype(np.uint64) << np.uint64(i) for i in range(WORD)]
    return reduce(operator.or_, ones)


def _look_up(p: Any, sng: SNG, length: int, start: int, stop: int) -> Any:
    rows = []
    for first in range(start, stop, SEGMENT):
        last = min(first + SEGMENT, stop)
        ranked, _, _, table = sng.table(length, first, last)
        rows.append(_rows_below(p, ranked[: last - first].view(np.uint64), table))
    return jnp.concatenate(rows, axis=1)


@jitted
def _rows_below(p: Any, ranked: Any, rows: Any) -> Any:
    return rows[jnp.searchsorted(ranked, p)]


@partial(jitted, static_argnums=4)
def _bernoulli(p: Any, streams: Any, first: Any, key: Any, n_words: int) -> Any:
    """The words of `jit_kernels.encoding.bernoulli`, some binary digits of all words at a time."""
    words = first + jnp.arange(n_words, dtype=np.uint64)
    state = state_of(*threefry(key[0], key[1], *jnp.broadcast_arrays(streams[:, None], words[None, :])))
    digits, certain = (
        jnp.broadcast_to(value[:, None], state[0].shape)
        for value in (_digits_of(p), jnp.where(p == _ONE, ~np.uint64(0), np.uint64(0)))
    )

    def draw(carried: Any) -> Any:
        level, state, digits, undecided, result = carried
        for step in range(STEP):
            number, state = sfc64(state, level + np.uint64(step))
            digit = np.uint64(0) - (digits >> np.uint64(WORD - 1))
            decided = undecided & (number ^ digit)
            result |= decided & digit
            undecided ^= decided
            digits <<= np.uint64(1)
        return level + np.uint64(STEP), state, digits, undecided, result

    def going_on(carried: Any) -> Any:
        _, _, digits, undecided, _ = carried
        return ((undecided != 0) & (digits != 0)).any()

    return lax.while_loop(going_on, draw, (np.uint64(1), state, digits, ~certain, certain))[-1]


def _digits_of(p: Any) -> Any:
    """The 64 binary digits of probabilities below 1, given by the bits of their doubles, rounded up."""
    exponent = (p >> np.uint64(52)).astype(np.int64)
    mantissa = p & np.uint64(2**52 - 1) | jnp.where(exponent > 0, np.uint64(2**52), np.uint64(0))
    shift = 1011 - jnp.maximum(exponent, 1)
    left, right = (jnp.clip(s, 0, WORD - 1).astype(np.uint64) for s in (-shift, shift))
    return (mantissa << left) + (np.uint64(1) << right) - np.uint64(1) >> right


@implements(contract.finite)
def finite(weights: Any) -> Any:
    numbers = _as_float64(weights)
    if known(~jnp.isfinite(numbers).all()):
        contract.finite(np.asarray(weights))  # This raises an error that says where.
    return numbers

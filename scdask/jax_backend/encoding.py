"""Encoding: comparisons of probabilities with the numbers of a generator."""

from __future__ import annotations

import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import contract
from ..core.digits import sfc64, state_of, threefry
from ..core.llvm import readonly
from ..core.words import ONES, WORD, tail_mask, words_for
from ..jit_kernels.encoding import bernoulli, look_up
from ..vector_ops.encoding import SEGMENT, own_tiles, stream_numbers, table_spans
from .device import implements, jitted, jnp, known, lax, to_jax
from .ffi import on_cpus, spread

if TYPE_CHECKING:
    from ..core.words import Part, Polarity
    from ..generators import SNG

STEP = 8  # binary digits that a step of the Bernoulli encoder draws
MANY, MANY_ROWS = 2**16, 2**23  # bits from which on drawing them, or looking them up, pays a call of Python
PART = 2**14  # words that a thread draws at least
TABLES = 16  # tables that are looked up in together, as many as are kept
FEW_STREAMS = 1024  # Up to this many long streams are compared with all numbers; others are looked up in tables.


@implements(contract.encode_part)
def encode_part(values: Any, sng: SNG, length: int, polarity: Polarity, part: Part) -> Any:
    p = _checked(values, polarity)[1]
    first, last = part.first, part.last
    key = sng.key()
    if not p.size or first == last:
        return jnp.broadcast_to(p[..., None], (*p.shape, last - first))
    if key is not None:
        options = np.array([first, *key, tail_mask(length) if last == words_for(length) else ONES], np.uint64)
        return _independent(p, stream_numbers(part), options, n_words=last - first)
    if sng.own:
        p = p.reshape(-1)
        flat = jnp.broadcast_to((p & np.uint64(0))[:, None], (p.size, last - first))
        for tile, numbers in own_tiles(sng, length, part):
            flat = flat.at[tile].set(contract.pack(numbers.view(np.uint64) < p[tile[0], None]))
        return flat.reshape(*values.shape, last - first)
    bits = WORD * first, min(WORD * last, length)
    if bits[1] - bits[0] > 4 * SEGMENT and p.size <= FEW_STREAMS:
        return _compare(p, sng, length, *bits)
    spans = list(table_spans(p.size, length, part))
    rows = [_looked_up(p, sng, length, spans[i : i + TABLES]) for i in range(0, len(spans), TABLES)]
    return rows[0] if len(rows) == 1 else _side_by_side(rows)


@implements(contract.probabilities)
def probabilities(values: Any, polarity: Polarity) -> Any:
    return _checked(values, polarity)[0]


def _checked(values: Any, polarity: Polarity) -> tuple[Any, Any]:
    """The probabilities, and the same as `_sortable` integers."""
    p, bits, outside = _probabilities(values, polarity)
    if known(outside):
        # This raises an error that says where, unless all are in the range but for rounding.
        p = to_jax(contract.probabilities(np.asarray(values), polarity), values.sharding)
        bits = _sortable(p)
    return p, bits


@partial(jitted, static_argnums=1)
def _probabilities(values: Any, polarity: Polarity) -> tuple[Any, Any, Any]:
    """The probabilities in both forms, and whether a value is outside its range."""
    p = _as_float64(values)
    # Its bits decide, because XLA takes a subnormal below 0 for 0.
    bits = lax.bitcast_convert_type(p, np.uint64)
    size = bits & np.uint64(2**63 - 1)
    outside = (size > _ONE) | ((bits != size) & (size > 0) & (polarity == "unipolar"))
    p = p if polarity == "unipolar" else (p + 1) / 2
    return p, _sortable(p), outside.any()


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


@jitted
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
    ones = [(numbers[:, i] < p[..., None]).astype(np.uint64) << np.uint64(i) for i in range(WORD)]
    return reduce(operator.or_, ones)


def _looked_up(p: Any, sng: SNG, length: int, spans: list[tuple[int, int]]) -> Any:
    tables = (sng.table(length, *span) for span in spans)
    return _rows_below(p, *(array for numbers, *others in tables for array in (numbers.view(np.uint64), *others)))


def _rows_on_cpu(p: Any, *rest: Any) -> None:
    *tables, rows = rest
    p, rows = readonly(p.reshape(-1).view(np.float64)), rows.reshape(-1, rows.shape[-1])
    first = 0
    for numbers, guide, stride, table in _by_table(tables):
        n_words = table.shape[-1]
        ranked = numbers.reshape(-1).view(np.float64)
        look_up(p, ranked, guide.reshape(-1), int(stride.item()), table.reshape(-1, n_words), first, rows)
        first += n_words


def _pays_rows(p: Any, *tables: Any) -> bool:
    return bool(WORD * p.size * sum(table.shape[-1] for *_, table in _by_table(tables)) >= MANY_ROWS)


@on_cpus("rows", _rows_on_cpu, _pays_rows)
def _rows_below(p: Any, *tables: Any) -> Any:
    """The rows of tables, side by side; each is four arrays, those of `SNG.table`, its numbers given by their bits."""
    rows = [table[jnp.searchsorted(numbers[: len(table) - 1], p)] for numbers, _, _, table in _by_table(tables)]
    return _side_by_side(rows)


def _by_table(tables: Any) -> Any:
    return zip(*[iter(tables)] * 4, strict=True)


@jitted
def _side_by_side(rows: list[Any]) -> Any:
    return jnp.concatenate(rows, axis=-1)


def _independent_on_cpu(p: Any, streams: Any, options: Any, words: Any) -> None:
    first, *key, kept = options.reshape(-1)
    streams, p = (readonly(a.reshape(-1)) for a in (np.broadcast_to(streams, p.shape), p))
    rows = words.reshape(-1, words.shape[-1])

    def draw(part: slice) -> None:
        bernoulli(p[part], streams[part], int(first), *key, rows[part])

    spread(draw, len(rows), PART // rows.shape[1] + 1)
    rows[:, -1] &= kept


def _pays(p: Any, streams: Any, options: Any, n_words: int) -> bool:
    return bool(WORD * n_words * p.size >= MANY)


@on_cpus("independent", _independent_on_cpu, _pays)
def _independent(p: Any, streams: Any, options: Any, *, n_words: int) -> Any:
    """Streams with random numbers of their own; the options are the first word, the key, and a mask of the last."""
    first, *key, kept = options
    flat = _bernoulli(p.reshape(-1), streams.reshape(-1), first, tuple(key), n_words)
    return flat.at[:, -1].set(flat[:, -1] & kept).reshape(*p.shape, n_words)


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

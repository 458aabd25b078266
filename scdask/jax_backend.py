"""JAX arrays: the functions of `vector_ops` under XLA, and spiking neurons that can be trained.

JAX makes 64-bit values only where `jax_enable_x64` is on, and by default it is off. No setting is changed here: each
function turns it on for itself alone (`jax.enable_x64`), so that words are uint64 and counts int64 whatever the setting
is. Arithmetic of your own on such arrays does the same, or takes `to_host(array)`; outside of such a scope JAX cuts the
results to 32 bits, mostly with a warning.

All functions work under `jax.jit` and `jax.vmap`. The values of traced arrays cannot be looked at: there a bit that is
not 0 is 1, padding is not checked, and a value outside the range of a stream is encoded as the nearest one inside.
Under `vmap` the streams of each part are numbered from 0, as they are where the part is encoded alone.
"""

from __future__ import annotations

import copyreg
import operator
from functools import partial, reduce, wraps
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.array.core import concatenate_lookup
from dask.sizeof import sizeof

from . import chunked, vector_ops
from ._dispatch import as_numpy
from ._extras import require
from .bitstream import Bitstream, wrap_words
from .bitstream import to_host as to_host
from .errors import BitstreamError, UnsupportedArrayError
from .jit_kernels import PAIR_BITS, PARITY, ROTATIONS, ROUNDS, WORD, tail_mask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .encoding import SNG
    from .vector_ops import Gate, Polarity, Region

jax = require("jax", "jax")
jnp, lax = jax.numpy, jax.lax

SLICES = 8  # of a row, whose popcounts are added before they are summed: XLA is slow at sums along vectors
LANES = 8  # words in a vector
UNROLL = 16  # words that a step of a MAC counts: more registers spill, fewer wait for the sums in memory
LEVELS = 8  # binary digits that a step of the Bernoulli encoder draws, an even number
FEW_STREAMS = 1024  # up to so many are compared with all numbers if they are long; others are looked up in tables
FEW_ROWS = 2  # up to so many, a MAC is a sum along the words, else one across the rows


def _exact(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func` where JAX keeps 64 bits."""

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        with jax.enable_x64(True):
            return func(*args, **kwargs)

    return call


def _known(flag: Any) -> bool:
    """Whether the flag is set, as far as that can be known: under a trace even constants cannot be looked at."""
    return not isinstance(flag, jax.core.Tracer) and bool(flag)


def _as_numpy_does(func: Callable[..., Any]) -> Callable[..., Any]:
    """`func` by NumPy, but for traced arrays: XLA takes subnormal numbers for 0, and multiplies by reciprocals."""

    @wraps(func)
    def call(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(arg, jax.core.Tracer) for arg in args):
            return func(*args, **kwargs)
        return to_jax(func(*(np.asarray(arg) if isinstance(arg, jax.Array) else arg for arg in args), **kwargs))

    return call


# To the device and back


def to_jax(arr: Any) -> Any:
    """Copy an array to JAX's default device, with all its bits: uint64 stays uint64.

    Parameters
    ----------
    arr : array_like, dask Array or Bitstream

    Returns
    -------
    jax.Array, dask Array of such blocks, or Bitstream of one of them
        Of the same shape and dtype. A JAX array is returned as it is.

    Raises
    ------
    UnsupportedArrayError
        If it is a masked array or no array of numbers.
    """
    if isinstance(arr, jax.Array):
        return arr
    if isinstance(arr, Bitstream):
        return wrap_words(to_jax(arr.words), arr.length, arr.polarity, arr.sng)
    if isinstance(arr, da.Array):
        return arr.map_blocks(to_jax, dtype=arr.dtype, meta=to_jax(np.zeros((0,) * arr.ndim, arr.dtype)))
    values = as_numpy(arr, "what goes to JAX")
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    with jax.enable_x64(True):
        try:
            return jnp.array(values)
        except TypeError:
            raise UnsupportedArrayError(f"JAX has no arrays of {values.dtype}") from None


def _pickled(array: Any) -> Any:
    # JAX unpickles by device_put, which without x64 keeps the lower half of each number.
    return (to_jax, (np.asarray(array),)) if array.dtype.itemsize >= 8 else array.__reduce__()


# Packing


def pack_bitstream(bitstream: Any) -> Any:
    vector_ops.check_bit_array(bitstream)
    words, other = _pack(bitstream)
    if _known(other):
        vector_ops.pack_bitstream(np.asarray(bitstream))  # which says where
    return words


@jax.jit
def _pack(bits: Any) -> tuple[Any, Any]:
    """The words, and whether there was anything but 0 and 1."""
    *lead, length = bits.shape
    n_words = vector_ops.words_for(length)
    padding = [*[(0, 0)] * len(lead), (0, WORD * n_words - length)]
    bits = jnp.pad(bits, padding).reshape(*lead, n_words, WORD)

    def gathered(chosen: Any) -> Any:
        return reduce(operator.or_, [chosen[..., i].astype(np.uint64) << np.uint64(i) for i in range(WORD)])

    return gathered(bits != 0), (gathered((bits != 0) & (bits != 1)) != 0).any()


def unpack_bitstream(packed: Any, original_length: int, original_shape: tuple[int, ...] | None = None) -> Any:
    words = as_words(packed)
    length, shape = vector_ops.unpacked_shape(words.shape, original_length, original_shape)
    return _unpack(words, length).reshape(shape)


@partial(jax.jit, static_argnums=1)
def _unpack(words: Any, length: int) -> Any:
    bits = (words[..., None] >> np.arange(WORD, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
    return bits.reshape(*words.shape[:-1], WORD * words.shape[-1])[..., :length]


def as_words(packed: Any) -> Any:
    if not isinstance(packed, jax.Array):
        return jnp.array(vector_ops.as_words(packed))
    if packed.dtype == np.uint32:
        raise BitstreamError("packed words are uint64, not uint32: to_jax keeps the 64 bits that jnp.asarray cuts off")
    vector_ops.check_words(packed)
    return packed


def check_tail(packed: Any, length: int) -> Any:
    words = as_words(packed)
    length = vector_ops.check_length(length, words.shape[-1])
    if length % WORD and _known(_dirty(words, ~tail_mask(length))):
        vector_ops.check_tail(np.asarray(words), length)  # which says where
    return words


@jax.jit
def _dirty(words: Any, padding: Any) -> Any:
    return (words[..., -1] & padding).any()


def mask_tail(packed: Any, length: int) -> Any:
    words = as_words(packed)
    return words & _kept(length, words)


def _kept(length: int | None, words: Any) -> Any:
    """What AND keeps of a stream's words: all but the padding."""
    kept = np.full(words.shape[-1], ~np.uint64(0))
    if length is not None:
        length = vector_ops.check_length(length, words.shape[-1])
        if length % WORD:
            kept[-1] = tail_mask(length)
    return kept


# Gates


def _operands(*packed: Any) -> list[Any]:
    words = [as_words(p) for p in packed]
    vector_ops.check_gate(*words)
    return words


def vec_and(a_packed: Any, b_packed: Any) -> Any:
    a, b = _operands(a_packed, b_packed)
    return a & b


def vec_or(a_packed: Any, b_packed: Any) -> Any:
    a, b = _operands(a_packed, b_packed)
    return a | b


def vec_xor(a_packed: Any, b_packed: Any) -> Any:
    a, b = _operands(a_packed, b_packed)
    return a ^ b


def vec_xnor(a_packed: Any, b_packed: Any, length: int | None = None) -> Any:
    a, b = _operands(a_packed, b_packed)
    return _xnor(a, b, _kept(length, a))


@jax.jit
def _xnor(a: Any, b: Any, kept: Any) -> Any:
    return ~(a ^ b) & kept


def vec_not(packed: Any, length: int | None = None) -> Any:
    words = as_words(packed)
    return _not(words, _kept(length, words))


@jax.jit
def _not(words: Any, kept: Any) -> Any:
    return ~words & kept


def vec_mux(select_packed: Any, a_packed: Any, b_packed: Any) -> Any:
    return _mux(*_operands(select_packed, a_packed, b_packed))


@jax.jit
def _mux(select: Any, a: Any, b: Any) -> Any:
    return b ^ select & (a ^ b)


# Counting


def popcount(packed: Any) -> Any:
    return _popcount(as_words(packed))


@jax.jit
def _popcount(words: Any) -> Any:
    return lax.population_count(words).astype(np.uint8)


def stream_popcount(packed: Any) -> Any:
    return _stream_ones(as_words(packed))


@jax.jit
def _stream_ones(words: Any) -> Any:
    return _ones(words)


def _ones(*operands: Any, gate: Callable[..., Any] = lambda words: words) -> Any:
    """The ones of gate(*operands) along the last axis, of SLICES slices of it at once."""
    width = operands[0].shape[-1]
    sums = np.int32 if WORD * width < 2**31 else np.int64  # XLA adds up int32 faster
    size = width // SLICES
    parts = [slice(i * size, (i + 1) * size) for i in range(SLICES if size >= LANES else 0)]
    rest = slice(parts[-1].stop if parts else 0, width)

    def count(part: slice) -> Any:
        return lax.population_count(gate(*(words[..., part] for words in operands))).astype(sums)

    total = count(rest).sum(axis=-1, dtype=sums)
    if parts:
        total += reduce(operator.add, map(count, parts)).sum(axis=-1, dtype=sums)
    return total.astype(np.int64)


def vec_popcount(packed: Any) -> Any:
    return _total(as_words(packed))


@jax.jit
def _total(words: Any) -> Any:
    return _ones(words).sum(dtype=np.int64)


# Multiply-accumulate


def gate_counts(weights: Any, inputs: Any, gate: Gate) -> Any:
    weights, inputs = as_words(weights), as_words(inputs)
    vector_ops.check_mac(weights, inputs, "and", None)
    return _mac(weights, inputs, gate == "xnor")


@partial(jax.jit, static_argnums=2)
def _mac(weights: Any, inputs: Any, xor: bool) -> Any:
    """The counts of AND or XOR. XLA fuses gate, popcount and sum: no product is stored."""
    size = weights.shape[1] * weights.shape[2]
    w, x = (words.reshape(*words.shape[:-2], size) for words in (weights, inputs))
    gate = lax.bitwise_xor if xor else lax.bitwise_and

    def one(row: Any, rows: Any) -> Any:
        return _ones(jnp.broadcast_to(row, rows.shape), rows, gate=gate)

    if x.ndim == 1:
        return one(x, w)
    if not (len(x) and len(w)):
        return jnp.zeros((len(x), len(w)), np.int64)
    if len(x) <= FEW_ROWS:
        return jnp.stack([one(row, w) for row in x])
    if len(w) <= FEW_ROWS:
        return jnp.stack([one(row, x) for row in w], axis=1)
    return _across(w, x, gate) if len(w) >= len(x) else _across(x, w, gate).T


def _across(wide: Any, narrow: Any, gate: Callable[..., Any]) -> Any:
    """The counts (narrow, wide): vectors go along the rows of `wide`, and each step adds up a few words of each."""
    steps = -(-wide.shape[1] // UNROLL)
    padding = [(0, 0), (0, steps * UNROLL - wide.shape[1])]
    columns = [jnp.pad(rows, padding).T.reshape(steps, UNROLL, len(rows)) for rows in (wide, narrow)]

    def step(counts: Any, words: list[Any]) -> tuple[Any, None]:
        shape = counts.shape
        ones = [
            lax.population_count(gate(jnp.broadcast_to(a[None, :], shape), jnp.broadcast_to(b[:, None], shape)))
            for a, b in zip(*words, strict=True)
        ]
        return counts + reduce(operator.add, ones).astype(np.int64), None

    return lax.scan(step, jnp.zeros((len(narrow), len(wide)), np.int64), columns)[0]


# Encoding


def encode_region(
    values: Any,
    sng: SNG,
    length: int,
    polarity: Polarity,
    region: Region,
    shape: tuple[int, ...],
    words: tuple[int, int],
) -> Any:
    p = _sortable(probabilities(values, polarity)).reshape(-1)
    first, last = words
    key = sng.key()
    if not p.size or first == last:
        flat = jnp.zeros((p.size, last - first), np.uint64)
    elif key is None:
        bits = WORD * first, min(WORD * last, length)
        long = bits[1] - bits[0] > 4 * vector_ops.SEGMENT
        flat = (_compare if long and p.size <= FEW_STREAMS else _look_up)(p, sng, length, *bits)
    else:
        streams = vector_ops.stream_numbers(region, shape).reshape(-1)
        flat = _bernoulli(p, streams, np.uint64(first), tuple(map(np.uint64, key)), last - first)
        if WORD * last > length:
            flat = flat.at[:, -1].set(flat[:, -1] & tail_mask(length))
    return flat.reshape(*values.shape, last - first)


def encode_words(values: Any, sng: SNG, length: int, polarity: Polarity = "unipolar") -> Any:
    length = vector_ops.check_encoding(length, sng, polarity)
    words = (0, vector_ops.words_for(length))
    whole = vector_ops.whole(values.shape)
    return vector_ops.encode_region(values, sng, length, polarity, whole, values.shape, words)


def probabilities(values: Any, polarity: Polarity) -> Any:
    vector_ops.check_real(values)
    p = _as_float64(values)
    if _known(_outside(p, polarity)):
        vector_ops.probabilities(np.asarray(values), polarity)  # which says where
    return p if polarity == "unipolar" else (p + 1) / 2


@partial(jax.jit, static_argnums=1)
def _outside(p: Any, polarity: Polarity) -> Any:
    """Whether a value is outside its range, decided by its bits: XLA takes a subnormal below 0 for 0."""
    bits = lax.bitcast_convert_type(p, np.uint64)
    size = bits & np.uint64(2**63 - 1)
    return ((size > _ONE) | ((bits != size) & (size > 0) & (polarity == "unipolar"))).any()


@jax.jit
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
    """The bits of probabilities, as unsigned integers of the same order; what is below 0 or NaN is 0, above 1 is 1."""
    bits = lax.bitcast_convert_type(p, np.uint64)
    return jnp.where(bits > _INFINITY, np.uint64(0), jnp.minimum(bits, _ONE))


_ONE, _INFINITY = np.array([1, np.inf]).view(np.uint64)


def _compare(p: Any, sng: SNG, length: int, start: int, stop: int) -> Any:
    numbers = sng.drawn(length, start, stop).view(np.uint64)
    padded = np.pad(numbers, (0, -len(numbers) % WORD), constant_values=2**64 - 1)
    return _below(p, padded.reshape(-1, WORD))


@jax.jit
def _below(p: Any, numbers: Any) -> Any:
    ones = [(numbers[:, i] < p[:, None]).astype(np.uint64) << np.uint64(i) for i in range(WORD)]
    return reduce(operator.or_, ones)


def _look_up(p: Any, sng: SNG, length: int, start: int, stop: int) -> Any:
    rows = []
    for first in range(start, stop, vector_ops.SEGMENT):
        last = min(first + vector_ops.SEGMENT, stop)
        ranked, _, _, table = sng.table(length, first, last)
        rows.append(_rows_below(p, ranked[: last - first].view(np.uint64), table))
    return jnp.concatenate(rows, axis=1)


@jax.jit
def _rows_below(p: Any, ranked: Any, rows: Any) -> Any:
    return rows[jnp.searchsorted(ranked, p)]


@partial(jax.jit, static_argnums=4)
def _bernoulli(p: Any, streams: Any, first: Any, key: Any, n_words: int) -> Any:
    """The words of `jit_kernels.bernoulli`, some binary digits of all words at a time."""
    exponent = (p >> np.uint64(52)).astype(np.int64)
    mantissa = p & np.uint64(2**52 - 1) | jnp.where(exponent > 0, np.uint64(2**52), np.uint64(0))
    highest = 1074 - jnp.maximum(exponent, 1)  # the bit of the mantissa that is the first binary digit
    lowest = lax.population_count((mantissa & (~mantissa + np.uint64(1))) - np.uint64(1)).astype(np.int64)
    digits = jnp.where(mantissa == 0, 0, highest - lowest + 1)
    mantissa, highest, digits, one = (v[:, None] for v in (mantissa, highest, digits, p == _ONE))
    counter = first + jnp.arange(n_words, dtype=np.uint64) << np.uint64(PAIR_BITS)

    def draw(state: Any) -> Any:
        level, undecided, result = state
        for pair in range(LEVELS // 2):
            at = counter | (level // 2 + pair).astype(np.uint64)
            for i, number in enumerate(_threefry(key, streams[:, None], at[None, :])):
                place = highest - level - (2 * pair + i)
                inside = (place >= 0) & (place < WORD)
                digit = mantissa >> jnp.clip(place, 0, WORD - 1).astype(np.uint64) & np.uint64(1)
                ones = jnp.where(one | inside & (digit == 1), ~np.uint64(0), np.uint64(0))
                result |= undecided & ones & ~number
                undecided &= ~(number ^ ones)
        return level + LEVELS, undecided, result

    def going_on(state: Any) -> Any:
        level, undecided, _ = state
        return (level < 1074) & ((undecided != 0) & (one | (level < digits))).any()

    shape = (len(p), n_words)
    start = (jnp.int64(0), jnp.full(shape, ~np.uint64(0)), jnp.zeros(shape, np.uint64))
    return lax.while_loop(going_on, draw, start)[2]


def _threefry(key: tuple[Any, Any], counter0: Any, counter1: Any) -> tuple[Any, Any]:
    keys = (*key, np.uint64(PARITY) ^ key[0] ^ key[1])
    x0, x1 = counter0 + key[0], counter1 + key[1]
    for i in range(ROUNDS):
        x0 = x0 + x1
        turn = ROTATIONS[i % 8]
        x1 = (x1 << np.uint64(turn) | x1 >> np.uint64(WORD - turn)) ^ x0
        if i % 4 == 3:
            j = i // 4 + 1
            x0 = x0 + keys[j % 3]
            x1 = x1 + (keys[(j + 1) % 3] + np.uint64(j))
    return x0, x1


# Layers


def as_weights(values: Any) -> Any:
    vector_ops.check_real(values)
    weights = _as_float64(values)
    if _known(~jnp.isfinite(weights).all()):
        vector_ops.as_weights(np.asarray(values))  # which says where
    return weights


@jax.jit
def divide(a: Any, b: Any) -> Any:
    a, b = jnp.asarray(a, np.float64), jnp.asarray(b, np.float64)
    # XLA would multiply by the reciprocal of a number that several are divided by. It cannot know that 0 * a is 0.
    return a / (b + 0 * a)


def on_host(array: Any) -> Any:
    try:
        return np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        raise
    except TypeError:
        raise UnsupportedArrayError(f"NumPy has no arrays of {array.dtype}") from None


def pick(words: Any, index: tuple[Any, ...]) -> Any:
    if not any(isinstance(part, jax.core.Tracer) for part in index):
        index = tuple(np.asarray(part) if isinstance(part, jax.Array) else part for part in index)
        np.broadcast_to(False, words.shape)[index]  # raises an IndexError where JAX takes the nearest element
    return words[index]


def concatenate(*arrays: Any) -> Any:
    return jnp.concatenate(arrays)


def from_numpy(like: Any) -> Callable[[Any], Any]:
    return to_jax


def as_dask(array: Any, chunks: Any = None) -> Any:
    return to_jax(chunked.as_dask(np.asarray(array), chunks))


# The names of the reference


def jax_pack_bitstream(bits: Any) -> Any:
    """`vector_ops.pack_bitstream` as a JAX array."""
    return vector_ops.pack_bitstream(to_jax(bits))


def jax_vec_and(a: Any, b: Any) -> Any:
    """`vector_ops.vec_and` as a JAX array."""
    return vector_ops.vec_and(to_jax(a), to_jax(b))


def jax_popcount(packed: Any) -> Any:
    """`vector_ops.popcount`, the ones in each word, as a JAX array."""
    return vector_ops.popcount(to_jax(packed))


def jax_vec_mac(packed_weights: Any, packed_inputs: Any) -> Any:
    """`vector_ops.vec_mac` as a JAX array."""
    return vector_ops.vec_mac(to_jax(packed_weights), to_jax(packed_inputs))


# Spiking neurons


@jax.custom_jvp
def spike(v: Any, slope: float) -> Any:
    """1 where v >= 0, else 0; its derivative is that of a fast sigmoid, 1 / (1 + slope * |v|)**2 [1]_.

    Parameters
    ----------
    v : array of float
        The membrane potential less the threshold.
    slope : float
        How narrow the surrogate derivative is.

    References
    ----------
    .. [1] Zenke and Ganguli: SuperSpike. Neural Computation 30, 2018.
    """
    return jnp.where(v >= 0, jnp.ones_like(v), 0)


@spike.defjvp
def _spike_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (v, slope), (dv, _) = primals, tangents
    return spike(v, slope), dv / (1 + slope * jnp.abs(v)) ** 2


def jax_lif_step(
    v: Any,
    I_t: Any,
    v_rest: Any,
    v_reset: Any,
    v_threshold: Any,
    alpha: Any,
    resistance: Any,
    noise: Any,
) -> tuple[Any, Any]:
    """One step of leaky integrate-and-fire neurons.

    v + (v_rest - v) * alpha + I_t * resistance + noise is the new potential; where it reaches the threshold, the neuron
    spikes and is reset. Here alpha is the share of the distance to v_rest that a step loses; in `jax_forward_pass` it
    is the share that a step keeps. Both are the reference's.

    Parameters
    ----------
    v : array of float
        Membrane potentials.
    I_t : array of float
        Input currents.
    v_rest, v_reset, v_threshold : float or array
    alpha : float or array
        The leak, 0 to 1.
    resistance : float or array
        What a unit of current adds to the potential in one step.
    noise : float or array
        Added to the potential.

    Returns
    -------
    v : array of float, of the shape that all parameters broadcast to
        In JAX's precision: float32, unless `jax_enable_x64` is on.
    spikes : array of uint8, of the same shape

    Raises
    ------
    BitstreamError
        If the shapes do not broadcast, or something is no real number.
    """
    given = [_as_float(p) for p in (v, I_t, v_rest, v_reset, v_threshold, alpha, resistance, noise)]
    try:
        np.broadcast_shapes(*(p.shape for p in given))
    except ValueError:
        shapes = ", ".join(str(p.shape) for p in given if p.ndim)
        raise BitstreamError(f"the parameters of neurons broadcast, but not {shapes}") from None
    step: tuple[Any, Any] = _lif_step(*given)
    return step


@jax.jit
def _lif_step(
    v: Any, current: Any, v_rest: Any, v_reset: Any, v_threshold: Any, alpha: Any, resistance: Any, noise: Any
) -> tuple[Any, Any]:
    v = v + (v_rest - v) * alpha + current * resistance + noise
    fires = v >= v_threshold
    return jnp.where(fires, v_reset, v), fires.astype(jnp.uint8)


def jax_forward_pass(
    weights: Sequence[Any],
    x: Any,
    n_steps: int,
    v_rest: float = 0.0,
    v_reset: float = 0.0,
    v_threshold: float = 1.0,
    alpha: float = 0.9,
) -> tuple[list[Any], Any]:
    """Spikes of layers of leaky integrate-and-fire neurons under a constant input.

    In each step and layer, from the first on, with W the weights and s_below what the layer below put out in this step
    (for the first layer the input)::

        v = v_rest + alpha * (v - v_rest) + W @ s_below
        s = v >= v_threshold
        v = v_reset where s

    For v_rest = v_reset = 0 that is v = alpha * v * (1 - s) + W @ s_below with the s of the step before. All neurons
    start at v_rest. The reset is not differentiated. Here alpha is the share of the distance to v_rest that a step
    keeps; in `jax_lif_step` it is the share that a step loses. Both are the reference's.

    Parameters
    ----------
    weights : sequence of array of float, each (n_neurons, n_inputs)
    x : array of float, shape (..., n_inputs)
        The input of every step.
    n_steps : int
        At least 1; the loop is compiled once, whatever their number.
    v_rest, v_reset, v_threshold : float
    alpha : float

    Returns
    -------
    spikes : list of array of float, each (n_steps, ..., n_neurons)
        0 and 1, a layer each.
    v : array of float, shape (..., n_neurons)
        Final potentials of the last layer.

    Raises
    ------
    BitstreamError
        If the shapes do not fit.
    """
    layers, inputs = _as_layers(weights, x)
    constants = [_as_float(p) for p in (v_rest, v_reset, v_threshold, alpha)]
    for constant in constants:
        if constant.ndim:
            raise BitstreamError(f"rest, reset, threshold and alpha are numbers, not an array {constant.shape}")
    run: tuple[list[Any], Any] = _forward(layers, inputs, _steps(n_steps), *constants)
    return run


def _as_float(values: Any) -> Any:
    """Real numbers as JAX has them: in float32, unless it has 64 bits."""
    if not isinstance(values, jax.Array):
        values = as_numpy(values, "what neurons take")
    dtype = values.dtype
    if not (
        jnp.issubdtype(dtype, np.bool) or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
    ):
        raise BitstreamError(f"neurons take real numbers, not {dtype}")
    kept = dtype if jnp.issubdtype(dtype, jnp.floating) else np.dtype(float)
    return jnp.asarray(values, jax.dtypes.canonicalize_dtype(kept))


def _as_layers(weights: Sequence[Any], x: Any) -> tuple[list[Any], Any]:
    if not isinstance(weights, list | tuple) or not weights:
        given = "an empty one" if isinstance(weights, list | tuple) else type(weights).__name__
        raise BitstreamError(f"the weights of a network are a list of arrays, one a layer, not {given}")
    layers, inputs = [_as_float(w) for w in weights], _as_float(x)
    width = inputs.shape[-1] if inputs.ndim else None
    for i, layer in enumerate(layers):
        if layer.ndim != 2 or layer.shape[1] != width:
            raise BitstreamError(f"layer {i} takes weights (n_neurons, {width}), not {layer.shape}")
        width = layer.shape[0]
    return layers, inputs


def _steps(n_steps: Any) -> int:
    try:
        steps = operator.index(n_steps)
    except TypeError:
        steps = 0
    if isinstance(n_steps, bool) or not 1 <= steps < 2**31:
        raise BitstreamError(f"the number of steps is an integer of at least 1, not {n_steps!r}")
    return steps


@partial(jax.jit, static_argnums=2)
def _forward(
    weights: list[Any],
    x: Any,
    n_steps: int,
    v_rest: Any,
    v_reset: Any,
    v_threshold: Any,
    alpha: Any,
    slope: Any = 0.0,
) -> tuple[list[Any], Any]:
    dtype = jnp.result_type(x, *weights)
    x, v_rest, v_reset, v_threshold, alpha = (jnp.asarray(p, dtype) for p in (x, v_rest, v_reset, v_threshold, alpha))

    def step(potentials: list[Any], _: None) -> tuple[list[Any], list[Any]]:
        below, after, spikes = x, [], []
        for w, v in zip(weights, potentials, strict=True):
            v = v_rest + alpha * (v - v_rest) + (below @ w.T).astype(dtype)
            below = spike(v - v_threshold, slope)
            after.append(jnp.where(v >= v_threshold, v_reset, v))
            spikes.append(below)
        return after, spikes

    start = [jnp.full((*x.shape[:-1], len(w)), v_rest, dtype) for w in weights]
    potentials, spikes = lax.scan(step, start, length=n_steps)
    return spikes, potentials[-1]


def jax_surrogate_gradient_step(
    weights: Sequence[Any], x: Any, targets: Any, n_steps: int = 25, lr: float = 1e-3, beta: float = 10.0
) -> tuple[list[Any], Any]:
    """One step of gradient descent on a network of leaky integrate-and-fire neurons.

    The loss is the cross-entropy of the targets with the softmax of the output neurons' mean rates in
    `jax_forward_pass`. Where a spike has no derivative, that of a fast sigmoid stands for it (`spike`). `scdask.snn`
    trains with an optimiser, a membrane read-out and over a cluster.

    Parameters
    ----------
    weights : sequence of array of float, each (n_neurons, n_inputs)
    x : array of float, shape (batch, n_inputs)
        The input of every step.
    targets : array, shape (batch, n_classes) or (batch,)
        Probabilities of the classes, such as one-hot rows, or labels as integers from 0.
    n_steps : int
    lr : float
        Learning rate.
    beta : float
        Slope of the surrogate.

    Returns
    -------
    weights : list of array of float
        The given ones less lr times their gradients.
    loss : array of float, shape ()
        Before the step, in nats.

    Raises
    ------
    BitstreamError
        If the shapes do not fit.
    """
    layers, x = _as_layers(weights, x)
    classes = len(layers[-1])
    if x.ndim != 2 or not len(x) or np.shape(targets) not in (x.shape[:1], (len(x), classes)):
        raise BitstreamError(
            f"{classes} outputs are trained with x (batch, n_inputs) and targets (batch,) or (batch, {classes}), "
            f"not {x.shape} and {np.shape(targets)}"
        )
    wanted = _one_hot(targets, classes) if np.ndim(targets) == 1 else targets
    step: tuple[list[Any], Any] = _descend(layers, x, _as_float(wanted), _steps(n_steps), lr, beta)
    return step


def _one_hot(labels: Any, classes: int) -> Any:
    if not isinstance(labels, jax.core.Tracer):
        labels = np.asarray(labels)
        low, high = labels.min(), labels.max()
        if jnp.issubdtype(labels.dtype, jnp.integer) and not 0 <= low <= high < classes:
            raise BitstreamError(f"labels are 0 to {classes - 1}, but there are {low} to {high}")
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise BitstreamError(f"labels are integers, not {labels.dtype}")
    return jax.nn.one_hot(jnp.asarray(labels, np.int32), classes)


@partial(jax.jit, static_argnums=3)
def _descend(weights: list[Any], x: Any, targets: Any, n_steps: int, lr: Any, slope: Any) -> tuple[list[Any], Any]:
    def loss(weights: list[Any]) -> Any:
        spikes, _ = _forward(weights, x, n_steps, 0.0, 0.0, 1.0, 0.9, slope)
        return -(targets * jax.nn.log_softmax(spikes[-1].mean(axis=0))).sum(axis=1).mean()

    value, gradients = jax.value_and_grad(loss)(weights)
    return [(w - lr * g).astype(w.dtype) for w, g in zip(weights, gradients, strict=True)], value


# Where these kernels are found


def _register(name: str, func: Callable[..., Any]) -> None:
    exact = _exact(func)
    for cls in (jax.Array, jax.core.Tracer):
        getattr(vector_ops, name).register(cls, exact)


for _func in (
    pack_bitstream,
    unpack_bitstream,
    as_words,
    check_tail,
    mask_tail,
    vec_and,
    vec_or,
    vec_xor,
    vec_xnor,
    vec_not,
    vec_mux,
    popcount,
    stream_popcount,
    vec_popcount,
    gate_counts,
    probabilities,
    encode_region,
    encode_words,
    as_weights,
    divide,
    on_host,
    pick,
    concatenate,
    from_numpy,
):
    _register(_func.__name__, _func)
for _name in ("vec_mac", "encode_mac", "encoded_counts", "in_64_bits"):  # their NumPy bodies do for JAX
    _register(_name, getattr(vector_ops, _name).__wrapped__)
for _name in ("exactly", "largest", "split_signs"):
    _register(_name, _as_numpy_does(getattr(vector_ops, _name).__wrapped__))
chunked.as_dask.register(jax.Array, as_dask)


def _concatenate(arrays: Any, axis: int = 0) -> Any:
    with jax.enable_x64(True):
        return jnp.concatenate(arrays, axis)


concatenate_lookup.register(jax.Array, _concatenate)
sizeof.register(jax.Array, lambda array: array.nbytes)
for _cls in jax.Array.__subclasses__():
    if _cls.__name__ == "ArrayImpl":
        copyreg.pickle(_cls, _pickled)


def _unflattened(kind: tuple[int, Polarity], words: Any) -> Bitstream:
    if getattr(words[0], "dtype", None) == np.uint32:
        raise BitstreamError("packed words are uint64, not uint32: JAX has cut off half of their bits")
    return wrap_words(words[0], *kind)


jax.tree_util.register_pytree_node(
    Bitstream, lambda stream: ((to_jax(stream.words),), (stream.length, stream.polarity)), _unflattened
)

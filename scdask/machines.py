"""Circuits with memory: finite-state machines over streams, and functions of your own along time.

Division, square roots, tanh, counting adders and whatever makes streams correlate have memory: what they write depends
on the bits before. Such a circuit is a `Machine`, two tables; `run` runs it. A saturating counter of 8 states, which
writes a one in its upper half, computes tanh(4 x) of a bipolar stream:

>>> import math
>>> import scdask as sc
>>> def step(state, x):
...     return min(max(state + 2 * x - 1, 0), 7), int(state >= 4)
>>> counter = sc.Machine.from_step(step, states=8, start=4)
>>> x = sc.encode(0.25, 2**16, polarity="bipolar")
>>> round(float(sc.run(counter, x).decode()), 2), round(math.tanh(4 * 0.25), 2)
(0.78, 0.76)

That is how one adds a circuit, to scdask or to a program of one's own. `scdask.arithmetic`, `scdask.correlation` and
`scdask.faults` have the known ones. `counter.to_verilog("stanh8")` is the hardware, which gives the same bits. The
command `scdask run` is another thing: it runs circuits on an image file.

Time
----
Bit t of a stream comes at time t: it is bit t % 64 of word t // 64. A stream may be run part by part, each from the
states in which the one before it ended:

>>> first, states = sc.run(counter, x.bits[:1000], return_states=True)
>>> second = sc.run(counter, x.bits[1000:], start=states)
>>> int(first.popcount() + second.popcount()) == int(sc.run(counter, x).popcount())
True

Lazy streams may be chunked along all axes, along time too, and their chunks stay as they are. Where time is chunked,
each chunk waits for the states in which the one before it ends. Where there are fewer rows of chunks than threads,
what a chunk does to each state is found first, so that chunks of one row run at once.

A function of your own that is called for each chunk of words, with `dask.array.map_blocks` for one, would begin anew
in each chunk along time, and the result depend on the chunks: `map_time` hands its state on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .bitstream import check_alike, wrap_words
from .core.checks import check_polarity
from .core.machines import Machine
from .vector_ops import machines as over_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bitstream import Bitstream
    from .core.words import Polarity

__all__ = ["Machine", "map_time", "run"]


def run(
    machine: Machine,
    *streams: Bitstream,
    start: Any = None,
    return_states: bool = False,
    polarity: Polarity | None = None,
) -> Any:
    """Run a machine over streams.

    Parameters
    ----------
    machine : Machine
    *streams : Bitstream
        As many as the machine reads, of one length; shapes broadcast. Their polarities may differ.
    start : int or array of int, optional
        The state in which each stream begins, of a shape that broadcasts to that of the streams. By default that of
        the machine. Under `jax.jit` nothing can check it: a number that is no state becomes the nearest one.
    return_states : bool
        Whether to return the states in which the streams end too.
    polarity : {"unipolar", "bipolar"}, optional
        Of the result; by default that of the first stream.

    Returns
    -------
    Bitstream, or two for a machine that writes two
        Lazy, in the same chunks, if a stream is lazy.
    states : array of uint8, of the shape of the streams
        If `return_states` is true. With them as `start` a later part of the streams goes on.

    Raises
    ------
    BitstreamError
        If the streams are too many or too few, or do not fit each other, or a start is no state of the machine.

    Examples
    --------
    A flip-flop that keeps its bit where the second stream is 0 (CORDIV, a divider):

    >>> from scdask import Machine, Sobol, encode
    >>> keep = Machine.from_step(lambda q, x, y: (x if y else q, x if y else q), states=2, inputs=2)
    >>> x, y = (encode(p, 256, sng=Sobol(1)) for p in (0.25, 0.5))
    >>> float(run(keep, x, y).decode())
    0.5
    """
    over_words.check_machine(machine, len(streams))
    check_alike(*streams, polarity=False)
    if polarity is not None:
        check_polarity(polarity)
    length = streams[0].length
    *words, states = over_words.run_machine(machine, *(stream.words for stream in streams), length=length, start=start)
    return _results(words, states, return_states, length, polarity or streams[0].polarity)


def map_time(
    kernel: Callable[..., Any],
    *streams: Bitstream,
    state: Any = None,
    outputs: int = 1,
    return_states: bool = False,
    polarity: Polarity | None = None,
) -> Any:
    """Call a function of your own on words along time, chunk after chunk, and hand its state on.

    Parameters
    ----------
    kernel : callable
        kernel(*words, length=n), or kernel(*words, state=state, length=n) if there is a state. The words are uint64
        (..., n_words), of one shape, and hold the next n bits of the streams, the earliest in the lowest bit of the
        first word; all chunks but the last are of whole words. It returns as many words as come in for each output, in
        a tuple if there are several, and with a state the pair of that and the next state, of the same shape and dtype.
        Padding that it sets is cleared. It must not write to what it is given.
    *streams : Bitstream
        Of one length; shapes broadcast.
    state : array_like, optional
        The first state of each stream, of a shape that broadcasts to that of the streams, or of that shape with more
        axes after it, and of the dtype that the kernel needs: uint64 to meet words. Without it, the result at a bit
        depends on the bits of its word alone.
    outputs : int
        How many streams it writes for one of each input.
    return_states : bool
        Whether to return the state after the last bit too.
    polarity : {"unipolar", "bipolar"}, optional
        Of the result; by default that of the first stream.

    Returns
    -------
    Bitstream, or a tuple of them
        Lazy, in the same chunks, if a stream is lazy.
    states : array, of the dtype of the first state
        If `return_states` is true.

    Raises
    ------
    BitstreamError
        If the streams do not fit each other, or the kernel returns anything else.

    Examples
    --------
    Every bit, 10 steps later: the state is the word before.

    >>> import numpy as np
    >>> import scdask as sc
    >>> def later(words, state, length):
    ...     before = np.concatenate([state[..., None], words[..., :-1]], axis=-1)
    ...     return words << np.uint64(10) | before >> np.uint64(54), words[..., -1]
    >>> x = sc.encode([0.25, 0.5], 256, sng=sc.Thermometer())
    >>> y = sc.map_time(later, x, state=np.uint64(0))
    >>> y.popcount(), y.bits[10:].popcount()
    (array([ 64, 128]), array([ 64, 128]))
    >>> lazy = sc.map_time(later, x.rechunk((2, 1)), state=np.uint64(0))  # chunks of one word
    >>> bool((lazy.words == y.words).all().compute())
    True
    """
    over_words.check_kernel(kernel, len(streams), outputs)
    check_alike(*streams, polarity=False)
    if polarity is not None:
        check_polarity(polarity)
    length = streams[0].length
    *words, states = over_words.map_words(
        kernel, *(stream.words for stream in streams), length=length, state=state, outputs=outputs
    )
    return _results(words, states, return_states, length, polarity or streams[0].polarity)


def _results(words: list[Any], states: Any, return_states: bool, length: int, polarity: Polarity) -> Any:
    streams = tuple(wrap_words(each, length, polarity) for each in words)
    results = (*streams, states) if return_states else streams
    return results[0] if len(results) == 1 else results

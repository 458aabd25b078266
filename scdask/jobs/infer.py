"""SC inference of a trained network: accuracy for each generator, length and seed, and with early exit."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from functools import partial, reduce
from itertools import product
from operator import and_
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dask.array as da
import numpy as np

from .. import layers
from .._files import some
from ..chunked.sizes import MAC_RATE, task_bits
from ..computing import EARLY_EXIT, log_event_of_task
from ..core.checks import check_encoding
from ..core.dispatch import BACKENDS
from ..errors import BitstreamError
from ..generators import LFSR, SNG, Bernoulli, Halton, Sobol, VanDerCorput
from ..generators.independence import correlation_meant
from ..layers.early_exit import check_rule, checks
from .inferences import Early, EarlyResult, Result, Results, Setting, most_cycles
from .names import SNGS, STOPS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ..computing import Place
    from ..core.words import Mode
    from ..layers import SCSequential
    from .inferences import Length

__all__ = [
    "Early",
    "EarlyResult",
    "Result",
    "Results",
    "Setting",
    "bits_of",
    "check_data",
    "check_settings",
    "early_settings",
    "float_accuracy",
    "generators",
    "infer",
    "infer_early",
    "operations_of",
    "part_of",
    "run",
    "score_name",
    "settings",
    "stop_rule",
    "streamed_network",
]


def settings(
    sngs: Sequence[str], lengths: Sequence[Length], mode: Mode, *, seed: int = 0, repeat: int = 1
) -> list[Setting]:
    """All combinations as settings; a generator without a seed comes once, however often the others are repeated."""
    for sng, length in product(sngs, lengths):
        for generator in generators(sng, seed, 1)[0]:
            for bits in length if isinstance(length, tuple) else (length,):
                check_encoding(bits, generator)
    return [
        Setting(sng, length, seed + r, mode)
        for sng, length in product(sngs, lengths)
        for r in range(repeat if SNGS[sng] else 1)
    ]


def early_settings(settings: Iterable[Setting], stops: Sequence[str]) -> list[Early]:
    """For each rule the settings of the longest streams."""
    given = list(settings)
    most = max((most_cycles(s.length) for s in given), default=0)
    series: dict[Any, list[Setting]] = defaultdict(list)
    for setting in given:
        if most_cycles(setting.length) == most:
            series[setting.mode, setting.sng].append(setting)
    early = [Early(**vars(s), stop=stop) for of in series.values() for stop in stops for s in of]
    for rule in {s.stop: stop_rule(s) for s in early}.values():
        rule.points(most)  # Of too many cycles it is told at once.
    return early


def part_of(settings: Sequence[Setting], number: int, parts: int) -> list[Setting]:
    """Those of the settings that one of several jobs does, from 1 on, in their order: each has about as many cycles."""
    dealt: dict[int, int] = {}
    loads = [(0, job) for job in range(1, parts + 1)]
    for index in sorted(range(len(settings)), key=lambda index: -most_cycles(settings[index].length)):
        cycles, dealt[index] = loads[0]
        heapq.heapreplace(loads, (cycles + most_cycles(settings[index].length), dealt[index]))
    return [setting for index, setting in enumerate(settings) if dealt[index] == number]


def generators(name: str, seed: int, n_layers: int) -> list[tuple[SNG, SNG]]:
    """The (inputs, weights) generators of each layer.

    "sobol": dimensions 1 and 2, scrambled by the seed unless it is 0. "halton": bases 2 and 3. "lfsr": two registers of
    16 bits with different polynomials. "bernoulli": independent streams. "shared": one register for both, wrong
    on purpose: the operands are correlated.
    """
    x_lfsr = LFSR(seed=1 + (0xACE0 + 77 * seed) % 65535)
    w_lfsr = LFSR(taps=(16, 5, 3, 2), seed=1 + (0x1D0E + 131 * seed) % 65535)
    first = 2 * n_layers * seed
    pairs: dict[str, list[tuple[SNG, SNG]]] = {
        "sobol": [(Sobol(1, seed=seed or None), Sobol(2, seed=seed or None))] * n_layers,
        "halton": [(VanDerCorput(), Halton(3))] * n_layers,
        "lfsr": [(x_lfsr, w_lfsr)] * n_layers,
        "bernoulli": [(Bernoulli(first + 2 * i), Bernoulli(first + 2 * i + 1)) for i in range(n_layers)],
        "shared": [(x_lfsr, x_lfsr)] * n_layers,
    }
    return pairs[name]


def streamed_network(network: SCSequential, setting: Setting) -> SCSequential:
    """The network with the generators and the mode of a setting."""
    pairs = generators(setting.sng, setting.seed, len(network.encoding_layers))
    with correlation_meant():  # "shared" correlates on purpose.
        return network.with_generators(pairs, setting.mode)


def operations_of(network: SCSequential, length: Length) -> int:
    """The pairs of bits that are gated for a sample."""
    of_layers = zip(network.layers, network.shapes, network.lengths(length), strict=False)
    return sum(bits * layer.products(shape) * _gates(layer) for layer, shape, bits in of_layers if bits)


def bits_of(length: Length) -> dict[str, Any]:
    """The length or the lengths, as `predict` takes them."""
    return {"lengths": length} if isinstance(length, tuple) else {"length": length}


def _gates(layer: Any) -> int:
    """The gates of a product: with W+ and W- there are two, and four if the inputs are signed too."""
    return 1 if layer.mode == "bipolar" else 4 if layer.signed else 2


def infer(
    network: SCSequential,
    x: NDArray[Any],
    y: NDArray[Any],
    setting: Setting,
    place: Place,
    *,
    predictions: dict[Setting, NDArray[Any]] | None = None,
) -> Result:
    """Predict all samples, and compare with what is right.

    Parameters
    ----------
    network : SCSequential
    x : ndarray, shape (samples, *network.input_shape)
        In the range that the network takes.
    y : ndarray, shape (samples,) or (samples, n_outputs)
        Labels; rows of 0 and 1, if the network gives several labels; or numbers, if it gives numbers.
    setting : Setting
    place : Place
        The scheduler that computes.
    predictions : dict, optional
        Is given what the network predicts, under the setting.
    """
    check_data(network, x, y)
    streamed = streamed_network(network, setting)
    predicted = streamed.predict(_images(streamed, x, setting, place), **bits_of(setting.length))
    start = time.perf_counter()
    found = place.compute(predicted)
    seconds = time.perf_counter() - start
    if predictions is not None:
        predictions[setting] = found
    operations = len(x) * operations_of(streamed, setting.length)
    return Result(**vars(setting), accuracy=network.score_of(found, y), seconds=seconds, sc_operations=operations)


def _images(streamed: SCSequential, x: NDArray[Any], setting: Setting, place: Place) -> Any:
    """The samples as a Dask array of chunks that are a task each, on the GPUs if there are any."""
    rows = max(1, min(len(x), int(task_bits(MAC_RATE) / max(1, operations_of(streamed, setting.length)))))
    images = da.from_array(x, chunks=(rows, *[-1] * (x.ndim - 1)))
    return BACKENDS["cupy"].from_numpy(images) if place.gpu else images


def infer_early(
    network: SCSequential,
    x: NDArray[Any],
    y: NDArray[Any],
    setting: Early,
    place: Place,
    *,
    predictions: dict[Setting, NDArray[Any]] | None = None,
    cycles: dict[Setting, NDArray[Any]] | None = None,
) -> EarlyResult:
    """Predict all samples, each with as few cycles as the rule of the setting asks for; see `infer`.

    On a cluster each chunk of samples tells its result when it has one, which the page of the dashboard shows.

    Parameters
    ----------
    network, x, y, place, predictions
        As for `infer`.
    setting : Early
    cycles : dict, optional
        Is given the cycles (samples,) that each sample took, under the setting.
    """
    check_data(network, x, y)
    streamed = streamed_network(network, setting)
    images = _images(streamed, x, setting, place)
    lazy = streamed.predict(images, **bits_of(setting.length), stop=stop_rule(setting))
    name = f"{setting.sng} {setting.mode}, {setting.stop}, seed {setting.seed}"
    about = {"run": uuid4().hex, "name": name, "length": most_cycles(setting.length), "of": len(x)}
    rows = lazy.cycles.chunks[0]
    starts = da.from_array(np.cumsum((0, *rows[:-1])), chunks=1)
    axes = "ab"[: lazy.label.ndim]
    told = da.blockwise(
        _told,
        "a",
        lazy.label,
        axes,
        lazy.cycles,
        "a",
        da.from_array(y, chunks=(rows, *[-1] * (y.ndim - 1))),
        "ab"[: y.ndim],
        starts,
        "a",
        readout=network.readout,
        about=about,
        concatenate=True,
        align_arrays=False,
        adjust_chunks={"a": 1},
        dtype=object,
        meta=np.empty(0, object),
    )
    start = time.perf_counter()
    chunks = place.compute(told)
    seconds = time.perf_counter() - start
    labels, taken = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    if predictions is not None:
        predictions[setting] = labels
    if cycles is not None:
        cycles[setting] = taken
    return EarlyResult(
        **vars(setting), accuracy=network.score_of(labels, y), cycles_histogram=_histogram(taken), seconds=seconds
    )


def _told(label: Any, cycles: Any, y: Any, start: Any, readout: str, about: dict[str, Any]) -> Any:
    """What a chunk of samples found, once the dashboard is told of it."""
    right = None if readout == "values" else int((label == y).reshape(len(y), -1).all(axis=1).sum())
    event = {"start": int(start[0]), "samples": len(cycles), "right": right, "cycles": _histogram(cycles)}
    log_event_of_task(EARLY_EXIT, about | event)
    chunk = np.empty(1, object)
    chunk[0] = (label, cycles)
    return chunk


def _histogram(cycles: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    values, counts = np.unique(cycles, return_counts=True)
    return tuple(zip(values.tolist(), counts.tolist(), strict=True))


def stop_rule(setting: Early) -> Any:
    """The rule of a setting: "margin=0.9+stability=2" (both), "margin=0.9@64" (from 64 cycles on), or "cycles=9"."""
    rules = []
    for part in setting.stop.split("+"):
        name, _, value = part.partition("=")
        number, _, first = value.partition("@")
        kind, converted = STOPS[name]
        at = {"at": checks(most_cycles(setting.length), int(first))} if first else {}
        rules.append(getattr(layers, kind)(converted(number), **at))
    return reduce(and_, rules)


def run(
    network: SCSequential,
    x: NDArray[Any],
    y: NDArray[Any],
    settings: Iterable[Setting],
    place: Place,
    *,
    predictions: dict[Setting, NDArray[Any]] | None = None,
    cycles: dict[Setting, NDArray[Any]] | None = None,
) -> Iterator[Result | EarlyResult]:
    """Do one inference after the other, and yield each result when it is there; see `infer` and `infer_early`.

    A few samples are predicted before, on every worker, so that the time of the first result is as that of the others.
    """
    todo = list(settings)
    check_data(network, x, y)
    check_settings(network, todo)
    longest_first = sorted(todo, key=lambda setting: most_cycles(setting.length), reverse=True)
    shortest = {(s.sng, type(s)): s for s in longest_first}
    place.run_everywhere(partial(_predict_few, network, x[:16], list(shortest.values()), place.gpu))
    for setting in todo[:1]:
        _result(network, x[:1], y[:1], setting, place)
    for setting in todo:
        yield _result(network, x, y, setting, place, predictions, cycles)


def _result(
    network: SCSequential,
    x: NDArray[Any],
    y: NDArray[Any],
    setting: Setting,
    place: Place,
    predictions: dict[Setting, NDArray[Any]] | None = None,
    cycles: dict[Setting, NDArray[Any]] | None = None,
) -> Result | EarlyResult:
    if isinstance(setting, Early):
        return infer_early(network, x, y, setting, place, predictions=predictions, cycles=cycles)
    return infer(network, x, y, setting, place, predictions=predictions)


def _predict_few(network: SCSequential, x: NDArray[Any], settings: list[Setting], gpu: bool) -> None:
    for setting in settings:
        streamed = streamed_network(network, setting)
        how = bits_of(setting.length) | ({"stop": stop_rule(setting)} if isinstance(setting, Early) else {})
        for rows in (x[:1], x):  # Different kernels multiply few rows and many.
            streamed.predict(BACKENDS["cupy"].from_numpy(rows) if gpu else rows, **how)


def check_data(network: SCSequential, x: NDArray[Any], y: NDArray[Any]) -> None:
    """Raise unless the data are samples that the network takes, and what it is to predict of each."""
    inputs = ", ".join(map(str, ("samples", *network.input_shape)))
    (outputs,) = network.shapes[-1]
    several = network.readout == "labels" or (network.readout == "values" and outputs > 1)
    shape = (*x.shape[:1], outputs) if several else x.shape[:1]
    if x.shape[1:] != network.input_shape or y.shape != shape or not x.shape or not len(x):
        what = f"(samples, {outputs})" if several else "(samples,)"
        raise BitstreamError(f"the data are x ({inputs}) and y {what}, not {x.shape} and {y.shape}")
    if network.readout == "values":
        if y.dtype.kind not in "biuf" or not np.isfinite(y).all():
            raise BitstreamError(f"the network predicts numbers, but y has {some(map(repr, y.ravel().tolist()))}")
        return
    classes = np.array([0, 1]) if several else network.classes
    kinds = [labels.dtype.kind in "biuf" for labels in (y, classes)]
    alike = all(kinds) or y.dtype.kind == classes.dtype.kind != "V"
    unknown = y[~np.isin(y, classes)] if alike else y.ravel()
    if unknown.size:
        names = ", ".join(map(str, classes))
        raise BitstreamError(f"the data have the label {unknown[0]}, but the classes of the model are {names}")


def check_settings(network: SCSequential, settings: Iterable[Setting]) -> None:
    """Raise unless the lengths go with the layers of a network, and a rule can stop it."""
    for setting in settings:
        lengths = network.lengths(setting.length)
        if isinstance(setting, Early):
            check_rule(stop_rule(setting), network, lengths)


def score_name(network: SCSequential) -> str:
    """What the accuracy of a network is."""
    return "R²" if network.readout == "values" else "accuracy"


def float_accuracy(network: SCSequential, x: NDArray[Any], y: NDArray[Any]) -> float:
    """The score of the same weights in floating point."""
    check_data(network, x, y)
    return network.score_of(network.predict_float(x), y)

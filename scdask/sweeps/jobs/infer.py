"""The accuracy of a network of streams."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from ..._extras import require
from ...core.words import Mode
from ...errors import SweepError
from ...jobs import infer
from ...jobs.inferences import Early, Setting
from ...jobs.names import SEEDLESS, SNGS, STOPS
from ...jobs.wanted import Wanted
from .base import LENGTH, RATE, SEED, TEXT, Job, Kind, Known, asked, choice, digest, refused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ...jobs.inferences import Length
    from ...layers import SCSequential

RULE = re.compile(r"(margin=([0-9]+\.?[0-9]*|\.[0-9]+)|stability=[0-9]+)(@[1-9][0-9]*)?|cycles=[1-9][0-9]*")
FIXED_BITS = 256  # of products, which take the time of what is the same for all lengths


def _length(value: Any) -> Length | None:
    """A number of bits, or one for each layer: a list, or a text such as 64/256."""
    parts = value.split("/") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
    bits = [int(part) if isinstance(part, str) and part.isdecimal() else part for part in parts]
    if not bits or any(type(n) is not int or n < 1 for n in bits):
        return None
    return tuple(bits) if len(bits) > 1 else bits[0]  # type: ignore[arg-type,return-value]


def _stop(value: Any) -> str | None:
    fits = isinstance(value, str) and (not value or all(map(RULE.fullmatch, value.split("+"))))
    return value if fits else None


def _percentile(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) and 0 < value <= 100 else None


OPTIONS = {
    "dataset": Known(choice(["digits", "mnist"]), None),
    "network": Known(choice(["lenet", "perceptron"]), None),
    "model": Known(TEXT, None),
    "data": Known(TEXT, None),
    "percentile": Known(Kind("above 0 and at most 100", _percentile), None),
}
AXES = {
    "sng": Known(choice(SNGS), ["sobol", "lfsr", "bernoulli"]),
    "length": Known(Kind("bits, from 1 on, or those of each layer, such as 64/256", _length), LENGTH.default),
    "seed": SEED,
    "mode": Known(choice(get_args(Mode)), ["split"]),
    "stop": Known(Kind(f"a rule, {', '.join(f'{name}=...' for name in STOPS)}, or empty", _stop), [""]),
    "fault": Known(RATE, [0.0]),
}


class Samples(NamedTuple):
    """A network, samples, and what is right."""

    network: SCSequential
    x: NDArray[Any]
    y: NDArray[Any]


def make(options: Mapping[str, Any], over: Mapping[str, Sequence[Any]], folder: Path) -> Job:
    """The job of inferences.

    Options: dataset (digits, or mnist with the network lenet or perceptron), or model and data, which are files as
    `scdask infer` takes them, and percentile. Axes: sng, length, seed, mode, stop and fault.
    """
    chosen, filled = asked("infer", options, over, OPTIONS, AXES)
    wanted = _wanted(chosen, folder)
    with refused():
        infer.settings(filled["sng"], filled["length"], "split")
        if wanted.dataset == "mnist" and not wanted.model:
            require("optax", "mnist")
            from ...jobs.mnist import initial_network

            _check(initial_network(wanted.network), filled)  # It is trained for a minute.
    data = Samples(*wanted.get())
    with refused():
        _check(data.network, filled)
    about = {"job": "infer", "samples": len(data.x), "digest": digest(*data)}
    first = filled["seed"][0]

    def where(setting: Mapping[str, Any]) -> bool:
        """A generator without a seed is the same for all."""
        return bool(setting["sng"] not in SEEDLESS or setting["seed"] == first or setting["fault"] > 0)

    @cache
    def products(mode: Any, length: Length) -> float:
        network = data.network.with_generators(None, mode)
        return float(infer.operations_of(network, length) + FIXED_BITS * infer.operations_of(network, 1))

    def cost(setting: Mapping[str, Any]) -> float:
        """The bits of products; faults take as much again."""
        return float(products(setting["mode"], setting["length"]) * (1 + (setting["fault"] > 0)))

    metric = "r2" if data.network.readout == "values" else "accuracy"
    units = {"length": "bits", "fault": "flips a bit", "cycles": "bits"}
    reference = infer.float_accuracy(*data)
    return Job(score, data, filled, about, metric, where, cost, units, reference)


def score(data: Samples, *, sng: str, length: Length, seed: int, mode: Mode, stop: str, fault: float) -> dict[str, Any]:
    """What is right of what a network predicts.

    Parameters
    ----------
    data : Samples
    sng : str
        The generators, as `scdask.jobs.infer.generators` has them.
    length : int or tuple of int
        Bits of a stream, or those of each layer that encodes.
    seed : int
        Of the generators and the faults.
    mode : {"split", "bipolar"}
    stop : str
        A rule of early exit, such as margin=0.9@32, or "".
    fault : float
        The rate at which bits of the streams of inputs and weights flip, as in `SCSequential.with_faults`.

    Returns
    -------
    dict
        accuracy, truth values (samples,), or r2 of a regression; with a rule, cycles, the mean of the samples.
    """
    network, x, y = data
    setting = Early(sng, length, seed, mode, stop) if stop else Setting(sng, length, seed, mode)
    streamed = infer.streamed_network(network, setting).with_faults(fault, seed)
    rule = infer.stop_rule(setting) if isinstance(setting, Early) else None
    found = streamed.predict(x, **infer.bits_of(length), stop=rule)
    predicted = found if rule is None else found.label
    more = {} if rule is None else {"cycles": float(found.cycles.mean())}
    if network.readout == "values":
        return {"r2": network.score_of(predicted, y), **more}
    return {"accuracy": (predicted == y).reshape(len(y), -1).all(axis=1), **more}


def _wanted(chosen: Mapping[str, Any], folder: Path) -> Wanted:
    """What is classified, once it is known that it can be."""
    dataset, network, model, data = (chosen[name] for name in ("dataset", "network", "model", "data"))
    if (dataset is None) == (data is None) or (data is not None and model is None):
        raise SweepError("infer takes either a dataset, digits or mnist, or both model and data")
    if network and (dataset != "mnist" or model):
        raise SweepError("network is what is trained for mnist, without a model")
    paths = [folder / file if file else None for file in (model, data)]
    for path in filter(None, paths):
        if not path.is_file():
            raise SweepError(f"there is no file {path}")
    of_model, of_data = (str(path) if path else None for path in paths)
    return Wanted(dataset, network or "lenet", of_model, of_data, chosen["percentile"])


def _check(network: SCSequential, over: Mapping[str, Sequence[Any]]) -> None:
    """Raise unless the lengths, the rules and the faults go with the layers of a network."""
    for length, stop in product(over["length"], over["stop"]):
        one = over["sng"][0], length, 0, "split"
        infer.check_settings(network, [Early(*one, stop) if stop else Setting(*one)])  # type: ignore[arg-type]
    network.with_faults(max(over["fault"]))

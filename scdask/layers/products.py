"""What layers of products have in common: weights, a bias, and how both operands become streams."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from .. import _html
from ..core.checks import as_array, as_numpy, as_real, check_encoding, check_generator, check_mode
from ..core.contract import exactly, on_host
from ..core.words import OPERAND_GATE
from ..errors import BitstreamError
from ..generators import SNG, Sobol
from ..generators.base import flag
from ..generators.bernoulli import BitsOfUse
from ..generators.independence import correlation_meant, tell_of_correlation
from ..vector_ops.numbers import divide, largest
from ..vector_ops.products import Faults, Streams, as_weights
from .base import Layer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.words import Mode


USES = 64  # of random bits, from which on they are those of the faults of layers


@dataclass(frozen=True, eq=False, repr=False)
class ProductLayer(Layer):
    """Products of streams, summed, and a bias in binary.

    Parameters
    ----------
    weights : array_like of float, shape (n_neurons, ...)
    bias : array_like of float, shape (n_neurons,)
    input_scale : float
        The inputs are in [0, input_scale], or in [-input_scale, input_scale] if they are signed, and are divided by it
        before they are encoded.
    mode : {"split", "bipolar"}
        "split": w = w+ - w-, two unipolar streams, and AND. "bipolar": bipolar streams, and XNOR.
    x_sng, w_sng : SNG
        Generators of the inputs and the weights.
    signed : bool
        Whether inputs may be negative. In split mode a signed input is two streams too, x = x+ - x-, and each product
        takes four ANDs instead of two. After another layer of a network, negative inputs of a layer that is not signed
        are cut to 0: that is ReLU.
    faults : Faults, optional
        Which bits of the streams flip; `SCSequential.with_faults` sets it.
    """

    AXES: ClassVar[str]

    weights: Any
    bias: Any
    input_scale: float = 1.0
    mode: Mode = "split"
    x_sng: SNG = field(default=Sobol(1))
    w_sng: SNG = field(default=Sobol(2))
    signed: bool = False
    faults: Faults | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            what = f"the {name} of a layer"
            values = as_numpy(on_host(as_array(getattr(self, name), what)), what)
            object.__setattr__(self, name, as_weights(values))
        if self.weights.ndim != 1 + self.AXES.count(",") or self.bias.shape != self.weights.shape[:1]:
            raise BitstreamError(
                f"a layer takes weights {self.AXES} and a bias (n_neurons,), "
                f"not {self.weights.shape} and {self.bias.shape}"
            )
        if not isinstance(self.input_scale, float | int | np.number) or not 0 < self.input_scale < np.inf:
            raise BitstreamError(f"the input scale of a layer is positive and finite, not {self.input_scale!r}")
        object.__setattr__(self, "input_scale", float(self.input_scale))
        object.__setattr__(self, "signed", flag("signed", self.signed))
        check_mode(self.mode)
        for sng in (self.x_sng, self.w_sng):
            check_generator(sng)
        usual = 256  # bits: a layer does not know the length yet.
        frames = 3 if type(self).__post_init__ is ProductLayer.__post_init__ else 4
        tell_of_correlation(OPERAND_GATE[self.mode], self.x_sng, self.w_sng, usual, stacklevel=frames)

    def how(self) -> str:
        """How it multiplies, for a repr."""
        signed = "signed, " if self.signed else ""
        faults = f", faults of {self.faults.rate:g}" if self.faults else ""
        return f"{self.mode}, {signed}x_sng={self.x_sng}, w_sng={self.w_sng}{faults}"

    def _repr_html_(self) -> str:
        return _html.facts(type(self).__name__, self.facts())

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        neurons, *inputs = self.weights.shape
        return {
            "Kind": type(self).__name__,
            "Inputs": " x ".join(f"{n:,}" for n in inputs),
            "Neurons": f"{neurons:,}",
            "Mode": f"{self.mode}, signed" if self.signed else self.mode,
            "Input scale": f"{self.input_scale:.4g}",
            "SNG of inputs": self.x_sng,
            "SNG of weights": self.w_sng,
            **({"Faults": f"{self.faults.rate:g} of the bits"} if self.faults else {}),
            "Weights and bias": _html.size(self.weights.nbytes + self.bias.nbytes),
        }

    def with_generators(self, x_sng: SNG, w_sng: SNG, mode: Mode) -> Self:
        """The same layer with other generators and another mode."""
        return replace(self, x_sng=x_sng, w_sng=w_sng, mode=mode)

    def with_faults(self, rate: float, seed: int, layer: int) -> Self:
        """The same layer, whose bits flip; `layer` is its number, as each has random bits of its own."""
        x_sng, w_sng = (BitsOfUse(seed, use=USES + 2 * layer + operand) for operand in range(2))
        with correlation_meant():  # Who chose the generators was warned.
            return replace(self, faults=Faults(rate, x_sng, w_sng) if rate else None)

    @cached_property
    def weight_scale(self) -> float:
        """The largest |weight|, by which weights are divided before they are encoded; 1 if all are 0."""
        return float(largest(self.weights))

    @cached_property
    def operand(self) -> Any:
        """The weights in [-1, 1]."""
        return divide(self.weights, self.weight_scale)

    @property
    def fan_in(self) -> int:
        """Products that are summed to an output."""
        return int(self.weights[0].size) if len(self.weights) else 0

    def streams(self, length: int) -> Streams:
        """How the operands become streams of `length` bits."""
        length = check_encoding(length, self.w_sng, self.x_sng)
        return Streams(length, self.mode, self.x_sng, self.w_sng, self.signed, faults=self.faults)

    def scaled(self, x: Any) -> Any:
        """The inputs, divided by their scale."""
        x = as_real(x, "inputs")
        self.output_shape(x.shape[1:])
        if self.input_scale != 1:  # Else small floats stay as they are, with what they may be past the range.
            x = exactly(_divided, x, scale=self.input_scale)
        return x

    @abstractmethod
    def counts(self, x: Any, streams: Streams) -> Any:
        """The ones of the products of scaled inputs, each with its sign, summed to the outputs: int64."""

    # What follows serves early exit, which keeps words and counts from call to call.

    @property
    @abstractmethod
    def encoded_signs(self) -> Any:
        """The weights as they are encoded, in split mode w+ and w-."""

    @abstractmethod
    def input_words(self, x: Any, streams: Streams, samples: NDArray[np.uint64]) -> Any:
        """The words of scaled inputs, which `streams` limits, of the samples with these numbers."""

    @abstractmethod
    def word_counts(self, weights: Any, inputs: Any, streams: Streams) -> Any:
        """The `counts` of words of both, in bipolar mode of XOR instead of XNOR."""

    def outputs(self, counts: Any, bits: int) -> Any:
        """What so many ones among streams of so many bits stand for, bias included: float64, of the shape of counts."""
        bias = self.bias.reshape(-1, *[1] * (counts.ndim - 2))
        return exactly(
            _with_bias,
            counts,
            bias,
            scale=self.weight_scale,
            mode=self.mode,
            bits=bits,
            n_inputs=self.fan_in,
            input_scale=self.input_scale,
        )

    def __call__(self, x: Any, length: int, start: int = 0) -> Any:
        """The outputs before an activation, float64 (batch, ...), for inputs (batch, ...)."""
        streams = replace(self.streams(length), start=start)
        return self.outputs(self.counts(self.scaled(x), streams), streams.bits)


def _divided(x: Any, scale: float) -> Any:
    return divide(x.astype(np.float64), scale)


def in_binary(counts: Any, scale: Any, mode: Mode, bits: int, n_inputs: int) -> Any:
    """The sum of products that so many ones stand for, where weights were divided by a scale."""
    if mode == "split":
        return counts * divide(scale, bits)
    return (divide(2 * counts, bits) - n_inputs) * scale


def _with_bias(counts: Any, bias: Any, input_scale: float, **how: Any) -> Any:
    outputs = in_binary(counts, **how)
    outputs *= input_scale
    outputs += bias
    return outputs

"""The SC matrix product, and dense layers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from .. import _html
from ..core.checks import as_array, as_numpy, as_real, check_generator, check_mode
from ..core.contract import exactly, on_host
from ..core.words import OPERAND_GATE
from ..errors import BitstreamError
from ..generators import SNG, Sobol
from ..generators.independence import tell_of_correlation
from ..vector_ops.numbers import divide, largest
from ..vector_ops.products import as_weights, check_layer, encoded_product

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..core.words import Mode


def matmul(x: Any, w: Any, length: int, *, mode: Mode = "split", x_sng: SNG = Sobol(1), w_sng: SNG = Sobol(2)) -> Any:
    """The SC estimate of `x @ w.T`.

    The weights are divided by max|w|, both operands are encoded, and the ones of their products are counted. Encoding,
    gate and count are one kernel over a tile, so that memory does not grow with batch * neurons * length.

    Parameters
    ----------
    x : array_like or dask Array of float, shape (batch, n_inputs)
        In [0, 1]; in bipolar mode also down to -1.
    w : array_like or dask Array of float, shape (n_neurons, n_inputs)
    length : int
        Bits of a stream, N >= 1.
    mode : {"split", "bipolar"}
        "split": w = w+ - w-, two unipolar streams and AND (split-unipolar). "bipolar": bipolar streams and XNOR.
    x_sng, w_sng : SNG
        Generators of the inputs and the weights. Equal ones give correlated operands, and so a wrong product.

    Warns
    -----
    CorrelationWarning
        If the generators are known to correlate.

    Returns
    -------
    array of float64, shape (batch, n_neurons)
        Lazy if `x` or `w` is a Dask array.

    Raises
    ------
    BitstreamError
        If the shapes do not fit, an input is outside its range or a weight is not finite (for a Dask array: when it is
        computed), or the length is below 1.

    Examples
    --------
    >>> matmul([[0.5, 0.25]], [[1.0, -0.5]], 256)
    array([[0.375]])
    """
    x, w = as_real(x, "inputs"), as_weights(w)
    length = check_layer(w, x, w_sng, x_sng, length, mode)
    tell_of_correlation(OPERAND_GATE[mode], x_sng, w_sng, length, stacklevel=2)
    return _estimate(x, w, length, mode, x_sng, w_sng)


def _estimate(x: Any, w: Any, length: int, mode: Mode, x_sng: SNG, w_sng: SNG) -> Any:
    """`matmul` of operands that are known to fit."""
    scale = largest(w)
    counts = encoded_product(exactly(divide, w, scale), x, w_sng, x_sng, length, mode)
    return exactly(_product, counts, scale, mode=mode, length=length, n_inputs=w.shape[1])


def _product(counts: Any, scale: Any, mode: Mode, length: int, n_inputs: int) -> Any:
    if mode == "split":
        return counts * divide(scale, length)
    return (divide(2 * counts, length) - n_inputs) * scale


@dataclass(frozen=True, eq=False, repr=False)
class SCDense:
    """A dense layer: `matmul` and a bias in binary.

    Parameters
    ----------
    weights : array_like of float, shape (n_neurons, n_inputs)
    bias : array_like of float, shape (n_neurons,)
    input_scale : float
        The inputs are in [0, input_scale] and are divided by it before they are encoded.
    mode : {"split", "bipolar"}
    x_sng, w_sng : SNG
        Generators of the inputs and the weights.
    """

    weights: Any
    bias: Any
    input_scale: float = 1.0
    mode: Mode = "split"
    x_sng: SNG = field(default=Sobol(1))
    w_sng: SNG = field(default=Sobol(2))

    def __post_init__(self) -> None:
        for name in ("weights", "bias"):
            what = f"the {name} of a layer"
            values = as_numpy(on_host(as_array(getattr(self, name), what)), what)
            object.__setattr__(self, name, as_weights(values))
        if self.weights.ndim != 2 or self.bias.shape != self.weights.shape[:1]:
            raise BitstreamError(
                f"a layer takes weights (n_neurons, n_inputs) and a bias (n_neurons,), "
                f"not {self.weights.shape} and {self.bias.shape}"
            )
        if not isinstance(self.input_scale, float | int | np.number) or not 0 < self.input_scale < np.inf:
            raise BitstreamError(f"the input scale of a layer is positive and finite, not {self.input_scale!r}")
        object.__setattr__(self, "input_scale", float(self.input_scale))
        check_mode(self.mode)
        for sng in (self.x_sng, self.w_sng):
            check_generator(sng)
        usual = 256  # bits: a layer does not know the length yet.
        tell_of_correlation(OPERAND_GATE[self.mode], self.x_sng, self.w_sng, usual, stacklevel=3)

    def __repr__(self) -> str:
        n_neurons, n_inputs = self.weights.shape
        return f"SCDense({n_inputs} -> {n_neurons}, {self.mode}, x_sng={self.x_sng}, w_sng={self.w_sng})"

    def _repr_html_(self) -> str:
        return _html.facts("SCDense", self.facts())

    def facts(self) -> dict[str, Any]:
        """What a notebook shows of it."""
        n_neurons, n_inputs = self.weights.shape
        return {
            "Inputs": f"{n_inputs:,}",
            "Neurons": f"{n_neurons:,}",
            "Mode": self.mode,
            "Input scale": f"{self.input_scale:.4g}",
            "SNG of inputs": self.x_sng,
            "SNG of weights": self.w_sng,
            "Weights and bias": _html.size(self.weights.nbytes + self.bias.nbytes),
        }

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.weights.shape[1:]  # type: ignore[no-any-return]

    @property
    def products(self) -> int:
        """Products of streams that a sample takes."""
        return int(self.weights.size)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out for a sample of shape `shape`, which must be that of its inputs."""
        n_neurons, n_inputs = self.weights.shape
        if shape != (n_inputs,):
            given = f"of {shape[0]} neurons" if len(shape) == 1 else f"whose outputs have the shape {shape}"
            raise BitstreamError(f"a layer {given} feeds one of {n_inputs} inputs")
        return (n_neurons,)

    def with_generators(self, x_sng: SNG, w_sng: SNG, mode: Mode) -> Self:
        """The same layer with other generators and another mode."""
        return replace(self, x_sng=x_sng, w_sng=w_sng, mode=mode)

    def __call__(self, x: Any, length: int) -> Any:
        """The outputs before an activation, float64 (batch, n_neurons), for inputs (batch, n_inputs)."""
        x = as_real(x, "inputs")
        length = check_layer(self.weights, x, self.w_sng, self.x_sng, length, self.mode)
        if self.input_scale != 1:  # Else small floats stay as they are, with what they may be past the range.
            x = exactly(_divided, x, scale=self.input_scale)
        product = _estimate(x, self.weights, length, self.mode, self.x_sng, self.w_sng)
        return exactly(_with_bias, product, self.bias, scale=self.input_scale)

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point."""
        outputs: NDArray[np.float64] = x @ self.weights.T + self.bias
        return outputs


def _divided(x: Any, scale: float) -> Any:
    return divide(x.astype(np.float64), scale)


def _with_bias(product: Any, bias: Any, scale: float) -> Any:
    return product * scale + bias

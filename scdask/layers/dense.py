"""The SC matrix product, and dense layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..core.checks import as_real
from ..core.contract import exactly, gate_counts
from ..core.words import OPERAND_GATE
from ..errors import BitstreamError
from ..generators import SNG, Sobol
from ..generators.independence import tell_of_correlation
from ..vector_ops.numbers import divide, largest
from ..vector_ops.products import (
    Streams,
    as_weights,
    check_layer,
    encode_inputs,
    encoded_product,
    input_part,
    signed_sum,
    split_signs,
)
from .products import ProductLayer, in_binary

if TYPE_CHECKING:
    import numpy as np
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
    scale = largest(w)
    counts = encoded_product(exactly(divide, w, scale), x, Streams(length, mode, x_sng, w_sng))
    return exactly(in_binary, counts, scale, mode=mode, bits=length, n_inputs=w.shape[1])


@dataclass(frozen=True, eq=False, repr=False)
class SCDense(ProductLayer):
    """A dense layer: `matmul` and a bias in binary.

    Parameters
    ----------
    weights : array_like of float, shape (n_neurons, n_inputs)
    bias : array_like of float, shape (n_neurons,)
    input_scale, mode, x_sng, w_sng, signed
        As those of every layer of products, see `scdask.layers.products.ProductLayer`.
    """

    AXES = "(n_neurons, n_inputs)"

    def __repr__(self) -> str:
        n_neurons, n_inputs = self.weights.shape
        return f"SCDense({n_inputs} -> {n_neurons}, {self.how()})"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.weights.shape[1:]  # type: ignore[no-any-return]

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of what it puts out for a sample of shape `shape`, which must be that of its inputs."""
        n_neurons, n_inputs = self.weights.shape
        if shape != (n_inputs,):
            given = f"of {shape[0]} neurons" if len(shape) == 1 else f"whose outputs have the shape {shape}"
            raise BitstreamError(f"a layer {given} feeds one of {n_inputs} inputs")
        return (n_neurons,)

    def products(self, shape: tuple[int, ...]) -> int:
        """Products of numbers that a sample takes."""
        return int(self.weights.size)

    def counts(self, x: Any, streams: Streams) -> Any:
        """The ones of the products, each with its sign, summed over the inputs: int64 (batch, n_neurons)."""
        return encoded_product(self.operand, x, streams)

    @property
    def encoded_signs(self) -> Any:
        """The weights as they are encoded."""
        return split_signs(self.operand) if self.mode == "split" else self.operand

    def input_words(self, x: Any, streams: Streams, samples: NDArray[np.uint64]) -> Any:
        """The words of scaled inputs."""
        part = input_part(x.shape, streams)
        return encode_inputs(x, streams, replace(part, region=(samples, *part.region[1:])))

    def word_counts(self, weights: Any, inputs: Any, streams: Streams) -> Any:
        """The counts of words of both."""
        return signed_sum(gate_counts(weights, inputs, streams.gate), streams)

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The outputs in floating point."""
        outputs: NDArray[np.float64] = x @ self.weights.T + self.bias
        return outputs

"""Networks as functions that JAX can differentiate, and what their streams put out."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import BitstreamError
from ..jax_backend.device import jax, jnp, lax
from ..layers import (
    Affine,
    AvgPool2d,
    Clip,
    Flatten,
    Logistic,
    MaxPool2d,
    ReLU,
    Reshape,
    Saturation,
    SCConv2d,
    SCDense,
    SCSequential,
    Softmax,
    Tanh,
    Transpose,
)
from ..layers.base import Layer
from ..layers.network import cut
from ..layers.products import ProductLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from .states import Weights


@dataclass(frozen=True)
class Product:
    """A layer of products without its weights: a value, which goes to the workers with each task."""

    kind: type[ProductLayer]
    options: tuple[tuple[str, Any], ...]
    inner: bool

    def layer(self, weights: Any, bias: Any) -> ProductLayer:
        """The layer with weights and a bias."""
        return self.kind(weights, bias, **dict(self.options))

    def __getitem__(self, name: str) -> Any:
        return dict(self.options)[name]


@dataclass(frozen=True)
class _Scaler(Layer):
    """An affine layer as a value: XLA compiles anew what is not equal."""

    scale: bytes
    shift: bytes
    shapes: tuple[tuple[int, ...], tuple[int, ...]]

    @property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        both = zip((self.scale, self.shift), self.shapes, strict=True)
        scale, shift = (np.frombuffer(part).reshape(shape) for part, shape in both)
        return scale, shift

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def exact(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return Affine(*self.arrays).exact(x)


def plan_of(network: SCSequential) -> tuple[Any, ...]:
    """The layers of a network, those of products as `Product`; a BitstreamError says what cannot be trained."""
    plan: list[Any] = []
    layers = network.layers[:-1] if isinstance(network.layers[-1], Softmax) else network.layers
    for layer, inner in zip(layers, network.inner, strict=False):
        if type(layer) in (SCDense, SCConv2d):
            names = [f.name for f in fields(layer) if f.name not in ("weights", "bias")]
            plan.append(Product(type(layer), tuple((name, getattr(layer, name)) for name in names), inner))
        elif isinstance(layer, Affine):
            scale, shift = layer.scale, layer.shift
            plan.append(_Scaler(scale.tobytes(), shift.tobytes(), (scale.shape, shift.shape)))
        elif _binary.dispatch(type(layer)) is _binary.dispatch(object):
            raise BitstreamError(f"a layer that is trained is one of scdask.layers, unlike {layer!r}")
        else:
            plan.append(layer)
    if not any(isinstance(part, Product) for part in plan):
        raise BitstreamError(f"a network that is trained has a layer of products, but there is none in {network!r}")
    if network.readout != "classes":
        raise BitstreamError(f"a network that is trained tells classes apart, but this one reads out {network.readout}")
    return tuple(plan)


def weights_of(network: SCSequential) -> Weights:
    """The weights and the bias of each layer of products, one after the other."""
    return tuple(
        array.astype(np.float32)
        for layer in network.layers
        if isinstance(layer, ProductLayer)
        for array in (layer.weights, layer.bias)
    )


def _pairs(weights: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(weights[0::2], weights[1::2], strict=True)


def logits(
    plan: Sequence[Any], weights: Sequence[Any], x: Any, streams: Callable[[int, Any], Any] | None = None
) -> Any:
    """The outputs (batch, n_classes) in float32, which JAX can differentiate.

    Parameters
    ----------
    plan : sequence of Layer or Product
    weights : sequence of array of float32
    x : array of float32, shape (batch, ...)
    streams : callable, optional
        Gives what goes on of the outputs of each layer of products, from its number and its outputs in floating point.
        Inputs of the next one are then cut to its scale.
    """
    hidden, products = x, 0
    pairs = _pairs(weights)
    for layer in plan:
        if isinstance(layer, Product):
            if layer.inner:
                scale = np.inf if streams is None else layer["input_scale"]
                hidden = lax.clamp(-scale if layer["signed"] else 0.0, hidden, scale)
            hidden = _product(layer, *next(pairs), hidden)
            if streams is not None:
                hidden = streams(products, hidden)
            products += 1
        elif streams is not None or not isinstance(layer, Saturation):
            hidden = _binary(layer, hidden)
    return jnp.concatenate([jnp.zeros_like(hidden), hidden], axis=1) if hidden.shape[1] == 1 else hidden


def outputs_of_streams(
    plan: Sequence[Any], weights: Sequence[Any], x: NDArray[Any], lengths: Sequence[int], start: int
) -> Iterator[tuple[ProductLayer, Any, Any]]:
    """Each layer of products, its inputs, and what its streams put out; the first sample has the number `start`."""
    hidden: Any = x
    pairs, left = _pairs(weights), iter(lengths)
    for part in plan:
        if isinstance(part, Product):
            layer = part.layer(*next(pairs))
            taken = cut(hidden, layer) if part.inner else hidden
            hidden = layer(taken, next(left), start)
            yield layer, taken, hidden
        else:
            hidden = part(hidden, 0, start)


def _product(layer: Product, weights: Any, bias: Any, x: Any) -> Any:
    if layer.kind is SCDense:
        return x @ weights.T + bias
    top, left, bottom, right = layer["padding"]
    found = lax.conv_general_dilated(
        x.transpose(0, 2, 3, 1),  # XLA is faster with channels last.
        weights.transpose(2, 3, 1, 0),
        layer["stride"],
        [(top, bottom), (left, right)],
        rhs_dilation=layer["dilation"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=layer["groups"],
    )
    return (found + bias).transpose(0, 3, 1, 2)


@singledispatch
def _binary(layer: Any, x: Any) -> Any:
    """What a layer in binary puts out."""
    raise NotImplementedError


@_binary.register
def _(layer: ReLU, x: Any) -> Any:
    return lax.clamp(0.0, x, layer.largest)


@_binary.register
def _(layer: Clip, x: Any) -> Any:
    return lax.clamp(layer.low, x, layer.high)


@_binary.register
def _(layer: _Scaler, x: Any) -> Any:
    scale, shift = (part.astype(np.float32) for part in layer.arrays)
    return x * scale + shift


@_binary.register
def _(layer: Transpose, x: Any) -> Any:
    return x.transpose(0, *(axis + 1 for axis in layer.axes))


@_binary.register
def _(layer: Tanh, x: Any) -> Any:
    return jnp.tanh(x)


@_binary.register
def _(layer: Logistic, x: Any) -> Any:
    return jax.nn.sigmoid(x)


@_binary.register
def _(layer: Softmax, x: Any) -> Any:
    return jax.nn.softmax(x, axis=1)


@_binary.register
def _(layer: Flatten, x: Any) -> Any:
    return x.reshape(len(x), -1)


@_binary.register
def _(layer: Reshape, x: Any) -> Any:
    return x.reshape(len(x), *layer.shape)


@_binary.register
def _(layer: MaxPool2d, x: Any) -> Any:
    taps = list(_taps(layer, x, -np.inf))
    found = taps[0]
    for tap in taps[1:]:
        found = jnp.maximum(found, tap)
    return found.transpose(0, 3, 1, 2)


@_binary.register
def _(layer: AvgPool2d, x: Any) -> Any:
    size: Any = layer.kernel[0] * layer.kernel[1]
    if not layer.count_padding:
        size = sum(_taps(layer, jnp.ones((1, 1, *x.shape[2:]), x.dtype), 0.0))
    return (sum(_taps(layer, x, 0.0)) / size).transpose(0, 3, 1, 2)


def _taps(layer: Any, x: Any, around: float) -> Any:
    top, left, bottom, right = layer.padding
    widths = ((0, 0), (top, bottom), (left, right), (0, 0))
    return layer.window.taps(jnp.pad(x.transpose(0, 2, 3, 1), widths, constant_values=around))


if jax is not None:

    @jax.custom_vjp  # type: ignore[untyped-decorator]
    def straight_through(value: Any, other: Any) -> Any:
        """`other`, whose gradient is that of `value`."""
        return other

    straight_through.defvjp(lambda value, other: (other, None), lambda _, g: (g, jnp.zeros_like(g)))

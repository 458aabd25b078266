"""Spiking neurons that can be trained."""

from __future__ import annotations

import math
import operator
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.checks import as_numpy
from ..errors import BitstreamError
from .device import HAS_JAX, jax, jitted, jnp, known, lax, needing_jax, uncut, varying_as

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def _spike_jvp(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (v, slope), (dv, _) = primals, tangents
    return spike(v, slope), dv / (1 + slope * jnp.abs(v)) ** 2


if HAS_JAX:
    spike = jax.custom_jvp(spike)
    spike.defjvp(_spike_jvp)  # type: ignore[attr-defined]


@needing_jax
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
        If the shapes do not broadcast, something is no real number, or, outside of a trace, is not finite or an alpha
        outside [0, 1].
    """
    given = [_as_float(p) for p in (v, I_t, v_rest, v_reset, v_threshold, alpha, resistance, noise)]
    try:
        np.broadcast_shapes(*(p.shape for p in given))
    except ValueError:
        shapes = ", ".join(str(p.shape) for p in given if p.ndim)
        raise BitstreamError(f"the parameters of neurons broadcast, but not {shapes}") from None
    names = ("v", "I_t", "v_rest", "v_reset", "v_threshold", "alpha", "resistance", "noise")
    _check_values(dict(zip(names, given, strict=True)))
    step: tuple[Any, Any] = _lif_step(*given)
    return step


@jitted
def _lif_step(
    v: Any, current: Any, v_rest: Any, v_reset: Any, v_threshold: Any, alpha: Any, resistance: Any, noise: Any
) -> tuple[Any, Any]:
    v = v + (v_rest - v) * alpha + current * resistance + noise
    fires = v >= v_threshold
    return jnp.where(fires, v_reset, v), fires.astype(jnp.uint8)


@needing_jax
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
        If the shapes do not fit, or, outside of a trace, something is not finite or alpha is outside [0, 1].
    """
    layers, inputs = _as_layers(weights, x)
    constants = [_as_float(p) for p in (v_rest, v_reset, v_threshold, alpha)]
    for constant in constants:
        if constant.ndim:
            raise BitstreamError(f"rest, reset, threshold and alpha are numbers, not an array {constant.shape}")
    names = ("v_rest", "v_reset", "v_threshold", "alpha")
    _check_values(_named(layers, inputs) | dict(zip(names, constants, strict=True)))
    run: tuple[list[Any], Any] = _forward(layers, inputs, _steps(n_steps), *constants)
    return run


def _as_float(values: Any) -> Any:
    """Real numbers in the precision of JAX: float32, unless it keeps 64 bits."""
    values = uncut(values) if isinstance(values, jax.Array) else as_numpy(values, "what neurons take")
    dtype = values.dtype
    if not (
        jnp.issubdtype(dtype, np.bool) or jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
    ):
        raise BitstreamError(f"neurons take real numbers, not {dtype}")
    if not jnp.issubdtype(dtype, jnp.floating) or dtype.itemsize > 8:
        dtype = np.dtype(float)
    if isinstance(values, np.ndarray):
        values = values.astype(dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):  # What becomes infinite is told of by _check_values.
        return jnp.asarray(values, jax.dtypes.canonicalize_dtype(dtype.newbyteorder("=")))


def _check_values(given: dict[str, Any]) -> None:
    """Raise if a value is not finite, or an alpha outside [0, 1], as far as values can be known."""
    if not known(_any_wrong(given)):
        return
    for name, values in given.items():
        flat = np.asarray(values).ravel()
        wrong = flat[_wrong(name, flat)]
        if wrong.size:
            bounds = "from 0 to 1" if name == "alpha" else "finite"
            raise BitstreamError(f"{name} is {bounds} as {flat.dtype}, but there is {wrong[0]}")


@jitted
def _any_wrong(given: dict[str, Any]) -> Any:
    return reduce(operator.or_, [_wrong(name, values).any() for name, values in given.items()])


def _wrong(name: str, values: Any) -> Any:
    return ~((values >= 0) & (values <= 1)) if name == "alpha" else ~(abs(values) < np.inf)


def _named(layers: list[Any], x: Any) -> dict[str, Any]:
    return {"x": x} | {f"weights[{i}]": layer for i, layer in enumerate(layers)}


def _check_number(name: str, value: Any) -> None:
    """Raise unless it is a number of at least 0, as far as it is known."""
    if isinstance(value, jax.core.Tracer):
        return
    try:
        known = float(value)
    except (TypeError, ValueError):
        known = math.nan
    if not 0 <= known < math.inf:
        raise BitstreamError(f"{name} is a finite number of at least 0, not {value!r}")


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
    except (TypeError, ValueError):
        steps = 0
    if isinstance(n_steps, bool) or not 1 <= steps < 2**31:
        raise BitstreamError(f"the number of steps is an integer of at least 1, not {n_steps!r}")
    return steps


@partial(jitted, static_argnums=2)
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

    given = (x, *weights, v_rest, v_reset, v_threshold, alpha)
    start = [varying_as(jnp.full((*x.shape[:-1], len(w)), v_rest, dtype), *given) for w in weights]
    potentials, spikes = lax.scan(step, start, length=n_steps)
    return spikes, potentials[-1]


@needing_jax
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
    loss : float
        Before the step, in nats; under a trace an array of shape ().

    Raises
    ------
    BitstreamError
        If the shapes do not fit, or, outside of a trace, something is not finite, or lr or beta is below 0.
    """
    layers, x = _as_layers(weights, x)
    classes = len(layers[-1])
    targets = targets if isinstance(targets, jax.Array) else as_numpy(targets, "targets")
    if x.ndim != 2 or not len(x) or np.shape(targets) not in (x.shape[:1], (len(x), classes)):
        raise BitstreamError(
            f"{classes} outputs are trained with x (batch, n_inputs) and targets (batch,) or (batch, {classes}), "
            f"not {x.shape} and {np.shape(targets)}"
        )
    wanted = _one_hot(targets, classes) if np.ndim(targets) == 1 else targets
    wanted = _as_float(wanted)
    _check_values(_named(layers, x) | {"targets": wanted})
    _check_number("lr", lr)
    _check_number("beta", beta)
    trained, loss = _descend(layers, x, wanted, _steps(n_steps), lr, beta)
    return trained, loss if isinstance(loss, jax.core.Tracer) else float(loss)


def _one_hot(labels: Any, classes: int) -> Any:
    if not isinstance(labels, jax.core.Tracer):
        labels = np.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise BitstreamError(f"labels are integers, not {labels.dtype}")
    if isinstance(labels, np.ndarray) and not 0 <= labels.min() <= labels.max() < classes:
        raise BitstreamError(f"labels are 0 to {classes - 1}, but there are {labels.min()} to {labels.max()}")
    return jax.nn.one_hot(jnp.asarray(labels, np.int32), classes)


@partial(jitted, static_argnums=3)
def _descend(weights: list[Any], x: Any, targets: Any, n_steps: int, lr: Any, slope: Any) -> tuple[list[Any], Any]:
    def loss(weights: list[Any]) -> Any:
        spikes, _ = _forward(weights, x, n_steps, 0.0, 0.0, 1.0, 0.9, slope)
        return -(targets * jax.nn.log_softmax(spikes[-1].mean(axis=0))).sum(axis=1).mean()

    value, gradients = jax.value_and_grad(loss)(weights)
    return [(w - lr * g).astype(w.dtype) for w, g in zip(weights, gradients, strict=True)], value

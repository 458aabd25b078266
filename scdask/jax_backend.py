"""JAX arrays: the functions of `vector_ops` under XLA, and spiking neurons that can be trained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from .errors import BitstreamError

if TYPE_CHECKING:
    from collections.abc import Sequence


# Spiking neurons


@partial(jax.custom_jvp, nondiff_argnums=(1,))
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
    return (v >= 0).astype(v.dtype)


@spike.defjvp
def _spike_jvp(slope: float, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    (v,), (dv,) = primals, tangents
    return spike(v, slope), dv / (1 + slope * jnp.abs(v)) ** 2


@jax.jit
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
    v : array of float, shape (...)
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
        All of them broadcast against `v`.

    Returns
    -------
    v : array of float, shape (...)
    spikes : array of uint8, shape (...)
    """
    dv = (v_rest - v) * alpha + I_t * resistance + noise
    v = v + dv
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
    start at v_rest. Here alpha is the share of the distance to v_rest that a step keeps; in `jax_lif_step` it is the
    share that a step loses. Both are the reference's.

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
    return _forward(_as_layers(weights, x), _as_float(x), _steps(n_steps), v_rest, v_reset, v_threshold, alpha)


def _as_float(values: Any) -> Any:
    values = jnp.asarray(values)
    if not jnp.issubdtype(values.dtype, jnp.number) or jnp.issubdtype(values.dtype, jnp.complexfloating):
        raise BitstreamError(f"neurons take real numbers, not {values.dtype}")
    return values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(float)


def _as_layers(weights: Sequence[Any], x: Any) -> list[Any]:
    layers = [_as_float(w) for w in weights]
    if not layers:
        raise BitstreamError("a network has at least one layer, but there are no weights")
    width = jnp.shape(x)[-1] if jnp.ndim(x) else None
    for i, layer in enumerate(layers):
        if layer.ndim != 2 or layer.shape[1] != width:
            raise BitstreamError(f"layer {i} takes weights (n_neurons, {width}), not {layer.shape}")
        width = layer.shape[0]
    return layers


def _steps(n_steps: Any) -> int:
    if isinstance(n_steps, bool) or not hasattr(n_steps, "__index__") or n_steps < 1:
        raise BitstreamError(f"the number of steps is an integer of at least 1, not {n_steps!r}")
    return int(n_steps)


@partial(jax.jit, static_argnums=(2, 7))
def _forward(
    weights: list[Any],
    x: Any,
    n_steps: int,
    v_rest: Any,
    v_reset: Any,
    v_threshold: Any,
    alpha: Any,
    slope: float = 0.0,
) -> tuple[list[Any], Any]:
    def step(potentials: list[Any], _: None) -> tuple[list[Any], list[Any]]:
        below, after, spikes = x, [], []
        for w, v in zip(weights, potentials, strict=True):
            v = v_rest + alpha * (v - v_rest) + below @ w.T
            below = spike(v - v_threshold, slope)
            after.append(v + below * (v_reset - v))
            spikes.append(below)
        return after, spikes

    dtype = jnp.result_type(x, *weights)
    v_rest, v_reset, v_threshold, alpha = (jnp.asarray(p, dtype) for p in (v_rest, v_reset, v_threshold, alpha))
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
    layers, x = _as_layers(weights, x), _as_float(x)
    targets = jnp.asarray(targets)
    classes = len(layers[-1])
    if x.ndim != 2 or targets.shape not in (x.shape[:1], (len(x), classes)):
        raise BitstreamError(
            f"{classes} outputs are trained with x (batch, n_inputs) and targets (batch,) or (batch, {classes}), "
            f"not {x.shape} and {targets.shape}"
        )
    if targets.ndim == 1:
        if not jnp.issubdtype(targets.dtype, jnp.integer):
            raise BitstreamError(f"labels are integers, not {targets.dtype}")
        targets = jax.nn.one_hot(targets, classes, dtype=x.dtype)
    return _descend(layers, x, _as_float(targets), _steps(n_steps), lr, float(beta))


@partial(jax.jit, static_argnums=(3, 5))
def _descend(weights: list[Any], x: Any, targets: Any, n_steps: int, lr: Any, slope: float) -> tuple[list[Any], Any]:
    def loss(weights: list[Any]) -> Any:
        spikes, _ = _forward(weights, x, n_steps, 0.0, 0.0, 1.0, 0.9, slope)
        return -(targets * jax.nn.log_softmax(spikes[-1].mean(axis=0))).sum(axis=1).mean()

    value, gradients = jax.value_and_grad(loss)(weights)
    return [w - lr * g for w, g in zip(weights, gradients, strict=True)], value

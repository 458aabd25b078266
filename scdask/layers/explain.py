"""Where the errors of a network come from, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from .. import _html
from .base import cut, encodes
from .products import ProductLayer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .base import Layer
    from .network import SCSequential

MOST_POINTS = 2**14  # numbers whose discrepancy is computed, which takes the square of them


@dataclass(frozen=True)
class LayerError:
    """The errors of a layer's outputs, in their unit, as root mean squares over samples and outputs.

    Parameters
    ----------
    layer : int
        Its number.
    kind : str
    length : int or None
        Bits of its streams; None for a layer in binary.
    size : float
        The root mean square of its outputs in floating point.
    error : float
        The difference from them.
    own : float
        What its own streams cause: the difference if its inputs were exact. They are cut to its scale on both sides.
    inherited : float
        What comes from the layers before, and from the cut: the difference if it multiplied exactly.
    cut : float
        The share of its inputs that are cut by its scale, in floating point.
    theory : float
        What `own` is expected to be; NaN where that is not known. See `explain`.
    """

    layer: int
    kind: str
    length: int | None
    size: float
    error: float
    own: float
    inherited: float
    cut: float
    theory: float


class Explanation(Sequence[LayerError]):
    """The errors of all layers, shown as a table.

    Parameters
    ----------
    layers : iterable of LayerError
    samples : int
        Over how many samples they are.
    """

    COLUMNS = (
        "layer",
        "N",
        "outputs (rms)",
        "error (rms)",
        "own streams",
        "theory",
        "inherited",
        "inputs cut (%)",
    )

    def __init__(self, layers: Any, samples: int) -> None:
        self._layers = tuple(layers)
        self.samples = samples

    @overload
    def __getitem__(self, index: int) -> LayerError: ...
    @overload
    def __getitem__(self, index: slice) -> Explanation: ...
    def __getitem__(self, index: int | slice) -> LayerError | Explanation:
        picked = self._layers[index]
        return Explanation(picked, self.samples) if isinstance(picked, tuple) else picked

    def __len__(self) -> int:
        return len(self._layers)

    @property
    def note(self) -> str:
        """What the columns mean."""
        return (
            f"Root mean squares over {self.samples:,} samples and all outputs, in the unit of these. Error: "
            "from the network in floating point. Own streams: if the inputs were exact. Theory: what own streams are "
            "expected to cause. Inherited: if the layer multiplied exactly what the layers before give it. Inputs cut: "
            "above the scale. N: bits of a stream."
        )

    def rows(self) -> list[tuple[str, ...]]:
        """The table, a row of COLUMNS a layer."""
        return [
            (
                f"{e.layer} {e.kind}",
                "" if e.length is None else f"{e.length:,}",
                f"{e.size:.4g}",
                f"{e.error:.4g}",
                "" if e.length is None else f"{e.own:.4g}",
                "" if np.isnan(e.theory) else f"{e.theory:.4g}",
                f"{e.inherited:.4g}",
                "" if e.length is None else f"{100 * e.cut:.2f}",
            )
            for e in self
        ]

    def __repr__(self) -> str:
        return f"Errors of a network\n{_html.plain(self.COLUMNS, self.rows())}\n{self.note}"

    def _repr_html_(self) -> str:
        return _html.table("Errors of a network", self.COLUMNS, self.rows(), self.note)


def explain(network: SCSequential, x: NDArray[np.float64], lengths: list[int]) -> Explanation:
    """What `SCSequential.explain` gives, of inputs on the host that fit, and a length for each layer."""
    exact = streamed = x
    found = []
    for number, (layer, length, inner) in enumerate(zip(network.layers, lengths, network.inner, strict=True)):
        share = 0.0
        given, taken = exact, streamed
        if inner:
            exact = np.maximum(exact, 0) if not layer.signed else exact
            share = float(np.mean(abs(exact) > layer.input_scale)) if exact.size else 0.0
            given, taken = cut(exact, layer), cut(streamed, layer)
        right, so_far = layer.exact(exact), layer.exact(taken)
        streamed = layer(taken, length)
        own, theory = 0.0, np.nan
        if encodes(layer):
            own = _rms(layer(given, length) - layer.exact(given))
            theory = expected_error(layer, given, length)
        found.append(
            LayerError(
                number,
                type(layer).__name__,
                length if encodes(layer) else None,
                _rms(right),
                _rms(streamed - right),
                own,
                _rms(so_far - right),
                share,
                theory,
            )
        )
        exact = right
    return Explanation(found, len(x))


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else 0.0


def expected_error(layer: Layer, x: NDArray[np.float64], length: int) -> float:
    """The root mean square of the error that theory expects of a layer's outputs for inputs x; NaN if it knows none.

    The formulas are those of `SCSequential.explain`.
    """
    if not isinstance(layer, ProductLayer) or layer.faults or not x.size:
        return np.nan
    a, b = layer.scaled(x), layer.operand
    variance: Any
    bipolar = layer.mode == "bipolar"
    random = [sng.own and sng.key() is not None for sng in (layer.x_sng, layer.w_sng)]
    if all(random) and layer.x_sng.key() != layer.w_sng.key():
        squares = _sums(layer, a**2, b**2)
        variance = (layer.fan_in - squares if bipolar else _sums(layer, abs(a), abs(b)) - squares) / length
    elif any(random) and not (layer.x_sng.own and layer.w_sng.own):
        if bipolar:
            squares = _sums(layer, a**2, np.ones_like(b)) if random[0] else (b**2).reshape(len(b), -1).sum(axis=1)
            variance = (layer.fan_in - squares) / length
        else:
            squares = _sums(layer, a**2, abs(b)) if random[0] else _sums(layer, abs(a), b**2)
            variance = (_sums(layer, abs(a), abs(b)) - squares) / length
    elif not layer.x_sng.own and not layer.w_sng.own and length <= MOST_POINTS:
        from scipy.stats import qmc  # It takes longer to import than all of scdask.

        points = np.stack([sng.drawn(length, 0, length) for sng in (layer.x_sng, layer.w_sng)], axis=1)
        error = float(qmc.discrepancy(points, method="L2-star"))
        products = layer.fan_in * 16.0 if bipolar else _sums(layer, 1.0 * (a != 0), 1.0 * (b != 0))
        variance = error**2 * products
    else:
        return np.nan
    return float(np.sqrt(np.mean(variance))) * layer.weight_scale * layer.input_scale


def _sums(layer: ProductLayer, x: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Products of other numbers, summed as the layer does."""
    return replace(layer, weights=weights, bias=np.zeros_like(layer.bias)).exact(x)

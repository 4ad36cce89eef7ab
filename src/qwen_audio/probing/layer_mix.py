"""Layers combined: one weight each, which add up to 1, and one linear model of the sum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int64

from .descent import descend
from .linear import Linear, Logistic, likelihoods, principal_axes, ridge

__all__ = ["WeightedLayerSum"]

Layers = Sequence[Float[np.ndarray, "_rows width"]]


class WeightedLayerSum:
    """Layers combined, as SUPERB does (Yang et al., 2021), on standardised layers.

    For any weights of the layers the best linear model (logistic regression, or ridge) is found as
    for one layer; the weights go downhill in how well that model then fits.

    Attributes:
        weights: of the layers, after `fit`.
    """

    weights: Float64[np.ndarray, "layers"]

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def fit(
        self, layers: Layers, y: Int64[np.ndarray, "n"] | Float64[np.ndarray, "n"]
    ) -> WeightedLayerSum:
        """Layers all of one width; those of quantities are fitted in double precision."""
        numeric = y.dtype.kind == "f"
        x = np.stack(layers).astype(np.float64 if numeric else np.float32)
        count = x.shape[1]
        flat = x.reshape(len(x), -1)
        spread = float(y.std()) or 1.0
        near = 1e-7 if numeric else 1e-4
        latest: Logistic | None = None

        def mixed(weights: Float64[np.ndarray, "layers"]) -> Float[np.ndarray, "rows width"]:
            return (weights.astype(x.dtype) @ flat).reshape(x.shape[1:])

        def fitted(rows: Float[np.ndarray, "rows width"], tolerance: float = 1e-5) -> Linear:
            nonlocal latest
            if numeric:
                return ridge(rows, y[:, None], [self._strength])[0]
            axes = principal_axes(rows)  # every mixture's own: a tenth of the steps
            start = latest and latest.turned(axes)
            found = Logistic.fit(rows @ axes, y, self._strength, start, tolerance)
            latest = found.turned(axes.T)
            return latest

        def slopes(point: Float64[np.ndarray, "layers"]) -> Float64[np.ndarray, "layers"]:
            weights = _shares(point)
            rows = mixed(weights)
            model = fitted(rows, near)
            scores = model.scores(rows)
            if isinstance(model, Logistic):
                wrong = likelihoods(scores) - model.ones(y)
            else:
                wrong = 2 * (scores - y) / spread**2
            of_layers = flat @ (wrong.T @ model.weights).ravel() / count
            return np.asarray(weights * (of_layers - weights @ of_layers), np.float64)

        self.weights = _shares(descend(slopes, np.zeros(len(x)), near, steps=60))
        self._model = fitted(mixed(self.weights))
        return self

    def predict(self, layers: Layers) -> Int64[np.ndarray, "n"] | Float64[np.ndarray, "n"]:
        """For other rows of the same layers."""
        return self._model.predict(np.tensordot(self.weights, np.stack(layers), 1))


def _shares(point: Float64[np.ndarray, "layers"]) -> Float64[np.ndarray, "layers"]:
    raised = np.exp(point - point.max())
    return raised / raised.sum()

"""A linear model of a learnt convex combination of layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from .linear import LinearModel, LogisticModel, principal_axes, ridge

__all__ = ["WeightedLayerSum"]

LayerStack = Sequence[Float[np.ndarray, "_rows width"]]

_MAX_EVALUATIONS = 60


class WeightedLayerSum:
    """Softmax weights of standardised layers, and a linear model of the weighted sum.

    As in SUPERB (Yang et al., 2021).

    For given weights the linear model (logistic or ridge regression) is fitted to its optimum, as
    for a single layer; L-BFGS minimises that optimum's loss over the logits of the weights.

    Attributes:
        weights: of the layers, adding up to 1; set by `fit`.
    """

    weights: Float64[np.ndarray, "layers"]

    def __init__(self, strength: float) -> None:
        """`strength`: inverse regularization strength of the linear model (C, or 1 / alpha)."""
        self._strength = strength

    def fit(
        self,
        layers: LayerStack,
        y: Int64[np.ndarray, "n"] | Float64[np.ndarray, "n"] | Bool[np.ndarray, "n labels"],
    ) -> WeightedLayerSum:
        """Fit to layers of one width and classes (integers), quantities (floats) or labels."""
        from scipy.optimize import minimize

        numeric = y.dtype.kind == "f"
        x = np.stack(layers).astype(np.float64 if numeric else np.float32)
        rows = x.shape[1]
        flat = x.reshape(len(x), -1)
        variance = float(y.std()) ** 2 or 1.0
        tolerance = 1e-7 if numeric else 1e-4
        previous: LogisticModel | None = None

        def weighted_sum(weights: Float64[np.ndarray, "layers"]) -> Float64[np.ndarray, "n width"]:
            return (weights.astype(x.dtype) @ flat).reshape(x.shape[1:]).astype(np.float64)

        def fit_model(
            mixed: Float64[np.ndarray, "n width"], inner_tolerance: float = 1e-5
        ) -> LinearModel:
            nonlocal previous
            if numeric:
                return ridge(mixed, y[:, None], [self._strength])[0]
            axes = principal_axes(mixed)  # those of each mixture: a tenth of the iterations
            start = previous and previous.rotated(axes)
            model = LogisticModel.fit(mixed @ axes, y, self._strength, start, inner_tolerance)
            previous = model.rotated(axes.T)
            return previous

        def objective(
            logits: Float64[np.ndarray, "layers"],
        ) -> tuple[float, Float64[np.ndarray, "layers"]]:
            """The fitted model's loss and its gradient with respect to the logits.

            By the envelope theorem the change of the fitted model does not contribute to it.
            """
            weights = _softmax(logits)
            mixed = weighted_sum(weights)
            model = fit_model(mixed, tolerance)
            penalty = float(np.square(model.coef).sum()) / (self._strength * rows)
            if isinstance(model, LogisticModel):
                loss, error = model.log_loss(mixed, y)
                loss += 0.5 * penalty
                if model.classes is None:  # per label, so that one tolerance suits any number
                    loss, error = loss / len(error), error / len(error)
            else:  # relative to the variance, so that one tolerance suits all units
                residual = model.decision(mixed) - y
                loss = (float(np.square(residual).mean()) + penalty) / variance
                error = 2 * residual / variance
            by_weight = flat @ (error.T @ model.coef).ravel().astype(x.dtype) / rows
            return loss, np.asarray(weights * (by_weight - weights @ by_weight), np.float64)

        result = minimize(
            objective,
            np.zeros(len(x)),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": tolerance, "ftol": 0.0, "maxfun": _MAX_EVALUATIONS},
        )
        self.weights = _softmax(result.x)
        self._model = fit_model(weighted_sum(self.weights))
        return self

    def predict(
        self, layers: LayerStack
    ) -> Int64[np.ndarray, "n"] | Float64[np.ndarray, "n"] | Float64[np.ndarray, "n labels"]:
        """Predictions for other rows of the same layers."""
        return self._model.predict(np.tensordot(self.weights, np.stack(layers), 1))


def _softmax(logits: Float64[np.ndarray, "layers"]) -> Float64[np.ndarray, "layers"]:
    exponentials = np.exp(logits - logits.max())
    return exponentials / exponentials.sum()

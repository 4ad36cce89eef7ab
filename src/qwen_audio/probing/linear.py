"""Logistic and ridge regression with scikit-learn's objectives, for many fits on the same rows.

scikit-learn's LogisticRegression minimises the same loss, but at its default tolerance it stops
with a loss up to 17 % above the optimum, so that scores would depend on where it stopped. Here
scipy's L-BFGS-B runs until no component of the gradient exceeds a tolerance; tests compare with
scikit-learn at a tight tolerance.

Rotating the rows onto their principal axes changes neither loss, but makes its curvature nearly
diagonal, so that one scale per coordinate preconditions it: a tenth of the L-BFGS iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

__all__ = ["LinearModel", "LogisticModel", "principal_axes", "ridge"]

_MAX_EVALUATIONS = 500


def principal_axes(x: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "width rank"]:
    """Orthonormal principal axes of the rows (not centred), as columns; rank ≤ min(rows, width)."""
    if x.shape[1] > len(x):
        basis = np.linalg.qr(x.T)[0]
        projected = x @ basis
        return basis @ np.linalg.eigh(projected.T @ projected)[1]
    return np.linalg.eigh(x.T @ x)[1]


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Coefficients and intercepts of a linear regression, one row per output."""

    coef: Float[np.ndarray, "outputs width"]
    intercept: Float[np.ndarray, "outputs"]

    def decision(self, x: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "outputs rows"]:
        """The linear function of each row."""
        return self.coef @ x.T + self.intercept[:, None]

    def predict(self, x: Float[np.ndarray, "rows width"]) -> np.ndarray:
        """The first output of each row."""
        return np.asarray(self.decision(x)[0])


@dataclass(frozen=True, eq=False)
class LogisticModel(LinearModel):
    """Multinomial logistic regression: one output per class; of two classes, the second only.

    Of labels, of which a row may have several, one output each against the rest.

    Attributes:
        classes: None for labels.
    """

    classes: Int64[np.ndarray, "classes"] | None

    @classmethod
    def fit(
        cls,
        x: Float[np.ndarray, "rows width"],
        y: Int64[np.ndarray, "rows"] | Bool[np.ndarray, "rows labels"],
        strength: float,
        start: LogisticModel | None = None,
        tolerance: float = 1e-5,
    ) -> LogisticModel:
        """The optimum of scikit-learn's LogisticRegression(C=strength), by L-BFGS.

        Of labels, that of its OneVsRestClassifier. Rows that are all of one class, as shuffled ones
        of few recordings may be, give a model that always predicts it.

        Args:
            x: converges fastest along principal axes, `x @ principal_axes(x)`.
            strength: inverse regularization strength C.
            start: initial values, fitted to similar rows with the same classes.
            tolerance: largest component of the gradient (of the mean loss, in scaled coordinates)
                at which to stop.
        """
        from scipy.optimize import minimize

        x = x.astype(np.float64, copy=False)
        classes = np.unique(y) if y.ndim == 1 else None
        outputs = y.shape[1] if classes is None else len(classes)
        shape = (1 if classes is not None and outputs == 2 else outputs, x.shape[1] + 1)
        model = cls(np.zeros((shape[0], shape[1] - 1)), np.zeros(shape[0]), classes)
        if classes is not None and outputs == 1:
            return model
        penalty = np.append(np.full(x.shape[1], 1 / (strength * len(y))), 0)  # none on intercepts
        # The curvature along each coordinate where all classes (of labels, yes and no) are equally
        # probable.
        squares = np.append(np.einsum("rw,rw->w", x, x), len(y))
        curvature = squares / (len(y) * (4 if classes is None else max(outputs, 4))) + penalty
        scale = 1 / np.sqrt(np.maximum(curvature, 1e-12))

        def unpack(point: Float64[np.ndarray, "n"]) -> LogisticModel:
            weights = point.reshape(shape) * scale
            return cls(weights[:, :-1], weights[:, -1], classes)

        def objective(point: Float64[np.ndarray, "n"]) -> tuple[float, Float64[np.ndarray, "n"]]:
            weights = point.reshape(shape) * scale
            loss, error = cls(weights[:, :-1], weights[:, -1], classes).log_loss(x, y)
            gradient = np.c_[error @ x, error.sum(1)] / len(y) + penalty * weights
            loss += 0.5 * float(np.sum(penalty * weights**2))
            return loss, (gradient * scale).ravel()

        initial = start or model
        result = minimize(
            objective,
            (np.c_[initial.coef, initial.intercept] / scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": tolerance, "ftol": 0.0, "maxfun": _MAX_EVALUATIONS},
        )
        return unpack(result.x)

    def log_loss(
        self,
        x: Float[np.ndarray, "rows width"],
        y: Int64[np.ndarray, "rows"] | Bool[np.ndarray, "rows labels"],
    ) -> tuple[float, Float[np.ndarray, "outputs rows"]]:
        """Mean log loss (of labels, their sum), and predicted probabilities minus one-hot labels.

        The latter are the loss's derivative with respect to the outputs, times the number of rows.
        """
        decision = self.decision(x)
        classes = self.classes
        one_hot = y.T if classes is None else (classes[:, None] == y)[-len(self.coef) :]
        if classes is None or len(self.coef) == 1:
            probabilities = 0.5 + 0.5 * np.tanh(0.5 * decision)
            losses = (np.logaddexp(0, decision) - one_hot * decision).sum(0)
        else:
            decision -= decision.max(0)
            probabilities = np.exp(decision)
            total = probabilities.sum(0)
            probabilities /= total
            losses = np.log(total) - decision.T[one_hot.T]
        return float(losses.mean()), probabilities - one_hot

    def rotated(self, axes: Float[np.ndarray, "width rank"]) -> LogisticModel:
        """The same model of `x @ axes`."""
        return LogisticModel(self.coef @ axes, self.intercept, self.classes)

    def predict(
        self, x: Float[np.ndarray, "rows width"]
    ) -> Int64[np.ndarray, "rows"] | Float[np.ndarray, "rows labels"]:
        """The most probable class of each row, or its score of each label."""
        decision = self.decision(x)
        if self.classes is None:
            return decision.T
        best = decision.argmax(0) if len(decision) > 1 else (decision[0] > 0).astype(int)
        return self.classes[best]


def ridge(
    x: Float64[np.ndarray, "rows width"],
    y: Float64[np.ndarray, "rows outputs"],
    strengths: Sequence[float],
) -> list[LinearModel]:
    """scikit-learn's Ridge(alpha=1 / strength) for each strength, in closed form."""
    from scipy.linalg import solve

    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    dual = x.shape[1] > len(x)  # then the system of rows is the smaller one
    gram, target = (x @ x.T, y) if dual else (x.T @ x, x.T @ y)
    models = []
    for strength in strengths:
        solution = solve(gram + np.eye(len(gram)) / strength, target, assume_a="pos")
        coef = solution.T @ x if dual else solution.T
        models.append(LinearModel(coef, y_mean - coef @ x_mean))
    return models

"""Linear and nearest-neighbour probes on pooled embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64, Shaped

from .linear import LogisticModel, principal_axes, ridge
from .targets import TaskName

__all__ = [
    "PROBES",
    "PROBES_OF_TASK",
    "FeatureMatrix",
    "ProbeName",
    "Regularization",
    "TargetArray",
    "TrainTestRows",
    "predict",
    "select_regularization",
]

ProbeName = Literal["logistic", "ridge", "knn"]
PROBES: tuple[ProbeName, ...] = ("logistic", "ridge", "knn")
PROBES_OF_TASK: dict[TaskName, tuple[ProbeName, ...]] = {
    "classes": ("logistic", "knn"),
    "quantity": ("ridge", "knn"),
    "labels": ("logistic", "knn"),
}
"""Those that apply to each task, the linear one first."""

_NEIGHBORS = 10
_STRENGTHS: dict[str, tuple[float, ...]] = {
    "logistic": (1e-3, 1e-2, 1e-1, 1.0),  # C: the larger, the weaker the regularization
    "ridge": (1e-4, 1e-3, 1e-2, 1e-1),  # 1 / alpha, of the same sense
}
_VALIDATION_FRACTION = 0.25
_RELATIVE_ROUNDING = 1e-4
"""A coordinate whose deviation is below this share of its mean is constant up to rounding."""
_SELECTION_TOLERANCE = 1e-4
"""Gradient tolerance of fits that are only compared with each other."""

FeatureMatrix = Float32[np.ndarray, "_rows width"]
TargetArray = (
    Int64[np.ndarray, "_rows"] | Float[np.ndarray, "_rows"] | Shaped[np.ndarray, "_rows labels"]
)
"""Classes as integers, a quantity as floats, or which labels each row has; scores of labels."""
Metric = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Regularization:
    """Inverse regularization strength (C, or 1 / alpha) and its score on the validation groups."""

    strength: float
    validation_score: float = float("-inf")


@dataclass(frozen=True, eq=False)
class TrainTestRows:
    """Train and test rows of one fold, standardised."""

    train: Float64[np.ndarray, "train width"]
    test: Float64[np.ndarray, "test width"]

    @classmethod
    def standardized(cls, train: FeatureMatrix, test: FeatureMatrix) -> TrainTestRows:
        """Scale both by the mean and standard deviation of the training rows.

        Coordinates that vary among the training rows by no more than rounding become 0.
        """
        first, second = train.astype(np.float64), test.astype(np.float64)
        mean, deviation = first.mean(0), first.std(0)
        constant = deviation <= _RELATIVE_ROUNDING * np.abs(mean)
        scale = np.where(constant, 0, 1 / np.where(constant, 1, deviation))
        return cls((first - mean) * scale, (second - mean) * scale)

    @cached_property
    def principal_components(
        self,
    ) -> tuple[Float64[np.ndarray, "train rank"], Float64[np.ndarray, "test rank"]]:
        """Both, projected onto the training rows' principal axes."""
        axes = principal_axes(self.train)
        return self.train @ axes, self.test @ axes


def predict(
    probe: ProbeName,
    rows: TrainTestRows,
    targets: Sequence[TargetArray],
    strength: float | None = None,
) -> list[TargetArray]:
    """Train one model for each array of targets, and predict the test rows with it.

    Args:
        targets: of the training rows: classes as integers, quantities as floats, labels as a
            column of booleans each.

    Returns:
        Predicted classes or quantities; of labels, scores.
        strength: for "logistic" and "ridge"; see `select_regularization`.
    """
    if probe == "logistic":
        train, test = rows.principal_components
        return [LogisticModel.fit(train, y, strength or 0.1).predict(test) for y in targets]
    if targets[0].ndim == 2:
        counts = np.cumsum([y.shape[1] for y in targets])[:-1]
        shares = _nearest_neighbors(rows, np.hstack(targets).astype(float))
        return np.split(shares, counts, axis=1)
    stacked = np.stack(targets, 1)
    if probe == "ridge":
        (model,) = ridge(rows.train, stacked, [strength or 0.1])
        return list(model.decision(rows.test))
    return list(_nearest_neighbors(rows, stacked).T)


def select_regularization(
    probe: ProbeName,
    rows: TrainTestRows,
    y: TargetArray,
    groups: Int64[np.ndarray, "n"],
    metric: Metric,
    seed: int,
) -> Regularization:
    """The strength that scores best on a quarter of the groups after training on the others."""
    strengths = _STRENGTHS[probe]
    validation = _validation_rows(groups, seed)
    y_train = y[~validation]
    if validation.all() or not validation.any() or (y_train == y_train[0]).all():
        return Regularization(strengths[len(strengths) // 2])
    predictions: list[TargetArray] = []
    if probe == "ridge":
        x = rows.train
        models = ridge(x[~validation], y_train[:, None], strengths)
        predictions = [model.predict(x[validation]) for model in models]
    else:
        x, model = rows.principal_components[0], None
        x_train, x_validation = x[~validation], x[validation]
        for strength in strengths:
            model = LogisticModel.fit(x_train, y_train, strength, model, _SELECTION_TOLERANCE)
            predictions.append(model.predict(x_validation))
    candidates = [
        Regularization(strength, metric(y[validation], predicted))
        for strength, predicted in zip(strengths, predictions, strict=True)
    ]
    return max(candidates, key=lambda candidate: candidate.validation_score)


def _validation_rows(groups: Int64[np.ndarray, "n"], seed: int) -> Bool[np.ndarray, "n"]:
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: round(_VALIDATION_FRACTION * len(names))])


def _nearest_neighbors(rows: TrainTestRows, y: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    estimator = KNeighborsClassifier if y.dtype.kind == "i" else KNeighborsRegressor
    count = min(_NEIGHBORS, len(y))
    model = estimator(count, weights="distance", metric="cosine", algorithm="brute")
    train, test = rows.train.astype(np.float32), rows.test.astype(np.float32)
    return np.asarray(model.fit(train, y).predict(test))

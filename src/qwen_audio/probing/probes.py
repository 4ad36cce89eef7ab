"""Probes: how well labels can be read off vectors, by simple models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from .linear import Logistic, principal_axes, ridge

__all__ = [
    "CLASSES",
    "PROBES",
    "QUANTITIES",
    "Features",
    "ProbeName",
    "Regularization",
    "Targets",
    "TrainTestRows",
    "choose_strength",
    "predict",
]

ProbeName = Literal["logistic", "ridge", "knn"]
CLASSES: tuple[ProbeName, ...] = ("logistic", "knn")
QUANTITIES: tuple[ProbeName, ...] = ("ridge", "knn")
PROBES: tuple[ProbeName, ...] = ("logistic", "ridge", "knn")

_NEIGHBOURS = 10
_STRENGTHS: dict[str, tuple[float, ...]] = {
    "logistic": (1e-3, 1e-2, 1e-1, 1.0),  # C: the larger, the less is held back
    "ridge": (1e-4, 1e-3, 1e-2, 1e-1),  # of the same meaning: 1 / alpha
}
_SHARE_TO_CHOOSE_WITH = 0.25
_ROUNDING = 1e-4
"""Numbers that differ by less, relative to their mean, differ by how they were computed."""
_TO_CHOOSE = 1e-4
"""Nearer than that a fit need not be to be compared."""

Features = Float32[np.ndarray, "_rows width"]
Targets = Int64[np.ndarray, "_rows"] | Float[np.ndarray, "_rows"]
Score = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Regularization:
    """How freely a probe may fit: chosen within what it trains on, and how well it did there."""

    value: float
    score: float = float("-inf")


@dataclass(frozen=True, eq=False)
class TrainTestRows:
    """Rows to train on and rows to test, as probes take them."""

    train: Float64[np.ndarray, "train width"]
    test: Float64[np.ndarray, "test width"]

    @classmethod
    def of(cls, train: Features, test: Features) -> TrainTestRows:
        """Both, shifted and scaled so that each number of training rows has mean 0, deviation 1.

        What differs among the training rows by no more than rounding may becomes 0.
        """
        first, second = train.astype(np.float64), test.astype(np.float64)
        mean, spread = first.mean(0), first.std(0)
        still = spread <= _ROUNDING * np.abs(mean)
        scale = np.where(still, 0, 1 / np.where(still, 1, spread))
        return cls((first - mean) * scale, (second - mean) * scale)

    @cached_property
    def turned(self) -> tuple[Features, Features]:
        """Both, along the training rows' principal axes."""
        train, test = self.train.astype(np.float32), self.test.astype(np.float32)
        axes = principal_axes(train)
        return train @ axes, test @ axes


def predict(
    probe: ProbeName, sides: TrainTestRows, labels: Sequence[Targets], strength: float | None = None
) -> list[Targets]:
    """Train, and answer for the rows to test; once for each set of labels.

    Args:
        labels: of the training rows: classes as whole numbers, else quantities.
        strength: for "logistic" and "ridge"; see `choose_strength`.
    """
    if probe == "logistic":
        train, test = sides.turned
        return [Logistic.fit(train, y, strength or 0.1).predict(test) for y in labels]
    together = np.stack(labels, 1)
    if probe == "ridge":
        (model,) = ridge(sides.train, together, [strength or 0.1])
        return list(model.scores(sides.test))
    return list(_neighbours(sides, together).T)


def choose_strength(
    probe: ProbeName,
    sides: TrainTestRows,
    y: Targets,
    groups: Int64[np.ndarray, "n"],
    score: Score,
    seed: int,
) -> Regularization:
    """The strength that does best on a quarter of the groups after training on the others."""
    strengths = _STRENGTHS[probe]
    held = _held_out(groups, seed)
    if held.all() or not held.any() or len(set(y[~held].tolist())) < 2:
        return Regularization(strengths[len(strengths) // 2])
    answers: list[Targets] = []
    if probe == "ridge":
        rows = sides.train
        answers = [
            model.predict(rows[held]) for model in ridge(rows[~held], y[~held, None], strengths)
        ]
    else:
        rows, fitted = sides.turned[0], None
        for strength in strengths:
            fitted = Logistic.fit(rows[~held], y[~held], strength, fitted, _TO_CHOOSE)
            answers.append(fitted.predict(rows[held]))
    tried = [Regularization(s, score(y[held], a)) for s, a in zip(strengths, answers, strict=True)]
    return max(tried, key=lambda one: one.score)


def _held_out(groups: Int64[np.ndarray, "n"], seed: int) -> Bool[np.ndarray, "n"]:
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: round(_SHARE_TO_CHOOSE_WITH * len(names))])


def _neighbours(sides: TrainTestRows, labels: np.ndarray) -> np.ndarray:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsClassifier if labels.dtype.kind == "i" else KNeighborsRegressor
    near = min(_NEIGHBOURS, len(labels))
    model = kind(near, weights="distance", metric="cosine", algorithm="brute")
    train, test = sides.train.astype(np.float32), sides.test.astype(np.float32)
    return np.asarray(model.fit(train, labels).predict(test))

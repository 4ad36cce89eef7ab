"""Logistic and ridge regression, as scikit-learn defines them, for many fits on the same rows.

Neither depends on the axes that rows are written in. So rows are turned onto their principal
components, along which the losses bend almost independently, and each logistic fit takes a tenth of
the steps; the tests hold both to scikit-learn's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from .descent import descend

__all__ = ["Linear", "Logistic", "likelihoods", "principal_axes", "ridge"]


def principal_axes(rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "width rank"]:
    """Orthonormal directions that hold all of the rows, along which they vary independently."""
    if rows.shape[1] > len(rows):
        held = np.linalg.qr(rows.T)[0]
        within = rows @ held
        return held @ np.linalg.eigh(within.T @ within)[1]
    return np.linalg.eigh(rows.T @ rows)[1]


def likelihoods(scores: Float[np.ndarray, "outputs rows"]) -> Float[np.ndarray, "outputs rows"]:
    """How likely each class is, by its score: softmax, or of one output the logistic function."""
    if len(scores) == 1:
        return 0.5 + 0.5 * np.tanh(0.5 * scores)
    raised = np.exp(scores - scores.max(0))
    raised /= raised.sum(0)
    return raised


@dataclass(frozen=True, eq=False)
class Linear:
    """What each number of a row counts, and the constants: one output a quantity."""

    weights: Float[np.ndarray, "outputs width"]
    constants: Float[np.ndarray, "outputs"]

    def scores(self, rows: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "outputs rows"]:
        """One a row."""
        return self.weights @ rows.T + self.constants[:, None]

    def predict(self, rows: Float[np.ndarray, "rows width"]) -> np.ndarray:
        """Of one quantity."""
        return np.asarray(self.scores(rows)[0])


@dataclass(frozen=True, eq=False)
class Logistic(Linear):
    """The same for classes: one output a class; of two, the second's alone."""

    classes: Int64[np.ndarray, "classes"]

    @classmethod
    def fit(
        cls,
        rows: Float32[np.ndarray, "rows width"],
        y: Int64[np.ndarray, "rows"],
        strength: float,
        start: Logistic | None = None,
        tolerance: float = 1e-5,
    ) -> Logistic:
        """What scikit-learn's LogisticRegression(C=strength) fits.

        Args:
            rows: best along their principal axes.
            start: fitted to something alike, with the same classes.
        """
        classes = np.unique(y)
        empty = np.zeros((1 if len(classes) == 2 else len(classes), rows.shape[1] + 1), np.float32)
        model = cls(empty[:, :-1], empty[:, -1], classes)
        ones, count = model.ones(y), np.float32(len(y))
        rows = np.hstack([rows, np.ones((len(y), 1), np.float32)])
        lying = np.ascontiguousarray(rows.T)
        held_back = np.full(len(lying), 1 / (strength * count), np.float32)
        held_back[-1] = 0  # not the constants
        # How much the loss bends along each number where all classes are equally likely.
        bends = np.square(rows).sum(0) / (count * max(len(classes), 4)) + held_back
        scale = (1 / np.sqrt(np.maximum(bends, 1e-12))).astype(np.float32)

        def gradient(point: Float32[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
            weights = point.reshape(empty.shape) * scale
            wrong = (likelihoods(weights @ lying) - ones) / count
            return ((wrong @ rows + held_back * weights) * scale).ravel()

        begun = empty if start is None else np.c_[start.weights, start.constants] / scale
        found = descend(gradient, begun.ravel(), tolerance).reshape(empty.shape) * scale
        return cls(found[:, :-1], found[:, -1], classes)

    def turned(self, axes: Float[np.ndarray, "width rank"]) -> Logistic:
        """The same for rows that are written along other axes, `rows @ axes`."""
        return Logistic(self.weights @ axes, self.constants, self.classes)

    def ones(self, y: Int64[np.ndarray, "rows"]) -> Float32[np.ndarray, "outputs rows"]:
        """For each row a 1 in the output of its class."""
        ones = (self.classes[:, None] == y).astype(np.float32)
        return ones[-len(self.weights) :]

    def predict(self, rows: Float[np.ndarray, "rows width"]) -> Int64[np.ndarray, "rows"]:
        """The likeliest class of each row."""
        scores = self.scores(rows)
        best = scores.argmax(0) if len(scores) > 1 else (scores[0] > 0).astype(int)
        return self.classes[best]


def ridge(
    rows: Float64[np.ndarray, "rows width"],
    y: Float64[np.ndarray, "rows labels"],
    strengths: Sequence[float],
) -> list[Linear]:
    """For each strength what scikit-learn's Ridge(alpha=1 / strength) fits: solved directly."""
    from scipy.linalg import solve

    middle, level = rows.mean(0), y.mean(0)
    rows, y = rows - middle, y - level
    wide = rows.shape[1] > len(rows)  # then the same comes from the rows' products with each other
    products, target = (rows @ rows.T, y) if wide else (rows.T @ rows, rows.T @ y)
    fitted = []
    for strength in strengths:
        found = solve(products + np.eye(len(products)) / strength, target, assume_a="pos")
        weights = found.T @ rows if wide else found.T
        fitted.append(Linear(weights, level - weights @ middle))
    return fitted

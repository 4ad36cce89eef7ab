"""Probes: how well labels can be read off vectors, by simple models of scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

__all__ = [
    "CLASSES",
    "PROBES",
    "QUANTITIES",
    "Answers",
    "Mix",
    "ProbeName",
    "Rows",
    "Strength",
    "choose_strength",
    "predict",
    "standardised",
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

Rows = Float32[np.ndarray, "_rows width"]
Answers = Int64[np.ndarray, "_rows"] | Float[np.ndarray, "_rows"]
Score = Callable[[Any, Any], float]


@dataclass(frozen=True)
class Strength:
    """How freely a probe may fit: chosen within what it trains on, and how well it did there."""

    value: float
    score: float = float("-inf")


def standardised(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    """Both, shifted and scaled so that each number of the training rows has mean 0, deviation 1.

    What is the same in all training rows becomes 0.
    """
    mean, spread = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    still = spread <= 1e-7 * np.abs(mean)
    scale = np.where(still, 0, 1 / np.where(still, 1, spread))
    first, second = (((rows - mean) * scale).astype(np.float32) for rows in (train, test))
    return first, second


def predict(
    probe: ProbeName, x: Rows, y: Answers, new: Rows, strength: Strength | None = None
) -> Answers:
    """Train on standardised rows, and answer for others.

    Args:
        y: classes as whole numbers; else quantities.
        strength: for "logistic" and "ridge"; see `choose_strength`.
    """
    return _fitted(probe, x, y, (strength or Strength(0.1)).value).predict(new)


def choose_strength(
    probe: ProbeName,
    x: Rows,
    y: Answers,
    groups: Int64[np.ndarray, "n"],
    score: Score,
    seed: int,
) -> Strength:
    """The strength that does best on a quarter of the groups after training on the others."""
    held = _held_out(groups, seed)
    middle = Strength(_STRENGTHS[probe][len(_STRENGTHS[probe]) // 2])
    if held.all() or not held.any() or len(set(y[~held].tolist())) < 2:
        return middle
    tried = []
    for value in _STRENGTHS[probe]:
        answers = _fitted(probe, x[~held], y[~held], value, tolerance=1e-3).predict(x[held])
        tried.append(Strength(value, score(y[held], answers)))
    return max(tried, key=lambda one: one.score)


def _held_out(groups: Int64[np.ndarray, "n"], seed: int) -> Bool[np.ndarray, "n"]:
    names = np.random.default_rng(seed).permutation(np.unique(groups))
    return np.isin(groups, names[: round(_SHARE_TO_CHOOSE_WITH * len(names))])


def _fitted(probe: ProbeName, x: Rows, y: Answers, strength: float, tolerance: float = 1e-4) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    if probe == "logistic":
        model: Any = LogisticRegression(C=strength, tol=tolerance, max_iter=300)
    elif probe == "ridge":
        model = Ridge(alpha=1 / strength)
    else:
        kind = KNeighborsClassifier if y.dtype.kind == "i" else KNeighborsRegressor
        near = min(_NEIGHBOURS, len(x))
        model = kind(near, weights="distance", metric="cosine", algorithm="brute")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough after 300 steps
        return model.fit(x, y)


class Mix:
    """Layers combined: one weight a layer, which add up to 1, and one linear model of the sum.

    As SUPERB does (Yang et al., 2021), on standardised layers; trained together, by torch's L-BFGS.

    Attributes:
        weights: of the layers, after `fit`.
    """

    weights: Float32[np.ndarray, "layers"]

    def __init__(self, strength: float) -> None:
        self._strength = strength

    def fit(self, layers: Sequence[Rows], y: Answers) -> Mix:
        """Layers are (n, width) each, all of one width."""
        import torch

        x = torch.from_numpy(np.stack(layers))
        self._numeric = y.dtype.kind == "f"
        self._scale = (float(y.mean()), float(y.std())) if self._numeric else (0.0, 1.0)
        wanted = torch.from_numpy((y - self._scale[0]) / self._scale[1] if self._numeric else y)
        outputs = 1 if self._numeric else int(y.max()) + 1
        mixing = torch.zeros(len(layers), requires_grad=True)
        linear = torch.zeros(outputs, x.shape[2], requires_grad=True)
        bias = torch.zeros(outputs, requires_grad=True)
        penalty = 1 / ((1 if self._numeric else 2) * self._strength * len(y))  # scikit-learn's
        optimiser = torch.optim.LBFGS(
            [mixing, linear, bias], max_iter=60, line_search_fn="strong_wolfe"
        )

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            answers = torch.tensordot(mixing.softmax(0), x, 1) @ linear.T + bias
            if self._numeric:
                error = (answers[:, 0] - wanted.float()).square().mean()
            else:
                error = torch.nn.functional.cross_entropy(answers, wanted)
            total: torch.Tensor = error + penalty * linear.square().sum()
            total.backward()
            return total

        with torch.enable_grad():
            optimiser.step(loss)
        self.weights = mixing.softmax(0).detach().numpy()
        self._linear, self._bias = linear.detach().numpy(), bias.detach().numpy()
        return self

    def predict(self, layers: Sequence[Rows]) -> Answers:
        """For other rows of the same layers."""
        answers = np.tensordot(self.weights, np.stack(layers), 1) @ self._linear.T + self._bias
        if self._numeric:
            return np.asarray(answers[:, 0] * self._scale[1] + self._scale[0], np.float64)
        return np.asarray(answers.argmax(1), np.int64)

"""Macro average precision of labels, and what it is by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

__all__ = ["LabelRanking", "macro_average_precision"]


@dataclass(frozen=True, eq=False)
class LabelRanking:
    """Recordings ranked by each label's score, to be compared with any number of true labels.

    Attributes:
        order: the recordings of each label, highest score first.
        last: of each rank, the last one with the same score: ties are ranked together.
    """

    order: Int64[np.ndarray, "n labels"]
    last: Int64[np.ndarray, "n labels"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, "n labels"]) -> LabelRanking:
        """The ranking by some scores."""
        order = np.argsort(-scores, axis=0, kind="stable")
        ranked = np.take_along_axis(scores, order, 0)
        ends = np.append(ranked[1:] != ranked[:-1], np.ones((1, scores.shape[1]), bool), axis=0)
        ranks = np.where(ends, np.arange(len(scores))[:, None], len(scores))
        return cls(order, np.minimum.accumulate(ranks[::-1], axis=0)[::-1])

    def average_precision(self, true: Bool[np.ndarray, "n labels"]) -> float:
        """As scikit-learn's, averaged over the labels that a recording has; 0 without any."""
        hits = np.take_along_axis(true, self.order, 0)
        found = np.take_along_axis(hits.cumsum(0), self.last, 0)
        positives = hits.sum(0)
        sums = (hits * found / (self.last + 1)).sum(0)[positives > 0]
        return float(np.mean(sums / positives[positives > 0])) if len(sums) else 0.0

    def permuted(
        self, true: Bool[np.ndarray, "n labels"], count: int, seed: int
    ) -> Float64[np.ndarray, "count"]:
        """The average precision after each of `count` random permutations of the recordings."""
        random = np.random.default_rng(seed)
        return np.array([self.average_precision(random.permutation(true)) for _ in range(count)])


def macro_average_precision(
    true: Bool[np.ndarray, "n labels"], scores: Float[np.ndarray, "n labels"]
) -> float:
    """Average precision of each label's scores, averaged over the labels that a recording has."""
    return LabelRanking.of(scores).average_precision(true)

"""Confidence intervals and the test against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .folds import Fold

__all__ = ["at_chance", "interval"]


_SIGMAS = 4.0
"""A control is far from chance beyond so many standard errors: one in 30,000 by chance alone."""


def interval(
    scores: Sequence[float],
    folds: Sequence[Fold],
    correct: Float[np.ndarray, "test"] | None = None,
    least: float = -math.inf,
) -> tuple[float, float]:
    """95 % of the mean over folds; of a single fold, over its recordings.

    Scores of folds depend on each other, as they share what they train on: their variance is
    corrected as Nadeau and Bengio do (Inference for the Generalization Error, 2003). Student's t;
    neither metric goes beyond 1.

    Args:
        correct: where there is one fold, and it is a share of right answers: which are right.
        least: below which the metric can't go.
    """
    from scipy.stats import t

    mean = float(np.mean(scores))
    if len(scores) > 1:
        tested = np.mean([len(fold.test) / len(fold.train) for fold in folds])
        error = math.sqrt((1 / len(scores) + tested) * float(np.var(scores, ddof=1)))
        freedom = len(scores) - 1
    elif correct is not None and len(correct) > 1:
        error, freedom = float(np.std(correct, ddof=1)) / math.sqrt(len(correct)), len(correct) - 1
    else:
        return math.nan, math.nan
    reach = float(t.ppf(0.975, freedom)) * error
    return max(mean - reach, least), min(mean + reach, 1.0)


def at_chance(control: float, baseline: float, tested: int, *, numeric: bool) -> bool:
    """Whether what was learnt from shuffled labels is no better than chance.

    Args:
        baseline: what always answering with the most frequent class (the mean) gets.
        tested: how many recordings were tested in all; of quantities, in the smallest fold.
    """
    if numeric:  # r² of two things that have nothing to do with each other
        return control <= max(baseline, 0) + _SIGMAS**2 / tested
    spread = math.sqrt(max(baseline * (1 - baseline), 1 / tested) / tested)
    return control <= baseline + _SIGMAS * spread

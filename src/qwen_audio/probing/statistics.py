"""Confidence intervals of cross-validated scores, and a test of the control against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .folds import Fold

__all__ = ["confidence_interval", "is_at_chance"]


_STANDARD_ERRORS = 4.0
"""A control is above chance beyond this many standard errors: 1 in 30,000 by chance alone."""


def confidence_interval(
    scores: Sequence[float],
    folds: Sequence[Fold],
    correct: Float[np.ndarray, "test"] | None = None,
    lower_bound: float = -math.inf,
) -> tuple[float, float]:
    """95 % confidence interval of the mean score, by Student's t.

    Folds share training data, so their scores correlate: the variance of the mean over folds is
    multiplied by 1/folds + test/train instead of 1/folds (Nadeau and Bengio, Inference for the
    Generalization Error, Machine Learning 52, 2003). With a single fold it is the variance over its
    recordings, and (NaN, NaN) where that isn't defined (R²). Clipped to the metric's range; 1 is
    the largest value of both metrics.

    Args:
        correct: 1 for each correct prediction of a single fold, else 0.
        lower_bound: smallest value of the metric.
    """
    from scipy.stats import t

    mean = float(np.mean(scores))
    if len(scores) > 1:
        ratio = np.mean([len(fold.test) / len(fold.train) for fold in folds])
        error = math.sqrt((1 / len(scores) + ratio) * float(np.var(scores, ddof=1)))
        degrees_of_freedom = len(scores) - 1
    elif correct is not None and len(correct) > 1:
        error = float(np.std(correct, ddof=1)) / math.sqrt(len(correct))
        degrees_of_freedom = len(correct) - 1
    else:
        return math.nan, math.nan
    half_width = float(t.ppf(0.975, degrees_of_freedom)) * error
    return max(mean - half_width, lower_bound), min(mean + half_width, 1.0)


def is_at_chance(control: float, baseline: float, tested: int, *, numeric: bool) -> bool:
    """Whether a control's score is no more than 4 standard errors above chance.

    Accuracy: the binomial standard error at the baseline, by the normal approximation. R² of
    independent values: n times it is roughly chi-squared with one degree of freedom.

    Args:
        baseline: score of always predicting the most frequent class, or the mean.
        tested: number of tested recordings; of quantities, in the smallest fold.
    """
    if numeric:
        return control <= max(baseline, 0) + _STANDARD_ERRORS**2 / tested
    error = math.sqrt(max(baseline * (1 - baseline), 1 / tested) / tested)
    return control <= baseline + _STANDARD_ERRORS * error

"""Confidence intervals of cross-validated scores, and a test of the control against chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .average_precision import LabelRanking
from .folds import Fold
from .probes import TargetArray
from .targets import TaskName

__all__ = ["confidence_interval", "is_at_chance", "labels_at_chance"]


_STANDARD_ERRORS = 4.0
"""A control is above chance beyond this many standard errors: 1 in 30,000 by chance alone."""
_PERMUTATIONS = 50


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
    recordings, and (NaN, NaN) where that isn't defined (R², mAP). Clipped to the metric's range; 1
    is the largest value of every metric.

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


def is_at_chance(control: float, baseline: float, tested: int, task: TaskName) -> bool:
    """Whether the control of classes or a quantity is no more than 4 standard errors above chance.

    Accuracy: the binomial standard error at the baseline, by the normal approximation. R² of
    independent values: n times it is roughly chi-squared with one degree of freedom.

    Args:
        baseline: score of always predicting the most frequent class, or the mean.
        tested: number of tested recordings; of quantities, in the smallest fold.
    """
    if task == "quantity":
        return control <= max(baseline, 0) + _STANDARD_ERRORS**2 / tested
    error = math.sqrt(max(baseline * (1 - baseline), 1 / tested) / tested)
    return control <= baseline + _STANDARD_ERRORS * error


def labels_at_chance(true: Sequence[TargetArray], scores: Sequence[TargetArray], seed: int) -> bool:
    """Whether the control of labels is no more than 4 standard errors above chance.

    The average precision of a random ranking is above the share of recordings with the label, the
    more so the fewer there are: chance is the mean over random permutations of the recordings.

    Args:
        true: shuffled labels of the tested recordings of each fold.
        scores: the control's, of the same recordings.
    """
    rankings = [LabelRanking.of(fold_scores) for fold_scores in scores]
    control = np.mean([r.average_precision(y) for r, y in zip(rankings, true, strict=True)])
    by_fold = [
        ranking.permuted(y, _PERMUTATIONS, seed + number)
        for number, (ranking, y) in enumerate(zip(rankings, true, strict=True))
    ]
    chance = np.mean(by_fold, axis=0)
    return bool(control <= chance.mean() + _STANDARD_ERRORS * chance.std(ddof=1))

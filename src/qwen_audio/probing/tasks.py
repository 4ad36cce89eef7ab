"""Probing tasks (a target with its cross-validation folds) and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .folds import Fold, make_folds
from .labels import Target
from .probes import CLASSIFIERS, REGRESSORS, ProbeName, TargetArray

__all__ = ["ProbeScore", "Task", "make_task"]

Shuffle = Callable[[TargetArray, int], TargetArray]


@dataclass(frozen=True)
class ProbeScore:
    """Cross-validated score of one probe of one target on one kind of feature.

    Attributes:
        tap: "weighted encoder" and "weighted lm" are weighted sums of layers.
        metric: "accuracy" of classes, "r2" of quantities.
        score: the metric on recordings not trained on, averaged over folds.
        low, high: its 95 % confidence interval.
        baseline: score of always predicting the most frequent class, or the mean.
        control: score of the same probe trained and tested on shuffled labels, with its 95 %
            confidence interval from `control_low` to `control_high`.
        at_chance: whether the control is no better than chance.
        recordings, groups: number with a label.
        classes: number of classes; 0 for a quantity.
        weights: of the layers of a weighted sum, by tap.
    """

    target: str
    tap: str
    span: str
    pooling: str
    probe: str
    metric: str
    score: float
    low: float
    high: float
    baseline: float
    control: float
    control_low: float
    control_high: float
    at_chance: bool
    recordings: int
    groups: int
    classes: int
    folds: int
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One target and its folds, over the recordings that have the label.

    Attributes:
        indices: of these recordings among all.
        y: their labels: classes as integers from 0, quantities as floats.
        y_shuffled: the same, permuted for the control.
        groups: their groups, as integers from 0.
    """

    target: Target
    indices: np.ndarray
    y: TargetArray
    y_shuffled: TargetArray
    groups: np.ndarray
    folds: tuple[Fold, ...]
    probes: tuple[ProbeName, ...]
    seed: int

    def metric(self, true: TargetArray, predicted: TargetArray) -> float:
        """Accuracy of classes, R² of quantities (0 where all true values are equal)."""
        if not self.target.numeric:
            return float(np.mean(true == predicted))
        residual, total = np.sum((true - predicted) ** 2), np.sum((true - true.mean()) ** 2)
        return float(1 - residual / total) if total else 0.0

    def baseline_predictions(self, fold: Fold) -> TargetArray:
        """The most frequent class, or the mean, of a fold's training labels."""
        train = self.y[fold.train]
        value = train.mean() if self.target.numeric else np.bincount(train).argmax()
        return np.full(len(fold.test), value)


def permuted(y: TargetArray, seed: int) -> TargetArray:
    """A random permutation of the labels."""
    return np.random.default_rng(seed).permutation(y)


def make_task(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    probes: Sequence[str] | None,
    folds: int | None,
    seed: int,
    shuffle: Shuffle = permuted,
) -> Task:
    """Encode a target's labels and divide its recordings into folds.

    Args:
        groups, splits: of all recordings, with or without the label.
        probes: those of them that apply to the target are used; by default all that apply.
        shuffle: makes the control's labels.

    Raises:
        OptionError: as `make_folds` does.
    """
    indices = np.array([k for k, value in enumerate(target.values) if value is not None])
    labelled = Target(target.name, tuple(target.values[k] for k in indices), target.numeric)
    labelled_groups = [groups[k] for k in indices]
    labelled_splits = splits and [splits[k] for k in indices]
    task_folds = make_folds(labelled, labelled_groups, labelled_splits, folds, seed)
    y: TargetArray = (
        np.array(labelled.values, np.float64) if target.numeric else _label_encode(labelled.values)
    )
    applicable = REGRESSORS if target.numeric else CLASSIFIERS
    return Task(
        labelled,
        indices,
        y,
        shuffle(y, seed),
        _label_encode(labelled_groups),
        tuple(task_folds),
        tuple(probe for probe in applicable if probes is None or probe in probes),
        seed,
    )


def _label_encode(values: Sequence[object]) -> np.ndarray:
    """Integers from 0, in alphabetical order of the names."""
    return np.unique(np.array([str(value) for value in values]), return_inverse=True)[1]

"""What is asked of vectors: a target with its folds; and what comes out: a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .folds import Fold, make_folds
from .labels import Target
from .probes import CLASSES, QUANTITIES, ProbeName, Targets

__all__ = ["Score", "Task", "make_task"]

Shuffle = Callable[[Targets, int], Targets]


@dataclass(frozen=True)
class Score:
    """One probe of one target, at one readout.

    Attributes:
        tap: where; "weighted ear" and "weighted lm" are layers combined.
        metric: "accuracy" of classes, "r2" of quantities, on recordings not trained on, the mean
            over folds; `low` to `high` are its 95 % interval.
        baseline: the same metric of always answering with the most frequent class, or the mean.
        control: the same of the same probe where labels had been shuffled among recordings, and
            `at_chance` whether that is no better than chance.
        recordings, groups, classes: with this label; classes are 0 for a quantity.
        weights: of the layers combined, by tap.
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
    """One target, ready to be probed: answers as numbers, and folds of those that have one.

    Attributes:
        where: which of all recordings have the label.
        answers, shuffled: theirs: classes as whole numbers from 0, quantities as they are.
        groups: theirs, as numbers.
    """

    target: Target
    where: np.ndarray
    answers: Targets
    shuffled: Targets
    groups: np.ndarray
    folds: tuple[Fold, ...]
    probes: tuple[ProbeName, ...]
    seed: int

    def score(self, true: Targets, answered: Targets) -> float:
        """The metric: share of right answers, or R²."""
        if not self.target.numeric:
            return float(np.mean(true == answered))
        wrong, spread = np.sum((true - answered) ** 2), np.sum((true - true.mean()) ** 2)
        return float(1 - wrong / spread) if spread else 0.0

    def constant(self, fold: Fold) -> Targets:
        """What the baseline answers in a fold."""
        train = self.answers[fold.train]
        one = train.mean() if self.target.numeric else np.bincount(train).argmax()
        return np.full(len(fold.test), one)


def permuted(answers: Targets, seed: int) -> Targets:
    """In another order."""
    return np.random.default_rng(seed).permutation(answers)


def make_task(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    probes: Sequence[str] | None,
    folds: int | None,
    seed: int,
    shuffle: Shuffle = permuted,
) -> Task:
    """A target as a task, for the probes that apply to it.

    Raises:
        OptionError: as `make_folds` does.
    """
    where = np.array([k for k, value in enumerate(target.values) if value is not None])
    known = Target(target.name, tuple(target.values[k] for k in where), target.numeric)
    theirs = [groups[k] for k in where]
    made = make_folds(known, theirs, splits and [splits[k] for k in where], folds, seed)
    answers: Targets = (
        np.array(known.values, np.float64) if target.numeric else _coded(known.values)
    )
    applying = QUANTITIES if target.numeric else CLASSES
    return Task(
        known,
        where,
        answers,
        shuffle(answers, seed),
        _coded(theirs),
        tuple(made),
        tuple(p for p in applying if probes is None or p in probes),
        seed,
    )


def _coded(values: Sequence[object]) -> np.ndarray:
    """Names as whole numbers from 0, in order of the alphabet."""
    return np.unique(np.array([str(value) for value in values]), return_inverse=True)[1]

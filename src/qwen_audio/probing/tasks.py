"""Probing tasks (a target with its cross-validation folds) and their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from qwen_audio.errors import OptionError, counted

from .average_precision import macro_average_precision
from .folds import Fold, check_splits, make_folds, merge_groups
from .labels import LabelledDataset
from .options import DEFAULT_FOLDS, check_min_count
from .probes import PROBES_OF_TASK, ProbeName, TargetArray
from .rare import leave_out_rare
from .targets import TASKS, Target, TaskName

__all__ = ["METRICS", "ProbeScore", "Task", "make_task", "make_tasks"]

METRICS: dict[TaskName, str] = {"classes": "accuracy", "quantity": "r2", "labels": "mAP"}

Shuffle = Callable[[TargetArray, int], TargetArray]


@dataclass(frozen=True)
class ProbeScore:
    """Cross-validated score of one probe of one target on one kind of feature.

    Attributes:
        task: "classes", "quantity" or "labels".
        tap: "weighted encoder" and "weighted lm" are weighted sums of layers.
        metric: "accuracy" of classes, "r2" of quantities, "mAP" of labels: average precision,
            averaged over them.
        score: the metric on recordings not trained on, averaged over folds.
        low, high: its 95 % confidence interval.
        baseline: score of always predicting the same: the most frequent class, the mean, or of each
            label its share of the recordings.
        control: score of the same probe trained and tested on shuffled labels, with its 95 %
            confidence interval from `control_low` to `control_high`.
        control_at_chance: whether the control is no better than chance.
        recordings, groups: number with a label.
        classes: number of classes or labels; 0 for a quantity.
        weights: of the layers of a weighted sum, by tap.
    """

    target: str
    task: str
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
    control_at_chance: bool
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
        classes: names of the classes or labels, in alphabetical order; none for a quantity.
        y: what is predicted: classes as indices, quantities as floats, labels as a column of
            booleans each.
        y_shuffled: the same, permuted for the control.
        groups: their groups, as integers from 0.
    """

    target: Target
    indices: np.ndarray
    classes: tuple[str, ...]
    y: TargetArray
    y_shuffled: TargetArray
    groups: np.ndarray
    folds: tuple[Fold, ...]
    probes: tuple[ProbeName, ...]
    seed: int

    def metric(self, true: TargetArray, predicted: TargetArray) -> float:
        """Accuracy of classes, R² of quantities (0 if all true values are equal), mAP of labels."""
        if self.target.task == "labels":
            return macro_average_precision(true, predicted)
        if self.target.task == "classes":
            return float(np.mean(true == predicted))
        residual, total = np.sum((true - predicted) ** 2), np.sum((true - true.mean()) ** 2)
        return float(1 - residual / total) if total else 0.0

    def baseline_predictions(self, fold: Fold) -> TargetArray:
        """The most frequent class or the mean of a fold's training labels; equal label scores."""
        train = self.y[fold.train]
        if self.target.task == "labels":
            return np.zeros((len(fold.test), len(self.classes)))
        value = np.bincount(train).argmax() if self.target.task == "classes" else train.mean()
        return np.full(len(fold.test), value)


def permuted(y: TargetArray, seed: int) -> TargetArray:
    """A random permutation of the recordings' labels."""
    return np.random.default_rng(seed).permutation(y)


def make_task(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    probes: Sequence[str] | None,
    folds: int,
    seed: int,
    shuffle: Shuffle = permuted,
) -> Task:
    """Encode a target's labels and divide its recordings into folds.

    Args:
        groups, splits: of all recordings, with or without the label.
        probes: those of them that apply to the target are used; by default all that apply.
        shuffle: makes the control's labels.

    Raises:
        OptionError: as `make_folds` does, and if none of the probes applies.
    """
    applicable = PROBES_OF_TASK[target.task]
    used = tuple(probe for probe in applicable if probes is None or probe in probes)
    if not used:
        raise OptionError(
            f"probes={list(probes or ())}: none applies to {target.name}, which is "
            f"{TASKS[target.task]}: use {' or '.join(applicable)}"
        )
    indices = np.array([k for k, value in enumerate(target.values) if value is not None])
    labelled = target.subset(indices.tolist())
    labelled_groups = [groups[k] for k in indices]
    labelled_splits = splits and [splits[k] for k in indices]
    task_folds = make_folds(labelled, labelled_groups, labelled_splits, folds, seed)
    classes, y = _encode(labelled)
    return Task(
        labelled,
        indices,
        classes,
        y,
        shuffle(y, seed),
        np.unique(np.array(labelled_groups), return_inverse=True)[1],
        tuple(task_folds),
        used,
        seed,
    )


def make_tasks(
    dataset: LabelledDataset,
    contents: Sequence[str] | None,
    probes: Sequence[str] | None,
    folds: int | None,
    min_count: int | None,
    seed: int,
) -> tuple[list[Task], list[str]]:
    """A task for every target, and notes for the user.

    Args:
        contents: identities of the recordings' content; None where they aren't known yet.
        folds: number of folds without splits; 5 by default.
        min_count: recordings that a class or label needs; by default one for each fold.

    Raises:
        OptionError: for all targets at once that can't be probed.
    """
    if not dataset.sources:
        raise OptionError("none of the recordings can be read: check their paths")
    splits = dataset.splits
    if splits is not None:
        if folds is not None:
            raise OptionError(
                f"folds={folds} and given splits exclude each other: omit one, or rename the "
                "column `split`"
            )
        check_splits(splits)
    min_count = check_min_count(min_count, dataset.targets)
    fold_count = DEFAULT_FOLDS if folds is None else folds
    needed = 1 if splits is not None else fold_count  # groups of each class
    groups = dataset.groups if contents is None else merge_groups(dataset.groups, contents)
    problems, tasks, notes = dict(dataset.problems), [], list(dataset.reasons)
    for target in dataset.targets:
        if target.labelled_count < len(dataset.sources):
            notes.append(
                f"{target.name}: {target.labelled_count} of {len(dataset.sources)} recordings have "
                "a label"
            )
        try:
            common, note = leave_out_rare(target, groups, needed, min_count or needed)
            task = make_task(common, groups, splits, probes, fold_count, seed)
        except OptionError as error:
            problems[target.name] = str(error)
            continue
        tasks.append(task)
        notes += [note] * bool(note) + list(_untrained(task))
    if problems:
        raise OptionError(_problems_line(problems, [task.target.name for task in tasks]))
    if repeated := 0 if contents is None else len(contents) - len(set(contents)):
        duplicates = f"{counted(repeated, 'duplicate')} of other recordings"
        notes.append(
            f"{duplicates}, in the same fold as these"
            if splits is None
            else f"{duplicates}: check that no duplicate of a test recording is trained on"
        )
    return tasks, notes


def _encode(target: Target) -> tuple[tuple[str, ...], TargetArray]:
    """The classes or labels in alphabetical order, and `y` of `Task`."""
    if target.task == "quantity":
        return (), np.array(target.values, np.float64)
    if target.task == "classes":
        names, y = np.unique(np.array(target.values), return_inverse=True)
        return tuple(names.tolist()), y
    sets = [set(names) for names in cast(tuple[tuple[str, ...], ...], target.values)]
    labels = sorted(set().union(*sets))
    return tuple(labels), np.array([[label in names for label in labels] for names in sets])


def _untrained(task: Task) -> list[str]:
    """A note if folds test classes that they don't train on."""
    names: set[str] = set()
    for fold in task.folds if task.classes else ():
        train, test = task.y[fold.train], task.y[fold.test]
        if task.target.task == "classes":
            missing = np.setdiff1d(test, train)
        else:
            missing = np.flatnonzero(test.any(0) & ~train.any(0))
        names |= {task.classes[k] for k in missing}
    if not names:
        return []
    shown = ", ".join(sorted(names))
    return [f"{task.target.name}: tested in a fold that doesn't train on them: {shown}"]


def _problems_line(problems: Mapping[str, str], good: Sequence[str]) -> str:
    """All problems on one line, and which columns have none."""
    count = f"{len(problems)} columns can't be probed: " if len(problems) > 1 else ""
    others = ""
    if good:
        others = f"; or probe the other columns only: targets={list(good)}"
    return f"{count}{'; '.join(problems.values())}{others}"

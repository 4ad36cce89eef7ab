"""Cross-validation folds that keep groups of recordings together, stratified by label."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Float64, Int64, Shaped

from qwen_audio.errors import OptionError, counted

from .targets import Target

__all__ = ["Fold", "check_splits", "make_folds", "merge_groups"]

_TRAIN_TEST = {"train", "test"}
_MAX_PARTS = 10
"""Parts of a quantity's range, about equally frequent, by which folds are stratified."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Indices of the training recordings and of the test recordings."""

    train: Int64[np.ndarray, "train"]
    test: Int64[np.ndarray, "test"]


def merge_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """The group of each recording, after merging groups that share a recording's content."""
    parent: dict[str, str] = {}  # union-find

    def root(group: str) -> str:
        while (above := parent.get(group, group)) != group:
            group = above
        return group

    group_of_content: dict[str, str] = {}
    for group, content in zip(groups, contents, strict=True):
        a, b = root(group), root(group_of_content.setdefault(content, group))
        parent[max(a, b)] = min(a, b)
    return [root(group) for group in groups]


def check_splits(splits: Iterable[str], subject: str = "") -> set[str]:
    """The names of splits. Raises OptionError unless they are train and test, or several folds."""
    names = set(splits)
    if names & _TRAIN_TEST and names != _TRAIN_TEST:
        raise OptionError(
            f"{subject}splits are {', '.join(sorted(names))}: use only train and test (drop "
            "validation rows, or add them to train), or names of folds"
        )
    if len(names) < 2:
        raise OptionError(f"{subject}all splits are {', '.join(names)!r}: use at least two")
    return names


def make_folds(
    target: Target, groups: Sequence[str], splits: Sequence[str] | None, folds: int, seed: int
) -> list[Fold]:
    """Divide recordings, all of which have the label, into folds.

    Splits named "train" and "test" are one fold; any other names are folds, each tested once.
    Without splits, groups are divided at random, stratified by class, by parts of a quantity's
    range or by labels as far as groups allow.

    Args:
        folds: number of folds without splits.

    Raises:
        OptionError: if there are too few recordings, groups or splits.
    """
    if splits is not None:
        result = list(_given_folds(target.name, np.array(splits)))
    else:
        result = _random_folds(target, np.array(groups), folds, seed)
    numeric = target.task == "quantity"
    for fold in result:
        train, test = ({target.values[k] for k in indices} for indices in (fold.train, fold.test))
        if len(train) < 2:
            raise OptionError(
                f"{target.name}: fewer than two {'different values' if numeric else 'classes'} are "
                "left to train on: add training recordings, or split them differently"
            )
        if len(test) < 1 + numeric:
            raise OptionError(
                f"{target.name}: a fold has "
                f"{'fewer than two different values' if numeric else 'no recording'} to test: use "
                "fewer folds or more recordings"
            )
    return result


def _given_folds(name: str, splits: np.ndarray) -> Iterator[Fold]:
    names = check_splits(splits.tolist(), f"{name}: ")
    for test in ["test"] if names == _TRAIN_TEST else sorted(names):
        yield Fold(np.flatnonzero(splits != test), np.flatnonzero(splits == test))


def _random_folds(target: Target, groups: np.ndarray, folds: int, seed: int) -> list[Fold]:
    from sklearn.model_selection import StratifiedGroupKFold

    count = len(set(groups.tolist()))
    if count < folds:
        fewer = f", or use folds={count}" * (count > 1)
        raise OptionError(
            f"{target.name} has {counted(len(groups), 'recording')} in "
            f"{counted(count, 'group')}, fewer than the {folds} folds: add recordings{fewer}"
        )
    # One sample for every stratum of a recording: those of a group stay together.
    recordings, strata = _strata(target, folds)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    tests = [
        np.unique(recordings[test])
        for _, test in splitter.split(strata, strata, groups[recordings])
    ]
    everything = np.arange(len(groups))
    return [Fold(np.setdiff1d(everything, test), test) for test in tests]


def _strata(
    target: Target, folds: int
) -> tuple[Int64[np.ndarray, "samples"], Shaped[np.ndarray, "samples"]]:
    """What folds should have in equal shares: the recording and the stratum of each sample.

    A recording is a sample of its class or its part of the quantity's range; of labels, a sample of
    each of its labels and one more, so that folds are of like size, too.
    """
    if target.task == "labels":
        labels = cast(tuple[tuple[str, ...], ...], target.values)
        pairs = [(k, name) for k, names in enumerate(labels) for name in ("", *names)]
        return np.array([k for k, _ in pairs]), np.array([name for _, name in pairs])
    values = np.array(target.values)
    if target.task == "quantity":
        values = _parts_of_range(values, max(folds, math.ceil(len(values) / _MAX_PARTS)))
    return np.arange(len(values)), values


def _parts_of_range(values: Float64[np.ndarray, "n"], least: int) -> Int64[np.ndarray, "n"]:
    """The part of the range that each value is in; each part has at least so many values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    parts: list[int] = []
    part, size = 0, 0
    for count in counts.tolist():
        parts.append(part)
        size += count
        if size >= least:
            part, size = part + 1, 0
    # The last values, if they are too few for a part of their own, are in the one before.
    return np.minimum(parts, max(part - 1, 0))[inverse]

"""Cross-validation folds that keep groups of recordings together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from qwen_audio.errors import OptionError

from .labels import Target
from .options import check_folds

__all__ = ["Fold", "make_folds", "merge_groups"]

_TRAIN_TEST = {"train", "test"}


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


def make_folds(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    folds: int | None,
    seed: int,
) -> list[Fold]:
    """Divide recordings, all of which have the label, into folds.

    Splits named "train" and "test" are one fold; any other names are folds, each tested once.
    Without splits, groups are divided at random, stratified by class as far as groups allow.

    Args:
        folds: number of folds without splits; 5 by default.

    Raises:
        OptionError: if there are too few recordings, groups or splits, or `folds` beside splits.
    """
    if splits is not None:
        if folds is not None:
            raise OptionError(
                f"folds={folds} and given splits exclude each other: omit one, or rename the "
                "column `split`"
            )
        result = list(_given_folds(target.name, np.array(splits)))
    else:
        result = _random_folds(target, np.array(groups), 5 if folds is None else folds, seed)
    values = np.array(target.values)
    for fold in result:
        needed = "different values" if target.numeric else "classes"
        if len(set(values[fold.train])) < 2:
            raise OptionError(
                f"{target.name}: fewer than two {needed} are left to train on: add training "
                "recordings, or split them differently"
            )
        if target.numeric and len(set(values[fold.test])) < 2:
            raise OptionError(
                f"{target.name}: a fold has fewer than two different values to test: use fewer "
                "folds or more recordings"
            )
    return result


def _given_folds(name: str, splits: np.ndarray) -> Iterable[Fold]:
    names = set(splits.tolist())
    if names & _TRAIN_TEST and names != _TRAIN_TEST:
        raise OptionError(
            f"{name}: splits are {', '.join(sorted(names))}: use only train and test (drop "
            "validation rows, or add them to train), or names of folds"
        )
    if len(names) < 2:
        raise OptionError(f"{name}: all splits are {names.pop()!r}: use at least two")
    for test in ["test"] if names == _TRAIN_TEST else sorted(names):
        yield Fold(np.flatnonzero(splits != test), np.flatnonzero(splits == test))


def _random_folds(target: Target, groups: np.ndarray, folds: int, seed: int) -> list[Fold]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    folds = check_folds(folds)
    values = np.array(target.values)
    group_counts: list[tuple[int, str]] = [(len(set(groups)), "")]
    if not target.numeric:
        pairs = set(zip(values.tolist(), groups.tolist(), strict=True))
        by_class = Counter(value for value, _ in pairs)
        group_counts += [(count, str(value)) for value, count in by_class.items()]
    count, value = min(group_counts)
    if count < folds:
        recordings = int(np.sum(values == value)) if value else len(values)
        subject = f"{value!r} of {target.name}" if value else target.name
        remedies = ["add recordings", *["leave those cells empty"] * bool(value)]
        remedies += [f"use folds={count}"] * (count > 1)
        raise OptionError(
            f"{subject} has {recordings} recording{'s' * (recordings != 1)} in {count} "
            f"group{'s' * (count != 1)}, fewer than the {folds} folds: {', '.join(remedies)}, or "
            "probe other columns (targets, --target)"
        )
    splitter = GroupKFold if target.numeric else StratifiedGroupKFold
    pairs_of_indices = splitter(folds, shuffle=True, random_state=seed).split(
        values, values, groups
    )
    return [Fold(np.asarray(train), np.asarray(test)) for train, test in pairs_of_indices]

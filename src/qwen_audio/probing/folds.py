"""Folds: what is trained on and what is tested, whole groups at a time; intervals; chance."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from qwen_audio.errors import OptionError

from .labels import Target

__all__ = ["Fold", "joined_groups", "make_folds"]

_HALVES = {"train", "test"}


@dataclass(frozen=True, eq=False)
class Fold:
    """Indices of the recordings to train on, and of those to test."""

    train: Int64[np.ndarray, "train"]
    test: Int64[np.ndarray, "test"]


def joined_groups(groups: Sequence[str], contents: Sequence[str]) -> list[str]:
    """The groups, those joined into one that hold recordings of the same content."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while (above := parent.get(group, group)) != group:
            group = above
        return group

    first: dict[str, str] = {}
    for group, content in zip(groups, contents, strict=True):
        a, b = root(group), root(first.setdefault(content, group))
        parent[max(a, b)] = min(a, b)
    return [root(group) for group in groups]


def make_folds(
    target: Target,
    groups: Sequence[str],
    splits: Sequence[str] | None,
    folds: int | None,
    seed: int,
) -> list[Fold]:
    """Train and test sets of the recordings, all of which have the label.

    Given splits "train" and "test" are one fold; other names are folds, each tested once. Else
    groups are divided at random, classes as evenly as groups allow.

    Raises:
        OptionError: if there are too few recordings, groups or splits, or `folds` beside splits.
    """
    if splits is not None:
        if folds is not None:
            raise OptionError(
                f"folds={folds} beside given splits: leave one out, or name the column `split` "
                "something else"
            )
        result = list(_given(target.name, np.array(splits)))
    else:
        result = _divided(target, np.array(groups), 5 if folds is None else folds, seed)
    values = np.array(target.values)
    for fold in result:
        needed = "different values" if target.numeric else "classes"
        if len(set(values[fold.train])) < 2:
            raise OptionError(
                f"{target.name}: fewer than two {needed} are left to train on: add recordings to "
                "what is trained on, or divide them otherwise"
            )
        if target.numeric and len(set(values[fold.test])) < 2:
            raise OptionError(
                f"{target.name}: a fold has fewer than two different values to test: use fewer "
                "folds or more recordings"
            )
    return result


def _given(name: str, splits: np.ndarray) -> Iterable[Fold]:
    found = set(splits.tolist())
    if found & _HALVES and found != _HALVES:
        raise OptionError(
            f"{name}: splits are {', '.join(sorted(found))}: use train and test alone (take what "
            "you keep for validation out, or let it train), or names of folds"
        )
    if len(found) < 2:
        raise OptionError(f"{name}: all splits are {found.pop()!r}: at least two are needed")
    for test in ["test"] if found == _HALVES else sorted(found):
        yield Fold(np.flatnonzero(splits != test), np.flatnonzero(splits == test))


def _divided(target: Target, groups: np.ndarray, folds: int, seed: int) -> list[Fold]:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise OptionError(f"folds={folds!r}: use 2 or more")
    values = np.array(target.values)
    least: list[tuple[int, str]] = [(len(set(groups)), "")]
    if not target.numeric:
        pairs = set(zip(values.tolist(), groups.tolist(), strict=True))
        of_class = Counter(value for value, _ in pairs)
        least += [(count, str(value)) for value, count in of_class.items()]
    count, value = min(least)
    if count < folds:
        clips = int(np.sum(values == value)) if value else len(values)
        what = f"{value!r} of {target.name}" if value else target.name
        ways = ["give more recordings", *["leave those cells empty"] * bool(value)]
        ways += [f"use folds={count}"] * (count > 1)
        raise OptionError(
            f"{what} has {clips} recording{'s' * (clips != 1)} in {count} "
            f"group{'s' * (count != 1)}, fewer than the {folds} folds: {', '.join(ways)}, or probe "
            "other columns (targets, --target)"
        )
    divide = GroupKFold if target.numeric else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes of few groups: counted above
        parts = divide(folds, shuffle=True, random_state=seed).split(values, values, groups)
        return [Fold(np.asarray(train), np.asarray(test)) for train, test in parts]

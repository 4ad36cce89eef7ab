from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_audio.errors import OptionError
from qwen_audio.probing.folds import Fold, joined_groups, make_folds
from qwen_audio.probing.labels import Target
from qwen_audio.probing.statistics import at_chance, interval


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_recordings_of_one_content_or_one_group_end_in_one_group(
    pairs: list[tuple[int, int]],
) -> None:
    groups, contents = [f"g{g}" for g, _ in pairs], [f"c{c}" for _, c in pairs]
    joined = joined_groups(groups, contents)
    reach = [{k} for k in range(len(pairs))]  # by hand: grow until nothing changes
    for _ in pairs:
        for k, (g, c) in enumerate(pairs):
            for j, (h, d) in enumerate(pairs):
                if g == h or c == d:
                    reach[k] = reach[j] = reach[k] | reach[j]
    for k in range(len(pairs)):
        assert {j for j in range(len(pairs)) if joined[j] == joined[k]} == reach[k]


def target(values: list[float | str]) -> Target:
    return Target("t", tuple(values), isinstance(values[0], float))


@given(st.booleans(), st.integers(2, 4), st.integers(1, 3), st.integers(0, 9))
def test_each_recording_is_tested_once_and_never_with_its_group(
    numeric: bool, folds: int, together: int, seed: int
) -> None:
    count = 24
    values: list[float | str] = [
        float(k) if numeric else "ab"[k // together % 2] for k in range(count)
    ]
    groups = [f"g{k // together}" for k in range(count)]
    made = make_folds(target(values), groups, None, folds, seed)
    assert len(made) == folds
    assert sorted(np.concatenate([fold.test for fold in made]).tolist()) == list(range(count))
    for fold in made:
        assert not {groups[k] for k in fold.train} & {groups[k] for k in fold.test}
        assert len(fold.train) + len(fold.test) == count
        if not numeric:  # as even as groups allow
            share = np.mean([values[k] == "a" for k in fold.test])
            assert 0.25 <= share <= 0.75


def test_given_splits_are_kept() -> None:
    values: list[float | str] = ["a", "b", "a", "b"]
    (fold,) = make_folds(target(values), list("wxyz"), ["train", "train", "test", "test"], None, 0)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1], [2, 3])
    folds = make_folds(target(values), list("wxyz"), ["1", "3", "2", "2"], None, 0)
    assert [fold.test.tolist() for fold in folds] == [[0], [2, 3], [1]]


@pytest.mark.parametrize(
    ("values", "groups", "splits", "folds", "message"),
    [
        (
            list("aabbb"),
            list("12345"),
            None,
            3,
            "'a' of t has 2 recordings in 2 groups, fewer",
        ),
        (list("abb"), list("123"), None, 2, "'a' of t has 1 recording in 1 group, fewer.*--target"),
        (list("abab"), list("1234"), ["1", "2", "1", "1"], None, "left to train on: add"),
        (
            list("aaabbb"),
            list("112345"),
            None,
            3,
            "3 recordings in 2 groups.*, use folds=2, or probe other",
        ),
        ([1.0, 2.0, 3.0], list("123"), None, 4, "t has 3 recordings in 3 groups, fewer than the 4"),
        ([1.0, 2.0, 3.0], list("123"), None, 3, "fewer than two different values to test"),
        (list("abab"), list("1234"), None, 1, "folds=1: use 2 or more"),
        (list("abab"), list("1234"), ["train"] * 4, None, "splits are train: use train and test"),
        (list("abab"), list("1234"), ["x"] * 4, None, "all splits are 'x'"),
        (
            list("abab"),
            list("1234"),
            ["train", "valid", "test", "test"],
            None,
            "train, valid",
        ),
        (
            list("abab"),
            list("1234"),
            ["train", "test"] * 2,
            None,
            "fewer than two classes",
        ),
        (list("abab"), list("1234"), ["train", "train", "test", "test"], 3, "beside given splits"),
    ],
)
def test_too_little_to_learn_from(
    values: list[float | str],
    groups: list[str],
    splits: list[str] | None,
    folds: int | None,
    message: str,
) -> None:
    with pytest.raises(OptionError, match=message):
        make_folds(target(values), groups, splits, folds, 0)


def test_intervals() -> None:
    fold = Fold(np.arange(80), np.arange(20))
    low, high = interval([0.5, 0.6, 0.7, 0.6, 0.5], [fold] * 5)
    # by hand: deviation .083666, variance × (1/5 + 1/4), t(.975, 4) = 2.776
    assert [low, high] == pytest.approx([0.58 - 0.15583, 0.73583], abs=1e-4)
    assert interval([0.9, 1.0], [fold] * 2)[1] == 1
    right = np.array([1.0] * 75 + [0.0] * 25)
    low, high = interval([0.75], [fold], right)
    assert [low, high] == pytest.approx([0.6636, 0.8364], abs=1e-3)
    assert np.isnan(interval([0.3], [fold])).all()
    assert interval([0.0, 0.9], [fold] * 2)[0] < 0  # as R² may be
    assert interval([0.0, 0.9], [fold] * 2, least=0.0) == (0, 1)


def test_chance() -> None:
    assert at_chance(0.53, 0.5, 1000, numeric=False)
    assert not at_chance(0.60, 0.5, 1000, numeric=False)
    assert at_chance(0.60, 0.5, 20, numeric=False)
    assert at_chance(-0.4, -0.01, 100, numeric=True)
    assert at_chance(0.1, -0.01, 100, numeric=True)
    assert not at_chance(0.3, -0.01, 100, numeric=True)

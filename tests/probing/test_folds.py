from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_audio.errors import OptionError
from qwen_audio.probing.folds import Fold, make_folds, merge_groups
from qwen_audio.probing.statistics import confidence_interval, is_at_chance
from qwen_audio.probing.targets import Target


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_recordings_that_share_content_or_group_are_merged_into_one_group(
    pairs: list[tuple[int, int]],
) -> None:
    groups, contents = [f"g{g}" for g, _ in pairs], [f"c{c}" for _, c in pairs]
    merged = merge_groups(groups, contents)
    connected = [{k} for k in range(len(pairs))]  # transitive closure by brute force
    for _ in pairs:
        for k, (g, c) in enumerate(pairs):
            for j, (h, d) in enumerate(pairs):
                if g == h or c == d:
                    connected[k] = connected[j] = connected[k] | connected[j]
    for k in range(len(pairs)):
        assert {j for j in range(len(pairs)) if merged[j] == merged[k]} == connected[k]


def target(values: list[float | str]) -> Target:
    return Target("t", tuple(values), "quantity" if isinstance(values[0], float) else "classes")


@pytest.mark.filterwarnings("error")
@given(st.booleans(), st.integers(2, 4), st.integers(1, 3), st.integers(0, 9))
def test_each_recording_is_tested_once_and_never_with_its_group(
    numeric: bool, folds: int, group_size: int, seed: int
) -> None:
    count = 24
    values: list[float | str] = [
        float(k) if numeric else "ab"[k // group_size % 2] for k in range(count)
    ]
    groups = [f"g{k // group_size}" for k in range(count)]
    result = make_folds(target(values), groups, None, folds, seed)
    assert len(result) == folds
    assert sorted(np.concatenate([fold.test for fold in result]).tolist()) == list(range(count))
    for fold in result:
        assert not {groups[k] for k in fold.train} & {groups[k] for k in fold.test}
        assert len(fold.train) + len(fold.test) == count
        if not numeric:  # stratified, as far as groups allow
            share = np.mean([values[k] == "a" for k in fold.test])
            assert 0.25 <= share <= 0.75


def test_given_splits_are_used() -> None:
    values: list[float | str] = ["a", "b", "a", "b"]
    (fold,) = make_folds(target(values), list("wxyz"), ["train", "train", "test", "test"], 5, 0)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1], [2, 3])
    folds = make_folds(target(values), list("wxyz"), ["1", "3", "2", "2"], 5, 0)
    assert [fold.test.tolist() for fold in folds] == [[0], [2, 3], [1]]


@pytest.mark.filterwarnings("error")
def test_folds_have_equal_shares_of_a_quantity_and_of_labels() -> None:
    """Sorted by group, so that folds without strata would differ."""
    groups = [f"g{k // 3:02}" for k in range(90)]
    quantity = Target("t", tuple(float(k // 3) for k in range(90)), "quantity")  # one a group
    for fold in make_folds(quantity, groups, None, 3, 0):
        low = np.mean(np.array(quantity.values)[fold.test].astype(float) < 15)
        assert 0.4 <= low <= 0.6
        assert len(fold.test) == 30
    tied = Target("t", (*[0.0] * 50, *range(37), *[99.0] * 3), "quantity")
    for fold in make_folds(tied, [str(k) for k in range(90)], None, 5, 0):
        assert sum(tied.values[k] == 0 for k in fold.test) in (10, 11)
    names = [("rare",) * (k // 3 % 10 == 0) + ("odd",) * (k % 2) for k in range(90)]
    labels = Target("t", (*names,), "labels")
    folds = make_folds(labels, groups, None, 3, 0)
    assert sorted(np.concatenate([fold.test for fold in folds]).tolist()) == list(range(90))
    for fold in folds:
        assert not {groups[k] for k in fold.train} & {groups[k] for k in fold.test}
        assert sum("rare" in names[k] for k in fold.test) == 3
        assert 24 <= len(fold.test) <= 36


@pytest.mark.parametrize(
    ("values", "groups", "splits", "folds", "message"),
    [
        (list("abab"), "1234", ["1", "2", "1", "1"], 5, "left to train on: add"),
        ([1.0, 2.0, 3.0], "123", None, 4, "t has 3 recordings in 3 groups, fewer than the 4"),
        ([1.0, 2.0, 3.0], "122", None, 3, "in 2 groups, .*: add recordings, or use folds=2"),
        ([1.0, 2.0, 3.0], "123", None, 3, "fewer than two different values to test"),
        ([1.0, 1.0, 2.0, 2.0], "1122", None, 2, "fewer than two different values"),
        (list("abab"), "1234", ["train"] * 4, 5, "splits are train: use only train and test"),
        (list("abab"), "1234", ["x"] * 4, 5, "all splits are 'x'"),
        (list("abab"), "1234", ["train", "valid", "test", "test"], 5, "train, valid"),
        (list("abab"), "1234", ["train", "test"] * 2, 5, "fewer than two classes"),
    ],
)
def test_data_that_cannot_be_divided_raises(
    values: list[float | str], groups: str, splits: list[str] | None, folds: int, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        make_folds(target(values), list(groups), splits, folds, 0)


def test_confidence_intervals() -> None:
    fold = Fold(np.arange(80), np.arange(20))
    low, high = confidence_interval([0.5, 0.6, 0.7, 0.6, 0.5], [fold] * 5)
    # standard deviation .083666, variance × (1/5 + 1/4), t(.975, 4) = 2.776
    assert [low, high] == pytest.approx([0.58 - 0.15583, 0.73583], abs=1e-4)
    assert confidence_interval([0.9, 1.0], [fold] * 2)[1] == 1
    correct = np.array([1.0] * 75 + [0.0] * 25)
    low, high = confidence_interval([0.75], [fold], correct)
    assert [low, high] == pytest.approx([0.6636, 0.8364], abs=1e-3)
    assert np.isnan(confidence_interval([0.3], [fold])).all()
    assert confidence_interval([0.0, 0.9], [fold] * 2)[0] < 0  # R² may be negative
    assert confidence_interval([0.0, 0.9], [fold] * 2, lower_bound=0.0) == (0, 1)


def test_control_at_chance() -> None:
    assert is_at_chance(0.53, 0.5, 1000, "classes")
    assert not is_at_chance(0.60, 0.5, 1000, "classes")
    assert is_at_chance(0.60, 0.5, 20, "classes")
    assert is_at_chance(-0.4, -0.01, 100, "quantity")
    assert is_at_chance(0.1, -0.01, 100, "quantity")
    assert not is_at_chance(0.3, -0.01, 100, "quantity")

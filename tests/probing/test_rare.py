"""Rare classes: left out and named with their counts, all at once."""

from __future__ import annotations

import pytest

from qwen_audio.errors import OptionError
from qwen_audio.probing.rare import leave_out_rare
from qwen_audio.probing.targets import Target

GENRES = Target("genre", (*"aaaabbbbccd", None), "classes")
GROUPS = list("123456788912")


def test_all_rare_classes_are_in_one_note() -> None:
    common, note = leave_out_rare(GENRES, GROUPS, folds=3, min_count=3)
    assert common.values == (*"aaaabbbb", *[None] * 4)
    assert note == (
        "genre: 2 of 4 classes left out, with fewer than 3 recordings in 3 groups: "
        "c (2 recordings), d (1 recording)"
    )
    assert leave_out_rare(GENRES, GROUPS, folds=1, min_count=1) == (GENRES, "")


def test_classes_in_few_groups_are_rare() -> None:
    common, note = leave_out_rare(GENRES, [*"1111", *GROUPS[4:]], folds=2, min_count=1)
    assert common.values == (*[None] * 4, *"bbbbcc", *[None] * 2)
    assert note.endswith("1 recording in 2 groups: a (4 recordings in 1 group), d (1 recording)")


def test_labels_are_rare_with_few_recordings_and_without_few() -> None:
    names = [("a", "b"), ("a",), ("a", "c"), ("b", "a"), ("a",), (), None]
    labels = Target("tags", (*names,), "labels")
    common, note = leave_out_rare(labels, GROUPS, folds=2, min_count=2)
    assert common.values == (("b",), (), (), ("b",), (), (), None)
    assert note == (
        "tags: 2 of 3 labels left out, with fewer than 2 recordings in 2 groups: "
        "a (all but 1 recording), c (1 recording)"
    )


def test_a_quantity_has_no_classes() -> None:
    quantity = Target("bpm", (1.0, 2.0), "quantity")
    assert leave_out_rare(quantity, GROUPS, folds=5, min_count=5) == (quantity, "")


@pytest.mark.parametrize(
    ("target", "folds", "min_count", "message"),
    [
        (
            GENRES,
            4,
            5,
            r"genre: fewer than two classes have 5 recordings in 4 groups \(too rare: "
            r"a \(4 recordings\), b \(4 recordings\), .*: add recordings, or use min_count=4",
        ),
        (GENRES, 5, 5, r"add recordings, or use folds=4$"),
        (
            Target("id", tuple("abcdefgh"), "classes"),
            5,
            5,
            r"e \(1 recording\), …\): add recordings$",
        ),
        (Target("tags", (("a",), ("b",), ()), "labels"), 2, 2, "no label has 2 recordings"),
    ],
)
def test_too_few_classes_are_an_error(
    target: Target, folds: int, min_count: int, message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        leave_out_rare(target, GROUPS, folds, min_count)

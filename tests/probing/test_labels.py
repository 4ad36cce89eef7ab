"""Reading labels: column types, groups, splits, class folders and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelled_recordings import write_manifest
from qwen_audio.errors import OptionError
from qwen_audio.probing.labels import read_labels

ROWS: list[dict[str, Any]] = [
    {"source": "a.wav", "genre": "jazz", "bpm": 120, "drums": 1, "group": "x", "split": "train"},
    {"source": "b.wav", "genre": "folk", "bpm": 98.5, "drums": 0, "group": "x", "split": "train"},
    {"source": "c.wav", "genre": "jazz", "bpm": 60, "drums": None, "group": "y", "split": "test"},
]


def without(*columns: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in columns} for row in ROWS]


def changed(column: str, *values: Any) -> list[dict[str, Any]]:
    return [{**row, column: value} for row, value in zip(ROWS, values, strict=True)]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "rows"])
def test_classes_quantities_and_missing_labels(tmp_path: Path, kind: str) -> None:
    labels_input: Any = [{**row, "source": str(tmp_path / row["source"])} for row in ROWS]
    if kind == "csv":
        labels_input = write_manifest(tmp_path / "l.csv", ROWS)
    elif kind == "jsonl":
        labels_input = tmp_path / "l.jsonl"
        labels_input.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    labels = read_labels(labels_input)
    assert [source.uri for source in labels.sources] == [
        str(tmp_path / name) for name in ("a.wav", "b.wav", "c.wav")
    ]
    assert [(t.name, t.values, t.numeric, t.labelled_count) for t in labels.targets] == [
        ("genre", ("jazz", "folk", "jazz"), False, 3),
        ("bpm", (120.0, 98.5, 60.0), True, 3),
        ("drums", ("1", "0", None), False, 2),  # two different numbers are two classes
    ]
    assert labels.groups == ("x", "x", "y")
    assert labels.splits == ("train", "train", "test")
    subset = labels.subset([2, 0])
    assert subset.groups == ("y", "x")
    assert subset.targets[2].values == (None, "1")


def test_selected_columns() -> None:
    labels = read_labels(ROWS, targets=["bpm", "split"], classes=["bpm"], group="genre")
    assert [(t.name, t.values, t.numeric) for t in labels.targets] == [
        ("bpm", ("120", "98.5", "60"), False),
        ("split", ("train", "train", "test"), False),
    ]
    assert labels.groups == ("jazz", "folk", "jazz")
    ungrouped = read_labels(without("group", "split"))
    assert ungrouped.groups == tuple(source.uri for source in ungrouped.sources)
    assert ungrouped.splits is None


def test_a_folder_of_class_folders(tmp_path: Path) -> None:
    for name in ("cello/deep/a.wav", "cello/b.flac", "oboe/c.mp3", "oboe/notes.txt", ".x/y.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    labels = read_labels(tmp_path)
    (target,) = labels.targets
    assert (target.name, target.values) == ("class", ("cello", "cello", "oboe"))
    assert labels.skipped == (str(tmp_path / "oboe" / "notes.txt"),)
    (tmp_path / "stray.wav").touch()
    with pytest.raises(OptionError, match=r"stray.wav is not in a class folder"):
        read_labels(tmp_path)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (changed("bpm", 120, "fast", 60), {}, "bpm mixes numbers .120. and names .'fast'."),
        (changed("bpm", 120, True, 60), {}, "bpm mixes numbers .120. and true or false .True."),
        (changed("genre", "jazz", True, "folk"), {}, "mixes true or false .True. and names"),
        (changed("bpm", 120, float("nan"), 60), {}, "b.wav has the bpm nan: leave the cell empty"),
        (changed("bpm", 120, float("inf"), 60), {}, "b.wav has the bpm inf"),
        (changed("genre", "jazz", None, "jazz"), {}, "genre is 'jazz' for every.*--target"),
        (changed("genre", None, None, None), {}, "no recording has a label 'genre'"),
        (changed("group", "x", None, "y"), {}, "b.wav has no 'group': fill in"),
        (changed("source", "a.wav", "a.wav", "c.wav"), {}, "a.wav is named in rows 1 and 2"),
        (changed("source", "a.wav", "", "c.wav"), {}, "row 2 names no recording"),
        (ROWS, {"targets": ["tempo"]}, "no column 'tempo': there are genre, bpm"),
        (ROWS, {"targets": ["bpm"], "classes": ["drums"]}, "'drums' is not among the targets"),
        (without("genre", "bpm", "drums"), {}, "no labels: add a column"),
        ([], {}, "no rows"),
        ("nowhere.csv", {}, "nowhere.csv doesn't exist"),
        (__file__, {}, "is not a manifest: use .csv"),
    ],
)
def test_errors(rows: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_labels(rows, **options)


def test_cells_that_are_no_numbers_among_numbers(tmp_path: Path) -> None:
    """One makes a column of CSV text; that its numbers become names must be said."""
    labels = tmp_path / "labels.csv"
    labels.write_text("source,bpm\na.wav,120\nb.wav,nan\nc.wav,60\n")
    with pytest.raises(OptionError, match=r"bpm mixes numbers .'120'. and names .'nan'."):
        read_labels(labels)
    (target,) = read_labels(labels, classes=["bpm"]).targets
    assert target.values == ("120", "nan", "60")
    labels.write_text("source,code\na.wav,007\nb.wav,042\nc.wav,007\n")
    assert read_labels(labels).targets[0].values == ("007", "042", "007")
    rows = [{"source": f"{k}.wav", "artist": artist} for k, artist in enumerate(["311", "Nan"])]
    assert not read_labels(rows).targets[0].numeric


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no class folders with audio"):
        read_labels(tmp_path)

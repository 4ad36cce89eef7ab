"""Reading labels: column types, groups, splits, class folders and errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import datasets
import pandas as pd
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
    assert [(t.name, t.values, t.task, t.labelled_count) for t in labels.targets] == [
        ("genre", ("jazz", "folk", "jazz"), "classes", 3),
        ("bpm", (120.0, 98.5, 60.0), "quantity", 3),
        ("drums", ("1", "0", None), "classes", 2),  # two different numbers are two classes
    ]
    assert labels.groups == ("x", "x", "y")
    assert labels.splits == ("train", "train", "test")
    subset = labels.subset([2, 0])
    assert subset.groups == ("y", "x")
    assert subset.targets[2].values == (None, "1")


def test_selected_columns() -> None:
    labels = read_labels(ROWS, targets=["bpm", "split"], tasks={"bpm": "classes"}, group="genre")
    assert [(t.name, t.values, t.task) for t in labels.targets] == [
        ("bpm", ("120", "98.5", "60"), "classes"),
        ("split", ("train", "train", "test"), "classes"),
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
        (changed("group", "x", None, "y"), {}, "b.wav has no 'group': fill in"),
        (
            changed("source", "a.wav", "a.wav", "c.wav"),
            {},
            "in rows 1 and 2: .* such as jazz;piano",
        ),
        (changed("source", "a.wav", "", "c.wav"), {}, r"row 2 names no .*there are genre, bpm"),
        (
            [{"file_path": "a.wav", "genre": "x"}],
            {},
            r"a column source.*there are file_path, genre",
        ),
        (
            ROWS,
            {"targets": ["tempo", "x"], "tasks": {"y": "labels"}},
            "no columns 'tempo', 'x', 'y'",
        ),
        (ROWS, {"targets": ["tempo"]}, "no column 'tempo': there are genre, bpm"),
        (ROWS, {"targets": "bpm"}, r"give a list, such as \['bpm'\]"),
        (ROWS, {"targets": ["bpm"], "tasks": {"drums": "classes"}}, "not among the targets: bpm"),
        (ROWS, {"tasks": {"bpm": "regression"}}, "'regression': use classes, quantity, labels"),
        (without("genre", "bpm", "drums"), {}, "no labels: add a column"),
        ([], {}, "no rows"),
        ("nowhere.csv", {}, "nowhere.csv doesn't exist"),
        (__file__, {}, "is not a manifest: use .csv"),
    ],
)
def test_errors(rows: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        read_labels(rows, **options)


def test_problems_of_all_columns_are_found() -> None:
    rows = [
        {**row, "mood": mood, "key": "C", "level": level}
        for row, mood, level in zip(ROWS, (1, "calm", True), (1.0, float("nan"), 3.0), strict=True)
    ]
    dataset = read_labels(rows)
    assert [target.name for target in dataset.targets] == ["genre", "bpm", "drums"]
    assert list(dataset.problems) == ["mood", "key", "level"]
    assert "mood mixes numbers (1) and true or false (True) and names" in dataset.problems["mood"]


@pytest.mark.parametrize("text", ["source,genre\n", "", "name;genre\na.wav;jazz\n", "\0\xff"])
def test_files_without_labelled_rows_are_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(OptionError) as caught:
        read_labels(path)
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_data_frames_and_class_labels(tmp_path: Path) -> None:
    rows = [{"source": "a.wav", "tags": ["x", "y"]}, {"source": "b.wav", "tags": []}]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    frame = pd.DataFrame([*rows, {"source": "c.wav", "tags": None}])
    for labels in (rows, path, frame):
        (target,) = read_labels(labels).targets
        assert (target.task, target.values[:2]) == ("labels", (("x", "y"), ()))
    assert target.values[2] is None

    class WithFeatures(list[Any]):
        features: ClassVar = {"genre": datasets.ClassLabel(names=["jazz", "folk"])}

    genres = [{"source": f"{k}.wav", "genre": genre} for k, genre in enumerate((0, 1, -1, None))]
    (target,) = read_labels(WithFeatures(genres)).targets
    assert (target.task, target.values) == ("classes", ("jazz", "folk", None, None))


def test_cells_that_are_no_numbers_among_numbers(tmp_path: Path) -> None:
    """One makes a column of CSV text; that its numbers become names must be said."""
    labels = tmp_path / "labels.csv"
    labels.write_text("source,bpm\na.wav,120\nb.wav,nan\nc.wav,60\n")
    assert "bpm mixes numbers ('120') and names ('nan')" in read_labels(labels).problems["bpm"]
    (target,) = read_labels(labels, tasks={"bpm": "classes"}).targets
    assert target.values == ("120", "nan", "60")
    labels.write_text("source,code,tags\na.wav,007,3\nb.wav,042,3;4\nc.wav,007,\n")
    code, tags = read_labels(labels).targets
    assert (code.task, code.values) == ("classes", ("007", "042", "007"))
    assert "numbers as text, such as '007', so classes; tasks={'code': 'quantity'}" in code.reason
    assert (tags.task, tags.values) == ("labels", (("3",), ("3", "4"), None))
    labels.write_text("source,share\na.wav,5%\nb.wav,6\n")
    assert "mixes numbers ('6') and percentages ('5%')" in read_labels(labels).problems["share"]
    rows = [{"source": f"{k}.wav", "artist": artist} for k, artist in enumerate(["311", "Nan"])]
    assert read_labels(rows).targets[0].task == "classes"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no class folders with audio"):
        read_labels(tmp_path)

"""Columns of manifests: every name and value works, or is one clear error before anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from collection_helpers import write_recording
from commands import run
from qwen_audio.audio.manifest import read_manifest
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.columns import check_column_names

WORKING = [
    *("A b", "q'uote", 'd"q', "<!--<script>", "</script>", "=1+1", "@x", "x" * 5000, "🎵", "a\nb"),
    *("tab\t", "a/b", "__proto__", "constructor", "select", "_id", "SOURCE", "Genre", "genre", " "),
    *("a[0]", "{x}", "$x", "%s", "\\", "#", "recording", "folder", "x", "file", "\u202e", "a;--"),
]
REFUSED = {
    "a.b": "no dot",
    "..": "no dot",
    "back`tick": "no backtick",
    "nul\0": "no NUL",
    "*": "not '\\*'",
    "_rowid": "LanceDB's own",
    "_distance": "LanceDB's own",
    "_score": "LanceDB's own",
    "caption": "a standard column of every collection",
    "norm": "a standard column of every collection",
    "": "not a row of named columns",
    "\ud800": "isn't Unicode",
}


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [write_recording(tmp_path / f"{number}.wav", 0.3, number) for number in range(2)]


@pytest.mark.slow
def test_names_that_work(tmp_path: Path, paths: list[Path], model: qa.AudioModel) -> None:
    """Stored, updated, searched, exported, and in the map."""
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    row = {"source": str(paths[0]), **{name: f"one {name}" for name in WORKING}}
    collection.index([row, {**row, "source": str(paths[1]), **dict.fromkeys(WORKING, "two")}])
    assert collection.index([{**row, "x": "changed"}]).updated == 1
    found = collection.search(paths[0])[0].columns
    assert [found[name] for name in WORKING if name != "x"] == [
        f"one {name}" for name in WORKING if name != "x"
    ]
    assert found["x"] == "changed"
    for name in WORKING:
        quoted = name.replace('"', '""')
        assert len(collection.recordings(f"\"{quoted}\" = 'two'")) == 1
    for name in ("x.npz", "x.parquet", "x"):
        assert collection.export(tmp_path / name) == 2
    projection = collection.map()
    assert set(WORKING) <= set(projection.columns)
    assert projection.values("recording")[1] == "two"
    assert projection.file_names == ["0.wav", "1.wav"]
    assert not collection.verify().problems
    assert "a\\nb" in run("collection", "info", tmp_path / "m.lance").stdout


@pytest.mark.parametrize(("name", "message"), REFUSED.items())
def test_names_that_are_errors(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel, name: str, message: str
) -> None:
    rows = [{"source": str(path), "fine": "x", name: "x"} for path in paths]
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    before = collection.table.schema
    with pytest.raises(qa.OptionError, match=message):
        collection.index(rows)
    assert collection.table.schema == before
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    done = run("index", tmp_path / "m.jsonl", "--into", tmp_path / "n.lance")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert not (tmp_path / "n.lance").exists()


def test_the_longest_name_is_shortened_in_messages() -> None:
    with pytest.raises(qa.OptionError) as caught:
        check_column_names(["a." * 5000])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**30])
def test_numbers_beyond_64_bits(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel, value: int
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    with pytest.raises(qa.OptionError, match="column 'n' holds int64 in the collection, but"):
        collection.index([{"source": str(path), "n": value} for path in paths])
    assert "n" not in collection.table.schema.names
    assert len(collection) == 0


def test_columns_that_are_empty_in_every_row(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    collection.index([{"source": str(paths[0]), "kind": "a", "none": None, "a.b": None}])
    assert "none" not in collection.table.schema.names
    summary = collection.index([{"source": str(paths[0]), "kind": None, "title": None}])
    assert summary.updated == 1
    assert collection.search(paths[0])[0].columns["kind"] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "source,x,x\na.wav,1,2\n", r"there are two columns 'x'"),
        ("a.csv", "source,\na.wav,1\n", r"column 2 has no name: .*index=False"),
        ("a.tsv", "\tsource\n0\ta.wav\n", r"column 1 has no name"),
        ("a.jsonl", '{"source": "a.wav", "x": 1, "x": 2}', r"there are two columns 'x'"),
    ],
)
def test_columns_without_a_name_of_their_own(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(qa.OptionError, match=message):
        list(read_manifest(tmp_path / name))


def test_a_dataset_has_no_second_audio_column(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    rows: list[dict[str, Any]] = [{"source": str(path), "audio": "loud"} for path in paths]
    collection.index(rows)
    with pytest.raises(qa.OptionError, match="two columns called audio"):
        collection.export(tmp_path / "dataset")
    assert collection.export(tmp_path / "x.parquet") == 2

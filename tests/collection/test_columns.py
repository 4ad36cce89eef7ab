"""Columns of manifests: every name and value works, or is one clear error before anything."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from collection_helpers import write_recording
from commands import run
from qwen_audio.audio.manifest import read_manifest
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.columns import check_column_names
from qwen_audio.probing.labels import read_labels

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
    found = collection.search(paths[0], include_self=True)[0].columns
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
    done = run("index", tmp_path / "m.jsonl", "-o", tmp_path / "n.lance")
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
    assert collection.search(paths[0], include_self=True)[0].columns["kind"] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "source,x,x\na.wav,1,2\n", r"there are two columns 'x'"),
        ("a.csv", "source,\na.wav,1\n", r"column 2 has no name: .*index=False"),
        ("a.csv", "source,,x\na.wav,,1\nb.wav,1,2\n", r"column 2 has no name: .*index=False"),
        ("a.csv", ",source, \n0,a.wav,1\n", r"column 3 has no name: .*index=False"),
        ("a.jsonl", '{"source": "a.wav", "x": 1, "x": 2}', r"there are two columns 'x'"),
    ],
)
def test_columns_without_a_name_of_their_own(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(qa.OptionError, match=message):
        list(read_manifest(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("a.csv", ",source,genre\n0,a.wav,jazz\n1,b.wav,rock\n", 1),
        ("a.csv", "Unnamed: 0,source,genre\n0,a.wav,jazz\n1,b.wav,rock\n", 1),
        ("a.csv", ",Unnamed: 0.1,Unnamed: 0,source,genre\n0,0,5,a.wav,jazz\n1,1,7,b.wav,rock\n", 3),
        ("a.csv", " ,source,genre\nx,a.wav,jazz\nx,b.wav,rock\n", 1),
        ("a.csv", "source,genre,,\na.wav,jazz,,\nb.wav,rock\n", 0),  # of a spreadsheet
        ("a.tsv", "\tsource\tgenre\n0\ta.wav\tjazz\n1\tb.wav\trock\n", 1),
        ("a.tsv", "source\tUnnamed: 1\tgenre\na.wav\t1\tjazz\nb.wav\t2\trock\n", 1),
        (
            "a.jsonl",
            '{"Unnamed: 0": 0, "source": "a.wav", "genre": "jazz"}\n'
            '{"Unnamed: 0": 1, "source": "b.wav", "genre": "rock"}\n',
            1,
        ),
    ],
)
def test_an_index_without_a_name_is_left_out(
    tmp_path: Path, name: str, content: str, count: int
) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sources = list(read_manifest(path))
        targets = read_labels(path, targets=["genre"]).targets
    assert [dict(source.extra) for source in sources] == [{"genre": "jazz"}, {"genre": "rock"}]
    assert [target.name for target in targets] == ["genre"]
    assert len(said) == 2 * count
    for warning in said:
        assert "has no name, as an index that pandas has written: it is left out" in str(
            warning.message
        )


def test_an_index_in_rows_and_on_the_command_line(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    with pytest.warns(qa.AudioWarning, match="column 1 has no name"):
        collection.index([{"Unnamed: 0": 0, "source": str(paths[0]), "genre": "jazz"}])
    assert collection.table.schema.names[-1] == "genre"
    with pytest.warns(qa.AudioWarning, match="column 1 has no name"):
        labels = read_labels(
            [
                {"Unnamed: 0": k, "source": str(path), "genre": "ab"[k]}
                for k, path in enumerate(paths)
            ]
        )
    assert [target.name for target in labels.targets] == ["genre"]
    (tmp_path / "m.csv").write_text(f",source,genre\n0,{paths[0]},rock\n1,{paths[1]},rock\n")
    done = run("index", tmp_path / "m.csv", "-o", collection.path, "--json")
    assert (done.returncode, done.stderr.count("has no name")) == (0, 1)
    assert json.loads(done.stdout)["added"] == 1
    assert collection.table.to_arrow()["genre"].to_pylist() == ["rock", "rock"]


def test_a_column_does_not_take_the_place_of_a_search_results_own(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    names = ("id", "score", "distance", "Score", "ID")
    collection.index([{"source": str(path), **dict.fromkeys(names, "own")} for path in paths])
    done = run("search", collection.path, "--like", str(paths[0]), "--json")
    found = json.loads(done.stdout)
    assert (found["id"], found["manifest.id"]) == (f"{paths[1]}#0", "own")
    assert (found["manifest.score"], found["Score"], found["distance"]) == ("own", "own", "own")
    assert found["score"] == collection.search(like=str(paths[0]))[0].score


@pytest.mark.parametrize("name", ["a.b", "_rowid", "norm", ""])
def test_a_corrected_manifest_works(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel, name: str
) -> None:
    """Also in a collection that is there already, and has rows."""
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    collection.index([{"source": str(paths[0]), "fine": 1}])
    before = collection.table.version
    with pytest.raises(qa.OptionError):
        collection.index([{"source": str(path), "new": "x", name: "x"} for path in paths])
    assert collection.table.version == before
    summary = collection.index([{"source": str(path), "new": 1.5} for path in paths])
    assert (summary.added, summary.updated) == (1, 1)


def test_a_dataset_has_no_second_audio_column(
    tmp_path: Path, paths: list[Path], model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "m.lance", model, tap="mel")
    rows: list[dict[str, Any]] = [{"source": str(path), "audio": "loud"} for path in paths]
    collection.index(rows)
    with pytest.raises(qa.OptionError, match="two columns called audio"):
        collection.export(tmp_path / "dataset")
    assert collection.export(tmp_path / "x.parquet") == 2

"""Verification: every row that is damaged is named, whether it is in the sample or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from collection_helpers import add_rows, update_rows, write_recording
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.table import WindowTable
from qwen_audio.errors import CollectionError, OptionError


def literal(numbers: np.ndarray[Any, Any]) -> str:
    """A vector in SQL; infinity is a number that overflows."""
    return "[" + ", ".join("1e999" if np.isinf(x) else f"{x:.5f}" for x in numbers) + "]"


@pytest.mark.parametrize("float32", [False, True])
def test_damaged_rows(tmp_path: Path, model: qa.AudioModel, float32: bool) -> None:
    paths = [str(write_recording(tmp_path / f"{number}.wav", 0.3, number)) for number in range(9)]
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel", float32=float32)
    collection.index(paths)
    width = collection._window_table.width
    nan = collection.table.to_arrow().slice(0, 1).to_pylist()[0]
    update_rows(
        collection, [{**nan, "vector": [np.nan] * width}], on_bad_vectors="fill", fill_value=np.nan
    )
    others = [path for path in paths if path != nan["source"]]
    one_infinite, unit = np.zeros(width), np.eye(1, width)[0]
    one_infinite[1] = np.inf
    vectors = {
        "is not finite": literal(one_infinite),
        "is zero": literal(np.zeros(width)),
        "has length 2 instead of 1": literal(2 * unit),
        "has length 0.96875 instead of 1": literal(0.96875 * unit),
        "is not finite ": "NULL",
    }
    expected = {f"{nan['source']}#0: its vector is not finite"}
    for path, (fault, value) in zip(others, vectors.items(), strict=False):
        collection.table.update(where=f"source = '{path}'", values_sql={"vector": value})
        expected.add(f"{path}#0: its vector {fault.strip()}")
    for path, value in zip(others[5:], ("NULL", "0.0", "1e999"), strict=True):
        collection.table.update(where=f"source = '{path}'", values_sql={"norm": value})
        shown = {"NULL": "nan", "0.0": "0.0", "1e999": "inf"}[value]
        expected.add(f"{path}#0: its norm is {shown}")
    report = collection.verify(sample=1)
    assert expected <= set(report.problems)
    report = collection.verify()
    assert report.lowest_cosine <= 0
    assert all(any(problem.startswith(path) for problem in report.problems) for path in paths)


def test_a_norm_of_another_vector(tmp_path: Path, model: qa.AudioModel) -> None:
    path = write_recording(tmp_path / "a.wav", 0.3, 0)
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    collection.index(path)
    assert collection.verify().problems == ()
    collection.table.update(values_sql={"norm": "norm * 1.5"})
    (problem,) = collection.verify().problems
    assert problem == f"{path}#0: its norm is 1.5 × that of its vector encoded again"


def test_vectors_of_another_width(tmp_path: Path, model: qa.AudioModel) -> None:
    table = WindowTable.create(tmp_path / "c.lance", model.spec("mel"), 4, has_captions=False)
    collection = Collection(table, model)
    add_rows(collection, np.eye(4))
    report = collection.verify()
    (problem,) = report.problems
    assert problem == f"vectors are 4 wide, but {model.dimensions.mel_bins} by the embedding spec"


def test_many_damaged_rows_are_counted(tmp_path: Path, model: qa.AudioModel) -> None:
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    add_rows(collection, np.zeros((150, collection._window_table.width)))
    problems = collection.verify(sample=1).problems
    assert "more rows that are damaged: 50" in problems
    assert sum("is zero" in problem for problem in problems) == 100


def test_a_table_without_the_columns_is_of_another_version(
    tmp_path: Path, model: qa.AudioModel
) -> None:
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    collection.table.drop_columns(["norm"])
    with pytest.raises(CollectionError, match=r"another version .*no column norm.*index"):
        Collection.open(collection.path)


@pytest.mark.slow
def test_verify_reports_problems(collection: Collection, folder: Path) -> None:
    with pytest.raises(OptionError, match="sample=0: use a whole number from 1 to"):
        collection.verify(sample=0)
    report = collection.verify()
    assert (report.checked, report.problems) == (5, ())
    assert report.lowest_cosine > 0.9999
    write_recording(folder / "a.wav", 1.0, 50)
    (problem,) = collection.verify().problems
    assert problem == f"{folder / 'a.wav'} has changed since it was indexed"
    collection.index(folder)
    collection.table.delete('"window" = 1')
    assert "lacks windows" in " ".join(collection.verify().problems)
    rows = collection.table.search().where("source LIKE '%b.flac'").to_arrow()
    collection.table.add(rows)
    assert "there twice: 1 window" in collection.verify().problems
    noise = np.random.default_rng(0).normal(size=64)
    literal = "[" + ", ".join(f"{x / np.linalg.norm(noise):.5f}" for x in noise) + "]"
    collection.table.update(where="source LIKE '%c.wav'", values_sql={"vector": literal})
    assert any("c.wav#0: cosine" in problem for problem in collection.verify().problems)

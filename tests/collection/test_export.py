"""Export to Parquet, npz and Hugging Face datasets; use by other libraries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import qwen_audio as qa
from collection_helpers import rows_by_window
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import OptionError


def test_exports_contain_every_row(tmp_path: Path, collection: Collection, folder: Path) -> None:
    rows = rows_by_window(collection)
    assert collection.export(tmp_path / "all.parquet") == 7
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.schema.metadata[b"qwen_audio_spec"]
    assert {(Path(r["source"]).name, r["window"]): r for r in table.to_pylist()} == rows
    assert collection.export(tmp_path / "some.npz", "duration_seconds > 20") == 3
    arrays = np.load(tmp_path / "some.npz")
    assert arrays["vector"].shape == (3, 64)
    assert arrays["vector"].dtype == np.float16
    assert sorted(arrays["start_seconds"]) == [0, 10, 20]
    assert arrays["title"].tolist() == ["", "", ""]
    assert qa.EmbeddingSpec.from_json(str(arrays["spec"])) == collection.spec
    collection.index([{"source": str(folder / "a.wav"), "year": 1999, "live": True, "file": "é"}])
    collection.export(tmp_path / "all.NPZ")
    with np.load(tmp_path / "all.NPZ", allow_pickle=False) as archive:
        arrays = dict(archive)
    kinds = {name: array.dtype for name, array in arrays.items()}
    assert {name: str(kinds[name]) for name in ("vector", "norm", "window", "start_seconds")} == {
        "vector": "float16",
        "norm": "float32",
        "window": "int32",
        "start_seconds": "float64",
    }
    assert (str(kinds["indexed_at"]), kinds["source"].kind) == ("datetime64[us]", "U")
    row_index = arrays["source"].tolist().index(str(folder / "a.wav"))
    indexed = rows["a.wav", 0]["indexed_at"].replace(tzinfo=None)
    assert arrays["indexed_at"][row_index] == np.datetime64(indexed)
    assert [arrays[name][row_index] for name in ("year", "live", "file")] == [1999, 1, "é"]
    assert np.isnan(np.delete(arrays["year"], row_index)).all()
    collection.index([{"source": str(folder / "a.wav"), "spec": 1}])
    for name, message in (
        ("spec.npz", "two columns called spec"),
        ("all.parquet", "there already"),
        ("x.csv", "use .parquet"),
        ("no/x.npz", "no folder"),
    ):
        with pytest.raises(OptionError, match=message):
            collection.export(tmp_path / name)


@pytest.mark.slow
def test_a_dataset_has_an_audio_column(
    tmp_path: Path, collection: Collection, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    assert collection.export(tmp_path / "dataset") == 7
    assert capfd.readouterr().err == ""
    assert not datasets.are_progress_bars_disabled()
    dataset = datasets.load_from_disk(str(tmp_path / "dataset"))
    assert dataset.num_rows == 7
    assert isinstance(dataset.features["audio"], datasets.Audio)
    (collection.path.parent / "music" / "a.wav").unlink()
    collection.export(tmp_path / "without")
    assert "audio" not in datasets.load_from_disk(str(tmp_path / "without")).features


@pytest.mark.slow
def test_docs_examples_of_other_libraries_run(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code blocks of docs/collections.md."""
    page = (Path(__file__).parents[2] / "docs" / "collections.md").read_text(encoding="utf-8")
    open_block, query_block = (
        next(b for b in re.findall(r"```python\n(.*?)```", page, re.S) if name in b)
        for name in ("to_pandas()  ", "duckdb.sql")
    )
    monkeypatch.chdir(collection.path.parent)
    names: dict[str, Any] = {}
    exec(open_block, names)
    exec(query_block.replace("duckdb.sql(", "answer = duckdb.sql("), names)
    assert names["answer"].fetchall() == [(None, 7, pytest.approx((2 + 3 + 4 + 3 * 25 + 1.5) / 7))]
    collection.export("music.parquet")
    query = re.findall(r"```sql\n(.*?)```", page, re.S)[0].replace("caption LIKE '%piano%'", "TRUE")
    assert len(names["duckdb"].sql(query).fetchall()) == 7

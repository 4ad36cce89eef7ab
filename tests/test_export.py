"""What `encode` gives, in a file, with the Spec inside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors import safe_open

from qwen_audio.errors import MissingExtraError, OptionError
from qwen_audio.export import VectorFile, check_output
from qwen_audio.spec import Spec

SPEC = Spec(model="embedded", revision="abc", tap="audio_tower")
POOLED = [np.arange(3, dtype=np.float32), np.ones(3, np.float32)]
ROWS = [np.ones((2, 3), np.float32), np.zeros((5, 3), np.float32)]


def save(path: Path, sources: list[str], vectors: list[np.ndarray], spec: Spec) -> None:
    with VectorFile(path, spec) as file:
        for source, of_source in zip(sources, vectors, strict=True):
            file.add(source, of_source)


def test_npz(tmp_path: Path) -> None:
    save(tmp_path / "v.npz", ["a", "b"], POOLED, SPEC)
    with np.load(tmp_path / "v.npz") as file:
        assert file["sources"].tolist() == ["a", "b"]
        np.testing.assert_array_equal(file["vectors"], np.stack(POOLED))
        assert Spec.from_json(str(file["spec"])) == SPEC
    save(tmp_path / "r.npz", ["a", "b"], ROWS, SPEC)
    with np.load(tmp_path / "r.npz") as file:
        np.testing.assert_array_equal(file["vectors_1"], ROWS[1])


def test_safetensors(tmp_path: Path) -> None:
    save(tmp_path / "v.safetensors", ["a", "b"], POOLED, SPEC)
    with safe_open(tmp_path / "v.safetensors", framework="np") as file:
        np.testing.assert_array_equal(file.get_tensor("vectors"), np.stack(POOLED))
        assert json.loads(file.metadata()["sources"]) == ["a", "b"]
        assert Spec.from_json(file.metadata()["spec"]) == SPEC


def test_parquet(tmp_path: Path) -> None:
    save(tmp_path / "v.parquet", ["a", "b"], POOLED, SPEC)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["source"].to_pylist() == ["a", "b"]
    assert table["vector"].to_pylist() == [[0, 1, 2], [1, 1, 1]]
    assert Spec.from_json(table.schema.metadata[b"spec"].decode()) == SPEC
    save(tmp_path / "r.parquet", ["a", "b"], ROWS, SPEC)
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["source"].to_pylist() == ["a"] * 2 + ["b"] * 5
    assert table["row"].to_pylist() == [0, 1, 0, 1, 2, 3, 4]


def test_bad_outputs_are_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"\.npz, \.safetensors, \.parquet"):
        check_output(tmp_path / "v.csv")
    with pytest.raises(OptionError, match="no folder"):
        check_output(tmp_path / "nowhere" / "v.npz")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # how Python marks what can't be imported
    with pytest.raises(MissingExtraError, match=r"pip install 'qwen-audio-playground\[parquet\]'"):
        check_output(tmp_path / "v.parquet")


def test_files_are_whole_or_not_there_and_as_readable_as_any(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    for suffix in (".npz", ".safetensors", ".parquet"):
        target = tmp_path / f"v{suffix}"
        save(target, ["a", "b"], POOLED, SPEC)
        assert target.stat().st_mode == ordinary.stat().st_mode
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        "",
        ".npz",
        ".parquet",
        ".safetensors",
    ]
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(OptionError, match="is a folder"):
        save(tmp_path / "folder.npz", ["a"], POOLED[:1], SPEC)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_a_folder_that_takes_no_files(suffix: str) -> None:
    with pytest.raises(OptionError, match="can't be written"):
        save(Path("/proc") / f"v{suffix}", ["a", "b"], POOLED, SPEC)

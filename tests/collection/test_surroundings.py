"""Folders that can't be written to, full disks: one error each, and nothing half-written."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

import qwen_audio as qa
from qwen_audio.collection import dimension_reduction
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import CollectionError, OptionError


@pytest.fixture
def empty(tmp_path: Path, model: qa.AudioModel) -> Collection:
    """A collection without rows."""
    return Collection.create(tmp_path / "music.lance", model, tap="audio_tower")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_reading_writes_nothing(empty: Collection, tmp_path: Path) -> None:
    assert (empty.failures(), empty.prune(), empty.info().failures) == ([], [], 0)
    assert names(tmp_path) == ["music.lance"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), RuntimeError("full")])
def test_a_lock_or_a_table_that_cannot_be_written(
    empty: Collection, error: Exception, tmp_path: Path
) -> None:
    place = f"{empty.path} can't be written"

    def fail(_: Any) -> None:
        raise error

    with pytest.raises(CollectionError, match=f"{place} .*(Permission denied|full)"):
        empty._window_table.write(fail)
    lock = tmp_path / ".music.lance.lock"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(CollectionError, match=place):
        empty.index(write(tmp_path))
    assert len(empty) == 0


def write(folder: Path) -> Path:
    from collection_helpers import write_recording

    return write_recording(folder / "a.wav", 1.0, 0)


def test_a_failed_commit_hides_no_error(
    empty: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index operation that is interrupted writes what it can."""

    def fail(*_: Any) -> None:
        raise CollectionError("full")

    def interrupt(_: Any) -> None:
        monkeypatch.setattr("qwen_audio.collection.writer.IndexWriter.commit", fail)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        empty.index(write(tmp_path), on_progress=interrupt)


def test_a_collection_that_cannot_be_created_leaves_nothing(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any, name: str, **__: Any) -> None:
        (tmp_path / f"{name}.lance").mkdir()
        raise RuntimeError("lance error: IO: full, /build/lance-io-1.0/src/x.rs:1:2")

    monkeypatch.setattr("lancedb.db.LanceDBConnection.create_table", fail)
    with pytest.raises(
        CollectionError, match=r"created \(lance error: IO: full\): check"
    ) as caught:
        Collection.create(tmp_path / "new.lance", model, tap="audio_tower")
    assert ".rs" not in str(caught.value)
    assert names(tmp_path) == []


def test_a_dataset_is_written_whole_or_not_at_all(
    empty: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any, folder: str) -> None:
        Path(folder).mkdir()
        (Path(folder) / "half").touch()
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(datasets.Dataset, "save_to_disk", fail)
        with pytest.raises(OptionError, match=r"out can't be written \(No space left"):
            empty.export(tmp_path / "out")
    assert names(tmp_path) == ["music.lance"]


def test_umap_without_a_folder_for_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numba raises RuntimeError where neither its own folder nor a home can be written to."""
    from numba import config

    (tmp_path / "umap.py").write_text(
        "import os\nfrom numba import config\n"
        "if not os.path.isdir(config.CACHE_DIR):\n    raise RuntimeError('no locator available')\n"
        "class UMAP: pass\n"
    )
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "umap", raising=False)
    dimension_reduction.umap_class.cache_clear()
    try:
        assert dimension_reduction.umap_class().__module__ == "umap"
    finally:
        dimension_reduction.umap_class.cache_clear()
        sys.modules.pop("umap", None)

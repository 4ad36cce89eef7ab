"""The LanceDB table of a collection: complete on disk, readable by other programs."""

from __future__ import annotations

from pathlib import Path

import lancedb
import pytest

import qwen_audio as qa
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import CollectionError


def test_an_incomplete_table_is_not_a_collection(tmp_path: Path, model: qa.AudioModel) -> None:
    """The folders that remain if a process is killed while it creates a table."""
    (tmp_path / "new.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "new.lance" / "_transactions").mkdir()
    with pytest.raises(CollectionError, match="no such collection"):
        Collection.open(tmp_path / "new.lance")
    assert len(Collection.create(tmp_path / "new.lance", model)) == 0
    assert len(Collection.open(tmp_path / "new.lance", model)) == 0


def test_lancedb_opens_the_table(collection: Collection) -> None:
    table = lancedb.connect(collection.path.parent).open_table("music")
    assert table.count_rows() == 7
    text = (table.schema.metadata or {})[b"qwen_audio_spec"].decode()
    assert collection.spec.fingerprint in text
    assert '"tap": "audio_tower"' in text
    assert table.search().where("duration_seconds > 20").to_arrow().num_rows == 3

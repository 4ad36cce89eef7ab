"""The LanceDB table of a collection: complete on disk, readable by other programs."""

from __future__ import annotations

from pathlib import Path

import lancedb
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
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


def test_a_collection_made_with_an_adapter(
    tmp_path: Path, checkpoint: Path, model: qa.AudioModel, folder: Path
) -> None:
    """Its vectors are never mixed with those of the model alone."""
    transformers_model = Qwen2AudioForConditionalGeneration.from_pretrained(checkpoint)
    adapter = write_adapter(tmp_path / "adapter", transformers_model)
    adapted = qa.load(checkpoint, adapter=adapter, dtype="float32")
    path = tmp_path / "adapted.lance"
    collection = Collection.create(path, adapted)
    collection.index(folder / "a.wav")
    assert Collection.open(path).spec == collection.spec
    assert collection.spec.adapter is not None
    assert collection.search(folder / "a.wav", limit=1)[0].score > 0.999
    with pytest.raises(CollectionError, match=r"was made with an adapter .* model=load\("):
        Collection.open(path).search(folder / "a.wav")
    with pytest.raises(CollectionError, match=r"adapter '\w{40}' here and None asked for"):
        Collection.open(path, model).index(folder)
    plain = Collection.create(tmp_path / "plain.lance", model)
    with pytest.raises(CollectionError, match=r"adapter None here and '\w{40}' asked for"):
        Collection.open(plain.path, adapted).index(folder)
    text = (collection.table.schema.metadata or {})[b"qwen_audio_spec"].decode()
    assert '"adapter": ' in text
    text = (plain.table.schema.metadata or {})[b"qwen_audio_spec"].decode()
    assert "adapter" not in text

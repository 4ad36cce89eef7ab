"""The LanceDB table of a collection: complete on disk, readable by other programs."""

from __future__ import annotations

import json
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest
from transformers import Qwen2AudioForConditionalGeneration

import qwen_audio as qa
from adapters import write_adapter
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.schema import collection_schema
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
    assert collection.search(folder / "a.wav", limit=1, include_self=True)[0].score > 0.999
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


OLD_SPEC = {
    "model": "embedded",
    "revision": "0" * 40,
    "tap": "audio_tower",
    "pooling": "mean",
    "span": "audio",
    "prompt": None,
    "window_seconds": 10,
    "hop_seconds": 10,
    "dtype": "float32",
}
"""As the first versions wrote it: no adapter, no track, whole numbers of seconds."""


def table_with_metadata(path: Path, settings: object) -> None:
    schema = collection_schema(8, pa.float16()).with_metadata(
        {b"qwen_audio_spec": json.dumps(settings).encode()}
    )
    lancedb.connect(path.parent).create_table(path.stem, schema=schema)


def test_a_collection_of_an_earlier_version_opens(tmp_path: Path) -> None:
    path = tmp_path / "old.lance"
    table_with_metadata(path, {"spec": OLD_SPEC, "fingerprint": "", "describes": False})
    collection = Collection.open(path)
    assert collection.spec.settings == {**OLD_SPEC, "window_seconds": 10.0, "hop_seconds": 10.0}
    assert collection.spec.fingerprint == "7598f3729a4a6046"
    assert (len(collection), collection.failures()) == (0, [])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"spec": {**OLD_SPEC, "colour": 1}, "describes": True}, r"unknown settings \['colour'\]"),
        ({"spec": OLD_SPEC}, "no 'describes'"),
        ({"describes": True}, "no 'spec'"),
        ([], "list indices"),
    ],
)
def test_a_collection_of_another_version_says_what_to_do(
    settings: object, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.lance"
    table_with_metadata(path, settings)
    with pytest.raises(CollectionError, match=reason) as error:
        Collection.open(path)
    assert "make it again with `qwen-audio index`" in str(error.value)
    assert "\n" not in str(error.value)

"""Collections: creating and opening them; one embedding spec for all rows."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import lancedb
import pytest

import qwen_audio as qa
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.table import WindowTable
from qwen_audio.errors import CollectionError, OptionError


def test_another_spec_is_an_error_that_shows_both(
    tmp_path: Path, collection: Collection, folder: Path, checkpoint: Path
) -> None:
    other = qa.load(checkpoint, dtype="bfloat16")
    opened = Collection.open(collection.path, other)
    for operation in (
        lambda: opened.index(folder),
        lambda: opened.search(folder / "a.wav"),
        opened.verify,
    ):
        with pytest.raises(
            CollectionError, match=r"dtype 'float32' here and 'bfloat16' asked for"
        ) as error:
            operation()
        assert collection.spec.fingerprint in str(error.value)
    with pytest.raises(CollectionError, match="is there already"):
        Collection.create(collection.path, other)
    with pytest.raises(OptionError, match="one vector per window"):
        Collection.create(tmp_path / "new.lance", other, pooling="none")
    with pytest.raises(CollectionError, match="no such collection"):
        Collection.open(tmp_path / "none.lance")
    with pytest.raises(OptionError, match=r"ends in \.lance"):
        Collection.open(tmp_path / "none")
    lancedb.connect(tmp_path).create_table("plain", [{"x": 1}])
    with pytest.raises(CollectionError, match="but not a collection"):
        Collection.open(tmp_path / "plain.lance")


@pytest.mark.slow
def test_a_copied_checkpoint_is_the_same_model(
    tmp_path: Path, collection: Collection, folder: Path, checkpoint: Path
) -> None:
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    copy = qa.load(tmp_path / "elsewhere", dtype="float32")
    opened = Collection.open(collection.path, copy)
    assert opened.search(folder / "b.flac", include_self=True, limit=1)[0].score > 0.999
    assert opened.index(folder).unchanged == 5
    with pytest.raises(CollectionError, match=r"model '.*' here and 'embedded' asked for"):
        Collection.open(collection.path, qa.load(dtype="float32")).search(folder / "b.flac")


def test_open_loads_the_collections_model(collection: Collection, folder: Path) -> None:
    opened = Collection.open(collection.path)
    assert opened.spec == collection.spec
    (result,) = opened.search(folder / "b.flac", include_self=True, limit=1)
    assert result.source == str(folder / "b.flac")


@pytest.mark.parametrize("missing", ["lancedb", "pyarrow", "datasets"])
def test_a_missing_extra_is_an_error_that_names_it(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    extra = {"lancedb": "collections", "pyarrow": "collections", "datasets": "datasets"}[missing]
    new, spec = tmp_path / "new.lance", collection.spec
    operations = {
        "lancedb": lambda: WindowTable.open(collection.path),
        "pyarrow": lambda: WindowTable.create(new, spec, 4, has_captions=False),
        "datasets": lambda: collection.export(tmp_path / "dataset"),
    }
    with pytest.raises(qa.MissingExtraError, match=rf"\[{extra}\]"):
        operations[missing]()

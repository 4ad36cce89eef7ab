"""Several processes that index into one collection at once, some of them killed: nothing is there
twice, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import qwen_audio as qa
from collection_helpers import rows_by_window, vectors_by_window, write_recording
from commands import FAST_IMPORT
from forked import ForkedProcess
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion
from qwen_audio.collection import transaction, writer
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.database import connect
from qwen_audio.collection.encoding import EncodedRecording
from qwen_audio.collection.progress import IndexCounter
from qwen_audio.collection.schema import standard_schema
from qwen_audio.collection.storage_errors import is_conflict
from qwen_audio.collection.table import WindowTable
from qwen_audio.collection.transaction import write
from qwen_audio.errors import CollectionError
from s3_server import BUCKET, s3_server

RECORDINGS = 8
PROGRAM = f"""{FAST_IMPORT}
import json, sys
from qwen_audio.collection import writer
from qwen_audio.collection.collection import Collection

checkpoint, location, options, folder = sys.argv[1:]
writer._ROWS_PER_COMMIT = 2
model = qa.load(checkpoint, dtype="float32")
collection = Collection.open(location, model, storage_options=json.loads(options))
print("ready", flush=True)
sys.stdin.readline()
summary = collection.index(folder)
print(summary.added + summary.unchanged, summary.rows)
"""


@pytest.fixture(scope="module")
def s3_options() -> Iterator[dict[str, str]]:
    """Storage options of an S3 server: processes that are forked have no variables of it."""
    with s3_server() as address:
        yield {
            "aws_endpoint": address,
            "allow_http": "true",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
            "aws_region": "us-east-1",
        }


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of recordings of two windows, and of a file that is no audio."""
    folder = tmp_path / "music"
    for number in range(RECORDINGS):
        write_recording(folder / f"{number:02}.wav", 0.9, number)
    (folder / "bad.wav").write_bytes(b"not audio")
    return folder


@pytest.fixture
def expected(tmp_path: Path, model: qa.AudioModel, recordings: Path) -> dict[Any, Any]:
    """The rows that one writer makes."""
    alone = Collection.create(tmp_path / "alone.lance", model, tap="mel", window_seconds=0.5)
    alone.index(recordings)
    return vectors_by_window(alone)


def without_key(collection: Collection) -> None:
    """Make a collection what the first versions made: its key's columns are like any other."""
    location, table = collection._window_table.location, collection.table
    fields = [pa.field(field.name, field.type) for field in table.schema]
    schema = pa.schema(fields, metadata=table.schema.metadata)
    connect(location).create_table(location.stem, schema=schema, mode="overwrite")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["s3", "folder"])
def test_writers_of_the_same_recordings(
    tmp_path: Path,
    checkpoint: Path,
    model: qa.AudioModel,
    recordings: Path,
    expected: dict[Any, Any],
    s3_options: dict[str, str],
    place: str,
) -> None:
    """Three start at the same time; one is killed when something has been written."""
    location = f"s3://{BUCKET}/shared.lance" if place == "s3" else str(tmp_path / "c.lance")
    options = s3_options if place == "s3" else {}
    collection = Collection.create(
        location, model, tap="mel", window_seconds=0.5, storage_options=options
    )
    arguments = (checkpoint, location, json.dumps(options), recordings)
    with ExitStack() as stack:
        writers = [stack.enter_context(ForkedProcess(PROGRAM, *arguments)) for _ in range(3)]
        for process in writers:
            assert process.stdout.readline() == "ready\n", process.new_errors()
        for process in writers:
            process.stdin.write("go\n")
            process.stdin.flush()
        while not len(collection):
            collection.table.checkout_latest()
        writers[0].kill()
        writers[0].finish()
        for process in writers[1:]:
            status, output, errors = process.finish()
            assert status == 0, errors
            assert output == f"{RECORDINGS} {len(expected)}\n"
    assert vectors_by_window(collection) == expected
    assert [row["source"] for row in collection.failures()] == [str(recordings / "bad.wav")]
    assert collection.index(recordings).unchanged == RECORDINGS


@pytest.mark.slow
def test_another_writer_has_just_added_a_longer_version(
    tmp_path: Path,
    model: qa.AudioModel,
    s3_options: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one writer knows of the table may be old when it writes; its windows replace all."""
    collection = Collection.create(
        f"s3://{BUCKET}/longer.lance", model, tap="mel", storage_options=s3_options
    )
    table = collection._window_table
    width = table.width

    def add(content_hash: str, windows: int) -> None:
        rows = [
            {
                "source": "/x/a.wav",
                "window": k,
                "content_hash": content_hash,
                "vector": [1.0] * width,
            }
            for k in range(windows)
        ]
        index_writer = writer.IndexWriter(table, [], IndexCounter(1))
        version = SourceVersion(1, "1", content_hash)
        schema = standard_schema(table.table.schema)
        encoded = EncodedRecording(version, pa.Table.from_pylist(rows, schema), 1.0)
        index_writer.add_recording(Source("/x/a.wav"), encoded)
        index_writer.commit()

    add("other", 3)
    monkeypatch.setattr(writer, "indexed_versions", lambda *_: {})
    add("own", 2)
    rows = rows_by_window(collection)
    assert {key: row["content_hash"] for key, row in rows.items()} == {
        ("a.wav", 0): "own",
        ("a.wav", 1): "own",
    }


def test_a_transaction_that_meets_another_is_made_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "_FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(transaction, "_LONGEST_DELAY_SECONDS", 0.0)
    table: WindowTable = collection._window_table
    attempts: list[Any] = []

    def fail(times: int, text: str) -> int:
        attempts.clear()

        def change(_: Any) -> int:
            attempts.append(text)
            if len(attempts) <= times:
                raise RuntimeError(text)
            return 7

        return write(table.location, table.table, change)

    conflict = "lance error: Retryable commit conflict for version 3: preempted"
    assert fail(3, conflict) == 7
    assert len(attempts) == 4
    with pytest.raises(CollectionError, match=r"can't be written .*commit conflict"):
        fail(1000, conflict)
    assert len(attempts) == transaction._MAX_ATTEMPTS
    with pytest.raises(CollectionError, match=r"can't be written .*disk is full"):
        fail(1, "disk is full")
    assert len(attempts) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Retryable commit conflict for version 13: This Rewrite transaction was preempted by "
        "concurrent transaction Rewrite at version 13. Please retry.",
        "Incompatible transaction: This UpdateConfig transaction is incompatible with concurrent "
        "transaction UpdateConfig at version 4.",
        "Too many concurrent writers. Attempted 2 times, but failed on retry_timeout of 30.000 s",
    ],
)
def test_conflicts(text: str) -> None:
    assert is_conflict(RuntimeError(f"lance error: {text}, rust/lance/src/io/commit.rs:1:2"))
    assert not is_conflict(RuntimeError("lance error: IO: no space left"))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["s3", "folder"])
def test_a_collection_made_without_a_key(
    tmp_path: Path,
    model: qa.AudioModel,
    recordings: Path,
    expected: dict[Any, Any],
    s3_options: dict[str, str],
    place: str,
) -> None:
    """It works as before in a folder, and gets a key on object storage when it is written to."""
    location = f"s3://{BUCKET}/old.lance" if place == "s3" else str(tmp_path / "old.lance")
    options = s3_options if place == "s3" else {}
    without_key(
        Collection.create(location, model, tap="mel", window_seconds=0.5, storage_options=options)
    )
    old = Collection.open(location, model, storage_options=options)
    assert old.table.schema.field("source").nullable
    assert old.index(recordings).added == RECORDINGS
    assert vectors_by_window(old) == expected
    for name in ("source", "window"):
        field = old.table.schema.field(name)
        key = {b"lance-schema:unenforced-primary-key": b"true"} if place == "s3" else None
        assert (field.metadata, field.nullable) == (key, place == "folder")
    assert old.remove(recordings / "00.wav") == len(expected) // RECORDINGS
    assert old.index(recordings).added == 1
    assert vectors_by_window(old) == expected

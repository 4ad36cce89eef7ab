"""Index runs that are killed, or whose writes fail or take long: nothing is lost."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import qwen_audio as qa
from collection_helpers import add_rows, rows_by_window, write_recording
from qwen_audio.collection import writer
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.progress import IndexSummary
from qwen_audio.collection.write_queue import WriteQueue
from qwen_audio.errors import CollectionError
from qwen_audio.inference import reader
from qwen_audio.inference.memory_budget import MemoryBudget
from qwen_audio.inference.options import Sampling


@dataclass
class Scene:
    """A folder of recordings, a collection of it, and what is indexed next."""

    folder: Path
    collection: Collection
    inputs: list[Any] = field(default_factory=list)
    prunes: bool = False

    def index(self, collection: Collection) -> IndexSummary:
        """One run."""
        if self.prunes:
            collection.prune()
        return collection.index(self.inputs or [self.folder])


def state(collection: Collection) -> tuple[Any, ...]:
    """All that a collection holds, but for the times of writing."""
    rows = {
        key: {name: str(value) for name, value in row.items() if name != "indexed_at"}
        for key, row in rows_by_window(collection).items()
    }
    failures = [
        {name: value for name, value in row.items() if name != "failed_at"}
        for row in collection.failures()
    ]
    return rows, failures, sorted(collection.table.schema.names)


def write(folder: Path, names: str, seed: int = 0) -> list[str]:
    """Recordings of two windows, written long ago."""
    paths = [write_recording(folder / f"{n}.wav", 0.9, seed + ord(n)) for n in names]
    for path in paths:
        os.utime(path, ns=(seed + 7, seed + 7))
    return [str(path) for path in paths]


def new(scene: Scene) -> None:
    """Recordings, a failure, and a column."""
    scene.inputs = [{"source": path, "mood": "calm"} for path in write(scene.folder, "abc")]
    (scene.folder / "bad.wav").write_bytes(b"not audio")
    scene.inputs.append({"source": str(scene.folder / "bad.wav"), "mood": "none"})


def described(scene: Scene) -> None:
    """Recordings that get captions."""
    write(scene.folder, "ab")


def repaired(scene: Scene) -> None:
    """Two failures, one of which is repaired, one deleted; a good file is broken."""
    write(scene.folder, "ab")
    for name in ("c", "d"):
        (scene.folder / f"{name}.wav").write_bytes(b"not audio")
    scene.index(scene.collection)
    write(scene.folder, "c")
    (scene.folder / "d.wav").unlink()
    (scene.folder / "b.wav").write_bytes(b"broken")


def restored(scene: Scene) -> None:
    """A file that was indexed, broken, and is now as it was."""
    (path,) = write(scene.folder, "a")
    scene.index(scene.collection)
    content = Path(path).read_bytes()
    Path(path).write_bytes(b"broken")
    scene.index(scene.collection)
    Path(path).write_bytes(content)
    os.utime(path, ns=(7, 7))
    write(scene.folder, "b")


def columns(scene: Scene) -> None:
    """A manifest with other values and a further column; a changed and a new file."""
    rows = [{"source": path, "mood": "calm"} for path in write(scene.folder, "abcd")]
    scene.collection.index(rows)
    write(scene.folder, "b", seed=50)
    os.utime(scene.folder / "c.wav", ns=(99, 99))
    paths = write(scene.folder, "e") + [str(row["source"]) for row in rows]
    scene.inputs = [{"source": path, "mood": "dark", "year": 1999} for path in paths[:-1]]


def deleted(scene: Scene) -> None:
    """Files that are gone, one of which is named."""
    write(scene.folder, "abc")
    scene.index(scene.collection)
    (scene.folder / "a.wav").unlink()
    (scene.folder / "b.wav").unlink()
    scene.inputs = [scene.folder, scene.folder / "b.wav"]


def pruned(scene: Scene) -> None:
    """Files and failures that are gone, and are deleted."""
    write(scene.folder, "abc")
    for name in ("d", "e"):
        (scene.folder / f"{name}.wav").write_bytes(b"not audio")
    scene.index(scene.collection)
    for name in "abde":
        (scene.folder / f"{name}.wav").unlink()
    scene.prunes = True


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Functions that are called after every operation of LanceDB; commits are short."""
    from lancedb.background_loop import LOOP

    called: list[Callable[[], None]] = []
    run = LOOP.run

    def hooked(future: Any) -> Any:
        result = run(future)
        for function in called:
            function()
        return result

    monkeypatch.setattr(LOOP, "run", hooked)
    monkeypatch.setattr(writer, "_ROWS_PER_COMMIT", 3)
    return called


def killed_runs(
    scene: Scene, commits: list[Callable[[], None]], folder: Path
) -> tuple[IndexSummary, list[Path]]:
    """A run, and what it would have left if it had been killed after each of its commits; of a new
    table also just before its first, when only the file that makes it a table is missing."""
    root = scene.collection.path.parent
    taken: list[Path] = []
    seen = set(root.rglob("*.manifest"))

    def take() -> None:
        fresh = set(root.rglob("*.manifest")) - seen
        is_table = bool({path.parent for path in fresh} & {path.parent for path in seen})
        seen.update(fresh)
        for missing in ([set()] if is_table else [fresh, set()]) if fresh else []:
            taken.append(folder / str(len(taken)))
            shutil.copytree(root, taken[-1])
            for path in missing:
                (taken[-1] / path.relative_to(root)).unlink()

    commits.append(take)
    summary = scene.index(scene.collection)
    commits.clear()
    return summary, taken


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [new, described, repaired, restored, columns, deleted, pruned])
def test_a_run_that_was_killed_at_any_commit_is_completed(
    tmp_path: Path,
    model: qa.AudioModel,
    commits: list[Callable[[], None]],
    prepare: Callable[[Scene], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "Sampling", partial(Sampling, max_new_tokens=2))
    folder = tmp_path / "music"
    folder.mkdir()
    describe = prepare is described
    collection = Collection.create(
        tmp_path / "tables" / "c.lance", model, tap="mel", window_seconds=0.5, describe=describe
    )
    scene = Scene(folder, collection)
    prepare(scene)
    unbroken, points = killed_runs(scene, commits, tmp_path / "killed")
    expected = state(collection)
    if prepare is restored:
        assert (unbroken.failures, collection.failures()) == ({}, [])
    assert points
    for point in points:
        resumed = Collection.open(point / "c.lance", model)
        if prepare is repaired:  # never in both tables
            rows = {row["source"] for row in resumed.table.to_arrow().to_pylist()}
            assert str(folder / "c.wav") not in rows & {row["source"] for row in resumed.failures()}
        summary = scene.index(resumed)
        assert state(resumed) == expected, point
        assert summary.failures == unbroken.failures
        assert summary.rows == unbroken.rows
        assert sum(counts(summary)) == sum(counts(unbroken))


def counts(summary: IndexSummary) -> tuple[int, ...]:
    """Recordings by what was done with them; they add up to all."""
    return (summary.added, summary.replaced, summary.updated, summary.unchanged)


def many(tmp_path: Path, model: qa.AudioModel, known_count: int, new_count: int) -> Scene:
    """A collection of rows whose files look unchanged, and a manifest that gives another value to
    them, and to files between them that aren't in it yet."""
    folder = tmp_path / "music"
    (first,) = write(folder, "a")
    content = Path(first).read_bytes()
    known = [first, *(str(folder / f"{number}.wav") for number in range(1, known_count))]
    for path in known:
        Path(path).write_bytes(content)
        os.utime(path, ns=(7, 7))
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    collection._window_table.add_columns([pa.field("mood", pa.string())])
    add_rows(
        collection,
        np.ones((known_count, collection._window_table.width)),
        source=known,
        source_bytes=[len(content)] * known_count,
        source_changed=["7"] * known_count,
        mood=["old"] * known_count,
    )
    paths = list(known)
    for number in range(new_count):
        (path,) = write(folder / f"new{number}", "b")
        paths.insert(number * known_count // new_count, path)
    return Scene(folder, collection, [{"source": path, "mood": "new"} for path in paths])


def moods(collection: Collection) -> list[str]:
    """The column of all rows."""
    return collection.table.to_arrow()["mood"].to_pylist()


@pytest.mark.slow
def test_updates_that_are_found_while_others_are_written(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes and finding an update take long, and each recording is a batch of its own."""
    monkeypatch.setattr(writer, "_SECONDS_PER_COMMIT", 0.0)
    monkeypatch.setattr(MemoryBudget, "max_frames", 1)
    write_updates, add_update = writer.IndexWriter._write_updates, writer.IndexWriter.add_update

    def slow_write(self: writer.IndexWriter, updates: Any) -> None:
        write_updates(self, updates)
        time.sleep(0.02)

    def slow_update(self: writer.IndexWriter, row: dict[str, Any]) -> None:
        add_update(self, row)
        time.sleep(0.001)

    monkeypatch.setattr(writer.IndexWriter, "_write_updates", slow_write)
    monkeypatch.setattr(writer.IndexWriter, "add_update", slow_update)
    scene = many(tmp_path, model, known_count=400, new_count=8)
    summary = scene.index(scene.collection)
    assert (summary.updated, summary.added) == (400, 8)
    assert moods(scene.collection) == ["new"] * len(scene.collection)
    assert scene.index(scene.collection).unchanged == 408


def test_what_is_added_during_a_write_is_written_next() -> None:
    queue: WriteQueue[int] = WriteQueue()
    queue.add(1)
    with queue.taken() as items:
        thread = threading.Thread(target=queue.add, args=[2])
        thread.start()
        thread.join()
        assert (items, len(queue)) == ([1], 1)

    def fail() -> None:
        with queue.taken():
            queue.add(3)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    with queue.taken() as items:
        assert items == [2, 3]
    assert not queue


@pytest.mark.slow
@pytest.mark.parametrize("method", ["_write_rows", "_write_updates", "_forget_failures"])
def test_a_write_that_fails_once(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(writer, "_SECONDS_PER_COMMIT", 0.0)
    original = getattr(writer.IndexWriter, method)
    failed: list[Any] = []

    def fails_once(self: writer.IndexWriter, items: Any) -> None:
        if items and not failed:
            failed.append(items)

            def fail(_: Any) -> None:
                raise OSError(28, "No space left on device")

            self._collection.write(fail)
        original(self, items)

    monkeypatch.setattr(writer.IndexWriter, method, fails_once)
    scene = many(tmp_path, model, known_count=40, new_count=4)
    with pytest.raises(CollectionError, match=r"can't be written .*No space left"):
        scene.index(scene.collection)
    assert failed
    before = moods(scene.collection)
    assert before.count("new") >= len(failed[0])  # what failed was written at the end
    summary = scene.index(scene.collection)
    assert summary.updated == before.count("old")
    assert sum(counts(summary)) == 44
    assert moods(scene.collection) == ["new"] * len(scene.collection)

"""Indexing: contents of rows, manifest columns, unchanged and changed recordings, failures."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import soundfile

import qwen_audio as qa
from collection_helpers import SAMPLE_RATE_HZ, rows_by_window, vectors_by_window, write_recording
from qwen_audio.audio import source_content
from qwen_audio.audio.source import ColumnValue
from qwen_audio.collection.collection import Collection
from qwen_audio.errors import OptionError
from qwen_audio.inference.pooling import Pooling
from recordings import encode, sound


@pytest.mark.slow
def test_rows_equal_encode(collection: Collection, folder: Path, model: qa.AudioModel) -> None:
    rows = rows_by_window(collection)
    assert sorted(rows) == [
        ("a.wav", 0),
        ("b.flac", 0),
        ("c.wav", 0),
        ("long.flac", 0),
        ("long.flac", 1),
        ("long.flac", 2),
        ("stereo.wav", 0),
    ]
    for (name, window), row in rows.items():
        path = next(folder.rglob(name))
        assert row["source"] == str(path)
        assert row["content_hash"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert row["start_seconds"] == 10.0 * window
        assert row["end_seconds"] == pytest.approx(
            min(10.0 * (window + 1), row["duration_seconds"])
        )
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        chunk = samples[int(row["start_seconds"] * rate) : round(row["end_seconds"] * rate)]
        expected = model.encode(chunk.T, tap="audio_tower", sampling_rate=rate)
        vector = np.asarray(row["vector"], np.float32)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
        error = np.abs(vector * row["norm"] - expected).max() / np.abs(expected).max()
        # Resampling a window uses the samples around it; the chunk has none.
        assert error < (2e-3 if rate == SAMPLE_RATE_HZ else 2e-2)
    stereo = rows["stereo.wav", 0]
    assert (stereo["sampling_rate"], stereo["channels"]) == (44_100, 2)
    assert stereo["duration_seconds"] == pytest.approx(1.5)
    assert stereo["caption"] is None


def test_a_column_of_mixed_types_is_text(tmp_path: Path, model: qa.AudioModel) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.flac").write_bytes(encode(sound(1.0, 16_000), 16_000, "flac"))
    manifest = tmp_path / "list.csv"
    manifest.write_text("source,year,take\na.flac,1999,1\nb.flac,n/a,2\n")
    collection = Collection.create(tmp_path / "m.lance", model, tap="encoder.1")
    collection.index([manifest])
    rows = rows_by_window(collection)
    assert [(rows[f"{k}.flac", 0]["year"], rows[f"{k}.flac", 0]["take"]) for k in "ab"] == [
        ("1999", 1),
        ("n/a", 2),
    ]
    manifest.write_text("source,year,take\nc.flac,2001,third\n")
    with pytest.raises(qa.OptionError, match=r"column 'take' holds int64 .* has 'third' there"):
        collection.index([manifest])
    assert len(collection) == 2


def test_tags_and_manifest_columns_are_stored(tmp_path: Path, model: qa.AudioModel) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(encode(sound(2.0, 44_100), 44_100, "mp3"))
    import av

    tagged = tmp_path / "tagged.flac"
    with av.open(str(path)) as source, av.open(str(tagged), "w") as target:
        target.metadata.update({"TITLE": "Ännchen's song", "ARTIST": "Ann", "album": "One"})
        stream = target.add_stream("flac", rate=44_100)
        for frame in source.decode(audio=0):
            target.mux(stream.encode(frame))
        target.mux(stream.encode(None))
    manifest = tmp_path / "list.jsonl"
    manifest.write_text(
        '{"path": "tagged.flac", "mood": "calm", "year": 1999}\n{"path": "song.mp3"}\n'
    )
    collection = Collection.create(tmp_path / "m.lance", model, tap="encoder.1", float32=True)
    collection.index([manifest])
    rows = rows_by_window(collection)
    tagged_row, plain = rows["tagged.flac", 0], rows["song.mp3", 0]
    assert (tagged_row["title"], tagged_row["artist"], tagged_row["album"]) == (
        "Ännchen's song",
        "Ann",
        "One",
    )
    assert (tagged_row["mood"], tagged_row["year"]) == ("calm", 1999)
    assert (plain["title"], plain["mood"], plain["year"]) == (None, None, None)
    assert (plain["format"], tagged_row["format"]) == ("mp3", "flac")
    assert collection.info().vectors == "fixed_size_list<item: float>[64]"
    with pytest.raises(OptionError, match="column 'vector' is a standard column"):
        collection.index([{"source": str(path), "vector": 1}])


@pytest.mark.slow
def test_manifest_columns_of_indexed_recordings_are_updated(
    tmp_path: Path, collection: Collection, folder: Path
) -> None:
    before = vectors_by_window(collection)
    manifest = tmp_path / "list.csv"
    head, tail = "source,mood,year,level\n", f"{folder / 'b.flac'},dark,2001,1.5\n"
    manifest.write_text(f"{head}{folder / 'long.flac'},calm,1999,nan\n{tail}")
    summary = collection.index(manifest)
    assert (summary.updated, summary.unchanged, summary.audio_seconds) == (2, 0, 0)
    rows = rows_by_window(collection)
    assert [rows["long.flac", window]["mood"] for window in range(3)] == ["calm"] * 3
    years = [rows[name, 0]["year"] for name in ("long.flac", "b.flac", "a.wav")]
    assert years == [1999, 2001, None]
    assert vectors_by_window(collection) == before
    assert len(collection.search(folder / "b.flac", where="mood = 'calm'")) == 3

    version = collection.table.version
    assert collection.index(manifest).unchanged == 2  # NaN equals the stored NaN
    assert collection.index(folder).unchanged == 5  # has no columns, so all values stay
    assert collection.table.version == version

    manifest.write_text(f"{head}{folder / 'long.flac'},,2000,nan\n{tail}")
    os.utime(folder / "b.flac", ns=(5, 5))
    summary = collection.index(manifest)
    assert (summary.updated, summary.unchanged) == (1, 1)
    rows = rows_by_window(collection)
    assert (rows["long.flac", 2]["mood"], rows["long.flac", 2]["year"]) == (None, 2000)
    assert (rows["b.flac", 0]["mood"], rows["b.flac", 0]["source_changed"]) == ("dark", "5")

    # Encoded again without its manifest, a recording keeps its manifest columns.
    write_recording(folder / "long.flac", 12.0, 70)
    assert collection.index(folder).replaced == 1
    rows = rows_by_window(collection)
    assert [rows["long.flac", window]["year"] for window in range(2)] == [2000, 2000]
    a, b = str(folder / "a.wav"), str(folder / "b.flac")
    manifest_rows: list[dict[str, ColumnValue]] = [
        {"source": a, "year": 7},
        {"source": b, "mood": "light"},
    ]
    assert collection.index(manifest_rows).updated == 2
    rows = rows_by_window(collection)
    assert (rows["b.flac", 0]["mood"], rows["b.flac", 0]["year"]) == ("light", 2001)
    assert (rows["a.wav", 0]["mood"], rows["a.wav", 0]["year"]) == (None, 7)
    assert collection.verify().problems == ()


def test_unchanged_recordings_are_not_encoded_again(collection: Collection, folder: Path) -> None:
    version = collection.table.version
    summary = collection.index(folder)
    assert (summary.unchanged, summary.added, summary.replaced) == (5, 0, 0)
    assert summary.audio_seconds == 0
    assert collection.table.version == version  # nothing was written
    os.utime(folder / "a.wav", ns=(5, 5))  # another time, the same bytes
    os.utime(folder / "long.flac", ns=(7, 7))
    assert collection.index(folder).unchanged == 5
    rows = rows_by_window(collection)
    changed = [rows["a.wav", 0], *(rows["long.flac", window] for window in range(3))]
    assert [row["source_changed"] for row in changed] == ["5", "7", "7", "7"]
    assert rows["b.flac", 0]["source_changed"] == str((folder / "b.flac").stat().st_mtime_ns)
    version = collection.table.version
    collection.index(folder)
    assert collection.table.version == version


def test_a_changed_recording_is_replaced_with_all_its_windows(
    collection: Collection, folder: Path
) -> None:
    before = vectors_by_window(collection)
    write_recording(folder / "long.flac", 12.0, 70)
    write_recording(folder / "new.wav", 1.0, 71)
    summary = collection.index([folder])
    assert (summary.added, summary.replaced, summary.unchanged, summary.rows) == (1, 1, 4, 7)
    after = vectors_by_window(collection)
    assert ("long.flac", 2) not in after
    assert after["long.flac", 0] != before["long.flac", 0]
    assert {key: after[key] for key in before if "long" not in key[0]} == {
        key: before[key] for key in before if "long" not in key[0]
    }


def test_index_uris(tmp_path: Path, model: qa.AudioModel, folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.wav", "b.flac"):
        memory.pipe(f"/recordings/{name}", next(folder.rglob(name)).read_bytes())
    memory.pipe("/recordings/broken.mp3", b"not audio")
    collection = Collection.create(tmp_path / "far.lance", model, tap="encoder.1")
    summary = collection.index("memory://recordings")
    assert (summary.added, list(summary.failures)) == (2, ["memory:///recordings/broken.mp3"])
    (result,) = collection.search(folder / "b.flac", limit=1)
    assert (result.id, result.columns["format"]) == ("memory:///recordings/b.flac#0", "flac")
    assert [result.source for result in collection.search(like=result.source)] == [
        "memory:///recordings/a.wav"
    ]
    uris = ["memory://recordings/*.wav", "memory://recordings/b.flac"]
    assert collection.index(uris).unchanged == 2
    memory.pipe("/recordings/a.wav", (folder / "deep" / "c.wav").read_bytes())
    assert collection.index("memory://recordings/*.wav").replaced == 1
    assert collection.verify().problems == ()
    memory.rm("/recordings", recursive=True)
    assert collection.prune() == ["memory:///recordings/a.wav", "memory:///recordings/b.flac"]
    assert (len(collection), collection.failures()) == (0, [])


def test_index_uris_inside_an_archive(tmp_path: Path, model: qa.AudioModel, folder: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(folder / "a.wav", "in/a.wav")
        archive.writestr("in/broken.mp3", b"not audio")
        archive.writestr("in/read.me", b"")
    fsspec.filesystem("memory").pipe("/takes.zip", buffer.getvalue())
    collection = Collection.create(tmp_path / "far.lance", model, tap="encoder.1")
    summary = collection.index("zip://in::memory://takes.zip")
    assert (summary.added, summary.skipped) == (1, ("zip://in/read.me::memory://takes.zip",))
    assert list(summary.failures) == ["zip://in/broken.mp3::memory://takes.zip"]
    (result,) = collection.search(folder / "a.wav", limit=1)
    assert result.source == "zip://in/a.wav::memory://takes.zip"
    for again in ("zip://in/*.wav::memory://takes.zip", result.source):
        assert collection.index(again).unchanged == 1
    assert collection.verify().problems == ()
    fsspec.filesystem("memory").rm("/takes.zip")
    assert collection.prune() == [result.source]


def test_paths_are_normalised(
    collection: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert collection.index(["a.wav", "deep/../b.flac", "."]).unchanged == 5
    assert collection.prune() == []
    assert collection.search(like="a.wav", limit=1)[0].source != str(folder / "a.wav")


def failed_at(collection: Collection, path: Path) -> Any:
    """When a file last failed to decode."""
    (row,) = (row for row in collection.failures() if row["source"] == str(path))
    return row["failed_at"]


def test_failures_are_stored_and_retried_when_changed_or_asked(
    collection: Collection, folder: Path
) -> None:
    bad, empty = folder / "bad.mp3", folder / "empty.wav"
    bad.write_bytes(b"not audio")
    empty.write_bytes(b"")
    (folder / "cover.jpg").write_bytes(b"x")
    summary = collection.index([folder, folder / "gone.wav"])
    assert summary.skipped == (str(folder / "cover.jpg"),)
    names = ["bad.mp3", "empty.wav", "gone.wav"]
    assert sorted(Path(source).name for source in summary.failures) == names
    assert (summary.unchanged, summary.rows) == (5, 7)
    failures = {Path(row["source"]).name: row for row in collection.failures()}
    assert list(failures) == names
    assert failures["bad.mp3"]["reason"] == summary.failures[str(bad)]
    first = failures["bad.mp3"]["failed_at"]

    # Unchanged: reported, not retried.
    summary = collection.index(folder)
    assert set(summary.failures) == {str(bad), str(empty)}
    assert failed_at(collection, bad) == first
    summary = collection.index(folder, retry=True)
    assert set(summary.failures) == {str(bad), str(empty)}
    assert failed_at(collection, bad) > first

    write_recording(folder / "good.wav", 1.0, 3).replace(bad.with_suffix(".wav"))
    shutil.copy(bad.with_suffix(".wav"), bad)  # FFmpeg goes by content, not by name
    empty.unlink()
    summary = collection.index(folder)
    assert (summary.failures, summary.added) == ({}, 2)
    collection.prune()
    assert collection.failures() == []


@pytest.mark.parametrize(("damage", "reason"), [(np.nan, "not finite"), (0.0, "is zero")])
def test_a_recording_whose_vector_is_unusable_is_a_failure(
    tmp_path: Path,
    folder: Path,
    model: qa.AudioModel,
    monkeypatch: pytest.MonkeyPatch,
    damage: float,
    reason: str,
) -> None:
    """The others are kept; it is tried again by the usual rules."""
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    combine, vectors = Pooling.combine, []

    def damaged(self: Pooling, windows: Any) -> Any:
        vectors.append(combine(self, windows))
        # The third window of long.flac, and the only one of c.wav, in the order of the folder.
        bad = len(vectors) in (3, 6)
        if bad:
            vectors[-1][:] = damage if damage == 0 else vectors[-1][:]
            vectors[-1][0] = damage
        return vectors[-1]

    monkeypatch.setattr(Pooling, "combine", damaged)
    summary = collection.index(folder)
    bad = {str(folder / "deep" / "c.wav"), str(folder / "long.flac")}
    assert (summary.added, set(summary.failures)) == (3, bad)
    assert all(reason in text and text.count("\n") == 0 for text in summary.failures.values())
    assert {row["source"] for row in collection.failures()} == bad
    assert sorted(name for name, _ in rows_by_window(collection)) == [
        "a.wav",
        "b.flac",
        "stereo.wav",
    ]
    assert set(collection.index(folder).failures) == bad  # unchanged: not tried again
    summary = collection.index(folder, retry=True)
    assert (summary.added, summary.failures, collection.failures()) == (2, {}, [])
    assert collection.verify(sample=1).problems == ()


def test_a_file_that_changes_while_it_is_indexed(
    tmp_path: Path, folder: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are those of the content whose hash they have."""
    changing = folder / "a.wav"
    seeds = [77]

    def change_first(function: Any) -> Any:
        def changing_first(audio: Any, *args: Any, **options: Any) -> Any:
            if audio == str(changing) and seeds:
                write_recording(changing, 3.0, seeds.pop())
            return function(audio, *args, **options)

        return changing_first

    for name in ("load_waveform", "stream_windows"):
        monkeypatch.setattr(source_content, name, change_first(getattr(source_content, name)))
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    assert collection.index(folder).added == 5
    row = rows_by_window(collection)["a.wav", 0]
    assert row["content_hash"] == hashlib.sha256(changing.read_bytes()).hexdigest()
    assert row["duration_seconds"] == pytest.approx(3)
    assert collection.index(folder).unchanged == 5
    assert collection.verify().problems == ()
    seeds.append(78)
    with pytest.raises(qa.AudioError, match="has changed since it was indexed"):
        collection.waveform(str(changing), 0)


def test_a_row_with_another_size_or_time_but_the_same_hash_is_replaced(
    tmp_path: Path, folder: Path, model: qa.AudioModel
) -> None:
    """As an older version left it where a file had changed between two looks at it."""
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    collection.index(folder / "a.wav")
    collection.table.update(values={"source_bytes": 5})
    assert collection.index(folder / "a.wav").replaced == 1
    assert collection.index(folder / "a.wav").unchanged == 1


def test_columns_of_a_run_that_stores_nothing_are_not_added(
    tmp_path: Path, folder: Path, model: qa.AudioModel
) -> None:
    """So that the corrected manifest may have other types."""
    collection = Collection.create(tmp_path / "c.lance", model, tap="mel")
    collection.index([{"source": str(folder / "none.wav"), "year": 1}])
    assert "year" not in collection.table.schema.names
    assert collection.index([{"source": str(folder / "a.wav"), "year": "n/a"}]).added == 1

"""Collections: true rows, found again; resumed, each recording whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import lancedb
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

import qwen_audio as qa
from qwen_audio.audio.source import ColumnValue
from qwen_audio.collection import search as searching
from qwen_audio.collection.collection import Collection
from qwen_audio.collection.table import WindowTable
from qwen_audio.errors import CollectionError, OptionError
from recordings import encode, sound

RATE = 16_000


def write(path: Path, seconds: float, seed: int, rate: int = RATE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(seconds, rate, seed=seed)[0], rate)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> qa.AudioModel:
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five recordings, one of them of three windows, one stereo at 44.1 kHz."""
    music = tmp_path / "music"
    for number, name in enumerate(("a.wav", "b.flac", "deep/c.wav")):
        write(music / name, 2.0 + number, number)
    write(music / "long.flac", 25.0, 7)
    stereo = sound(1.5, 44_100, channels=2, seed=9)
    soundfile.write(music / "stereo.wav", stereo.T, 44_100, subtype="FLOAT")
    return music


@pytest.fixture
def collection(tmp_path: Path, folder: Path, model: qa.AudioModel) -> Collection:
    made = Collection.create(tmp_path / "music.lance", model, tap="audio_tower")
    made.index(folder)
    return made


def rows_of(collection: Collection) -> dict[tuple[str, int], dict[str, Any]]:
    rows = collection.table.to_arrow().to_pylist()
    keyed = {(Path(row["source"]).name, row["window"]): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed


def content(collection: Collection) -> dict[tuple[str, int], tuple[str, bytes]]:
    """What has to be equal however a collection came to be."""
    return {
        key: (row["content_hash"], np.asarray(row["vector"], np.float16).tobytes())
        for key, row in rows_of(collection).items()
    }


# What a row holds.


def test_rows_are_what_encode_gives(
    collection: Collection, folder: Path, model: qa.AudioModel
) -> None:
    rows = rows_of(collection)
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
        piece = samples[int(row["start_seconds"] * rate) : round(row["end_seconds"] * rate)]
        expected = model.encode(piece.T, tap="audio_tower", sampling_rate=rate)
        vector = np.asarray(row["vector"], np.float32)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-3)
        error = np.abs(vector * row["norm"] - expected).max() / np.abs(expected).max()
        # A window at another rate is resampled with its neighbours, a piece without.
        assert error < (2e-3 if rate == RATE else 2e-2)
    stereo = rows["stereo.wav", 0]
    assert (stereo["sampling_rate"], stereo["channels"]) == (44_100, 2)
    assert stereo["duration_seconds"] == pytest.approx(1.5)
    assert stereo["caption"] is None


def test_a_column_of_mixed_types_is_text(tmp_path: Path, model: qa.AudioModel) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.flac").write_bytes(encode(sound(1.0, 16_000), 16_000, "flac"))
    manifest = tmp_path / "list.csv"
    manifest.write_text("source,year,take\na.flac,1999,1\nb.flac,n/a,2\n")
    made = Collection.create(tmp_path / "m.lance", model, tap="encoder.1")
    made.index([manifest])
    rows = rows_of(made)
    assert [(rows[f"{k}.flac", 0]["year"], rows[f"{k}.flac", 0]["take"]) for k in "ab"] == [
        ("1999", 1),
        ("n/a", 2),
    ]
    manifest.write_text("source,year,take\nc.flac,2001,third\n")
    with pytest.raises(qa.OptionError, match=r"column 'take' holds int64 .* has 'third' there"):
        made.index([manifest])
    assert len(made) == 2


def test_tags_and_manifests_come_along(tmp_path: Path, model: qa.AudioModel) -> None:
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
    made = Collection.create(tmp_path / "m.lance", model, tap="encoder.1", float32=True)
    made.index([manifest])
    rows = rows_of(made)
    tagged_row, plain = rows["tagged.flac", 0], rows["song.mp3", 0]
    assert (tagged_row["title"], tagged_row["artist"], tagged_row["album"]) == (
        "Ännchen's song",
        "Ann",
        "One",
    )
    assert (tagged_row["mood"], tagged_row["year"]) == ("calm", 1999)
    assert (plain["title"], plain["mood"], plain["year"]) == (None, None, None)
    assert (plain["format"], tagged_row["format"]) == ("mp3", "flac")
    assert made.info().vectors == "fixed_size_list<item: float>[64]"
    with pytest.raises(OptionError, match="column 'vector', which is a standard column"):
        made.index([{"source": str(path), "vector": 1}])


def test_what_a_manifest_says_reaches_rows_that_are_there(
    tmp_path: Path, collection: Collection, folder: Path
) -> None:
    before = content(collection)
    manifest = tmp_path / "list.csv"
    head, tail = "source,mood,year,level\n", f"{folder / 'b.flac'},dark,2001,1.5\n"
    manifest.write_text(f"{head}{folder / 'long.flac'},calm,1999,nan\n{tail}")
    done = collection.index(manifest)
    assert (done.updated, done.unchanged, done.audio_seconds) == (2, 0, 0)
    rows = rows_of(collection)
    assert [rows["long.flac", window]["mood"] for window in range(3)] == ["calm"] * 3
    years = [rows[name, 0]["year"] for name in ("long.flac", "b.flac", "a.wav")]
    assert years == [1999, 2001, None]
    assert content(collection) == before
    assert len(collection.search(folder / "b.flac", where="mood = 'calm'")) == 3

    version = collection.table.version
    assert collection.index(manifest).unchanged == 2  # NaN too is what it was
    assert collection.index(folder).unchanged == 5  # says nothing of them, so all stays
    assert collection.table.version == version

    manifest.write_text(f"{head}{folder / 'long.flac'},,2000,nan\n{tail}")
    os.utime(folder / "b.flac", ns=(5, 5))
    done = collection.index(manifest)
    assert (done.updated, done.unchanged) == (1, 1)
    rows = rows_of(collection)
    assert (rows["long.flac", 2]["mood"], rows["long.flac", 2]["year"]) == (None, 2000)
    assert (rows["b.flac", 0]["mood"], rows["b.flac", 0]["source_changed"]) == ("dark", "5")

    # Heard anew without its manifest, a recording keeps what was said of it.
    write(folder / "long.flac", 12.0, 70)
    assert collection.index(folder).replaced == 1
    rows = rows_of(collection)
    assert [rows["long.flac", window]["year"] for window in range(2)] == [2000, 2000]
    a, b = str(folder / "a.wav"), str(folder / "b.flac")
    said: list[dict[str, ColumnValue]] = [{"source": a, "year": 7}, {"source": b, "mood": "light"}]
    assert collection.index(said).updated == 2
    rows = rows_of(collection)
    assert (rows["b.flac", 0]["mood"], rows["b.flac", 0]["year"]) == ("light", 2001)
    assert (rows["a.wav", 0]["mood"], rows["a.wav", 0]["year"]) == (None, 7)
    assert collection.verify().problems == ()


def test_others_open_it_without_us(collection: Collection) -> None:
    table = lancedb.connect(collection.path.parent).open_table("music")
    assert table.count_rows() == 7
    text = (table.schema.metadata or {})[b"qwen_audio_spec"].decode()
    assert collection.spec.fingerprint in text
    assert '"tap": "audio_tower"' in text
    assert table.search().where("duration_seconds > 20").to_arrow().num_rows == 3


# One Spec for all.


def test_another_spec_is_an_error_that_shows_both(
    tmp_path: Path, collection: Collection, folder: Path, checkpoint: Path
) -> None:
    other = qa.load(checkpoint, dtype="bfloat16")
    opened = Collection.open(collection.path, other)
    for act in (
        lambda: opened.index(folder),
        lambda: opened.search(folder / "a.wav"),
        opened.verify,
    ):
        with pytest.raises(
            CollectionError, match=r"dtype 'float32' here and 'bfloat16' asked for"
        ) as caught:
            act()
        assert collection.spec.fingerprint in str(caught.value)
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


def test_a_folder_of_another_name_is_the_same_model(
    tmp_path: Path, collection: Collection, folder: Path, checkpoint: Path
) -> None:
    """Somebody else's disk is laid out in another way."""
    shutil.copytree(checkpoint, tmp_path / "elsewhere")
    theirs = qa.load(tmp_path / "elsewhere", dtype="float32")
    opened = Collection.open(collection.path, theirs)
    assert opened.search(folder / "b.flac", limit=1)[0].score > 0.999
    assert opened.index(folder).unchanged == 5
    with pytest.raises(CollectionError, match=r"model '.*' here and 'embedded' asked for"):
        Collection.open(collection.path, qa.load(dtype="float32")).search(folder / "b.flac")


def test_opened_alone_it_finds_its_model(collection: Collection, folder: Path) -> None:
    opened = Collection.open(collection.path)
    assert opened.spec == collection.spec
    (hit,) = opened.search(folder / "b.flac", limit=1)
    assert hit.source == str(folder / "b.flac")


def test_a_table_never_finished_is_none(tmp_path: Path, model: qa.AudioModel) -> None:
    """As a kill leaves it that comes in the moment of making it."""
    (tmp_path / "new.lance" / "_versions").mkdir(parents=True)
    (tmp_path / "new.lance" / "_transactions").mkdir()
    with pytest.raises(CollectionError, match="no such collection"):
        Collection.open(tmp_path / "new.lance")
    assert len(Collection.create(tmp_path / "new.lance", model)) == 0
    assert len(Collection.open(tmp_path / "new.lance", model)) == 0


# Resuming.


def test_what_is_unchanged_is_skipped(collection: Collection, folder: Path) -> None:
    version = collection.table.version
    done = collection.index(folder)
    assert (done.unchanged, done.added, done.replaced, done.audio_seconds) == (5, 0, 0, 0)
    assert collection.table.version == version  # nothing was written
    os.utime(folder / "a.wav", ns=(5, 5))  # another time, the same bytes
    os.utime(folder / "long.flac", ns=(7, 7))
    assert collection.index(folder).unchanged == 5
    rows = rows_of(collection)
    changed = [rows["a.wav", 0], *(rows["long.flac", window] for window in range(3))]
    assert [row["source_changed"] for row in changed] == ["5", "7", "7", "7"]
    assert rows["b.flac", 0]["source_changed"] == str((folder / "b.flac").stat().st_mtime_ns)
    version = collection.table.version
    collection.index(folder)
    assert collection.table.version == version


def test_what_has_changed_is_replaced_with_all_its_windows(
    collection: Collection, folder: Path
) -> None:
    before = content(collection)
    write(folder / "long.flac", 12.0, 70)
    write(folder / "new.wav", 1.0, 71)
    done = collection.index([folder])
    assert (done.added, done.replaced, done.unchanged, done.rows) == (1, 1, 4, 7)
    after = content(collection)
    assert ("long.flac", 2) not in after
    assert after["long.flac", 0] != before["long.flac", 0]
    assert {key: after[key] for key in before if "long" not in key[0]} == {
        key: before[key] for key in before if "long" not in key[0]
    }


def test_what_is_gone_goes_when_asked(collection: Collection, folder: Path) -> None:
    gone = folder / "deep" / "c.wav"
    gone.unlink()
    assert collection.index(folder).rows == 7
    assert collection.prune() == [str(gone)]
    assert ("c.wav", 0) not in rows_of(collection)
    assert collection.prune() == []


def test_recordings_at_an_address(tmp_path: Path, model: qa.AudioModel, folder: Path) -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.wav", "b.flac"):
        memory.pipe(f"/shelf/{name}", next(folder.rglob(name)).read_bytes())
    memory.pipe("/shelf/broken.mp3", b"not a sound")
    made = Collection.create(tmp_path / "far.lance", model, tap="encoder.1")
    done = made.index("memory://shelf")
    assert (done.added, list(done.failures)) == (2, ["memory:///shelf/broken.mp3"])
    (hit,) = made.search(folder / "b.flac", limit=1)
    assert (hit.id, hit.columns["format"]) == ("memory:///shelf/b.flac#0", "flac")
    assert [hit.source for hit in made.search(id=hit.source)] == ["memory:///shelf/a.wav"]
    assert made.index(["memory://shelf/*.wav", "memory://shelf/b.flac"]).unchanged == 2
    memory.pipe("/shelf/a.wav", (folder / "deep" / "c.wav").read_bytes())
    assert made.index("memory://shelf/*.wav").replaced == 1
    assert made.verify().problems == ()
    memory.rm("/shelf", recursive=True)
    assert made.prune() == ["memory:///shelf/a.wav", "memory:///shelf/b.flac"]
    assert (len(made), made.failures()) == (0, [])


def test_recordings_inside_an_archive_at_an_address(
    tmp_path: Path, model: qa.AudioModel, folder: Path
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(folder / "a.wav", "in/a.wav")
        archive.writestr("in/broken.mp3", b"not a sound")
        archive.writestr("in/read.me", b"")
    fsspec.filesystem("memory").pipe("/takes.zip", packed.getvalue())
    made = Collection.create(tmp_path / "far.lance", model, tap="encoder.1")
    done = made.index("zip://in::memory://takes.zip")
    assert (done.added, done.skipped) == (1, ("zip://in/read.me::memory://takes.zip",))
    assert list(done.failures) == ["zip://in/broken.mp3::memory://takes.zip"]
    (hit,) = made.search(folder / "a.wav", limit=1)
    assert hit.source == "zip://in/a.wav::memory://takes.zip"
    for again in ("zip://in/*.wav::memory://takes.zip", hit.source):
        assert made.index(again).unchanged == 1
    assert made.verify().problems == ()
    fsspec.filesystem("memory").rm("/takes.zip")
    assert made.prune() == [hit.source]


def test_the_same_file_by_another_name(
    collection: Collection, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert collection.index(["a.wav", "deep/../b.flac", "."]).unchanged == 5
    assert collection.prune() == []
    assert collection.search(id="a.wav", limit=1)[0].source != str(folder / "a.wav")


# Failures.


def failed_at(collection: Collection, path: Path) -> Any:
    (row,) = (row for row in collection.failures() if row["source"] == str(path))
    return row["failed_at"]


def test_failures_have_a_table_and_are_tried_again_when_there_is_hope(
    collection: Collection, folder: Path
) -> None:
    bad, empty = folder / "bad.mp3", folder / "empty.wav"
    bad.write_bytes(b"not a sound")
    empty.write_bytes(b"")
    (folder / "cover.jpg").write_bytes(b"x")
    done = collection.index([folder, folder / "gone.wav"])
    assert done.skipped == (str(folder / "cover.jpg"),)
    assert {Path(source).name for source in done.failures} == {"bad.mp3", "empty.wav", "gone.wav"}
    assert (done.unchanged, done.rows) == (5, 7)
    kept = {Path(row["source"]).name: row for row in collection.failures()}
    assert list(kept) == ["bad.mp3", "empty.wav", "gone.wav"]
    assert kept["bad.mp3"]["reason"] == done.failures[str(bad)]
    first = kept["bad.mp3"]["failed_at"]

    # Again: told of, not tried.
    done = collection.index(folder)
    assert set(done.failures) == {str(bad), str(empty)}
    assert failed_at(collection, bad) == first
    done = collection.index(folder, retry=True)
    assert set(done.failures) == {str(bad), str(empty)}
    assert failed_at(collection, bad) > first

    write(folder / "good.wav", 1.0, 3).replace(bad.with_suffix(".wav"))
    shutil.copy(bad.with_suffix(".wav"), bad)  # FFmpeg looks at what is in it, not at its name
    empty.unlink()
    done = collection.index(folder)
    assert (done.failures, done.added) == ({}, 2)
    collection.prune()
    assert collection.failures() == []


# Kills, and two at once.

INDEXER = """
import sys
import qwen_audio as qa
from qwen_audio.collection import writer
from qwen_audio.collection.collection import Collection
writer._ROWS_PER_COMMIT = 4
path, folder, checkpoint = sys.argv[1:]
model = qa.load(checkpoint, dtype="float32")
try:
    made = Collection.create(path, model)
except qa.CollectionError:
    made = Collection.open(path, model)
print("ready", flush=True)
sys.stdin.readline()
made.index(folder, on_progress=lambda now: print(now.encoded, flush=True))
print("done", flush=True)
"""


@pytest.fixture
def many(tmp_path: Path) -> Path:
    for number in range(40):
        write(tmp_path / "many" / f"{number:02}.wav", 0.5 + number % 3 * 8, number)
    return tmp_path / "many"


@pytest.fixture
def indexers() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def start(
    indexers: list[subprocess.Popen[str]], path: Path, folder: Path, checkpoint: Path
) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", INDEXER, str(path), str(folder), str(checkpoint)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    indexers.append(process)
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()


def test_killed_at_any_moment_the_next_run_completes_it(
    tmp_path: Path,
    many: Path,
    checkpoint: Path,
    model: qa.AudioModel,
    indexers: list[subprocess.Popen[str]],
) -> None:
    unbroken = Collection.create(tmp_path / "unbroken.lance", model)
    unbroken.index(many)
    path = tmp_path / "killed.lance"
    random = np.random.default_rng(0)
    for after in (3, 9, 14):
        process = start(indexers, path, many, checkpoint)
        go(process)
        assert process.stdout is not None
        for _ in range(after):
            assert process.stdout.readline().strip().isdigit()
        time.sleep(random.uniform(0, 0.05))  # within decoding, computing, or writing
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    broken = Collection.open(path, model)
    assert 0 < len(broken) < len(unbroken)
    assert broken.index(many).unchanged > 0
    assert content(broken) == content(unbroken)
    assert broken.verify(sample=5).problems == ()


def test_two_at_once_leave_each_row_once(
    tmp_path: Path,
    many: Path,
    checkpoint: Path,
    model: qa.AudioModel,
    indexers: list[subprocess.Popen[str]],
) -> None:
    path = tmp_path / "both.lance"
    both = [start(indexers, path, many, checkpoint) for _ in range(2)]
    for process in both:
        go(process)
    for process in both:
        output, _ = process.communicate()
        assert output.endswith("done\n")
    alone = Collection.create(tmp_path / "alone.lance", model)
    alone.index(many)
    assert content(Collection.open(path, model)) == content(alone)


# Search.


def test_a_sound_finds_itself_and_an_id_its_neighbours(
    collection: Collection, folder: Path
) -> None:
    hits = collection.search(folder / "b.flac")
    assert len(hits) == 7
    assert (hits[0].source, hits[0].id) == (str(folder / "b.flac"), f"{folder / 'b.flac'}#0")
    assert hits[0].score == pytest.approx(1, abs=2e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    by_id = collection.search(id=str(folder / "b.flac"))
    assert [hit.id for hit in by_id] == [hit.id for hit in hits[1:]]
    later = collection.search(id=f"{folder / 'long.flac'}#2", limit=3)
    assert len(later) == 3
    assert f"{folder / 'long.flac'}#2" not in [hit.id for hit in later]
    table = rows_of(collection)
    query = np.asarray(table["b.flac", 0]["vector"], np.float32)
    for hit in by_id:
        row = table[Path(hit.source).name, hit.columns["window"]]
        assert hit.score == pytest.approx(
            float(query @ np.asarray(row["vector"], np.float32)), abs=2e-3
        )
    third = next(hit for hit in hits if hit.id.endswith("long.flac#2"))
    assert str(third) == f"{third.score:.3f}  {folder / 'long.flac'} at 0:20–0:25"


def test_conditions_and_limits(collection: Collection, folder: Path) -> None:
    hits = collection.search(folder / "a.wav", where='duration_seconds > 20 AND "window" > 0')
    assert sorted(hit.columns["window"] for hit in hits) == [1, 2]
    name = str(folder / "a.wav").replace("'", "''")
    assert collection.search(folder / "a.wav", where=f"source = '{name}'")[0].score > 0.99
    assert len(collection.search(folder / "a.wav", limit=2)) == 2
    wrong = r"where='nonsense = 1' can't be used \(.*No field named nonsense\): it takes SQL over"
    for act in (
        lambda: collection.search(folder / "a.wav", where="nonsense = 1"),
        lambda: collection.recordings("nonsense = 1"),
        lambda: collection.export(folder / "x.npz", "nonsense = 1"),
        lambda: collection.map(where="nonsense = 1"),
    ):
        with pytest.raises(OptionError, match=wrong):
            act()
    with pytest.raises(OptionError, match="limit=0"):
        collection.search(folder / "a.wav", limit=0)
    with pytest.raises(OptionError, match="one of audio, text= and id="):
        collection.search()
    with pytest.raises(OptionError, match="one of audio, text= and id="):
        collection.search(folder / "a.wav", id="x")
    with pytest.raises(CollectionError, match="has no row"):
        collection.search(id="nowhere.wav")
    with pytest.raises(CollectionError, match="has no captions"):
        collection.search(text="slow piece")
    with pytest.raises(qa.AudioError):
        collection.search(folder / "none.wav")


def test_words_search_captions(tmp_path: Path, folder: Path) -> None:
    embedded = qa.load(dtype="float32")
    made = Collection.create(tmp_path / "said.lance", embedded, describe=True, window_seconds=30)
    soundfile.write(folder / "silence.wav", np.zeros(2 * RATE), RATE)
    made.index(folder)
    for row in made.table.to_arrow().to_pylist():
        assert row["caption"] == embedded.describe(row["source"])
    found = made.search(text="silence")
    assert [Path(hit.source).name for hit in found] == ["silence.wav"]
    assert found[0].caption is not None
    assert made.search(text="silence", where="duration_seconds > 3") == []
    write(folder / "later.wav", 3.0, 20)
    made.index(folder)
    words = str(embedded.describe(folder / "later.wav"))
    assert str(folder / "later.wav") in [hit.source for hit in made.search(text=words)]
    with pytest.raises(OptionError, match="text is empty"):
        made.search(text=" ")


def test_many_rows_are_found_by_an_index(
    tmp_path: Path, model: qa.AudioModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters, as recordings make them; the index finds what comparing every vector does."""
    monkeypatch.setattr(searching, "ANN_MIN_ROWS", 2000)
    made = Collection.create(tmp_path / "many.lance", model, tap="encoder.1")
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 64))
    vectors = centres[random.integers(0, 60, 4000)] + 0.7 * random.normal(size=(4000, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    add_rows(made, vectors[:3000])
    searching.update_indices(made._window_table)
    add_rows(made, vectors[3000:])  # rows that the index doesn't know are looked through as well
    assert made.info().indices == {"vector_idx": 1000}
    recalls = []
    for query in range(0, 4000, 100):
        near = {hit.id for hit in made.search(id=f"/x/{query}.wav")}
        exact = {hit.id for hit in made.search(id=f"/x/{query}.wav", exact=True)}
        recalls.append(len(near & exact) / len(exact))
    assert np.mean(recalls) >= 0.95
    searching.update_indices(made._window_table)
    assert made.info().indices == {"vector_idx": 0}
    # What a manifest says later moves no row away from the index.
    made._window_table.add_columns({"mood": "calm"})
    made.table.merge_insert("source").when_matched_update_all().execute(
        [{"source": "/x/7.wav", "mood": "calm"}]
    )
    searching.update_indices(made._window_table)
    assert made.info().indices == {"vector_idx": 0}
    assert made.search(id="/x/8.wav", where="mood = 'calm'")[0].id == "/x/7.wav#0"


def add_rows(collection: Collection, vectors: np.ndarray[Any, Any]) -> None:
    import pyarrow as pa

    first = len(collection)
    schema = collection.table.schema
    given: dict[str, Any] = {
        "source": [f"/x/{first + k}.wav" for k in range(len(vectors))],
        "window": [0] * len(vectors),
        "start_seconds": [0.0] * len(vectors),
        "end_seconds": [10.0] * len(vectors),
    }
    columns = []
    for field in schema:
        if field.name == "vector":
            flat = pa.array(vectors.astype(np.float16).ravel())
            columns.append(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        else:
            columns.append(pa.array(given.get(field.name, [None] * len(vectors)), field.type))
    collection.table.add(pa.Table.from_arrays(columns, schema=schema))


# Upkeep.


def test_info_counts(collection: Collection) -> None:
    found = collection.info()
    assert (found.rows, found.sources, found.failures) == (7, 5, 0)
    assert found.audio_seconds == pytest.approx(2 + 3 + 4 + 25 + 1.5)
    assert found.vectors == "fixed_size_list<item: halffloat>[64]"
    assert found.bytes >= 7 * 64 * 2
    assert found.spec["tap"] == "audio_tower"
    listed = {Path(row["source"]).name: row for row in collection.recordings()}
    assert listed["long.flac"]["windows"] == 3
    assert [Path(row["source"]).name for row in collection.recordings("duration_seconds < 2")] == [
        "stereo.wav"
    ]
    assert "7 rows of audio_tower" in repr(collection)


def test_verify_finds_what_is_wrong(collection: Collection, folder: Path) -> None:
    with pytest.raises(OptionError, match="sample=0: use a whole number from 1 on"):
        collection.verify(sample=0)
    found = collection.verify()
    assert (found.checked, found.problems) == (5, ())
    assert found.lowest_cosine > 0.9999
    write(folder / "a.wav", 1.0, 50)
    (problem,) = collection.verify().problems
    assert problem == f"{folder / 'a.wav'} has changed since it was indexed"
    collection.index(folder)
    collection.table.delete('"window" = 1')
    assert "lacks windows" in " ".join(collection.verify().problems)
    rows = collection.table.search().where("source LIKE '%b.flac'").to_arrow()
    collection.table.add(rows)
    assert "1 windows are there twice" in collection.verify().problems
    noise = np.random.default_rng(0).normal(size=64)
    literal = "[" + ", ".join(f"{x / np.linalg.norm(noise):.5f}" for x in noise) + "]"
    collection.table.update(where="source LIKE '%c.wav'", values_sql={"vector": literal})
    assert any("c.wav#0: cosine" in problem for problem in collection.verify().problems)


def test_exports_hold_every_row(tmp_path: Path, collection: Collection, folder: Path) -> None:
    rows = rows_of(collection)
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
    place = arrays["source"].tolist().index(str(folder / "a.wav"))
    indexed = rows["a.wav", 0]["indexed_at"].replace(tzinfo=None)
    assert arrays["indexed_at"][place] == np.datetime64(indexed)
    assert [arrays[name][place] for name in ("year", "live", "file")] == [1999, 1, "é"]
    assert np.isnan(np.delete(arrays["year"], place)).all()
    collection.index([{"source": str(folder / "a.wav"), "spec": 1}])
    for name, message in (
        ("spec.npz", "two arrays called spec"),
        ("all.parquet", "there already"),
        ("x.csv", "use .parquet"),
        ("no/x.npz", "no folder"),
    ):
        with pytest.raises(OptionError, match=message):
            collection.export(tmp_path / name)


def test_a_dataset_has_the_sounds(
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


def test_the_pages_ways_to_open_it(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/collections.md, as it stands there."""
    page = (Path(__file__).parents[2] / "docs" / "collections.md").read_text(encoding="utf-8")
    opening, asking = (
        next(b for b in re.findall(r"```python\n(.*?)```", page, re.S) if name in b)
        for name in ("to_pandas()  ", "duckdb.sql")
    )
    monkeypatch.chdir(collection.path.parent)
    names: dict[str, Any] = {}
    exec(opening, names)
    exec(asking.replace("duckdb.sql(", "answer = duckdb.sql("), names)
    assert names["answer"].fetchall() == [(None, 7, pytest.approx((2 + 3 + 4 + 3 * 25 + 1.5) / 7))]
    collection.export("music.parquet")
    query = re.findall(r"```sql\n(.*?)```", page, re.S)[0].replace("caption LIKE '%piano%'", "TRUE")
    assert len(names["duckdb"].sql(query).fetchall()) == 7


@pytest.mark.parametrize("missing", ["lancedb", "datasets"])
def test_a_missing_extra_is_an_error_that_names_it(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    extra = {"lancedb": "collections", "datasets": "datasets"}[missing]
    acts = {
        "lancedb": lambda: WindowTable.open(collection.path),
        "datasets": lambda: collection.export(tmp_path / "dataset"),
    }
    with pytest.raises(qa.MissingExtraError, match=rf"\[{extra}\]"):
        acts[missing]()

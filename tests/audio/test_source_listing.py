"""Source listings: every recording once, nothing dropped silently."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

import fsspec
import pytest

from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import hash_source
from qwen_audio.audio.source_listing import find_sources
from qwen_audio.errors import AudioError, OptionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "b.FLAC", "deep/er/c.mp3", "notes.txt", ".hidden.wav", ".git/d.wav"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def names(inputs: Sequence[str | Path], below: Path) -> list[str]:
    return [os.path.relpath(s.uri, below) for s in find_sources(inputs).sources]


def test_folders_are_searched_recursively(folder: Path) -> None:
    found = find_sources([folder])
    assert [os.path.relpath(source.uri, folder) for source in found.sources] == [
        "a.wav",
        "b.FLAC",
        "deep/er/c.mp3",
    ]
    assert found.skipped == (str(folder / "notes.txt"),)


def test_globs_and_explicit_names(folder: Path) -> None:
    assert names([str(folder / "*.wav")], folder) == [".hidden.wav", "a.wav"]
    assert names([str(folder / "**/*.mp3")], folder) == ["deep/er/c.mp3"]
    assert names([str(folder / "dee*")], folder) == ["deep/er/c.mp3"]
    # Explicit names are accepted with any suffix, even if the file doesn't exist.
    assert names([folder / "notes.txt", folder / "gone.wav"], folder) == ["notes.txt", "gone.wav"]
    (folder / "[1] take?.wav").write_bytes(b"")
    assert names([str(folder / "[1] take?.wav")], folder) == ["[1] take?.wav"]


def test_sources_are_unique_and_in_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str | Path] = [folder / "b.FLAC", folder, str(folder / "deep" / ".." / "a.wav")]
    assert names(given, folder) == ["b.FLAC", "a.wav", "deep/er/c.mp3"]
    monkeypatch.chdir(folder)
    assert find_sources(["a.wav"]).sources == find_sources([folder / "a.wav"]).sources


def test_a_pattern_without_matches_is_an_error(folder: Path) -> None:
    with pytest.raises(OptionError, match="matches nothing"):
        find_sources([str(folder / "*.ogg")])


def test_manifests_keep_their_columns(folder: Path) -> None:
    csv = folder / "list.csv"
    csv.write_text(
        'filename,label,year,loud,code\na.wav,"say ""hi"", you",1999,0.5,007\n'
        f"{folder / 'b.FLAC'},,,,1\ns3://bucket/c.flac,x,2,1000,2\n",
        encoding="utf-8-sig",
    )
    first, second, third = find_sources([csv]).sources
    assert first == Source(
        str(folder / "a.wav"),
        {"label": 'say "hi", you', "year": 1999, "loud": 0.5, "code": "007"},
    )
    assert second.extra == {"label": None, "year": None, "loud": None, "code": "1"}
    assert (third.uri, third.extra["loud"]) == ("s3://bucket/c.flac", 1000.0)

    lines = folder / "list.jsonl"
    lines.write_text('{"source": "a.wav", "good": true}\n\n{"path": "deep/er/c.mp3"}\n')
    found = find_sources([lines]).sources
    assert [dict(source.extra) for source in found] == [{"good": True}, {}]
    assert found[1].uri == str(folder / "deep/er/c.mp3")
    assert find_sources([{"audio": str(folder / "a.wav"), "x": 1}]).sources[0].extra == {"x": 1}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "label\nx\n", "row 1 names no recording: use a column source, path"),
        ("a.csv", "source\n", "holds no rows"),
        ("a.csv", "source,b\nx,1,2\n", "row 1 is not a row of named columns"),
        ("a.jsonl", '{"source": "x"', "can't be read as a manifest"),
        ("a.jsonl", '["x"]', "row 1 is not a row of named columns"),
        ("a.jsonl", '{"source": "x", "more": [1]}', "column more holds a list: use text"),
        ("a.jsonl", "\xff", "can't be read as a manifest"),
    ],
)
def test_invalid_manifests(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionError, match=message):
        find_sources([tmp_path / name])


def test_remote_uris() -> None:
    memory = fsspec.filesystem("memory")
    for name in ("a.wav", "b/c.ogg", "b/read.me"):
        memory.pipe(f"/music/{name}", name.encode())
    found = find_sources(["memory://music"])
    assert [source.uri for source in found.sources] == [
        "memory:///music/a.wav",
        "memory:///music/b/c.ogg",
    ]
    assert found.skipped == ("memory:///music/b/read.me",)
    assert find_sources(["memory://music/*.wav"]).sources == found.sources[:1]
    (one,) = find_sources(["memory://music/b/read.me"]).sources

    before = found.sources[0].stat()
    assert before[0] == len("a.wav")
    audio = found.sources[0].audio_input()
    assert isinstance(audio, io.BytesIO)
    assert audio.read() == b"a.wav"
    assert hash_source(found.sources[0]) == hashlib.sha256(b"a.wav").hexdigest()
    memory.pipe("/music/a.wav", b"other")
    assert found.sources[0].stat() != before
    memory.rm("/music", recursive=True)
    for access in (one.stat, one.audio_input, lambda: hash_source(one)):
        with pytest.raises(AudioError, match=r"read\.me can't be"):
            access()
    with pytest.raises(OptionError, match="can't be listed"):
        find_sources(["nosuch://x/*.wav"])
    with pytest.raises(OptionError, match="holds nothing"):
        find_sources(["memory://nowhere/*.wav"])


def test_stat_and_hash_of_a_local_file(folder: Path) -> None:
    (source,) = find_sources([folder / "a.wav"]).sources
    size, changed = source.stat()
    assert (size, hash_source(source)) == (5, hashlib.sha256(b"a.wav").hexdigest())
    os.utime(source.uri, ns=(1, 1))
    assert source.stat() == (5, "1") != (size, changed)
    Path(source.uri).unlink()
    for access in (source.stat, lambda: hash_source(source)):
        with pytest.raises(AudioError, match=r"a\.wav can't be (found|read) .*: check it"):
            access()


def test_extra_columns_are_json(folder: Path) -> None:
    """Values of manifest columns can be written as JSON."""
    (source,) = find_sources([{"source": str(folder / "a.wav"), "n": 1, "t": "é"}]).sources
    assert json.loads(json.dumps(dict(source.extra))) == {"n": 1, "t": "é"}

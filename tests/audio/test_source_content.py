"""Content of sources: what is decoded is what was hashed, though the file changes meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from qwen_audio import AudioError, load_waveform
from qwen_audio.audio import source_content
from qwen_audio.audio.source import Source
from qwen_audio.audio.source_content import SourceVersion, hash_source, load_source
from recordings import sound, write_wav

FIRST, SECOND = (write_wav(sound(0.2, 16_000, seed=seed), 16_000) for seed in (1, 2))


def rewrite(path: Path, content: bytes) -> None:
    """Write to the file itself."""
    path.write_bytes(content)


def replace(path: Path, content: bytes) -> None:
    """Put another file in its place."""
    path.with_suffix(".new").write_bytes(content)
    path.with_suffix(".new").replace(path)


def rewrite_in_secret(path: Path, content: bytes) -> None:
    """Write to it, and set the modification time back."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


Change = Callable[[Path, bytes], None]


@pytest.fixture(params=[rewrite, replace, rewrite_in_secret])
def change(request: pytest.FixtureRequest) -> Change:
    """A way to change a file."""
    result: Change = request.param
    return result


@pytest.fixture(params=[True, False], ids=["old", "new"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """A file that was written long ago, or just now."""
    path = tmp_path / "a.wav"
    path.write_bytes(FIRST)
    if request.param:
        os.utime(path, ns=(7, 7))
    return Source(str(path))


def change_while_decoding(
    monkeypatch: pytest.MonkeyPatch, times: int, change: Callable[[int], object]
) -> list[int]:
    """Call `change` between hashing and decoding, so many times; returns these calls."""
    calls: list[int] = []

    def load(audio: Any, **options: Any) -> Any:
        if len(calls) < times:
            calls.append(len(calls))
            change(calls[-1])
        return load_waveform(audio, **options)

    monkeypatch.setattr(source_content, "load_waveform", load)
    return calls


@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_changes_once_is_read_again(
    source: Source, change: Change, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    path = Path(source.path)
    version = SourceVersion(*source.stat(), hash_source(source)) if known else None
    change_while_decoding(monkeypatch, 1, lambda _: change(path, SECOND))
    waveform, loaded = load_source(source, known=version)
    np.testing.assert_array_equal(waveform.samples, load_waveform(SECOND).samples)
    assert loaded.content_hash == hashlib.sha256(SECOND).hexdigest()
    assert (loaded.size_bytes, loaded.modified) == source.stat()


def test_a_file_that_keeps_changing_is_an_error(
    source: Source, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(source.path)
    calls = change_while_decoding(
        monkeypatch, 100, lambda k: change(path, SECOND if k % 2 == 0 else FIRST)
    )
    with pytest.raises(AudioError, match=r"a\.wav changes while it is read: try again when"):
        load_source(source)
    assert len(calls) == 3


def test_a_file_that_is_completed_while_it_is_read(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(source.path)
    path.write_bytes(FIRST[:1000])
    change_while_decoding(monkeypatch, 1, lambda _: path.write_bytes(FIRST))
    assert load_source(source)[1].content_hash == hashlib.sha256(FIRST).hexdigest()
    path.write_bytes(FIRST[:1000])
    with pytest.raises(AudioError, match="truncated"):
        load_source(source)
    path.unlink()
    with pytest.raises(AudioError, match="can't be found"):
        load_source(source)


def test_a_remote_file_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/changing/a.wav", FIRST)
    source = Source("memory:///changing/a.wav")
    change_while_decoding(monkeypatch, 1, lambda _: memory.pipe("/changing/a.wav", SECOND))
    waveform, version = load_source(source)
    np.testing.assert_array_equal(waveform.samples, load_waveform(SECOND).samples)
    assert version.content_hash == hashlib.sha256(SECOND).hexdigest()
    memory.rm("/changing", recursive=True)

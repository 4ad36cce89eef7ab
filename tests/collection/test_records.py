"""Reading recordings of a collection: unchanged ones are not hashed, changed ones are errors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa
from qwen_audio.audio import source_content
from qwen_audio.audio.source import Source
from qwen_audio.collection.collection import Collection
from recordings import sound, write_wav


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of the files that were hashed, in order."""
    hashed: list[str] = []
    original = source_content._hash

    def counted(source: Source, audio: Any) -> str:
        hashed.append(source.uri)
        return original(source, audio)

    monkeypatch.setattr(source_content, "_hash", counted)
    monkeypatch.setattr(source_content, "_CHANGED_RESOLUTION_NS", 0)
    return hashed


def test_playing_an_unchanged_recording_hashes_nothing(tmp_path: Path, hashes: list[str]) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(write_wav(sound(1.0, 16_000), 16_000))
    os.utime(file, ns=(7, 7))  # not just now: such a file might change once more without a trace
    collection = Collection.create(tmp_path / "c.lance", qa.load(), tap="mel")
    collection.index(file)
    assert len(hashes) == 1
    expected = qa.load_waveform(file).samples
    assert (collection.waveform(str(file)).samples == expected).all()
    assert len(hashes) == 1
    os.utime(file, ns=(1, 1))  # the same bytes with another time: only the hash shows it
    assert (collection.waveform(str(file)).samples == expected).all()
    assert len(hashes) == 2
    file.write_bytes(write_wav(sound(1.0, 16_000, seed=3), 16_000))
    with pytest.raises(qa.AudioError, match="has changed since"):
        collection.waveform(str(file))

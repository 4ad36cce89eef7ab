"""Fixtures of the tests of collections."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

import qwen_audio as qa
from collection_helpers import write_recording
from qwen_audio.collection.collection import Collection
from recordings import sound


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> qa.AudioModel:
    """A small checkpoint in float32."""
    return qa.load(checkpoint, dtype="float32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five recordings, one with three windows, one stereo at 44.1 kHz."""
    music = tmp_path / "music"
    for number, name in enumerate(("a.wav", "b.flac", "deep/c.wav")):
        write_recording(music / name, 2.0 + number, number)
    write_recording(music / "long.flac", 25.0, 7)
    stereo = sound(1.5, 44_100, channels=2, seed=9)
    soundfile.write(music / "stereo.wav", stereo.T, 44_100, subtype="FLOAT")
    return music


@pytest.fixture
def collection(tmp_path: Path, folder: Path, model: qa.AudioModel) -> Collection:
    """The five recordings of `folder`, indexed at audio_tower: 7 rows."""
    collection = Collection.create(tmp_path / "music.lance", model, tap="audio_tower")
    collection.index(folder)
    return collection

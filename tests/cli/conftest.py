"""Recordings and collections that the tests of several commands use."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from commands import run
from recordings import sound

RATE = 16_000


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Two recordings, of 1 s and 2 s."""
    folder = tmp_path / "clips"
    folder.mkdir()
    paths = [folder / "one.wav", folder / "two.flac"]
    for seed, path in enumerate(paths):
        soundfile.write(path, sound(1.0 + seed, RATE, seed=seed)[0], RATE)
    return paths


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with two recordings of 2 s."""
    monkeypatch.chdir(tmp_path)
    for seed in range(2):
        soundfile.write(tmp_path / f"{seed}.wav", sound(2.0, RATE, seed=seed)[0], RATE)
    return tmp_path


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """A folder of three recordings, of 2, 3 and 12 s: four windows of at most 10 s."""
    folder = tmp_path / "music"
    folder.mkdir()
    for seed, seconds in enumerate((2.0, 3.0, 12.0)):
        soundfile.write(folder / f"{seed}.wav", sound(seconds, RATE, seed=seed)[0], RATE)
    return folder


@pytest.fixture
def indexed(tmp_path: Path, music: Path, checkpoint: Path) -> Path:
    """A collection of `music` at lm.1."""
    into = tmp_path / "music.lance"
    done = run("index", music, "-o", into, "--tap", "lm.1", "--model", checkpoint)
    assert (done.returncode, done.stderr) == (0, "")
    return into

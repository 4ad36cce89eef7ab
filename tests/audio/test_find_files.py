"""`find_files`: what a folder, a pattern and a manifest hold, by names that are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import qwen_audio as qa


@pytest.fixture
def music(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder music in the working directory: c.wav, a.wav, b/d.flac and notes.txt."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music" / "b").mkdir(parents=True)
    for name in ("c.wav", "a.wav", "b/d.flac", "notes.txt"):
        (tmp_path / "music" / name).write_bytes(b"RIFF")
    (tmp_path / "list.csv").write_text("file,mood\nmusic/c.wav,calm\nmusic/a.wav,loud\n")
    return tmp_path / "music"


def test_each_recording_once_and_relative_where_the_input_is(music: Path) -> None:
    everything = ["music/a.wav", "music/b/d.flac", "music/c.wav"]
    assert qa.find_files("music") == qa.find_files(Path("music/")) == everything
    assert qa.find_files("music/*.wav") == ["music/a.wav", "music/c.wav"]
    assert qa.find_files("**/*.flac") == ["music/b/d.flac"]
    assert qa.find_files("list.csv") == ["music/c.wav", "music/a.wav"]  # in the order of its rows
    assert qa.find_files(["music/c.wav", music / "b", "music"]) == [
        "music/c.wav",
        str(music / "b" / "d.flac"),
        "music/a.wav",
    ]
    assert qa.find_files([]) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("gone", "gone doesn't exist: check the path"),
        (["music", "gone.wav"], "gone.wav doesn't exist"),
        ("*.ogg", "*.ogg matches nothing"),
        ("music/notes.csv", "doesn't exist"),
        ("empty", "empty holds no audio"),
        (5, "5 names no files: give a folder, a pattern"),
        ([b"music"], "b'music' names no files"),
    ],
    ids=str,
)
def test_what_names_nothing(inputs: Any, message: str, music: Path) -> None:
    (music.parent / "empty").mkdir()
    with pytest.raises(qa.OptionError) as raised:
        qa.find_files(inputs)
    assert message in str(raised.value)


def test_linked_folders_are_named(music: Path) -> None:
    (music / "far").symlink_to(music.parent, target_is_directory=True)
    with pytest.warns(qa.AudioWarning, match="music/far$"):
        assert len(qa.find_files("music")) == 3
    assert len(qa.find_files("music/b", follow_links=True)) == 1


@pytest.mark.parametrize("name", ["music", "music/*.wav", "music/[ab].ogg"])
def test_what_is_no_recording_says_how_to_list(name: str, music: Path) -> None:
    with pytest.raises(qa.AudioError, match=r"qwen_audio\.find_files lists"):
        qa.load_waveform(name)

"""Inputs of commands: what files, folders, globs, manifests and lists name, once for all."""

from __future__ import annotations

import argparse
import io
import json
import os
from pathlib import Path

import pytest

import qwen_audio as qa
from commands import run
from qwen_audio.cli.inputs import find_inputs, resolve_files
from qwen_audio.errors import OptionError


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: music/{a.wav,b/c.flac,notes.txt}, a link to it, lists, a manifest."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "music" / "b").mkdir(parents=True)
    for name in ("a.wav", "b/c.flac", "notes.txt"):
        (tmp_path / "music" / name).write_bytes(b"RIFF")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "far").symlink_to(tmp_path / "music", target_is_directory=True)
    (tmp_path / "music" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_bytes(b"music/a.wav\r\n\nmusic/gone.wav\n")
    (tmp_path / "list.csv").write_text("source,mood\nmusic/a.wav,calm\n")
    return tmp_path


def options(
    *inputs: str, lists: list[str] | None = None, links: bool = False
) -> argparse.Namespace:
    return argparse.Namespace(
        inputs=list(inputs), from_file=lists, follow_links=links, parser=argparse.ArgumentParser()
    )


@pytest.mark.parametrize(
    ("inputs", "files"),
    [
        (["music/b/c.flac", "-"], ["music/b/c.flac", "-"]),
        (["music"], ["music/a.wav", "music/b/c.flac"]),
        (["./music/b"], ["music/b/c.flac"]),
        (["music/*.wav", "music"], ["music/a.wav", "music/b/c.flac"]),  # each once
        (["list.csv"], ["music/a.wav"]),
        (["@list.txt"], ["music/a.wav", "music/gone.wav"]),  # which fails by name, in its turn
        (["music/a.wav", "gone.wav"], ["music/a.wav", "gone.wav"]),
        (["music/notes.txt"], ["music/notes.txt"]),  # named, so not skipped
    ],
    ids=str,
)
def test_names_of_files(inputs: list[str], files: list[str], place: Path) -> None:
    assert resolve_files(options(*inputs)) == files


@pytest.mark.parametrize("links", [False, True])
def test_python_lists_the_same_files(links: bool, place: Path) -> None:
    (place / "music" / "loop").unlink()
    for name in ("music", "./music/b", "**/*.wav", "list.csv", "music/notes.txt", str(place)):
        if links or name != str(place):  # which has a link: a warning
            listed = resolve_files(options(name, links=links))
            assert qa.find_files(name, follow_links=links) == listed


def test_absolute_inputs_stay_absolute(place: Path) -> None:
    assert resolve_files(options(str(place / "music"))) == [
        str(place / "music" / "a.wav"),
        str(place / "music" / "b" / "c.flac"),
    ]


def test_linked_folders(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="linked holds no audio"):
        resolve_files(options("linked"))
    assert "skipped (linked folders, see --follow-links): " in capsys.readouterr().err
    followed = resolve_files(options("linked", links=True))  # and a link back ends there
    assert followed == ["linked/far/a.wav", "linked/far/b/c.flac"]


def test_a_list_from_standard_input(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = io.TextIOWrapper(io.BytesIO(b"music/caf\xe9[1].wav\n-\n@x\nmusic\n"))
    monkeypatch.setattr("sys.stdin", names)
    files = resolve_files(options(lists=["-"]))
    assert [os.fsencode(file) for file in files[:3]] == [b"music/caf\xe9[1].wav", b"./-", b"@x"]
    assert files[3:] == ["music/a.wav", "music/b/c.flac"]


@pytest.mark.parametrize(
    ("inputs", "lists", "message"),
    [
        (["-", "-"], None, "standard input can be read only once"),
        (["-"], ["-"], "standard input can be read only once"),
        (["@none.txt"], None, "@none.txt can't be read"),
        ([], ["empty"], "--from-file empty can't be read"),
        (["*.ogg"], None, "matches nothing"),
    ],
)
def test_what_names_nothing(
    inputs: list[str], lists: list[str] | None, message: str, place: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        resolve_files(options(*inputs, lists=lists))


def test_every_empty_input_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "music" / "b" / "c.flac").unlink()
    some = options("empty", "music/b", "music")
    assert resolve_files(some) == ["music/a.wav"]
    assert some.is_incomplete
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "skipped (not audio)",
        "skipped (linked folders, see --follow-links)",
        "empty holds no audio",
        "music/b holds no audio",
    ]


def test_sources_of_a_collection_have_the_columns_of_manifests(place: Path) -> None:
    listing = find_inputs(options("list.csv", "music", "@list.txt"))
    assert [Path(source.uri).name for source in listing.sources] == ["a.wav", "c.flac", "gone.wav"]
    assert listing.sources[0].extra == {"mood": "calm"}
    with pytest.raises(OptionError, match="- can't be indexed"):
        find_inputs(options("-"))


def test_no_inputs_are_an_error_of_usage(place: Path) -> None:
    done = run("inspect")
    assert done.returncode == 2
    assert "required: INPUT" in done.stderr


COMMANDS = ("describe", "encode -o x.npz", "inspect", "lens", "plot", "compare", "index -o x.lance")


@pytest.mark.parametrize("command", [*COMMANDS, "parity"])
def test_every_command_takes_the_same_inputs(command: str, place: Path) -> None:
    done = run(*command.split(), "empty", "music/b/*.ogg")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "qwen-audio: music/b/*.ogg matches nothing: check the pattern\n"
    done = run(*command.split(), "empty", "--from-file", "none.txt")
    assert "--from-file none.txt can't be read" in done.stderr


@pytest.mark.slow
def test_an_empty_input_makes_the_exit_status_1(folder: Path) -> None:
    (folder / "none").mkdir()
    done = run("inspect", "--json", "--quiet", "0.wav", "none")
    assert done.returncode == 1
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 1
    assert done.stderr.splitlines() == [
        "qwen-audio: none holds no audio: give recordings, or folders of them"
    ]

"""Options about files that commands share: audio tracks and damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from commands import run
from ffmpeg import run_ffmpeg
from qwen_audio.collection import map_audio
from recordings import encode, sound, write_wav

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two audio tracks: a second of a chord, and half a second of another."""
    folder = tmp_path_factory.mktemp("film")
    for name, seconds in (("a", 1.0), ("b", 0.5)):
        samples = sound(seconds, 16_000, seed=ord(name))
        (folder / f"{name}.wav").write_bytes(write_wav(samples, 16_000))
    inputs = ["-i", str(folder / "a.wav"), "-i", str(folder / "b.wav")]
    run_ffmpeg(*inputs, "-map", "0:a", "-map", "1:a", "-c:a", "flac", folder / "film.mkv")
    return folder / "film.mkv"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds, of which the last is cut off."""
    data = encode(sound(2.0, 48_000), 48_000, "flac")
    path = tmp_path_factory.mktemp("damaged") / "cut.flac"
    path.write_bytes(data[: len(data) // 2])
    return path


def test_inspect_lists_tracks(film: Path) -> None:
    done = run("inspect", film)
    assert "audio track 0 (flac, 16000 Hz × 1) (used)" in done.stdout
    assert "audio track 1 (flac, 16000 Hz × 1)\n" in done.stdout
    assert f"qwen-audio: {film}: 2 audio tracks, of which 0 was used" in done.stderr
    trace = json.loads(run("inspect", film, "--track", "1", "--json").stdout)
    assert (trace["track"], trace["duration_seconds"], len(trace["tracks"])) == (1, 0.5, 2)
    assert "inspect --track" not in run("inspect", film, "--track", "1").stderr


def test_describe_and_encode_a_track(film: Path, tmp_path: Path) -> None:
    described = run("describe", film, "--track", "1", "--json")
    answer = json.loads(described.stdout)
    assert answer["text"] == qa.load().describe(film.parent / "b.wav")
    assert answer["notes"][0].startswith(f"{film}: 2 audio tracks, of which 1 was used")
    assert "audio tracks" not in described.stderr  # it was chosen
    assert "2 audio tracks, of which 0" in run("describe", film).stderr
    output = tmp_path / "vectors.npz"
    done = run("encode", film, "--track", "1", "-o", output, "--json")
    assert json.loads(done.stdout)["spec"]["track"] == 1
    np.testing.assert_array_equal(
        np.load(output)["vectors"][0], qa.load().encode(film.parent / "b.wav")
    )


@pytest.mark.parametrize("command", ["describe", "inspect", "lens"])
def test_a_track_that_does_not_exist(command: str, film: Path) -> None:
    done = run(command, film, "--track", "2")
    assert done.returncode == 1
    assert "--track 2" in done.stderr.splitlines()[-1]
    assert "0 (flac, 16000 Hz × 1), 1 (flac, 16000 Hz × 1)" in done.stderr
    done = run(command, film, "--track", "-1")
    assert "--track -1: use a whole number from 0" in done.stderr


def test_a_collection_of_a_track(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = qa.load()
    collection = qa.Collection.create(tmp_path / "track.lance", model, track=1)
    assert collection.spec.track == 1
    assert collection.spec.fingerprint != model.spec(window_seconds=10).fingerprint
    collection.index(film)
    assert [row["duration_seconds"] for row in collection.recordings()] == [0.5]
    assert collection.waveform(str(film)).duration_seconds == 0.5
    assert collection.verify().problems == ()
    lengths: list[int] = []

    def encode(samples: Any) -> bytes:
        lengths.append(len(samples))
        return b""

    monkeypatch.setattr(map_audio, "encode_opus", encode)
    collection.map().to_html(audio="embed")
    assert lengths == [8000]
    (hit,) = collection.search(film.parent / "b.wav")  # a file of one track
    assert hit.score > 0.999
    done = run("index", film, "-o", tmp_path / "track.lance")
    assert done.returncode == 0
    assert "1 unchanged" in done.stdout
    done = run("index", film, "-o", tmp_path / "track.lance", "--track", "0")
    assert done.returncode == 1
    assert "track" in done.stderr


def test_damaged_files_in_part(damaged: Path, tmp_path: Path) -> None:
    done = run("describe", damaged)
    assert done.returncode == 1
    assert "--on-damage partial for what there is" in done.stderr
    done = run("describe", damaged, "--on-damage", "partial", "--json")
    assert done.returncode == 0
    answer: dict[str, Any] = json.loads(done.stdout)
    assert len(answer["notes"]) == 1
    assert "s is missing at the end of the file" in answer["notes"][0]
    assert done.stderr.count("is missing at the end of the file") == 1
    for command in (["lens"], ["inspect"], ["encode", "-o", tmp_path / "out.npz"]):
        done = run(*command, damaged, "--on-damage", "partial")
        assert done.returncode == 0, done.stderr
        assert "is missing at the end of the file" in done.stderr

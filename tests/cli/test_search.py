"""`qwen-audio search`: windows by audio, id and caption."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import run


@pytest.mark.slow
def test_search_by_audio_and_id(indexed: Path, music: Path) -> None:
    results = run("search", indexed, "--audio", music / "1.wav", "--limit", "2")
    first, _ = results.stdout.splitlines()
    assert first == f"1.000  {music / '1.wav'} at 0:00–0:03"
    row = json.loads(
        run("search", indexed, "--id", f"{music / '2.wav'}#1", "--json", "--limit", "1").stdout
    )
    assert {"id", "score", "source", "start_seconds", "indexed_at"} <= row.keys()
    assert "vector" not in row
    command = ("search", indexed, "--audio", music / "1.wav", "--where", "duration_seconds > 99")
    nothing = "qwen-audio: nothing found among 4 windows\n"
    assert run(*command) == (0, "", nothing)
    assert run(*command, "--json") == (0, "[]\n", nothing)


@pytest.mark.parametrize(
    ("collection", "message"), [("none.lance", "no such collection"), ("none", "ends in .lance")]
)
def test_errors_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collection: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("search", collection, "--id", "x")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(tmp_path.iterdir())

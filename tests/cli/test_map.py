"""`qwen-audio map`: the page it writes, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile

from commands import run
from recordings import sound

RATE = 16_000


@pytest.mark.slow
def test_missing_recordings_are_named(tmp_path: Path) -> None:
    for seed in range(2):
        soundfile.write(tmp_path / f"{seed}.wav", sound(2.0, RATE, seed=seed)[0], RATE)
    into = tmp_path / "m.lance"
    assert run("index", tmp_path / "0.wav", tmp_path / "1.wav", "-o", into).returncode == 0
    (tmp_path / "0.wav").unlink()
    done = run("map", into, "-o", tmp_path / "m.html", "--json")
    assert done.returncode == 1
    assert "0.wav" in done.stderr
    assert json.loads(done.stdout)["method"] == "pca"
    assert (tmp_path / "m.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.lance",), "no such collection"),
        (("none.lance", "-o", "a.png"), "use .html"),
    ],
)
def test_errors_are_one_line_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("map", *arguments)
    line = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("qwen-audio: ")
    assert message in line
    assert not list(tmp_path.iterdir())

"""`qwen-audio occlude`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import run


@pytest.mark.slow
def test_the_command(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    options = ("--model", checkpoint, "--prompt", "What?", "--answer", "a", "--answer", "b")
    picture = tmp_path / "map.png"
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    done = run("occlude", clips[0], *options, "-o", picture)
    assert done.returncode == 0
    assert "log P('a') − log P('b') is " in done.stdout
    assert picture.stat().st_size > 10_000
    for suffix in (".csv", ".json", ".npz", ".html"):
        assert run("occlude", clips[0], *options, "-o", tmp_path / f"map{suffix}").returncode == 0
    rows = json.loads((tmp_path / "map.json").read_text(encoding="utf-8"))["rows"]
    assert [row["start_seconds"] for row in rows] == [0, 0.25, 0.5]
    both = run("occlude", clips[0], bad, *options, "--json")
    assert both.returncode == 1
    assert json.loads(both.stdout)["answers"] == ["a", "b"]
    assert "1 of 2 files failed" in both.stderr

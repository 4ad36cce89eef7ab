"""`qwen-audio ablate`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from commands import run


@pytest.mark.slow
def test_the_command(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound")
    table = tmp_path / "ablation.csv"
    options = ("--model", checkpoint, "--prompt", "What?", "--answer", "a", "--answer", "b")
    done = run("ablate", *clips, bad, *options, "-o", table)
    assert done.returncode == 1
    assert "1 of 3 files failed" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert "the sound" in lines[0] or "unclear" in lines[0]
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["source"] for row in rows} == {str(clip) for clip in clips}
    printed = json.loads(run("ablate", clips[0], *options, "--json").stdout)
    assert len(printed["others"]) == 3
    assert printed["verdict"] in ("depends on the sound", "ignores the sound", "unclear")

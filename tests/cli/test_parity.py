"""`qwen-audio parity`: the report as table and file, and its exit status."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import soundfile

import qwen_audio as qa
from commands import run
from qwen_audio.api.parity import ParityReport
from qwen_audio.models.families.qwen2_audio import Qwen2Audio
from reference import sound


@pytest.mark.slow
def test_a_table_is_shown_and_saved(checkpoint: Path, tmp_path: Path) -> None:
    clip, output = tmp_path / "clip.wav", tmp_path / "out.json"
    soundfile.write(clip, sound(0.8), 16_000)
    options: list[str | Path] = ["--dtype", "float32", clip, "-o", output]
    code, table, err = run("parity", "--model", checkpoint, *options)
    assert (code, err) == (0, "")
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert saved["holds"] is True
    assert [tap["tap"] for tap in saved["taps"]] == [str(tap) for tap in qa.load(checkpoint).taps]
    for word in ("encoder.2", "lm.norm", "lowest cosine", "largest relative error", str(output)):
        assert word in table
    assert "Equal within" in table
    assert "clip.wav, 0.80 s" in table
    code, line, _ = run("parity", "--model", checkpoint, *options, "--json")
    assert json.loads(line) == json.loads(output.read_text(encoding="utf-8"))
    fields = {field.name for field in dataclasses.fields(ParityReport)}
    assert set(json.loads(line)) == fields | {"holds"}


@pytest.mark.slow
def test_what_does_not_hold_is_a_status(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Positions shifted by one row.
    stem = Qwen2Audio.stem
    monkeypatch.setattr(Qwen2Audio, "stem", lambda *arguments: stem(*arguments).roll(1, 0))
    output = tmp_path / "out.json"
    code, table, _ = run("parity", "--model", checkpoint, "--dtype", "float32", "-o", output)
    assert code == 1
    assert "NOT EQUAL" in table
    assert json.loads(output.read_text(encoding="utf-8"))["holds"] is False


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/out.json", "can't be written"),
        (".", "can't be written"),
        ("/proc/out.json", "can't be written"),
    ],
)
def test_where_nothing_can_be_saved(
    output: str, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, sound(0.2), 16_000)
    code, out, err = run("parity", "--model", checkpoint, clip, "-o", tmp_path / output)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clip.wav"]

"""`qwen-audio inspect`: the counts of a shape trace as JSON and as tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import soundfile

from commands import run
from reference import sound


@pytest.mark.slow
def test_inspect_of_30_seconds(tmp_path: Path) -> None:
    clip = tmp_path / "half a minute.wav"
    soundfile.write(clip, sound(30.0), 16_000)
    done = run("inspect", clip, "--prompt", "Describe the music:", "--json")
    story: dict[str, Any] = json.loads(done.stdout)
    (window,) = story["windows"]
    assert (window["prompt_tokens"], window["positions"]) == (6, 756)
    assert (story["mel_bins"], window["mel_frames"]) == (80, 3000)
    assert (window["encoder_frames"], window["audio_tokens"]) == (1500, 750)
    table = run("inspect", clip).stdout
    for cell in ("80 × 3000", "1500", "750", "6", "756", "audio_tower", "lm.0", "lm.norm"):
        assert re.search(rf"(^|\s){re.escape(cell)}(\s|$)", table, re.M), cell

"""`qwen-audio trace`: its picture, numbers and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from commands import run


@pytest.mark.slow
def test_a_picture_and_the_numbers(folder: Path, checkpoint: Path) -> None:
    options: list[str | Path] = ["--model", checkpoint, "--dtype", "float32", "--tap", "lm.1"]
    options += ["--answer", "Drums play.", "--answer", "A flute leads.", "--seconds", "1"]
    answers = ["Drums play.", "A flute leads."]
    model = qa.load(checkpoint, dtype="float32")
    expected = model.trace("0.wav", "1.wav", answers=answers, taps=["lm.1"], seconds=1.0)
    done = run("trace", "0.wav", "1.wav", *options, "-o", "t.npz", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["answers"] == answers
    assert row["positions"] == dict(zip(expected.spans, expected.positions, strict=True))
    np.testing.assert_allclose(np.load("t.npz")["share"], expected.share, atol=1e-4)
    done = run("trace", "0.wav", "1.wav", *options, "-o", "t.png")
    assert done.stdout.startswith("t.png: log p('Drums play.') − log p('A flute leads.') goes from")
    assert (folder / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0.wav",), "trace takes two different recordings"),
        (("0.wav", "1.wav", "--answer", "a"), "give --answer twice, or not at all"),
        (("0.wav", "1.wav", "--span", "x"), "span 'x': use audio"),
        (("0.wav", "1.wav", "--seconds", "9"), "--seconds 9, but"),
        (("0.wav", "1.wav", "-o", "t.gif"), "the suffix decides the format"),
    ],
)
def test_errors_are_one_line(
    folder: Path, checkpoint: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("trace", *arguments, "--model", checkpoint)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(folder.glob("t*"))

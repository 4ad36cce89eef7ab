"""`qwen-audio compare`: its picture, numbers and output."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import qwen_audio as qa
from commands import run


@pytest.mark.slow
def test_a_picture_and_the_numbers(clips: list[Path], checkpoint: Path, tmp_path: Path) -> None:
    options: list[str | Path] = [
        "--model",
        checkpoint,
        "--dtype",
        "float32",
        "--tap",
        "mel",
        "--tap",
        "lm.1",
    ]
    expected = qa.load(checkpoint, dtype="float32").compare(*clips[:2], taps=["mel", "lm.1"])
    done = run("compare", *clips[:2], *options, "-o", tmp_path / "c.npz", "--json")
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    assert row["names"] == [str(clip) for clip in clips[:2]]
    np.testing.assert_allclose(list(row["overall"].values()), expected.overall, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "c.npz")["by_time"], expected.by_time, atol=1e-5)
    done = run("compare", *clips[:2], *options, "-o", tmp_path / "c.png")
    assert done.stdout.startswith(f"{tmp_path / 'c.png'}: cosine of the means at mel ")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")

    options += ["--metric", "centred_cosine", "--alignment", "dtw", "--alignment-tap", "mel"]
    expected = qa.load(checkpoint, dtype="float32").compare(
        *clips[:2],
        taps=["mel", "lm.1"],
        metric="centred_cosine",
        alignment="dtw",
        alignment_tap="mel",
    )
    done = run("compare", *clips[:2], *options, "-o", tmp_path / "d.npz")
    assert done.stdout.startswith(f"{tmp_path / 'd.npz'}: centred cosine over time at mel ")
    saved = np.load(tmp_path / "d.npz")
    np.testing.assert_allclose(saved["by_time"], expected.by_time, atol=1e-5)
    np.testing.assert_allclose(saved["path_seconds"], np.asarray(expected.path_seconds))
    done = run("compare", *clips[:2], "--alignment-tap", "mel")
    assert "--alignment-tap does nothing without --alignment dtw" in done.stderr

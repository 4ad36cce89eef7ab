"""Music Flamingo: rotary time embeddings, and how it is told from Audio Flamingo 3."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qwen_audio as qa
from checkpoints import edit_json
from families import CASES
from qwen_audio.models.registry import family_entry
from reference import relative_error, sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("music_flamingo")
    CASES["musicflamingo"].write(path)
    return path


def test_angles_stay_in_float32(folder: Path) -> None:
    """In 16 bits, angles of 200 radians would be off by up to half a radian."""
    model = qa.load(folder, dtype="bfloat16")
    family: Any = model.pipeline.checkpoint.family
    model.encode(sound(1.0), tap="audio_tower", sampling_rate=16_000)
    assert {buffer.dtype for buffer in family._time_embedding.buffers()} == {torch.float32}
    fresh: Any = qa.load(folder, dtype="float32").pipeline.checkpoint.family
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(750, 32))).bfloat16()
    rotated = family._rotated(rows, 1)
    assert rotated.dtype == torch.bfloat16
    expected = fresh._rotated(rows.float(), 1)
    assert relative_error(rotated.float().numpy(), expected.numpy()) < 2**-8


def test_rows_are_rotated_by_chunk_and_time_in_the_window(folder: Path) -> None:
    model = qa.load(folder, dtype="float32")
    family: Any = model.pipeline.checkpoint.family
    first, second = (family._rotated(torch.ones(750, 32), k).numpy() for k in (0, 1))
    np.testing.assert_array_equal(first[0], 1)  # at 0 s there is no rotation
    assert np.abs(first[1:, 0] - second[1:, 0]).max() > 0.01
    np.testing.assert_array_equal(first[:, 12:], 1)  # 2 × a fifth of the width is rotated
    # Every window begins at 0 s, wherever it is in the recording.
    clip = np.tile(sound(2.0), 2)
    rows = model.encode(
        clip, tap="audio_tower", pooling="none", window_seconds=2, sampling_rate=16_000
    )
    np.testing.assert_allclose(rows[: len(rows) // 2], rows[len(rows) // 2 :], atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "architecture", "title"),
    [
        ("audioflamingo3", "MusicFlamingo", "Music Flamingo"),
        ("audioflamingo3", "AudioFlamingo3", "Audio Flamingo 3"),
        ("audioflamingo3", None, "Audio Flamingo 3"),
        ("musicflamingo", None, "Music Flamingo"),
    ],
)
def test_the_architecture_decides(model_type: str, architecture: str | None, title: str) -> None:
    """The hub tags checkpoints of both as `audioflamingo3`."""
    names = [f"{architecture}ForConditionalGeneration"] if architecture else None
    settings = {"model_type": model_type, "architectures": names}
    assert family_entry(settings, "x").title == title


def test_a_checkpoint_with_the_other_tag_gives_the_same(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    edit_json(copy / "config.json", model_type="audioflamingo3")
    assert json.loads((copy / "config.json").read_text())["model_type"] == "audioflamingo3"
    clip = sound(1.0)
    one, other = (
        qa.load(path, dtype="float32").encode(clip, tap="audio_tower", sampling_rate=16_000)
        for path in (folder, copy)
    )
    np.testing.assert_array_equal(one, other)

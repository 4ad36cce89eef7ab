"""Layer similarity: CKA over the same segments at every tap, options, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.analysis.similarity import cka_matrix
from reference import sound

RATE: dict[str, Any] = {"sampling_rate": 16_000}


@pytest.mark.slow
def test_layers_are_compared_over_the_same_segments(embedded: qa.AudioModel) -> None:
    clips = [sound(2.5, seed) for seed in range(3)]
    taps = ["mel", "encoder.1", "projector", "lm.0", "lm.2"]
    layers = embedded.layer_similarity(clips, taps=taps, **RATE)
    assert layers.taps == tuple(taps)
    assert layers.examples == 3 * 62
    np.testing.assert_allclose(np.diag(layers.similarity), 1, atol=1e-5)
    assert layers.similarity[2, 3] == pytest.approx(1, abs=1e-4)  # audio is merged as it is
    frames = embedded.activations(clips, taps=taps, **RATE)
    mel = np.concatenate([f["mel"].data[:248].reshape(62, 4, -1).mean(1) for f in frames])
    audio = np.concatenate([f["lm.2"].data[f["lm.2"].indices("audio")] for f in frames])
    assert layers.similarity[0, 4] == pytest.approx(cka_matrix([mel, audio])[0, 1], abs=1e-3)
    few = embedded.layer_similarity(clips, taps=taps, examples=30, **RATE)
    assert few.examples == 30


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 3}, "examples=3"),
        ({"taps": ["mel"]}, "two or more"),
        ({"prompt": "What?", "taps": ["mel", "encoder.1"]}, "only the language model"),
    ],
)
def test_invalid_layer_similarity_options(
    embedded: qa.AudioModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(qa.OptionError, match=message):
        embedded.layer_similarity([sound(1.0)], **options, **RATE)


def test_layer_similarity_takes_a_list_and_enough_examples(embedded: qa.AudioModel) -> None:
    with pytest.raises(qa.OptionError, match="a list of recordings"):
        embedded.layer_similarity([])
    with pytest.raises(qa.OptionError, match="give examples=26 or more"):
        embedded.layer_similarity([sound(13.0)], examples=16, window_seconds=1.0, **RATE)


def test_layer_similarity_is_saved(embedded: qa.AudioModel, tmp_path: Path) -> None:
    layers = embedded.layer_similarity([sound(2.0)], taps=["mel", "lm.0"], **RATE)
    saved = json.loads(layers.save(tmp_path / "layers.json").read_text(encoding="utf-8"))
    assert saved["rows"][0]["mel"] == 1.0

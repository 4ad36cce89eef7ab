"""Captured recordings: outputs and captions from one pass of the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.audio.window import WindowConfig
from qwen_audio.inference.encoder import AudioEncoder
from qwen_audio.inference.pooling import Pooling
from qwen_audio.inference.reader import capture_recordings
from reference import sound

CLIPS = [qa.load_waveform(sound(seconds, 1), sampling_rate=16_000) for seconds in (3.3, 0.7)]


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["mel", "encoder.1", "audio_tower", "projector", "lm.2"])
def test_captions_do_not_encode_a_window_twice(tap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors equal those without captions, captions equal `describe`'s, bit for bit."""
    model = qa.load(dtype="float32")
    vectors = model.encode(CLIPS, tap=tap, window_seconds=2.0)
    descriptions = model.describe(CLIPS, window_seconds=2.0)
    frames: list[int] = []
    forward = AudioEncoder.forward

    def counted(encoder: Any, mels: Any, *rest: Any) -> Any:
        frames.extend(mel.valid_frames for mel in mels)
        return forward(encoder, mels, *rest)

    monkeypatch.setattr(AudioEncoder, "forward", counted)
    pooling, resolved = Pooling(), model.dimensions.tap(tap)
    render = model.pipeline.tokenizer.render
    recordings = capture_recordings(
        model.pipeline,
        CLIPS,
        [resolved],
        pooling.pool_window,
        prompt_text=render(None) if resolved.in_language_model else None,
        window_config=WindowConfig(2.0),
        caption_prompt=render(None),
    )
    for captured, vector, text in zip(recordings, vectors, descriptions, strict=True):
        assert not isinstance(captured, qa.AudioError)
        found = pooling.combine([output[resolved] for output in captured.outputs])
        np.testing.assert_array_equal(found, vector)
        assert captured.captions == tuple(answer.text for answer in text.answers)
    assert sum(frames) == 330 + 70

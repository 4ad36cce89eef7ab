"""Opus: what is encoded can be decoded."""

from __future__ import annotations

import numpy as np
import pytest

import qwen_audio as qa
from qwen_audio.audio.opus import encode_opus

RATE = 16_000


def test_opus_round_trip() -> None:
    clip = (0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    content = encode_opus(clip)
    assert len(content) < 8_000
    assert encode_opus(clip) == content
    decoded = qa.load_waveform(content)
    assert decoded.duration_seconds == pytest.approx(1, abs=0.03)
    spectrum = np.abs(np.fft.rfft(decoded.samples[:RATE]))
    assert abs(np.argmax(spectrum) * RATE / len(decoded.samples[:RATE]) - 440) < 5

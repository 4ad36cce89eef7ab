"""Arrays → what the page draws: bytes in base64, scaled to what an eye and a screen can tell."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ

__all__ = ["image", "picture_of", "sound_of"]


def sound_of(samples: Float32[np.ndarray, "samples"]) -> str:
    """A WAV file of 16 bits at 16 kHz: what the model hears, for the browser to play."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    opened = io.BytesIO()
    with wave.open(opened, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
    return base64.b64encode(opened.getvalue()).decode()


def image(
    values: Float32[np.ndarray, "columns rows"], low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """A matrix as bytes: 0 is `low`, 255 is `high` (the smallest and the largest unless given).

    The page paints columns from left to right, and the first row at the bottom.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    data = np.ascontiguousarray((255 * scaled).astype(np.uint8))
    return {
        "columns": values.shape[0],
        "rows": values.shape[1],
        "low": low,
        "high": high,
        "bytes": base64.b64encode(data.data).decode(),
    }


def picture_of(colours: Float32[np.ndarray, "columns 3"]) -> dict[str, Any]:
    """A row of colours."""
    data = np.ascontiguousarray((255 * np.clip(colours, 0, 1)).astype(np.uint8))
    return {
        "columns": colours.shape[0],
        "rows": 1,
        "colours": base64.b64encode(data.data).decode(),
    }

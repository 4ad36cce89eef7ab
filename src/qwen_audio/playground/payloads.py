"""JSON payloads for the page: base64 WAV audio and 8-bit images."""

from __future__ import annotations

import base64
import io
import wave
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from qwen_audio.audio.waveform import SAMPLE_RATE_HZ

__all__ = ["colour_strip", "float_array", "heat_map", "wav_base64", "wav_bytes"]


def wav_base64(samples: Float32[np.ndarray, "samples"]) -> str:
    """The samples as a 16-bit mono WAV file at 16 kHz, in base64."""
    return base64.b64encode(wav_bytes(samples)).decode()


def wav_bytes(samples: Float32[np.ndarray, "samples"]) -> bytes:
    """The samples as a 16-bit mono WAV file at 16 kHz."""
    pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()


def heat_map(
    values: Float32[np.ndarray, "columns rows"], low: float | None = None, high: float | None = None
) -> dict[str, Any]:
    """A matrix scaled to bytes: 0 is `low` (default: the minimum), 255 is `high` (the maximum).

    The page paints columns from left to right, with the first row at the bottom.
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


def float_array(values: Float[np.ndarray, "..."], *, half: bool = False) -> dict[str, Any]:
    """Numbers as they are, row by row, in base64: float32, or in half the bytes float16.

    Float16 has three significant digits; numbers beyond its range become its largest, 65504.
    """
    limit = float(np.finfo(np.float16).max)
    data = np.clip(values, -limit, limit).astype("<f2") if half else values.astype("<f4")
    encoded = base64.b64encode(np.ascontiguousarray(data).data).decode()
    return {"shape": list(values.shape), "float16" if half else "float32": encoded}


def colour_strip(colours: Float32[np.ndarray, "columns 3"]) -> dict[str, Any]:
    """One row of RGB colours, given from 0 to 1, as bytes."""
    data = np.ascontiguousarray((255 * np.clip(colours, 0, 1)).astype(np.uint8))
    return {
        "columns": colours.shape[0],
        "rows": 1,
        "colours": base64.b64encode(data.data).decode(),
    }

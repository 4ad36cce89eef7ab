"""Streaming resampling to 16 kHz with soxr."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import soxr
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ

__all__ = ["resample"]


def resample(
    chunks: Iterable[Float32[np.ndarray, "chunk"]], rate_hz: float
) -> Float32[np.ndarray, "samples"]:
    """Consecutive chunks of mono samples at `rate_hz` → all of them at 16 kHz (soxr's HQ quality).

    Works chunk by chunk, so that an hour at 96 kHz is never in memory at once. The length is
    ceil(samples × 16000 / rate_hz), as librosa's. At 16 kHz the samples are returned unchanged.
    """
    stream: soxr.ResampleStream | None = None
    resampled: list[np.ndarray] = []
    samples_read = 0
    for chunk in chunks:
        samples_read += chunk.size
        if rate_hz == SAMPLE_RATE_HZ:
            resampled.append(chunk)
            continue
        stream = stream or soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
        resampled.append(stream.resample_chunk(chunk))
    if stream is None:
        return np.concatenate([*resampled, np.zeros(0, np.float32)])
    resampled.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(resampled)
    missing = math.ceil(samples_read * SAMPLE_RATE_HZ / rate_hz) - samples.size
    return np.pad(samples, (0, missing)) if missing > 0 else samples[: samples.size + missing]

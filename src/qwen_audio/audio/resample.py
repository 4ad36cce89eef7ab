"""Streaming resampling to 16 kHz with soxr."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import soxr
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ

__all__ = ["resample", "resampled"]


def resampled(
    chunks: Iterable[Float32[np.ndarray, "chunk"]], rate_hz: float
) -> Iterator[Float32[np.ndarray, "part"]]:
    """Consecutive chunks of mono samples at `rate_hz` → chunks at 16 kHz (soxr's HQ quality).

    Together their length is ceil(samples × 16000 / rate_hz), as librosa's. At 16 kHz the samples
    are unchanged.
    """
    if rate_hz == SAMPLE_RATE_HZ:
        yield from chunks
        return
    stream = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
    samples_read = samples_given = 0
    for chunk in chunks:
        samples_read += chunk.size
        part = stream.resample_chunk(chunk)
        samples_given += part.size
        yield part
    if not samples_read:
        return
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)
    length = math.ceil(samples_read * SAMPLE_RATE_HZ / rate_hz) - samples_given
    yield np.pad(rest, (0, length - rest.size)) if rest.size < length else rest[:length]


def resample(
    chunks: Iterable[Float32[np.ndarray, "chunk"]], rate_hz: float
) -> Float32[np.ndarray, "samples"]:
    """All of `resampled` as one array."""
    return np.concatenate([*resampled(chunks, rate_hz), np.zeros(0, np.float32)])

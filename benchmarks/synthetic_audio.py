"""Synthetic audio from fixed seeds, so that every run measures the same clips."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

__all__ = ["SAMPLING_RATE", "durations", "recording_files", "synthetic_clip", "synthetic_clips"]

SAMPLING_RATE = 16_000
_FILE_SAMPLING_RATE = 44_100
"""Most recordings don't have the model's rate: resampling is part of what is timed."""


def synthetic_clip(seconds: float, seed: int = 0, rate: int = SAMPLING_RATE) -> np.ndarray:
    """Gliding tone with tremolo and noise, so that no two frames are equal."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = random.uniform(100, 800) + random.uniform(-200, 400) * t / max(seconds, 0.1)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * (0.6 + 0.4 * np.sin(9 * t))
    level = 10 ** random.uniform(-2, -0.3)
    return (level * (tone + 0.1 * random.standard_normal(t.size)) / 1.5).astype(np.float32)


def synthetic_clips(seconds: float, count: int) -> list[np.ndarray]:
    return [synthetic_clip(seconds, seed) for seed in range(count)]


def durations(count: int, *, uniform: bool, longest: float = 30.0) -> tuple[float, ...]:
    """Seconds from 1 to `longest`, spread uniformly or log-uniformly, in shuffled order."""
    quantiles = (np.arange(count) + 0.5) / count
    seconds = 1 + (longest - 1) * quantiles if uniform else longest**quantiles
    return tuple(round(float(s), 2) for s in np.random.default_rng(0).permutation(seconds))


@functools.cache
def recording_files(work: Path, seconds: tuple[float, ...]) -> tuple[Path, ...]:
    """Stereo recordings at 44.1 kHz, alternately flac and mp3, written unless they exist."""
    import soundfile

    folder = work / f"audio_{hashlib.sha256(repr(seconds).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, length in enumerate(seconds):
        path = folder / f"{index:03d}.{'mp3' if index % 2 else 'flac'}"
        if not path.is_file():
            left, right = (
                synthetic_clip(length, 2 * index + channel, _FILE_SAMPLING_RATE)
                for channel in (0, 1)
            )
            soundfile.write(path, np.stack([left, right], axis=1), _FILE_SAMPLING_RATE)
        paths.append(path)
    return tuple(paths)

"""Audio to measure with: made, not recorded, so that every run hears the same."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

__all__ = ["RATE", "files", "lengths", "sound", "sounds"]

RATE = 16_000
_FILE_RATE = 44_100
"""Most recordings are not at the model's rate: resampling them is part of the work."""


def sound(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Something that changes from frame to frame: a gliding tone, tremolo and noise."""
    random = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    pitch = random.uniform(100, 800) + random.uniform(-200, 400) * t / max(seconds, 0.1)
    tone = np.sin(2 * np.pi * np.cumsum(pitch) / rate) * (0.6 + 0.4 * np.sin(9 * t))
    level = 10 ** random.uniform(-2, -0.3)
    return (level * (tone + 0.1 * random.standard_normal(t.size)) / 1.5).astype(np.float32)


def sounds(seconds: float, count: int) -> list[np.ndarray]:
    return [sound(seconds, seed) for seed in range(count)]


def lengths(count: int, *, uniform: bool, longest: float = 30.0) -> tuple[float, ...]:
    """Seconds from 1 to `longest`, evenly spread or evenly spread in octaves, in mixed order."""
    shares = (np.arange(count) + 0.5) / count
    spread = 1 + (longest - 1) * shares if uniform else longest**shares
    return tuple(round(float(s), 2) for s in np.random.default_rng(0).permutation(spread))


@functools.cache
def files(work: Path, seconds: tuple[float, ...]) -> tuple[Path, ...]:
    """Stereo recordings at 44.1 kHz, flac and mp3 by turns."""
    import soundfile

    folder = work / f"audio_{hashlib.sha256(repr(seconds).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, length in enumerate(seconds):
        path = folder / f"{place:03d}.{'mp3' if place % 2 else 'flac'}"
        if not path.is_file():
            left, right = (sound(length, 2 * place + side, _FILE_RATE) for side in (0, 1))
            soundfile.write(path, np.stack([left, right], axis=1), _FILE_RATE)
        paths.append(path)
    return tuple(paths)

"""Waveform: one channel at 16 kHz, whatever it came from; and the windows it is heard in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError, OptionError

from .timecode import _clock

__all__ = [
    "MIN_SECONDS",
    "SAMPLE_RATE_HZ",
    "WINDOW_SECONDS",
    "Recording",
    "Waveform",
    "Window",
    "Windowing",
]

SAMPLE_RATE_HZ = 16_000
WINDOW_SECONDS = 30.0
"""The encoder's reach: 1500 positions of 20 ms."""
MIN_SECONDS = 0.04
"""One audio token: 4 mel frames of 10 ms, halved by a convolution and halved by pooling."""
_MAX_PEAK = 16.0
"""Float audio peaks near 1; far above it lies PCM that nobody has divided by full scale."""


@dataclass(frozen=True)
class Window:
    """The seconds of a recording that the model hears at once."""

    start_seconds: float
    end_seconds: float

    @property
    def duration_seconds(self) -> float:
        """Its length."""
        return self.end_seconds - self.start_seconds

    def __str__(self) -> str:
        return f"{_clock(self.start_seconds)}–{_clock(self.end_seconds)}"


@dataclass(frozen=True)
class Windowing:
    """How a recording is divided: windows of `window_seconds`, one starting every `hop_seconds`.

    Nothing is left out: a hop longer than the window is an error, and the last window may be short.
    """

    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("window_seconds", "hop_seconds"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, int | float):
                raise OptionError(f"{name}={value!r} is not a number of seconds")
        hop = self.hop
        if not MIN_SECONDS <= self.window_seconds <= WINDOW_SECONDS:
            raise OptionError(
                f"window_seconds={self.window_seconds}: the encoder hears {MIN_SECONDS} to "
                f"{WINDOW_SECONDS:g} s at once"
            )
        if not MIN_SECONDS <= hop <= self.window_seconds:
            raise OptionError(
                f"hop_seconds={hop} with windows of {self.window_seconds:g} s: use {MIN_SECONDS} s "
                "up to the window's length, or audio between windows would go unheard"
            )

    @property
    def hop(self) -> float:
        """Seconds from one window's start to the next: the window's length unless set."""
        return self.window_seconds if self.hop_seconds is None else self.hop_seconds


@dataclass(frozen=True)
class Recording:
    """What is known of a recording beside its samples.

    Attributes:
        name: what it is called in results and messages.
        duration_seconds: after resampling.
        rate_hz, channels: as they were before mixing and resampling.
        format: the container, such as "flac"; "array" for arrays.
        tags: what the file says of itself ("title", "artist", …), keys in lower case.
    """

    name: str
    duration_seconds: float
    rate_hz: int
    channels: int
    format: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False, repr=False)
class Waveform:
    """Mono float32 samples at 16 kHz, nominally in [-1, 1], at least one audio token (40 ms) long.

    Attributes:
        samples: shape (samples,).
        name: what to call it in results and messages.
        source_rate_hz, source_channels: as they were before mixing and resampling.
        source_format: the container, such as "flac"; "array" for arrays.
        tags: what the file says of itself.

    Raises:
        AudioError: if it is empty, too short, not finite, or obviously not scaled to [-1, 1].
    """

    samples: Float32[np.ndarray, "samples"]
    name: str = "waveform"
    source_rate_hz: int = SAMPLE_RATE_HZ
    source_channels: int = 1
    source_format: str = field(default="array")
    tags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        samples = self.samples
        if samples.size == 0:
            raise AudioError(f"{self.name} holds no samples: expected at least {MIN_SECONDS} s")
        if not np.isfinite(samples).all():
            first = int(np.flatnonzero(~np.isfinite(samples))[0]) / SAMPLE_RATE_HZ
            # A sample is 62.5 µs: to the millisecond where that is all, else to the sample.
            where = f"{first:.{3 if first == round(first, 3) else 7}f}"
            raise AudioError(
                f"{self.name} holds NaN or infinite samples (first at {where} s): repair it "
                "first, for instance with numpy.nan_to_num"
            )
        if samples.size < round(MIN_SECONDS * SAMPLE_RATE_HZ):
            raise AudioError(
                f"{self.name} lasts {1000 * self.duration_seconds:.1f} ms, but one audio token "
                f"takes {1000 * MIN_SECONDS:.0f} ms: give a longer clip"
            )
        peak = float(np.abs(samples).max())
        if peak > _MAX_PEAK:
            raise AudioError(
                f"{self.name} peaks at {peak:g}, but float samples lie in [-1, 1]: "
                "divide integer PCM by its full scale (32768 for 16 bit)"
            )

    @property
    def duration_seconds(self) -> float:
        """Its length, after resampling."""
        return self.samples.size / SAMPLE_RATE_HZ

    @property
    def recording(self) -> Recording:
        """What is known of it beside its samples."""
        return Recording(
            self.name,
            self.duration_seconds,
            self.source_rate_hz,
            self.source_channels,
            self.source_format,
            self.tags,
        )

    def windows(self, windowing: Windowing = Windowing()) -> tuple[Window, ...]:
        """Windows that together cover every sample.

        The last one is shorter where the audio ends inside it. A rest shorter than one audio token
        could not be heard alone, so its window reaches back to 40 ms.
        """
        size = self.samples.size
        length = round(windowing.window_seconds * SAMPLE_RATE_HZ)
        hop = round(windowing.hop * SAMPLE_RATE_HZ)
        shortest = round(MIN_SECONDS * SAMPLE_RATE_HZ)
        count = 1 + max(0, math.ceil((size - length) / hop))
        starts = (min(k * hop, size - shortest) for k in range(count))
        return tuple(
            Window(start / SAMPLE_RATE_HZ, min(start + length, size) / SAMPLE_RATE_HZ)
            for start in starts
        )

    def cut(self, window: Window) -> Float32[np.ndarray, "samples"]:
        """The samples of one window."""
        start = round(window.start_seconds * SAMPLE_RATE_HZ)
        return self.samples[start : round(window.end_seconds * SAMPLE_RATE_HZ)]

    def __repr__(self) -> str:
        return (
            f"Waveform({self.name!r}, {self.duration_seconds:.2f} s, {self.samples.size} samples, "
            f"from {self.source_rate_hz} Hz × {self.source_channels} {self.source_format})"
        )

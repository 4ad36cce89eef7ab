"""Mono audio at 16 kHz: samples, and metadata of the recording that they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError
from qwen_audio.paths import printable

from .damage import MissingAudio
from .track import AudioTrack
from .window import MIN_SECONDS, Window, WindowConfig

__all__ = ["MIN_SAMPLES", "SAMPLE_RATE_HZ", "RecordingInfo", "SampleCheck", "Waveform"]

SAMPLE_RATE_HZ = 16_000
MIN_SAMPLES = round(MIN_SECONDS * SAMPLE_RATE_HZ)
"""Of one audio token."""
_MAX_PEAK = 16.0
"""Float audio peaks near 1; a peak far above it means PCM that was not divided by full scale."""
_DEFAULT_WINDOW_CONFIG = WindowConfig()


@dataclass(frozen=True)
class RecordingInfo:
    """Metadata of a recording: everything that is known beside its samples.

    Attributes:
        name: shown in results and messages.
        duration_seconds: after resampling.
        rate_hz, channels: before mixing and resampling.
        format: the container, such as "flac"; "array" for arrays.
        tags: metadata in the file ("title", "artist", …), keys in lower case.
        tracks: the audio tracks of the file; empty for arrays.
        track: index of the one that was decoded.
        missing: what the file should hold and could not be decoded; empty unless that was allowed.
    """

    name: str
    duration_seconds: float
    rate_hz: int
    channels: int
    format: str
    tags: Mapping[str, str] = field(default_factory=dict)
    tracks: tuple[AudioTrack, ...] = ()
    track: int = 0
    missing: tuple[MissingAudio, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of results should know: other tracks in the file, and missing audio."""
        notes = [f"{self.name}: {missing}" for missing in self.missing]
        if len(self.tracks) > 1:
            notes.insert(
                0,
                f"{self.name}: {len(self.tracks)} audio tracks, of which {self.track} was used: "
                + "; ".join(map(str, self.tracks)),
            )
        return tuple(notes)


class SampleCheck:
    """Checks the samples of one recording, in consecutive parts.

    Args:
        name: of the recording, shown in messages.
        min_seconds: what one audio token stands for.

    Attributes:
        size: samples so far.
    """

    def __init__(self, name: str, min_seconds: float = MIN_SECONDS) -> None:
        self._name, self._min_seconds, self.size = name, min_seconds, 0

    def add(self, samples: Float32[np.ndarray, "part"]) -> None:
        """Raises AudioError if they are not finite, or obviously not scaled to [-1, 1]."""
        if not np.isfinite(samples).all():
            first = self.size + int(np.flatnonzero(~np.isfinite(samples))[0])
            seconds = first / SAMPLE_RATE_HZ
            # A sample lasts 62.5 µs: 7 decimals are exact, 3 where it lies on a millisecond.
            decimals = 3 if seconds == round(seconds, 3) else 7
            raise AudioError(
                f"{self._name} holds NaN or infinite samples (first at {seconds:.{decimals}f} s): "
                "repair it first, for instance with numpy.nan_to_num"
            )
        peak = float(np.abs(samples).max(initial=0))
        if peak > _MAX_PEAK:
            raise AudioError(
                f"{self._name} peaks at {peak:g}, but float samples lie in [-1, 1]: "
                "divide integer PCM by its full scale (32768 for 16 bit)"
            )
        self.size += samples.size

    def finish(self) -> None:
        """Raises AudioError if there were none, or fewer than of one audio token."""
        if self.size == 0:
            raise AudioError(
                f"{self._name} holds no samples: expected at least {self._min_seconds} s"
            )
        if self.size < round(self._min_seconds * SAMPLE_RATE_HZ):
            raise AudioError(
                f"{self._name} lasts {1000 * self.size / SAMPLE_RATE_HZ:.1f} ms, but one audio "
                f"token takes {1000 * self._min_seconds:.0f} ms: give a longer clip"
            )


@dataclass(frozen=True, eq=False, repr=False)
class Waveform:
    """Mono float32 samples at 16 kHz, nominally in [-1, 1], at least one audio token (40 ms) long.

    Attributes:
        samples: shape (samples,).
        name: shown in results and messages.
        source_rate_hz, source_channels: before mixing and resampling.
        source_format: the container, such as "flac"; "array" for arrays.
        tags: metadata in the file ("title", "artist", …), keys in lower case.
        tracks: the audio tracks of the file; empty for arrays.
        track: index of the one that was decoded.
        missing: what the file should hold and could not be decoded; empty unless that was allowed.

    Raises:
        AudioError: if it is empty, too short, not finite, or obviously not scaled to [-1, 1].
    """

    samples: Float32[np.ndarray, "samples"]
    name: str = "waveform"
    source_rate_hz: int = SAMPLE_RATE_HZ
    source_channels: int = 1
    source_format: str = field(default="array")
    tags: Mapping[str, str] = field(default_factory=dict)
    tracks: tuple[AudioTrack, ...] = ()
    track: int = 0
    missing: tuple[MissingAudio, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))
        check = SampleCheck(self.name)
        check.add(self.samples)
        check.finish()

    @property
    def duration_seconds(self) -> float:
        """Duration after resampling."""
        return self.samples.size / SAMPLE_RATE_HZ

    @property
    def info(self) -> RecordingInfo:
        """Metadata of the recording."""
        return RecordingInfo(
            self.name,
            self.duration_seconds,
            self.source_rate_hz,
            self.source_channels,
            self.source_format,
            self.tags,
            self.tracks,
            self.track,
            self.missing,
        )

    def windows(self, window_config: WindowConfig = _DEFAULT_WINDOW_CONFIG) -> tuple[Window, ...]:
        """Windows that together cover every sample.

        The last window is shorter where the audio ends inside it. If less than one audio token is
        left for it, it starts earlier, so that it is as long as one.

        Raises:
            AudioError: if the waveform is shorter than one.
        """
        size = self.samples.size
        check = SampleCheck(self.name, window_config.limits.min_seconds)
        check.size = size
        check.finish()
        min_samples = round(window_config.limits.min_seconds * SAMPLE_RATE_HZ)
        window_samples = round(window_config.window_seconds * SAMPLE_RATE_HZ)
        hop_samples = round(window_config.resolved_hop_seconds * SAMPLE_RATE_HZ)
        count = 1 + max(0, math.ceil((size - window_samples) / hop_samples))
        starts = (min(k * hop_samples, size - min_samples) for k in range(count))
        return tuple(
            Window(start / SAMPLE_RATE_HZ, min(start + window_samples, size) / SAMPLE_RATE_HZ)
            for start in starts
        )

    def samples_in(self, window: Window) -> Float32[np.ndarray, "samples"]:
        """The samples of one window."""
        start = round(window.start_seconds * SAMPLE_RATE_HZ)
        return self.samples[start : round(window.end_seconds * SAMPLE_RATE_HZ)]

    def __repr__(self) -> str:
        return (
            f"Waveform({self.name!r}, {self.duration_seconds:.2f} s, {self.samples.size} samples, "
            f"from {self.source_rate_hz} Hz × {self.source_channels} {self.source_format})"
        )

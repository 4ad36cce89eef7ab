"""Audio tracks of a media file, and limits of what a track may be."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio.errors import AudioError

__all__ = ["MAX_CHANNELS", "MAX_RATE_HZ", "MIN_RATE_HZ", "AudioTrack", "check_rate_and_channels"]

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000
"""Limits of plausible sampling rates: no converter is faster than 768 kHz."""
MAX_CHANNELS = 64


@dataclass(frozen=True)
class AudioTrack:
    """One audio track of a media file.

    Attributes:
        index: of the audio tracks of the file, from 0 on (FFmpeg's `0:a:index`).
        codec: FFmpeg's name; "unknown" if there is no decoder for it.
        rate_hz, channels: 0 if the file states none.
        language, title: as the file states them; empty if it does not.
        duration_seconds: as the file states it.
    """

    index: int
    codec: str
    rate_hz: int
    channels: int
    language: str = ""
    title: str = ""
    duration_seconds: float | None = None

    def __str__(self) -> str:
        parts = [self.language, self.title, self.codec, f"{self.rate_hz} Hz × {self.channels}"]
        if self.duration_seconds is not None:
            parts.append(f"{self.duration_seconds:.2f} s")
        return f"{self.index} ({', '.join(filter(None, parts))})"


def check_rate_and_channels(name: str, rate_hz: float, channels: int) -> None:
    """Raises AudioError for a sampling rate or a number of channels that no recording has."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(
            f"{name}: sampling rate {rate_hz} Hz, but {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz is "
            "supported: check the file's header or the sampling_rate you pass"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels, but 1 to {MAX_CHANNELS} are supported: "
            "pass arrays as (channels, samples), or mix the file down first"
        )

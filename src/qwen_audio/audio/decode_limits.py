"""Limits on what decoding one recording may take, checked while it is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real

from qwen_audio.errors import AudioError, OptionError

__all__ = ["PATH_LIMITS", "STREAM_LIMITS", "DecodeLimits", "DecodeMeter"]

_PACKETS_PER_SECOND, _MORE_PACKETS = 1000, 1000
"""Most packets that a second of audio has, and how many tags there may be: Opus has up to 400."""


@dataclass(frozen=True)
class DecodeLimits:
    """Limits on one recording, so that a small file can't take any amount of time and memory.

    Time is in proportion to the samples of all channels before mixing and resampling, memory to the
    seconds. `math.inf` is no limit.

    Attributes:
        max_seconds: of audio.
        max_channel_samples: sampling rate × channels × seconds of audio as stored in the file.
        max_stream_bytes: read from a pipe, standard input or file object, whose content is kept in
            memory while it is decoded.

    Raises:
        OptionError: for a limit that is no number greater than 0.
    """

    max_seconds: float = 48 * 3600.0
    max_channel_samples: float = 2**36
    max_stream_bytes: float = 2**32

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or math.isnan(value) or value <= 0:
                raise OptionError(f"{limit.name}={value!r}: use a number greater than 0")

    def check_seconds(self, name: str, seconds: float) -> None:
        """Raises AudioError for audio that lasts longer than allowed."""
        if seconds > self.max_seconds + 1e-6:  # less than a sample: rounding
            raise AudioError(
                f"{name} is longer than the limit of {self.max_seconds:g} s: cut it into shorter "
                "files"
            )


class DecodeMeter:
    """Counts what decoding a recording has taken so far.

    Args:
        name: of the recording, shown in messages.
    """

    def __init__(self, name: str, limits: DecodeLimits) -> None:
        self._name, self._limits = name, limits
        self._seconds = self._channel_samples = 0.0
        self._packets = 0

    def add_audio(self, samples: int, rate_hz: int, channels: int) -> None:
        """Count consecutive samples of every channel.

        Raises:
            AudioError: as soon as it is more than the limits allow.
        """
        self._seconds += samples / rate_hz
        self._channel_samples += samples * channels
        self._limits.check_seconds(self._name, self._seconds)
        allowed = self._limits.max_channel_samples
        if self._channel_samples > allowed:
            raise AudioError(
                f"{self._name} is longer than the limit of {allowed / rate_hz / channels:.4g} s "
                f"for {rate_hz} Hz × {channels} channels ({allowed:.4g} samples in all): cut it "
                "into shorter files, or resample it or mix it down first"
            )

    def add_packet(self) -> None:
        """Count a packet, as those that hold no audio take time, too.

        Raises:
            AudioError: as soon as there are more than audio of the longest duration has.
        """
        self._packets += 1
        if self._packets > _PACKETS_PER_SECOND * self._limits.max_seconds + _MORE_PACKETS:
            raise AudioError(
                f"{self._name} has more than {self._packets - 1} packets, too many for the limit "
                f"of {self._limits.max_seconds:g} s: cut it into shorter files, or convert it to "
                "flac or wav"
            )


PATH_LIMITS = DecodeLimits()
"""Of files: two days, or 24 hours of 8 channels at 96 kHz."""
STREAM_LIMITS = DecodeLimits(max_seconds=24 * 3600.0, max_channel_samples=2**33)
"""Of bytes, file objects, pipes and standard input: a day of 48 kHz stereo."""

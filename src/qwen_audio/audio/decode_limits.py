"""Limits on what decoding one recording may take, checked while it is decoded."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

from qwen_audio.errors import AudioError, DecodeLimitError, OptionError, number_option

__all__ = ["PATH_LIMITS", "STREAM_LIMITS", "DecodeLimits", "DecodeMeter", "ProcessorBudget"]

_PACKETS_PER_SECOND, _MORE_PACKETS = 1000, 1000
"""Most packets that a second of audio has (Opus has up to 400), and how many tags there may be."""
_PACKET_BYTES_PER_BYTE, _MORE_PACKET_BYTES = 10, 64 * 2**20
_STATED_SHARE, _STATED_SLACK_SECONDS = 0.99, 0.25
"""Stated durations may be rounded, and count priming and padding."""


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
        max_reading_seconds: of processor time to read the file's header, tags and packets, without
            decoding these: a file may consist of nothing but headers.

    Raises:
        OptionError: for a limit that is no number greater than 0.
    """

    max_seconds: float = 48 * 3600.0
    max_channel_samples: float = 2**36
    max_stream_bytes: float = 2**32
    max_reading_seconds: float = 600.0

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = number_option(limit.name, getattr(self, limit.name), "a number greater than 0")
            if not value > 0:
                raise OptionError(f"{limit.name}={value:g}: use a number greater than 0")
            object.__setattr__(self, limit.name, value)

    @property
    def max_packets(self) -> float:
        """Most packets (compressed frames) that a recording may have."""
        return _PACKETS_PER_SECOND * self.max_seconds + _MORE_PACKETS

    def check_seconds(self, name: str, seconds: float) -> None:
        """Raises AudioError for audio that lasts longer than allowed."""
        if seconds > self.max_seconds + 1e-6:  # less than a sample: rounding
            raise DecodeLimitError(
                "max_seconds",
                f"{name} is longer than the limit of {self.max_seconds:g} s: cut it into shorter "
                "files",
            )


class ProcessorBudget:
    """Counts the processor time that a thread spends on reading a file, while it is running.

    Args:
        name: of the recording, shown in messages.
    """

    def __init__(self, name: str, max_seconds: float) -> None:
        self._name, self._max_seconds = name, max_seconds
        self._used_seconds = 0.0
        self._since: float | None = None

    def run(self) -> None:
        """Count from now on."""
        self._since = time.thread_time()

    def pause(self) -> None:
        """Stop counting."""
        if self._since is not None:
            self._used_seconds += time.thread_time() - self._since
            self._since = None

    @property
    def is_used_up(self) -> bool:
        """Whether it took longer than allowed."""
        running = 0.0 if self._since is None else time.thread_time() - self._since
        return self._used_seconds + running > self._max_seconds

    def check(self) -> None:
        """Raises AudioError if it took longer than allowed."""
        if self.is_used_up:
            raise DecodeLimitError(
                "max_reading_seconds",
                f"{self._name} can't be decoded: to read its headers, tags and packets takes more "
                f"than the limit of {self._max_seconds:g} s: use an intact copy of the file, or "
                "convert it to flac or wav",
            )


class DecodeMeter:
    """Counts what decoding a recording has taken so far.

    Args:
        name: of the recording, shown in messages.
        file_bytes: size of its file.
    """

    def __init__(self, name: str, limits: DecodeLimits, file_bytes: int) -> None:
        self._name, self._limits = name, limits
        self._seconds = self._channel_samples = 0.0
        self._packets = self._packet_bytes = 0
        self._max_packet_bytes = _PACKET_BYTES_PER_BYTE * file_bytes + _MORE_PACKET_BYTES

    def check_stated(self, seconds: float, rate_hz: int, channels: int) -> None:
        """Check a duration that the file states, so that nothing is decoded in vain.

        Raises:
            AudioError: if it is clearly more than the limits allow.
        """
        seconds = _STATED_SHARE * seconds - _STATED_SLACK_SECONDS
        self._check(seconds, seconds * rate_hz * channels, rate_hz, channels)

    def add_audio(self, samples: int, rate_hz: int, channels: int) -> None:
        """Count consecutive samples of every channel.

        Raises:
            AudioError: as soon as it is more than the limits allow.
        """
        self._seconds += samples / rate_hz
        self._channel_samples += samples * channels
        self._check(self._seconds, self._channel_samples, rate_hz, channels)

    def _check(self, seconds: float, channel_samples: float, rate_hz: int, channels: int) -> None:
        self._limits.check_seconds(self._name, seconds)
        allowed = self._limits.max_channel_samples
        if channel_samples > allowed:
            raise DecodeLimitError(
                "max_channel_samples",
                f"{self._name} is longer than the limit of {allowed / rate_hz / channels:.4g} s "
                f"for {rate_hz} Hz × {channels} channels ({allowed:.4g} samples in all): cut it "
                "into shorter files, or resample it or mix it down first",
            )

    def add_packet(self, packet_bytes: int) -> None:
        """Count a packet, as those that hold no audio take time, too.

        Raises:
            AudioError: as soon as there are more than audio of the longest duration has, or they
                hold many times the file, which they can by overlapping or by compression.
        """
        self._packets += 1
        self._packet_bytes += packet_bytes
        if self._packets > self._limits.max_packets:
            raise DecodeLimitError(
                "max_packets",
                f"{self._name} has more than {self._limits.max_packets:.0f} packets, too many for "
                f"the limit of {self._limits.max_seconds:g} s: cut it into shorter files, or "
                "convert it to flac or wav",
            )
        if self._packet_bytes > self._max_packet_bytes:
            raise AudioError(
                f"{self._name} can't be decoded: its packets hold more than "
                f"{self._max_packet_bytes} bytes, many times its size: convert it to flac or wav"
            )


PATH_LIMITS = DecodeLimits()
"""Of files: two days, or 24 hours of 8 channels at 96 kHz."""
STREAM_LIMITS = DecodeLimits(
    max_seconds=24 * 3600.0, max_channel_samples=2**33, max_reading_seconds=120.0
)
"""Of bytes, file objects, pipes and standard input: a day of 48 kHz stereo."""

"""Audio that a file should hold but that can't be decoded: found by positions and stated lengths.

FFmpeg skips what is damaged and ends silently where a file does. Damage is reported on evidence
only: a packet that can't be decoded between others, a jump of stored time stamps, or a length that
the file states. A length that FFmpeg estimates from the bit rate is no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "STATED_FORMATS",
    "TOLERANCE_SECONDS",
    "MissingAudio",
    "Position",
    "tag_bytes",
    "without_partial_advice",
]

TOLERANCE_SECONDS = 0.04
"""One audio token. Less that is missing, or more than stated, is no error: containers round
durations."""
_LONGEST_FRAME_SECONDS = 0.2
"""Longest frame of a lossy codec (WMA: 4096 samples at 22,050 Hz), which a container may count in
full although decoders leave out the delay of one."""

_CLOCK_DRIFT = 0.01
"""Share by which time stamps of a recorder may run faster than its samples."""
_LONGEST_LYRICS_BYTES = 999_999  # six digits state it
_ID3V1_BYTES = 128

_EXACT_FORMATS = frozenset({"ape", "flac", "tak", "tta", "wv"})
"""FFmpeg's names of formats whose header counts samples exactly."""
STATED_FORMATS = _EXACT_FORMATS | {
    *("asf", "au", "dsf", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpc", "mpc8"),
    *("caf", "ogg", "rm"),
}
"""Formats whose header states a duration. The lengths of WAV, W64, AIFF and AVI are compared
in bytes: their counts of samples are often wrong where the codec is not PCM. MP3 states
one only in a Xing or VBRI header."""
_TIMED_FORMATS = frozenset(
    {"asf", "flac", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mpeg", "mpegts", "ogg"}
)
"""Formats that store time stamps. In others FFmpeg counts samples, or bytes that are no audio."""
_COARSE_FORMATS = frozenset({"asf", "caf", "flv", "matroska,webm", "mpeg", "mpegts", "rm"})
"""Formats whose times are rounded, or taken when a packet was recorded: exact to a codec frame."""
_LIVE_FORMATS = frozenset({"flv", "mpeg", "mpegts", "ogg"})
"""Formats of streams that may be captured from any point on, so that first packets may be torn."""
_BYTES_STATED_FORMATS = frozenset({"aiff", "avi", "caf", "w64", "wav"})


@dataclass(frozen=True)
class MissingAudio:
    """A part of a recording that its file should hold, and that could not be decoded.

    Attributes:
        start_seconds: where it begins.
        end_seconds: where it ends.
        reason: what is wrong with the file, such as "can't be decoded".
        filled: whether silence stands in its place, so that later times stay right.
    """

    start_seconds: float
    end_seconds: float
    reason: str
    filled: bool = False

    def __str__(self) -> str:
        text = f"{self.start_seconds:.2f}–{self.end_seconds:.2f} s {self.reason}"
        return f"{text}; silence in its place" if self.filled else text


class Position:
    """Position in a track while it is decoded, in seconds; finds what is missing before a frame.

    Args:
        format_name: FFmpeg's name of the container.
        start_seconds: time stamp at which the track begins, if known.
    """

    def __init__(self, format_name: str, start_seconds: float | None) -> None:
        self._timed = format_name in _TIMED_FORMATS
        self._coarse = format_name in _COARSE_FORMATS
        self._live = format_name in _LIVE_FORMATS
        self.is_exact = format_name in _EXACT_FORMATS
        """Whether the file's header counts samples."""
        self._bytes_stated = format_name in _BYTES_STATED_FORMATS
        self._start_seconds = start_seconds
        self._expected_seconds: float | None = None
        self._undecoded_seconds = 0.0  # of packets since the last frame
        self._frame_seconds = 0.0
        self.decoded_seconds = 0.0
        self.decoded_bytes = 0
        self._reported_seconds = 0.0  # of gaps
        self._reported_bytes = 0  # of packets that can't be decoded
        self.primed_seconds = 0.0
        """Priming that was discarded, and that some containers count into their durations."""
        self.longest_frame_seconds = 0.0

    @property
    def length_seconds(self) -> float:
        """From the beginning of the track to the end of the last frame."""
        if not self._timed or self._expected_seconds is None:
            return self.decoded_seconds
        return max(self.decoded_seconds, self._expected_seconds - (self._start_seconds or 0.0))

    @property
    def start_seconds(self) -> float:
        """Time stamp at which the track begins."""
        return (self._start_seconds or 0.0) if self._timed else 0.0

    def undecodable(self, packet_bytes: int) -> None:
        """Record a packet that can't be decoded. It lasts as long as its bytes do on average."""
        bytes_per_second = self.decoded_bytes / max(self.decoded_seconds, 1e-9)
        seconds = packet_bytes / bytes_per_second if self.decoded_bytes else 0.0
        self._undecoded_seconds += max(seconds, self._frame_seconds) or TOLERANCE_SECONDS
        self._reported_bytes += packet_bytes

    def missing_before(self, frame_seconds: float | None) -> tuple[float, float] | None:
        """Start and end of what is missing before a frame, from the beginning of the track.

        Args:
            frame_seconds: the frame's time stamp, if it has one.
        """
        undecoded_seconds, self._undecoded_seconds = self._undecoded_seconds, 0.0
        stamp = frame_seconds if self._timed else None
        expected = self._expected_seconds
        if expected is None:
            self._start_seconds = self._start_seconds if self._timed else 0.0
            begin = self._start_seconds
            if begin is None:
                begin = self._start_seconds = stamp or 0.0
            self._expected_seconds = begin if stamp is None else stamp
            is_damage = undecoded_seconds and self._timed and not self._live
            missing_seconds = self._expected_seconds - begin
            return (0.0, missing_seconds) if is_damage and missing_seconds > 0 else None
        tolerance = TOLERANCE_SECONDS + (self._frame_seconds if self._coarse else 0.0)
        end = expected + undecoded_seconds if stamp is None else stamp
        if end - expected > tolerance or (undecoded_seconds and end > expected):
            self._expected_seconds = end
            self._reported_seconds += end - expected
            begin = self._start_seconds or 0.0
            return expected - begin, end - begin
        if stamp is not None:
            self._expected_seconds = stamp
        return None

    def advance(self, seconds: float) -> None:
        """Move past a decoded frame."""
        self._expected_seconds = (self._expected_seconds or 0.0) + seconds
        self.decoded_seconds += seconds
        self._frame_seconds = seconds
        self.longest_frame_seconds = max(self.longest_frame_seconds, seconds)

    def missing_at_end(self, stated_seconds: float | None) -> tuple[float, float] | None:
        """Start and end of what is missing after the last frame.

        Args:
            stated_seconds: the duration that the file states; None if it states none.
        """
        length = self.length_seconds
        if stated_seconds is None:
            lost = self._undecoded_seconds if self._bytes_stated else 0.0
            return (length, length + lost) if lost > TOLERANCE_SECONDS else None
        slack = TOLERANCE_SECONDS + (
            self.primed_seconds if self._timed and not self.is_exact else 0.0
        )
        if self._coarse:
            slack += min(self.longest_frame_seconds, _LONGEST_FRAME_SECONDS)
        return (length, stated_seconds) if stated_seconds - length > slack else None

    def scattered_seconds(self, payload_bytes: int | None) -> float:
        """Seconds that are missing in parts too short to be found one by one, or without a trace.

        Args:
            payload_bytes: how many bytes of audio the file holds, if that is known.
        """
        slack = TOLERANCE_SECONDS + self.longest_frame_seconds
        if self._timed and self._expected_seconds is not None:
            spanned = self._expected_seconds - (self._start_seconds or 0.0)
            missing = spanned - self.decoded_seconds - self._reported_seconds
            slack += _CLOCK_DRIFT * spanned if self._coarse else self.primed_seconds
        elif payload_bytes is not None and self.decoded_bytes:
            lost_bytes = payload_bytes - self.decoded_bytes - self._reported_bytes
            missing = lost_bytes * self.decoded_seconds / self.decoded_bytes
        else:
            return 0.0
        return missing if missing > slack else 0.0


def tag_bytes(data: bytes) -> int:
    """Length of the metadata tag that begins here, in bytes; 0 if none does.

    Tags stand before and after the frames of an MP3, and between those of joined ones: ID3v2 (its
    size has four bytes of seven bits), APE, Lyrics3 (which states its size at its end) and ID3v1.
    """
    if data.startswith(b"ID3") and len(data) >= 10:
        return 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True)
        )
    if data.startswith(b"APETAGEX") and len(data) >= 16:
        return 32 + int.from_bytes(data[12:16], "little")
    if data.startswith(b"LYRICSBEGIN"):
        return _LONGEST_LYRICS_BYTES
    return _ID3V1_BYTES if data.startswith(b"TAG") else 0


def without_partial_advice(message: str) -> str:
    """An error message where on_damage="partial" can't be given, as collections and probes are of
    whole recordings."""
    return message.partition(", or on_damage='partial'")[0]

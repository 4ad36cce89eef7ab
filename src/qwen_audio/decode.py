"""A file's bytes → one channel of samples at its own rate. PyAV decodes; what is ours is to notice
when less comes out than the file promised, which FFmpeg passes over in silence."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import av
import av.error
import numpy as np
from jaxtyping import Float32

from .errors import AudioError

__all__ = ["MAX_CHANNELS", "MAX_RATE_HZ", "MIN_RATE_HZ", "Decoding", "check_rate_and_channels"]

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000
"""Above any converter's rate (768 kHz), or below 1 kHz, the number is not a sampling rate."""
MAX_CHANNELS = 64

_TOLERANCE_SECONDS = 0.04
"""Missing audio is reported from one audio token (40 ms) up: lossy containers round durations."""

# Writers that can't seek back put a huge size into the header for "until the end".
_SIZE_UNKNOWN = 0x7FFF_F000

Chunk = Float32[np.ndarray, "samples"]


def check_rate_and_channels(name: str, rate_hz: float, channels: int) -> None:
    """Raises AudioError for a rate or a number of channels that no recording has."""
    if not (math.isfinite(rate_hz) and MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ):
        raise AudioError(
            f"{name}: sampling rate {rate_hz} Hz, but {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz is "
            "supported: check the file's header or the sampling_rate you pass"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels, but 1 to {MAX_CHANNELS} are supported: "
            "pass arrays as (channels, samples), or mix the file down first"
        )


class Decoding:
    """An encoded recording, opened: what it says of itself, and one pass over its samples.

    Attributes:
        name: what to call it in messages.
        rate_hz, channels: of the audio track.
        format: FFmpeg's name of the container.

    Raises:
        AudioError: if it is empty, is not audio, has no audio track, or visibly ends too early.
    """

    def __init__(self, file: str | BinaryIO, name: str) -> None:
        _check_complete(file, name)
        self.name = name
        self._file = file
        try:
            self._container = av.open(file, mode="r", metadata_errors="replace")
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise AudioError(
                f"{name} is not audio that can be read, or its header is damaged "
                f"({_reason(error)}): use wav, flac, mp3, ogg, opus, m4a, webm or mp4"
            ) from error
        stream = self._container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            self._container.close()
            raise AudioError(f"{name} has no audio track: it holds no sound to hear")
        self._stream = stream
        self.rate_hz, self.channels = stream.sample_rate or 0, stream.channels
        self.format = self._container.format.name
        check_rate_and_channels(name, self.rate_hz, self.channels)

    @classmethod
    def of_path(cls, path: str | os.PathLike[str]) -> Decoding:
        """Raises AudioError if there is no such readable file."""
        name = os.fspath(path)
        place = Path(path)
        if place.is_dir():
            raise AudioError(
                f"{name} is a folder: name the audio files in it, such as {name}/*.wav"
            )
        if not place.exists():
            raise AudioError(f"{name}: no such file: check the path")
        if not os.access(place, os.R_OK):
            raise AudioError(f"{name} can't be read: check its permissions")
        if place.is_file() and place.stat().st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file")
        return cls(name, name)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> Decoding:
        """Raises AudioError if there are no bytes."""
        if not data:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file's content")
        return cls(io.BytesIO(data), name)

    def chunks(self) -> Iterator[Chunk]:
        """Mono float32 samples (the mean of the channels) at `rate_hz`, from start to end.

        Raises:
            AudioError: if the recording is damaged, or shorter than it says.
        """
        with self._container:
            try:
                decoded = yield from self._decode()
            except (av.error.FFmpegError, ValueError) as error:
                if isinstance(error, AudioError):
                    raise
                raise AudioError(
                    f"{self.name} is truncated or corrupt: decoding stopped ({_reason(error)}): "
                    "copy or download the file again"
                ) from error
            self._check_duration(decoded / self.rate_hz)

    def _decode(self) -> Generator[Chunk, None, int]:
        """Yield chunks; return the number of samples decoded."""
        decoded = 0
        expected_seconds: float | None = None
        for frame in self._container.decode(self._stream):
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                raise AudioError(
                    f"{self.name} changes from {self.rate_hz} Hz and {self.channels} channels to "
                    f"{frame.sample_rate} Hz and {frame.layout.nb_channels} on its way: "
                    "split or re-encode it first"
                )
            if frame.time is not None:
                if expected_seconds is not None:
                    self._check_gap(expected_seconds, frame.time)
                expected_seconds = frame.time + frame.samples / frame.sample_rate
            decoded += frame.samples
            yield _mono(frame)
        return decoded

    def _check_gap(self, expected_seconds: float, seconds: float) -> None:
        if seconds - expected_seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is corrupt: its audio from {expected_seconds:.2f} s to "
                f"{seconds:.2f} s can't be decoded: copy or download the file again"
            )

    def _check_duration(self, seconds: float) -> None:
        """A header that states more than was decoded means a file cut short.

        FFmpeg guesses an MP3's duration from its size where no Xing header states it: no evidence.
        """
        if self.format == "mp3" and not _has_xing_header(self._file):
            return
        container, stream = self._container, self._stream
        stated = 0.0
        if stream.duration and stream.time_base:
            stated = float(stream.duration * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            stated = container.duration / av.time_base
        if stated - seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is truncated: it says {stated:.2f} s but holds {seconds:.2f} s: "
                "copy or download the file again"
            )


def _mono(frame: av.AudioFrame) -> Chunk:
    """Mean of the channels in [-1, 1]: 8 bit is centred, integers are divided by full scale."""
    samples = cast(Any, frame.to_ndarray())
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        scaled = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        scaled = samples.astype(np.float32) / float(2 ** (8 * samples.dtype.itemsize - 1))
    else:
        scaled = samples.astype(np.float32, copy=False)
    return scaled.mean(axis=0, dtype=np.float32)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _slice(file: str | BinaryIO, start: int, length: int) -> bytes:
    """Up to `length` bytes from `start` (from the end where negative), wherever the file lives."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return _slice(opened, start, length)
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size + start) if start < 0 else min(start, size))
    data = file.read(length)
    file.seek(0)
    return data


def _size(file: str | BinaryIO) -> int:
    return Path(file).stat().st_size if isinstance(file, str) else file.seek(0, os.SEEK_END)


def _check_complete(file: str | BinaryIO, name: str) -> None:
    """WAV and Ogg say where they end, and FFmpeg believes the file's size instead."""
    if isinstance(file, str) and not Path(file).is_file():
        return  # a pipe or a device has no end to look at
    head = _slice(file, 0, 12)
    missing = 0
    if head[:4] in (b"RIFF", b"RIFX"):
        missing = _riff_bytes_missing(file, "little" if head[:4] == b"RIFF" else "big")
    elif head[:4] == b"OggS":
        missing = _ogg_bytes_missing(file)
    if missing:
        raise AudioError(
            f"{name} is truncated: its header promises at least {missing} more bytes than there "
            "are: copy or download the file again"
        )


def _riff_bytes_missing(file: str | BinaryIO, order: Literal["little", "big"]) -> int:
    """Bytes that the `data` chunk claims beyond the end of the file."""
    size, position = _size(file), 12
    while position + 8 <= size:
        header = _slice(file, position, 8)
        length = int.from_bytes(header[4:], order)
        if header[:4] == b"data":
            known = length < _SIZE_UNKNOWN
            return max(0, position + 8 + length - size) if known else 0
        position += 8 + length + length % 2  # chunks are padded to even lengths
    return 0


def _ogg_bytes_missing(file: str | BinaryIO) -> int:
    """Bytes missing from the last Ogg page (RFC 3533, section 6), or 1 if no page ends the stream.

    A page's header is 27 bytes, the last of which counts the segment lengths that follow.
    """
    tail = _slice(file, -(1 << 17), 1 << 17)  # a page has at most 65,307 bytes
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return 1
    length = 27 + page[26] + sum(page[27 : 27 + page[26]])
    ends_stream = bool(page[5] & 0x04)
    return max(0, length - len(page)) or int(not ends_stream)


def _has_xing_header(file: str | BinaryIO) -> bool:
    """Whether an MP3 states its number of frames (Xing, Info or VBRI in its first frame)."""
    head = _slice(file, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # the tag's size: four bytes of seven bits each
        sizes = zip(head[6:], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)
    first_frame = _slice(file, start, 2048)
    return any(tag in first_frame for tag in (b"Xing", b"Info", b"VBRI"))

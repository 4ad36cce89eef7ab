"""Decode media files to mono samples at their own rate, with PyAV (FFmpeg).

FFmpeg ends silently where a file is truncated or damaged. Here that is an error: what was decoded
is compared with what the file states.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Generator, Iterator
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError

from .containers import as_little_endian_wav, bytes_missing, is_big_endian_wav, states_mp3_length

__all__ = ["MAX_CHANNELS", "MAX_RATE_HZ", "MIN_RATE_HZ", "AudioDecoder", "check_rate_and_channels"]

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000
"""Limits of plausible sampling rates: no converter is faster than 768 kHz."""
MAX_CHANNELS = 64

_TOLERANCE_SECONDS = 0.04
"""One audio token (40 ms). Less missing audio is no error: lossy containers round durations."""

_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")

MonoSamples = Float32[np.ndarray, "samples"]


def check_rate_and_channels(name: str, rate_hz: float, channels: int) -> None:
    """Raises AudioError for a sampling rate or a number of channels that no recording has."""
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


class AudioDecoder:
    """An opened media file: metadata of its audio track, and one pass over its samples.

    Args:
        file: a path or a seekable binary file.
        name: shown in messages.

    Attributes:
        name: as given.
        rate_hz, channels: of the audio track.
        format: FFmpeg's name of the container.
        tags: metadata such as title and artist, keys in lower case.

    Raises:
        AudioError: if it is not audio, has no audio track that FFmpeg can decode, ends before the
            end that its container states, or states an implausible rate or number of channels.
    """

    def __init__(self, file: str | BufferedIOBase, name: str) -> None:
        if is_big_endian_wav(file):
            file = as_little_endian_wav(file)
        if missing := bytes_missing(file):
            raise AudioError(
                f"{name} is truncated: at least {missing} bytes are missing at its end: use a "
                "complete copy of the file"
            )
        self.name = name
        self._file = file
        try:
            # Without "file:", FFmpeg would take text before a colon in a name for a protocol.
            url = f"file:{file}" if isinstance(file, str) else file
            self._container = av.open(url, mode="r", metadata_errors="replace")
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise AudioError(
                f"{name} can't be decoded: it is not audio, or its header is damaged "
                f"({_reason(error)}): use wav, flac, mp3, ogg, opus, m4a, webm or mp4"
            ) from error
        stream = self._container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            self._container.close()
            raise AudioError(f"{name} has no audio track: use a file that holds audio")
        if not hasattr(stream, "sample_rate"):  # PyAV makes no decoder where FFmpeg has none
            self._container.close()
            raise AudioError(
                f"{name} can't be decoded: FFmpeg has no decoder for its audio codec: convert it "
                "to flac or wav"
            )
        self._stream = stream
        self.rate_hz, self.channels = stream.sample_rate or 0, stream.channels
        self.format = self._container.format.name
        metadata = {**stream.metadata, **self._container.metadata}
        self.tags = {key.lower(): text for key, text in metadata.items() if text}
        check_rate_and_channels(name, self.rate_hz, self.channels)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str]) -> AudioDecoder:
        """Opens a file, or a pipe, which is read to its end first.

        Raises:
            AudioError: also if it does not exist, is empty, or can't be read.
        """
        name = os.fsdecode(path)
        try:
            status = os.stat(name)  # noqa: PTH116 (Path.exists and its like hide some errors)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AudioError(f"{name}: no such file: check the path") from error
        except (OSError, ValueError) as error:
            raise AudioError(f"{name:.200} can't be read ({_reason(error)}): check it") from error
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(
                f"{name} is a folder: give the audio files in it, such as {name}/*.wav"
            )
        if stat.S_ISFIFO(status.st_mode):
            return cls.from_bytes(Path(name).read_bytes(), name)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name} is neither a file nor a pipe: give an audio file")
        if not os.access(name, os.R_OK):
            raise AudioError(f"{name} can't be read: check its permissions")
        if status.st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file")
        return cls(name, name)

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> AudioDecoder:
        """Opens the content of a file.

        Raises:
            AudioError: also if there are no bytes.
        """
        if not data:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file's content")
        return cls(BytesIO(data), name)

    def chunks(self) -> Iterator[MonoSamples]:
        """Float32 samples at `rate_hz`, the mean of the channels, in consecutive chunks.

        Closes the file at the end: one pass only.

        Raises:
            AudioError: if decoding fails, audio is missing in the middle, rate or channels change,
                or the audio is shorter than the file states.
        """
        with self._container:
            try:
                decoded_seconds, end_seconds = yield from self._decode()
            except (av.error.FFmpegError, ValueError) as error:
                if isinstance(error, AudioError):
                    raise
                raise AudioError(
                    f"{self.name} is truncated or corrupt: decoding stopped ({_reason(error)}): "
                    "use a complete copy of the file"
                ) from error
            self._check_duration(decoded_seconds, end_seconds)

    def _decode(self) -> Generator[MonoSamples, None, tuple[float, float]]:
        """Yields chunks; returns their duration, and the time stamp at their end (both seconds)."""
        decoded_samples = 0
        # A track may begin late, except in Ogg, where that means a lost page.
        expected_seconds = 0.0 if self.format == "ogg" else None
        for frame in self._container.decode(self._stream):
            if (frame.sample_rate, frame.layout.nb_channels) != (self.rate_hz, self.channels):
                raise AudioError(
                    f"{self.name} changes from {self.rate_hz} Hz and {self.channels} channels to "
                    f"{frame.sample_rate} Hz and {frame.layout.nb_channels} midway: "
                    "split or re-encode it first"
                )
            if frame.time is not None:
                if expected_seconds is not None:
                    self._check_gap(expected_seconds, frame.time)
                expected_seconds = frame.time + frame.samples / frame.sample_rate
            decoded_samples += frame.samples
            yield _mono(frame)
        return decoded_samples / self.rate_hz, expected_seconds or 0.0

    def _check_gap(self, expected_seconds: float, seconds: float) -> None:
        if seconds - expected_seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is corrupt: its audio from {expected_seconds:.2f} s to "
                f"{seconds:.2f} s can't be decoded: use an intact copy of the file"
            )

    def _check_duration(self, decoded_seconds: float, end_seconds: float) -> None:
        """Raises AudioError if the header states a longer duration than was decoded.

        An MP3 without a Xing header states none: FFmpeg estimates it from the file's size, which is
        no evidence.
        """
        if self.format == "mp3" and not states_mp3_length(self._file):
            return
        container, stream = self._container, self._stream
        stated_seconds = 0.0
        if stream.duration and stream.time_base:
            stated_seconds = float(stream.duration * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            stated_seconds = container.duration / av.time_base
        elif tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
            # Matroska's tag states when a track ends; in a video, audio may begin late.
            hours, minutes, seconds = map(float, tag.groups())
            stated_seconds = 3600 * hours + 60 * minutes + seconds
            decoded_seconds = end_seconds
        if stated_seconds - decoded_seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is truncated: its header states {stated_seconds:.2f} s, but it holds "
                f"{decoded_seconds:.2f} s: use a complete copy of the file"
            )


def _mono(frame: av.AudioFrame) -> MonoSamples:
    """Mean of the channels in [-1, 1]: integers divided by full scale, 8 bit (unsigned) centred."""
    samples = cast(Any, frame.to_ndarray())
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(over="ignore", invalid="ignore"):  # Waveform reports what is not finite
        if samples.dtype == np.uint8:
            scaled = (samples.astype(np.float32) - 128) / 128
        elif np.issubdtype(samples.dtype, np.integer):
            scaled = samples.astype(np.float32) / float(2 ** (8 * samples.dtype.itemsize - 1))
        else:
            scaled = samples.astype(np.float32, copy=False)
        return scaled.mean(axis=0, dtype=np.float32)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

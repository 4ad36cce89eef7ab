"""A file's bytes → one channel of samples at its own rate. PyAV decodes; what is ours is to notice
when less comes out than the file promised, which FFmpeg passes over in silence."""

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

__all__ = ["MAX_CHANNELS", "MAX_RATE_HZ", "MIN_RATE_HZ", "Decoding", "check_rate_and_channels"]

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 768_000
"""Above any converter's rate (768 kHz), or below 1 kHz, the number is not a sampling rate."""
MAX_CHANNELS = 64

_TOLERANCE_SECONDS = 0.04
"""Missing audio is reported from one audio token (40 ms) up: lossy containers round durations."""

_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")

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
        tags: what the file says of itself: title, artist and the like, keys in lower case.

    Raises:
        AudioError: if it is empty, is not audio, has no audio track, or visibly ends too early.
    """

    def __init__(self, file: str | BufferedIOBase, name: str) -> None:
        if is_big_endian_wav(file):
            file = as_little_endian_wav(file)
        if missing := bytes_missing(file):
            raise AudioError(
                f"{name} is truncated: it says that at least {missing} more bytes follow than "
                "there are: copy or download the file again"
            )
        self.name = name
        self._file = file
        try:
            # "file:", or FFmpeg takes what stands before a colon in a name for a protocol.
            place = f"file:{file}" if isinstance(file, str) else file
            self._container = av.open(place, mode="r", metadata_errors="replace")
        except (av.error.FFmpegError, ValueError, OSError) as error:
            raise AudioError(
                f"{name} is not audio that can be read, or its header is damaged "
                f"({_reason(error)}): use wav, flac, mp3, ogg, opus, m4a, webm or mp4"
            ) from error
        stream = self._container.streams.best("audio")
        if not isinstance(stream, av.AudioStream):
            self._container.close()
            raise AudioError(f"{name} has no audio track: it holds no sound to hear")
        if not hasattr(stream, "sample_rate"):  # PyAV makes no decoder where FFmpeg has none
            self._container.close()
            raise AudioError(
                f"{name} holds sound in a form that FFmpeg can't decode: convert it to flac or wav"
            )
        self._stream = stream
        self.rate_hz, self.channels = stream.sample_rate or 0, stream.channels
        self.format = self._container.format.name
        said = {**stream.metadata, **self._container.metadata}
        self.tags = {key.lower(): text for key, text in said.items() if text}
        check_rate_and_channels(name, self.rate_hz, self.channels)

    @classmethod
    def of_path(cls, path: str | os.PathLike[str]) -> Decoding:
        """A file, or a pipe, which is read to its end first.

        Raises:
            AudioError: if there is no such thing, or it can't be read.
        """
        name = os.fsdecode(path)
        try:
            status = os.stat(name)  # noqa: PTH116 (a Path would hide some errors)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise AudioError(f"{name}: no such file: check the path") from error
        except (OSError, ValueError) as error:
            raise AudioError(f"{name:.200} can't be read ({_reason(error)}): check it") from error
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(
                f"{name} is a folder: name the audio files in it, such as {name}/*.wav"
            )
        if stat.S_ISFIFO(status.st_mode):
            return cls.of_bytes(Path(name).read_bytes(), name)
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name} is neither a file nor a pipe: name an audio file")
        if not os.access(name, os.R_OK):
            raise AudioError(f"{name} can't be read: check its permissions")
        if status.st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file")
        return cls(name, name)

    @classmethod
    def of_bytes(cls, data: bytes, name: str) -> Decoding:
        """Raises AudioError if there are no bytes."""
        if not data:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file's content")
        return cls(BytesIO(data), name)

    def chunks(self) -> Iterator[Chunk]:
        """Mono float32 samples (the mean of the channels) at `rate_hz`, from start to end.

        Raises:
            AudioError: if the recording is damaged, or shorter than it says.
        """
        with self._container:
            try:
                heard_seconds, end_seconds = yield from self._decode()
            except (av.error.FFmpegError, ValueError) as error:
                if isinstance(error, AudioError):
                    raise
                raise AudioError(
                    f"{self.name} is truncated or corrupt: decoding stopped ({_reason(error)}): "
                    "copy or download the file again"
                ) from error
            self._check_duration(heard_seconds, end_seconds)

    def _decode(self) -> Generator[Chunk, None, tuple[float, float]]:
        """Yield chunks; return how long they last, and at which time of the file they end."""
        decoded = 0
        # Where a track begins late it may well do so, except in Ogg: there a page is lost.
        expected_seconds = 0.0 if self.format == "ogg" else None
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
        return decoded / self.rate_hz, expected_seconds or 0.0

    def _check_gap(self, expected_seconds: float, seconds: float) -> None:
        if seconds - expected_seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is corrupt: its audio from {expected_seconds:.2f} s to "
                f"{seconds:.2f} s can't be decoded: copy or download the file again"
            )

    def _check_duration(self, heard_seconds: float, end_seconds: float) -> None:
        """A header that states more than was decoded means a file cut short.

        FFmpeg guesses an MP3's duration from its size where no Xing header states it: no evidence.
        """
        if self.format == "mp3" and not states_mp3_length(self._file):
            return
        container, stream = self._container, self._stream
        stated = 0.0
        if stream.duration and stream.time_base:
            stated = float(stream.duration * stream.time_base)
        elif container.duration and len(container.streams) == 1:
            stated = container.duration / av.time_base
        elif tag := _TAG.fullmatch(stream.metadata.get("DURATION", "")):
            # Matroska's tag states when a track ends; beside a picture sound may begin late.
            hours, minutes, seconds = map(float, tag.groups())
            stated, heard_seconds = 3600 * hours + 60 * minutes + seconds, end_seconds
        if stated - heard_seconds > _TOLERANCE_SECONDS:
            raise AudioError(
                f"{self.name} is truncated: it says {stated:.2f} s but holds {heard_seconds:.2f} "
                "s: copy or download the file again"
            )


def _mono(frame: av.AudioFrame) -> Chunk:
    """Mean of the channels in [-1, 1]: 8 bit is centred, integers are divided by full scale."""
    samples = cast(Any, frame.to_ndarray())
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    with np.errstate(over="ignore", invalid="ignore"):  # Waveform names what is not finite
        if samples.dtype == np.uint8:
            scaled = (samples.astype(np.float32) - 128) / 128
        elif np.issubdtype(samples.dtype, np.integer):
            scaled = samples.astype(np.float32) / float(2 ** (8 * samples.dtype.itemsize - 1))
        else:
            scaled = samples.astype(np.float32, copy=False)
        return scaled.mean(axis=0, dtype=np.float32)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)

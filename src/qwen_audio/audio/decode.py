"""Decode media files to mono samples at their own rate, with PyAV (FFmpeg).

FFmpeg ends silently where a file is truncated or damaged. Here that is an error, or stated in the
result: what was decoded is compared with what the file states.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from io import BufferedIOBase, BytesIO
from pathlib import Path
from typing import Any, cast

import av
import av.error
import numpy as np
from av.codec.context import Flags2

from qwen_audio.errors import AudioError, counted
from qwen_audio.paths import printable

from .containers import check_container
from .damage import TOLERANCE_SECONDS, MissingAudio, Position, tag_bytes
from .decode_limits import PATH_LIMITS, STREAM_LIMITS, DecodeLimits, DecodeMeter, ProcessorBudget
from .demux import (
    NOT_AUDIO,
    audio_tracks,
    choose_stream,
    in_seconds,
    open_container,
    payload_bytes,
    primed_samples,
    stated_seconds,
)
from .frames import AudioChunk, comfort_noise, mono_samples
from .load_options import OnDamage
from .media_file import check_readable, error_reason, read_stream, size_of
from .track import check_rate_and_channels
from .wav import as_plain_wav

__all__ = ["AudioDecoder"]

_LONGEST_SILENCE_SECONDS = 600.0
"""Missing audio is replaced by silence up to this length; a longer jump is a wrong time stamp."""


class AudioDecoder:
    """An opened media file: metadata of its audio tracks, and one pass over the samples of one.

    Args:
        file: a path or a seekable binary file.
        name: shown in messages.
        track: index of the audio track; None for FFmpeg's choice, which is the default track, or
            the one with most channels.
        on_damage: "raise", or "partial" to decode what can be decoded.
        limits: what decoding may take; None for those of paths, or of binary files.

    Attributes:
        name: as given.
        rate_hz, channels: of the audio track.
        format: FFmpeg's name of the container.
        tags: metadata such as title and artist, keys in lower case.
        tracks: every audio track of the file.
        track: index of the one that is decoded.
        missing: what could not be decoded; complete when `chunks` has ended. Without "partial",
            always empty.
        reopen: opens it once more, for another pass when this one is closed.

    Raises:
        AudioError: if it is not audio, has no audio track that FFmpeg can decode, ends before the
            end that its container states, or states an implausible rate or number of channels.
        OptionError: for a track that the file doesn't have.
    """

    def __init__(
        self,
        file: str | BufferedIOBase,
        name: str,
        *,
        track: int | None = None,
        on_damage: OnDamage = "raise",
        limits: DecodeLimits | None = None,
    ) -> None:
        self.name, self._on_damage = name, on_damage
        self._limits = limits or (PATH_LIMITS if isinstance(file, str) else STREAM_LIMITS)
        self._missing: list[MissingAudio] = []
        options: dict[str, Any] = {"track": track, "on_damage": on_damage, "limits": limits}
        self.reopen = partial(AudioDecoder, file, name, **options)
        self._budget = ProcessorBudget(name, self._limits.max_reading_seconds)
        with contextlib.ExitStack() as resources:
            self._budget.run()
            self._open(resources, file, track)
            self._budget.pause()
            self._resources = resources.pop_all()

    def _open(
        self, resources: contextlib.ExitStack, file: str | BufferedIOBase, track: int | None
    ) -> None:
        name = self.name
        try:
            if isinstance(file, str):
                file = resources.enter_context(Path(file).open("rb"))  # noqa: SIM115
        except OSError as error:
            raise AudioError(f"{name} can't be read ({error_reason(error)}): check it") from error
        self._file = as_plain_wav(file) or file
        self._meter = DecodeMeter(name, self._limits, size_of(self._file))
        self._missing_bytes, self._ogg = check_container(
            self._file, name, self._limits, self._budget, self._on_damage
        )
        self._container = resources.enter_context(open_container(self._file, name, self._budget))
        streams = self._container.streams.audio
        self.tracks = audio_tracks(self._container)
        self._stream = choose_stream(self._container, name, track)
        self.track = next(k for k, stream in enumerate(streams) if stream is self._stream)
        self._payload_bytes = payload_bytes(self._container, self._stream, self._file)
        self.rate_hz, self.channels = self._stream.sample_rate or 0, self._stream.channels
        self.format = self._container.format.name
        if self.format == "caf" and self._stream.codec_context.name == "alac":
            # The last packet has only the samples that remain, and FFmpeg would trim it once more.
            self._stream.codec_context.flags2 |= Flags2.skip_manual
        metadata = {**self._stream.metadata, **self._container.metadata}
        self.tags = {key.lower(): text for key, text in metadata.items() if text}
        if not self.rate_hz or not self.channels:
            raise AudioError(NOT_AUDIO.format(name, "no sampling rate or no channels"))
        check_rate_and_channels(name, self.rate_hz, self.channels)
        start_seconds = in_seconds(self._stream.start_time, self._stream.time_base) or 0.0
        if self._on_damage == "raise" and (stated := self._stated_seconds(start_seconds)):
            self._meter.check_stated(stated, self.rate_hz, self.channels)

    @classmethod
    def from_path(cls, path: str | os.PathLike[str], **options: Any) -> AudioDecoder:
        """Opens a file, or a pipe, which is read to its end first.

        Args:
            options: see the class.

        Raises:
            AudioError: also if it does not exist, is empty, or can't be read.
        """
        name = os.fsdecode(path)
        if check_readable(name):
            with Path(name).open("rb") as pipe:
                data = read_stream(pipe, printable(name), options.get("limits"))
            return cls.from_bytes(data, printable(name), **options)
        return cls(name, printable(name), **options)

    @classmethod
    def from_bytes(cls, data: bytes, name: str, **options: Any) -> AudioDecoder:
        """Opens the content of a file.

        Args:
            options: see the class.

        Raises:
            AudioError: also if there are no bytes.
        """
        if not data:
            raise AudioError(f"{name} is empty (0 bytes): expected an audio file's content")
        return cls(BytesIO(data), name, **options)

    def __enter__(self) -> AudioDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. `chunks` does so at its end."""
        self._resources.close()

    @property
    def missing(self) -> tuple[MissingAudio, ...]:
        """What could not be decoded so far."""
        return tuple(self._missing)

    def chunks(self) -> Iterator[AudioChunk]:
        """Float32 samples, the mean of the channels, in consecutive chunks.

        Closes the file at the end: one pass only.

        Raises:
            AudioError: if audio that the file should hold can't be decoded, unless `on_damage` is
                "partial"; and as soon as it is more than the limits allow.
        """
        stream = self._stream
        start_seconds = in_seconds(stream.start_time, stream.time_base)
        position = Position(self.format, start_seconds)
        with self:
            for frame in self._frames(position):
                if gap := position.missing_before(frame.time):
                    yield from self._fill(*gap, frame)
                position.advance(frame.samples / frame.sample_rate)
                self._meter.add_audio(frame.samples, frame.sample_rate, frame.layout.nb_channels)
                yield AudioChunk(mono_samples(frame), frame.sample_rate)
            self._check_end(position)

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            self._budget.run()
            packet = next(packets, None)
            self._budget.check()
            self._budget.pause()
            if packet is None:
                return
            self._meter.add_packet(packet.size)
            yield packet

    def _frames(self, position: Position) -> Iterator[av.AudioFrame]:
        """Decoded frames. Packets that can't be decoded are counted in `position`, but for tags."""
        tag_rest = 0
        try:
            for packet in self._packets():
                if packet.has_sidedata("skip_samples"):
                    position.primed_seconds += primed_samples(packet) / self.rate_hz
                try:
                    frames = cast("list[av.AudioFrame]", packet.decode())
                except (av.error.InvalidDataError, ValueError):
                    if silence := comfort_noise(self._stream, bytes(packet)[:1]):
                        yield silence
                        continue
                    tag_rest = max(tag_rest, tag_bytes(bytes(packet)[:16]))
                    if tag_rest <= 0 and packet.size:
                        position.undecodable(packet.size)
                    tag_rest -= packet.size
                    continue
                position.decoded_bytes += packet.size
                for frame in frames:
                    check_rate_and_channels(self.name, frame.sample_rate, frame.layout.nb_channels)
                    tag_rest = 0
                    yield frame
        except av.error.FFmpegError as error:
            if not position.decoded_seconds:
                raise AudioError(
                    f"{self.name} can't be decoded ({error_reason(error)}): use an intact copy "
                    "of the file"
                ) from error
            # FFmpeg can't go on: the stated length tells whether anything is missing.
            position.undecodable(0)

    def _fill(self, start: float, end: float, next_frame: av.AudioFrame) -> Iterator[AudioChunk]:
        """Silence in place of missing audio; an error unless `on_damage` is "partial"."""
        if self._on_damage == "raise":
            raise AudioError(
                f"{self.name} is damaged: its audio from {start:.2f} s to {end:.2f} s can't be "
                "decoded: use an intact copy of the file, or on_damage='partial' for the rest"
            )
        filled = end - start <= _LONGEST_SILENCE_SECONDS
        self._missing.append(MissingAudio(start, end, "can't be decoded", filled=filled))
        if filled:
            rate_hz = next_frame.sample_rate
            samples = round((end - start) * rate_hz)
            self._meter.add_audio(samples, rate_hz, next_frame.layout.nb_channels)
            yield AudioChunk(np.zeros(samples, np.float32), rate_hz)

    def _stated_seconds(self, start_seconds: float) -> float | None:
        return stated_seconds(self._container, self._stream, self._file, self._ogg, start_seconds)

    def _check_end(self, position: Position) -> None:
        """Compare what was decoded with the length that the file states.

        Raises:
            AudioError: unless `on_damage` is "partial".
        """
        stated = self._stated_seconds(position.start_seconds)
        length = position.length_seconds
        gap = position.missing_at_end(stated)
        if position.is_exact and stated and length - stated > TOLERANCE_SECONDS:
            problem = (
                f"is damaged: its header states {stated:.2f} s, but it holds {length:.2f} s: use "
                "an intact copy of the file, or on_damage='partial' for all that it holds"
            )
            missing = MissingAudio(stated, length, "is more than the file's header states")
        elif gap is not None:
            problem = (
                f"is truncated: it should hold {gap[1]:.2f} s, but {length:.2f} s can be decoded: "
                "use a complete copy of the file, or on_damage='partial' for what there is"
            )
            missing = MissingAudio(*gap, "is missing at the end of the file")
        elif scattered := position.scattered_seconds(self._payload_bytes):
            problem = (
                f"is damaged: about {scattered:.2f} s in several places can't be decoded: use an "
                "intact copy of the file, or on_damage='partial' for the rest"
            )
            missing = MissingAudio(0.0, length, f"lacks about {scattered:.2f} s")
        elif self._missing_bytes:
            missing = MissingAudio(
                length,
                length,
                f"and what follows is missing ({counted(self._missing_bytes, 'byte')} or more)",
            )
        else:
            return
        if self._on_damage == "raise":
            raise AudioError(f"{self.name} {problem}")
        self._missing.append(missing)

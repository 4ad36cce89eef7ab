"""FFmpeg's view of a media file: opened without access to anything else, and its audio tracks."""

from __future__ import annotations

import errno
import re
from io import BufferedIOBase
from pathlib import Path
from typing import Any, cast

import av
import av.error
from av.stream import Discard

from qwen_audio.errors import AudioError, OptionError

from .containers import mp3_seconds
from .damage import STATED_FORMATS
from .decode_limits import ProcessorBudget
from .formats import SELF_CONTAINED_FORMATS, audio_decoders, what_it_is
from .media_file import MediaFile, error_reason, read_at, size_of
from .ogg import OggSummary
from .track import AudioTrack
from .wav import wav_chunks

__all__ = [
    "NOT_AUDIO",
    "audio_tracks",
    "choose_stream",
    "in_seconds",
    "open_container",
    "payload_bytes",
    "primed_samples",
    "stated_seconds",
]

NOT_AUDIO = (
    "{} can't be decoded: it is not audio, or its header is damaged ({}): use wav, flac, mp3, ogg, "
    "opus, m4a, webm or mp4"
)
_MAX_TRACKS = 100
"""Of all kinds: each has a decoder and buffers of its own."""
_REASONS = {
    errno.EINVAL: "no format that states its sampling rate and holds its own audio",
    errno.ENOMEM: f"it has more than {_MAX_TRACKS} tracks, or needs more memory than there is",
}
"""What FFmpeg's errors mean for a file that is opened with these options."""


def open_container(file: BufferedIOBase, name: str, budget: ProcessorBudget) -> Any:
    """FFmpeg's view of a file; it can't open others."""
    options = {
        "format_whitelist": ",".join(SELF_CONTAINED_FORMATS),
        "codec_whitelist": audio_decoders(),
        "protocol_whitelist": "none",
        "max_streams": str(_MAX_TRACKS),
        "ignore_chapters": "1",  # of MP4: as many as there are samples of a track
    }
    media_file = MediaFile(file, name, budget)
    try:
        container = av.open(media_file, "r", metadata_errors="replace", container_options=options)
        budget.check()
        return container
    except (av.error.FFmpegError, ValueError, OSError) as error:
        budget.check()
        if known := what_it_is(read_at(file, 0, 4096), Path(media_file.name).suffix):
            raise AudioError(f"{name} can't be decoded: it is not audio but {known}") from error
        reason = _REASONS.get(getattr(error, "errno", 0) or 0) or error_reason(error)
        raise AudioError(NOT_AUDIO.format(name, reason)) from error


def audio_tracks(container: Any) -> tuple[AudioTrack, ...]:
    """Every audio track of an opened file."""
    return tuple(_audio_track(*indexed) for indexed in enumerate(container.streams.audio))


def _audio_track(index: int, stream: Any) -> AudioTrack:
    has_decoder = hasattr(stream, "sample_rate")
    return AudioTrack(
        index,
        stream.codec_context.name if has_decoder else "unknown",
        (stream.sample_rate or 0) if has_decoder else 0,
        stream.channels if has_decoder else 0,
        stream.metadata.get("language", "").replace("und", ""),
        stream.metadata.get("title", ""),
        in_seconds(stream.duration, stream.time_base),
    )


_DURATION_TAG = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")


def payload_bytes(container: Any, stream: Any, file: BufferedIOBase) -> int | None:
    """Bytes of audio that the chunks of a WAV or W64 file, or the index of an AVI file, state."""
    if container.format.name in ("wav", "w64") and stream.codec_context.name != "dca":
        size = size_of(file)  # DTS is padded
        data = (chunk for chunk in wav_chunks(file) if chunk.name == b"data")
        return sum(min(chunk.stop or size, size) - chunk.start for chunk in data)
    if container.format.name == "avi":
        return sum(entry.size for entry in stream.index_entries) or None
    return None


def in_seconds(ticks: int | None, time_base: Any) -> float | None:
    """A time or duration of FFmpeg's, in seconds; None if it is unknown."""
    return None if ticks is None or not time_base else float(ticks * time_base)


def primed_samples(packet: Any) -> int:
    """Samples to discard at a packet's start: the first of two little-endian 32-bit numbers."""
    return int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")


def choose_stream(container: Any, name: str, track: int | None) -> av.AudioStream:
    """The audio stream of a track; None for FFmpeg's choice.

    Raises:
        AudioError: if there is none, or no decoder for it.
        OptionError: for a track that the file doesn't have.
    """
    streams, tracks = container.streams, audio_tracks(container)
    if not tracks:
        raise AudioError(f"{name} has no audio track: use a file that holds audio")
    if track is None:
        stream = streams.best("audio") or streams.audio[0]
    elif isinstance(track, bool) or track not in range(len(tracks)):
        kind = "one audio track" if len(tracks) == 1 else "the audio tracks"
        raise OptionError(
            f"track={track!r}: {name} has {kind} {', '.join(map(str, tracks))}: "
            "choose one by its number"
        )
    else:
        stream = streams.audio[track]
    if not hasattr(stream, "sample_rate"):  # PyAV makes no decoder where FFmpeg has none
        raise AudioError(
            f"{name} can't be decoded: FFmpeg has no decoder for its audio codec: "
            "convert it to flac or wav"
        )
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return cast(av.AudioStream, stream)


def stated_seconds(
    container: Any, stream: Any, file: BufferedIOBase, ogg: OggSummary, start_seconds: float
) -> float | None:
    """The duration that the file states; None for an estimate of FFmpeg's.

    Args:
        ogg: what its pages state, if it is an Ogg file.
        start_seconds: time stamp at which the track begins.
    """
    if ogg.end_seconds is not None:
        return ogg.end_seconds - start_seconds
    if container.format.name == "mp3":
        return mp3_seconds(file)
    if container.format.name not in STATED_FORMATS:
        return None
    is_of_file = container.format.name == "asf" and len(container.streams) > 1
    if (seconds := in_seconds(stream.duration, stream.time_base)) and not is_of_file:
        return seconds
    if tag := _DURATION_TAG.fullmatch(stream.metadata.get("DURATION", "")):
        # Matroska's tag states when a track ends; in a video, audio may begin late.
        hours, minutes, tag_seconds = map(float, tag.groups())
        start = in_seconds(stream.start_time, stream.time_base) or 0.0
        return 3600 * hours + 60 * minutes + tag_seconds - start
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None

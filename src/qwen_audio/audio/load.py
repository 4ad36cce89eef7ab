"""Load files, bytes, pipes and arrays as a Waveform: mixed to mono, resampled to 16 kHz."""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from collections.abc import Generator
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError, AudioWarning
from qwen_audio.paths import is_uri, path_from_text, printable

from .arrays import waveform_from_array
from .decode import AudioDecoder
from .decode_limits import DecodeLimits
from .inputs import AudioInput
from .load_options import LoadOptions, OnDamage
from .media_file import read_stream
from .resample import resampled
from .source import Source
from .unwrap import unwrapped
from .waveform import RecordingInfo, Waveform

__all__ = ["decoded_samples", "load_waveform", "open_audio", "recording_info", "warn_of"]


def load_waveform(
    audio: AudioInput | Any,
    *,
    sampling_rate: float | None = None,
    track: int | None = None,
    on_damage: OnDamage = "raise",
    limits: DecodeLimits | None = None,
) -> Waveform:
    """Load audio as a Waveform: the mean of its channels, resampled to 16 kHz by soxr (HQ).

    Args:
        audio: a path or `file://` URI, "-" for standard input, the address of a file in any of
            fsspec's file systems (`https://…`, `s3://…`, `zip://a.flac::b.zip`), bytes, a binary
            file object, a Waveform, an array or tensor of shape (samples,) or (channels, samples),
            or what other libraries load (see `unwrapped`): a row of Hugging Face's `datasets` or
            its audio, torchcodec's decoder or samples, a pair of array and sampling rate. Float
            arrays lie in [-1, 1]; integers of up to 32 bits are divided by their type's full scale.
        sampling_rate: of an array, in Hz. Required for arrays, an error with anything else, as
            files and other libraries' objects state their own.
        track: which audio track of a file, from 0 on; by default FFmpeg's choice. `tracks` of the
            result lists them.
        on_damage: "partial" decodes what can be decoded of a damaged file; `missing` of the result
            says what could not be. "raise" makes it an error.
        limits: audio beyond them is an error, and no more than they allow is decoded, so that a
            small file that holds days of audio costs neither memory nor time. By default two days
            of a file, one day of anything else; see `DecodeLimits`.

    Raises:
        AudioError: if the input is missing, can't be decoded, is incomplete, too long or too short,
            not finite, or of a type or shape that is not audio. The message names the input.
        OptionError: for a track that the file doesn't have, or a track of an array; for a rate or
            limit that is no number.
    """
    options = LoadOptions(sampling_rate, track, on_damage, limits)
    opened = open_audio(audio, options)
    if isinstance(opened, Waveform):
        waveform = opened
    else:
        waveform = _decode(opened)
        warn_of(waveform.info, options)
    if limits is not None:
        limits.check_seconds(waveform.name, waveform.duration_seconds)
    return waveform


def open_audio(audio: Any, options: LoadOptions) -> Waveform | AudioDecoder:
    """An audio input as the decoder of its file, opened; an array or a waveform as a Waveform.

    Raises:
        AudioError, OptionError: as `load_waveform`, for what is known before it is decoded.
    """
    sampling_rate = options.sampling_rate
    inner = unwrapped(audio)
    if inner.is_array:
        if inner.sampling_rate is not None and sampling_rate is not None:
            raise _states_its_rate(sampling_rate, f"a {type(audio).__name__}")
        rate = sampling_rate if inner.sampling_rate is None else inner.sampling_rate
        waveform = waveform_from_array(inner.audio, rate, inner.name)
        options.check_no_track(waveform.name, "has no tracks")
        return waveform
    if isinstance(inner.audio, int | float):
        raise AudioError(
            f"{audio!r} is a number, not audio: a list holds several recordings; give the samples "
            "of one as an array, numpy.asarray(samples)"
        )
    if sampling_rate is not None:
        kind = "a Waveform" if isinstance(audio, Waveform) else f"{audio!r:.80}"
        raise _states_its_rate(sampling_rate, kind)
    if isinstance(inner.audio, Waveform):
        options.check_no_track(inner.audio.name, "was decoded already")
        return inner.audio
    if isinstance(audio, str) and is_uri(audio):  # the caller's own; not one found in a data set
        return _open_decoder(Source(printable(audio)).audio_input(), options)
    return _open_decoder(inner.audio, options)


def warn_of(recording: RecordingInfo, options: LoadOptions) -> None:
    """Warn of missing audio, and of other tracks unless one was chosen."""
    for note in recording.notes:
        if recording.missing or options.track is None:
            warnings.warn(note, AudioWarning, stacklevel=3)


def _states_its_rate(sampling_rate: float, kind: str) -> AudioError:
    return AudioError(
        f"sampling_rate={sampling_rate} was given with {kind}, which states its own rate: "
        "leave sampling_rate out (it is for arrays)"
    )


def _standard_input(limits: DecodeLimits | None) -> bytes:
    try:
        return read_stream(sys.stdin.buffer, "standard input", limits)
    except AttributeError as error:  # it is None in a process without one
        raise AudioError(
            "standard input can't be read (it is closed): pipe an audio file into it"
        ) from error


def _open_decoder(audio: Any, options: LoadOptions) -> AudioDecoder:
    settings: dict[str, Any] = {"track": options.track, "on_damage": options.on_damage}
    settings["limits"] = options.limits
    if isinstance(audio, str) and audio == "-":
        data = _standard_input(options.limits)
        return AudioDecoder.from_bytes(data, "standard input", **settings)
    if isinstance(audio, str | os.PathLike):
        return AudioDecoder.from_path(path_from_text(os.fsdecode(audio)), **settings)
    if isinstance(audio, bytes | bytearray | memoryview):
        return AudioDecoder.from_bytes(bytes(audio), f"bytes ({len(audio)})", **settings)
    if hasattr(audio, "read"):
        name = str(getattr(audio, "name", None) or type(audio).__name__)
        return AudioDecoder.from_bytes(read_stream(audio, name, options.limits), name, **settings)
    hint = "; for several, give a list" if hasattr(audio, "__iter__") else ""
    raise AudioError(
        f"{type(audio).__name__!r} is not audio: give a path, bytes, a binary file object, "
        f"or an array with sampling_rate={hint}"
    )


def decoded_samples(decoder: AudioDecoder) -> Generator[Float32[np.ndarray, "part"]]:
    """The samples of an opened file at 16 kHz, in consecutive chunks; ends as `chunks` does."""
    by_rate = itertools.groupby(decoder.chunks(), lambda chunk: chunk.rate_hz)
    # Joined files may change their rate midway: each part is resampled from its own.
    for rate, chunks in by_rate:
        yield from resampled((chunk.samples for chunk in chunks), rate)


def recording_info(decoder: AudioDecoder, duration_seconds: float) -> RecordingInfo:
    """Metadata of a recording that was decoded to its end."""
    return RecordingInfo(
        printable(decoder.name),
        duration_seconds,
        decoder.rate_hz,
        decoder.channels,
        decoder.format,
        decoder.tags,
        decoder.tracks,
        decoder.track,
        decoder.missing,
    )


def _decode(decoder: AudioDecoder) -> Waveform:
    parts = list(decoded_samples(decoder))
    return Waveform(
        np.concatenate([*parts, np.zeros(0, np.float32)]),
        name=decoder.name,
        source_rate_hz=decoder.rate_hz,
        source_channels=decoder.channels,
        source_format=decoder.format,
        tags=decoder.tags,
        tracks=decoder.tracks,
        track=decoder.track,
        missing=decoder.missing,
    )

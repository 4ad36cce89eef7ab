"""Load files, bytes, pipes and arrays as a Waveform: mixed to mono, resampled to 16 kHz."""

from __future__ import annotations

import io
import itertools
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from qwen_audio.errors import AudioError, AudioWarning
from qwen_audio.paths import path_from_text

from .decode import AudioChunk, AudioDecoder
from .inputs import AudioInput
from .load_options import LoadOptions, OnDamage
from .resample import resample
from .track import check_rate_and_channels
from .waveform import Waveform

__all__ = ["MAX_ARRAY_CHANNELS", "load_waveform"]

MAX_ARRAY_CHANNELS = 8
"""Most rows of an array that are taken for channels (7.1 has 8). More mean a batch, or an array of
shape (samples, channels)."""


def load_waveform(
    audio: AudioInput | Any,
    *,
    sampling_rate: float | None = None,
    max_seconds: float | None = None,
    track: int | None = None,
    on_damage: OnDamage = "raise",
) -> Waveform:
    """Load audio as a Waveform: the mean of its channels, resampled to 16 kHz by soxr (HQ).

    Args:
        audio: a path, "-" for standard input, bytes, a binary file object, a Waveform, an array or
            tensor of shape (samples,) or (channels, samples), or a Hugging Face `datasets` dict
            {"array": …, "sampling_rate": …}. Float arrays lie in [-1, 1]; integers of up to 32
            bits are divided by their type's full scale.
        sampling_rate: of an array, in Hz. Required for arrays, an error with anything else, as
            files state their own.
        max_seconds: longer audio is an error. No more than this is decoded of a file, so that a
            small file that holds days of audio costs neither memory nor time.
        track: which audio track of a file, from 0 on; by default FFmpeg's choice. `tracks` of the
            result lists them.
        on_damage: "partial" decodes what can be decoded of a damaged file; `missing` of the result
            says what could not be. "raise" makes it an error.

    Raises:
        AudioError: if the input is missing, can't be decoded, is incomplete, too long or too short,
            not finite, or of a type or shape that is not audio. The message names the input.
        OptionError: for a track that the file doesn't have, or a track of an array.
    """
    options = LoadOptions(sampling_rate, track, on_damage)
    limit = math.inf if max_seconds is None else max_seconds
    waveform = _load(audio, options, limit)
    if max_seconds is not None and waveform.duration_seconds > max_seconds:
        raise _too_long(waveform.name, max_seconds)
    return waveform


def _load(audio: Any, options: LoadOptions, max_seconds: float) -> Waveform:
    sampling_rate = options.sampling_rate
    if isinstance(audio, Mapping) and audio.keys() >= {"array", "sampling_rate"}:
        options = replace(options, sampling_rate=audio["sampling_rate"])
        return _load(audio["array"], options, max_seconds)
    if isinstance(audio, np.ndarray) or hasattr(audio, "__array__"):
        waveform = _from_array(audio, sampling_rate)
        options.check_no_track(waveform.name, "has no tracks")
        return waveform
    if isinstance(audio, int | float):
        raise AudioError(
            f"{audio!r} is a number, not audio: a list holds several recordings; give the samples "
            "of one as an array, numpy.asarray(samples)"
        )
    if sampling_rate is not None:
        kind = "a Waveform" if isinstance(audio, Waveform) else f"{audio!r:.80}"
        raise AudioError(
            f"sampling_rate={sampling_rate} was given with {kind}, which states its own rate: "
            "leave sampling_rate out (it is for arrays)"
        )
    if isinstance(audio, Waveform):
        options.check_no_track(audio.name, "was decoded already")
        return audio
    waveform = _decode(_open_decoder(audio, options), max_seconds)
    for note in waveform.info.notes:
        if waveform.missing or options.track is None:
            warnings.warn(note, AudioWarning, stacklevel=2)
    return waveform


def _open_decoder(audio: Any, options: LoadOptions) -> AudioDecoder:
    settings: dict[str, Any] = {"track": options.track, "on_damage": options.on_damage}
    if isinstance(audio, str) and audio == "-":
        return AudioDecoder.from_bytes(sys.stdin.buffer.read(), "standard input", **settings)
    if isinstance(audio, str | os.PathLike):
        return AudioDecoder.from_path(path_from_text(os.fsdecode(audio)), **settings)
    if isinstance(audio, bytes | bytearray | memoryview):
        return AudioDecoder.from_bytes(bytes(audio), f"bytes ({len(audio)})", **settings)
    if hasattr(audio, "read"):
        name = str(getattr(audio, "name", None) or type(audio).__name__)
        try:
            data = None if isinstance(audio, io.TextIOBase) else audio.read()
        except (OSError, ValueError) as error:
            raise AudioError(f"{name} can't be read ({error}): open it for reading") from error
        if not isinstance(data, bytes):
            raise AudioError(f"{name} gives text, not bytes: open the file with mode 'rb'")
        return AudioDecoder.from_bytes(data, name, **settings)
    hint = "; for several, give a list" if hasattr(audio, "__next__") else ""
    raise AudioError(
        f"{type(audio).__name__!r} is not audio: give a path, bytes, a binary file object, "
        f"or an array with sampling_rate={hint}"
    )


def _decode(decoder: AudioDecoder, max_seconds: float) -> Waveform:
    by_rate = itertools.groupby(_chunks_up_to(max_seconds, decoder), lambda chunk: chunk.rate_hz)
    # Joined files may change their rate midway: each part is resampled from its own.
    parts = [resample((chunk.samples for chunk in chunks), rate) for rate, chunks in by_rate]
    return Waveform(
        parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, np.float32)]),
        name=decoder.name,
        source_rate_hz=decoder.rate_hz,
        source_channels=decoder.channels,
        source_format=decoder.format,
        tags=decoder.tags,
        tracks=decoder.tracks,
        track=decoder.track,
        missing=decoder.missing,
    )


def _chunks_up_to(max_seconds: float, decoder: AudioDecoder) -> Iterator[AudioChunk]:
    """The decoder's chunks; an error as soon as they last longer than `max_seconds`."""
    seconds = 0.0
    for chunk in decoder.chunks():
        seconds += chunk.samples.size / chunk.rate_hz
        if seconds > max_seconds + 1e-6:  # less than a sample: rounding
            raise _too_long(decoder.name, max_seconds)
        yield chunk


def _too_long(name: str, max_seconds: float) -> AudioError:
    return AudioError(
        f"{name} is longer than the limit of {max_seconds:g} s: cut it into shorter files"
    )


def _from_array(audio: Any, sampling_rate: Any) -> Waveform:
    if hasattr(audio, "detach"):  # a torch tensor; NumPy has no bfloat16
        audio = audio.detach().cpu()
        audio = audio.float() if audio.is_floating_point() else audio
    array = np.asarray(audio)
    name = f"array {array.shape}"
    if sampling_rate is None:
        raise AudioError(f"{name} has no sampling rate: pass sampling_rate= in Hz")
    if array.ndim not in (1, 2) or array.dtype.kind not in "fiu":
        raise AudioError(
            f"{name} of {array.dtype} is not audio: use numbers of shape (samples,) or "
            "(channels, samples)"
        )
    channels = array.shape[0] if array.ndim == 2 else 1
    if channels > MAX_ARRAY_CHANNELS:
        transposed = array.shape[1] <= MAX_ARRAY_CHANNELS
        hint = "transpose it" if transposed else "give several recordings as a list"
        raise AudioError(
            f"{name} has {channels} rows, but an array is one recording, (samples,) or (channels, "
            f"samples) with up to {MAX_ARRAY_CHANNELS} channels: {hint}"
        )
    is_number = isinstance(sampling_rate, int | float | np.integer | np.floating)
    if not is_number or isinstance(sampling_rate, bool):
        raise AudioError(f"{name}: sampling_rate={sampling_rate!r} is not a number of Hz")
    check_rate_and_channels(name, float(sampling_rate), channels)
    scaled = _scaled_to_float32(array, name)
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=0, dtype=np.float32)
    samples = resample([mono], float(sampling_rate))
    return Waveform(
        samples, name=name, source_rate_hz=round(float(sampling_rate)), source_channels=channels
    )


def _scaled_to_float32(array: np.ndarray, name: str) -> Float32[np.ndarray, "..."]:
    """Floats as they are; integers divided by their full scale, unsigned ones centred first."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows is infinite, which Waveform refuses
            return array.astype(np.float32)
    bits = np.iinfo(array.dtype).bits
    full_scale = 2 ** (bits - 1)
    zero = 0 if array.dtype.kind == "i" else full_scale
    scaled = ((array.astype(np.float64) - zero) / full_scale).astype(np.float32)
    peak = np.abs(scaled).max(initial=0)
    if bits > 32 or (bits == 32 and 0 < peak < 2**-16):
        raise AudioError(
            f"{name} of {array.dtype} has an unknown full scale: taken as {full_scale:.3g}, it "
            f"is silent (peak {peak:.1e}): convert it to the width it was recorded with, such as "
            "int16, or to float in [-1, 1]"
        )
    return scaled

"""Anything that holds sound → a Waveform: a file, bytes, a pipe, an array with its rate."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Protocol, cast, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float32

from qwen_audio.errors import AudioError

from .decode import Decoding, check_rate_and_channels
from .waveform import SAMPLE_RATE_HZ, Waveform

__all__ = ["AudioInput", "Many", "load_waveform", "open_inputs"]

MAX_ARRAY_CHANNELS = 8
"""Rows of an array taken for channels (7.1 has 8). More are a batch, or the wrong way up."""


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays, torch tensors, and whatever else NumPy can read."""

    def __array__(self) -> np.ndarray: ...


AudioInput = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Waveform | SupportsArray
)
"""A path, `-` for standard input, bytes, a binary file object, a Waveform, or (with
`sampling_rate=`) an array or tensor of shape (samples,) or (channels, samples)."""


def load_waveform(
    audio: AudioInput | Any,
    *,
    sampling_rate: float | None = None,
    max_seconds: float | None = None,
) -> Waveform:
    """Anything that holds sound → a Waveform: mixed to mono by the mean, resampled by soxr's HQ.

    Args:
        audio: a path, "-" for standard input, bytes, a binary file object, a Waveform, an array or
            tensor of shape (samples,) or (channels, samples), or a Hugging Face `datasets` dict
            {"array": …, "sampling_rate": …}. Float arrays lie in [-1, 1]; integers of up to 32
            bits are divided by their type's full scale.
        sampling_rate: of an array, in Hz. Required there, refused elsewhere: files state theirs.
        max_seconds: refuse what is longer. Of a file no more than that is decoded to find out, so
            that a small file that holds days of sound takes neither memory nor time.

    Raises:
        AudioError: naming the input and what is wrong with it.
    """
    waveform = _load(audio, sampling_rate, math.inf if max_seconds is None else max_seconds)
    if max_seconds is not None and waveform.duration_seconds > max_seconds:
        raise _too_long(waveform.name, max_seconds)
    return waveform


def _load(audio: Any, sampling_rate: float | None, max_seconds: float) -> Waveform:
    if isinstance(audio, Mapping) and audio.keys() >= {"array", "sampling_rate"}:
        return _load(audio["array"], audio["sampling_rate"], max_seconds)
    if isinstance(audio, np.ndarray) or hasattr(audio, "__array__"):
        return _from_array(audio, sampling_rate)
    if isinstance(audio, int | float):
        raise AudioError(
            f"{audio!r} is a number, not audio: a list is a list of recordings; give the samples "
            "of one as an array, numpy.asarray(samples)"
        )
    if sampling_rate is not None:
        kind = "a Waveform" if isinstance(audio, Waveform) else f"{audio!r:.80}"
        raise AudioError(
            f"sampling_rate={sampling_rate} was given with {kind}, which states its own rate: "
            "leave sampling_rate out (it is for arrays)"
        )
    if isinstance(audio, Waveform):
        return audio
    return _from_encoded(_open(audio), max_seconds)


def _open(audio: Any) -> Decoding:
    if audio == "-":
        return Decoding.of_bytes(sys.stdin.buffer.read(), "standard input")
    if isinstance(audio, str | os.PathLike):
        return Decoding.of_path(audio)
    if isinstance(audio, bytes | bytearray | memoryview):
        return Decoding.of_bytes(bytes(audio), f"bytes ({len(audio)})")
    if hasattr(audio, "read"):
        name = str(getattr(audio, "name", None) or type(audio).__name__)
        try:
            data = None if isinstance(audio, io.TextIOBase) else audio.read()
        except (OSError, ValueError) as error:
            raise AudioError(f"{name} can't be read ({error}): open it for reading") from error
        if not isinstance(data, bytes):
            raise AudioError(f"{name} gives text, not bytes: open the file with mode 'rb'")
        return Decoding.of_bytes(data, name)
    hint = "; for several, give a list" if hasattr(audio, "__next__") else ""
    raise AudioError(
        f"{type(audio).__name__!r} is not audio: give a path, bytes, a binary file object, "
        f"or an array with sampling_rate={hint}"
    )


def _from_encoded(decoding: Decoding, max_seconds: float) -> Waveform:
    chunks = _at_most(decoding.chunks(), max_seconds, decoding)
    samples = _resample(chunks, decoding.rate_hz)
    return Waveform(
        samples,
        name=decoding.name,
        source_rate_hz=decoding.rate_hz,
        source_channels=decoding.channels,
        source_format=decoding.format,
        tags=decoding.tags,
    )


def _from_array(audio: Any, sampling_rate: Any) -> Waveform:
    if hasattr(audio, "detach"):  # a torch tensor, whose half types NumPy lacks
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
        hint = "transpose it" if array.shape[1] <= MAX_ARRAY_CHANNELS else "a batch is a list"
        raise AudioError(
            f"{name} has {channels} rows, but an array is one recording, (samples,) or (channels, "
            f"samples) with up to {MAX_ARRAY_CHANNELS} channels: {hint}"
        )
    real = isinstance(sampling_rate, int | float | np.integer | np.floating)
    if not real or isinstance(sampling_rate, bool):
        raise AudioError(f"{name}: sampling_rate={sampling_rate!r} is not a number of Hz")
    check_rate_and_channels(name, float(sampling_rate), channels)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # beyond float32 lies infinity, which is refused below
            scaled = array.astype(np.float32)
    else:  # full scale is 1, as in a file; unsigned integers are centred first
        limits = np.iinfo(array.dtype)
        middle = 0 if array.dtype.kind == "i" else 2 ** (limits.bits - 1)
        scaled = ((array.astype(np.float64) - middle) / 2 ** (limits.bits - 1)).astype(np.float32)
        peak = np.abs(scaled).max(initial=0)
        if limits.bits > 32 or (limits.bits == 32 and 0 < peak < 2**-16):
            raise AudioError(
                f"{name} of {array.dtype} does not say its full scale, and taken at its word it is "
                f"silent (peak {peak:.1e}): convert it to the width it was recorded with, such as "
                "int16, or to float in [-1, 1]"
            )
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=0, dtype=np.float32)
    samples = _resample(iter([mono]), float(sampling_rate))
    return Waveform(
        samples, name=name, source_rate_hz=round(float(sampling_rate)), source_channels=channels
    )


def _at_most(
    chunks: Iterator[Float32[np.ndarray, "chunk"]], seconds: float, decoding: Decoding
) -> Iterator[Float32[np.ndarray, "chunk"]]:
    """The chunks, until they are more than so many seconds: then an error."""
    samples = 0
    for chunk in chunks:
        samples += chunk.size
        if samples > seconds * decoding.rate_hz:
            raise _too_long(decoding.name, seconds)
        yield chunk


def _too_long(name: str, max_seconds: float) -> AudioError:
    return AudioError(
        f"{name} is longer than {max_seconds:g} s, the most that is taken here: cut it into parts"
    )


def _resample(
    chunks: Iterator[Float32[np.ndarray, "chunk"]], rate_hz: float
) -> Float32[np.ndarray, "samples"]:
    """To 16 kHz, chunk by chunk, so that an hour at 96 kHz is never in memory at once.

    The length is ceil(samples × 16000 / rate), as librosa's.
    """
    stream: soxr.ResampleStream | None = None
    resampled: list[np.ndarray] = []
    received = 0
    for chunk in chunks:
        received += chunk.size
        if rate_hz == SAMPLE_RATE_HZ:
            resampled.append(chunk)
            continue
        stream = stream or soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, "float32", "HQ")
        resampled.append(stream.resample_chunk(chunk))
    if stream is None:
        return np.concatenate([*resampled, np.zeros(0, np.float32)])
    resampled.append(stream.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = np.concatenate(resampled)
    missing = math.ceil(received * SAMPLE_RATE_HZ / rate_hz) - samples.size
    return np.pad(samples, (0, missing)) if missing > 0 else samples[: samples.size + missing]


Many = list[Any] | tuple[Any, ...]
"""A list of inputs gives a list of results."""


def open_inputs(audio: AudioInput | Many) -> tuple[list[Any], bool]:
    """What a caller gave, as a list; and whether just one input was given."""
    if isinstance(audio, tuple) and len(audio) == 2 and isinstance(audio[1], int | float):
        raise AudioError(
            f"a pair of {type(audio[0]).__name__} and {audio[1]}, as librosa and soundfile give "
            "it: pass the array, and the number as sampling_rate="
        )
    single = not isinstance(audio, list | tuple)
    return [audio] if single else list(cast(Many, audio)), single

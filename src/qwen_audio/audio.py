"""Waveform: one channel at 16 kHz, whatever it came from; and the windows it is heard in."""

from __future__ import annotations

import io
import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
import soxr
from jaxtyping import Float32

from .decode import Decoding, check_rate_and_channels
from .errors import AudioError, OptionError

__all__ = [
    "MIN_SECONDS",
    "SAMPLE_RATE_HZ",
    "WINDOW_SECONDS",
    "AudioInput",
    "Waveform",
    "Window",
    "Windowing",
    "load_waveform",
]

SAMPLE_RATE_HZ = 16_000
WINDOW_SECONDS = 30.0
"""The encoder's reach: 1500 positions of 20 ms."""
MIN_SECONDS = 0.04
"""One audio token: 4 mel frames of 10 ms, halved by a convolution and halved by pooling."""
_MAX_PEAK = 16.0
"""Float audio peaks near 1; far above it lies PCM that nobody has divided by full scale."""


@dataclass(frozen=True)
class Window:
    """The seconds of a recording that the model hears at once."""

    start_seconds: float
    end_seconds: float

    @property
    def duration_seconds(self) -> float:
        """Its length."""
        return self.end_seconds - self.start_seconds

    def __str__(self) -> str:
        return f"{_clock(self.start_seconds)}–{_clock(self.end_seconds)}"


@dataclass(frozen=True)
class Windowing:
    """How a recording is divided: windows of `window_seconds`, one starting every `hop_seconds`.

    Nothing is left out: a hop longer than the window is an error, and the last window may be short.
    """

    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float | None = None

    def __post_init__(self) -> None:
        hop = self.hop
        if not MIN_SECONDS <= self.window_seconds <= WINDOW_SECONDS:
            raise OptionError(
                f"window_seconds={self.window_seconds}: the encoder hears {MIN_SECONDS} to "
                f"{WINDOW_SECONDS:g} s at once"
            )
        if not MIN_SECONDS <= hop <= self.window_seconds:
            raise OptionError(
                f"hop_seconds={hop} with windows of {self.window_seconds:g} s: use {MIN_SECONDS} s "
                "up to the window's length, or audio between windows would go unheard"
            )

    @property
    def hop(self) -> float:
        """Seconds from one window's start to the next: the window's length unless set."""
        return self.window_seconds if self.hop_seconds is None else self.hop_seconds


@dataclass(frozen=True, eq=False, repr=False)
class Waveform:
    """Mono float32 samples at 16 kHz, nominally in [-1, 1], at least one audio token (40 ms) long.

    Attributes:
        samples: shape (samples,).
        name: what to call it in results and messages.
        source_rate_hz, source_channels: as they were before mixing and resampling.
        source_format: the container, such as "flac"; "array" for arrays.

    Raises:
        AudioError: if it is empty, too short, not finite, or obviously not scaled to [-1, 1].
    """

    samples: Float32[np.ndarray, "samples"]
    name: str = "waveform"
    source_rate_hz: int = SAMPLE_RATE_HZ
    source_channels: int = 1
    source_format: str = field(default="array")

    def __post_init__(self) -> None:
        samples = self.samples
        if samples.size == 0:
            raise AudioError(f"{self.name} holds no samples: expected at least {MIN_SECONDS} s")
        if not np.isfinite(samples).all():
            where = int(np.flatnonzero(~np.isfinite(samples))[0]) / SAMPLE_RATE_HZ
            raise AudioError(
                f"{self.name} holds NaN or infinite samples (first at {where:.3f} s): repair it "
                "first, for instance with numpy.nan_to_num"
            )
        if samples.size < round(MIN_SECONDS * SAMPLE_RATE_HZ):
            raise AudioError(
                f"{self.name} lasts {1000 * self.duration_seconds:.1f} ms, but one audio token "
                f"takes {1000 * MIN_SECONDS:.0f} ms: give a longer clip"
            )
        peak = float(np.abs(samples).max())
        if peak > _MAX_PEAK:
            raise AudioError(
                f"{self.name} peaks at {peak:g}, but float samples lie in [-1, 1]: "
                "divide integer PCM by its full scale (32768 for 16 bit)"
            )

    @property
    def duration_seconds(self) -> float:
        """Its length, after resampling."""
        return self.samples.size / SAMPLE_RATE_HZ

    def windows(self, windowing: Windowing) -> tuple[Window, ...]:
        """Windows that together cover every sample.

        The last one is shorter where the audio ends inside it. A rest shorter than one audio token
        could not be heard alone, so its window reaches back to 40 ms.
        """
        size = self.samples.size
        length = round(windowing.window_seconds * SAMPLE_RATE_HZ)
        hop = round(windowing.hop * SAMPLE_RATE_HZ)
        shortest = round(MIN_SECONDS * SAMPLE_RATE_HZ)
        count = 1 + max(0, math.ceil((size - length) / hop))
        starts = (min(k * hop, size - shortest) for k in range(count))
        return tuple(
            Window(start / SAMPLE_RATE_HZ, min(start + length, size) / SAMPLE_RATE_HZ)
            for start in starts
        )

    def cut(self, window: Window) -> Float32[np.ndarray, "samples"]:
        """The samples of one window."""
        start = round(window.start_seconds * SAMPLE_RATE_HZ)
        return self.samples[start : round(window.end_seconds * SAMPLE_RATE_HZ)]

    def __repr__(self) -> str:
        return (
            f"Waveform({self.name!r}, {self.duration_seconds:.2f} s, {self.samples.size} samples, "
            f"from {self.source_rate_hz} Hz × {self.source_channels} {self.source_format})"
        )


@runtime_checkable
class SupportsArray(Protocol):
    """NumPy arrays, torch tensors, and whatever else NumPy can read."""

    def __array__(self) -> np.ndarray: ...


AudioInput = (
    str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Waveform | SupportsArray
)
"""A path, `-` for standard input, bytes, a binary file object, a Waveform, or (with
`sampling_rate=`) an array or tensor of shape (samples,) or (channels, samples)."""


def load_waveform(audio: AudioInput | Any, *, sampling_rate: float | None = None) -> Waveform:
    """Anything that holds sound → a Waveform: mixed to mono by the mean, resampled by soxr's HQ.

    Args:
        audio: see `AudioInput`.
        sampling_rate: of an array, in Hz. Required there, refused elsewhere: files state theirs.

    Raises:
        AudioError: naming the input and what is wrong with it.
    """
    if isinstance(audio, np.ndarray) or hasattr(audio, "__array__"):
        return _from_array(audio, sampling_rate)
    if sampling_rate is not None:
        kind = "a Waveform" if isinstance(audio, Waveform) else f"{audio!r:.80}"
        raise AudioError(
            f"sampling_rate={sampling_rate} was given with {kind}, which states its own rate: "
            "leave sampling_rate out (it is for arrays)"
        )
    if isinstance(audio, Waveform):
        return audio
    return _from_encoded(_open(audio))


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
    raise AudioError(
        f"a {type(audio).__name__} is not audio: give a path, bytes, a binary file object, "
        "or an array with sampling_rate="
    )


def _from_encoded(decoding: Decoding) -> Waveform:
    samples = _resample(decoding.chunks(), decoding.rate_hz)
    return Waveform(
        samples,
        name=decoding.name,
        source_rate_hz=decoding.rate_hz,
        source_channels=decoding.channels,
        source_format=decoding.format,
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
    mono = scaled if scaled.ndim == 1 else scaled.mean(axis=0, dtype=np.float32)
    samples = _resample(iter([mono]), float(sampling_rate))
    return Waveform(
        samples, name=name, source_rate_hz=round(float(sampling_rate)), source_channels=channels
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


def _clock(seconds: float) -> str:
    """12:30, 1:02:03, or 0:07.25 where the second is not whole."""
    whole, fraction = divmod(round(seconds * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{fraction:02}" if fraction else text

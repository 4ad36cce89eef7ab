"""Log-mel spectrograms: what an encoder is given of one window."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ, RecordingInfo
from .window import Window

__all__ = [
    "FFT_SAMPLES",
    "HOP_SAMPLES",
    "MEL_FRAMES_PER_SECOND",
    "AudioWindow",
    "LogMel",
    "SpectrogramPeak",
    "Surroundings",
    "mel_frame_count",
]

MEL_FRAMES_PER_SECOND = 100
"""Whisper's hop of 160 samples at 16 kHz, which all families use: one mel frame per 10 ms."""

HOP_SAMPLES = SAMPLE_RATE_HZ // MEL_FRAMES_PER_SECOND
"""160 samples, 10 ms: hop of the STFT."""
FFT_SAMPLES = 400
"""25 ms: window of the STFT."""


def mel_frame_count(samples: int) -> int:
    """Mel frames that hold audio: one per begun hop, as the extractor's attention mask counts."""
    return -(-samples // HOP_SAMPLES)


@dataclass(frozen=True, eq=False, repr=False)
class LogMel:
    """Log-mel spectrogram of one window, 100 frames a second.

    Attributes:
        input_features: shape (mel_bins, frames): the window's frames, and what the encoder is given
            after them: the silence that its convolutions reach, or all of its padding.
        valid_frames: how many of the frames hold audio.

    Raises:
        ValueError: if there are no valid frames, or more than there are frames.
    """

    input_features: Float32[np.ndarray, "mel_bins frames"]
    valid_frames: int

    def __post_init__(self) -> None:
        frames = self.input_features.shape[1]
        if not 1 <= self.valid_frames <= frames:
            raise ValueError(f"{self.valid_frames} valid frames of {frames}")

    def __repr__(self) -> str:
        bins, frames = self.input_features.shape
        return f"LogMel({bins} bins × {frames} frames, {self.valid_frames} of them audio)"


class SpectrogramPeak(ABC):
    """The largest value of a recording's log-mel spectrogram, of its samples at 16 kHz."""

    @abstractmethod
    def add(self, samples: Float32[np.ndarray, "part"]) -> None:
        """The next samples, of any number."""

    @abstractmethod
    def finish(self) -> float:
        """The base-10 logarithm, when all samples are there."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What a window's spectrogram takes from the rest of its recording.

    Attributes:
        before, after: the samples next to the window that its first and last frames reach, half an
            FFT long, or as many as there are.
        peak: of the recording's log-mel spectrogram, see `SpectrogramPeak`.
    """

    before: Float32[np.ndarray, "before"]
    after: Float32[np.ndarray, "after"]
    peak: float


@dataclass(frozen=True, eq=False)
class AudioWindow:
    """One window of a recording, with its log-mel spectrogram.

    Attributes:
        recording_index: position of the recording among the caller's inputs.
        name: of the recording.
        window: start and end within the recording.
        log_mel: the window's spectrogram.
        recording: metadata of the recording; of its last window only, see `SampledWindow`.
    """

    recording_index: int
    name: str
    window: Window
    log_mel: LogMel
    recording: RecordingInfo | None = None

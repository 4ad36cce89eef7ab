"""LogMel: what the encoder is given, by transformers' own extractor, without 30 s of padding.

The extractor pads to 30 s because the model's padded layout wants 3000 frames. Frames that no
encoder frame of the clip depends on are not computed here; those that are have the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ, WINDOW_SECONDS, Recording, Window

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = [
    "MEL_FRAMES_PER_SECOND",
    "AudioWindow",
    "LogMel",
    "audio_tokens",
    "encoder_frames",
    "log_mel",
    "mel_frames",
]

MEL_FRAMES_PER_SECOND = 100
"""Whisper's hop of 160 samples at 16 kHz: one mel frame per 10 ms."""

HOP_SAMPLES = SAMPLE_RATE_HZ // MEL_FRAMES_PER_SECOND
"""160 samples: one frame per 10 ms."""
FFT_SAMPLES = 400
"""25 ms analysis window."""
MAX_FRAMES = round(WINDOW_SECONDS * MEL_FRAMES_PER_SECOND)
"""3000 frames: the encoder's reach."""


def mel_frames(samples: int) -> int:
    """Mel frames that are audio: one per hop begun (what the extractor's attention mask counts)."""
    return -(-samples // HOP_SAMPLES)


def encoder_frames(mel: int) -> int:
    """Rows at 50 Hz after the convolution of stride 2."""
    return (mel - 1) // 2 + 1


def audio_tokens(mel: int) -> int:
    """Rows at 25 Hz after pooling pairs of encoder frames: 3000 mel frames give 750."""
    return encoder_frames(mel) // 2


@dataclass(frozen=True, eq=False, repr=False)
class LogMel:
    """A log-mel spectrogram of one window.

    Attributes:
        input_features: shape (mel_bins, frames): the clip's frames and up to two of the silence
            after it, which the encoder's convolutions reach into.
        valid_frames: how many of the frames are audio.
    """

    input_features: Float32[np.ndarray, "mel_bins frames"]
    valid_frames: int

    def __post_init__(self) -> None:
        frames = self.input_features.shape[1]
        if not 1 <= self.valid_frames <= frames <= MAX_FRAMES:
            raise ValueError(f"{self.valid_frames} valid frames of {frames}, at most {MAX_FRAMES}")

    @property
    def encoder_frames(self) -> int:
        """Rows at 50 Hz."""
        return encoder_frames(self.valid_frames)

    @property
    def audio_tokens(self) -> int:
        """Rows at 25 Hz."""
        return audio_tokens(self.valid_frames)

    def __repr__(self) -> str:
        bins, frames = self.input_features.shape
        return f"LogMel({bins} bins × {frames} frames, {self.valid_frames} of them audio)"


def log_mel(samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor) -> LogMel:
    """The log-mel spectrogram of at most 30 s, equal to the extractor's on every frame returned.

    The extractor clamps at 8 decades below the loudest frame of its 30 s. Frames beyond those
    computed here hold padding alone, so the loudest is among these.
    """
    valid = mel_frames(samples.size)
    # Encoder frame j is made of mel frames 2j−2 … 2j+2 (two convolutions of width 3, the second
    # with stride 2), so the last one, j = E−1, needs frames up to index 2E.
    needed = min(2 * encoder_frames(valid) + 1, MAX_FRAMES)
    # Frame t spans samples 160t−200 … 160t+199: two more hops keep the reflection that the STFT
    # puts at its end out of the frames kept, and let the clip's last samples count for the loudest.
    padded = min((needed + 2) * HOP_SAMPLES, MAX_FRAMES * HOP_SAMPLES)
    features = extractor(
        samples,
        sampling_rate=SAMPLE_RATE_HZ,
        padding="max_length",
        max_length=padded,
        truncation=False,
        return_tensors="np",
    )["input_features"][0]
    return LogMel(np.ascontiguousarray(features[:, :needed], dtype=np.float32), valid)


@dataclass(frozen=True, eq=False)
class AudioWindow:
    """One window of one recording, on its way through the line.

    Attributes:
        clip: which of the caller's recordings it belongs to.
        recording: what is known of that recording.
    """

    clip: int
    recording: Recording
    window: Window
    mel: LogMel

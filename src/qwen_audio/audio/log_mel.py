"""Log-mel spectrograms (the encoder's input) by transformers' feature extractor, without padding.

The extractor pads every clip to 30 s (3000 frames). Here only the frames are computed that an
encoder frame of the clip depends on; they equal the extractor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ, RecordingInfo
from .window import WINDOW_SECONDS, Window

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = [
    "MEL_FRAMES_PER_SECOND",
    "AudioWindow",
    "LogMel",
    "audio_token_count",
    "compute_log_mel",
    "encoder_frame_count",
    "mel_frame_count",
]

MEL_FRAMES_PER_SECOND = 100
"""Whisper's hop of 160 samples at 16 kHz: one mel frame per 10 ms."""

HOP_SAMPLES = SAMPLE_RATE_HZ // MEL_FRAMES_PER_SECOND
"""160 samples, 10 ms: hop of the STFT."""
FFT_SAMPLES = 400
"""25 ms: window of the STFT."""
MAX_FRAMES = round(WINDOW_SECONDS * MEL_FRAMES_PER_SECOND)
"""3000 mel frames: the encoder's maximum."""


def mel_frame_count(samples: int) -> int:
    """Mel frames that hold audio: one per begun hop, as the extractor's attention mask counts."""
    return -(-samples // HOP_SAMPLES)


def encoder_frame_count(mel_frames: int) -> int:
    """Encoder frames (50 Hz) after the convolution of stride 2: 3000 mel frames give 1500."""
    return (mel_frames - 1) // 2 + 1


def audio_token_count(mel_frames: int) -> int:
    """Audio tokens (25 Hz) after pooling pairs of encoder frames: 3000 mel frames give 750."""
    return encoder_frame_count(mel_frames) // 2


@dataclass(frozen=True, eq=False, repr=False)
class LogMel:
    """Log-mel spectrogram of one window, 100 frames a second.

    Attributes:
        input_features: shape (mel_bins, frames): the clip's frames, and up to two frames of the
            silence after it, which the encoder's convolutions reach.
        valid_frames: how many of the frames hold audio.

    Raises:
        ValueError: if there are no valid frames, or more than 3000 frames.
    """

    input_features: Float32[np.ndarray, "mel_bins frames"]
    valid_frames: int

    def __post_init__(self) -> None:
        frames = self.input_features.shape[1]
        if not 1 <= self.valid_frames <= frames <= MAX_FRAMES:
            raise ValueError(f"{self.valid_frames} valid frames of {frames}, at most {MAX_FRAMES}")

    @property
    def encoder_frames(self) -> int:
        """Number of encoder frames (50 Hz)."""
        return encoder_frame_count(self.valid_frames)

    @property
    def audio_tokens(self) -> int:
        """Number of audio tokens (25 Hz)."""
        return audio_token_count(self.valid_frames)

    def __repr__(self) -> str:
        bins, frames = self.input_features.shape
        return f"LogMel({bins} bins × {frames} frames, {self.valid_frames} of them audio)"


def compute_log_mel(
    samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
) -> LogMel:
    """Log-mel spectrogram of at most 30 s; every frame returned equals the extractor's.

    The extractor clamps values to 8 decades below the maximum over its 30 s. Frames beyond those
    computed here hold padding only, so the maximum is among the computed ones.
    """
    valid_frames = mel_frame_count(samples.size)
    # Encoder frame j depends on mel frames 2j−2 … 2j+2 (two convolutions of width 3, the second
    # of stride 2), so the last one, j = E−1, depends on frames up to index 2E.
    frames = min(2 * encoder_frame_count(valid_frames) + 1, MAX_FRAMES)
    # Frame t spans samples 160t−200 … 160t+199. Two more hops of padding move the STFT's
    # reflection at the end out of the returned frames, and include the clip's last samples in
    # the maximum.
    padded_samples = min((frames + 2) * HOP_SAMPLES, MAX_FRAMES * HOP_SAMPLES)
    features = extractor(
        samples,
        sampling_rate=SAMPLE_RATE_HZ,
        padding="max_length",
        max_length=padded_samples,
        truncation=False,
        return_tensors="np",
    )["input_features"][0]
    return LogMel(np.ascontiguousarray(features[:, :frames], dtype=np.float32), valid_frames)


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

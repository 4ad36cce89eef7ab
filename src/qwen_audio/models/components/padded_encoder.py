"""Whisper's encoder where it attends to padding: whole chunks of 30 s, four rows for each row of
the projector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor
from transformers import WhisperFeatureExtractor

from qwen_audio.audio.log_mel import MEL_FRAMES_PER_SECOND, LogMel, mel_frame_count
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.errors import CheckpointError
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import ModelDimensions, Stage
from qwen_audio.weights.module_store import ModuleStore

from .whisper_features import CHUNK_FRAMES, CHUNK_SECONDS, conv_frame_count
from .whisper_language import WhisperLanguageFamily

__all__ = ["STACKED_ROWS", "PaddedEncoderFamily"]

STACKED_ROWS = 4
"""Rows of the encoder, 20 ms each, that are one row of the projector's input, side by side."""


class PaddedEncoderFamily(WhisperLanguageFamily):
    """A family whose encoder is given whole chunks of 30 s, and has no mask: the padding of a
    shorter one changes its rows. Rows of padding are computed, and left out of the taps."""

    padded_seconds = CHUNK_SECONDS

    def check_config(self, name: str) -> None:
        """Raises CheckpointError where the projector takes another number of the encoder's rows."""
        super().check_config(name)
        width, inner = self.audio_config.hidden_size, self.audio_config.intermediate_size
        if inner != STACKED_ROWS * width:  # transformers stacks rows to this width
            raise CheckpointError(
                f"{name} has an audio encoder of hidden_size={width} with intermediate_size="
                f"{inner}; only {STACKED_ROWS} times as much is supported"
            )

    def encoder_row_times(self) -> dict[Stage, RowTimes]:
        """Four rows of the encoder are one of the projector."""
        stacked = RowTimes.every(2 * STACKED_ROWS / MEL_FRAMES_PER_SECOND)
        return {
            **super().encoder_row_times(),
            Stage.AUDIO_TOWER: stacked,
            Stage.PROJECTOR: stacked,
        }

    def read_dimensions(self) -> ModelDimensions:
        """The projector's input is four rows wide."""
        dimensions = super().read_dimensions()
        return replace(dimensions, tower_width=STACKED_ROWS * dimensions.encoder_width)

    def log_mel(
        self, samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
    ) -> LogMel:
        """All frames of each chunk of 30 s, those of padding included."""
        features = self.chunk_features(samples, extractor)
        return LogMel(np.concatenate(list(features), axis=1), mel_frame_count(samples.size))

    def chunk_features(
        self, samples: Float32[np.ndarray, "samples"], extractor: WhisperFeatureExtractor
    ) -> Float32[np.ndarray, "chunks mel_bins frames"]:
        """What transformers' model is given of a window: each chunk by itself."""
        size = round(CHUNK_SECONDS * SAMPLE_RATE_HZ)
        chunks = [samples[start : start + size] for start in range(0, samples.size, size)]
        features: np.ndarray = extractor(
            chunks, sampling_rate=SAMPLE_RATE_HZ, padding="max_length", return_tensors="np"
        )["input_features"]
        return features

    def rows(self, stage: Stage, mel_frames: int) -> int:
        """3000 mel frames are 1500 encoder frames, and 375 audio tokens."""
        if stage is Stage.MEL:
            return mel_frames
        frames = conv_frame_count(mel_frames)
        return frames if stage is Stage.ENCODER else frames // STACKED_ROWS

    def encoder_rows(self, mel_frames: int) -> int:
        """1500 for each 30 s begun."""
        return -(-mel_frames // CHUNK_FRAMES) * conv_frame_count(CHUNK_FRAMES)

    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "stacked tower_width"]:
        """Layer norm, then four rows side by side."""
        normed: Tensor = self.build_tower_norm(modules)(frames)
        return normed.reshape(-1, STACKED_ROWS * frames.shape[1])

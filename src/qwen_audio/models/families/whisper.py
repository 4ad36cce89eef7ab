"""Whisper: its encoder alone, which attends to all of 30 s, those of padding included."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from qwen_audio.audio.log_mel import MEL_FRAMES_PER_SECOND, LogMel, mel_frame_count
from qwen_audio.models.components.whisper_encoder import WhisperEncoderFamily
from qwen_audio.models.components.whisper_features import (
    CHUNK_FRAMES,
    CHUNK_SECONDS,
    conv_frame_count,
    log_mel_frames,
)
from qwen_audio.models.family import LayerSizes
from qwen_audio.models.row_times import RowTimes
from qwen_audio.models.tap import ModelDimensions, Stage
from qwen_audio.models.tensors import TensorGroup
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["Whisper"]


class Whisper(WhisperEncoderFamily):
    """50 rows a second; `audio_tower` is the encoder's output, transformers' last_hidden_state.

    A clip's rows depend on the silence to which it is padded, so that a short clip takes as long as
    one of 30 s. Rows of the padding are left out.
    """

    title = "Whisper"
    config_class = WhisperConfig
    transformers_class = WhisperForConditionalGeneration
    encoder_layer = WhisperEncoderLayer
    padded_seconds = CHUNK_SECONDS
    # Of the model, of its encoder and decoder alone, and of audio classification.
    ignored_names = (
        *("model.decoder.", "decoder.", "proj_out."),
        *("projector.", "classifier.", "layer_weights"),
    )

    def part_configs(self) -> tuple[Any, Any]:
        """One configuration for encoder and decoder; there is no language model."""
        return self.config, None

    def read_dimensions(self) -> ModelDimensions:
        """Up to `audio_tower`."""
        mel, rows = (RowTimes.every(count / MEL_FRAMES_PER_SECOND) for count in (1, 2))
        width = self.config.d_model
        return ModelDimensions(
            mel_bins=self.config.num_mel_bins,
            encoder_layers=self.config.encoder_layers,
            encoder_width=width,
            tower_width=width,
            lm_layers=0,
            lm_width=0,
            row_times={Stage.MEL: mel, Stage.ENCODER: rows, Stage.AUDIO_TOWER: rows},
        )

    def read_sizes(self) -> LayerSizes:
        """The encoder attends to 30 s."""
        return LayerSizes(self.config.encoder_ffn_dim, self.chunk_rows)

    def tensor_groups(self) -> Iterator[TensorGroup]:
        """Those of the encoder."""
        yield from self.encoder_groups()

    def canonical_name(self, stored: str) -> str:
        """Of files of the model or of its encoder."""
        name = stored.removeprefix("model.")
        return name.replace("encoder.", "audio_tower.", 1) if name.startswith("encoder.") else name

    def log_mel(self, samples: Float32[np.ndarray, "samples"], extractor: Any) -> LogMel:
        """All frames of 30 s."""
        features = log_mel_frames(samples, extractor, CHUNK_FRAMES)
        return LogMel(features, mel_frame_count(samples.size))

    def rows(self, stage: Stage, mel_frames: int) -> int:
        """3000 mel frames are 1500 rows."""
        return mel_frames if stage is Stage.MEL else conv_frame_count(mel_frames)

    def encoder_rows(self, mel_frames: int) -> int:  # noqa: ARG002
        """Those of 30 s, whatever the clip's length."""
        return self.chunk_rows

    def tower(
        self, modules: ModuleStore, frames: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """Layer norm."""
        normed: Tensor = self.build_tower_norm(modules)(frames)
        return normed

    def transformers_config(self, depth: int, vocabulary: int) -> Any:  # noqa: ARG002
        """The same: there is no language model whose layers could be left out."""
        return copy.deepcopy(self.config)

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """The decoder needs no weights."""
        model.model.decoder = model.proj_out = nn.Identity()
        return {"audio_tower.": model.model.encoder}

    def transformers_inputs(
        self, samples: Float32[np.ndarray, "samples"], extractor: Any
    ) -> dict[str, Tensor]:
        """Without a mask, which the encoder wouldn't use."""
        inputs = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        return dict(inputs)

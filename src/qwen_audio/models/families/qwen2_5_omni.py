"""Qwen2.5-Omni: its thinker, an encoder of blocks of 2 s, a linear projector, and Qwen2."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerConfig, Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import (
    Qwen2_5OmniAudioEncoderLayer,
    Qwen2_5OmniDecoderLayer,
    Qwen2_5OmniRMSNorm,
    Qwen2_5OmniRotaryEmbedding,
    SinusoidsPositionEmbedding,
)

from qwen_audio.audio.log_mel import LogMel, mel_frame_count
from qwen_audio.audio.waveform import SAMPLE_RATE_HZ
from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.recording_features import RecordingFeaturesFamily
from qwen_audio.models.components.thinker import ThinkerFamily, thinker_names
from qwen_audio.models.components.whisper_features import build_feature_extractor, log_mel_frames
from qwen_audio.models.components.whisper_language import WhisperLanguageFamily
from qwen_audio.models.packed_attention import Packing
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["Qwen25Omni"]

_MAX_SECONDS = 300.0
"""What its processor pads and truncates to."""


class Qwen25Omni(ThinkerFamily, RecordingFeaturesFamily, WhisperLanguageFamily):
    """25 audio tokens a second, whose positions are 0 … n−1 on all axes of the rotary embedding.
    All checkpoints take the chat template."""

    title = "Qwen2.5-Omni"
    config_class = Qwen2_5OmniThinkerConfig
    transformers_class = Qwen2_5OmniThinkerForConditionalGeneration
    encoder_layer = Qwen2_5OmniAudioEncoderLayer
    tower_norm = "ln_post"
    learns_positions = False
    feature_mask = "feature_attention_mask"
    text_model_type = "qwen2_5_omni_text"
    decoder_layer = Qwen2_5OmniDecoderLayer
    norm, rotary = Qwen2_5OmniRMSNorm, Qwen2_5OmniRotaryEmbedding
    projector_names = (("audio_tower.proj.", ""),)
    ignored_names = (
        *("talker.", "token2wav."),
        *thinker_names("visual.", "audio_tower.audio_bos_eos_token."),  # transformers ignores, too
    )
    window_limits = WindowLimits(max_seconds=_MAX_SECONDS)
    prompt_format = PromptFormat(
        title, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", always_chat=True
    )

    def check_config(self, name: str) -> None:
        """Raises CheckpointError also for blocks that are longer than there are positions."""
        super().check_config(name)
        window, positions = self.audio_config.n_window, self.audio_config.max_source_positions
        if not 0 < window <= positions:
            raise CheckpointError(
                f"{name} has an audio encoder with n_window={window}; only 1 to {positions} "
                "(max_source_positions) is supported"
            )

    @property
    def chunk_rows(self) -> int:
        """Of 2 s."""
        return int(self.audio_config.n_window)

    def feature_extractor(self, settings: Any, file: str) -> Any:
        """Whisper's feature extractor, of clips of up to 300 s."""
        bins = self.audio_config.num_mel_bins
        return build_feature_extractor(settings, bins, file, self.title, _MAX_SECONDS)

    def log_mel(self, samples: Float32[np.ndarray, "samples"], extractor: Any) -> LogMel:
        """Frames of the window alone: the convolutions see zeros after it, not silence."""
        frames = mel_frame_count(samples.size)
        return LogMel(log_mel_frames(samples, extractor, frames), frames)

    def padded_samples(self, samples: int) -> int:
        """300 s; what is longer, which transformers would truncate, isn't padded."""
        return max(samples, round(_MAX_SECONDS * SAMPLE_RATE_HZ))

    @cached_property
    def _sinusoids(self) -> SinusoidsPositionEmbedding:
        config = self.audio_config
        return SinusoidsPositionEmbedding(config.max_source_positions, config.d_model)

    def positions(self, modules: ModuleStore) -> Float[Tensor, "chunk_rows width"]:
        """Sinusoids, computed in float32, and then cast."""
        rows: Tensor = self._sinusoids(self.chunk_rows)
        return rows.to(modules.device, modules.dtype)

    def build_projector(self) -> nn.Module:
        """A matrix with a bias."""
        return nn.Linear(self.audio_config.d_model, self.text_config.hidden_size)

    @staticmethod
    def run_encoder_layer(
        layer: nn.Module, packing: Packing, rows: Float[Tensor, "rows width"]
    ) -> Float[Tensor, "rows width"]:
        """The layer calls its attention for each part of `cu_seqlens`: once, for all blocks."""
        output: Tensor = layer(rows, cu_seqlens=torch.tensor([0, len(rows)]), packing=packing)[0]
        return output

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """The projector is in the encoder; what isn't used needs no weights."""
        tower = model.model.audio_tower
        tower.audio_bos_eos_token, tower.positional_embedding = nn.Identity(), self._sinusoids
        model.model.multi_modal_projector = tower.proj
        return super().transformers_modules(model)

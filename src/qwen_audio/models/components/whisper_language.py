"""Whisper's encoder, a projector and a language model, under the names of Qwen2-Audio's files."""

from __future__ import annotations

from collections.abc import Iterator

from qwen_audio.models.family import LayerSizes
from qwen_audio.models.tap import ModelDimensions, Stage
from qwen_audio.models.tensors import TensorGroup

from .decoder import DecoderFamily
from .whisper_encoder import WhisperEncoderFamily

__all__ = ["WhisperLanguageFamily"]


class WhisperLanguageFamily(WhisperEncoderFamily, DecoderFamily):
    """A family of three parts that transformers calls `audio_tower`, `multi_modal_projector` and
    `language_model`."""

    def read_dimensions(self) -> ModelDimensions:
        """As transformers' configuration has them."""
        audio, text = self.audio_config, self.text_config
        times = self.encoder_row_times()
        return ModelDimensions(
            mel_bins=audio.num_mel_bins,
            encoder_layers=audio.num_hidden_layers,
            encoder_width=audio.hidden_size,
            tower_width=audio.hidden_size,
            lm_layers=text.num_hidden_layers,
            lm_width=text.hidden_size,
            heads_width=self.heads_width(),
            row_times=times | self.lm_row_times(times[Stage.PROJECTOR]),
        )

    def read_sizes(self) -> LayerSizes:
        """The encoder attends to a chunk."""
        audio = self.audio_config
        ffn_width = getattr(audio, "intermediate_size", None) or audio.encoder_ffn_dim
        return LayerSizes(ffn_width, self.chunk_rows, **self.lm_sizes())

    def tensor_groups(self) -> Iterator[TensorGroup]:
        """Encoder, projector, language model."""
        yield from self.encoder_groups()
        yield from self.lm_groups()

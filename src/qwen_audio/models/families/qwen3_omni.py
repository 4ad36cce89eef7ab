"""Qwen3-Omni: its thinker, an encoder of blocks of 8 s, an MLP, and Qwen3 with experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeThinkerForConditionalGeneration
from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASRMultiModalProjector
from transformers.models.qwen3_omni_moe.modeling_qwen3_omni_moe import (
    Qwen3OmniMoeAudioEncoderLayer,
    Qwen3OmniMoeTextRMSNorm,
    Qwen3OmniMoeThinkerTextDecoderLayer,
    Qwen3OmniMoeThinkerTextMLP,
    Qwen3OmniMoeThinkerTextRotaryEmbedding,
    SinusoidsPositionEmbedding,
)

from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.models.components.experts import Experts, stack_experts, stacked_expert_names
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.qwen3_encoder import Qwen3EncoderFamily
from qwen_audio.models.components.thinker import ThinkerFamily, thinker_names
from qwen_audio.models.components.whisper_features import build_feature_extractor
from qwen_audio.models.family import LayerSizes
from qwen_audio.models.tap import Stage, Tap
from qwen_audio.models.tensors import DECODER_LAYERS, TensorGroup, shapes_of
from qwen_audio.weights.meta_device import empty_module

__all__ = ["Qwen3Omni"]


class Qwen3Omni(ThinkerFamily, Qwen3EncoderFamily):
    """13 audio tokens a second, whose positions are 0 … n−1 on all axes of the rotary embedding; a
    window is up to forty minutes.

    All checkpoints take the chat template.
    """

    title = "Qwen3-Omni"
    config_class = Qwen3OmniMoeThinkerConfig
    transformers_class = Qwen3OmniMoeThinkerForConditionalGeneration
    encoder_layer, sinusoids = Qwen3OmniMoeAudioEncoderLayer, SinusoidsPositionEmbedding
    projector = Qwen3ASRMultiModalProjector  # here, two layers of the encoder
    feature_mask = "feature_attention_mask"
    fills_short_clips = False
    text_model_type = "qwen3_omni_moe_text"
    decoder_layer = Qwen3OmniMoeThinkerTextDecoderLayer
    norm, rotary = Qwen3OmniMoeTextRMSNorm, Qwen3OmniMoeThinkerTextRotaryEmbedding
    projector_names = (("audio_tower.proj1.", "linear_1."), ("audio_tower.proj2.", "linear_2."))
    ignored_names = ("talker.", "code2wav.", *thinker_names("visual."))
    unquantized_names = (".mlp.gate.weight",)  # it chooses the experts, and is small
    experts_prefix = "mlp.experts."
    window_limits = WindowLimits(max_seconds=2400.0)  # that its authors' report speaks of
    prompt_format = PromptFormat(
        title, "<|audio_pad|>", "<|audio_start|>", "<|audio_end|>", always_chat=True
    )

    def check_config(self, name: str) -> None:
        """Raises CheckpointError also for layers without experts among the others."""
        super().check_config(name)
        text = self.text_config
        if text.decoder_sparse_step != 1 or text.mlp_only_layers or text.num_experts < 1:
            raise CheckpointError(
                f"{name} has a language model of decoder_sparse_step={text.decoder_sparse_step}, "
                f"mlp_only_layers={text.mlp_only_layers} and num_experts={text.num_experts}; only "
                "layers that all have experts are supported"
            )

    def read_sizes(self) -> LayerSizes:
        """A token goes through a few of the experts."""
        text = self.text_config
        width = text.num_experts_per_tok * text.moe_intermediate_size
        return replace(super().read_sizes(), lm_ffn_width=width)

    def lm_groups(self) -> Iterator[TensorGroup]:
        """Experts by themselves, as not all rows are multiplied by each."""
        text = self.text_config
        share = text.num_experts_per_tok / text.num_experts
        rate_hz = share * self.dimensions.rate_hz(Tap(Stage.LM, 0))
        expert = shapes_of(self.build_expert)
        for group in super().lm_groups():
            yield group
            if group.prefix.startswith(DECODER_LAYERS):
                for number in range(text.num_experts):
                    prefix = f"{group.prefix}{self.experts_prefix}{number}."
                    yield TensorGroup(prefix, group.tap, expert, rate_hz)

    def build_expert(self) -> nn.Module:
        """transformers' gated feed-forward block, as it has it for layers without experts."""
        text = self.text_config
        return Qwen3OmniMoeThinkerTextMLP(text, text.moe_intermediate_size)

    def build_decoder_layer(self, number: int) -> nn.Module:
        """transformers' layer, with experts that are modules of their own."""
        layer: Any = super().build_decoder_layer(number)
        layer.mlp.experts = Experts(self.text_config.num_experts, self.build_expert)
        module: nn.Module = layer
        return module

    def stacked_names(self, stored: str) -> list[str]:
        """Experts are stacked in some files."""
        is_used = not stored.startswith(self.ignored_names)
        return stacked_expert_names(stored, self.text_config.num_experts) if is_used else [stored]

    def feature_extractor(self, settings: Any, file: str) -> Any:
        """Whisper's feature extractor; nothing is padded, to whatever it says."""
        bins = self.audio_config.num_mel_bins
        return build_feature_extractor(settings, bins, file, self.title, 300)

    def transformers_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Experts stacked."""
        return stack_experts(tensors)

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """The projector is in the encoder: as one module there."""
        tower = model.model.audio_tower
        tower.act = tower.proj2 = nn.Identity()
        tower.positional_embedding = self.positions()
        tower.proj1 = model.model.multi_modal_projector = empty_module(self.build_projector)
        return super().transformers_modules(model)

"""GLM-ASR: Whisper's encoder with rotary positions, an MLP, and Llama; for speech recognition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GlmAsrConfig, GlmAsrForConditionalGeneration
from transformers.models.glmasr.modeling_glmasr import (
    GlmAsrEncoderLayer,
    GlmAsrMultiModalProjector,
    GlmAsrRotaryEmbedding,
)
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from qwen_audio.audio.window import WindowLimits
from qwen_audio.errors import CheckpointError
from qwen_audio.models.components.padded_encoder import PaddedEncoderFamily
from qwen_audio.models.components.prompt_format import PromptFormat
from qwen_audio.models.components.whisper_encoder import GeluInPlace
from qwen_audio.models.family import RunLayer
from qwen_audio.models.packed_attention import Packing
from qwen_audio.weights.module_store import ModuleStore

__all__ = ["GlmAsr"]

_PROMPT = "Please transcribe this audio into text"


class GlmAsr(PaddedEncoderFamily):
    """12.5 audio tokens a second; a window is encoded in chunks of 30 s, each padded, and asked
    about as a whole. Its language model is given no rows of padding.

    All checkpoints take the chat template. The head is the embedding table.
    """

    title = "GLM-ASR"
    config_class = GlmAsrConfig
    transformers_class = GlmAsrForConditionalGeneration
    encoder_layer = GlmAsrEncoderLayer
    projector = GlmAsrMultiModalProjector
    feature_mask = "input_features_mask"
    position_count = "max_position_embeddings"
    learns_positions = False
    tower_norm = "norm"
    text_model_type = "llama"
    decoder_layer, norm, rotary = LlamaDecoderLayer, LlamaRMSNorm, LlamaRotaryEmbedding
    # 8 mel frames are a token, of which the last row needs 7; its processor truncates after 655 s.
    window_limits = WindowLimits(min_seconds=0.08, max_seconds=630.0)
    prompt_format = PromptFormat(
        title=title,
        audio="<|pad|>",
        turn_start="<|user|>",
        turn_end="<|user|>",
        always_chat=True,
        default_prompt=_PROMPT,
        transcription_prompt=_PROMPT,
    )

    def check_config(self, name: str) -> None:
        """Raises CheckpointError for other positions than rotary ones of the default type."""
        super().check_config(name)
        rope = self.audio_config.rope_parameters["rope_type"]
        if rope != "default":
            raise CheckpointError(
                f"{name} has an audio encoder with rotary positions of type {rope!r}; only "
                "'default' is supported"
            )

    def build_encoder_layer(self, number: int) -> nn.Module:
        """transformers' layer, with its GELU in place."""
        layer: Any = GlmAsrEncoderLayer(self.audio_config, number)
        if self.audio_config.hidden_act == "gelu":
            layer.mlp.act_fn = GeluInPlace()
        module: nn.Module = layer
        return module

    def encoder_layers(
        self, modules: ModuleStore, depth: int, lengths: Sequence[int]
    ) -> Iterator[RunLayer]:
        """Full attention within each chunk, whose positions begin at 0."""
        blocks = tuple(block for rows in lengths for block in self.attention_blocks(rows))
        embeddings = self.encoder_positions(modules, blocks)
        for layer in modules.layers("audio_tower.layers.", depth, self.build_encoder_layer):
            yield partial(_run_layer, layer, embeddings, Packing(blocks))

    def encoder_positions(
        self, modules: ModuleStore, blocks: Sequence[int]
    ) -> tuple[Float[Tensor, "1 rows rotated"], Float[Tensor, "1 rows rotated"]]:
        """Cosines and sines of packed chunks' positions, of frequencies in float32."""
        positions = torch.cat([torch.arange(block) for block in blocks]).to(modules.device)
        like = torch.empty(0, dtype=modules.dtype, device=modules.device)
        cosines, sines = GlmAsrRotaryEmbedding(self.audio_config)(like, positions[None])
        return cosines, sines

    def transformers_modules(self, model: Any) -> dict[str, nn.Module]:
        """With the encoder's rotary embedding, which has buffers, but no weights."""
        model.model.audio_tower.rotary_emb = GlmAsrRotaryEmbedding(self.audio_config)
        return super().transformers_modules(model)


def _run_layer(
    layer: nn.Module,
    position_embeddings: tuple[Tensor, Tensor],
    packing: Packing,
    rows: Float[Tensor, "rows width"],
) -> Float[Tensor, "rows width"]:
    output: Tensor = layer(rows[None], position_embeddings=position_embeddings, packing=packing)
    return output[0]

"""The case of Qwen3-Omni."""

from __future__ import annotations

from pathlib import Path

import transformers

from .base import TEMPLATE, AudioProcessor, Case, qwen2_config, write_checkpoint
from .qwen3 import omni_tokenizer, qwen3_encoder_config, thirteen_a_second


class _Qwen3OmniProcessor(AudioProcessor, transformers.Qwen3OmniMoeProcessor):
    """Of text and audio."""


def _write_qwen3_omni(folder: Path) -> None:
    """With images, and without the parts that speak."""
    tokenizer = omni_tokenizer()
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 2, 2]}
    text = qwen2_config(
        tokenizer,
        model_type="qwen3_omni_moe_text",
        head_dim=16,
        moe_intermediate_size=24,
        num_experts=6,
        num_experts_per_tok=2,
        rope_parameters={**rotary, "mrope_interleaved": True},
    )
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": text["hidden_size"],
        "deepstack_visual_indexes": [0],
        "num_position_embeddings": 16,
    }
    thinker = {
        "audio_config": qwen3_encoder_config("qwen3_omni_moe_audio_encoder"),
        "text_config": text,
        "vision_config": vision,
        "audio_token_id": tokenizer.audio_token_id,
        "image_token_id": tokenizer.image_token_id,
        "video_token_id": tokenizer.video_token_id,
        "vision_start_token_id": tokenizer.vision_bos_token_id,
    }
    config = transformers.Qwen3OmniMoeConfig(thinker_config=thinker, enable_audio_output=False)
    template = TEMPLATE.replace("AUDIO", "<|audio_start|><|audio_pad|><|audio_end|>")
    write_checkpoint(folder, "Qwen3OmniMoeForConditionalGeneration", config, tokenizer)
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    extractor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


CASE = Case(
    "qwen3_omni_moe",
    "Qwen3OmniMoeThinkerForConditionalGeneration",
    _write_qwen3_omni,
    longest=2400.0,
    encoder_rows=thirteen_a_second,
    projector="model.audio_tower.proj1",
    projector_end="model.audio_tower.proj2",
    ignored="thinker.visual.patch_embed.proj.weight",
    stored_class="Qwen3OmniMoeForConditionalGeneration",
    read_processor=_Qwen3OmniProcessor.read,
    unsupported={
        "thinker_config__audio_config__n_window": (100, "n_window=100"),
        "thinker_config__text_config__mlp_only_layers": ([1], r"mlp_only_layers=[1]"),
        "thinker_config__text_config__decoder_sparse_step": (2, "decoder_sparse_step=2"),
        "thinker_config__text_config__model_type": ("llama", "llama"),
    },
)

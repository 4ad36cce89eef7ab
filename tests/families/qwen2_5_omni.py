"""The case of Qwen2.5-Omni."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers import AutoTokenizer

from checkpoints import EMBEDDED

from .base import TEMPLATE, AudioProcessor, Case, qwen2_config, write_checkpoint

_OMNI_TOKENS = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}


class _Qwen25OmniProcessor(AudioProcessor, transformers.Qwen2_5OmniProcessor):
    """Of text and audio."""


def _write_qwen2_5_omni(folder: Path) -> None:
    """A whole model: with images, and the parts that speak."""
    tokenizer: Any = AutoTokenizer.from_pretrained(EMBEDDED, extra_special_tokens=_OMNI_TOKENS)
    rotary = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 2, 2]}
    text = qwen2_config(tokenizer, model_type="qwen2_5_omni_text", rope_parameters=rotary)
    config = transformers.Qwen2_5OmniConfig(
        thinker_config={
            "audio_config": {
                "num_mel_bins": 80,
                "d_model": 32,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 64,
                "output_dim": text["hidden_size"],
            },
            "text_config": text,
            "vision_config": {
                "depth": 1,
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "out_hidden_size": text["hidden_size"],
            },
            "audio_token_index": tokenizer.audio_token_id,
            "image_token_index": tokenizer.image_token_id,
            "video_token_index": tokenizer.video_token_id,
            "vision_start_token_id": tokenizer.vision_bos_token_id,
        },
        talker_config={
            "vocab_size": 16,
            "embedding_size": text["hidden_size"],
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "rope_parameters": {**rotary, "mrope_section": [2, 1, 1]},
        },
        token2wav_config={
            "dit_config": {
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "head_dim": 4,
                "emb_dim": 8,
                "enc_emb_dim": 8,
                "enc_dim": 8,
                "enc_channels": [8] * 5,
                "enc_attention_channels": 4,
                "enc_se_channels": 4,
                "num_embeds": 9,
            },
            "bigvgan_config": {"upsample_initial_channel": 64},
        },
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80, chunk_length=300)
    template = TEMPLATE.replace("AUDIO", "<|audio_bos|><|AUDIO|><|audio_eos|>")
    write_checkpoint(folder, "Qwen2_5OmniForConditionalGeneration", config, tokenizer)
    extractor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


CASE = Case(
    "qwen2_5_omni",
    "Qwen2_5OmniThinkerForConditionalGeneration",
    _write_qwen2_5_omni,
    longest=300.0,
    projector="model.audio_tower.proj",
    ignored="thinker.visual.merger.ln_q.weight",
    stored_class="Qwen2_5OmniForConditionalGeneration",
    read_processor=_Qwen25OmniProcessor.read,
    unsupported={
        "thinker_config__audio_config__n_window": (1600, "n_window=1600"),
        "thinker_config__audio_config__max_source_positions": (99, "99 positions"),
        "thinker_config__text_config__model_type": ("llama", "llama"),
        "thinker_config__text_config__layer_types": (
            ["sliding_attention"] * 2,
            "sliding_attention",
        ),
        "thinker_config": ([], "thinker_config=[]"),
    },
)

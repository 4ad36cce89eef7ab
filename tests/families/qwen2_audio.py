"""The case of Qwen2-Audio."""

from __future__ import annotations

from checkpoints import random_checkpoint

from .base import Case

CASE = Case(
    "qwen2_audio",
    "Qwen2AudioForConditionalGeneration",
    lambda folder: random_checkpoint(
        folder, width=32, encoder_layers=2, lm_width=48, lm_layers=2, shards=1
    ),
    unsupported={
        "audio_config__max_source_positions": (750, "750 positions"),
        "text_config__layer_types": (["sliding_attention"] * 2, "sliding_attention"),
        "text_config__model_type": ("llama", "llama"),
    },
)

"""The case of GLM-ASR."""

from __future__ import annotations

from pathlib import Path

import transformers

from .base import Case, qwen2_config, tokenizer_with, write_checkpoint

_GLM_TEMPLATE = """{% for message in messages %}<|{{ message['role'] }}|>
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}{% if part['type'] == 'audio' %}\
<|begin_of_audio|><|pad|><|end_of_audio|><|user|>
{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>
{% endif %}"""


def _write_glm_asr(folder: Path) -> None:
    roles = ("<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|end_of_audio|>")
    tokenizer = tokenizer_with("<|pad|>", *roles)
    config = transformers.GlmAsrConfig(
        audio_config={
            "model_type": "glmasr_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
        text_config=qwen2_config(tokenizer, model_type="llama", tie_word_embeddings=True),
        audio_token_id=tokenizer.convert_tokens_to_ids("<|pad|>"),
    )
    processor = transformers.GlmAsrProcessor(
        transformers.WhisperFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=_GLM_TEMPLATE,
    )
    write_checkpoint(folder, "GlmAsrForConditionalGeneration", config, processor, 0.05)


CASE = Case(
    "glmasr",
    "GlmAsrForConditionalGeneration",
    _write_glm_asr,
    longest=600.0,
    unsupported={
        "audio_config__max_position_embeddings": (750, "750 positions"),
        "audio_config__intermediate_size": (64, "intermediate_size=64"),
        "audio_config__rope_parameters": (
            {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
            "'dynamic'",
        ),
        "text_config__model_type": ("qwen2", "qwen2"),
    },
)

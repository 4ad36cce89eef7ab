"""The case of Qwen3-ASR."""

from __future__ import annotations

from pathlib import Path

import transformers

from checkpoints import END_OF_TEXT_ID

from .base import Case, qwen2_config, write_checkpoint
from .qwen3 import omni_tokenizer, qwen3_encoder_config, thirteen_a_second

_ASR_TEMPLATE = """<|im_start|>system
{% for message in messages if message['role'] == 'system' %}{% if message['content'] is string %}\
{{ message['content'] }}{% else %}{% for part in message['content'] %}{{ part['text'] }}\
{% endfor %}{% endif %}{% endfor %}<|im_end|>
<|im_start|>user
{% for message in messages if message['content'] is not string %}\
{% for part in message['content'] if part['type'] == 'audio' %}\
<|audio_start|><|audio_pad|><|audio_end|>{% endfor %}{% endfor %}<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""As the released checkpoints': text of users is dropped."""


def _write_qwen3_asr(folder: Path) -> None:
    tokenizer = omni_tokenizer()
    text = qwen2_config(
        tokenizer,
        model_type="qwen3",
        head_dim=32,
        intermediate_size=160,
        tie_word_embeddings=True,
    )
    config = transformers.Qwen3ASRConfig(
        audio_config=qwen3_encoder_config("qwen3_asr_encoder"),
        text_config=text,
        audio_token_id=tokenizer.audio_token_id,
        eos_token_id=END_OF_TEXT_ID,
    )
    processor = transformers.Qwen3ASRProcessor(
        transformers.Qwen3ASRFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=_ASR_TEMPLATE,
    )
    write_checkpoint(folder, "Qwen3ASRForConditionalGeneration", config, processor, 0.05)


CASE = Case(
    "qwen3_asr",
    "Qwen3ASRForConditionalGeneration",
    _write_qwen3_asr,
    longest=1200.0,
    encoder_rows=thirteen_a_second,
    unsupported={
        "audio_config__n_window": (100, "n_window=100"),
        "audio_config__n_window_infer": (850, "n_window_infer=850"),
    },
)

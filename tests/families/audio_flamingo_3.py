"""The case of Audio Flamingo 3."""

from __future__ import annotations

from pathlib import Path

import transformers

from .base import TEMPLATE, Case, qwen2_config, tokenizer_with, write_checkpoint


def write_flamingo(folder: Path, name: str, *markers: str) -> None:
    """A checkpoint of Audio Flamingo 3 or Music Flamingo.

    Args:
        name: the beginning of the names of transformers' classes.
        markers: tokens of the tokenizer besides that of audio.
    """
    tokenizer = tokenizer_with("<sound>", *markers)
    config = getattr(transformers, f"{name}Config")(
        audio_config={
            "model_type": "audioflamingo3_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
        },
        text_config=qwen2_config(tokenizer),
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    processor = getattr(transformers, f"{name}Processor")(
        transformers.WhisperFeatureExtractor(feature_size=80),
        tokenizer,
        chat_template=TEMPLATE.replace("AUDIO", "<sound>"),
    )
    write_checkpoint(folder, f"{name}ForConditionalGeneration", config, processor)


CASE = Case(
    "audioflamingo3",
    "AudioFlamingo3ForConditionalGeneration",
    lambda folder: write_flamingo(folder, "AudioFlamingo3"),
    longest=600.0,
    unsupported={"audio_config__max_source_positions": (750, "750 positions")},
)

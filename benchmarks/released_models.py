"""Sizes of a released model of each family: those of its config.json, or transformers' defaults.

They replace those of the tests' tiny checkpoints (`tests/families`), which have two layers each in
encoder and language model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["RELEASED", "Fields", "ReleasedModel"]


Fields = Mapping[str, Mapping[str, Any]]
"""Fields of parts of a config.json, by the part's place, such as `thinker_config.text_config`."""


@dataclass(frozen=True)
class ReleasedModel:
    """Sizes of a released model.

    Attributes:
        name: on the hub.
        encoder: widths of the encoder.
        language_model: widths of the language model, and those that follow from them.
        layers: numbers of layers.
    """

    name: str
    encoder: Fields
    language_model: Fields
    layers: Fields


_WHISPER = {
    "num_mel_bins": 128,
    "d_model": 1280,
    "encoder_attention_heads": 20,
    "encoder_ffn_dim": 5120,
}
"""Whisper large-v3's, which most have."""

_LAYERS = {"hidden_size": 1280, "num_attention_heads": 20, "intermediate_size": 5120}
"""The same in transformers' newer names."""

_QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}

RELEASED = {
    "qwen2_audio": ReleasedModel(
        "Qwen/Qwen2-Audio-7B-Instruct",
        {"audio_config": _WHISPER},
        {
            "text_config": {
                "hidden_size": 4096,
                "intermediate_size": 11_008,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "vocab_size": 156_032,
            }
        },
        {
            "audio_config": {"encoder_layers": 32},
            "text_config": {"num_hidden_layers": 32, "layer_types": None},
        },
    ),
    "audioflamingo3": ReleasedModel(
        "nvidia/audio-flamingo-3-hf",
        {"audio_config": {"num_mel_bins": 128, **_LAYERS}},
        {"text_config": {**_QWEN2_7B, "vocab_size": 151_672}},
        {
            "audio_config": {"num_hidden_layers": 32},
            "text_config": {"num_hidden_layers": 28, "layer_types": None},
        },
    ),
    "musicflamingo": ReleasedModel(
        "nvidia/music-flamingo-2601-hf",
        {"audio_config": {"num_mel_bins": 128, **_LAYERS}},
        {"text_config": {**_QWEN2_7B, "vocab_size": 151_672}},
        {
            "audio_config": {"num_hidden_layers": 32},
            "text_config": {"num_hidden_layers": 28, "layer_types": None},
        },
    ),
    "qwen2_5_omni": ReleasedModel(
        "Qwen/Qwen2.5-Omni-7B",
        {"thinker_config.audio_config": _WHISPER},
        {
            "thinker_config.audio_config": {"output_dim": 3584},
            "thinker_config.text_config": {**_QWEN2_7B, "vocab_size": 152_064},
            "thinker_config.text_config.rope_parameters": {"mrope_section": [16, 24, 24]},
            "thinker_config.vision_config": {"out_hidden_size": 3584},
            "talker_config": {"embedding_size": 3584},
        },
        {
            "thinker_config.audio_config": {"encoder_layers": 32},
            "thinker_config.text_config": {"num_hidden_layers": 28, "layer_types": None},
        },
    ),
    "qwen3_asr": ReleasedModel(
        "Qwen/Qwen3-ASR-1.7B-hf",
        {
            "audio_config": {
                "num_mel_bins": 128,
                "d_model": 1024,
                "encoder_attention_heads": 16,
                "encoder_ffn_dim": 4096,
                "downsample_hidden_size": 480,
            }
        },
        {
            "audio_config": {"output_dim": 2048},
            "text_config": {
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_attention_heads": 16,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 151_936,
            },
        },
        {
            "audio_config": {"encoder_layers": 24},
            "text_config": {"num_hidden_layers": 28, "layer_types": None},
        },
    ),
    "qwen3_omni_moe": ReleasedModel(
        "Qwen/Qwen3-Omni-30B-A3B-Instruct",
        {"thinker_config.audio_config": {**_WHISPER, "downsample_hidden_size": 480}},
        {
            "thinker_config.audio_config": {"output_dim": 2048},
            "thinker_config.text_config": {
                "hidden_size": 2048,
                "moe_intermediate_size": 768,
                "num_experts": 128,
                "num_experts_per_tok": 8,
                "num_attention_heads": 32,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "vocab_size": 152_064,
            },
            "thinker_config.text_config.rope_parameters": {"mrope_section": [24, 20, 20]},
            "thinker_config.vision_config": {"out_hidden_size": 2048},
        },
        {
            "thinker_config.audio_config": {"encoder_layers": 32},
            "thinker_config.text_config": {"num_hidden_layers": 48},
        },
    ),
    "glmasr": ReleasedModel(
        "zai-org/GLM-ASR-Nano-2512",
        {"audio_config": {"num_mel_bins": 128, **_LAYERS, "num_key_value_heads": 20}},
        {
            "text_config": {
                "hidden_size": 2048,
                "intermediate_size": 6144,
                "num_attention_heads": 16,
                "num_key_value_heads": 4,
                "head_dim": 128,
                "vocab_size": 59_264,
            }
        },
        {
            "audio_config": {"num_hidden_layers": 32},
            "text_config": {"num_hidden_layers": 28},
        },
    ),
    "voxtral": ReleasedModel(
        "mistralai/Voxtral-Mini-3B-2507",
        {"audio_config": {"num_mel_bins": 128, **_LAYERS}},
        {
            "text_config": {
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "head_dim": 128,
                "vocab_size": 131_072,
            }
        },
        {
            "audio_config": {"num_hidden_layers": 32},
            "text_config": {"num_hidden_layers": 30},
        },
    ),
    "whisper": ReleasedModel(
        "openai/whisper-large-v3",
        {"": {**_WHISPER, "decoder_attention_heads": 20, "decoder_ffn_dim": 5120}},
        {"": {"vocab_size": 51_866}},
        {"": {"encoder_layers": 32, "decoder_layers": 32}},
    ),
}
"""By `model_type`."""

"""What the cases of Qwen3-ASR and Qwen3-Omni share."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer

from checkpoints import EMBEDDED


def thirteen_a_second(mel_frames: int) -> int:
    """Rows of an encoder: 13 of 100 frames, one of 8 and of what is left."""
    return mel_frames // 100 * 13 + -(-(mel_frames % 100) // 8)


def omni_tokenizer() -> Any:
    """With the names of tokens that processors of Qwen3 look up."""
    names = {"audio": ("pad", "start", "end"), "vision": ("", "start", "end")}
    tokens = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    for kind, parts in names.items():
        for name, part in zip(("token", "bos_token", "eos_token"), parts, strict=True):
            if part:
                tokens[f"{kind}_{name}"] = f"<|{kind}_{part}|>"
    return AutoTokenizer.from_pretrained(EMBEDDED, extra_special_tokens=tokens)


def qwen3_encoder_config(model_type: str) -> dict[str, Any]:
    """Of an encoder of two layers."""
    return {
        "model_type": model_type,
        "num_mel_bins": 80,
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "downsample_hidden_size": 12,
        "output_dim": 48,
    }

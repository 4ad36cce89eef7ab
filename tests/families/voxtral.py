"""The case of Voxtral."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from torch import Tensor

from tekken import write_tekken

from .base import Case, qwen2_config, write_checkpoint


def _write_voxtral(folder: Path) -> None:
    vocabulary = write_tekken(folder)
    config = transformers.VoxtralConfig(
        audio_config={
            "model_type": "voxtral_encoder",
            "num_mel_bins": 80,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
        },
        text_config=qwen2_config(
            range(vocabulary), model_type="llama", head_dim=16, eos_token_id=2, rope_theta=1e8
        ),
        audio_token_id=24,
    )
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    write_checkpoint(folder, "VoxtralForConditionalGeneration", config, extractor, 3.0)
    settings = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 11}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")


_DATA = Path(__file__).parent.parent / "data"
VOXTRAL_PROMPTS = json.loads((_DATA / "voxtral_prompts.json").read_text(encoding="utf-8"))
"""What mistral-common makes of conversations: see make_voxtral_prompts.py beside it."""


def _voxtral_inputs(processor: Any, clip: np.ndarray, prompt_text: str) -> dict[str, Tensor]:
    """What the processor does for conversations, of a prompt that is already there."""
    options = {**processor.audio_kwargs}
    features = processor._retrieve_input_features([clip], **options)
    expanded = prompt_text.replace("[AUDIO]", "[AUDIO]" * 375 * len(features))
    text = {"add_special_tokens": False, "return_tensors": "pt"}
    return {**processor.tokenizer(expanded, **text), "input_features": features}


def _voxtral_turns(processor: Any, turns: Any) -> str:
    (ids,) = (prompt["ids"] for prompt in VOXTRAL_PROMPTS if prompt["messages"] == turns)
    text = str(processor.tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False))
    return text.replace("[AUDIO]" * 375, "[AUDIO]")


CASE = Case(
    "voxtral",
    "VoxtralForConditionalGeneration",
    _write_voxtral,
    longest=2400.0,
    tower_rows=lambda mel_frames: -(-mel_frames // 8),
    inputs=_voxtral_inputs,
    rendered_turns=_voxtral_turns,
    mel_frames=lambda _, clip: -(-len(clip) // 160),
    unsupported={
        "audio_config__max_source_positions": (750, "750 positions"),
        "audio_config__intermediate_size": (64, "intermediate_size=64"),
        "text_config__model_type": ("qwen2", "qwen2"),
    },
)

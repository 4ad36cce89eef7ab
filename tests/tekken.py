"""A small tekken.json, the form in which Voxtral has its tokenizer."""

from __future__ import annotations

import base64
import json
from pathlib import Path

__all__ = ["write_tekken"]

_CONTROL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    *("[TOOL_CONTENT]", "<SPECIAL_20>", "<SPECIAL_21>", "<SPECIAL_22>", "<SPECIAL_23>"),
    *("[AUDIO]", "[BEGIN_AUDIO]", "<SPECIAL_26>", "<SPECIAL_27>", "<SPECIAL_28>", "<SPECIAL_29>"),
    *("<SPECIAL_30>", "<SPECIAL_31>", "[ARGS]", "[CALL_ID]", "[TRANSCRIBE]", "<SPECIAL_35>"),
)
"""At Voxtral's ranks."""

_WORDS = (
    *("th", "at", "is", " a", " th", " is", " that", " this"),
    *("Wh", "What", "in", "er", "he", "an", "re", " be"),
)
_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def write_tekken(folder: Path) -> int:
    """Of bytes, some words, and Voxtral's control tokens.

    Returns:
        How many tokens it has.
    """
    tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in _WORDS]
    settings = {
        "config": {
            "pattern": _PATTERN,
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": len(tokens) + len(_CONTROL),
            "default_num_special_tokens": len(_CONTROL),
            "version": "v11",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate(tokens)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": name, "is_control": True}
            for rank, name in enumerate(_CONTROL)
        ],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 80, "hop_length": 160, "window_size": 400},
            "chunk_length_s": 30.0,
        },
        "version": 1,
        "type": "Tekken",
    }
    (folder / "tekken.json").write_text(json.dumps(settings), encoding="utf-8")
    return len(tokens) + len(_CONTROL)

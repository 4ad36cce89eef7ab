"""config.json and the files beside it: read, and held against what this package can hear."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from transformers import Qwen2AudioConfig

from .errors import CheckpointError
from .mel import MAX_FRAMES

__all__ = ["is_name", "parse_json", "read_config"]


def read_config(folder: Path, name: str) -> Qwen2AudioConfig:
    """config.json of a checkpoint folder. Raises CheckpointError unless it is a Qwen2-Audio."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{name} holds no config.json: it is not a checkpoint folder")
    settings = parse_json(folder / "config.json")
    if settings.get("model_type") != "qwen2_audio":
        raise CheckpointError(
            f"{name} is of type {settings.get('model_type')!r}; only 'qwen2_audio' is supported"
        )
    try:
        config = Qwen2AudioConfig(**settings)
    except Exception as error:  # transformers' strict configs raise several types
        raise CheckpointError(f"{name}: config.json is not valid ({error})") from error
    text: Any = config.text_config
    if text.model_type != "qwen2" or set(text.layer_types) != {"full_attention"}:
        raise CheckpointError(
            f"{name} has a language model of type {text.model_type!r} with {set(text.layer_types)} "
            "layers; only 'qwen2' with full attention is supported"
        )
    positions = cast(Any, config.audio_config).max_source_positions
    if positions != MAX_FRAMES // 2:
        raise CheckpointError(
            f"{name} hears {positions} frames at once; only {MAX_FRAMES // 2}, 30 s, are supported"
        )
    return config


def is_name(file: Any) -> bool:
    """Whether it is a file's name alone: an index must not lead out of its folder."""
    return isinstance(file, str) and file not in ("", ".", "..") and Path(file).name == file


def parse_json(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises CheckpointError for any other."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} holds no JSON object: download it again")
    return settings

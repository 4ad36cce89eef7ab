"""Files of a checkpoint's processor: the settings of its feature extractor, and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_audio.errors import CheckpointError
from qwen_audio.models.qwen2_audio.config import build_feature_extractor
from qwen_audio.weights.hub import HubFiles

if TYPE_CHECKING:
    from transformers import WhisperFeatureExtractor

__all__ = [
    "PROCESSOR_CONFIG",
    "PROCESSOR_FILES",
    "SLOW_TOKENIZER",
    "TOKENIZER",
    "check_tokenizer",
    "read_feature_extractor",
]

TOKENIZER = "tokenizer.json"
SLOW_TOKENIZER = (
    *("vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "tokenizer_config.json"),
)
"""What a tokenizer consists of that was saved without `TOKENIZER`, by transformers 4."""

PROCESSOR_CONFIG = "processor_config.json"
_OLDER_CONFIG = "preprocessor_config.json"
PROCESSOR_FILES = (
    *(PROCESSOR_CONFIG, _OLDER_CONFIG, TOKENIZER, *SLOW_TOKENIZER),
    *("chat_template.jinja", "chat_template.json"),
)
"""What a processor may consist of."""


def read_feature_extractor(
    name: str, folder: Path, mel_bins: int, read_json: Callable[[str], dict[str, Any]]
) -> WhisperFeatureExtractor:
    """transformers' log-mel feature extractor, with the settings in processor_config.json, as
    transformers 5 writes them, or in preprocessor_config.json.

    Args:
        name: of the checkpoint.
        read_json: the content of one of its files; empty if it has no such file.

    Raises:
        CheckpointError: if it has neither, or other settings than Qwen2-Audio's.
    """
    try:
        settings = read_json(PROCESSOR_CONFIG)
    except CheckpointError:  # the hub can't be reached, and the cache doesn't know this file
        if (folder / PROCESSOR_CONFIG).is_file() or not (folder / _OLDER_CONFIG).is_file():
            raise
        settings = {}
    for key in ("feature_extractor", "audio_processor"):
        if key in settings:
            return build_feature_extractor(settings[key], mel_bins, f"{name}: {PROCESSOR_CONFIG}")
    if not (settings := read_json(_OLDER_CONFIG)):
        raise _no_processor(
            name, f"no settings of a feature extractor ({PROCESSOR_CONFIG} or {_OLDER_CONFIG})"
        )
    return build_feature_extractor(settings, mel_bins, f"{name}: {_OLDER_CONFIG}")


def check_tokenizer(name: str, folder: Path, hub: HubFiles | None) -> None:
    """Raises CheckpointError if it has no tokenizer; on a hub, without downloading it."""
    names = (TOKENIZER, SLOW_TOKENIZER[0])
    if hub is None:
        there = [(folder / file).is_file() for file in names]
    else:
        there = [hub.has_file(file) for file in names]
    if not any(there):
        raise _no_processor(name, f"no tokenizer ({TOKENIZER})")


def _no_processor(name: str, lacking: str) -> CheckpointError:
    return CheckpointError(
        f"{name} has {lacking}: save the processor beside the weights, with transformers' "
        "AutoProcessor.from_pretrained(MODEL).save_pretrained(FOLDER), where MODEL is what the "
        "checkpoint was made from"
    )

"""Files of a checkpoint's processor: the settings of its feature extractor, and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qwen_audio.errors import CheckpointError

from .checkpoint_files import CheckpointFiles

__all__ = [
    "PROCESSOR_CONFIG",
    "PROCESSOR_FILES",
    "SLOW_TOKENIZER",
    "TEKKEN",
    "TOKENIZER",
    "check_tokenizer",
    "read_feature_extractor",
]

TOKENIZER = "tokenizer.json"
TEKKEN = "tekken.json"
"""A tokenizer of Mistral's."""
SLOW_TOKENIZER = (
    *("vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", "tokenizer_config.json"),
)
"""What a tokenizer consists of that was saved without `TOKENIZER`, by transformers 4."""

PROCESSOR_CONFIG = "processor_config.json"
_OLDER_CONFIG = "preprocessor_config.json"
PROCESSOR_FILES = (
    *(PROCESSOR_CONFIG, _OLDER_CONFIG, TOKENIZER, TEKKEN, *SLOW_TOKENIZER),
    *("chat_template.jinja", "chat_template.json"),
)
"""What a processor may consist of."""


def read_feature_extractor(files: CheckpointFiles, build: Callable[[Any, str], Any]) -> Any:
    """transformers' log-mel feature extractor, with the settings in processor_config.json, as
    transformers 5 writes them, or in preprocessor_config.json.

    Args:
        build: makes it of settings, and the name of their file: see `Family.feature_extractor`.

    Raises:
        CheckpointError: if it has neither, or settings that aren't supported.
    """
    name, folder = files.name, files.folder
    try:
        settings = files.read_json(PROCESSOR_CONFIG)
    except CheckpointError:  # the hub can't be reached, and the cache doesn't know this file
        if (folder / PROCESSOR_CONFIG).is_file() or not (folder / _OLDER_CONFIG).is_file():
            raise
        settings = {}
    for key in ("feature_extractor", "audio_processor"):
        if key in settings:
            return build(settings[key], f"{name}: {PROCESSOR_CONFIG}")
    if not (settings := files.read_json(_OLDER_CONFIG)):
        raise _no_processor(
            name, f"no settings of a feature extractor ({PROCESSOR_CONFIG} or {_OLDER_CONFIG})"
        )
    return build(settings, f"{name}: {_OLDER_CONFIG}")


def check_tokenizer(files: CheckpointFiles) -> None:
    """Raises CheckpointError if it has no tokenizer; on a hub, without downloading it."""
    if not any(map(files.has_file, (TOKENIZER, TEKKEN, SLOW_TOKENIZER[0]))):
        raise _no_processor(files.name, f"no tokenizer ({TOKENIZER} or {TEKKEN})")


def _no_processor(name: str, lacking: str) -> CheckpointError:
    return CheckpointError(
        f"{name} has {lacking}: save the processor beside the weights, with transformers' "
        "AutoProcessor.from_pretrained(MODEL).save_pretrained(FOLDER), where MODEL is what the "
        "checkpoint was made from"
    )

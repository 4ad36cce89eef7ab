"""adapter_config.json of PEFT: which adapters can be merged, and by which factor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from qwen_audio.errors import CheckpointError

__all__ = ["MERGE_HINT", "check_adapter_config", "lora_scale"]

MERGE_HINT = (
    "merge it with PEFT (model.merge_and_unload()), save that with its processor, and load it"
)
"""What to do with adapters that can't be merged here."""

_VARIANTS = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "layer_replication", "lora_bias"),
    *("monteclora_config", "target_parameters", "trainable_token_indices", "velora_config"),
)
"""Settings of LoRA's variants, beside those whose names start with use_."""

_PLAIN_INITS = ("true", "false", "none", "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights by which the base weights stay as they are."""


def check_adapter_config(settings: Mapping[str, Any], name: str) -> None:
    """Raises CheckpointError for an adapter other than LoRA's low-rank terms, naming what it is."""
    kind = settings.get("peft_type")
    if str(kind).upper() != "LORA":
        raise CheckpointError(
            f"{name} is an adapter of type {kind}; only LoRA can be merged here: {MERGE_HINT}"
        )
    for key, value in settings.items():
        if value and key != "use_rslora" and (key in _VARIANTS or key.startswith("use_")):
            raise CheckpointError(
                f"{name} is a variant of LoRA, with {key}={value!r:.40}, that can't be merged "
                f"here: {MERGE_HINT}"
            )
    init = settings.get("init_lora_weights", True)
    if str(init).lower() not in _PLAIN_INITS:
        raise CheckpointError(
            f"{name} was initialised with {init!r:.40}, which changes the base weights, too: save "
            "it as plain LoRA (PEFT's path_initial_model_for_weight_conversion), or " + MERGE_HINT
        )


def lora_scale(settings: Mapping[str, Any], module: str, rank: int, name: str) -> float:
    """The factor of B·A for a module: alpha / rank, or alpha / √rank with use_rslora.

    Raises:
        CheckpointError: for settings that aren't numbers or patterns.
    """
    try:
        patterns = settings.get("alpha_pattern") or {}
        matching = [key for key in patterns if re.match(rf"(.*\.)?({key})$", module)]
        alpha = float(patterns[matching[0]] if matching else settings.get("lora_alpha", 8))
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise CheckpointError(
            f"{name}: adapter_config.json has an invalid lora_alpha or alpha_pattern ({error}): "
            "save the adapter again"
        ) from error
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)

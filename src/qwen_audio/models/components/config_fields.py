"""Fields of configurations that transformers knows; packed attention; dtypes that are stated."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from qwen_audio.models.packed_attention import ATTENTION

__all__ = ["known_fields", "packed_config", "stated_dtype"]

_OLDER = {"rope_theta"}
"""Fields that transformers still reads, under another name."""


def known_fields(settings: Any, config: Any) -> dict[str, Any]:
    """Those that transformers' configuration has, which is a dataclass, where they are set."""
    known = {each.name for each in fields(config)} | _OLDER
    items = settings.items() if isinstance(settings, Mapping) else ()
    return {key: value for key, value in items if key in known and value is not None}


def packed_config(config: Any) -> Any:
    """The configuration of layers that attend within each window of a packed sequence."""
    packed = copy.deepcopy(config)
    if packed is not None:
        packed._attn_implementation = ATTENTION
    return packed


def stated_dtype(*configs: Any) -> torch.dtype | None:
    """The dtype of weights that the first of some configurations that has one states."""
    stated = (getattr(config, "dtype", None) for config in configs)
    return next((dtype for dtype in stated if isinstance(dtype, torch.dtype)), None)

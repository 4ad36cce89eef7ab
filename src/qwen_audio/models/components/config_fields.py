"""Configurations that have fields which transformers' own doesn't know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

__all__ = ["known_fields"]

_OLDER = {"rope_theta"}
"""Fields that transformers still reads, under another name."""


def known_fields(settings: Any, config: Any) -> dict[str, Any]:
    """Those that transformers' configuration has, which is a dataclass, where they are set."""
    known = {each.name for each in fields(config)} | _OLDER
    items = settings.items() if isinstance(settings, Mapping) else ()
    return {key: value for key, value in items if key in known and value is not None}

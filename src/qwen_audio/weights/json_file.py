"""Files with one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwen_audio.errors import CheckpointError

__all__ = ["parse_json"]


def parse_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object. Raises CheckpointError for any other content."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is not a JSON object: download it again")
    return settings

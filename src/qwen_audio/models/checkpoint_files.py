"""Files of a checkpoint other than weights, in a folder or on a hub."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.json_file import parse_json

__all__ = ["CheckpointFiles"]


@dataclass(frozen=True)
class CheckpointFiles:
    """Files of one checkpoint, downloaded when they are asked for.

    Attributes:
        name: of the checkpoint, for error messages.
        folder: where they are.
        hub: where they come from; None for a folder.
    """

    name: str
    folder: Path
    hub: HubFiles | None

    def file(self, name: str) -> Path | None:
        """Path of a file, downloaded if need be; None if there is none."""
        if self.hub is not None:
            self.hub.fetch_file(name, optional=True)
        path = self.folder / name
        return path if path.is_file() else None

    def has_file(self, name: str) -> bool:
        """Whether there is a file; on a hub, without downloading it."""
        return (self.folder / name).is_file() if self.hub is None else self.hub.has_file(name)

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file; empty if there is no such file."""
        path = self.file(name)
        return {} if path is None else parse_json(path)

    @cached_property
    def generation_config(self) -> dict[str, Any]:
        """generation_config.json; empty if there is none."""
        return self.read_json("generation_config.json")

"""What is given as a checkpoint and can't be loaded: what it is, and what to do."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from qwen_audio.errors import CheckpointError
from qwen_audio.weights.adapter import ADAPTER_CONFIG
from qwen_audio.weights.download import list_files
from qwen_audio.weights.hub import HubFiles
from qwen_audio.weights.json_file import parse_json
from qwen_audio.weights.other_formats import explain_files

__all__ = ["folder_error", "hub_model_error"]


def folder_error(folder: Path) -> CheckpointError:
    """The error for a folder that has no config.json."""
    if (folder / ADAPTER_CONFIG).is_file():
        return _is_adapter(folder, str(folder))
    reason = explain_files([path.name for path in folder.iterdir()])
    inner = [
        path.parent
        for pattern in ("*", "snapshots/*")  # of a training, and of the hub's cache
        for name in ("config.json", ADAPTER_CONFIG)
        for path in sorted(folder.glob(f"{pattern}/{name}"))
    ]
    if reason is None and inner:
        reason = f"did you mean {inner[-1]}?"
    return CheckpointError(
        f"{folder} has no config.json: {reason or 'it is not a checkpoint folder'}"
    )


def hub_model_error(repo: str, revision: str | None) -> CheckpointError | None:
    """The error for a hub model that has no config.json; None if nothing is known of it."""
    with suppress(CheckpointError):
        hub = HubFiles.resolve(repo, revision, ADAPTER_CONFIG)
        return _is_adapter(hub.folder, repo)
    reason = explain_files(list_files(repo, revision))
    return CheckpointError(f"{repo} has no config.json: {reason}") if reason else None


def _is_adapter(folder: Path, name: str) -> CheckpointError:
    base = parse_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path") or "ITS-BASE-MODEL"
    return CheckpointError(
        f"{name} is an adapter (PEFT) for {base}, not a whole checkpoint: load both, with "
        f"model={base!r} and adapter={name!r}"
    )

"""Which tensors a checkpoint has, and in which of its files: from the index, or the only file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen_audio.errors import CheckpointError

from .download import list_files
from .hub import HubFiles
from .json_file import parse_json
from .other_formats import explain_files
from .safetensors_file import TensorInfo, read_header

__all__ = ["read_index"]

_INDEX, _SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"


def read_index(
    name: str, folder: Path, hub: HubFiles | None
) -> tuple[dict[str, str], dict[str, dict[str, TensorInfo]]]:
    """Tensor name → file, from the index or from the header of the only file; and the headers that
    were read, by file.

    Args:
        name: of the checkpoint, for error messages.
        folder: of its files, or to download them to.
        hub: where to download from; None for a local folder.

    Raises:
        CheckpointError: for files that are missing or damaged.
    """
    if hub is not None:
        hub.fetch_file(_INDEX, optional=True)
    single = folder / _SINGLE_FILE
    is_single = hub is None and single.is_file()  # which is what transformers reads, too
    if (index := folder / _INDEX).is_file() and not is_single:
        files = parse_json(index).get("weight_map")
        if not isinstance(files, dict) or not all(_is_file_name(file) for file in files.values()):
            raise CheckpointError(
                f"{name}: {_INDEX} has no weight_map of tensors and files beside it: "
                "download it again"
            )
        return files, {}
    header: dict[str, TensorInfo] | None = None
    if hub is not None:
        header = hub.header(_SINGLE_FILE, optional=True)
        if header is None:  # there is no such file, or the server sends whole files only
            hub.fetch_file(_SINGLE_FILE, optional=True)
    if header is None:
        if not (folder / _SINGLE_FILE).is_file():
            names = (
                [path.name for path in folder.iterdir()]
                if hub is None
                else list_files(hub.repo, hub.commit)
            )
            raise CheckpointError(
                f"{name} has neither {_INDEX} nor {_SINGLE_FILE}: "
                f"{explain_files(names) or 'weights are read from safetensors only'}"
            )
        header = read_header(folder / _SINGLE_FILE)
    return dict.fromkeys(header, _SINGLE_FILE), {_SINGLE_FILE: header}


def _is_file_name(file: Any) -> bool:
    """Whether it is a file name without a path: an index must not refer to other folders."""
    return isinstance(file, str) and file not in ("", ".", "..") and Path(file).name == file

"""Tensors of a checkpoint by name, from a folder of safetensors files or from a hub."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from qwen_audio.errors import CheckpointError

from .direct_io import ReadBuffer
from .download import ProgressCallback
from .hub import HubFiles
from .safetensors_file import (
    TensorInfo,
    TensorLocation,
    check_dtype,
    read_header,
    read_rows,
    read_tensors,
    tensor_byte_samples,
)

__all__ = ["TensorStore", "is_name", "parse_json"]

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


class TensorStore:
    """Named tensors in one or several safetensors files, checked when opened and read in part.

    Opening reads the index and, of local files, the headers; no tensor data. Headers of a hub's
    files are fetched and checked when a tensor of theirs is first needed.

    Args:
        name: of the checkpoint, for error messages.
        folder: where its files are, or are downloaded to.
        shapes: name and shape of every tensor that the files must hold.
        hub: where to download from; None for a local folder.

    Raises:
        CheckpointError: if the files aren't there, are damaged, or don't hold exactly these tensors
            (missing, extra or of another shape).
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        hub: HubFiles | None = None,
    ) -> None:
        self.name, self.folder, self.shapes = name, folder, dict(shapes)
        self._hub = hub
        self._file_of, headers = self._read_index()
        self._check_names()
        if hub is None:
            files = sorted(set(self._file_of.values()) - headers.keys())
            headers |= {file: self._read_header(file) for file in files}
        for file, slots in headers.items():
            self._check_header(file, slots)
        self._headers = headers

    def byte_samples(self) -> Iterator[bytes]:
        """Header entries and some bytes of every tensor, in a fixed order; of local files only."""
        for file in sorted(set(self._file_of.values())):
            yield from tensor_byte_samples(self.folder / file)

    def stored_bytes(self, name: str, default_dtype: torch.dtype) -> int:
        """Size of a tensor on disk, from the header of its file.

        Args:
            default_dtype: assumed where a hub's server doesn't serve headers alone.
        """
        header = self._header(self._file_of[name])
        if header is None:
            return math.prod(self.shapes[name]) * default_dtype.itemsize
        return header[name].bytes

    def missing_bytes(self, names: Iterable[str]) -> int:
        """Bytes that `fetch` would download."""
        return 0 if self._hub is None else self._hub.missing(self._by_file(names))

    def fetch(self, names: Iterable[str], report: ProgressCallback | None = None) -> None:
        """Download those of these tensors that aren't on this machine, all at once.

        Raises:
            CheckpointError: if the hub can't deliver them, or delivers other tensors.
        """
        if self._hub is not None:
            wanted = self._by_file(names)
            for file in wanted:
                self._header(file)
            self._hub.bring(wanted, report)

    def read(
        self,
        prefix: str,
        *,
        pinned: bool = False,
        buffer: ReadBuffer | None = None,
        convert: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix`, keyed by the rest of their names.

        See `read_tensors` for the options.
        """
        located = self._located(name for name in self.shapes if name.startswith(prefix))
        tensors = read_tensors(located, pinned=pinned, buffer=buffer, convert=convert)
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    def read_rows(self, name: str, rows: Sequence[int]) -> list[torch.Tensor]:
        """Single rows of a matrix, each of shape (columns,), without reading the rest of it.

        Raises:
            CheckpointError: for a row that the matrix doesn't have.
        """
        count = self.shapes[name][0]
        if beyond := [row for row in rows if not 0 <= row < count]:
            raise CheckpointError(
                f"{self.name}: row {beyond[0]} of {name} was asked for, but it has {count} rows: "
                "tokenizer and weights don't belong together"
            )
        file = self._file_of[name]
        if self._hub is not None and name not in self._hub.held(file):
            self._header(file)
            found = self._hub.bring_rows(file, name, rows)
            return [found[row] for row in rows]
        return read_rows(self._located([name])[name], rows, name)

    def _by_file(self, names: Iterable[str]) -> dict[str, list[str]]:
        files: dict[str, list[str]] = {}
        for name in names:
            files.setdefault(self._file_of[name], []).append(name)
        return files

    def _located(self, names: Iterable[str]) -> dict[str, TensorLocation]:
        """Where tensors are on this machine; they are downloaded if they aren't."""
        located: dict[str, TensorLocation] = {}
        for file, mine in self._by_file(names).items():
            slots = self._header(file) or {}
            if self._hub is None:
                held = {
                    name: TensorLocation(self.folder / file, slot) for name, slot in slots.items()
                }
            elif not set(mine) <= (held := self._hub.held(file)).keys():
                self._hub.bring({file: mine})
                held = self._hub.held(file)
            located |= {name: held[name] for name in mine}
        return located

    def _read_index(self) -> tuple[dict[str, str], dict[str, dict[str, TensorInfo]]]:
        """Tensor name → file, from the index, or from the header of the only file; and, by file,
        the headers read for it."""
        if self._hub is not None:
            self._hub.fetch_file(_INDEX, optional=True)
        if (index := self.folder / _INDEX).is_file():
            files = parse_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(is_name(file) for file in files.values()):
                raise CheckpointError(
                    f"{self.name}: {_INDEX} has no weight_map of tensors and files beside it: "
                    "download it again"
                )
            return files, {}
        slots: dict[str, TensorInfo] | None = None
        if self._hub is not None:
            slots = self._hub.header(_SINGLE, optional=True)
            if slots is None:  # there is no such file, or the server sends whole files only
                self._hub.fetch_file(_SINGLE, optional=True)
        if slots is None:
            if not (self.folder / _SINGLE).is_file():
                raise CheckpointError(
                    f"{self.name} holds neither {_INDEX} nor {_SINGLE}: "
                    "weights are read from safetensors only"
                )
            slots = read_header(self.folder / _SINGLE)
        return dict.fromkeys(slots, _SINGLE), {_SINGLE: slots}

    def _header(self, file: str) -> dict[str, TensorInfo] | None:
        """Where the tensors of a file are in it; None where only the whole file would tell."""
        if file not in self._headers:
            if self._hub is None or (self.folder / file).is_file():
                slots: dict[str, TensorInfo] | None = self._read_header(file)
            else:
                slots = self._hub.header(file)
            if slots is None:
                return None
            self._check_header(file, slots)
            self._headers[file] = slots
        return self._headers[file]

    def _read_header(self, file: str) -> dict[str, TensorInfo]:
        if not (self.folder / file).is_file():
            raise CheckpointError(f"{self.name} lacks its shard {file}: download it again")
        return read_header(self.folder / file)

    def _check_names(self) -> None:
        missing = sorted(self.shapes.keys() - self._file_of.keys())
        extra = sorted(self._file_of.keys() - self.shapes.keys())
        for names, what in ((missing, "lacks"), (extra, "holds, beyond what its config asks for,")):
            if names:
                raise CheckpointError(
                    f"{self.name} {what} {len(names)} tensor{'s' * (len(names) != 1)}, "
                    f"{', '.join(names[:3])}{' …' * (len(names) > 3)}: "
                    "it is not the checkpoint of this config.json; download it again"
                )

    def _check_header(self, file: str, slots: Mapping[str, TensorInfo]) -> None:
        """Raises CheckpointError unless a file's header agrees with the index and the shapes."""
        promised = {name for name, at in self._file_of.items() if at == file}
        if slots.keys() != promised:
            odd = sorted(slots.keys() ^ promised)
            raise CheckpointError(
                f"{self.name}: shard {file} and the index disagree on {odd[0]}"
                f"{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}: download it again"
            )
        for name, slot in slots.items():
            wanted = self.shapes[name]
            if slot.shape != wanted:
                raise CheckpointError(
                    f"{self.name}: tensor {name} has shape {slot.shape}, but its config asks for "
                    f"{wanted}: config.json and weights don't belong together"
                )
            check_dtype(slot, f"{self.name}: tensor {name}")


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

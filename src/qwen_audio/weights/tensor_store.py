"""Tensors of a checkpoint by name, from a folder of safetensors files or from a hub."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch

from qwen_audio.errors import CheckpointError

from .direct_io import ReadBuffer
from .download import ProgressCallback, list_files
from .hub import HubFiles
from .other_formats import explain_files
from .safetensors_file import (
    TensorInfo,
    TensorLocation,
    read_header,
    read_rows,
    read_tensors,
    tensor_byte_samples,
    tensor_dtype,
)

__all__ = ["NameLookup", "TensorStore", "is_file_name", "parse_json"]

_INDEX, _SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"

NameLookup: TypeAlias = Callable[[Collection[str]], Mapping[str, str]]
"""From the names in a checkpoint's files to the name in them of each tensor that is asked for."""


class TensorStore:
    """Named tensors in one or several safetensors files, checked when opened and read in part.

    Opening reads the index and, of local files, the headers; no tensor data. The header of a file
    on a hub is fetched and checked when one of its tensors is first needed.

    Args:
        name: of the checkpoint, for error messages.
        folder: of its files, or to download them to.
        shapes: name and shape of every tensor that is asked for.
        find_names: finds them among the names in the files; raises CheckpointError for missing and
            extra ones. Two may be found under one name: they share a tensor.
        hub: where to download from; None for a local folder.
        resizable: those that may have another number of rows, such as a resized embedding table;
            `shape` tells it.

    Raises:
        CheckpointError: if files are missing or damaged, or tensors missing, extra or of another
            shape.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        shapes: Mapping[str, tuple[int, ...]],
        find_names: NameLookup,
        hub: HubFiles | None = None,
        resizable: Collection[str] = (),
    ) -> None:
        self.name, self.folder, self.shapes = name, folder, dict(shapes)
        self._hub, self._resizable = hub, frozenset(resizable)
        self._file_of, headers = self._read_index()
        self._stored_names = dict(find_names(self._file_of.keys()))
        if hub is None:
            files = sorted(set(self._file_of.values()) - headers.keys())
            headers |= {file: self._read_header(file) for file in files}
        for file, header in headers.items():
            self._check_header(file, header)
        self._headers = headers

    def byte_samples(self) -> Iterator[bytes]:
        """Header entries and some bytes of every tensor, in a fixed order; of local files only."""
        for file in sorted(set(self._file_of.values())):
            yield from tensor_byte_samples(self.folder / file)

    def stored_bytes(self, name: str, default_dtype: torch.dtype) -> int:
        """Size of a tensor on disk, from the header of its file.

        Args:
            default_dtype: assumed if the server sends whole files only.
        """
        stored = self._stored_names[name]
        header = self._header(self._file_of[stored])
        if header is None:
            return math.prod(self.shapes[name]) * default_dtype.itemsize
        return header[stored].bytes

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, with the number of rows that it has in its file."""
        if name in self._resizable:
            self._header(self._file_of[self._stored_names[name]])
        return self.shapes[name]

    def without_duplicates(self, names: Iterable[str]) -> list[str]:
        """The names, without those that share a tensor with an earlier one."""
        firsts: dict[str, str] = {}
        for name in names:
            firsts.setdefault(self._stored_names[name], name)
        return list(firsts.values())

    def common_dtype(self) -> torch.dtype | None:
        """The dtype of most bytes in the files whose headers have been read; None for no such."""
        sizes: Counter[torch.dtype] = Counter()
        for name, stored in self._stored_names.items():
            if (info := self._headers.get(self._file_of[stored], {}).get(stored)) is not None:
                sizes[tensor_dtype(info, name)] += info.bytes
        return max(sizes, key=sizes.__getitem__, default=None)

    def missing_bytes(self, names: Iterable[str]) -> int:
        """Bytes that `fetch` would download."""
        return 0 if self._hub is None else self._hub.missing_bytes(self._by_file(names))

    def fetch(self, names: Iterable[str], report: ProgressCallback | None = None) -> None:
        """Download those of these tensors that aren't on this machine, concurrently.

        Raises:
            CheckpointError: if the hub can't deliver them, or delivers other tensors.
        """
        if self._hub is not None:
            names_by_file = self._by_file(names)
            for file in names_by_file:
                self._header(file)
            self._hub.download(names_by_file, report)

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
        locations = self._locate(name for name in self.shapes if name.startswith(prefix))
        tensors = read_tensors(locations, pinned=pinned, buffer=buffer, convert=convert)
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}

    def read_rows(self, name: str, rows: Sequence[int]) -> list[torch.Tensor]:
        """Single rows of a matrix, each of shape (columns,), without reading the rest of it.

        Raises:
            CheckpointError: for a row that the matrix doesn't have.
        """
        row_count, stored = self.shape(name)[0], self._stored_names[name]
        if out_of_range := [row for row in rows if not 0 <= row < row_count]:
            raise CheckpointError(
                f"{self.name}: row {out_of_range[0]} of {name} is needed, but it has {row_count} "
                "rows: tokenizer and weights don't belong together"
            )
        file = self._file_of[stored]
        if self._hub is not None and stored not in self._hub.cached_tensors(file):
            self._header(file)
            values = self._hub.download_rows(file, stored, rows)
            return [values[row] for row in rows]
        return read_rows(self._locate([name])[name], rows, name)

    def _by_file(self, names: Iterable[str]) -> dict[str, list[str]]:
        """File → names in it, each once."""
        files: dict[str, list[str]] = {}
        for stored in dict.fromkeys(self._stored_names[name] for name in names):
            files.setdefault(self._file_of[stored], []).append(stored)
        return files

    def _locate(self, names: Iterable[str]) -> dict[str, TensorLocation]:
        """Locations of tensors on this machine; those that aren't here are downloaded."""
        names, locations = list(names), dict[str, TensorLocation]()
        for file, file_names in self._by_file(names).items():
            header = self._header(file) or {}
            if self._hub is None:
                local = {
                    name: TensorLocation(self.folder / file, info) for name, info in header.items()
                }
            elif not set(file_names) <= (local := self._hub.cached_tensors(file)).keys():
                self._hub.download({file: file_names})
                local = self._hub.cached_tensors(file)
            locations |= {name: local[name] for name in file_names}
        return {name: locations[self._stored_names[name]] for name in names}

    def _read_index(self) -> tuple[dict[str, str], dict[str, dict[str, TensorInfo]]]:
        """Tensor name → file, from the index or from the header of the only file; and the headers
        that were read, by file."""
        if self._hub is not None:
            self._hub.fetch_file(_INDEX, optional=True)
        single = self.folder / _SINGLE_FILE
        is_single = self._hub is None and single.is_file()  # which is what transformers reads, too
        if (index := self.folder / _INDEX).is_file() and not is_single:
            files = parse_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(
                is_file_name(file) for file in files.values()
            ):
                raise CheckpointError(
                    f"{self.name}: {_INDEX} has no weight_map of tensors and files beside it: "
                    "download it again"
                )
            return files, {}
        header: dict[str, TensorInfo] | None = None
        if self._hub is not None:
            header = self._hub.header(_SINGLE_FILE, optional=True)
            if header is None:  # there is no such file, or the server sends whole files only
                self._hub.fetch_file(_SINGLE_FILE, optional=True)
        if header is None:
            if not (self.folder / _SINGLE_FILE).is_file():
                names = (
                    [path.name for path in self.folder.iterdir()]
                    if self._hub is None
                    else list_files(self._hub.repo, self._hub.commit)
                )
                raise CheckpointError(
                    f"{self.name} has neither {_INDEX} nor {_SINGLE_FILE}: "
                    f"{explain_files(names) or 'weights are read from safetensors only'}"
                )
            header = read_header(self.folder / _SINGLE_FILE)
        return dict.fromkeys(header, _SINGLE_FILE), {_SINGLE_FILE: header}

    def _header(self, file: str) -> dict[str, TensorInfo] | None:
        """The checked header of a file; None if the server sends whole files only."""
        if file not in self._headers:
            if self._hub is None or (self.folder / file).is_file():
                header: dict[str, TensorInfo] | None = self._read_header(file)
            else:
                header = self._hub.header(file)
            if header is None:
                return None
            self._check_header(file, header)
            self._headers[file] = header
        return self._headers[file]

    def _read_header(self, file: str) -> dict[str, TensorInfo]:
        if not (self.folder / file).is_file():
            raise CheckpointError(f"{self.name} lacks its shard {file}: download it again")
        return read_header(self.folder / file)

    def _check_header(self, file: str, header: Mapping[str, TensorInfo]) -> None:
        """Raises CheckpointError unless a file's header agrees with the index and the shapes."""
        indexed = {name for name, indexed_file in self._file_of.items() if indexed_file == file}
        if header.keys() != indexed:
            differing = sorted(header.keys() ^ indexed)
            raise CheckpointError(
                f"{self.name}: shard {file} and the index disagree on {differing[0]}"
                f"{f' and {len(differing) - 1} more' if len(differing) > 1 else ''}: download it "
                "again"
            )
        for name, stored in self._stored_names.items():
            if (info := header.get(stored)) is None:
                continue
            expected = self.shapes[name]
            is_resizable = name in self._resizable and info.shape and info.shape[0]
            if info.shape[1:] != expected[1:] or (info.shape != expected and not is_resizable):
                reason = "config.json and weights don't belong together"
                if 0 in info.shape:
                    reason = "DeepSpeed's ZeRO-3 leaves it empty; use its zero_to_fp32.py"
                raise CheckpointError(
                    f"{self.name}: tensor {stored} has shape {info.shape}, but its config requires "
                    f"{expected}: {reason}"
                )
            tensor_dtype(info, f"{self.name}: tensor {stored}")
            self.shapes[name] = info.shape


def is_file_name(file: Any) -> bool:
    """Whether it is a file name without a path: an index must not refer to other folders."""
    return isinstance(file, str) and file not in ("", ".", "..") and Path(file).name == file


def parse_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object. Raises CheckpointError for any other content."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(f"{path} can't be read as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise CheckpointError(f"{path} is not a JSON object: download it again")
    return settings

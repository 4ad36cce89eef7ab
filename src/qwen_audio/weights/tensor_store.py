"""Tensors of a checkpoint by name, from a folder of safetensors files or from a hub."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import torch

from qwen_audio.errors import CheckpointError

from .adapter import Adapter
from .direct_io import ReadBuffer
from .download import ProgressCallback
from .gpu_copies import StagingBuffer
from .hub import HubFiles
from .safetensors_file import (
    TensorInfo,
    TensorLocation,
    read_header,
    read_rows,
    read_tensors,
    tensor_byte_samples,
    tensor_dtype,
)
from .weights_index import read_index

__all__ = ["NameLookup", "TensorStore"]

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
        adapter: merged into the tensors as they are read.

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
        adapter: Adapter | None = None,
    ) -> None:
        self.name, self.folder, self.shapes = name, folder, dict(shapes)
        self.adapter, self._hub, self._resizable = adapter, hub, frozenset(resizable)
        self._file_of, headers = read_index(name, folder, hub)
        self._stored_names = dict(find_names(self._file_of.keys()))
        if hub is None:
            files = sorted(set(self._file_of.values()) - headers.keys())
            headers |= {file: self._read_header(file) for file in files}
        for file, header in headers.items():
            self._check_header(file, header)
        self._headers = headers
        if adapter is not None:
            adapter.check(self.shape, self.shapes.keys())

    def byte_samples(self) -> Iterator[bytes]:
        """Header entries and some bytes of every tensor, in a fixed order; of local files only."""
        for file in sorted(set(self._file_of.values())):
            yield from tensor_byte_samples(self.folder / file)

    def stored_bytes(self, name: str, default_dtype: torch.dtype) -> int:
        """Size of a tensor on disk, from the header of its file, with what an adapter adds to it.

        Args:
            default_dtype: assumed if the server sends whole files only.
        """
        added = 0 if self.adapter is None else self.adapter.stored_bytes(name)
        if (replacement := self._replacement(name)) is not None:
            return replacement.info.bytes + added
        stored = self._stored_names[name]
        header = self._header(self._file_of[stored])
        if header is None:
            return math.prod(self.shapes[name]) * default_dtype.itemsize + added
        return header[stored].bytes + added

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
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        buffer: ReadBuffer | StagingBuffer | None = None,
    ) -> dict[str, torch.Tensor]:
        """The tensors whose names start with `prefix`, keyed by the rest of their names.

        Args:
            device, dtype: to convert to; None: the CPU, and the dtype on disk.
            buffer: see `read_tensors`.
        """
        locations = self._locate(name for name in self.shapes if name.startswith(prefix))

        def convert(name: str, tensor: torch.Tensor) -> torch.Tensor:
            if self.adapter is None or not self.adapter.adds_to(name):
                return tensor.to(device=device, dtype=dtype)
            placed = tensor.to(device=device)
            return self.adapter.merge(name, placed, dtype or tensor.dtype)

        tensors = read_tensors(locations, buffer=buffer, convert=convert)
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
        if (
            self._hub is not None
            and self._replacement(name) is None
            and stored not in self._hub.cached_tensors(file)
        ):
            self._header(file)
            downloaded = self._hub.download_rows(file, stored, rows)
            values = [downloaded[row] for row in rows]
        else:
            values = read_rows(self._locate([name])[name], rows, name)
        if self.adapter is None or not self.adapter.adds_to(name):
            return values
        return self.adapter.merge_rows(name, rows, values)

    def _by_file(self, names: Iterable[str]) -> dict[str, list[str]]:
        """File → names in it, each once, without those of tensors that an adapter replaces."""
        files: dict[str, list[str]] = {}
        own = (name for name in names if self._replacement(name) is None)
        for stored in dict.fromkeys(self._stored_names[name] for name in own):
            files.setdefault(self._file_of[stored], []).append(stored)
        return files

    def _replacement(self, name: str) -> TensorLocation | None:
        return None if self.adapter is None else self.adapter.replacement(name)

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
        return {
            name: self._replacement(name) or locations[self._stored_names[name]] for name in names
        }

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

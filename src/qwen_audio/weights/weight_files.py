"""The safetensors files of a checkpoint, in a folder or on a hub: which tensor is where."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from qwen_audio.errors import CheckpointError

from .download import ProgressCallback
from .hub import HubFiles
from .safetensors_file import (
    TensorInfo,
    TensorLocation,
    read_header,
    read_rows,
    tensor_byte_samples,
)
from .stacked_tensors import StackedNames, split_tensors
from .weights_index import read_index

__all__ = ["WeightFiles"]


class WeightFiles:
    """One or several safetensors files, whose tensors go by the names that they have there.

    Opening reads the index and, of local files, the headers. The header of a file on a hub is
    fetched and checked when one of its tensors is first needed.

    Args:
        name: of the checkpoint, for error messages.
        folder: of its files, or to download them to.
        hub: where to download from; None for a local folder.
        stacked_names: of stacked tensors; these are tensors here, and the stacked ones aren't.

    Raises:
        CheckpointError: if files are missing or damaged.
    """

    def __init__(
        self, name: str, folder: Path, hub: HubFiles | None, stacked_names: StackedNames
    ) -> None:
        self._name, self._folder, self._hub = name, folder, hub
        self._stacked_names = stacked_names
        self._found: dict[str, dict[str, TensorLocation]] = {}
        if hub is not None:
            hub.stacked_names = stacked_names
        index, headers = read_index(name, folder, hub)
        self._file_of = {each: file for key, file in index.items() for each in stacked_names(key)}
        headers = {file: split_tensors(header, stacked_names) for file, header in headers.items()}
        if hub is None:
            files = sorted(set(self._file_of.values()) - headers.keys())
            headers |= {file: self._read_header(file) for file in files}
        self._check: Callable[[Mapping[str, TensorInfo]], None] = lambda _: None
        self._headers = headers

    @property
    def names(self) -> Collection[str]:
        """Of all tensors, as the index lists them."""
        return self._file_of.keys()

    def check_headers(self, check: Callable[[Mapping[str, TensorInfo]], None]) -> None:
        """Check the headers that have been read, and each that will be, before it is used.

        Args:
            check: raises CheckpointError for a header whose tensors aren't those expected.

        Raises:
            CheckpointError: for such a header, or one that disagrees with the index.
        """
        self._check = check
        for file, header in self._headers.items():
            self._check_header(file, header)

    def byte_samples(self) -> Iterator[bytes]:
        """Header entries and some bytes of every tensor, in a fixed order; of local files only."""
        for file in sorted(set(self._file_of.values())):
            yield from tensor_byte_samples(self._folder / file)

    def info(self, name: str) -> TensorInfo | None:
        """A tensor's entry in its header; None if the server sends whole files only."""
        header = self._header(self._file_of[name])
        return None if header is None else header[name]

    def known_infos(self) -> dict[str, TensorInfo]:
        """The entries of the headers that have been read."""
        return {name: info for header in self._headers.values() for name, info in header.items()}

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

    def locate(self, names: Iterable[str]) -> dict[str, TensorLocation]:
        """Locations of tensors on this machine; those that aren't here are downloaded."""
        locations: dict[str, TensorLocation] = {}
        for file, file_names in self._by_file(names).items():
            header = self._header(file) or {}
            if self._hub is None:
                path = self._folder / file
                local = {name: TensorLocation(path, header[name]) for name in file_names}
            else:
                local = self._cached(self._hub, file, file_names)
            locations |= {name: local[name] for name in file_names}
        return locations

    def read_rows(self, name: str, rows: Sequence[int]) -> list[torch.Tensor]:
        """Single rows of a matrix, each of shape (columns,), without reading the rest of it."""
        file = self._file_of[name]
        if self._hub is None or name in self._hub.cached_tensors(file):
            return read_rows(self.locate([name])[name], rows, name)
        self._header(file)
        downloaded = self._hub.download_rows(file, name, rows)
        return [downloaded[row] for row in rows]

    def _cached(
        self, hub: HubFiles, file: str, names: Collection[str]
    ) -> dict[str, TensorLocation]:
        """Locations of a hub's tensors. Those that were found are remembered: a file may be cached
        in many ranges, and its experts are asked for one by one."""
        found = self._found.get(file, {})
        if all(name in found and found[name].file.is_file() for name in names):
            return found
        if not set(names) <= (found := hub.cached_tensors(file)).keys():
            hub.download({file: names})
            found = hub.cached_tensors(file)
        self._found[file] = found
        return found

    def _by_file(self, names: Iterable[str]) -> dict[str, list[str]]:
        """File → names in it, each once."""
        files: dict[str, list[str]] = {}
        for name in dict.fromkeys(names):
            files.setdefault(self._file_of[name], []).append(name)
        return files

    def _header(self, file: str) -> dict[str, TensorInfo] | None:
        """The checked header of a file; None if the server sends whole files only."""
        if file not in self._headers:
            if self._hub is None or (self._folder / file).is_file():
                header: dict[str, TensorInfo] | None = self._read_header(file)
            else:
                header = self._hub.header(file)
            if header is None:
                return None
            self._check_header(file, header)
            self._headers[file] = header
        return self._headers[file]

    def _read_header(self, file: str) -> dict[str, TensorInfo]:
        if not (self._folder / file).is_file():
            raise CheckpointError(f"{self._name} lacks its shard {file}: download it again")
        return split_tensors(read_header(self._folder / file), self._stacked_names)

    def _check_header(self, file: str, header: Mapping[str, TensorInfo]) -> None:
        """Raises CheckpointError unless it agrees with the index, and with what is expected."""
        indexed = {name for name, indexed_file in self._file_of.items() if indexed_file == file}
        if header.keys() != indexed:
            differing = sorted(header.keys() ^ indexed)
            raise CheckpointError(
                f"{self._name}: shard {file} and the index disagree on {differing[0]}"
                f"{f' and {len(differing) - 1} more' if len(differing) > 1 else ''}: download it "
                "again"
            )
        self._check(header)

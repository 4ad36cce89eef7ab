"""Files of one commit on a hub, downloaded on demand; weights tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from qwen_audio.errors import CheckpointError

from .byte_ranges import ByteRange, row_blocks, split_into_ranges
from .download import Progress, ProgressCallback, check_repo_name, download_file, is_absent
from .hub_errors import hub_error, is_not_found
from .remote_file import RangesUnsupported, RemoteFile
from .safetensors_file import TensorInfo, TensorLocation, read_header, read_rows
from .stacked_tensors import StackedNames, split_tensors

__all__ = ["HubFiles"]

_MAX_CONCURRENT_DOWNLOADS = 4
_REQUEST_COST_BYTES = 1 << 20
"""A request takes about as long as downloading this many bytes."""


@dataclass(frozen=True)
class _Transfer:
    """A byte range of a file to be downloaded (None: the whole file), and the bytes missing."""

    file: str
    byte_range: ByteRange | None
    missing_bytes: int


class HubFiles:
    """Files of one commit of a hub model, downloaded on demand: weights tensor by tensor.

    Based on huggingface_hub: its cache, token, endpoint and offline mode apply. Whole files are in
    its cache, byte ranges in its assets folder.
    """

    def __init__(self, repo: str, folder: Path, commit: str) -> None:
        self.repo, self.folder, self.commit = repo, folder, commit
        self.stacked_names: StackedNames = lambda name: (name,)  # until the family is known
        self._hub_reached = False
        self._remote_files: dict[str, RemoteFile] = {}

    @classmethod
    def resolve(cls, repo: str, revision: str | None, file: str = "config.json") -> HubFiles:
        """Resolve a revision to a commit by fetching a small file."""
        check_repo_name(repo)
        path = Path(download_file(repo, file, revision, hub_reached=False))
        return cls(repo, path.parent, path.parent.name)

    def fetch_file(self, name: str, *, optional: bool = False) -> None:
        """Download one whole file into the folder; an optional one may not exist."""
        if optional and self._is_cached_as_absent(name):
            return
        try:
            self._download_whole(name)
        except CheckpointError as error:
            if not (optional and is_not_found(error)):
                raise

    def has_file(self, name: str) -> bool:
        """Whether the commit has a file, without downloading it; True if the hub can't be asked."""
        if (self.folder / name).is_file():
            return True
        return not self._is_cached_as_absent(name) and not is_absent(self.repo, name, self.commit)

    def header(self, file: str, *, optional: bool = False) -> dict[str, TensorInfo] | None:
        """The tensors of a weights file, from the file or from its first bytes alone.

        None if the server sends whole files only, or doesn't have this one and it is optional.
        """
        if (self.folder / file).is_file():
            return split_tensors(read_header(self.folder / file), self.stacked_names)
        try:
            with self._hub_errors(file):
                header = self._remote_file(file).header()
                return header and split_tensors(header, self.stacked_names)
        except CheckpointError as error:
            if not (optional and is_not_found(error)):
                raise
            return None

    def cached_tensors(self, file: str) -> dict[str, TensorLocation]:
        """The tensors of a file that are on this machine already."""
        path = self.folder / file
        if path.is_file():
            header = split_tensors(read_header(path), self.stacked_names)
            return {name: TensorLocation(path, info) for name, info in header.items()}
        return self._remote_file(file).cached_tensors()

    def missing_bytes(self, tensors: Mapping[str, Collection[str]]) -> int:
        """Bytes that `download` would transfer."""
        return sum(transfer.missing_bytes for transfer in self._transfers(tensors))

    def download(
        self, tensors: Mapping[str, Collection[str]], report: ProgressCallback | None = None
    ) -> None:
        """Download tensors (file → names) that aren't cached: ranges, or whole files if as small.

        Raises:
            CheckpointError: if the hub can't deliver them, or the disk can't store them. The next
                call resumes interrupted ranges.
        """
        self._download_all(lambda: self._transfers(tensors), report)

    def download_rows(
        self, file: str, tensor: str, rows: Collection[int], report: ProgressCallback | None = None
    ) -> dict[int, torch.Tensor]:
        """Single rows of a matrix; downloads blocks of rows where that is faster than all of it.

        Raises:
            CheckpointError: as `download`; or if there is no such row.
        """
        unique_rows = sorted(set(rows))

        def transfers() -> list[_Transfer]:
            blocks, remote = self._row_blocks(file, tensor, unique_rows), self._remote_file(file)
            if blocks is None:
                return self._transfers({file: [tensor]})
            missing = [block for block in blocks.values() if not remote.cached_range(block)]
            return [
                _Transfer(file, block, block.size - remote.bytes_present(block))
                for block in missing
            ]

        if tensor not in self.cached_tensors(file):
            self._download_all(transfers, report)
        if (location := self.cached_tensors(file).get(tensor)) is not None:
            self._check_rows(tensor, location.info, unique_rows)
            return dict(zip(unique_rows, read_rows(location, unique_rows, tensor), strict=True))
        values: dict[int, torch.Tensor] = {}
        for first, block in (self._row_blocks(file, tensor, unique_rows) or {}).items():
            location = self._remote_file(file).cached_range(block)[tensor]
            in_block = [row for row in unique_rows if first <= row < first + location.info.shape[0]]
            block_rows = read_rows(location, [row - first for row in in_block], tensor)
            values |= zip(in_block, block_rows, strict=True)
        return values

    def _transfers(self, tensors: Mapping[str, Collection[str]]) -> list[_Transfer]:
        """What must be downloaded for these tensors to be cached."""
        transfers: list[_Transfer] = []
        for file, names in tensors.items():
            missing = set(names) - self.cached_tensors(file).keys()
            if not missing:
                continue
            header, remote = self.header(file), self._remote_file(file)
            if header is None:
                transfers.append(_Transfer(file, None, remote.size))
                continue
            if unknown := sorted(missing - header.keys()):
                raise CheckpointError(
                    f"{self.repo}: {file} has no tensor {unknown[0]}, although the index lists it "
                    "there: download it again"
                )
            ranges = split_into_ranges({name: header[name] for name in missing})
            sizes = [each.size - remote.bytes_present(each) for each in ranges]
            if sum(sizes) == sum(info.bytes for info in header.values()):
                whole = remote.whole_range()
                present = remote.bytes_present(whole) if whole else 0
                transfers.append(_Transfer(file, whole, remote.size - present))
            else:
                transfers += map(partial(_Transfer, file), ranges, sizes)
        return transfers

    def _row_blocks(self, file: str, tensor: str, rows: list[int]) -> dict[int, ByteRange] | None:
        """First row → block, for these rows; None if downloading the whole matrix is faster."""
        header, remote = self.header(file), self._remote_file(file)
        if header is None or tensor not in header:
            return None
        info = header[tensor]
        self._check_rows(tensor, info, rows)
        blocks = row_blocks(tensor, info, rows)
        missing = [block for block in blocks.values() if not remote.cached_range(block)]
        cost = sum(block.size + _REQUEST_COST_BYTES for block in missing)
        return blocks if cost < info.bytes else None

    def _check_rows(self, tensor: str, info: TensorInfo, rows: list[int]) -> None:
        if rows and not 0 <= rows[0] <= rows[-1] < info.shape[0]:
            raise CheckpointError(
                f"{self.repo}: {tensor} has rows 0 … {info.shape[0] - 1}, but rows {rows[0]} … "
                f"{rows[-1]} are needed: tokenizer and weights don't belong together"
            )

    def _download_all(
        self, plan: Callable[[], list[_Transfer]], report: ProgressCallback | None
    ) -> None:
        """Carry out the planned transfers; plan again if a server stops sending ranges."""
        progress = Progress(report)
        while transfers := plan():
            self._check_disk_space(transfers)
            progress.expect(sum(transfer.missing_bytes for transfer in transfers))
            with ThreadPoolExecutor(_MAX_CONCURRENT_DOWNLOADS) as pool:
                futures = [
                    pool.submit(
                        self._run_transfer, transfer, progress.counter(transfer.missing_bytes)
                    )
                    for transfer in transfers
                ]
                try:
                    for future in as_completed(futures):
                        future.result()
                    return
                except BaseException as error:
                    progress.cancelled = True
                    pool.shutdown(wait=False, cancel_futures=True)
                    if not isinstance(error, RangesUnsupported):
                        raise

    def _run_transfer(self, transfer: _Transfer, on_bytes: Callable[[int], None]) -> None:
        if transfer.byte_range is None:
            self._download_whole(transfer.file, on_bytes)
        else:
            with self._hub_errors(transfer.file, transfer.byte_range):
                remote = self._remote_file(transfer.file)
                if transfer.byte_range.tensors:
                    remote.download(transfer.byte_range, on_bytes)
                else:
                    blobs = self.folder.parent.parent / "blobs"
                    remote.download_whole(transfer.byte_range, blobs, on_bytes)
                    self._download_whole(transfer.file)  # finds it there
        on_bytes(transfer.missing_bytes)

    def _check_disk_space(self, transfers: list[_Transfer]) -> None:
        for is_whole, folder in ((True, self.folder), (False, self._assets_folder)):
            needed = sum(
                transfer.missing_bytes
                for transfer in transfers
                if (transfer.byte_range is None) is is_whole
            )
            if needed > (free := shutil.disk_usage(folder).free):
                raise CheckpointError(
                    f"{self.repo}: {needed} bytes have to be downloaded, but {folder} has {free} "
                    "bytes free: free disk space, or set HF_HOME to a folder on a larger disk"
                )

    def _download_whole(self, name: str, on_bytes: Callable[[int], None] | None = None) -> None:
        download_file(
            self.repo, name, self.commit, hub_reached=self._hub_reached, on_bytes=on_bytes
        )
        self._hub_reached = True

    @property
    def _assets_folder(self) -> Path:
        from huggingface_hub import cached_assets_path

        return cached_assets_path("qwen_audio", namespace=self.repo, subfolder=self.commit)

    def _remote_file(self, file: str) -> RemoteFile:
        from huggingface_hub import hf_hub_url

        if file not in self._remote_files:
            with self._hub_errors(file):
                url = hf_hub_url(self.repo, file, revision=self.commit)
                folder = self._assets_folder / file
                self._remote_files[file] = RemoteFile(url, f"{self.repo}: {file}", folder)
        return self._remote_files[file]

    @contextmanager
    def _hub_errors(self, file: str, byte_range: ByteRange | None = None) -> Iterator[None]:
        """Turn errors of the HTTP client and of the disk into CheckpointError."""
        import httpx2

        try:
            yield
        except (httpx2.HTTPError, OSError) as error:
            if byte_range is None:
                raise hub_error(self.repo, file, error) from error
            tensors = byte_range.tensors
            name = (
                f"{next(iter(tensors))}{' …' * (len(tensors) > 1)} of {file}" if tensors else file
            )
            present = self._remote_files[file].bytes_present(byte_range)
            progress = f"{present} of {byte_range.size} bytes"
            raise hub_error(self.repo, name, error, progress) from error

    def _is_cached_as_absent(self, name: str) -> bool:
        """Whether the cache records that this commit has no such file."""
        from huggingface_hub import (
            _CACHED_NO_EXIST,
            get_cached_repo_tree,
            try_to_load_from_cache,
        )
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        if try_to_load_from_cache(self.repo, name, revision=self.commit) is _CACHED_NO_EXIST:
            return True
        try:  # written by downloads of whole models
            listed = get_cached_repo_tree(self.repo, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            return False
        return name not in {file.path for file in listed}

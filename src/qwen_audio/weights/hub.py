"""A hub's files, and parts of its files of weights, as a tap comes to need them."""

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

from .byte_ranges import ByteRange, cut, row_blocks
from .download import Progress, ProgressCallback, check_repo_name, download, hub_error, is_lacking
from .remote_file import NoRanges, RemoteFile
from .safetensors_file import TensorInfo, TensorLocation, read_header, read_rows

__all__ = ["HubFiles"]

_AT_ONCE = 4
_REQUEST_BYTES = 1 << 20
"""What could come in the time that a request takes to be answered."""


@dataclass(frozen=True)
class _Load:
    """A piece of a file to be brought, or the whole of it."""

    file: str
    piece: ByteRange | None
    bytes: int


class HubFiles:
    """Files of one commit of a hub model, fetched as they are needed: weights tensor by tensor.

    huggingface_hub does the work: its cache, token, endpoint and offline mode apply. Whole files
    lie in its cache, parts of files in its folder of assets.
    """

    def __init__(self, repo: str, folder: Path, commit: str) -> None:
        self.repo, self.folder, self.commit = repo, folder, commit
        self._reached = False
        self._remotes: dict[str, RemoteFile] = {}

    @classmethod
    def resolve(cls, repo: str, revision: str | None) -> HubFiles:
        """Resolve a revision to a commit by fetching config.json."""
        check_repo_name(repo)
        path = Path(download(repo, "config.json", revision, reached=False))
        return cls(repo, path.parent, path.parent.name)

    def fetch_file(self, name: str, *, optional: bool = False) -> None:
        """Bring one file of this commit into the folder; an optional one may not exist."""
        if optional and self._is_known_to_lack(name):
            return
        try:
            self._whole(name)
        except CheckpointError as error:
            if not (optional and is_lacking(error)):
                raise

    def header(self, file: str, *, optional: bool = False) -> dict[str, TensorInfo] | None:
        """Where each tensor lies in a file of weights, from the file or from its first bytes alone.

        None if the server sends whole files only, or lacks this one and it is optional.
        """
        if (self.folder / file).is_file():
            return read_header(self.folder / file)
        try:
            with self._blaming_hub(file):
                return self._remote(file).header()
        except CheckpointError as error:
            if not (optional and is_lacking(error)):
                raise
            return None

    def held(self, file: str) -> dict[str, TensorLocation]:
        """The tensors of a file that are on this machine already."""
        whole = self.folder / file
        if whole.is_file():
            return {name: TensorLocation(whole, slot) for name, slot in read_header(whole).items()}
        return self._remote(file).pieces()

    def missing(self, wanted: Mapping[str, Collection[str]]) -> int:
        """Bytes that `bring` would move."""
        return sum(load.bytes for load in self._loads(wanted))

    def bring(
        self, wanted: Mapping[str, Collection[str]], report: ProgressCallback | None = None
    ) -> None:
        """Have these tensors on this machine: file → names.

        They come by ranges where that moves less than whole files do.

        Raises:
            CheckpointError: if the hub can't give them, or the disk can't take them. What came of
                pieces is kept, and not fetched again.
        """
        self._download_all(lambda: self._loads(wanted), report)

    def bring_rows(
        self, file: str, tensor: str, rows: Collection[int], report: ProgressCallback | None = None
    ) -> dict[int, torch.Tensor]:
        """Single rows of a matrix, without the rest of it where that is much more.

        Raises:
            CheckpointError: as `bring`; or if there is no such row.
        """
        wanted = sorted(set(rows))

        def loads() -> list[_Load]:
            blocks, remote = self._blocks(file, tensor, wanted), self._remote(file)
            if blocks is None:
                return self._loads({file: [tensor]})
            absent = [block for block in blocks.values() if not remote.located(block)]
            return [
                _Load(file, block, block.size - remote.bytes_present(block)) for block in absent
            ]

        if tensor not in self.held(file):
            self._download_all(loads, report)
        if (table := self.held(file).get(tensor)) is not None:
            self._check_rows(tensor, table.slot, wanted)
            return dict(zip(wanted, read_rows(table, wanted, tensor), strict=True))
        found: dict[int, torch.Tensor] = {}
        for first, block in (self._blocks(file, tensor, wanted) or {}).items():
            part = self._remote(file).located(block)[tensor]
            mine = [row for row in wanted if first <= row < first + part.slot.shape[0]]
            found |= zip(mine, read_rows(part, [row - first for row in mine], tensor), strict=True)
        return found

    def _loads(self, wanted: Mapping[str, Collection[str]]) -> list[_Load]:
        """What is to be brought so that these tensors are here."""
        loads: list[_Load] = []
        for file, names in wanted.items():
            absent = set(names) - self.held(file).keys()
            if not absent:
                continue
            header, remote = self.header(file), self._remote(file)
            if header is None:
                loads.append(_Load(file, None, remote.size))
                continue
            if unknown := sorted(absent - header.keys()):
                raise CheckpointError(
                    f"{self.repo}: {file} has no tensor {unknown[0]}: it is not the file that the "
                    "index speaks of; download it again"
                )
            pieces = cut({name: header[name] for name in absent})
            to_come = [piece.size - remote.bytes_present(piece) for piece in pieces]
            if sum(to_come) == sum(slot.bytes for slot in header.values()):
                loads.append(_Load(file, None, remote.size))
            else:
                loads += map(partial(_Load, file), pieces, to_come)
        return loads

    def _blocks(self, file: str, tensor: str, rows: list[int]) -> dict[int, ByteRange] | None:
        """First row → block, for these rows; None if the whole table comes faster."""
        header, remote = self.header(file), self._remote(file)
        if header is None or tensor not in header:
            return None
        slot = header[tensor]
        self._check_rows(tensor, slot, rows)
        blocks = row_blocks(tensor, slot, rows)
        absent = [block for block in blocks.values() if not remote.located(block)]
        cost = sum(block.size + _REQUEST_BYTES for block in absent)
        return blocks if cost < slot.bytes else None

    def _check_rows(self, tensor: str, slot: TensorInfo, rows: list[int]) -> None:
        if rows and not 0 <= rows[0] <= rows[-1] < slot.shape[0]:
            raise CheckpointError(
                f"{self.repo}: {tensor} has rows 0 … {slot.shape[0] - 1}, and rows {rows[0]} … "
                f"{rows[-1]} are asked for: tokenizer and weights don't belong together"
            )

    def _download_all(
        self, plan: Callable[[], list[_Load]], report: ProgressCallback | None
    ) -> None:
        """Bring what `plan` says, and plan anew should a server stop sending parts."""
        progress = Progress(report)
        while loads := plan():
            self._check_room(loads)
            progress.expect(sum(load.bytes for load in loads))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                share = progress.share
                futures = [pool.submit(self._bring, load, share(load.bytes)) for load in loads]
                try:
                    for future in as_completed(futures):
                        future.result()
                    return
                except BaseException as error:
                    progress.stopped = True
                    pool.shutdown(wait=False, cancel_futures=True)
                    if not isinstance(error, NoRanges):
                        raise

    def _bring(self, load: _Load, arrived: Callable[[int], None]) -> None:
        if load.piece is None:
            self._whole(load.file, arrived)
        else:
            with self._blaming_hub(load.file, load.piece):
                self._remote(load.file).fetch(load.piece, arrived)
        arrived(load.bytes)

    def _check_room(self, loads: list[_Load]) -> None:
        for whole, place in ((True, self.folder), (False, self._assets)):
            needed = sum(load.bytes for load in loads if (load.piece is None) is whole)
            if needed > (free := shutil.disk_usage(place).free):
                raise CheckpointError(
                    f"{self.repo}: {needed} bytes are to come, and {place} has room for {free}: "
                    "make room, or let HF_HOME name a larger disk"
                )

    def _whole(self, name: str, arrived: Callable[[int], None] | None = None) -> None:
        download(self.repo, name, self.commit, reached=self._reached, arrived=arrived)
        self._reached = True

    @property
    def _assets(self) -> Path:
        from huggingface_hub import cached_assets_path

        return cached_assets_path("qwen_audio", namespace=self.repo, subfolder=self.commit)

    def _remote(self, file: str) -> RemoteFile:
        from huggingface_hub import hf_hub_url

        if file not in self._remotes:
            with self._blaming_hub(file):
                url = hf_hub_url(self.repo, file, revision=self.commit)
                self._remotes[file] = RemoteFile(url, f"{self.repo}: {file}", self._assets / file)
        return self._remotes[file]

    @contextmanager
    def _blaming_hub(self, file: str, piece: ByteRange | None = None) -> Iterator[None]:
        """Errors of the hub's client and of the disk, as this package's."""
        import httpx2

        try:
            yield
        except (httpx2.HTTPError, OSError) as error:
            if piece is None:
                raise hub_error(self.repo, file, error) from error
            name = f"{next(iter(piece.slots))}{' …' * (len(piece.slots) > 1)} of {file}"
            bytes_present = f"{self._remotes[file].bytes_present(piece)} of {piece.size} bytes"
            raise hub_error(self.repo, name, error, bytes_present) from error

    def _is_known_to_lack(self, name: str) -> bool:
        """Whether the cache remembers that this commit has no such file."""
        from huggingface_hub import (
            _CACHED_NO_EXIST,
            get_cached_repo_tree,
            try_to_load_from_cache,
        )
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        if try_to_load_from_cache(self.repo, name, revision=self.commit) is _CACHED_NO_EXIST:
            return True
        try:  # left behind by downloads of whole models
            listed = get_cached_repo_tree(self.repo, revision=self.commit)
        except CachedRepoTreeNotFoundError:
            return False
        return name not in {file.path for file in listed}

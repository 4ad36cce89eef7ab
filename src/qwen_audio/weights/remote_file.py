"""A safetensors file on a hub, downloaded in byte ranges; each is cached as a file of its own.

A range that is being downloaded is locked, so that a second process waits and then finds it cached.
Until it is complete, its file is named `.incomplete`; an interrupted download resumes there. On
file systems where locks have no effect, two processes write the same bytes at the same offsets.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from qwen_audio.errors import CheckpointError

from .byte_ranges import ByteRange
from .download import hub_client, timeouts, with_retries
from .hub_errors import no_hub
from .safetensors_file import (
    LENGTH_BYTES,
    TensorInfo,
    TensorLocation,
    header_size,
    parse_header,
    read_header,
)

if TYPE_CHECKING:
    from httpx2 import Response

__all__ = ["RangesUnsupported", "RemoteFile"]

_HEADER_REQUEST_BYTES = 128 << 10
"""Requested first: more than the longest header of the 7B model (about 70 kB)."""

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class RangesUnsupported(Exception):  # noqa: N818 (a signal to download the whole file, no error)
    """The server sends whole files only."""


class RemoteFile:
    """One file of a commit. Methods raise the errors of the HTTP client and of the disk unchanged.

    Args:
        url: its address on the hub.
        label: its name in messages.
        folder: for its cached ranges; created when there is something to store.

    Attributes:
        size: in bytes; 0 until the header is known.
    """

    def __init__(self, url: str, label: str, folder: Path) -> None:
        self.url, self.label, self.folder, self.size = url, label, folder, 0
        self._tensors: dict[str, TensorInfo] | None = None
        self._etag: str | None = None
        self._supports_ranges = True
        self._is_chunked = False  # in Xet's storage, whose chunks files share
        self._header_lock = Lock()

    def header(self) -> dict[str, TensorInfo] | None:
        """The file's tensors, cached or downloaded; None if the server doesn't support ranges.

        Raises:
            CheckpointError: if it isn't a safetensors file.
        """
        with self._header_lock:
            if self._supports_ranges and self._tensors is None and not self._load_cached_header():
                with suppress(RangesUnsupported), self._lock("header", lambda _: None):
                    if not self._load_cached_header():
                        self._download_header()
        return self._tensors

    def cached_tensors(self) -> dict[str, TensorLocation]:
        """Tensors of all cached ranges; damaged ones are left out, and so downloaded again."""
        cached: dict[str, TensorLocation] = {}
        for path in sorted(self.folder.glob("[0-9]*.safetensors")):
            with suppress(CheckpointError):
                cached |= {
                    name: TensorLocation(path, info) for name, info in read_header(path).items()
                }
        return cached

    def cached_range(self, byte_range: ByteRange) -> dict[str, TensorLocation]:
        """Tensors of one range; empty unless it is cached completely."""
        path = self.folder / f"{byte_range.file_stem}.safetensors"
        if self.bytes_present(byte_range, path) != byte_range.size:
            return {}
        return {name: TensorLocation(path, info) for name, info in read_header(path).items()}

    def bytes_present(self, byte_range: ByteRange, path: Path | None = None) -> int:
        """Bytes of a range in a file; by default in its incomplete file."""
        path = path or self._incomplete(byte_range)
        header = byte_range.header
        try:
            with path.open("rb") as file:
                has_header = file.read(len(header)) == header
                present = file.seek(0, os.SEEK_END) - len(header)
        except OSError:
            return 0
        return present if has_header and present <= byte_range.size else 0

    def whole_range(self) -> ByteRange | None:
        """All bytes, for `download_whole`; None if the hub's own client downloads the file."""
        by_client = self._is_chunked or not self._etag
        return None if by_client else ByteRange.whole_file(self.size)

    def download_whole(
        self, byte_range: ByteRange, blobs: Path, on_bytes: Callable[[int], None]
    ) -> None:
        """Download the file to a folder of the hub's cache, where its name is its ETag.

        Args:
            byte_range: of `whole_range`.
            on_bytes: as of `download`, which states the errors, too.
        """
        incomplete, blob = self._incomplete(byte_range), blobs / (self._etag or "")
        with self._lock(byte_range.file_stem, on_bytes):
            if blob.is_file():
                return
            self._resume(byte_range, incomplete, on_bytes)
            blobs.mkdir(parents=True, exist_ok=True)
            moved = blobs / f"{blob.name}.{uuid4().hex}.incomplete"
            try:
                shutil.move(incomplete, moved)  # perhaps to another disk
                moved.replace(blob)
            finally:
                with suppress(OSError):
                    moved.unlink()

    def _incomplete(self, byte_range: ByteRange) -> Path:
        return self.folder / f"{byte_range.file_stem}.incomplete"

    def download(self, byte_range: ByteRange, on_bytes: Callable[[int], None]) -> None:
        """Download a range, unless it is cached.

        Args:
            on_bytes: called with the number of bytes received since the last call (0 while waiting
                for another process); an exception that it raises ends the download.

        Raises:
            RangesUnsupported: if the server no longer sends ranges.
            CheckpointError: if the file on the hub has changed.
        """
        incomplete = self._incomplete(byte_range)
        with self._lock(byte_range.file_stem, on_bytes):
            if self.cached_range(byte_range):
                return
            self._resume(byte_range, incomplete, on_bytes)
            # Without working locks, another process may have renamed or replaced it.
            if self.bytes_present(byte_range) == byte_range.size:
                with suppress(FileNotFoundError):
                    incomplete.replace(incomplete.with_suffix(".safetensors"))

    def _resume(
        self, byte_range: ByteRange, incomplete: Path, on_bytes: Callable[[int], None]
    ) -> None:
        """Append to the incomplete file what it lacks; start anew if it isn't this range's."""
        header = byte_range.header
        with os.fdopen(os.open(incomplete, _OPEN_FLAGS, 0o666), "r+b") as file:
            start = file.read(len(header))
            present = file.seek(0, os.SEEK_END) - len(header)
            if start != header or present > byte_range.size:
                if len(start) == len(header):  # a shorter one was interrupted inside its header
                    file.truncate(0)
                file.seek(present := 0)
                file.write(header)

            def write(chunk: bytes) -> None:
                file.write(chunk)
                on_bytes(len(chunk))

            self._stream(byte_range.start + present, byte_range.stop, write)
            file.flush()
            os.fsync(file.fileno())  # before it is renamed to a complete file

    def _download_header(self) -> None:
        """Download the header and cache it."""
        data = bytearray()
        self._stream(0, _HEADER_REQUEST_BYTES, data.extend)
        first = header_size(bytes(data[:LENGTH_BYTES]), self.label)
        self._stream(len(data), first, data.extend)
        self._tensors = parse_header(bytes(data), self.size, self.label)
        header = data[LENGTH_BYTES:first].decode()
        text = json.dumps({"etag": self._etag, "size": self.size, "header": header})
        incomplete = self.folder / f"header-{uuid4().hex}.incomplete"
        incomplete.write_text(text, encoding="utf-8")
        incomplete.replace(self.folder / "header.json")

    def _load_cached_header(self) -> bool:
        """Load the cached header; False if there is none, or it is damaged."""
        try:
            cached = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
            header: bytes = cached["header"].encode()
            header = len(header).to_bytes(LENGTH_BYTES, "little") + header
            self._tensors = parse_header(header, cached["size"], self.label)
            self._etag, self.size = cached["etag"], cached["size"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, CheckpointError):
            return False
        return True

    @contextmanager
    def _lock(self, name: str, on_wait: Callable[[int], None]) -> Iterator[None]:
        """Exclude other threads and processes from downloading `name`.

        While waiting, `on_wait(0)` is called every half second: it may raise to give up.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.lock"
        with ExitStack() as stack:
            while True:
                with suppress(TimeoutError):
                    stack.enter_context(hub_client().WeakFileLock(path, timeout=0.5))
                    break
                on_wait(0)
            yield

    def _stream(self, start: int, stop: int, write: Callable[[bytes], object]) -> None:
        """Pass bytes start … stop−1 (or up to the file's end) to `write`, with retries.

        Raises:
            httpx2.HTTPError: if several attempts in a row received next to nothing.
        """
        import httpx2

        hub = hub_client()
        plain = {"Accept-Encoding": "identity"}
        headers = hub.build_hf_headers(library_name="qwen_audio", headers=plain)

        def attempt() -> None:
            nonlocal start, stop
            write(b"")  # raises if the download was cancelled
            with hub.http_stream_backoff(
                "GET",
                self.url,
                headers={**headers, "Range": f"bytes={start}-{stop - 1}"},
                timeout=timeouts(),
                retry_on_exceptions=(),  # its own retries wait half a minute and start anew
                retry_on_status_codes=(),
            ) as response:
                if response.status_code != 416:  # range not satisfiable: the file has changed
                    hub.hf_raise_for_status(response)
                stop = min(stop, self._check_response(response, start, stop))
                for chunk in response.iter_raw():
                    write(chunk[: stop - start])
                    start = min(start + len(chunk), stop)
            if start < stop:
                raise httpx2.RemoteProtocolError("the response is shorter than the range requested")

        if start < stop:
            with_retries(attempt, lambda: start)

    def _check_response(self, response: Response, start: int, stop: int) -> int:
        """The file's size, from a response with the requested range of the expected file.

        Raises:
            RangesUnsupported: for any other response from that file.
            CheckpointError: if the file on the hub has changed.
        """
        # X-Linked-ETag is the hub's own; the storage that it redirects to may have another ETag.
        all_headers = [answer.headers for answer in (*response.history, response)]
        linked = [headers["X-Linked-ETag"] for headers in all_headers if "X-Linked-ETag" in headers]
        headers = all_headers[-1]
        is_of_hub = any("X-Repo-Commit" in each for each in all_headers)
        if response.status_code != 416 and not is_of_hub:
            raise CheckpointError(f"{self.label} {no_hub()}")
        self._is_chunked |= any("X-Xet-Hash" in each for each in all_headers)
        etag = (linked or [headers.get("ETag", "")])[0].removeprefix("W/").strip('"')
        match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
        first, last, size = (int(number) for number in match.groups()) if match else (0, 0, 0)
        if self._etag is not None and (etag, size or self.size) != (self._etag, self.size):
            raise CheckpointError(
                f"{self.label} is not the file first seen at this commit (of {self.size} bytes, "
                f"ETag {self._etag or 'missing'}; now {size or '?'}, {etag or 'missing'}): delete "
                f"{self.folder} and try again"
            )
        encoded = headers.get("Content-Encoding", "identity") != "identity"
        if response.status_code != 206 or encoded or (first, last) != (start, min(stop, size) - 1):
            self._supports_ranges, self._tensors = False, None
            length = int(headers.get("Content-Length", 0))
            self.size = length if response.status_code == 200 and not encoded else self.size
            raise RangesUnsupported
        self._etag, self.size = etag, size
        return size

"""A file of weights on a hub, read in ranges: what comes is kept in pieces, each a file of its own.

The second process that wants a piece waits for the first and finds it. Until it is whole it has
another name, under which it grows from where it ended. On file systems whose locks hold nobody
back, two processes write the same bytes to the same places.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING
from uuid import uuid4

from qwen_audio.errors import CheckpointError

from .byte_ranges import ByteRange
from .download import client, timeouts, with_retries
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

__all__ = ["NoRanges", "RemoteFile"]

_FIRST_BYTES = 128 << 10
"""Asked for at first: the longest header of the 7B (some 70 kB), in one journey."""

_AS_IT_IS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class NoRanges(Exception):  # noqa: N818 (an answer, not an error: the whole file is the way then)
    """The server sends whole files only."""


class RemoteFile:
    """One file of a commit. Methods let errors of the HTTP client and of the disk pass.

    Args:
        url: where the hub resolves it.
        label: its name in messages.
        folder: for its pieces; made when there is something to keep.

    Attributes:
        size: known once its header is.
    """

    def __init__(self, url: str, label: str, folder: Path) -> None:
        self.url, self.label, self.folder, self.size = url, label, folder, 0
        self._slots: dict[str, TensorInfo] | None = None
        self._etag: str | None = None
        self._has_ranges = True
        self._asking = Lock()

    def header(self) -> dict[str, TensorInfo] | None:
        """Where its tensors lie, kept from earlier or asked for; None: there is no reading a part.

        Raises:
            CheckpointError: if it isn't a safetensors file.
        """
        with self._asking:
            if self._has_ranges and self._slots is None and not self._load_cached_header():
                with suppress(NoRanges), self._lock("header", lambda _: None):
                    if not self._load_cached_header():
                        self._ask()
        return self._slots

    def pieces(self) -> dict[str, TensorLocation]:
        """Tensors that are here. A damaged piece holds none, and is fetched again."""
        held: dict[str, TensorLocation] = {}
        for file in sorted(self.folder.glob("[0-9]*.safetensors")):
            with suppress(CheckpointError):
                held |= {
                    name: TensorLocation(file, slot) for name, slot in read_header(file).items()
                }
        return held

    def located(self, piece: ByteRange) -> dict[str, TensorLocation]:
        """A piece's tensors; none unless it is here, whole."""
        file = self.folder / f"{piece.stem}.safetensors"
        if self.bytes_present(piece, file) != piece.size:
            return {}
        return {name: TensorLocation(file, slot) for name, slot in read_header(file).items()}

    def bytes_present(self, piece: ByteRange, file: Path | None = None) -> int:
        """How many bytes of a piece are in a file: by default in the one in which it grows."""
        try:
            with (file or self.folder / f"{piece.stem}.incomplete").open("rb") as opened:
                is_its = opened.read(len(piece.head)) == piece.head
                have = opened.seek(0, os.SEEK_END) - len(piece.head)
        except OSError:
            return 0
        return have if is_its and have <= piece.size else 0

    def fetch(self, piece: ByteRange, arrived: Callable[[int], None]) -> None:
        """Have a piece here.

        Args:
            arrived: is told again and again how many bytes came; what it raises ends the fetch.

        Raises:
            NoRanges: if the server has stopped sending parts.
            CheckpointError: if the file is not the one that was first seen.
        """
        part = self.folder / f"{piece.stem}.incomplete"
        with self._lock(piece.stem, arrived):
            if not self.located(piece):
                self._grow(piece, part, arrived)
                if (
                    self.bytes_present(piece) == piece.size
                ):  # without locks it may be another's by now
                    with suppress(FileNotFoundError):
                        part.replace(part.with_suffix(".safetensors"))

    def _grow(self, piece: ByteRange, part: Path, arrived: Callable[[int], None]) -> None:
        head = piece.head
        with os.fdopen(os.open(part, _AS_IT_IS, 0o666), "r+b") as opened:
            start = opened.read(len(head))
            have = opened.seek(0, os.SEEK_END) - len(head)
            if start != head or have > piece.size:
                if len(start) == len(head):  # what is shorter only began to be written
                    opened.truncate(0)
                opened.seek(have := 0)
                opened.write(head)

            def keep(chunk: bytes) -> None:
                opened.write(chunk)
                arrived(len(chunk))

            self._copy(piece.start + have, piece.stop, keep)
            opened.flush()
            os.fsync(opened.fileno())  # before it has the name of a whole one

    def _ask(self) -> None:
        """Fetch the header, and keep it."""
        data = bytearray()
        self._copy(0, _FIRST_BYTES, data.extend)
        first = header_size(bytes(data[:LENGTH_BYTES]), self.label)
        self._copy(len(data), first, data.extend)
        self._slots = parse_header(bytes(data), self.size, self.label)
        header = data[LENGTH_BYTES:first].decode()
        kept = json.dumps({"etag": self._etag, "size": self.size, "header": header})
        new = self.folder / f"header-{uuid4().hex}.incomplete"
        new.write_text(kept, encoding="utf-8")
        new.replace(self.folder / "header.json")

    def _load_cached_header(self) -> bool:
        """Take up what was kept; false where nothing usable was."""
        try:
            kept = json.loads((self.folder / "header.json").read_text(encoding="utf-8"))
            header: bytes = kept["header"].encode()
            header = len(header).to_bytes(LENGTH_BYTES, "little") + header
            self._slots = parse_header(header, kept["size"], self.label)
            self._etag, self.size = kept["etag"], kept["size"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, CheckpointError):
            return False
        return True

    @contextmanager
    def _lock(self, name: str, arrived: Callable[[int], None]) -> Iterator[None]:
        """Nobody else fetches `name` in the meantime, in this process or another."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f"{name}.lock"
        with ExitStack() as stack:
            while True:
                with suppress(TimeoutError):
                    stack.enter_context(client().WeakFileLock(lock, timeout=0.5))
                    break
                arrived(0)
            yield

    def _copy(self, start: int, stop: int, keep: Callable[[bytes], object]) -> None:
        """Hand over bytes start … stop−1, at most to the file's end, going on where it broke off.

        Raises:
            httpx2.HTTPError: if several tries in a row brought next to nothing.
        """
        import httpx2

        hub = client()
        plain = {"Accept-Encoding": "identity"}
        headers = hub.build_hf_headers(library_name="qwen_audio", headers=plain)

        def one_try() -> None:
            nonlocal start, stop
            keep(b"")  # if nobody wants more it says so
            with hub.http_stream_backoff(
                "GET",
                self.url,
                headers={**headers, "Range": f"bytes={start}-{stop - 1}"},
                timeout=timeouts(),
                retry_on_exceptions=(),  # its own retries wait half a minute, and start again
                retry_on_status_codes=(),
            ) as response:
                if response.status_code != 416:  # no such range: then it is another file
                    hub.hf_raise_for_status(response)
                stop = min(stop, self._checked(response, start, stop))
                for chunk in response.iter_raw():
                    keep(chunk[: stop - start])
                    start = min(start + len(chunk), stop)
            if start < stop:
                raise httpx2.RemoteProtocolError("the answer is shorter than it should be")

        if start < stop:
            with_retries(one_try, lambda: start)

    def _checked(self, response: Response, start: int, stop: int) -> int:
        """The file's size, from an answer that is the right part of the right file."""
        # The hub's own name for the file; storage it sends us on to may have another.
        steps = [step.headers for step in (*response.history, response)]
        linked = [step["X-Linked-ETag"] for step in steps if "X-Linked-ETag" in step]
        etag = (linked or [steps[-1].get("ETag", "")])[0].removeprefix("W/").strip('"')
        found = _RANGE.fullmatch(steps[-1].get("Content-Range", ""))
        first, last, size = (int(number) for number in found.groups()) if found else (0, 0, 0)
        if self._etag is not None and (etag, size or self.size) != (self._etag, self.size):
            raise CheckpointError(
                f"{self.label} is not the file first seen at this commit (of {self.size} bytes, "
                f"ETag {self._etag or 'missing'}; now {size or '?'}, {etag or 'missing'}): delete "
                f"{self.folder} and try again"
            )
        encoded = steps[-1].get("Content-Encoding", "identity") != "identity"
        if response.status_code != 206 or encoded or (first, last) != (start, min(stop, size) - 1):
            self._has_ranges, self._slots = False, None
            length = int(steps[-1].get("Content-Length", 0))
            self.size = length if response.status_code == 200 and not encoded else self.size
            raise NoRanges
        self._etag, self.size = etag, size
        return size

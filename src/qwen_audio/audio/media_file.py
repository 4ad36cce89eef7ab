"""Read-only binary files for FFmpeg: a file, or parts of files and bytes joined into one."""

from __future__ import annotations

import bisect
import io
import itertools
import os
import re
import stat
from collections.abc import Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from qwen_audio.errors import AudioError
from qwen_audio.paths import printable

from .decode_limits import STREAM_LIMITS, DecodeLimits, ProcessorBudget

__all__ = [
    "FileRange",
    "JoinedFile",
    "MediaFile",
    "check_readable",
    "error_reason",
    "read_at",
    "read_stream",
    "size_of",
]

_BLOCK_BYTES = 1 << 20
_NO_FILES_BYTES = 1 << 43
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+[:,]", re.IGNORECASE)
"""http://…, data:…, concat:…, subfile,,…: what programs built on FFmpeg open."""


def check_readable(name: str) -> bool:
    """Whether a path is a pipe, which can be read only once, and not a file.

    Raises:
        AudioError: if it does not exist, is neither, is empty, or can't be read.
    """
    shown = printable(name)
    try:
        status = os.stat(name)  # noqa: PTH116 (Path.exists and its like hide some errors)
    except (FileNotFoundError, NotADirectoryError) as error:
        if _ADDRESS.match(name):
            shown = f"{shown:.200}"
            advice = "only paths and addresses given directly are opened: save what it names first"
        elif any(wildcard in name for wildcard in "*?["):
            advice = "if it is a pattern, qwen_audio.find_files lists what matches it"
        else:
            advice = "check the path"
        raise AudioError(f"{shown}: no such file: {advice}") from error
    except (OSError, ValueError) as error:
        raise AudioError(f"{name:.200} can't be read ({error_reason(error)}): check it") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(
            f"{shown} is a folder: give the audio files in it (qwen_audio.find_files lists them)"
        )
    if stat.S_ISFIFO(status.st_mode):
        return True
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{shown} is neither a file nor a pipe: give an audio file")
    if not os.access(name, os.R_OK):
        raise AudioError(f"{shown} can't be read: check its permissions")
    if status.st_size == 0:
        raise AudioError(f"{shown} is empty (0 bytes): expected an audio file")
    return False


def error_reason(error: Exception) -> str:
    """The reason that an error of the system or FFmpeg states, without its number and file."""
    return getattr(error, "strerror", None) or str(error)


def size_of(file: BufferedIOBase) -> int:
    """Size in bytes."""
    return file.seek(0, os.SEEK_END)


def read_at(file: BufferedIOBase, start: int, length: int) -> bytes:
    """Up to `length` bytes from `start` on; fewer if the file ends before."""
    if start >= _NO_FILES_BYTES:  # what a header states may be beyond what file systems can seek
        return b""
    file.seek(start)
    return file.read(max(0, length))


def read_stream(file: Any, name: str, limits: DecodeLimits | None = None) -> bytes:
    """Everything that is left in a binary file object, such as standard input or a pipe.

    Args:
        name: shown in messages.
        limits: None for those of bytes.

    Raises:
        AudioError: if it can't be read, gives no bytes, or more than allowed.
    """
    max_bytes = (limits or STREAM_LIMITS).max_stream_bytes
    blocks: list[bytes] = []
    total_bytes = 0
    while True:
        try:
            block = None if isinstance(file, io.TextIOBase) else file.read(_BLOCK_BYTES)
        except (OSError, TypeError, ValueError) as error:
            reason = error_reason(error)
            raise AudioError(f"{name} can't be read ({reason}): open it for reading") from error
        if not isinstance(block, bytes):
            kind = "text" if block is None or isinstance(block, str) else type(block).__name__
            raise AudioError(f"{name} gives {kind}, not bytes: open the file with mode 'rb'")
        if not block:
            return b"".join(blocks)
        blocks.append(block)
        total_bytes += len(block)
        if total_bytes > max_bytes:
            raise AudioError(
                f"{name} holds more than the limit of {max_bytes:g} bytes: write it to a file, and "
                "give that"
            )


class FileRange:
    """Bytes `start` … `stop`−1 of a binary file."""

    def __init__(self, file: BufferedIOBase, start: int, stop: int) -> None:
        self._file, self._start, self._stop = file, start, max(start, stop)

    def __len__(self) -> int:
        return self._stop - self._start

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from `start` on, counted from the beginning of the range."""
        first = self._start + start
        return read_at(self._file, first, min(length, self._stop - first))


class JoinedFile(io.RawIOBase):
    """Bytes and ranges of files, one after another, as one seekable file; nothing is copied."""

    def __init__(self, parts: Sequence[bytes | FileRange]) -> None:
        self._parts = [part for part in parts if len(part)]
        self._position = 0
        self._ends = list(itertools.accumulate(map(len, self._parts)))
        self._size = self._ends[-1] if self._ends else 0

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be changed: yes."""
        return True

    def tell(self) -> int:
        """The position, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position; returns the new one."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Reads up to the end of a part; returns the number of bytes."""
        index = bisect.bisect_right(self._ends, self._position)
        if index == len(self._parts):
            return 0
        part = self._parts[index]
        offset = self._position - self._ends[index] + len(part)
        if isinstance(part, bytes):
            data = part[offset : offset + len(buffer)]
        else:
            data = part.read(offset, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class MediaFile:
    """What FFmpeg may see of a file: its bytes, and the ending of its name.

    FFmpeg recognises formats without a magic number (G.722, raw GSM) by the name's ending. It gets
    neither the path, which may hold bytes that are not UTF-8, nor a way to open other files. It has
    a position of its own, so that the file can be read elsewhere meanwhile.

    Args:
        budget: once it is used up, the file seems to end, so that FFmpeg does.
    """

    def __init__(self, file: BufferedIOBase, name: str, budget: ProcessorBudget) -> None:
        suffix = Path(name).suffix
        self.name = "audio" + (suffix if suffix.isascii() and suffix.isprintable() else "")
        self._file, self._position, self._size = file, 0, size_of(file)
        self._budget = budget

    def read(self, length: int) -> bytes:
        """Up to `length` bytes from the position on."""
        if self._budget.is_used_up:
            return b""
        data = read_at(self._file, self._position, length)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Changes the position; returns the new one."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """The position, in bytes."""
        return self._position

"""Reusable read buffer, filled by direct I/O (O_DIRECT) where the system has it.

Streamed weights are read once in every pass, and together they exceed memory: the page cache has
evicted each of them before it is read again, and has allocated new pages for it, which can take
longer than reading. Direct reads bypass the cache and fill the same pages every time.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["PAGE", "ReadBuffer", "read_block"]

PAGE = mmap.PAGESIZE
"""Alignment of direct reads, in the file and in memory."""


class ReadBuffer:
    """Blocks of memory, handed out in order; `rewind` starts again with the first."""

    def __init__(self) -> None:
        self._blocks: list[mmap.mmap] = []
        self._next = 0

    def rewind(self) -> None:
        """Allow everything handed out to be overwritten."""
        self._next = 0

    def give_back(self) -> None:
        """Allow what was handed out last to be overwritten."""
        self._next -= 1

    def read(self, file: Path, start: int, stop: int) -> memoryview:
        """Bytes start … stop−1 of a file; fewer if it ends before. Whole pages are read.

        Raises:
            OSError: if it can't be read.
        """
        block = self._next_block(start % PAGE + stop - start)
        return read_block(block, file, start, stop)

    def _next_block(self, size: int) -> memoryview:
        aligned_size = -(-size // PAGE) * PAGE
        index = slice(self._next, self._next + 1)
        if not any(len(block) >= aligned_size for block in self._blocks[index]):
            block = mmap.mmap(-1, max(PAGE, aligned_size))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without huge pages
                    block.madvise(mmap.MADV_HUGEPAGE)
            self._blocks[index] = [block]
        self._next += 1
        return memoryview(self._blocks[self._next - 1])[:aligned_size]


def read_block(
    block: memoryview, file: Path, start: int, stop: int, *, is_direct: bool = True
) -> memoryview:
    """Bytes start … stop−1 of a file, read into whole pages of memory; fewer if it ends before.

    Args:
        is_direct: bypass the page cache, where the system and the file system allow it.

    Returns:
        The part of `block` that holds them: from byte `start % PAGE` on.

    Raises:
        OSError: if it can't be read.
    """
    before = start % PAGE
    first, size = start - before, before + stop - start
    filled = (
        _read_direct(file, first, block[: -(-size // PAGE) * PAGE], size) if is_direct else None
    )
    if filled is None:
        filled = _read_cached(file, first, block[:size])
    return block[before : max(before, min(filled, size))]


def _read_direct(file: Path, start: int, block: memoryview, size: int) -> int | None:
    """Read whole pages until `size` bytes or the end of the file; returns the bytes read, None
    where the system or the file system has no direct reads."""
    if not (hasattr(os, "O_DIRECT") and hasattr(os, "preadv")):
        return None
    descriptor, filled = -1, 0
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
        while filled < size and (count := os.preadv(descriptor, [block[filled:]], start + filled)):
            filled += count
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOTSUP):
            return None
        raise
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return filled


def _read_cached(file: Path, start: int, block: memoryview) -> int:
    """Ordinary reads, through the page cache; returns the bytes read."""
    filled = 0
    with file.open("rb", buffering=0) as opened:
        opened.seek(start)
        while filled < len(block) and (count := opened.readinto(block[filled:])):
            filled += count
    return filled

"""Memory that is read into again and again, straight from the disk.

Weights that are streamed are read once in every pass, and all of them are more than memory holds: a
cache of files has forgotten each by the time it is wanted again, and has spent fresh memory on it,
which can take longer to come by than the disk takes to fill it. So they are read past that cache
(O_DIRECT, on Linux) into the same few pages, time and again.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["ReadBuffer"]

_PAGE = mmap.PAGESIZE
"""What direct reads begin and end at: of the file, and in memory."""


class ReadBuffer:
    """Pieces of memory, handed out in order until `rewind`, and then in the same order again."""

    def __init__(self) -> None:
        self._pieces: list[mmap.mmap] = []
        self._next = 0

    def rewind(self) -> None:
        """Everything handed out may be written over from now on."""
        self._next = 0

    def give_back(self) -> None:
        """What was handed out last may be written over from now on."""
        self._next -= 1

    def read(self, file: Path, start: int, stop: int) -> memoryview:
        """Bytes start … stop−1 of a file, whole pages around them being read; fewer if it is short.

        Raises:
            OSError: if it can't be read.
        """
        before = start % _PAGE
        first, size = start - before, before + stop - start
        space = self._piece(size)
        try:
            filled = _read_direct(file, first, space, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without
                raise
            filled = _read_cached(file, first, space[:size])
        return space[before : max(before, min(filled, size))]

    def _piece(self, size: int) -> memoryview:
        whole = -(-size // _PAGE) * _PAGE
        mine = slice(self._next, self._next + 1)
        if not any(len(piece) >= whole for piece in self._pieces[mine]):
            piece = mmap.mmap(-1, max(_PAGE, whole))
            if hasattr(mmap, "MADV_HUGEPAGE"):
                with suppress(OSError):  # a kernel without them
                    piece.madvise(mmap.MADV_HUGEPAGE)
            self._pieces[mine] = [piece]
        self._next += 1
        return memoryview(self._pieces[self._next - 1])[:whole]


def _read_direct(file: Path, start: int, space: memoryview, wanted: int) -> int:
    """Fill whole pages until so many bytes are there, or the file ends. Returns how many are."""
    if not (hasattr(os, "O_DIRECT") and hasattr(os, "preadv")):
        raise OSError(errno.ENOTSUP, "this system knows no direct reads")
    opened, filled = os.open(file, os.O_RDONLY | os.O_DIRECT), 0
    try:
        while filled < wanted and (count := os.preadv(opened, [space[filled:]], start + filled)):
            filled += count
    finally:
        os.close(opened)
    return filled


def _read_cached(file: Path, start: int, space: memoryview) -> int:
    """As everybody reads."""
    filled = 0
    with file.open("rb", buffering=0) as opened:
        opened.seek(start)
        while filled < len(space) and (count := opened.readinto(space[filled:])):
            filled += count
    return filled

"""MP4 and MOV files (ISO 14496-12, QuickTime): sample tables of any size, and media in other files.

FFmpeg makes an index of all samples when it opens a file, of 36 bytes each. Tables may state any
number of samples in a few bytes, so that a file of a kilobyte could take all memory.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from itertools import pairwise

import numpy as np

from qwen_audio.errors import AudioError

from .media_file import read_at, size_of

__all__ = ["check_mp4"]

_MAX_BOXES = 100_000
_MAX_DEPTH = 12
_HEADERS = frozenset({b"moov", b"hoov", b"moof", b"trak", b"cmov"})
"""Boxes of a file of which one must be there for FFmpeg to find samples."""
_CONTAINERS = frozenset(
    {
        *(b"moov", b"hoov", b"cmov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts"),
        *(b"mvex", b"moof", b"traf", b"udta", b"ilst"),
    }
)
_TABLES = frozenset(
    {
        *(b"hdlr", b"dref", b"stsz", b"stz2", b"stts", b"stsc", b"stco", b"co64", b"elst"),
        *(b"trun", b"trak"),
    }
)
_LEAVES = frozenset(
    {
        *(b"mdat", b"free", b"skip", b"wide", b"uuid", b"covr", b"ftyp", b"sidx", b"mfra", b"----"),
        *(b"ctts", b"stss", b"sdtp", b"sbgp", b"saio", b"saiz", b"senc", b"data", b"chpl"),
    }
)
"""Boxes without others. Of any other box FFmpeg may read parts as boxes."""
_ANY_TABLE = re.compile(b"|".join(sorted(_TABLES)))
_PCM_PACKET_SAMPLES = 1024
_FREE_EDITED_SAMPLES = 1 << 22
_LONGEST_HEADER_BYTES = 64 * 2**20  # of a compressed one

_Track = dict[bytes, list[memoryview]]
"""Tables of a track: name → contents."""


def check_mp4(file: BufferedIOBase, name: str, max_samples: float) -> None:
    """Check a file before FFmpeg opens it; files of other formats pass.

    Args:
        name: shown in messages.
        max_samples: compressed frames, of all tracks together, that the file may state. It may
            neither state more than it could hold.

    Raises:
        AudioError: if it states more, or its audio is in another file.
    """
    max_samples = min(max_samples, 2 * size_of(file) + 10_000)  # half a byte: its size in stz2
    samples = 0
    boxes = _Boxes(file, name, _MAX_BOXES + max_samples / 10)  # a fragment has several, and samples
    for track in _tracks(boxes.tables()):
        if _is_elsewhere(track):
            raise AudioError(
                f"{name} names another file as that of its audio, which is not opened: give that "
                "file, or save this one as self-contained"
            )
        samples += _index_entries(track)
    if samples > max_samples:
        raise AudioError(
            f"{name} states {samples} samples (compressed frames), but at most {max_samples:.0f} "
            "are allowed: use an intact copy of the file, or cut it into shorter files"
        )


class _Boxes:
    """The boxes of a file as FFmpeg finds them, up to a number of boxes."""

    def __init__(self, file: BufferedIOBase, name: str, max_boxes: float) -> None:
        self._file, self._name, self._max_boxes = file, name, max_boxes
        self._count = 0
        self._has_compressed_header = False

    def tables(self) -> Iterator[tuple[bytes, memoryview]]:
        """Name and content of every table, in their order; nothing of other formats."""
        boxes = list(self._file_boxes())
        if not any(box in _HEADERS for box, _, _ in boxes):
            return
        for box, start, stop in boxes:
            if box not in _LEAVES:
                yield from self._tables(
                    box, memoryview(read_at(self._file, start, stop - start)), 0
                )

    def _file_boxes(self) -> Iterator[tuple[bytes, int, int]]:
        """Name, and range of the content, of the boxes that are in no other."""
        position, size = 0, size_of(self._file)
        while len(head := read_at(self._file, position, 16)) >= 8:
            self._count_box()
            header_bytes, length = _lengths(head, size - position)
            yield head[4:8], position + header_bytes, min(position + length, size)
            position += length

    def _tables(
        self, box: bytes, content: memoryview, depth: int
    ) -> Iterator[tuple[bytes, memoryview]]:
        if box in _TABLES:
            yield box, content
        if box == b"cmvd":
            content = self._decompressed(content)
        elif box == b"meta":  # in MP4 with a version, in QuickTime without
            head = bytes(content[:64])
            start = next((k for k in range(4, 64, 4) if head[k : k + 4] == b"hdlr"), 4)
            content = content[start - 4 :]
        elif box not in _CONTAINERS:
            for match in _ANY_TABLE.finditer(content if box not in _LEAVES | _TABLES else b""):
                self._count_box()
                yield match[0], content[match.end() :]
            return
        position = 0
        while position + 8 <= len(content) and depth < _MAX_DEPTH:
            self._count_box()
            head = bytes(content[position : position + 16])
            header_bytes, length = _lengths(head, len(content) - position)
            child = content[position + header_bytes : position + length]
            yield from self._tables(head[4:8], child, depth + 1)
            position += length

    def _decompressed(self, content: memoryview) -> memoryview:
        """A compressed header: its length, and then a stream of zlib's."""
        if self._has_compressed_header or _number(content, 0) > _LONGEST_HEADER_BYTES:
            raise AudioError(
                f"{self._name} has a compressed header of more than {_LONGEST_HEADER_BYTES} bytes, "
                "or several: convert it to flac or wav"
            )
        self._has_compressed_header = True
        try:
            header = zlib.decompressobj().decompress(content[4:], _LONGEST_HEADER_BYTES)
        except zlib.error:  # FFmpeg will say so
            return memoryview(b"")
        return memoryview(header)

    def _count_box(self) -> None:
        self._count += 1
        if self._count > self._max_boxes:
            raise AudioError(
                f"{self._name} has more than {self._max_boxes:.0f} boxes, the limit: use an intact "
                "copy of the file, or cut it into shorter files"
            )


def _lengths(head: bytes, remaining: int) -> tuple[int, int]:
    """Length of a box's header, and of the whole box; 0 means "until the end"."""
    length = int.from_bytes(head[:4], "big")
    if length == 1:
        return 16, max(16, int.from_bytes(head[8:16], "big"))
    return 8, max(8, length or remaining)


def _tracks(tables: Iterator[tuple[bytes, memoryview]]) -> Iterator[_Track]:
    """Tables by track: FFmpeg counts each to the last track that began before it."""
    track: _Track = {}
    for name, content in tables:
        if name == b"trak":
            yield track
            track = {}
        track.setdefault(name, []).append(content)
    yield track


def _is_audio(track: _Track) -> bool:
    kinds = {bytes(content[8:12]) for content in track.get(b"hdlr", ())}
    return b"soun" in kinds and not kinds & {b"vide", b"subp", b"clcp"}


def _is_elsewhere(track: _Track) -> bool:
    """Whether all media of an audio track are in other files: bit 0 of the flags means this one."""
    references = track.get(b"dref", ()) if _is_audio(track) else ()
    return any(
        len(content) >= 20 and _number(content, 4) == 1 and not content[19] & 1
        for content in references
    )


def _index_entries(track: _Track) -> int:
    """How many entries FFmpeg's index of a track has."""
    stated = [_number(content, 8) for name in (b"stsz", b"stz2") for content in track.get(name, ())]
    times = track.get(b"stts", ())
    is_pcm = _is_audio(track) and all(
        _number(content, 4) == _number(content, 12) == 1 for content in times
    )
    samples = _chunk_entries(track) if is_pcm and times else max(stated, default=0)
    # An edit may take all samples, and most take few.
    edits = max((_number(content, 4) for content in track.get(b"elst", ())), default=1)
    if samples * edits > _FREE_EDITED_SAMPLES:
        samples *= max(1, edits)
    return samples + sum(_number(content, 4) for content in track.get(b"trun", ()))


def _chunk_entries(track: _Track) -> int:
    """Entries of a track of PCM: FFmpeg divides its chunks into packets."""
    offsets = [*track.get(b"stco", ()), *track.get(b"co64", ())]
    chunks = max((min(_number(content, 4), len(content) // 4) for content in offsets), default=0)
    entries = 0
    for content in track.get(b"stsc", ()):
        runs = min(_number(content, 4), max(0, len(content) - 8) // 12)
        table = np.frombuffer(content[8 : 8 + 12 * runs], ">u4").reshape(-1, 3).tolist()
        firsts = [first for first, _, _ in table] + [chunks + 1]
        for (first, after), (_, chunk_samples, _) in zip(pairwise(firsts), table, strict=True):
            entries += max(0, after - first) * -(-chunk_samples // _PCM_PACKET_SAMPLES)
    return entries


def _number(content: memoryview, offset: int) -> int:
    """The big-endian number of 32 bits at an offset."""
    return int.from_bytes(content[offset : offset + 4], "big")

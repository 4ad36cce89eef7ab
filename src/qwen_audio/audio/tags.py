"""Number of tags in a media file (artist, title, …), before FFmpeg reads them.

For every tag FFmpeg compares its name with those of all before it: a hundred thousand take minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from itertools import islice

from qwen_audio.errors import AudioError

from .damage import tag_bytes
from .media_file import read_at, size_of

__all__ = ["MAX_TAGS", "check_tags", "comment_count", "too_many_tags"]

MAX_TAGS = 4000
_ID3_FRAMES = (b"TXXX", b"COMM", b"USLT", b"PRIV", b"CHAP", b"GEOB")
_OLD_ID3_FRAMES = (b"TXX", b"COM", b"ULT", b"GEO")
"""Frames of ID3v2 that may be there any number of times; in version 2.2 with shorter names."""
_BYTES_BY_CHANCE = 1 << 22
"""In so many random bytes, such as of a picture, one of the shorter names is expected by chance."""
_LONGEST_ID3_BYTES = 1 << 28
_VORBIS_COMMENT = 4  # type of a block of FLAC
_SEGMENT, _TAGS = 0x18538067, 0x1254C367  # elements of Matroska
_SIMPLE_TAG = b"\x67\xc8"
_BLOCK_BYTES = 1 << 20


def check_tags(file: BufferedIOBase, name: str) -> None:
    """Raises AudioError for more tags than any recording has; those of Ogg are counted by pages."""
    position = tags = 0
    while (head := read_at(file, position, 10)).startswith(b"ID3") and tags <= MAX_TAGS:
        length = tag_bytes(head)
        data = read_at(file, position, min(length, _LONGEST_ID3_BYTES))
        frames = _OLD_ID3_FRAMES if head[3:4] == b"\2" else _ID3_FRAMES
        tags += 1 + max(0, sum(map(data.count, frames)) - len(data) // _BYTES_BY_CHANCE)
        position += length
    magic = read_at(file, position, 4)
    if magic == b"fLaC":
        tags += sum(islice(_flac_tags(file, position + 4), MAX_TAGS + 1))
    elif magic == b"\x1aE\xdf\xa3":
        tags += _matroska_tags(file)
    if tags > MAX_TAGS:
        raise too_many_tags(name)


def too_many_tags(name: str) -> AudioError:
    """The error for a file with more than `MAX_TAGS`."""
    return AudioError(
        f"{name} has more than {MAX_TAGS} tags (artist, title, …), the limit: remove its tags, for "
        "instance with ffmpeg -map_metadata -1"
    )


def comment_count(packet: bytes, start: int) -> int:
    """Number of comments that a Vorbis comment states: the vendor's name, then how many follow."""
    position = start + 4 + int.from_bytes(packet[start : start + 4], "little")
    return int.from_bytes(packet[position : position + 4], "little")


def _flac_tags(file: BufferedIOBase, position: int) -> Iterator[int]:
    """Comments of each metadata block; 1 for others, as there may be any number of these, too."""
    while len(head := read_at(file, position, 8)) == 8:
        length = int.from_bytes(head[1:4], "big")
        if head[0] & 0x7F == _VORBIS_COMMENT:
            vendor_bytes = int.from_bytes(head[4:8], "little")
            yield comment_count(bytes(4) + read_at(file, position + 8 + vendor_bytes, 4), 0)
        else:
            yield 1
        if head[0] & 0x80:  # the last block
            return
        position += 4 + length


def _matroska_tags(file: BufferedIOBase) -> int:
    """Occurrences of the ID of a tag, in the elements that hold tags or are of unknown length."""
    count, position, size = 0, 0, size_of(file)
    for _ in range(_BLOCK_BYTES):
        element, header_bytes, length = _element(read_at(file, position, 12))
        if not header_bytes:
            break
        if element == _SEGMENT:
            position += header_bytes
            continue
        stop = size if length is None else min(position + header_bytes + length, size)
        if element == _TAGS or length is None:
            count += _occurrences(file, position, stop)
        position = stop
    return count


def _occurrences(file: BufferedIOBase, start: int, stop: int) -> int:
    """How often the ID of a tag is there, but for what is expected by chance."""
    count = sum(
        read_at(file, position, min(_BLOCK_BYTES, stop - position)).count(_SIMPLE_TAG)
        for position in range(start, stop, _BLOCK_BYTES)
    )
    return max(0, count - (stop - start) // (1 << 15))


def _element(head: bytes) -> tuple[int, int, int | None]:
    """ID of an EBML element (RFC 8794), bytes of its header, 0 if it is none, and its length.

    The number of leading zero bits of an ID or a length tells how many bytes it has; a length of
    ones is unknown.
    """
    id_bytes = 9 - head[0].bit_length() if head else 0
    if not 1 <= id_bytes <= 4 or len(head) < 12 or not head[id_bytes]:
        return 0, 0, None
    length_bytes = 9 - head[id_bytes].bit_length()
    ones = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(head[id_bytes : id_bytes + length_bytes], "big") & ones
    is_known = length != ones
    return (
        int.from_bytes(head[:id_bytes], "big"),
        id_bytes + length_bytes,
        length if is_known else None,
    )

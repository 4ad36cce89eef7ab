"""Where a file says that it ends. FFmpeg believes the file's size instead, and so hears a file that
was cut short as a shorter one; here it is told apart.

Every container is a row of parts with their lengths in front (chunks, boxes, pages); the last one
must end inside the file. A writer that could not seek back leaves the length open: no evidence.
"""

from __future__ import annotations

import io
import os
from io import BufferedIOBase
from pathlib import Path

import numpy as np

__all__ = ["as_little_endian_wav", "bytes_missing", "is_big_endian_wav", "states_mp3_length"]

# What writers that can't seek back put into a header of 32 bits for "until the end".
_OPEN_32_BIT = 0x7FFF_F000
_OPEN_64_BIT = 1 << 63

_MAX_PARTS = 100_000
"""Parts looked at before giving up: a file of empty ones must not take for ever."""

_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
# Format, channels, rate, bytes a second, bytes a frame, bits; then, where the format is extensible,
# the extension's size, valid bits, speakers, and the first three fields of the format's GUID.
_WAV_FORMAT = (2, 2, 4, 4, 2, 2, 2, 2, 4, 4, 2, 2)
_EBML = bytes.fromhex("1a45dfa3")


def bytes_missing(file: str | BufferedIOBase) -> int:
    """At least so many bytes are missing at the file's end; 0 where it says nothing of its end."""
    if isinstance(file, str):
        if not Path(file).is_file():
            return 0  # a pipe or a device has no end to look at
        with Path(file).open("rb") as opened:
            return bytes_missing(opened)
    head = _read(file, 0, 16)
    end = 0
    if head[:4] == b"RIFF":
        end = _end_of_riff(file)
    elif head == _W64_RIFF:
        end = int.from_bytes(_read(file, 16, 8), "little")
    elif head[:4] == b"caff":
        end = _end_of_caf(file)
    elif head[:4] == b"OggS":
        end = _end_of_ogg(file)
    elif head[:4] == _EBML:
        end = _end_of_ebml(file)
    elif head[4:8] == b"ftyp":
        end = _end_of_boxes(file)
    missing = 0 if end >= _OPEN_64_BIT else max(0, end - _size(file))
    file.seek(0)
    return missing


def is_big_endian_wav(file: str | BufferedIOBase) -> bool:
    """Whether it is a WAV with its bytes the other way round (RIFX)."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return is_big_endian_wav(opened)
    head = _read(file, 0, 12)
    file.seek(0)
    return head[:4] == b"RIFX" and head[8:] == b"WAVE"


def as_little_endian_wav(file: str | BufferedIOBase) -> io.BytesIO:
    """A RIFX file as the RIFF file that it mirrors: FFmpeg takes its samples for little-endian.

    Only format and samples are taken along. Lengths stay as they are stated, so that what is
    missing at the end is still missed.
    """
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return as_little_endian_wav(opened)
    file.seek(0)
    data = file.read()
    chunks: dict[bytes, bytes] = {}
    lengths: dict[bytes, int] = {}
    place = 12
    while place + 8 <= len(data) and len(chunks) < _MAX_PARTS:
        name, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "big")
        chunks.setdefault(name, data[place + 8 : place + 8 + length])
        lengths.setdefault(name, length)
        place += 8 + length + length % 2
    form = chunks.get(b"fmt ", b"")
    channels = max(1, int.from_bytes(form[2:4], "big"))
    width = int.from_bytes(form[12:14], "big") // channels
    samples = chunks.get(b"data", b"")
    parts = [(b"fmt ", _fields_turned(form, _WAV_FORMAT), len(form))]
    parts.append((b"data", _turned(samples, width), lengths.get(b"data", 0)))
    body = b"".join(
        name + length.to_bytes(4, "little") + content + b"\0" * (length % 2)
        for name, content, length in parts
    )
    return io.BytesIO(b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WAVE" + body)


def _fields_turned(data: bytes, widths: tuple[int, ...]) -> bytes:
    """Fields of these widths one after another, each turned around; what follows stays."""
    turned, place = b"", 0
    for width in widths:
        turned += data[place : place + width][::-1]
        place += width
    return turned + data[place:]


def _turned(samples: bytes, width: int) -> bytes:
    """Samples of `width` bytes, each turned around; an incomplete one at the end is dropped."""
    if width < 2:
        return samples
    whole = np.frombuffer(samples, np.uint8, len(samples) // width * width)
    return whole.reshape(-1, width)[:, ::-1].tobytes()


def states_mp3_length(file: str | BufferedIOBase) -> bool:
    """Whether an MP3 states its number of frames (Xing, Info or VBRI in its first frame)."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return states_mp3_length(opened)
    head = _read(file, 0, 10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:  # the tag's size: four bytes of seven bits each
        sizes = zip(head[6:], (21, 14, 7, 0), strict=True)
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)
    first_frame = _read(file, start, 2048)
    file.seek(0)
    return any(tag in first_frame for tag in (b"Xing", b"Info", b"VBRI"))


# Each of these gives the position at which the part that holds sound says to end; 0 for "unsaid".


def _end_of_riff(file: BufferedIOBase) -> int:
    """WAV: its `data` chunk. Chunks are padded to even lengths."""
    position = 12
    for _ in range(_MAX_PARTS):
        header = _read(file, position, 8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return position + 8 + length if length < _OPEN_32_BIT else 0
        if len(header) < 8:
            break
        position += 8 + length + length % 2
    return 0


def _end_of_caf(file: BufferedIOBase) -> int:
    """Core Audio: its `data` chunk. A length is of 64 bits, −1 for "until the end"."""
    position = 8
    for _ in range(_MAX_PARTS):
        header = _read(file, position, 12)
        if len(header) < 12:
            break
        position += 12 + int.from_bytes(header[4:], "big")
        if header[:4] == b"data":
            return position
    return 0


def _end_of_ogg(file: BufferedIOBase) -> int:
    """The last page (RFC 3533, section 6); one byte beyond the file if no page ends the stream.

    A page's header is 27 bytes, the last of which counts the segment lengths that follow.
    """
    size = _size(file)
    start = max(0, size - (1 << 17))  # a page has at most 65,307 bytes
    tail = _read(file, start, 1 << 17)
    found = max(0, tail.rfind(b"OggS"))
    page = tail[found:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return size + 1
    end = start + found + 27 + page[26] + sum(page[27 : 27 + page[26]])
    ends_stream = page[5] & 0x04
    return end if end > size or ends_stream else size + 1


def _end_of_ebml(file: BufferedIOBase) -> int:
    """WebM and Matroska (RFC 8794): a header, and after it a segment that holds all the rest."""
    return _end_of_element(file, _end_of_element(file, 0))


def _end_of_element(file: BufferedIOBase, position: int) -> int:
    """An element's identity and its length are as many bytes as the first bit set in them says; a
    length of ones alone means "until the end"."""
    header = _read(file, position, 12)
    identity = 9 - header[0].bit_length() if header else 0
    if not 1 <= identity <= 4 or len(header) < 12 or not header[identity]:
        return 0
    width = 9 - header[identity].bit_length()
    ones = (1 << 7 * width) - 1
    length = int.from_bytes(header[identity : identity + width], "big") & ones
    return 0 if length == ones else position + identity + width + length


def _end_of_boxes(file: BufferedIOBase) -> int:
    """MP4 and M4A (ISO 14496-12): the last box of those that are needed to decode.

    A length of 32 bits stands before a box's name; 1 there: 64 bits after it; 0: "until the end".
    """
    position = end = 0
    for _ in range(_MAX_PARTS):
        header = _read(file, position, 16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if len(header) < 8 or length < 8:
            break
        position += length
        if header[4:8] in (b"moov", b"mdat", b"moof"):
            end = position
    return end


def _size(file: BufferedIOBase) -> int:
    return file.seek(0, os.SEEK_END)


def _read(file: BufferedIOBase, start: int, length: int) -> bytes:
    file.seek(min(start, _OPEN_64_BIT - 1))
    return file.read(length)

"""Truncated container files (WAV, W64, CAF, Ogg, WebM, MP4), and WAV files in big-endian (RIFX).

Where a file is truncated, FFmpeg silently decodes a shorter recording. Containers are sequences of
sections (chunks, boxes, pages) that state their lengths; the last section must end inside the file.
Writers that can't seek back leave a length open, which is no evidence of truncation.
"""

from __future__ import annotations

import io
import os
from io import BufferedIOBase
from pathlib import Path

import numpy as np

__all__ = ["as_little_endian_wav", "bytes_missing", "is_big_endian_wav", "states_mp3_length"]

# Lengths from here on mean "until the end": writers that can't seek back leave them in headers.
_OPEN_32_BIT = 0x7FFF_F000
_OPEN_64_BIT = 1 << 63

_MAX_SECTIONS = 100_000
"""Sections read before giving up, so that a file of empty ones takes bounded time."""

_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
# Bytes of each field in a WAV format chunk: format, channels, rate, bytes per second, bytes per
# frame, bits; in WAVE_FORMAT_EXTENSIBLE also the extension's size, valid bits, channel mask, and
# the first three fields of the subformat's GUID.
_WAV_FORMAT_WIDTHS = (2, 2, 4, 4, 2, 2, 2, 2, 4, 4, 2, 2)
_EBML = bytes.fromhex("1a45dfa3")


def bytes_missing(file: str | BufferedIOBase) -> int:
    """At least so many bytes are missing at the file's end; 0 if complete or of unstated length."""
    if isinstance(file, str):
        if not Path(file).is_file():
            return 0  # the end of a pipe or a device can't be read
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
    """Whether it is a WAV file in big-endian byte order (RIFX)."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return is_big_endian_wav(opened)
    head = _read(file, 0, 12)
    file.seek(0)
    return head[:4] == b"RIFX" and head[8:] == b"WAVE"


def as_little_endian_wav(file: str | BufferedIOBase) -> io.BytesIO:
    """A RIFX file as the equivalent RIFF file, as FFmpeg reads RIFX samples as little-endian.

    Only the format and data chunks are copied. Stated lengths stay as they are, so that
    `bytes_missing` still finds a truncated file.
    """
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return as_little_endian_wav(opened)
    file.seek(0)
    data = file.read()
    chunks: dict[bytes, bytes] = {}
    lengths: dict[bytes, int] = {}
    offset = 12
    while offset + 8 <= len(data) and len(chunks) < _MAX_SECTIONS:
        name = data[offset : offset + 4]
        length = int.from_bytes(data[offset + 4 : offset + 8], "big")
        chunks.setdefault(name, data[offset + 8 : offset + 8 + length])
        lengths.setdefault(name, length)
        offset += 8 + length + length % 2
    wav_format = chunks.get(b"fmt ", b"")
    channels = max(1, int.from_bytes(wav_format[2:4], "big"))
    sample_bytes = int.from_bytes(wav_format[12:14], "big") // channels
    samples = _swap_samples(chunks.get(b"data", b""), sample_bytes)
    little_endian = [
        (b"fmt ", _swap_fields(wav_format, _WAV_FORMAT_WIDTHS), len(wav_format)),
        (b"data", samples, lengths.get(b"data", 0)),
    ]
    body = b"".join(
        name + length.to_bytes(4, "little") + content + b"\0" * (length % 2)
        for name, content, length in little_endian
    )
    return io.BytesIO(b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WAVE" + body)


def _swap_fields(data: bytes, widths: tuple[int, ...]) -> bytes:
    """Swaps the byte order of consecutive fields of these widths; the rest stays as it is."""
    swapped, offset = b"", 0
    for width in widths:
        swapped += data[offset : offset + width][::-1]
        offset += width
    return swapped + data[offset:]


def _swap_samples(samples: bytes, sample_bytes: int) -> bytes:
    """Swaps the byte order of every sample; an incomplete one at the end is dropped."""
    if sample_bytes < 2:
        return samples
    complete = np.frombuffer(samples, np.uint8, len(samples) // sample_bytes * sample_bytes)
    return complete.reshape(-1, sample_bytes)[:, ::-1].tobytes()


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


# Each of these returns the offset at which the section that holds audio ends, as the file states
# it; 0 where it states none.


def _end_of_riff(file: BufferedIOBase) -> int:
    """End of a WAV file's `data` chunk. Chunks are padded to even lengths."""
    position = 12
    for _ in range(_MAX_SECTIONS):
        header = _read(file, position, 8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"data":
            return position + 8 + length if length < _OPEN_32_BIT else 0
        if len(header) < 8:
            break
        position += 8 + length + length % 2
    return 0


def _end_of_caf(file: BufferedIOBase) -> int:
    """End of a Core Audio file's `data` chunk. Lengths have 64 bits; −1 means "until the end"."""
    position = 8
    for _ in range(_MAX_SECTIONS):
        header = _read(file, position, 12)
        if len(header) < 12:  # cut off before the samples begin
            return position + 12
        position += 12 + int.from_bytes(header[4:], "big")
        if header[:4] == b"data":
            return position
    return 0


def _end_of_ogg(file: BufferedIOBase) -> int:
    """End of the last Ogg page (RFC 3533, section 6); file size + 1 if no page ends the stream.

    A page's header has 27 bytes; the last is the number of segment lengths that follow.
    """
    size = _size(file)
    start = max(0, size - (1 << 17))  # a page has at most 65,307 bytes
    tail = _read(file, start, 1 << 17)
    page_start = max(0, tail.rfind(b"OggS"))
    page = tail[page_start:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return size + 1
    end = start + page_start + 27 + page[26] + sum(page[27 : 27 + page[26]])
    ends_stream = page[5] & 0x04
    return end if end > size or ends_stream else size + 1


def _end_of_ebml(file: BufferedIOBase) -> int:
    """End of a WebM or Matroska file (RFC 8794): a header element, then one segment element."""
    return _end_of_element(file, _end_of_element(file, 0))


def _end_of_element(file: BufferedIOBase, position: int) -> int:
    """End of the EBML element at `position`; 0 if its length is open (all ones) or it is not valid.

    The number of leading zero bits of an ID or a length tells how many bytes it has.
    """
    header = _read(file, position, 12)
    id_bytes = 9 - header[0].bit_length() if header else 0
    if not 1 <= id_bytes <= 4 or len(header) < 12 or not header[id_bytes]:
        return 0
    length_bytes = 9 - header[id_bytes].bit_length()
    open_length = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(header[id_bytes : id_bytes + length_bytes], "big") & open_length
    return 0 if length == open_length else position + id_bytes + length_bytes + length


def _end_of_boxes(file: BufferedIOBase) -> int:
    """End of the last box that decoding an MP4 or M4A file needs (ISO 14496-12).

    A box begins with a length of 32 bits and its name; length 1: one of 64 bits follows the name;
    length 0: "until the end".
    """
    position = end = 0
    for _ in range(_MAX_SECTIONS):
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

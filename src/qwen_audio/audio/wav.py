"""WAV files (RIFF, RIFX, RF64, BW64, W64) whose headers FFmpeg misreads, as plain WAV files.

FFmpeg takes big-endian samples (RIFX) for little-endian ones, chooses the sample format by the
number of valid bits instead of the bytes that a sample takes, and decodes only the first of several
`data` chunks. Such files are read through a header that says the same in a way that FFmpeg
understands; samples are not copied, except those of RIFX files, whose bytes are swapped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Literal, NamedTuple

import numpy as np

from .media_file import FileRange, JoinedFile, read_at, size_of

__all__ = ["WavChunk", "as_plain_wav", "iff_chunks", "wav_chunks"]

MAX_CHUNKS = 100_000
"""Chunks read before giving up, so that a file of empty ones takes bounded time."""
OPEN_32_BIT = 0x7FFF_F000
"""Lengths from here on mean "until the end": writers that can't seek back leave them in headers."""
_OPEN_64_BIT = 1 << 63

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Bytes 2 to 15 of the GUID of a format tag (KSDATAFORMAT_SUBTYPE_…); bytes 0 and 1 are the tag."""
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_GUID_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")
"""Bytes 4 to 15 of the GUIDs of a W64 file's chunks; bytes 0 to 3 are the name in ASCII."""
# Bytes of each field in a WAV format chunk: format, channels, rate, bytes per second, bytes per
# frame, bits; in WAVE_FORMAT_EXTENSIBLE also the extension's size, valid bits, channel mask, and
# the first three fields of the subformat's GUID.
_FORMAT_WIDTHS = (2, 2, 4, 4, 2, 2, 2, 2, 4, 4, 2, 2)


class WavChunk(NamedTuple):
    """Name, and the range of its content as the header states it; `stop` is None if left open."""

    name: bytes
    start: int
    stop: int | None


def wav_chunks(file: BufferedIOBase) -> Iterator[WavChunk]:
    """Chunks of a WAV file of any kind, in their order; nothing for other files."""
    magic = read_at(file, 0, 16)
    if magic == _W64_RIFF:
        yield from _w64_chunks(file)
    elif magic[8:12] == b"WAVE" and magic[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        yield from iff_chunks(file, "big" if magic[:4] == b"RIFX" else "little")


def iff_chunks(file: BufferedIOBase, byte_order: Literal["little", "big"]) -> Iterator[WavChunk]:
    """Chunks of RIFF and AIFF: padded to even lengths; in RF64, `ds64` states long ones."""
    data_bytes: int | None = None  # as stated by ds64, in EBU Tech 3306
    position = 12
    for _ in range(MAX_CHUNKS):
        header = read_at(file, position, 8)
        if len(header) < 8:
            return
        name, length = header[:4], int.from_bytes(header[4:], byte_order)
        start = position + 8
        if name == b"ds64":
            data_bytes = int.from_bytes(read_at(file, start + 8, 8), "little")
        if name in (b"data", b"SSND") and length >= OPEN_32_BIT:
            is_stated = data_bytes is not None and data_bytes < _OPEN_64_BIT
            if not is_stated:
                yield WavChunk(name, start, None)
                return
            length = data_bytes or 0
        yield WavChunk(name, start, start + length)
        position = start + length + length % 2


def _w64_chunks(file: BufferedIOBase) -> Iterator[WavChunk]:
    """Chunks of Sony Wave64: named by GUIDs, lengths of 64 bits with the header, padded to 8."""
    position = 40
    for _ in range(MAX_CHUNKS):
        header = read_at(file, position, 24)
        length = int.from_bytes(header[16:], "little")
        if len(header) < 24 or length < 24:
            return
        name = header[:4] if header[4:16] == _W64_GUID_TAIL else header[:16]
        if length >= _OPEN_64_BIT:
            yield WavChunk(name, position + 24, None)
            return
        yield WavChunk(name, position + 24, position + length)
        position += length + -length % 8


def as_plain_wav(file: BufferedIOBase) -> BufferedIOBase | None:
    """A WAV file that FFmpeg reads rightly, if it misreads this one; otherwise None.

    What a header states beyond the file's end stays stated, so that truncation is still found.
    """
    magic = read_at(file, 0, 4)
    chunks = list(wav_chunks(file))
    wav_format = next((chunk for chunk in chunks if chunk.name == b"fmt "), None)
    data = [chunk for chunk in chunks if chunk.name == b"data"]
    if wav_format is None or not data:
        return None
    content = read_at(
        file, wav_format.start, (wav_format.stop or wav_format.start) - wav_format.start
    )
    if magic == b"RIFX":
        return _swapped(file, content, data)
    plain_format = _with_container_bits(content)
    if plain_format is None and len(data) == 1:
        return None
    size = size_of(file)
    parts = [FileRange(file, start, min(stop or size, size)) for _, start, stop in data]
    header = _header(plain_format or content, _stated_bytes(data))
    return io.BufferedReader(JoinedFile([header, *parts]))


def _stated_bytes(data: list[WavChunk]) -> int | None:
    """Length of all `data` chunks together; None if one is left open."""
    lengths = [None if stop is None else stop - start for _, start, stop in data]
    return None if None in lengths else sum(filter(None, lengths))


def _with_container_bits(wav_format: bytes) -> bytes | None:
    """PCM format chunk with the bits that a sample takes in place of its valid bits.

    None if they are equal, or it isn't PCM. Valid bits are the upper ones of a sample, so that the
    values are the same (Microsoft, WAVEFORMATEXTENSIBLE).
    """
    tag, channels = (int.from_bytes(wav_format[k : k + 2], "little") for k in (0, 2))
    frame_bytes, bits = (int.from_bytes(wav_format[k : k + 2], "little") for k in (12, 14))
    if tag == _EXTENSIBLE:
        if len(wav_format) < 40 or wav_format[26:40] != _GUID_TAIL:
            return None
        valid_bits = int.from_bytes(wav_format[18:20], "little")
        tag = int.from_bytes(wav_format[24:26], "little")
    else:
        valid_bits = bits
    if tag not in (_PCM, _FLOAT) or not channels or frame_bytes % channels:
        return None
    container_bits = 8 * frame_bytes // channels
    if container_bits not in (8, 16, 24, 32, 64) or not 0 < valid_bits <= container_bits:
        return None
    if bits == valid_bits == container_bits:
        return None
    return tag.to_bytes(2, "little") + wav_format[2:14] + container_bits.to_bytes(2, "little")


def _header(wav_format: bytes, data_bytes: int | None) -> bytes:
    """Header of a WAV file up to its samples; RF64 (EBU Tech 3306) from 2 GiB on.

    Args:
        data_bytes: None if the length is left open.
    """
    format_chunk = b"fmt " + len(wav_format).to_bytes(4, "little") + wav_format
    format_chunk += bytes(len(wav_format) % 2)
    unknown = 0xFFFF_FFFF.to_bytes(4, "little")
    if data_bytes is None:
        return b"RIFF" + unknown + b"WAVE" + format_chunk + b"data" + unknown
    if data_bytes < OPEN_32_BIT:
        length = data_bytes.to_bytes(4, "little")
        riff_bytes = (4 + len(format_chunk) + 8 + data_bytes).to_bytes(4, "little")
        return b"RIFF" + riff_bytes + b"WAVE" + format_chunk + b"data" + length
    riff_bytes = (4 + 36 + len(format_chunk) + 8 + data_bytes).to_bytes(8, "little")
    sizes = riff_bytes + data_bytes.to_bytes(8, "little") + bytes(12)
    ds64 = b"ds64" + len(sizes).to_bytes(4, "little") + sizes
    return b"RF64" + unknown + b"WAVE" + ds64 + format_chunk + b"data" + unknown


def _swapped(file: BufferedIOBase, wav_format: bytes, data: list[WavChunk]) -> BufferedIOBase:
    """A RIFX file as RIFF, in memory."""
    channels = max(1, int.from_bytes(wav_format[2:4], "big"))
    sample_bytes = int.from_bytes(wav_format[12:14], "big") // channels
    little_endian = _swap_fields(wav_format, _FORMAT_WIDTHS)
    little_endian = _with_container_bits(little_endian) or little_endian
    samples = b"".join(
        _swap_samples(read_at(file, start, (stop or size_of(file)) - start), sample_bytes)
        for _, start, stop in data
    )
    return io.BytesIO(_header(little_endian, _stated_bytes(data)) + samples)


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

"""MP4 and MOV files written box by box, with sample tables and references as a test needs them."""

from __future__ import annotations

import struct

RATE_HZ = 8000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x4000_0000)


def box(name: bytes, *parts: bytes) -> bytes:
    """A box: length, name, content."""
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + name + content


def full(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """A box with a version and flags."""
    return box(name, struct.pack(">I", flags), *parts)


def table(name: bytes, *numbers: int) -> bytes:
    """A box with a version, flags and numbers of 32 bits."""
    return full(name, struct.pack(f">{len(numbers)}I", *numbers))


def mp4(
    *,
    pcm_bytes: int = 0,
    sizes: bytes | None = None,
    chunks: bytes | None = None,
    edits: int = 0,
    reference: bytes | None = None,
    times: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """A file with one track of silence: 16 bit, 8 kHz, mono.

    Args:
        sizes, chunks, times: its `stsz`, `stsc` and `stts`.
        edits: number of edits of the whole track.
        reference: the entry of `dref`.
        more: boxes before the media.
    """
    samples = pcm_bytes // 2
    media = bytes(pcm_bytes)
    head = box(b"ftyp", b"qt  ", bytes(4), b"qt  ") + box(b"free") + box(b"mdat", media)
    entry = box(b"sowt", bytes(6), struct.pack(">H8xHHHHI", 1, 1, 16, 0, 0, RATE_HZ << 16))
    sample_table = box(
        b"stbl",
        full(b"stsd", struct.pack(">I", 1), entry),
        times or table(b"stts", 1, samples, 1),
        chunks or table(b"stsc", 1, 1, samples, 1),
        sizes or table(b"stsz", 2, samples),
        table(b"stco", 1, len(head) - pcm_bytes),
    )
    references = full(b"dref", struct.pack(">I", 1), reference or full(b"url ", flags=1))
    information = box(b"minf", full(b"smhd", bytes(4)), box(b"dinf", references), sample_table)
    track_header = full(b"tkhd", struct.pack(">3I", 0, 0, 1), bytes(24), _MATRIX, bytes(8), flags=7)
    edit = struct.pack(">IiI", 1000 * samples // RATE_HZ, 0, 0x10000)
    track = box(
        b"trak",
        track_header,
        box(b"edts", full(b"elst", struct.pack(">I", edits), edit * edits)) if edits else b"",
        box(
            b"mdia",
            full(b"mdhd", struct.pack(">4I", 0, 0, RATE_HZ, samples), bytes(4)),
            full(b"hdlr", bytes(4), b"soun", bytes(13)),
            information,
        ),
    )
    header = full(
        b"mvhd", struct.pack(">4I", 0, 0, 1000, 1000), bytes(16), _MATRIX, bytes(24), b"\0\0\0\2"
    )
    return head + box(b"moov", header, track) + more

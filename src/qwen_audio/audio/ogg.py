"""Pages of Ogg files (RFC 3533): which are damaged, so that FFmpeg leaves them out, and the end."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

from .decode_limits import ProcessorBudget
from .media_file import read_at
from .tags import comment_count

__all__ = ["OggSummary", "summarize_ogg"]

_HEADER_BYTES = 27
_LONGEST_PAGE_BYTES = 27 + 255 + 255 * 255
_NO_GRANULE = (1 << 64) - 1
_COMMENTS = (b"OpusTags", b"\x03vorbis")
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class OggPage(NamedTuple):
    """A page's header and its content, and whether its checksum is right.

    Attributes:
        serial: of the logical stream that the page belongs to.
        granule: position at the page's end, in the codec's unit; None if no packet ends in it.
    """

    serial: int
    granule: int | None
    content: bytes
    intact: bool


class OggSummary(NamedTuple):
    """What the pages of an Ogg file state.

    Attributes:
        damaged_pages: number of pages whose checksum is wrong.
        end_seconds: last position of the audio, without Opus' pre-skip; of chained streams the sum.
            None if it is no Ogg file, or has several audio tracks side by side.
        tags: number of comments, of all streams together.
    """

    damaged_pages: int = 0
    end_seconds: float | None = None
    tags: int = 0


def summarize_ogg(file: BufferedIOBase, budget: ProcessorBudget) -> OggSummary:
    """Read all pages of a file; nothing if it is no Ogg file.

    Args:
        budget: checked at every page.
    """
    if read_at(file, 0, 4) != b"OggS":
        return OggSummary()
    damaged_pages = tags = 0
    rates_and_skips: dict[int, tuple[int, int]] = {}
    ends: dict[int, int] = {}
    for page in _pages(file):
        budget.check()
        damaged_pages += not page.intact
        tags += sum(_comments(page.content))
        if rate_and_skip := _rate_and_pre_skip(page.content):
            if rates_and_skips.keys() - ends.keys():  # another has begun and has no audio yet
                return OggSummary(damaged_pages, None, tags)
            rates_and_skips[page.serial] = rate_and_skip
        elif page.serial in rates_and_skips and page.granule:
            ends[page.serial] = page.granule
    if not ends:
        return OggSummary(damaged_pages, None, tags)
    seconds = 0.0
    for serial, granule in ends.items():
        rate_hz, pre_skip = rates_and_skips[serial]
        seconds += max(0, granule - pre_skip) / rate_hz
    return OggSummary(damaged_pages, seconds, tags)


def _comments(content: bytes) -> Iterator[int]:
    """How many comments each Vorbis comment states that begins in a page."""
    for magic in _COMMENTS:
        start = content.find(magic)
        while start >= 0:
            yield comment_count(content, start + len(magic))
            start = content.find(magic, start + 1)
    is_flac_block = content[:1] in (b"\x04", b"\x84")
    if is_flac_block and int.from_bytes(content[1:4], "big") + 4 == len(content):
        yield comment_count(content, 4)


def _rate_and_pre_skip(head: bytes) -> tuple[int, int] | None:
    """Positions per second, and how many to skip, of a stream's first packet; None for others."""
    rate_hz = pre_skip = 0
    if head.startswith(b"OpusHead"):
        rate_hz, pre_skip = 48_000, int.from_bytes(head[10:12], "little")
    elif head.startswith(b"\x01vorbis"):
        rate_hz = int.from_bytes(head[12:16], "little")
    elif head.startswith(b"Speex   "):
        rate_hz = int.from_bytes(head[36:40], "little")
    elif head.startswith(b"\x7fFLAC"):  # STREAMINFO from byte 17 on
        rate_hz = int.from_bytes(head[27:30], "big") >> 4
    return (rate_hz, pre_skip) if rate_hz else None


def _pages(file: BufferedIOBase) -> Iterator[OggPage]:
    """Pages of a file, in order; bytes between pages are passed."""
    position, buffer = 0, b""
    while True:
        if len(buffer) < _LONGEST_PAGE_BYTES:
            buffer += read_at(file, position + len(buffer), 16 * _LONGEST_PAGE_BYTES)
        start = buffer.find(b"OggS")
        if start < 0 or start + _HEADER_BYTES > len(buffer):
            if len(buffer) < _LONGEST_PAGE_BYTES:
                return
            start = len(buffer) - 3  # the name may begin there
        if start:
            position, buffer = position + start, buffer[start:]
            continue
        segments = buffer[26]
        length = _HEADER_BYTES + segments + sum(buffer[27 : 27 + segments])
        page = buffer[:length]
        granule = int.from_bytes(page[6:14], "little")
        intact = len(page) == length and _checksum(page) == int.from_bytes(page[22:26], "little")
        yield OggPage(
            int.from_bytes(page[14:18], "little"),
            None if granule == _NO_GRANULE else granule,
            page[_HEADER_BYTES + segments :],
            intact,
        )
        # After a damaged length the next page is searched, as FFmpeg does.
        step = length if intact or buffer[length : length + 4] == b"OggS" else 4
        position, buffer = position + step, buffer[step:]


def _checksum(page: bytes) -> int:
    """CRC-32 of a page with zeros in place of its checksum, most significant bit first.

    zlib's has the least significant bit first, and inverts the first and last value.
    """
    zeroed = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(zeroed.translate(_REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int(f"{crc:032b}"[::-1], 2)

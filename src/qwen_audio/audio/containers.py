"""Truncated container files: WAV, W64, CAF, AIFF, AVI, Ogg, WebM and MP4.

Where a file is truncated, FFmpeg silently decodes a shorter recording. Containers are sequences of
sections (chunks, boxes, pages) that state their lengths; the last section must end inside the file.
Writers that can't seek back leave a length open, which is no evidence of truncation.
"""

from __future__ import annotations

from io import BufferedIOBase

from qwen_audio.errors import AudioError, counted

from .damage import tag_bytes
from .decode_limits import DecodeLimits, ProcessorBudget
from .load_options import OnDamage
from .media_file import read_at, size_of
from .mp4 import check_mp4
from .ogg import OggSummary, summarize_ogg
from .tags import MAX_TAGS, check_tags, too_many_tags
from .wav import MAX_CHUNKS, OPEN_32_BIT, iff_chunks, wav_chunks

__all__ = ["bytes_missing", "check_container", "mp3_seconds"]

_OPEN_64_BIT = 1 << 63
_WAV_SLACK_BYTES = 80
"""Longest WAV header without further chunks: some writers count it, or a part, into the data."""
_EBML = bytes.fromhex("1a45dfa3")


def check_container(
    file: BufferedIOBase,
    name: str,
    limits: DecodeLimits,
    budget: ProcessorBudget,
    on_damage: OnDamage,
) -> tuple[int, OggSummary]:
    """Check a file before FFmpeg opens it.

    Returns:
        How many bytes are missing at its end, and what its Ogg pages state.

    Raises:
        AudioError: if it is truncated or damaged, unless `on_damage` is "partial"; if it states
            more than the limits allow, or names other files.
    """
    check_mp4(file, name, limits.max_packets)
    check_tags(file, name)
    missing = bytes_missing(file)
    if missing and on_damage == "raise":
        raise AudioError(
            f"{name} is truncated: it lacks at least {counted(missing, 'byte')} at its end: use a "
            "complete copy of the file, or on_damage='partial' for what there is"
        )
    ogg = summarize_ogg(file, budget)
    if ogg.tags > MAX_TAGS:
        raise too_many_tags(name)
    if on_damage == "raise" and ogg.damaged_pages:
        raise AudioError(
            f"{name} is damaged: the checksums of {ogg.damaged_pages} of its Ogg pages are wrong: "
            "use an intact copy of the file, or on_damage='partial' for the rest"
        )
    return missing, ogg


def bytes_missing(file: BufferedIOBase) -> int:
    """At least so many bytes are missing at the file's end; 0 if complete or of unstated length."""
    head = read_at(file, 0, 16)
    end, slack = 0, 0
    if data := [chunk for chunk in wav_chunks(file) if chunk.name == b"data"]:
        end, slack = data[-1].stop or 0, _WAV_SLACK_BYTES
    elif head[:4] == b"caff":
        end = _end_of_caf(file)
    elif head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        end = _end_of_aiff(file)
    elif head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        end = _end_of_avi(file)
    elif head[:4] == b"OggS":
        end = _end_of_ogg(file)
    elif head[:4] == _EBML:
        end = _end_of_ebml(file)
    elif head[4:8] == b"ftyp":
        end = _end_of_boxes(file)
    missing = 0 if end >= _OPEN_64_BIT else end - size_of(file)
    file.seek(0)
    return missing if missing > slack else 0


def mp3_seconds(file: BufferedIOBase) -> float | None:
    """The duration that an MP3 states in its first frame (Xing, Info or VBRI); None if it doesn't.

    Without the encoder's delay and padding, where LAME's extension of the header states them.
    """
    frame = read_at(file, tag_bytes(read_at(file, 0, 16)), 4096)
    sync = frame.find(b"\xff")  # tags may be padded
    header = frame[sync : sync + 4]
    if sync < 0 or len(header) < 4 or header[1] < 0xE0:
        return None
    version, rate_index = header[1] >> 3 & 3, header[2] >> 2 & 3
    if rate_index == 3 or version == 1:  # reserved
        return None
    rate_hz = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    frame_samples = 1152 if version == 3 else 576
    vbri = frame.find(b"VBRI")
    if vbri >= 0:
        return int.from_bytes(frame[vbri + 14 : vbri + 18], "big") * frame_samples / rate_hz
    xing = max(frame.find(b"Xing"), frame.find(b"Info"))
    if xing < 0 or len(frame) < xing + 200 or not frame[xing + 7] & 1:
        return None
    samples = int.from_bytes(frame[xing + 8 : xing + 12], "big") * frame_samples
    fields = frame[xing + 7]
    lame = xing + 8 + 4 * (fields & 1) + 4 * (fields >> 1 & 1) + 100 * (fields >> 2 & 1)
    lame += 4 * (fields >> 3 & 1)
    if frame[lame : lame + 4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO"):
        delay_and_padding = int.from_bytes(frame[lame + 21 : lame + 24], "big")
        samples -= (delay_and_padding >> 12) + (delay_and_padding & 0xFFF)
    return max(0, samples) / rate_hz


# Each of these returns the offset at which the section that holds audio ends, as the file states
# it; 0 where it states none.


def _end_of_aiff(file: BufferedIOBase) -> int:
    """End of an AIFF file's `SSND` chunk."""
    chunks = iff_chunks(file, "big")
    return next((chunk.stop or 0 for chunk in chunks if chunk.name == b"SSND"), 0)


def _end_of_avi(file: BufferedIOBase) -> int:
    """End of an AVI file's last `movi` list; a file over 1 GiB has several RIFF sections."""
    position = end = 0
    for _ in range(MAX_CHUNKS):
        header = read_at(file, position, 12)
        length = int.from_bytes(header[4:8], "little")
        if len(header) < 12 or header[:4] not in (b"RIFF", b"LIST", b"JUNK", b"idx1"):
            break
        if header[:4] == b"RIFF":  # its lists are read next
            position += 12
            continue
        if length >= OPEN_32_BIT or not length:
            return 0
        position += 8 + length + length % 2
        if header[8:12] == b"movi":
            end = position
    return end


def _end_of_caf(file: BufferedIOBase) -> int:
    """End of a Core Audio file's `data` chunk. Lengths have 64 bits; −1 means "until the end"."""
    position = 8
    for _ in range(MAX_CHUNKS):
        header = read_at(file, position, 12)
        if len(header) < 12:  # cut off before the samples begin
            return position + 12
        position += 12 + int.from_bytes(header[4:], "big")
        if header[:4] == b"data":
            return position
    return 0


def _end_of_ogg(file: BufferedIOBase) -> int:
    """End of the last Ogg page (RFC 3533, section 6). That none ends the stream is no damage: voice
    messages and captures of live streams lack the mark.

    A page's header has 27 bytes; the last is the number of segment lengths that follow.
    """
    size = size_of(file)
    start = max(0, size - (1 << 17))  # a page has at most 65,307 bytes
    tail = read_at(file, start, 1 << 17)
    page_start = max(0, tail.rfind(b"OggS"))
    page = tail[page_start:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return size + 1
    return start + page_start + 27 + page[26] + sum(page[27 : 27 + page[26]])


def _end_of_ebml(file: BufferedIOBase) -> int:
    """End of a WebM or Matroska file (RFC 8794): a header element, then one segment element."""
    return _end_of_element(file, _end_of_element(file, 0))


def _end_of_element(file: BufferedIOBase, position: int) -> int:
    """End of the EBML element at `position`; 0 if its length is open (all ones) or it is not valid.

    The number of leading zero bits of an ID or a length tells how many bytes it has.
    """
    header = read_at(file, position, 12)
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
    for _ in range(MAX_CHUNKS):
        header = read_at(file, position, 16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:], "big")
        if len(header) < 8 or length < 8:
            break
        position += length
        if header[4:8] in (b"moov", b"mdat", b"moof"):
            end = position
    return end

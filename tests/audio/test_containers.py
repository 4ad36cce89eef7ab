"""Lengths stated by file headers. Their effect on decoding is tested in test_decode.py."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_audio.audio.containers import bytes_missing, mp3_seconds
from qwen_audio.audio.wav import as_plain_wav
from recordings import encode, encode_video, sound, write_wav

SOUND = sound(0.3, 48_000, 2)
FILES = {
    "wav": write_wav(SOUND, 48_000),
    "w64": write_wav(SOUND, 48_000, container="W64"),
    "caf": write_wav(SOUND, 48_000, container="CAF"),
    "ogg": encode(SOUND, 48_000, "ogg"),
    "opus": encode(SOUND, 48_000, "opus"),
    "webm": encode(SOUND, 48_000, "webm"),
    "mkv": encode(SOUND, 48_000, "mkv"),
    "m4a": encode(SOUND, 48_000, "m4a"),
    "film.mp4": encode_video(SOUND, seconds=0.3),
    "film.webm": encode_video(SOUND, container="webm", seconds=0.3),
}
WITHOUT_STATED_END = {
    "flac": write_wav(SOUND, 48_000, container="FLAC"),
    "mp3": encode(SOUND, 48_000, "mp3"),
    "aiff": write_wav(SOUND, 48_000, container="AIFF"),
    "text": b"no container at all",
    "empty": b"",
}


@pytest.mark.parametrize("name", [*FILES, *WITHOUT_STATED_END])
def test_complete_files_miss_no_bytes(name: str, tmp_path: Path) -> None:
    data = (FILES | WITHOUT_STATED_END)[name]
    file = tmp_path / name
    file.write_bytes(data)
    with file.open("rb") as opened_file:
        assert bytes_missing(opened_file) == 0
    opened = io.BytesIO(data)
    assert bytes_missing(opened) == 0
    assert opened.tell() == 0


@given(st.sampled_from(list(FILES)), st.integers(1, 1_000_000))
@example("caf", 57_604)  # ends inside the header of the data chunk
def test_missing_bytes_are_found(name: str, cut: int) -> None:
    """From the first byte on; in WAV and W64, more than a header that was counted into the data."""
    data = FILES[name]
    slack = 80 if name in ("wav", "w64") else 0
    cut = slack + 1 + cut % (len(data) - 300)
    if name in ("ogg", "opus") and data[-cut:].startswith(b"OggS"):
        return  # a stream without its last pages is no evidence of damage
    assert 1 <= bytes_missing(io.BytesIO(data[:-cut])) <= cut


@pytest.mark.parametrize("name", ["wav", "w64", "caf", "webm", "mkv"])
def test_bytes_missing_is_exact(name: str) -> None:
    data = FILES[name]
    assert bytes_missing(io.BytesIO(data[:-777])) == 777


@pytest.mark.parametrize("note", [b"", b"a", b"ab", b"abc"])
def test_chunks_are_padded_to_even_lengths(note: bytes) -> None:
    """An editor's note between the header and the samples."""
    data = FILES["wav"]
    at = data.index(b"data")
    chunk = b"LIST" + len(note).to_bytes(4, "little") + note + bytes(len(note) % 2)
    noted = data[:at] + chunk + data[at:]
    assert bytes_missing(io.BytesIO(noted)) == 0
    assert bytes_missing(io.BytesIO(noted[:-107])) == 107


@pytest.mark.parametrize("name", ["wav", "w64", "caf", "webm", "mkv", "m4a", "film.mp4"])
def test_trailing_data_is_ignored(name: str) -> None:
    assert bytes_missing(io.BytesIO(FILES[name] + b"TAG" + b"Some title".ljust(125))) == 0


def test_ogg_without_an_end_of_stream_page() -> None:
    """As voice messages and captures of live streams are."""
    data = bytearray(FILES["ogg"])
    last = data.rfind(b"OggS")
    assert data[last + 5] & 4
    data[last + 5] &= ~4
    assert bytes_missing(io.BytesIO(data)) == 0
    assert bytes_missing(io.BytesIO(FILES["ogg"][:last])) == 0
    assert bytes_missing(io.BytesIO(FILES["ogg"][:-1])) == 1


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000])
def test_wav_of_unknown_length(size: int) -> None:
    """Written to a pipe by FFmpeg, arecord and SoX, in this order."""
    data = bytearray(FILES["wav"])
    data[40:44] = size.to_bytes(4, "little")
    assert bytes_missing(io.BytesIO(data)) == 0


def test_w64_of_unknown_length() -> None:
    data = bytearray(FILES["w64"])
    at = data.index(b"data")
    data[16:24] = data[at + 16 : at + 24] = b"\xff" * 8
    assert bytes_missing(io.BytesIO(data[:-1000])) == 0


def test_caf_of_unknown_length() -> None:
    data = bytearray(FILES["caf"])
    at = data.index(b"data")
    data[at + 4 : at + 12] = b"\xff" * 8
    assert bytes_missing(io.BytesIO(data[:-1000])) == 0


def test_webm_of_unknown_length() -> None:
    """As recorded by a browser: the segment's length is all ones."""
    data = bytearray(FILES["webm"])
    at = data.index(bytes.fromhex("18538067")) + 4
    assert data[at] == 0x01
    data[at : at + 8] = b"\x01" + b"\xff" * 7
    assert bytes_missing(io.BytesIO(data[:-1000])) == 0
    data[at : at + 8] = b"\xff" + b"\xec\x86" + bytes(5)  # one byte of ones
    assert bytes_missing(io.BytesIO(data[:-1000])) == 0


def test_mp4_whose_last_box_has_no_length() -> None:
    box = b"\0\0\0\0mdat" + bytes(100)
    assert bytes_missing(io.BytesIO(b"\0\0\0\x10ftypisom\0\0\0\0" + box)) == 0


def test_mp4_box_with_a_64_bit_length() -> None:
    box = b"\0\0\0\1mdat" + (16 + 100).to_bytes(8, "big") + bytes(100)
    whole = b"\0\0\0\x10ftypisom\0\0\0\0" + box
    assert bytes_missing(io.BytesIO(whole)) == 0
    assert bytes_missing(io.BytesIO(whole[:-9])) == 9


@pytest.mark.slow
@pytest.mark.parametrize(
    "head",
    [b"RIFF\0\0\0\0WAVE", b"caff\0\1\0\0", b"\0\0\0\x08ftyp" + 3 * b"\0\0\0\x08free"],
)
def test_files_of_empty_sections_take_bounded_time(head: bytes) -> None:
    part = b"\0\0\0\x08free" if b"ftyp" in head else bytes(12)
    start = time.perf_counter()
    assert bytes_missing(io.BytesIO(head + 2_000_000 * part)) == 0
    assert time.perf_counter() - start < 5


@given(st.sampled_from([data[:40] for data in FILES.values()]), st.binary(max_size=100))
def test_arbitrary_bytes_raise_nothing(head: bytes, data: bytes) -> None:
    for opened in (io.BytesIO(head + data), io.BytesIO(data)):
        assert bytes_missing(opened) >= 0
        assert (mp3_seconds(opened) or 0.0) >= 0
        assert as_plain_wav(opened) is None or opened.getvalue()[:4] in (b"RIFF", b"RIFX", b"riff")


def test_stated_length_of_an_mp3() -> None:
    data = WITHOUT_STATED_END["mp3"]
    assert data[:3] == b"ID3"
    first_frame = data.index(b"\xff\xfb")
    assert mp3_seconds(io.BytesIO(data)) == pytest.approx(0.3)
    assert mp3_seconds(io.BytesIO(data[first_frame:])) == pytest.approx(0.3)
    assert mp3_seconds(io.BytesIO(data[first_frame:-500])) == pytest.approx(0.3)
    second_frame = data.index(b"\xff\xfb", first_frame + 100)
    assert mp3_seconds(io.BytesIO(data[second_frame:])) is None

    # A tag longer than the bytes inspected, with a picture: 7 bits per byte.
    size = 50_000
    tag = b"ID3\4\0\0" + bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0)) + bytes(size)
    assert mp3_seconds(io.BytesIO(tag + data[first_frame:])) == pytest.approx(0.3)
    assert mp3_seconds(io.BytesIO(tag + data[second_frame:])) is None


@pytest.mark.parametrize("rate", [48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 11_025, 8_000])
def test_stated_length_of_an_mp3_at_every_rate(rate: int) -> None:
    data = encode(sound(0.5, rate), rate, "mp3")
    assert mp3_seconds(io.BytesIO(data)) == pytest.approx(0.5, abs=1e-3)

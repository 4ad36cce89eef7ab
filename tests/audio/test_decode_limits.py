"""Limits inside the decode loop: small files that hold any amount of audio, tags or headers."""

from __future__ import annotations

import io
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mp4 import box, mp4, table
from qwen_audio.audio import media_file
from qwen_audio.audio import mp4 as mp4_module
from qwen_audio.audio.decode import AudioDecoder
from qwen_audio.audio.decode_limits import DecodeLimits, DecodeMeter
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.load_options import LoadOptions
from qwen_audio.audio.ogg import _checksum
from qwen_audio.audio.tags import MAX_TAGS
from qwen_audio.errors import AudioError, AudioWarning, OptionError
from recordings import encode, sound, write_wav

SMALL = DecodeLimits(max_seconds=2.0, max_channel_samples=2**18, max_reading_seconds=5.0)


def refused(audio: object, limits: DecodeLimits = SMALL) -> str:
    """The message; on processor time of milliseconds, also where damage is allowed."""
    started = time.thread_time()
    with pytest.raises(AudioError) as caught:
        load_waveform(audio, limits=limits)
    assert time.thread_time() - started < 1.0
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def dense_flac() -> bytes:
    """One second of 8 channels at 655 kHz: silence, in 1 KB."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((655_350, 8), np.int16), 655_350, format="FLAC")
    return file.getvalue()


@pytest.mark.parametrize("states_length", [True, False])
def test_rate_times_channels_times_seconds_is_bounded(
    dense_flac: bytes, states_length: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = bytearray(dense_flac)
    if not states_length:
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    decoded = 0
    add_audio = DecodeMeter.add_audio

    def counted(self: DecodeMeter, samples: int, rate_hz: int, channels: int) -> None:
        nonlocal decoded
        decoded += samples * channels
        add_audio(self, samples, rate_hz, channels)

    monkeypatch.setattr(DecodeMeter, "add_audio", counted)
    path = tmp_path / "dense.flac"
    path.write_bytes(data)
    for audio in (path, bytes(data), io.BytesIO(data)):
        message = refused(audio)
        assert "is longer than the limit of 0.05 s for 655350 Hz × 8 channels" in message
        assert "mix it down first" in message
    assert decoded <= (0 if states_length else 3 * (2**18 + 8 * 65_536))
    assert load_waveform(bytes(data)).duration_seconds == pytest.approx(1.0)


def test_stated_lengths_end_decoding_before_it_begins() -> None:
    data = encode(sound(4.0, 8000), 8000, "flac")
    decoder_error = refused(data)
    assert decoder_error.endswith("is longer than the limit of 2 s: cut it into shorter files")
    with pytest.raises(AudioError, match="limit of 2 s"):
        AudioDecoder.from_bytes(data, "long.flac", limits=SMALL)
    # Partially, the file may hold less than it states.
    AudioDecoder.from_bytes(data, "long.flac", limits=SMALL, on_damage="partial").close()
    with pytest.warns(AudioWarning, match="missing at the end"):
        torn = load_waveform(data[: len(data) // 4], limits=SMALL, on_damage="partial")
    assert torn.duration_seconds < 2


def test_silence_in_place_of_missing_audio_counts() -> None:
    """A jump of time stamps by minutes, and again."""
    data = bytearray(encode(sound(1.0, 8000), 8000, "mkv"))
    clusters = [k for k in range(len(data)) if data[k : k + 4] == b"\x1f\x43\xb6\x75"]
    stamp = data.index(b"\xe7", clusters[0])
    assert data[stamp + 1] == 0x81  # one byte
    blocks = [k for k in range(clusters[0], len(data)) if data[k] == 0xA3]
    start = next(k for k in blocks[10:] if data[k + 2] == 0x81 or data[k + 3] == 0x81)
    offset = data.index(b"\x81", start) + 1
    data[offset : offset + 2] = struct.pack(">h", 30_000)  # 30 s
    limits = DecodeLimits(max_seconds=20.0)
    with pytest.raises(AudioError, match=r"longer than the limit of 20 s"):
        load_waveform(bytes(data), on_damage="partial", limits=limits)


def test_endless_streams_end(tmp_path: Path) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(max(size, 1))

    limits = DecodeLimits(max_stream_bytes=2**21)
    assert "holds more than the limit of 2.09715e+06 bytes" in refused(Endless(), limits)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except BrokenPipeError:
                pass

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    assert "pipe holds more than the limit" in refused(pipe, limits)
    writer.join(timeout=10)
    assert not writer.is_alive()


# Headers that state, or are, more than any recording's.

HUGE = 50_000_000
MP4_BOMBS: dict[str, Callable[[], bytes]] = {
    "sizes": lambda: mp4(
        pcm_bytes=1600, sizes=table(b"stsz", 1, HUGE), times=table(b"stts", 2, 9, 1, 9, 2)
    ),
    "chunks": lambda: mp4(pcm_bytes=1600, chunks=table(b"stsc", 1, 1, 2**31 - 1, 1)),
    "edits": lambda: mp4(pcm_bytes=2**14 * 1024, edits=4000, times=table(b"stts", 2, 9, 1, 9, 2)),
    "fragment": lambda: mp4(pcm_bytes=1600, more=box(b"moof", box(b"traf", table(b"trun", HUGE)))),
    "hidden": lambda: mp4(
        pcm_bytes=1600, more=box(b"moof", box(b"xxxx", box(b"traf", table(b"trun", HUGE))))
    ),
    "compressed": lambda: mp4(
        more=box(
            b"moov",
            box(
                b"cmov",
                box(b"dcom", b"zlib"),
                box(b"cmvd", struct.pack(">I", 2**20), zlib.compress(table(b"trun", HUGE))),
            ),
        )
    ),
    "compressed, large": lambda: mp4(
        more=box(b"moov", box(b"cmov", box(b"cmvd", struct.pack(">I", 2**30), b"")))
    ),
    "boxes": lambda: mp4(more=box(b"free") * 15_000),
    "nested boxes": lambda: mp4(more=box(b"moov", box(b"udta") * 15_000)),
}


@pytest.mark.parametrize("name", MP4_BOMBS)
def test_sample_tables_of_any_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg would make an index of gigabytes of them."""
    monkeypatch.setattr(mp4_module, "_MAX_BOXES", 1000)
    message = refused(MP4_BOMBS[name]())
    assert "states" in message or "boxes" in message or "compressed header" in message, message


def test_edited_movies_are_read() -> None:
    edited = mp4(pcm_bytes=1600, edits=3)
    assert load_waveform(edited, limits=SMALL).duration_seconds == pytest.approx(0.3, abs=0.01)


def ogg_page(content: bytes, sequence: int, granule: int = 0, serial: int = 1) -> bytes:
    segments = bytes([255] * (len(content) // 255) + [len(content) % 255])
    first = 2 if sequence == 0 else 0
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, first, granule, serial, sequence, 0, len(segments))
    page = head + segments + content
    return page[:22] + struct.pack("<I", _checksum(page)) + page[26:]


def comments(count: int) -> bytes:
    texts = (b"KEY%d=x" % k for k in range(count))
    return struct.pack("<II", 0, count) + b"".join(
        struct.pack("<I", len(text)) + text for text in texts
    )


def flac_with(block: bytes) -> bytes:
    data = encode(sound(0.2, 8000), 8000, "flac")
    return data[:42] + b"\x04" + struct.pack(">I", len(block))[1:] + block + data[42:]


def id3(frames: bytes) -> bytes:
    length = bytes(len(frames) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + length + frames


def ebml(element: bytes, content: bytes) -> bytes:
    return element + struct.pack(">Q", len(content) | 1 << 56) + content


def tagged_matroska(count: int) -> bytes:
    data = encode(sound(0.2, 48_000), 48_000, "mkv")
    tags = ebml(b"\x12\x54\xc3\x67", ebml(b"\x73\x73", ebml(b"\x67\xc8", b"\x45\xa3\x81x") * count))
    segment = data.index(b"\x18\x53\x80\x67")
    length = int.from_bytes(data[segment + 4 : segment + 12], "big") + len(tags)
    return data[: segment + 4] + struct.pack(">Q", length) + data[segment + 12 :] + tags


TAGGED: dict[str, Callable[[int], bytes]] = {
    "flac": lambda count: flac_with(comments(count)),
    "id3": lambda count: (
        id3(b"".join(b"TXXX\0\0\0\x08\0\0\3%05d\0x" % k for k in range(count)))
        + encode(sound(0.2, 48_000), 48_000, "mp3")
    ),
    "opus": lambda count: (
        ogg_page(b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + bytes(3), 0)
        + ogg_page(b"OpusTags" + comments(count)[:60_000], 1)
    ),
    "matroska": tagged_matroska,
}


@pytest.mark.parametrize("name", TAGGED)
def test_any_number_of_tags(name: str) -> None:
    """FFmpeg compares each with all before it."""
    assert f"has more than {MAX_TAGS} tags" in refused(TAGGED[name](MAX_TAGS + 1))
    if name != "opus":
        assert load_waveform(TAGGED[name](100), limits=SMALL).samples.size >= 3200


def test_reading_takes_bounded_time() -> None:
    """Files of nothing but headers: Ogg pages without audio, chunks without a byte."""
    limits = DecodeLimits(max_reading_seconds=0.002)
    head = ogg_page(b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + bytes(3), 0)
    pages = head + ogg_page(b"OpusTags" + comments(0), 1) + ogg_page(b"", 2, -1) * 5000
    chunks = b"RIFF\xff\xff\xff\x7fWAVE" + b"junk\0\0\0\0" * 12_000
    for data in (pages, chunks):
        assert "to read its headers, tags and packets takes more than the limit" in refused(
            data, limits
        )


def test_packets_are_counted() -> None:
    meter = DecodeMeter("clip", DecodeLimits(max_seconds=0.5), 100)
    for _ in range(1500):
        meter.add_packet(0)
    with pytest.raises(AudioError, match="clip has more than 1500 packets, too many for the limit"):
        meter.add_packet(0)
    meter = DecodeMeter("clip", DecodeLimits(), 100)
    with pytest.raises(AudioError, match="many times its size"):
        meter.add_packet(2**27)


def test_wav_files_of_many_data_chunks() -> None:
    """As many as samples: found by bisection, not one after the other."""
    data = write_wav(sound(0.5, 16_000), 16_000)
    samples = data[44:]
    head = data[:4] + b"\xff\xff\xff\x7f" + data[8:36]
    chunks = b"".join(b"data\2\0\0\0" + samples[k : k + 2] for k in range(0, len(samples), 2))
    started = time.thread_time()
    np.testing.assert_array_equal(load_waveform(head + chunks).samples, load_waveform(data).samples)
    assert time.thread_time() - started < 2.0


@pytest.mark.parametrize(
    "head", [b"caff\0\1\0\0junk", struct.pack(">I", 1) + b"free", struct.pack(">I", 1) + b"moov"]
)
def test_lengths_that_no_file_has(head: bytes, tmp_path: Path) -> None:
    """File systems can't seek everywhere that 64 bits can say."""
    file = tmp_path / "far.caf"
    file.write_bytes(head + b"\x7f\xff\xff\xff\xff\xff\xff\xe0" + bytes(100))
    refused(file)
    with pytest.raises(AudioError):
        load_waveform(file, on_damage="partial")


def test_many_tracks() -> None:
    head = b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + bytes(3)
    data = b"".join(ogg_page(head, 0, serial=k) for k in range(200))
    assert "it has more than 100 tracks" in refused(data)


@pytest.mark.parametrize("value", [0, -1, math.nan, True, "600", None])
def test_limits_are_numbers_above_0(value: object) -> None:
    for name in ("max_seconds", "max_channel_samples", "max_stream_bytes", "max_reading_seconds"):
        with pytest.raises(OptionError, match=f"{name}=.*: use a number greater than 0"):
            DecodeLimits(**{name: value})  # type: ignore[arg-type]


def test_limits_of_any_numeric_type() -> None:
    limits = DecodeLimits(max_seconds=np.float32(1.5), max_channel_samples=math.inf)  # type: ignore[arg-type]
    assert load_waveform(write_wav(sound(1.0, 8000), 8000), limits=limits).duration_seconds == 1.0
    with pytest.raises(OptionError, match="give a DecodeLimits"):
        LoadOptions(limits={"max_seconds": 600})  # type: ignore[arg-type]


def test_files_objects_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_file, "_BLOCK_BYTES", 7)
    data = write_wav(sound(0.1, 16_000), 16_000)
    assert load_waveform(io.BytesIO(data)).samples.size == 1600

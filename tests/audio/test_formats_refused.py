"""Only formats that hold their own audio are read: nothing that a file names is opened."""

from __future__ import annotations

import io
import socket
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from mp4 import box, full, mp4
from qwen_audio.audio.decode import AudioDecoder
from qwen_audio.audio.formats import SELF_CONTAINED_FORMATS, audio_decoders
from qwen_audio.audio.load import load_waveform
from qwen_audio.errors import AudioError
from recordings import encode, sound, write_wav

XML = "<?xml version='1.0'?>\n<!-- made by hand -->\n"
NAMING_OTHERS = {
    "a.m3u8": ("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n", "playlist"),
    "no-header.m3u": ("{}\n", "a playlist"),
    "windows.m3u": ("\ufeff{}\r\n", "a playlist"),
    "a.pls": ("[playlist]\nFile1={}\nNumberOfEntries=1\n", "playlist (PLS)"),
    "a.asx": ("<asx version='3.0'><entry><ref href='{}'/></entry></asx>", "playlist (ASX)"),
    "a.wax": ("[Reference]\nRef1={}\n", "playlist (ASX)"),
    "a.xspf": (XML + "<playlist><track><location>{}</location></track></playlist>", "(XSPF)"),
    "a.smil": ("<smil><body><audio src='{}'/></body></smil>", "playlist (SMIL)"),
    "a.mpd": (
        XML + "<MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period><AdaptationSet>"
        "<Representation id='1'><BaseURL>{}</BaseURL></Representation></AdaptationSet></Period>"
        "</MPD>",
        "manifest (DASH)",
    ),
    "a.ism": (XML + "<SmoothStreamingMedia/>", "(Smooth Streaming)"),
    "cpl.xml": (XML + "<cpl:CompositionPlaylist xmlns:cpl='x'/>", "(IMF)"),
    "a.ffconcat": ("ffconcat version 1.0\nfile '{}'\n", "(ffconcat)"),
    "named.wav": ("ffconcat version 1.0\nfile '{}'\n", "(ffconcat)"),
    "a.sdp": (
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio 5004 RTP/AVP 0\r\n",
        "(SDP)",
    ),
    "a.idx": ("# VobSub index file, v7 (do not modify this line!)\n", "(VobSub)"),
    "a.cue": ('REM x\nFILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n', "a cue sheet"),
    "a.ram": ("# comment\n{}\n", ""),
    "a.avs": ('DirectShowSource("{}")\n', "(AviSynth)"),
    "a.vpy": ("import vapoursynth\ncore.ffms2.Source('{}').set_output()\n", "(VapourSynth)"),
    "a.srt": ("1\n00:00:00,000 --> 00:00:02,000\n{}\n", "but text: give an audio file"),
}
"""Name → content that names a file or address, and what the message says."""


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("name", NAMING_OTHERS)
def test_what_a_file_names_is_not_opened(
    name: str, listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(write_wav(sound(0.1, 16_000), 16_000))
    text, said = NAMING_OTHERS[name]
    port = listener.getsockname()[1]
    for target in ("secret.wav", str(tmp_path / "secret.wav"), f"http://127.0.0.1:{port}/a.wav"):
        content = text.replace("{}", target).encode()
        Path(name).write_bytes(content)
        named_file = io.BytesIO(content)
        named_file.name = name
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        for audio in (name, content, named_file, "-"):
            with pytest.raises(AudioError, match="it is not audio but ") as caught:
                load_waveform(audio)
            message = str(caught.value)
            assert "\n" not in message
            assert said in message or audio in (content, "-"), message
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.parametrize(
    "scheme", ["concat:", "data:", "subfile,,start,0,end,1,,:", "tee:", "https:"]
)
def test_addresses_of_ffmpeg_are_not_paths(scheme: str, tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(write_wav(sound(0.1, 16_000), 16_000))
    with pytest.raises(AudioError, match="only paths and addresses given directly are opened"):
        load_waveform(scheme + str(clip))


def test_an_address_in_a_row_of_a_data_set_is_not_fetched(listener: socket.socket) -> None:
    """Rows are data of others; what the caller names is fetched."""
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.wav"
    for row in ({"path": address, "bytes": None}, {"audio": {"path": address}}):
        with pytest.raises(AudioError, match="only paths and addresses given directly are opened"):
            load_waveform(row)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_movie_whose_audio_is_in_another_file(tmp_path: Path) -> None:
    """QuickTime's reference movies: a flag says that the media are elsewhere, an alias where."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(write_wav(sound(0.1, 16_000), 16_000))
    assert load_waveform(mp4(pcm_bytes=1600)).duration_seconds == pytest.approx(0.1)
    alias = struct.pack(">IH", 0, 2) + bytes(144) + struct.pack(">HH", 2, 10) + b"secret.wav"
    for reference in (full(b"url ", b"secret.wav\0"), full(b"alis", alias), full(b"rsrc", alias)):
        movie = tmp_path / "movie.mov"
        movie.write_bytes(mp4(pcm_bytes=1600, reference=reference))
        for audio in (movie, movie.read_bytes()):
            with pytest.raises(AudioError, match="names another file as that of its audio, which"):
                load_waveform(audio, on_damage="partial")
    assert box(b"free") in mp4(pcm_bytes=1600)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "an image"),
        (b"MThd\0\0\0\x06" + bytes(99), "a score"),
        (b"Extended Module: " + bytes(99), "a score"),
    ],
)
def test_files_without_audio_of_their_own(content: bytes, said: str) -> None:
    with pytest.raises(AudioError, match=f"it is not audio but {said}"):
        load_waveform(content)


@pytest.mark.parametrize("suffix", [".ul", ".al", ".sw", ".raw", ".pcm", ".s16le"])
def test_no_sampling_rate_is_guessed(suffix: str, tmp_path: Path) -> None:
    raw = tmp_path / f"raw{suffix}"
    raw.write_bytes(bytes(range(256)) * 100)
    with pytest.raises(AudioError, match="it is not audio, or its header is damaged"):
        load_waveform(raw)


def test_formats_are_an_allow_list() -> None:
    names = {name for format_ in av.formats_available for name in format_.split(",")}
    assert {"concat", "hls", "sdp", "image2"} <= names
    naming_others = {"concat", "dash", "hls", "imf", "image2", "image2pipe", "mlv", "sdp", "vobsub"}
    devices = {"alsa", "fbdev", "lavfi", "rtp", "rtsp", "sap", "v4l2", "x11grab"}
    guessed = {"alaw", "mulaw", "s16le", "f32le", "u8", "rawvideo", "sbg"}
    assert not (naming_others | devices | guessed) & set(SELF_CONTAINED_FORMATS)


def test_pictures_are_not_decoded() -> None:
    """Beside audio: a picture of kilobytes may take gigabytes to decode."""
    names = set(audio_decoders().split(","))
    assert {"flac", "mp3", "pcm_s16le"} <= names
    assert not {"png", "mjpeg", "h264", "ass", "subrip"} & names
    pixels = 2048
    rows = zlib.compress(bytes((pixels + 1) * pixels))
    size = struct.pack(">IIBBBBB", pixels, pixels, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", rows), (b"IEND", b""))
    picture = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
    block = struct.pack(">II9sIIIIII", 3, 9, b"image/png", 0, pixels, pixels, 8, 0, len(picture))
    data = encode(sound(0.2, 8000), 8000, "flac")
    header = b"\x06" + struct.pack(">I", len(block) + len(picture))[1:]
    with_picture = data[:42] + header + block + picture + data[42:]
    samples = load_waveform(with_picture).samples
    np.testing.assert_array_equal(samples, load_waveform(data).samples)
    with AudioDecoder.from_bytes(with_picture, "with picture") as decoder:
        (video,) = decoder._container.streams.video
        assert video.codec_context.pix_fmt is None  # known once it is decoded

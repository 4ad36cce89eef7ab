"""Every supported format, complete and damaged."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

import librosa_functions
from qwen_audio.audio.decode import AudioDecoder
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import AudioError
from recordings import CONTAINERS, Samples, encode, encode_video, sound, write_wav

# libsndfile's (format, subtype, byte order): lossless, so samples can be compared one by one.
LOSSLESS = {
    "wav-u8": ("WAV", "PCM_U8", "FILE"),
    "wav-16": ("WAV", "PCM_16", "FILE"),
    "wav-24": ("WAV", "PCM_24", "FILE"),
    "wav-32": ("WAV", "PCM_32", "FILE"),
    "wav-float": ("WAV", "FLOAT", "FILE"),
    "wav-double": ("WAV", "DOUBLE", "FILE"),
    "wav-ulaw": ("WAV", "ULAW", "FILE"),
    "wav-alaw": ("WAV", "ALAW", "FILE"),
    "wavex-24": ("WAVEX", "PCM_24", "FILE"),
    "rf64-16": ("RF64", "PCM_16", "FILE"),
    "w64-24": ("W64", "PCM_24", "FILE"),
    "aiff-16": ("AIFF", "PCM_16", "FILE"),
    "aiff-24": ("AIFF", "PCM_24", "FILE"),
    "aiff-float": ("AIFF", "FLOAT", "FILE"),
    "au-16": ("AU", "PCM_16", "FILE"),
    "caf-16": ("CAF", "PCM_16", "FILE"),
    "flac-16": ("FLAC", "PCM_16", "FILE"),
    "flac-24": ("FLAC", "PCM_24", "FILE"),
}
RATES = [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]


def expected(samples: Samples, rate: int) -> Samples:
    """Mixed to mono and resampled at once, in one array."""
    mono = samples.mean(axis=0)
    return librosa_functions.resample(mono, orig_sr=rate, target_sr=16_000, res_type="soxr_hq")


def message_of(audio: object) -> str:
    """The error's text; it is one line that names the input and says what to do."""
    with pytest.raises(AudioError) as caught:
        load_waveform(audio)
    message = str(caught.value)
    assert "\n" not in message
    assert ": " in message
    return message


# Complete files.


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_formats_match_librosa(name: str, channels: int, tmp_path: Path) -> None:
    format_, subtype, endian = LOSSLESS[name]
    file = tmp_path / f"sound.{name}"
    file.write_bytes(write_wav(sound(0.513, 48_000, channels), 48_000, subtype, endian, format_))
    expected_samples, _ = librosa_functions.load(file, sr=16_000)
    actual = load_waveform(file)
    assert actual.samples.shape == expected_samples.shape
    np.testing.assert_allclose(actual.samples, expected_samples, atol=1e-4, rtol=0)
    assert (actual.source_rate_hz, actual.source_channels) == (48_000, channels)
    assert actual.source_format == name.split("-")[0].replace("wavex", "wav").replace("rf64", "wav")
    assert actual.name == str(file)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("format_", ["WAV", "FLAC"])
def test_every_rate_matches_librosa(rate: int, channels: int, format_: str, tmp_path: Path) -> None:
    file = tmp_path / "sound"
    seconds = 1.2345  # no whole number of anything
    file.write_bytes(write_wav(sound(seconds, rate, channels), rate, "PCM_16", container=format_))
    expected_samples, _ = librosa_functions.load(file, sr=16_000)
    actual = load_waveform(file)
    assert actual.samples.shape == expected_samples.shape
    np.testing.assert_allclose(actual.samples, expected_samples, atol=1e-4, rtol=0)
    assert actual.source_rate_hz == rate


@pytest.mark.slow
def test_chunked_resampling_is_continuous(tmp_path: Path) -> None:
    """The resampler carries its state from chunk to chunk; without it there would be clicks."""
    file = tmp_path / "long.wav"
    file.write_bytes(write_wav(sound(20, 44_100), 44_100))
    expected_samples, _ = librosa_functions.load(file, sr=16_000)
    actual = load_waveform(file)
    assert len(list(AudioDecoder.from_path(file).chunks())) > 100
    assert actual.samples.shape == expected_samples.shape
    np.testing.assert_allclose(actual.samples, expected_samples, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_compressed_formats_are_close_to_the_original(name: str, channels: int) -> None:
    if name == "ogg":  # FFmpeg's own Vorbis encoder does stereo only
        data = write_wav(sound(2, 48_000, channels), 48_000, "VORBIS", container="OGG")
    else:
        data = encode(sound(2, 48_000, channels), 48_000, name)
    decoded = load_waveform(data)
    expected_samples = expected(sound(2, 48_000, channels), 48_000)
    assert_close_after_codec(decoded.samples, expected_samples)
    assert (decoded.source_rate_hz, decoded.source_channels) == (48_000, channels)


@pytest.mark.parametrize("format_", ["mp4", "webm"])
def test_audio_of_a_video(format_: str) -> None:
    samples = sound(2, 48_000, 2)
    decoded = load_waveform(encode_video(samples, container=format_))
    assert_close_after_codec(decoded.samples, expected(samples, 48_000))


def assert_close_after_codec(decoded: Samples, expected_samples: Samples) -> None:
    """Aligned, 20 dB above the encoder's noise, and padded by less than an audio token."""
    assert 0 <= decoded.size - expected_samples.size < 640
    error = decoded[: expected_samples.size] - expected_samples
    assert np.square(error).mean() < 0.01 * np.square(expected_samples).mean()


def test_six_channels_are_mixed_by_their_mean() -> None:
    samples = sound(0.5, 48_000, 6)
    decoded = load_waveform(encode(samples, 48_000, "flac"))
    np.testing.assert_allclose(decoded.samples, expected(samples, 48_000), atol=1e-4, rtol=0)
    assert decoded.source_channels == 6


def test_channels_that_cancel_are_silence() -> None:
    one = sound(0.5, 16_000)
    decoded = load_waveform(write_wav(np.concatenate([one, -one]), 16_000, "FLOAT"))
    np.testing.assert_allclose(decoded.samples, 0, atol=1e-7)


@pytest.mark.parametrize(
    ("subtype", "bits"), [("PCM_U8", 8), ("PCM_16", 16), ("PCM_24", 24), ("PCM_32", 32)]
)
def test_full_scale_is_one(subtype: str, bits: int) -> None:
    """The loudest negative integer is −1, the loudest positive one just below 1, silence 0."""
    samples = np.tile(np.array([-1, 0, 1], np.float32), 400)[None]
    decoded = load_waveform(write_wav(samples, 16_000, subtype)).samples
    assert decoded.min() == -1
    assert decoded.max() == pytest.approx(1 - 2.0 ** (1 - bits), abs=1e-7)
    np.testing.assert_array_equal(decoded[1::3], 0)


# Kinds of input.


@pytest.fixture(scope="module")
def flac(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("decode") / "song.flac"
    file.write_bytes(write_wav(sound(0.5, 22_050, 2), 22_050, container="FLAC"))
    return file


class Streamed(io.RawIOBase):
    """A binary file object that can neither seek nor name itself, such as a network response."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int | None = -1) -> bytes:
        return self._data.read(size)


def test_every_kind_of_input_gives_the_same_samples(flac: Path) -> None:
    data = flac.read_bytes()
    reference = load_waveform(flac)
    with flac.open("rb") as opened:
        given_as = {
            "str": load_waveform(str(flac)),
            "bytes": load_waveform(data),
            "bytearray": load_waveform(bytearray(data)),
            "memoryview": load_waveform(memoryview(data)),
            "file": load_waveform(opened),
            "buffer": load_waveform(io.BytesIO(data)),
            "stream": load_waveform(Streamed(data)),
        }
    for kind, waveform in given_as.items():
        np.testing.assert_array_equal(waveform.samples, reference.samples, err_msg=kind)
        assert waveform.source_format == "flac"
    assert given_as["str"].name == given_as["file"].name == str(flac)
    assert given_as["bytes"].name == f"bytes ({len(data)})"
    assert given_as["buffer"].name == "BytesIO"


def test_a_waveform_is_returned_unchanged(flac: Path) -> None:
    waveform = load_waveform(flac)
    assert load_waveform(waveform) is waveform


@pytest.mark.parametrize("name", ["mp3", "flac", "ogg", "m4a"])
def test_a_pipe_is_read_to_its_end(name: str, tmp_path: Path) -> None:
    """As in `qwen-audio describe <(ffmpeg …)`; opening a pipe twice would block."""
    data = encode(sound(0.5, 48_000, 2), 48_000, name)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    decoded = load_waveform(pipe)
    writer.join(timeout=10)
    np.testing.assert_array_equal(decoded.samples, load_waveform(data).samples)
    assert decoded.name == str(pipe)


@pytest.mark.parametrize(
    "name",
    [
        "AC: DC.wav",
        "100%d.wav",
        "-loud.wav",
        "concat:a|b.wav",
        "größe 音.wav",
        "a\nb.wav",
        "noending",
    ],
)
def test_unusual_file_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(write_wav(sound(0.1, 16_000), 16_000))
    assert load_waveform(name).samples.size == 1600
    assert load_waveform(tmp_path / name).samples.size == 1600


def test_wav_of_unknown_length_is_decoded_to_its_end() -> None:
    """Writers that can't seek back leave sizes open: FFmpeg's WAV to a pipe has 0xFFFFFFFF."""
    samples = sound(0.5, 16_000)
    whole = bytearray(write_wav(samples, 16_000))
    whole[4:8] = whole[40:44] = b"\xff\xff\xff\xff"
    assert whole[36:40] == b"data"
    assert load_waveform(bytes(whole)).samples.size == samples.size


def test_trailing_data_is_ignored() -> None:
    data = write_wav(sound(0.5, 16_000), 16_000)
    assert load_waveform(data + b"junk" * 20).samples.size == 8000
    tagged = encode(sound(0.5, 48_000, 2), 48_000, "mp3") + b"TAG" + b"Some title".ljust(125, b"\0")
    assert load_waveform(tagged).duration_seconds == pytest.approx(0.5, abs=0.001)


# Inputs that are not audio.


def test_no_such_file(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "song.wav"
    assert message_of(missing) == f"{missing}: no such file: check the path"
    assert "no such file" in message_of(str(missing))


def test_path_below_a_file(flac: Path) -> None:
    assert "no such file" in message_of(flac / "inside")


def test_too_long_a_file_name(tmp_path: Path) -> None:
    message = message_of(str(tmp_path / ("x" * 5000)))
    assert "can't be read" in message
    assert len(message) < 400


def test_file_name_with_a_null_byte() -> None:
    assert "can't be read" in message_of("song\0.wav")


def test_folder_is_an_error(tmp_path: Path) -> None:
    assert message_of(tmp_path).startswith(f"{tmp_path} is a folder")


def test_device_is_an_error() -> None:
    """/dev/zero has no end."""
    assert "neither a file nor a pipe" in message_of("/dev/zero")


@pytest.fixture
def unprivileged_user() -> Iterator[None]:
    """Root may read everything, so switch to another user."""
    if os.geteuid() != 0:
        yield
        return
    os.setresuid(65_534, 65_534, 0)
    yield
    os.setresuid(0, 0, 0)


def test_file_without_read_permission(unprivileged_user: None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "private.wav")
        file.write_bytes(write_wav(sound(0.1, 16_000), 16_000))
        file.chmod(0)
        assert message_of(file) == f"{file} can't be read: check its permissions"
        Path(folder).chmod(0)
        assert message_of(file).startswith(f"{file} can't be read (Permission denied)")
        Path(folder).chmod(0o700)


def test_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "empty.wav"
    file.touch()
    assert message_of(file).startswith(f"{file} is empty (0 bytes)")
    assert "is empty (0 bytes)" in message_of(b"")
    assert "is empty (0 bytes)" in message_of(io.BytesIO())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("notes.wav", b"These are the notes of a meeting, and no song.\n" * 50),
        ("page.mp3", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
        ("pointer.flac", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        ("table.ogg", b"\x89PNG\r\n\x1a\n" + bytes(500)),
        ("zeros.wav", bytes(10_000)),
        # Raw samples of two equal channels, which are like the frames of a format without a header.
        (
            "samples.wav",
            np.random.default_rng(0).integers(-9000, 9000, 9000, "<i2").repeat(2).tobytes(),
        ),
        ("one.wav", b"R"),
        ("riff.wav", b"RIFF\xff\xff\xff\xffWAVE"),
        ("ogg.ogg", b"OggS"),
        ("ebml.webm", bytes.fromhex("1a45dfa3")),
        ("ftyp.m4a", b"\0\0\0\x10ftypM4A \0\0\0\0"),
    ],
)
def test_files_that_are_not_audio(name: str, content: bytes, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    assert message_of(file).startswith(f"{file} ")
    message_of(content)


def test_a_playlist_opens_no_other_file(flac: Path, tmp_path: Path) -> None:
    """A file that names others is not a recording, and its names are not opened."""
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXTINF:1,\n{flac}\n#EXT-X-ENDLIST\n")
    assert message_of(playlist).startswith(f"{playlist} ")
    playlist.write_text(f"ffconcat version 1.0\nfile {flac}\n")
    assert message_of(playlist).startswith(f"{playlist} ")


@pytest.mark.parametrize("format_", ["mp4", "webm"])
def test_video_without_an_audio_track(format_: str, tmp_path: Path) -> None:
    file = tmp_path / "film"
    file.write_bytes(encode_video(None, container=format_))
    assert message_of(file) == f"{file} has no audio track: use a file that holds audio"


@pytest.mark.parametrize("format_", ["WAV", "AIFF", "FLAC", "W64", "AU", "OGG"])
def test_valid_file_without_samples(format_: str, tmp_path: Path) -> None:
    file = tmp_path / "nothing"
    subtype = "VORBIS" if format_ == "OGG" else "PCM_16"
    file.write_bytes(write_wav(np.zeros((1, 0), np.float32), 16_000, subtype, container=format_))
    assert message_of(file).startswith(f"{file} ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite(value: float, tmp_path: Path) -> None:
    samples = sound(0.5, 16_000)
    samples[0, 4000] = value
    file = tmp_path / "broken.wav"
    file.write_bytes(write_wav(samples, 16_000, "FLOAT"))
    assert message_of(file).startswith(
        f"{file} holds NaN or infinite samples (first at 0.250 s): repair it"
    )


@pytest.mark.parametrize("rate", [0, 1, 999, 768_001, 1_000_000_000, 0xFFFF_FFFF])
def test_implausible_rates(rate: int, tmp_path: Path) -> None:
    data = bytearray(write_wav(sound(0.1, 16_000), 16_000))
    data[24:28] = rate.to_bytes(4, "little")
    file = tmp_path / "odd.wav"
    file.write_bytes(data)
    assert message_of(file).startswith(f"{file}")


def with_channels(data: bytes, channels: int) -> bytes:
    """A WAV of 16 bit whose header states another number of channels."""
    changed = bytearray(data)
    changed[22:24] = channels.to_bytes(2, "little")
    changed[32:34] = min(2 * channels, 65_535).to_bytes(2, "little")
    return bytes(changed)


@pytest.mark.parametrize("channels", [0, 65, 1000, 65_535])
def test_implausible_channel_counts(channels: int, tmp_path: Path) -> None:
    file = tmp_path / "odd.wav"
    file.write_bytes(with_channels(write_wav(sound(0.1, 16_000), 16_000), channels))
    message = message_of(file)
    assert message.startswith(f"{file}")
    if channels == 65:
        assert "65 channels, but 1 to 64 are supported" in message


def test_64_channels() -> None:
    samples = sound(0.5, 16_000, 64)
    decoded = load_waveform(write_wav(samples, 16_000, "FLOAT"))
    np.testing.assert_allclose(decoded.samples, samples.mean(axis=0), atol=1e-6, rtol=0)


def test_unknown_codec(tmp_path: Path) -> None:
    data = bytearray(write_wav(sound(0.5, 16_000), 16_000))
    data[20:22] = b"\x34\x12"
    file = tmp_path / "odd.wav"
    file.write_bytes(data)
    assert message_of(file).startswith(f"{file} can't be decoded: FFmpeg has no decoder")


@pytest.mark.parametrize("rate", [1_000, 4_000, 192_000, 384_000, 768_000])
def test_limits_of_rates(rate: int) -> None:
    assert load_waveform(write_wav(sound(0.5, rate), rate)).samples.size == 8000


@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (44_100, 1)])
def test_rate_or_channels_that_change_midway(rate: int, channels: int) -> None:
    """Joined MP3s: each part is resampled from its own rate, so that no pitch is shifted."""
    first, second = sound(0.5, 48_000, 1), sound(0.5, rate, channels)
    joined = encode(first, 48_000, "mp3") + encode(second, rate, "mp3")
    decoded = load_waveform(joined).samples
    expected_samples = np.concatenate([expected(first, 48_000), expected(second, rate)])
    # Between them lie the padding of the first and the priming of the second (2,257 samples).
    assert 0 <= decoded.size - expected_samples.size < 1600
    lag = decoded.size - expected_samples.size
    errors = [
        np.square(decoded[8000 + shift : 15000 + shift] - expected_samples[8000:15000]).mean()
        for shift in range(lag + 1)
    ]
    assert min(errors) < 0.02 * np.square(expected_samples[8000:15000]).mean()


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_chained_ogg_streams_are_decoded_in_full(seconds: float) -> None:
    chain = [encode(sound(seconds, 48_000, 2), 48_000, "opus") for _ in range(3)]
    assert load_waveform(b"".join(chain)).duration_seconds == 3 * seconds


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_big_endian_wav(subtype: str, channels: int, tmp_path: Path) -> None:
    """FFmpeg reads a RIFX header and then takes its samples for little-endian ones: noise."""
    file = tmp_path / "big.wav"
    samples = sound(0.5, 44_100, channels)
    file.write_bytes(write_wav(samples, 44_100, subtype, endian="BIG"))
    assert file.read_bytes()[:4] == b"RIFX"
    expected, _ = librosa_functions.load(file, sr=16_000)
    for audio in (file, file.read_bytes(), io.BytesIO(file.read_bytes())):
        np.testing.assert_allclose(load_waveform(audio).samples, expected, atol=1e-4)
    assert "truncated" in message_of(file.read_bytes()[:-4000])
    for cut in range(4, 60, 3):
        message_of(file.read_bytes()[:cut])


@pytest.mark.parametrize(("subtype", "value"), [("FLOAT", 3e38), ("DOUBLE", 1e300)])
def test_float_samples_beyond_the_limit(subtype: str, value: float) -> None:
    opened = io.BytesIO()
    soundfile.write(opened, np.full((8000, 2), value), 16_000, subtype=subtype, format="WAV")
    assert "holds NaN or infinite samples" in message_of(opened.getvalue())


# Damaged files.


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Two seconds in every format, with noise, so that every part of a file matters."""
    samples = sound(2, 48_000, 2) + np.float32(0.1) * np.random.default_rng(0).standard_normal(
        (2, 96_000), np.float32
    )
    files_by_name = {name: encode(samples, 48_000, name) for name in CONTAINERS}
    files_by_name["film.mp4"] = encode_video(samples, container="mp4")
    files_by_name["film.webm"] = encode_video(samples, container="webm")
    for name, (format_, subtype, endian) in LOSSLESS.items():
        files_by_name[name] = write_wav(samples, 48_000, subtype, endian, format_)
    files_by_name["sndfile.mp3"] = write_wav(samples, 48_000, "MPEG_LAYER_III", container="MP3")
    files_by_name["sndfile.ogg"] = write_wav(samples, 48_000, "VORBIS", container="OGG")
    files_by_name["sndfile.opus"] = write_wav(samples, 48_000, "OPUS", container="OGG")
    return files_by_name


ALL_FILES = [
    *CONTAINERS,
    *LOSSLESS,
    *("film.mp4", "film.webm", "sndfile.mp3", "sndfile.ogg", "sndfile.opus"),
]
UNCHECKED = {"mp3", "sndfile.mp3", "webm", "mkv", "film.webm"}
"""Formats without checksums, whose decoders may accept forty zero bytes."""


@pytest.mark.slow
def test_list_of_files_matches_the_fixture(files: dict[str, bytes]) -> None:
    assert sorted(files) == sorted(ALL_FILES)
    for data in files.values():
        assert load_waveform(data).duration_seconds == pytest.approx(2, abs=0.04)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ALL_FILES)
def test_truncated_files(name: str, share: float, files: dict[str, bytes], tmp_path: Path) -> None:
    data = files[name][: int(len(files[name]) * share)]
    file = tmp_path / name
    file.write_bytes(data)
    message = message_of(file)
    assert message.startswith(str(file))
    assert any(word in message for word in ("truncated", "corrupt", "damaged"))
    message_of(data)


@pytest.mark.parametrize(
    "name", [name for name in ALL_FILES if name not in LOSSLESS or "flac" in name]
)
def test_compressed_file_with_an_eighth_zeroed(
    name: str, files: dict[str, bytes], tmp_path: Path
) -> None:
    data = bytearray(files[name])
    start, length = len(data) // 2, len(data) // 8
    data[start : start + length] = bytes(length)
    file = tmp_path / name
    file.write_bytes(data)
    message = message_of(file)
    assert message.startswith(str(file))
    assert any(word in message for word in ("truncated", "corrupt", "damaged"))


@pytest.mark.parametrize(
    "name",
    [n for n in ALL_FILES if (n not in LOSSLESS or "flac" in n) and n not in UNCHECKED],
)
def test_forty_bytes_zeroed(name: str, files: dict[str, bytes]) -> None:
    data = bytearray(files[name])
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    message_of(bytes(data))


# Anything else: a Waveform or an AudioError.


def load_or_audio_error(data: bytes) -> None:
    with contextlib.suppress(AudioError):
        waveform = load_waveform(data)
        assert isinstance(waveform, Waveform)
        assert np.isfinite(waveform.samples).all()
        assert waveform.samples.size >= 640


@pytest.mark.slow
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    load_or_audio_error(data)


MAGICS = [
    b"RIFF\xf0\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00",
    *(b"RIFX", b"RF64", b"OggS\0\2", b"fLaC\0\0\0\x22", b"ID3\4\0\0", b"\xff\xfb\x90", b"FORM"),
    *(b"\0\0\0\x18ftypM4A ", bytes.fromhex("1a45dfa3"), b"caff\0\1\0\0", b".snd"),
    *(b"wvpk", b"MThd\0\0\0\6", b"ADIF", b"#!AMR\n", b"TTA1", b"MAC ", b"\xff\xf1"),
    bytes.fromhex("726966662e91cf11a5d628db04c10000"),
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
]


@given(st.sampled_from(MAGICS), st.binary(max_size=300))
@pytest.mark.slow
def test_random_bytes_after_a_valid_magic_number(magic: bytes, data: bytes) -> None:
    load_or_audio_error(magic + data)


@functools.cache
def short_files() -> dict[str, bytes]:
    samples = sound(0.1, 16_000, 2)
    files_by_name = {n: encode(sound(0.1, 48_000, 2), 48_000, n) for n in CONTAINERS}
    return files_by_name | {
        n: write_wav(samples, 16_000, subtype, endian, f)
        for n, (f, subtype, endian) in LOSSLESS.items()
    }


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.sampled_from([*CONTAINERS, *LOSSLESS]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6),
    st.floats(0, 1),
    st.booleans(),
)
@example("wav-16", [(0.0, b"RIFF")], 1.0, True)
def test_valid_files_with_bytes_changed(
    name: str,
    changes: list[tuple[float, bytes]],
    cut: float,
    in_header: bool,
) -> None:
    data = bytearray(short_files()[name])
    reach = min(len(data), 128) if in_header else len(data)
    for position, new in changes:
        start = int(position * (reach - 1))
        data[start : start + len(new)] = new
    load_or_audio_error(bytes(data))
    load_or_audio_error(bytes(data[: int(cut * len(data))]))


def test_decoder_metadata(flac: Path) -> None:
    decoding = AudioDecoder.from_path(flac)
    assert (decoding.rate_hz, decoding.channels, decoding.format) == (22_050, 2, "flac")
    assert sum(chunk.samples.size for chunk in decoding.chunks()) == 11_025

"""WAV files that FFmpeg misreads, against libsndfile, sample by sample."""

from __future__ import annotations

import io
import struct
import uuid
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.media_file import FileRange, JoinedFile
from qwen_audio.audio.wav import as_plain_wav
from qwen_audio.errors import AudioError
from recordings import Samples, sound, write_wav

PAIRS = [(8, 16), (12, 16), (8, 24), (16, 24), (20, 24), (16, 32), (20, 32), (24, 32)]
"""Valid bits, and bits that a sample takes."""


def pcm_bytes(samples: Samples, valid_bits: int, container_bits: int) -> bytes:
    """Interleaved little-endian samples, the valid bits uppermost."""
    integers = np.round(samples.T * (2 ** (valid_bits - 1) - 1)).astype(np.int64)
    shifted = integers << (container_bits - valid_bits)
    return (
        np.ascontiguousarray(shifted, "<i8")
        .view(np.uint8)
        .reshape(-1, 8)[:, : container_bits // 8]
        .tobytes()
    )


def wav_format(
    channels: int, rate: int, container_bits: int, valid_bits: int, *, extensible: bool = True
) -> bytes:
    """Content of a format chunk."""
    frame_bytes = channels * container_bits // 8
    tag, bits = (0xFFFE, container_bits) if extensible else (1, valid_bits)
    plain = struct.pack("<HHIIHH", tag, channels, rate, rate * frame_bytes, frame_bytes, bits)
    if not extensible:
        return plain
    guid = uuid.UUID("00000001-0000-0010-8000-00aa00389b71").bytes_le
    return plain + struct.pack("<HHI", 22, valid_bits, (1 << channels) - 1) + guid


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A RIFF file of these chunks."""
    body = b"".join(
        name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + (4 + len(body)).to_bytes(4, "little") + b"WAVE" + body


def w64(*chunks: tuple[bytes, bytes]) -> bytes:
    """A Wave64 file of these chunks."""
    tail = bytes.fromhex("f3acd3118cd100c04f8edb8a")
    body = b"".join(
        name + tail + (24 + len(content)).to_bytes(8, "little") + content + bytes(-len(content) % 8)
        for name, content in chunks
    )
    head = bytes.fromhex("726966662e91cf11a5d628db04c10000")
    return head + (40 + len(body)).to_bytes(8, "little") + b"wave" + tail + body


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("write", [riff, w64])
@pytest.mark.parametrize(("valid_bits", "container_bits"), PAIRS)
def test_valid_bits_below_the_bits_of_a_sample(
    valid_bits: int, container_bits: int, write: object, channels: int, tmp_path: Path
) -> None:
    assert callable(write)
    samples = sound(0.5, 16_000, channels)
    data = write(
        (b"fmt ", wav_format(channels, 16_000, container_bits, valid_bits)),
        (b"data", pcm_bytes(samples, valid_bits, container_bits)),
    )
    file = tmp_path / "wide.wav"
    file.write_bytes(data)
    expected, _ = soundfile.read(file, dtype="float32", always_2d=True)
    for audio in (file, data):
        decoded = load_waveform(audio).samples
        np.testing.assert_allclose(decoded, expected.mean(axis=1), atol=1e-6)
    assert "truncated" in error_of(data[:-1000])


def error_of(data: bytes) -> str:
    with pytest.raises(AudioError) as caught:
        load_waveform(data)
    return str(caught.value)


@pytest.mark.parametrize(("valid_bits", "container_bits"), PAIRS)
def test_the_same_without_the_extension(valid_bits: int, container_bits: int) -> None:
    samples = sound(0.5, 16_000, 2)
    data = riff(
        (b"fmt ", wav_format(2, 16_000, container_bits, valid_bits, extensible=False)),
        (b"data", pcm_bytes(samples, valid_bits, container_bits)),
    )
    decoded = load_waveform(data).samples
    np.testing.assert_allclose(decoded, samples.mean(axis=0), atol=2.0 ** (1 - valid_bits))


@pytest.mark.parametrize("valid_bits", [0, 25, 40])
def test_implausible_valid_bits_are_left_to_ffmpeg(valid_bits: int) -> None:
    content = wav_format(2, 16_000, 24, valid_bits)
    assert as_plain_wav(io.BytesIO(riff((b"fmt ", content), (b"data", bytes(600))))) is None


def test_all_of_several_data_chunks_is_decoded() -> None:
    samples = sound(0.5, 16_000)
    data = pcm_bytes(samples, 16, 16)
    wav = riff(
        (b"fmt ", wav_format(1, 16_000, 16, 16, extensible=False)),
        (b"data", data[:6000]),
        (b"LIST", b"note"),
        (b"data", data[6000:]),
    )
    decoded = load_waveform(wav).samples
    np.testing.assert_allclose(decoded, samples[0], atol=1e-4)


@pytest.mark.parametrize("extra", [1, 36, 44, 80])
@pytest.mark.parametrize("container", ["WAV", "RF64"])
def test_data_size_that_counts_a_header(extra: int, container: str) -> None:
    data = bytearray(write_wav(sound(0.5, 16_000), 16_000, container=container))
    at = data.index(b"data") + 4 if container == "WAV" else data.index(b"ds64") + 16
    size = int.from_bytes(data[at : at + 4], "little")
    assert size == 16_000
    data[at : at + 4] = (size + extra).to_bytes(4, "little")
    assert load_waveform(bytes(data)).duration_seconds == 0.5
    data[at : at + 4] = (size + 200).to_bytes(4, "little")
    assert "truncated" in error_of(bytes(data))


def test_rf64_states_its_length() -> None:
    data = write_wav(sound(0.5, 16_000), 16_000, container="RF64")
    assert data[:4] == b"RF64"
    assert load_waveform(data).duration_seconds == 0.5
    assert "truncated" in error_of(data[:-4000])


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.sampled_from(
        [
            *(("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32")),
            *(("WAV", "FLOAT"), ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "ALAW")),
            *(("WAVEX", "PCM_U8"), ("WAVEX", "PCM_16"), ("WAVEX", "PCM_24"), ("WAVEX", "FLOAT")),
            *(("RF64", "PCM_16"), ("RF64", "PCM_24"), ("RF64", "FLOAT")),
            *(("W64", "PCM_16"), ("W64", "PCM_24"), ("W64", "PCM_32"), ("W64", "DOUBLE")),
            *(("AIFF", "PCM_S8"), ("AIFF", "PCM_16"), ("AIFF", "PCM_24"), ("AIFF", "FLOAT")),
            *(("CAF", "PCM_S8"), ("CAF", "PCM_16"), ("CAF", "PCM_24"), ("CAF", "FLOAT")),
            *(("CAF", "ALAC_16"), ("CAF", "ULAW"), ("AU", "PCM_16"), ("AU", "FLOAT")),
        ]
    ),
    st.integers(1, 6),
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]),
    st.sampled_from(["FILE", "LITTLE", "BIG"]),
    st.floats(0.05, 0.3),
)
def test_every_combination_equals_libsndfile(
    form: tuple[str, str], channels: int, rate: int, endian: str, seconds: float
) -> None:
    container, subtype = form
    if container in ("AIFF", "AU") or not soundfile.check_format(container, subtype, endian):
        endian = "FILE"
    samples = sound(seconds, rate, channels)
    data = write_wav(samples, rate, subtype, endian, container)
    expected, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    mono = load_waveform(expected.mean(axis=1, dtype=np.float32), sampling_rate=rate).samples
    decoded = load_waveform(data)
    assert (decoded.source_rate_hz, decoded.source_channels) == (rate, channels)
    np.testing.assert_allclose(decoded.samples, mono, atol=1e-5)


@given(
    st.lists(st.binary(max_size=40), max_size=5),
    st.lists(st.tuples(st.integers(0, 220), st.integers(0, 60)), max_size=8),
)
def test_joined_files_read_as_one(parts: list[bytes], reads: list[tuple[int, int]]) -> None:
    whole = b"".join(parts)
    file = io.BytesIO(whole)
    starts = np.cumsum([0, *map(len, parts)])
    ranges = [
        part if number % 2 else FileRange(file, int(start), int(start) + len(part))
        for number, (start, part) in enumerate(zip(starts, parts, strict=False))
    ]
    joined = io.BufferedReader(JoinedFile(ranges), buffer_size=16)
    for start, length in reads:
        joined.seek(start)
        assert joined.read(length) == whole[start : start + length]
    joined.seek(0)
    assert joined.read() == whole

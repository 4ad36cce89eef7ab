"""Every container and codec of docs/formats.md: what ffmpeg decodes of a file is what is loaded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ffmpeg import decode_all, encode_all
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from recordings import Samples, sound, write_wav

SECONDS = 1.3
ROOT = Path(__file__).parent.parent.parent

_MONO_8 = ("-ac", "1", "-ar", "8000")
_MONO_16 = ("-ac", "1", "-ar", "16000")
_STEREO_48 = ("-ar", "48000")

FORMATS: dict[str, dict[str, tuple[str, ...]]] = {
    "WAV": {
        **{f"{codec}.wav": ("-c:a", codec) for codec in ("pcm_s16le", "pcm_u8", "pcm_s24le")},
        **{f"{codec}.wav": ("-c:a", codec) for codec in ("pcm_s32le", "pcm_f32le", "pcm_f64le")},
        **{f"{codec}.wav": ("-c:a", codec) for codec in ("pcm_mulaw", "pcm_alaw")},
        **{f"{codec}.wav": ("-c:a", codec) for codec in ("adpcm_ms", "adpcm_ima_wav")},
        "adpcm_yamaha.wav": ("-c:a", "adpcm_yamaha"),
        "g722.wav": (*_MONO_16, "-c:a", "g722"),
        "g726.wav": (*_MONO_8, "-c:a", "g726"),
        "gsm.wav": (*_MONO_8, "-c:a", "libgsm_ms"),
        "mp3.wav": ("-c:a", "libmp3lame"),
        "mp2.wav": ("-c:a", "mp2"),
        "ac3.wav": ("-c:a", "ac3"),
        "wmav2.wav": ("-c:a", "wmav2"),
        "rf64.wav": ("-rf64", "always", "-c:a", "pcm_s16le"),
    },
    "W64": {"pcm.w64": ("-c:a", "pcm_s16le"), "pcm24.w64": ("-c:a", "pcm_s24le")},
    "AIFF": {
        "pcm.aiff": ("-c:a", "pcm_s16be"),
        "pcm24.aiff": ("-c:a", "pcm_s24be"),
        "float.aiff": ("-c:a", "pcm_f32be"),
        "ima.aiff": ("-c:a", "adpcm_ima_qt"),
    },
    "CAF": {
        "pcm.caf": ("-c:a", "pcm_s16le"),
        "pcm24.caf": ("-c:a", "pcm_s24be"),
        "alac.caf": ("-c:a", "alac"),
        "ima.caf": ("-c:a", "adpcm_ima_qt"),
    },
    "AU": {"pcm.au": ("-c:a", "pcm_s16be"), "mulaw.au": ("-c:a", "pcm_mulaw")},
    "VOC": {"pcm.voc": ("-c:a", "pcm_s16le"), "u8.voc": ("-c:a", "pcm_u8")},
    "AVI": {
        "pcm.avi": ("-c:a", "pcm_s16le"),
        "adpcm_ms.avi": ("-c:a", "adpcm_ms"),
        "adpcm_ima.avi": ("-c:a", "adpcm_ima_wav"),
        "mp3.avi": ("-c:a", "libmp3lame"),
        "ac3.avi": ("-c:a", "ac3"),
        "wmav2.avi": ("-c:a", "wmav2"),
    },
    "FLAC": {"16.flac": ("-sample_fmt", "s16"), "24.flac": ("-sample_fmt", "s32")},
    "WavPack": {"pcm.wv": ("-c:a", "wavpack")},
    "TTA": {"pcm.tta": ("-c:a", "tta")},
    "MP3": {
        "cbr.mp3": ("-c:a", "libmp3lame"),
        "vbr.mp3": ("-c:a", "libmp3lame", "-q:a", "4"),
        "without_xing.mp3": ("-c:a", "libmp3lame", "-write_xing", "0"),
        "vbr_without_xing.mp3": ("-c:a", "libmp3lame", "-q:a", "5", "-write_xing", "0"),
        "low_rate.mp3": ("-c:a", "libmp3lame", "-ar", "22050"),
        "layer2.mp2": ("-c:a", "mp2"),
    },
    "ADTS AAC": {"cbr.aac": ("-c:a", "aac"), "vbr.aac": ("-c:a", "aac", "-q:a", "1")},
    "AC-3": {"pcm.ac3": ("-c:a", "ac3"), "enhanced.eac3": ("-c:a", "eac3")},
    "DTS": {"core.dts": ("-c:a", "dca", "-strict", "-2")},
    "Ogg": {
        "vorbis.ogg": ("-c:a", "libvorbis"),
        "opus.opus": (*_STEREO_48, "-c:a", "libopus"),
        "opus_60_ms.opus": (*_STEREO_48, "-c:a", "libopus", "-frame_duration", "60"),
        "opus_mono.opus": (*_MONO_16, "-c:a", "libopus"),
        "speex.spx": (*_MONO_16, "-c:a", "libspeex"),
        "speex_narrow.spx": (*_MONO_8, "-c:a", "libspeex"),
        "flac.oga": ("-c:a", "flac"),
    },
    "MP4, M4A, MOV, 3GP": {
        "aac.m4a": ("-c:a", "aac"),
        "alac.m4a": ("-c:a", "alac"),
        "ac3.mp4": ("-c:a", "ac3"),
        "mp3.mp4": ("-c:a", "libmp3lame"),
        "opus.mp4": (*_STEREO_48, "-c:a", "libopus", "-strict", "-2"),
        "flac.mp4": ("-c:a", "flac", "-strict", "-2"),
        "pcm.mov": ("-c:a", "pcm_s16le"),
        "pcm24.mov": ("-c:a", "pcm_s24le"),
        "ima.mov": ("-c:a", "adpcm_ima_qt"),
        "aac.3gp": ("-c:a", "aac"),
        "fragmented.mp4": (
            *("-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"),
            *("-frag_duration", "500000"),
        ),
    },
    "Matroska, WebM": {
        "aac.mkv": ("-c:a", "aac"),
        "ac3.mkv": ("-c:a", "ac3"),
        "flac.mkv": ("-c:a", "flac"),
        "mp3.mkv": ("-c:a", "libmp3lame"),
        "opus.webm": (*_STEREO_48, "-c:a", "libopus"),
        "pcm.mkv": ("-c:a", "pcm_s16le"),
        "tta.mkv": ("-c:a", "tta"),
        "vorbis.webm": ("-c:a", "libvorbis"),
        "wavpack.mkv": ("-c:a", "wavpack"),
    },
    "ASF (WMA)": {
        "wmav1.wma": ("-c:a", "wmav1"),
        "wmav2.wma": ("-c:a", "wmav2"),
        "wmav2_low.wma": (*_MONO_16, "-c:a", "wmav2", "-b:a", "32k"),
        "pcm.asf": ("-c:a", "pcm_s16le"),
        "mp3.asf": ("-c:a", "libmp3lame"),
    },
    "FLV": {"aac.flv": ("-c:a", "aac"), "mp3.flv": ("-c:a", "libmp3lame")},
    "MPEG-TS, MPEG-PS": {
        "aac.ts": ("-c:a", "aac"),
        "ac3.ts": ("-c:a", "ac3"),
        "mp2.ts": ("-c:a", "mp2"),
        "opus.ts": (*_STEREO_48, "-c:a", "libopus"),
        "mp2.mpg": ("-c:a", "mp2"),
        "ac3.mpg": ("-c:a", "ac3"),
    },
    "G.722, GSM": {
        "raw.g722": (*_MONO_16, "-c:a", "g722"),
        "raw.gsm": (*_MONO_8, "-c:a", "libgsm"),
    },
}
"""Row of docs/formats.md → file → arguments of ffmpeg."""
FILES = {file: options for files in FORMATS.values() for file, options in files.items()}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Samples]]:
    """Each file, and what ffmpeg decodes of it."""
    folder = tmp_path_factory.mktemp("formats")
    noise = np.random.default_rng(0).standard_normal((2, round(SECONDS * 44_100)), np.float32)
    source = folder / "source.wav"
    samples = sound(SECONDS, 44_100, 2) + np.float32(0.02) * noise
    source.write_bytes(write_wav(samples, 44_100))
    encode_all(source, {folder / name: options for name, options in FILES.items()})
    by_path = decode_all([folder / name for name in FILES], folder)
    return {path.name: (path, samples) for path, samples in by_path.items()}


@pytest.mark.parametrize("name", FILES)
def test_samples_are_those_of_ffmpeg(
    name: str, decoded: dict[str, tuple[Path, Samples]], tmp_path: Path
) -> None:
    path, expected = decoded[name]
    waveform = load_waveform(path)
    assert isinstance(waveform, Waveform)
    assert abs(waveform.samples.size - expected.size) <= 640  # one audio token
    assert waveform.duration_seconds == pytest.approx(SECONDS, abs=0.1)
    size = min(waveform.samples.size, expected.size)
    # Before version 7, FFmpeg rounded the steps of IMA ADPCM otherwise than its specification.
    tolerance = 2e-3 if name in ("adpcm_ima_wav.wav", "adpcm_ima.avi") else 1e-4
    np.testing.assert_allclose(waveform.samples[:size], expected[:size], atol=tolerance)
    if path.suffix in (".gsm", ".g722"):
        return  # known by their names alone
    np.testing.assert_array_equal(load_waveform(path.read_bytes()).samples, waveform.samples)


def test_the_documentation_lists_these_formats() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    table = page.split("\n## ")[1]
    rows = re.findall(r"^\| ([^|]+?) \|", table, re.M)[1:]
    assert [row for row in rows if set(row) - set("-: ")] == list(FORMATS)

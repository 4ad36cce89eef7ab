"""Synthetic audio, and files of it in all formats that tests need, by libsndfile and FFmpeg."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

Samples = np.ndarray[Any, np.dtype[np.float32]]

CONTAINERS = {
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "vorbis"),
    "opus": ("ogg", "libopus"),
    "m4a": ("ipod", "aac"),
    "webm": ("webm", "libopus"),
    "mkv": ("matroska", "libopus"),
    "flac": ("flac", "flac"),
}
"""Name → FFmpeg's container and codec."""


def sound(seconds: float = 2.0, rate: int = 48_000, channels: int = 1, seed: int = 0) -> Samples:
    """Chords with slow tremolo, different in each channel: (channels, samples), peak 0.6."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    waves = np.zeros((channels, time.size))
    for channel in waves:
        for pitch in random.uniform(80, min(3000, rate / 5), size=6):
            envelope = 1 + np.sin(2 * np.pi * (random.uniform(0.5, 3) * time + random.uniform()))
            channel += envelope * np.sin(2 * np.pi * (pitch * time + random.uniform()))
    return (0.6 * waves / max(np.abs(waves).max(initial=0), 1e-9)).astype(np.float32)


def encode(samples: Samples, rate: int, name: str) -> bytes:
    """A file's bytes in a format of `CONTAINERS`. `samples` have shape (channels, samples)."""
    return encode_as(samples, rate, *CONTAINERS[name])


def encode_as(samples: Samples, rate: int, container_name: str, codec: str) -> bytes:
    """A file's bytes in any container and codec of FFmpeg's."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_name) as container:
        _add_audio(container, samples, rate, codec)
    return buffer.getvalue()


def encode_video(
    samples: Samples | None,
    rate: int = 48_000,
    container: str = "mp4",
    seconds: float = 2.0,
) -> bytes:
    """The bytes of a small video file, with an audio track if `samples` are given."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as video:
        picture: Any = video.add_stream("mpeg4" if container == "mp4" else "libvpx", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        audio = None
        if samples is not None:
            audio = _audio_stream(video, samples, rate, "aac" if container == "mp4" else "libopus")
        for number in range(round(10 * seconds)):
            image = np.full((64, 64, 3), number * 10 % 255, np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                video.mux(packet)
            if samples is not None:  # interleaved, as a recorder writes
                start = number * rate // 10
                _mux(video, audio, samples[:, start : start + rate // 10], rate, start)
        for stream in (picture, audio):
            if stream is not None:
                for packet in stream.encode(None):
                    video.mux(packet)
    return buffer.getvalue()


def write_wav(
    samples: Samples,
    rate: int,
    subtype: str = "PCM_16",
    endian: str = "FILE",
    container: str = "WAV",
) -> bytes:
    """A file's bytes by libsndfile: WAV, AIFF, W64, FLAC and others."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples.T, rate, subtype=subtype, endian=endian, format=container)
    return buffer.getvalue()


def _add_audio(container: Any, samples: Samples, rate: int, codec: str) -> None:
    stream = _audio_stream(container, samples, rate, codec)
    _mux(container, stream, samples, rate)
    for packet in stream.encode(None):
        container.mux(packet)


def _audio_stream(container: Any, samples: Samples, rate: int, codec: str) -> Any:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    stream = container.add_stream(codec, rate=rate, layout=layout)
    stream.time_base = Fraction(1, rate)
    if codec == "vorbis":
        stream.codec_context.options = {"strict": "experimental"}
    return stream


def _mux(container: Any, stream: Any, samples: Samples, rate: int, start: int = 0) -> None:
    if not samples.size:
        return
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples), format="fltp", layout=stream.layout.name
    )
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = start
    for packet in stream.encode(frame):
        container.mux(packet)


def write_broken_files(folder: Path) -> list[Path]:
    """Write one file of every kind that can't be decoded in full; returns their paths."""
    samples = sound(2.0, channels=2)
    flac, mp3, ogg = (encode(samples, 48_000, name) for name in ("flac", "mp3", "ogg"))
    wav = write_wav(samples, 48_000)
    contents = {
        "empty.wav": b"",
        "text.mp3": b"not a sound, but words about one\n" * 30,
        "page.flac": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "cut.wav": wav[: len(wav) // 2],
        "cut.flac": flac[: len(flac) // 2],
        "cut.ogg": ogg[: len(ogg) // 2],
        "zeroed.mp3": mp3[: len(mp3) // 2] + bytes(len(mp3) // 8) + mp3[len(mp3) * 5 // 8 :],
        "header.wav": wav[:40],
        "silent film.mp4": encode_video(None),
        "infinite.wav": write_wav(np.full((1, 4000), np.inf, np.float32), 48_000, "FLOAT"),
        "nothing.wav": write_wav(np.zeros((1, 0), np.float32), 48_000),
    }
    paths = []
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        paths.append(path)
    dangling = folder / "link.wav"
    dangling.symlink_to(folder / "gone.wav")
    return [*paths, dangling]

"""Sound, and files of it in every format that the tests need, written by libsndfile and FFmpeg."""

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
    """Chords with slow swells, different in each channel, shape (channels, samples), peak 0.6."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    parts = np.zeros((channels, time.size))
    for channel in parts:
        for pitch in random.uniform(80, min(3000, rate / 5), size=6):
            swell = 1 + np.sin(2 * np.pi * (random.uniform(0.5, 3) * time + random.uniform()))
            channel += swell * np.sin(2 * np.pi * (pitch * time + random.uniform()))
    return (0.6 * parts / max(np.abs(parts).max(initial=0), 1e-9)).astype(np.float32)


def encode(samples: Samples, rate: int, name: str) -> bytes:
    """A file's bytes in a format of `CONTAINERS`. `samples` have shape (channels, samples)."""
    container_name, codec = CONTAINERS[name]
    opened = io.BytesIO()
    with av.open(opened, "w", format=container_name) as container:
        _add_sound(container, samples, rate, codec)
    return opened.getvalue()


def with_picture(
    samples: Samples | None,
    rate: int = 48_000,
    container: str = "mp4",
    seconds: float = 2.0,
) -> bytes:
    """A film: a small moving picture, and sound where `samples` are given."""
    opened = io.BytesIO()
    with av.open(opened, "w", format=container) as film:
        picture: Any = film.add_stream("mpeg4" if container == "mp4" else "libvpx", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        audio = None
        if samples is not None:
            audio = _sound_stream(film, samples, rate, "aac" if container == "mp4" else "libopus")
        for number in range(round(10 * seconds)):
            image = np.full((64, 64, 3), number * 10 % 255, np.uint8)
            for packet in picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                film.mux(packet)
            if samples is not None:  # in turn, as a recorder does
                start = number * rate // 10
                _mux(film, audio, samples[:, start : start + rate // 10], rate, start)
        for stream in (picture, audio):
            if stream is not None:
                for packet in stream.encode(None):
                    film.mux(packet)
    return opened.getvalue()


def write_wav(
    samples: Samples,
    rate: int,
    subtype: str = "PCM_16",
    endian: str = "FILE",
    container: str = "WAV",
) -> bytes:
    """A file's bytes by libsndfile: WAV, AIFF, W64, FLAC and others."""
    opened = io.BytesIO()
    soundfile.write(opened, samples.T, rate, subtype=subtype, endian=endian, format=container)
    return opened.getvalue()


def _add_sound(container: Any, samples: Samples, rate: int, codec: str) -> None:
    stream = _sound_stream(container, samples, rate, codec)
    _mux(container, stream, samples, rate)
    for packet in stream.encode(None):
        container.mux(packet)


def _sound_stream(container: Any, samples: Samples, rate: int, codec: str) -> Any:
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
    """One of every kind that can't be heard in full: each has to be named, and stop nobody."""
    whole = sound(2.0, channels=2)
    flac, mp3, ogg = (encode(whole, 48_000, name) for name in ("flac", "mp3", "ogg"))
    wav = write_wav(whole, 48_000)
    contents = {
        "empty.wav": b"",
        "text.mp3": b"not a sound, but words about one\n" * 30,
        "page.flac": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "cut.wav": wav[: len(wav) // 2],
        "cut.flac": flac[: len(flac) // 2],
        "cut.ogg": ogg[: len(ogg) // 2],
        "zeroed.mp3": mp3[: len(mp3) // 2] + bytes(len(mp3) // 8) + mp3[len(mp3) * 5 // 8 :],
        "header.wav": wav[:40],
        "silent film.mp4": with_picture(None),
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

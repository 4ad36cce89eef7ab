"""Decoded frames of FFmpeg's: mixed to mono, and silence for those that it leaves out."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import av
import numpy as np
from jaxtyping import Float32

__all__ = ["AudioChunk", "MonoSamples", "comfort_noise", "mono_samples"]

MonoSamples = Float32[np.ndarray, "samples"]


class AudioChunk(NamedTuple):
    """Consecutive mono samples, and their sampling rate, which may change within a file."""

    samples: MonoSamples
    rate_hz: int


def comfort_noise(stream: Any, packet: bytes) -> av.AudioFrame | None:
    """Silence for a frame of AMR in which nothing was transmitted, which FFmpeg does not decode.

    Frame types from 8 (AMR) and 9 (AMR-WB) on hold no speech (3GPP TS 26.101 and 26.201, table 1a);
    a frame lasts 20 ms.
    """
    first_without_speech = {"amrnb": 8, "amrwb": 9}.get(stream.codec_context.name)
    if first_without_speech is None or not packet or packet[0] >> 3 & 15 < first_without_speech:
        return None
    silence = np.zeros((1, stream.sample_rate // 50), np.float32)
    frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
    frame.sample_rate = stream.sample_rate
    return frame


def mono_samples(frame: av.AudioFrame) -> MonoSamples:
    """Mean of the channels in [-1, 1]: integers divided by full scale, 8 bit (unsigned) centred."""
    samples = cast(Any, frame.to_ndarray())
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    channels = len(samples)
    with np.errstate(over="ignore", invalid="ignore"):  # Waveform reports what is not finite
        mono = samples[0].astype(np.float32)
        for channel in samples[1:]:  # several times as fast as the mean of an axis
            np.add(mono, channel, out=mono, dtype=np.float32, casting="unsafe")
        if samples.dtype == np.uint8:
            mono -= 128 * channels
        if channels > 1:
            mono /= channels
        if np.issubdtype(samples.dtype, np.integer):
            mono /= 2 ** (8 * samples.dtype.itemsize - 1)
    return cast(MonoSamples, mono)

"""Ogg Opus encoding of audio that HTML pages embed as data URIs."""

from __future__ import annotations

import base64
import io
from fractions import Fraction

import numpy as np
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ

__all__ = ["DATA_URI_BYTES_PER_SECOND", "data_uri", "encode_opus"]

_BITS_PER_SECOND = 24_000
DATA_URI_BYTES_PER_SECOND = _BITS_PER_SECOND / 8 * 4 / 3
"""Bytes of a data URI for one second of audio: base64 writes 4 characters for 3 bytes."""
_FRAME_SAMPLES = SAMPLE_RATE_HZ // 50
"""20 ms: Opus encodes whole frames."""


def encode_opus(samples: Float32[np.ndarray, "samples"]) -> bytes:
    """Mono samples at 16 kHz → an Ogg Opus file of 24 kbit/s; samples are clipped to [-1, 1].

    The same samples are the same bytes.
    """
    import av

    file = io.BytesIO()
    padded = np.clip(np.pad(samples, (0, -len(samples) % _FRAME_SAMPLES)), -1, 1)
    exact = {"fflags": "+bitexact"}  # else the stream's serial number is random
    with av.open(file, "w", format="ogg", options=exact) as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = _BITS_PER_SECOND
        stream.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame = av.AudioFrame.from_ndarray(padded[None], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return file.getvalue()


def data_uri(ogg: bytes) -> str:
    """An Ogg file as a `data:` URI."""
    return "data:audio/ogg;base64," + base64.b64encode(ogg).decode("ascii")

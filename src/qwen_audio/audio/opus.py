"""Windows of recordings → small Ogg files with Opus inside, to be heard in a page."""

from __future__ import annotations

import base64
import io
from fractions import Fraction

import numpy as np
from jaxtyping import Float32

from .waveform import SAMPLE_RATE_HZ

__all__ = ["BYTES_PER_SECOND", "data_address", "opus"]

_BITS_PER_SECOND = 24_000
BYTES_PER_SECOND = _BITS_PER_SECOND / 8 * 4 / 3
"""Of a page, for a second of sound: in base64 four letters say three bytes."""
_BLOCK = SAMPLE_RATE_HZ // 50


def opus(samples: Float32[np.ndarray, "samples"]) -> bytes:
    """Mono samples at 16 kHz → an Ogg file of 24 kbit/s. Beyond full scale they are clipped."""
    import av

    opened = io.BytesIO()
    whole = np.clip(np.pad(samples, (0, -len(samples) % _BLOCK)), -1, 1)
    with av.open(opened, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE_HZ, layout="mono")
        stream.bit_rate = _BITS_PER_SECOND
        stream.time_base = Fraction(1, SAMPLE_RATE_HZ)
        frame = av.AudioFrame.from_ndarray(whole[None], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE_HZ, Fraction(1, SAMPLE_RATE_HZ)
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return opened.getvalue()


def data_address(content: bytes) -> str:
    """What stands in a page in place of a file's address."""
    return "data:audio/ogg;base64," + base64.b64encode(content).decode("ascii")

"""Decoding of uploads: recordings that take long are decoded one at a time, beside all others."""

from __future__ import annotations

import dataclasses
import io
import threading

from qwen_audio.audio.decode_limits import DecodeLimits
from qwen_audio.audio.load import load_waveform
from qwen_audio.audio.waveform import Waveform
from qwen_audio.errors import DecodeLimitError

from .asgi import RequestError
from .limits import ServerLimits

__all__ = ["UploadDecoder"]

_QUICK_CHANNEL_SAMPLES = 2**26
"""Ten minutes at 48 kHz in stereo have fewer: a second of work."""
_QUICK_READING_SECONDS = 1.0


class UploadDecoder:
    """Decodes uploads from any number of threads.

    Nothing that a file states is believed: decoding begins with a small limit, and only a recording
    that exceeds it waits for its turn, after which it is decoded again from its start.

    Attributes:
        waiting_limit: long recordings that may wait; the threads of a server should be more.
    """

    waiting_limit = 12

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._quick_limits = dataclasses.replace(
            limits.decoding,
            max_channel_samples=min(limits.decoding.max_channel_samples, _QUICK_CHANNEL_SAMPLES),
            max_reading_seconds=_QUICK_READING_SECONDS,
        )
        self._waiting = threading.BoundedSemaphore(self.waiting_limit)
        self._turn = threading.Lock()

    def decode(self, name: str, data: bytes) -> Waveform:
        """The recording in an uploaded file.

        Raises:
            AudioError: if it can't be decoded or exceeds the limits.
            RequestError: (503) if too many long recordings wait.
        """
        try:
            return self._load(name, data, self._quick_limits)
        except DecodeLimitError as error:
            if error.limit not in ("max_channel_samples", "max_reading_seconds"):
                raise
        if not self._waiting.acquire(blocking=False):
            raise RequestError(
                503, "Other long recordings are being decoded: try again in a moment."
            )
        try:
            with self._turn:
                return self._load(name, data, self._limits.decoding)
        finally:
            self._waiting.release()

    def _load(self, name: str, data: bytes, limits: DecodeLimits) -> Waveform:
        file = io.BytesIO(data)
        file.name = name
        try:
            return load_waveform(file, limits=limits)
        except DecodeLimitError as error:
            if error.limit != "max_seconds":
                raise
            raise DecodeLimitError(
                error.limit,
                f"{name} is longer than {self._limits.recording_text}, the limit of this server: "
                "choose a shorter recording, or cut it.",
            ) from error

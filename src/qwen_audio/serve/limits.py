"""Limits of a server: sizes, deadlines, connections, and what it decodes."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio.audio.decode_limits import DecodeLimits
from qwen_audio.errors import OptionError, number_option

__all__ = ["ApiLimits", "ServerLimits"]

_CHANNEL_SAMPLES_PER_SECOND = 8 * 48_000
"""Highest product of rate and channels of a recording of full length: 7.1, or 192 kHz stereo."""
_READING_SECONDS = 10.0
"""Processor time to read a file's headers and packets."""


@dataclass(frozen=True)
class ServerLimits:
    """Limits on what clients can request, and how long they may take to do so.

    Attributes:
        recording_seconds: longest recording accepted.
        upload_bytes: largest file accepted.
        request_bytes: largest body of any other request.
        memory_bytes: for all clients' recordings, their cached results, and uploads, which may take
            a quarter of it.
        connections: open at the same time; streams, which stay open, may be half of them.
        header_seconds: from the start of a connection, or the end of the last response, to the end
            of a request's headers; and how long a client may leave a response unread.
        body_seconds: from the first to the last byte of a body.
        body_idle_seconds: between two parts of a body.
        body_bytes_per_second: slowest upload accepted, after `body_idle_seconds`.

    Raises:
        OptionError: for a value that isn't a positive number.
    """

    recording_seconds: float = 600.0
    upload_bytes: int = 64 * 2**20
    request_bytes: int = 64 * 2**10
    memory_bytes: int = 2**30
    connections: int = 512
    header_seconds: float = 15.0
    body_seconds: float = 900.0
    body_idle_seconds: float = 15.0
    body_bytes_per_second: int = 16 * 2**10

    def __post_init__(self) -> None:
        for name, given in vars(self).items():
            value = number_option(name, given, "a number greater than 0")
            if not value > 0:
                raise OptionError(f"{name}={value:g}: use a number greater than 0")

    @property
    def upload_memory_bytes(self) -> int:
        """For uploads that are being received or wait to be opened; at least one fits."""
        return max(self.memory_bytes // 4, self.upload_bytes)

    @property
    def decoding(self) -> DecodeLimits:
        """What decoding one recording may take."""
        return DecodeLimits(
            max_seconds=self.recording_seconds,
            max_channel_samples=self.recording_seconds * _CHANNEL_SAMPLES_PER_SECOND,
            max_stream_bytes=self.upload_bytes,
            max_reading_seconds=_READING_SECONDS,
        )

    @property
    def recording_text(self) -> str:
        """`recording_seconds` for display, such as "10 minutes"."""
        minutes = self.recording_seconds / 60
        if minutes == 1:
            return "1 minute"
        if minutes < 2:
            return f"{self.recording_seconds:g} seconds"
        return f"{minutes:g} minutes"

    @property
    def upload_text(self) -> str:
        """`upload_bytes` for display, such as "64 MB"."""
        return f"{self.upload_bytes / 2**20:g} MB"


@dataclass(frozen=True)
class ApiLimits(ServerLimits):
    """Limits of a server, and of the HTTP API's requests, queue and answers.

    `request_bytes` is of a request with its recordings in base64.

    Attributes:
        queue_size: requests that wait for the model, or are decoded; further ones are refused.
        slots: texts that are generated at the same time.
        inputs: recordings in one request.
        request_seconds: all recordings of one request together: 256 MB of samples.
        response_bytes: largest response of hidden states.
        new_tokens: of one answer.
        scored_characters: of the choices of one request, and of its prompt.
        choice_tokens: of all choices of one request together: four passes for each window.
        scores: log-probabilities in one response: of a choice's token in a window.
        fetch_seconds: to fetch all recordings of a request that it names by address.
        drain_seconds: that requests have to end when the server stops.

    Raises:
        OptionError: for a value that isn't a positive number.
    """

    upload_bytes: int = 40 * 2**20
    request_bytes: int = 40 * 2**20
    queue_size: int = 64
    slots: int = 16
    inputs: int = 64
    request_seconds: float = 4_000.0
    response_bytes: int = 256 * 2**20
    new_tokens: int = 2_048
    scored_characters: int = 2**18
    choice_tokens: int = 4_096
    scores: int = 2**19
    fetch_seconds: float = 30.0
    drain_seconds: float = 60.0

"""Limits on uploads, memory, queue length and answer length."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio import OptionError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits on what visitors can request.

    Attributes:
        recording_seconds: longest recording accepted.
        upload_bytes: largest file accepted.
        queue_size: requests that wait for the model; further ones are rejected with a message.
        memory_bytes: for all visitors' recordings and their cached results; above it, the sessions
            used least recently are removed.
        idle_seconds: sessions without a request for this long are removed.
        max_new_tokens: of one answer.

    Raises:
        OptionError: for a value that isn't a positive number.
    """

    recording_seconds: float = 600.0
    upload_bytes: int = 64 * 2**20
    queue_size: int = 120
    memory_bytes: int = 2**30
    idle_seconds: float = 1800.0
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or not value > 0:
                raise OptionError(f"{name}={value!r}: use a number greater than 0")

    @property
    def recording_text(self) -> str:
        """`recording_seconds` for display, such as "10 minutes"."""
        minutes = self.recording_seconds / 60
        if minutes < 2:
            return f"{self.recording_seconds:g} seconds"
        return f"{minutes:g} minutes"

    @property
    def upload_text(self) -> str:
        """`upload_bytes` for display, such as "64 MB"."""
        return f"{self.upload_bytes / 2**20:g} MB"

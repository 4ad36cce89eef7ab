"""How much the playground takes, so that it stays up whoever comes."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio import OptionError

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """What visitors may ask of it.

    Attributes:
        recording_seconds: the longest recording taken.
        upload_bytes: the largest file taken.
        waiting: requests that wait for their turn; more are turned away with a sentence.
        memory_bytes: what all visitors' recordings and what was computed of them may take; when it
            is used up, the visitor who has been quiet the longest is forgotten.
        idle_seconds: after so long without a request a visitor is forgotten.
        answer_tokens: of one answer.

    Raises:
        OptionError: for what is no positive number.
    """

    recording_seconds: float = 600.0
    upload_bytes: int = 64 * 2**20
    waiting: int = 120
    memory_bytes: int = 2**30
    idle_seconds: float = 1800.0
    answer_tokens: int = 256

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, int | float) or not value > 0:
                raise OptionError(f"{name}={value!r}: use a number greater than 0")

    @property
    def longest(self) -> str:
        """In words, such as "10 minutes"."""
        minutes = self.recording_seconds / 60
        if minutes < 2:
            return f"{self.recording_seconds:g} seconds"
        return f"{minutes:g} minutes"

    @property
    def largest(self) -> str:
        """In words, such as "64 MB"."""
        return f"{self.upload_bytes / 2**20:g} MB"

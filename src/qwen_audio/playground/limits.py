"""Limits on what visitors of the playground can request."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio.serve.limits import ServerLimits

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits(ServerLimits):
    """Limits of a server, and of the page's queue, sessions and answers.

    Above `memory_bytes`, the sessions used least recently are removed.

    Attributes:
        queue_size: requests that wait for the model; further ones are rejected with a message.
        idle_seconds: sessions without a request for this long are removed.
        max_new_tokens: of one answer.

    Raises:
        OptionError: for a value that isn't a positive number.
    """

    queue_size: int = 120
    idle_seconds: float = 1800.0
    max_new_tokens: int = 256

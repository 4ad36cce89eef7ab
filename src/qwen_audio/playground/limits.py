"""Limits on what visitors of the playground can request."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_audio.errors import counted
from qwen_audio.serve.limits import ServerLimits

__all__ = ["DEMO_LIMITS", "Limits"]


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

    @property
    def summary(self) -> str:
        """What visitors should know beside the size of recordings, for display."""
        return (
            f"Answers have at most {counted(self.max_new_tokens, 'token')}, at most "
            f"{counted(self.queue_size, 'request')} may wait, and recordings and results are "
            f"deleted after {self.idle_seconds / 60:g} minutes without a request."
        )


DEMO_LIMITS = Limits(
    recording_seconds=60.0,
    upload_bytes=10 * 2**20,  # a minute of 16-bit stereo at 44.1 kHz is 10.1 MB of 10^6 bytes
    memory_bytes=256 * 2**20,
    connections=128,
    body_seconds=120.0,  # an upload of full size arrives at 87 kB/s or more
    queue_size=16,
    idle_seconds=300.0,
    max_new_tokens=64,
)
"""Of a public machine with small hardware and visitors nobody knows: `qwen-audio play --demo`."""

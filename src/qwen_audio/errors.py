"""Exception hierarchy.

Every message is one line that states what was given, what is allowed, and what to do next.
The command line prints that line and nothing else.
"""

from __future__ import annotations

__all__ = [
    "AudioError",
    "CheckpointError",
    "CollectionError",
    "MissingExtraError",
    "OptionError",
    "QwenAudioError",
    "TapError",
]


class QwenAudioError(Exception):
    """Base class of all errors that this package raises deliberately."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class AudioError(QwenAudioError, ValueError):
    """Audio that can't be processed in full: missing, undecodable, truncated, empty, not finite."""


class TapError(QwenAudioError, ValueError):
    """A tap that this model does not have, or a malformed tap name."""


class OptionError(QwenAudioError, ValueError):
    """An option with an invalid value, or in a combination in which it would have no effect."""


class CheckpointError(QwenAudioError):
    """A checkpoint that can't be found, or whose tensors don't match its configuration."""


class CollectionError(QwenAudioError):
    """A collection that doesn't exist, can't be written, or has another embedding spec."""


class MissingExtraError(QwenAudioError, ImportError):
    """An optional dependency isn't installed; the message has the command that installs it.

    Args:
        feature: what needs it, as the message's subject.
        extra: the package's extra that installs it.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra '{extra}', which is not installed: "
            f"pip install 'qwen-audio-playground[{extra}]'"
        )

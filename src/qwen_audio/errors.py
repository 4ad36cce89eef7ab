"""One tree of errors.

Every message is one line and says three things: what came, what is allowed, what to do next.
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
    """Root of every error that this package raises on purpose."""

    def __str__(self) -> str:
        return " ".join(super().__str__().split())


class AudioError(QwenAudioError, ValueError):
    """The audio can't be heard in full: missing, undecodable, cut short, empty or not finite."""


class TapError(QwenAudioError, ValueError):
    """No such place on this model's line."""


class OptionError(QwenAudioError, ValueError):
    """An option has a value, or stands in a combination, that would not do what it says."""


class CheckpointError(QwenAudioError):
    """The checkpoint can't be found, or isn't exactly what its configuration promises."""


class CollectionError(QwenAudioError):
    """The collection isn't there, can't be written, or was made with other settings."""


class MissingExtraError(QwenAudioError, ImportError):
    """An optional part of the package isn't installed; the message names the command."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(
            f"{need} needs the extra '{extra}', which is not installed: "
            f"pip install 'qwen-audio-playground[{extra}]'"
        )

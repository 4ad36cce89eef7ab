"""Exception hierarchy, and the check for optional dependencies.

Every message is one line that states what was given, what is allowed, and what to do next.
The command line prints that line and nothing else.
"""

from __future__ import annotations

import importlib.util
import re

from qwen_audio.paths import printable

__all__ = [
    "AudioError",
    "AudioWarning",
    "CheckpointError",
    "CollectionError",
    "MissingExtraError",
    "NotFiniteError",
    "OptionError",
    "QwenAudioError",
    "TapError",
    "check_extra",
]

_LINE_BREAK = re.compile(r"[ \t\r\n]*[\t\r\n][ \t\r\n]*")


class QwenAudioError(Exception):
    """Base class of all errors that this package raises deliberately."""

    def __str__(self) -> str:
        text = _LINE_BREAK.sub(" ", super().__str__())
        return printable(text.strip())


class AudioError(QwenAudioError, ValueError):
    """Audio that can't be processed in full: missing, undecodable, truncated, empty, not finite."""


class NotFiniteError(AudioError):
    """A recording whose rows overflow, or become NaN, at a tap in the dtype of the computation.

    Args:
        place: the first tap at which they do.
        dtype: such as "float16".
        advice: what to do.
        name: of the recording.
    """

    def __init__(self, place: str, dtype: str, advice: str, name: str = "") -> None:
        super().__init__(f"{name and f'{name}: '}{dtype} overflows at {place}: {advice}")
        self.place, self.dtype, self.advice, self.name = place, dtype, advice, name

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.place, self.dtype, self.advice, self.name)

    def named(self, name: str) -> NotFiniteError:
        """The same error with the recording's name, unless it has one."""
        return NotFiniteError(self.place, self.dtype, self.advice, self.name or name)

    def of_model(self, recordings: int) -> QwenAudioError:
        """The error for a model that overflows for all of so many recordings, this one first."""
        if recordings == 1:
            return self
        error_type = OptionError if self.dtype == "float16" else CheckpointError
        return error_type(
            f"{self.dtype} overflows at {self.place} for each of {recordings} recordings, such as "
            f"{self.name}: {self.advice}"
        )


class AudioWarning(UserWarning):
    """What was left out: other tracks of a file, damaged parts of it (with `on_damage`), an index
    among the columns of a manifest."""


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
        # Also right where the package comes from a clone or a wheel: an installed package satisfies
        # its own name, so that only what the extra lacks is fetched. uv's environments have no pip.
        installer = "pip" if importlib.util.find_spec("pip") else "uv pip"
        super().__init__(
            f"{feature} needs the extra [{extra}], which is not installed: "
            f"{installer} install 'qwen-audio-playground[{extra}]'"
        )


def check_extra(feature: str, extra: str, *modules: str) -> None:
    """Check that modules of an extra are installed, without importing them.

    Args:
        feature: what needs them, as the message's subject.
        extra: the extra that installs them.
        modules: their names.

    Raises:
        MissingExtraError: if one of them is missing.
    """
    specs = map(importlib.util.find_spec, modules)
    # Any folder on the path, such as a project's own datasets/, is a package without an origin.
    if any(spec is None or spec.origin is None for spec in specs):
        raise MissingExtraError(feature, extra)

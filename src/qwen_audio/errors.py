"""Exception hierarchy, and the checks of optional dependencies and of numbers given as options.

Every message is one line that states what was given, what is allowed, and what to do next.
The command line prints that line and nothing else.
"""

from __future__ import annotations

import importlib.util
import math
import re
from typing import Any

from qwen_audio.paths import printable

__all__ = [
    "AudioError",
    "AudioWarning",
    "CheckpointError",
    "CollectionError",
    "DecodeLimitError",
    "MissingExtraError",
    "NotFiniteError",
    "OptionError",
    "OutOfMemoryError",
    "QwenAudioError",
    "ScoreWarning",
    "TapError",
    "as_number",
    "check_extra",
    "counted",
    "number_option",
    "text_option",
    "whole_number_option",
]

_MAX_CHARACTERS = 1_000_000
"""Of a text: far more than fit in any model's context, and tokenised within a second."""
_SURROGATE = re.compile("[\ud800-\udfff]")

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


class DecodeLimitError(AudioError):
    """A recording takes more than a limit of `DecodeLimits`.

    Attributes:
        limit: name of the limit.
    """

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit

    def __reduce__(self) -> tuple[type, tuple[str, ...]]:
        return type(self), (self.limit, str(self))


class AudioWarning(UserWarning):
    """What was left out: other tracks of a file, damaged parts of it (with `on_damage`), an index
    among the columns of a manifest."""


class ScoreWarning(UserWarning):
    """Scores of choices that are hardly what the model would say."""


class TapError(QwenAudioError, ValueError):
    """A tap that this model does not have, or a malformed tap name."""


class OptionError(QwenAudioError, ValueError):
    """An option with an invalid value, or in a combination in which it would have no effect."""


class OutOfMemoryError(QwenAudioError, MemoryError):
    """A device that has less memory than a computation takes: less than was free at `load`, or a
    computation that takes more than its cost estimate."""


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


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things as text: 1 recording, 2 recordings.

    Args:
        plural: of the noun, where it isn't the noun with an s.
    """
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def as_number(value: Any) -> int | float | None:
    """A number of any type as Python's: an int, a float, NumPy's, a tensor's; None for others.

    Truth values, decimals, fractions and text are none, nor is an array with dimensions.
    """
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        if getattr(value.dtype, "kind", "f") not in "iuf":  # NumPy's; torch's dtypes have none
            return None
        value = value.item()
        value = float(value) if hasattr(value, "dtype") else value  # of more than 64 bits
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def number_option(name: str, value: Any, allowed: str = "a number") -> float:
    """The value of an option that takes a number, as a float.

    Its range is the caller's to check, which NaN and infinity are outside of.

    Args:
        allowed: what to use, for the message.

    Raises:
        OptionError: for anything but a number.
    """
    number = as_number(value)
    if number is None:
        raise OptionError(f"{name}={_shown(value)}: use {allowed}")
    try:
        return float(number)
    except OverflowError:  # an int of hundreds of digits
        return math.copysign(math.inf, number > 0 or -1)


def whole_number_option(name: str, value: Any, low: int, high: int = 2**31 - 1) -> int:
    """The value of an option that takes a whole number from `low` to `high`, as an int.

    Raises:
        OptionError: for anything else; 3.0 is a whole number.
    """
    number = as_number(value)
    if number is not None and low <= number <= high and number == int(number):
        return int(number)
    limit = f"2**{(high + 1).bit_length() - 1} - 1" if high > 2**16 else str(high)
    raise OptionError(f"{name}={_shown(value)}: use a whole number from {low} to {limit}")


def text_option(name: str, text: Any) -> str:
    """The value of an option that takes text.

    Raises:
        OptionError: for anything but text in Unicode, no longer than what any model reads.
    """
    if not isinstance(text, str):
        raise OptionError(f"{name}={text!r:.60} is not text")
    if len(text) > _MAX_CHARACTERS:
        raise OptionError(
            f"{name} has {len(text):,} characters, more than any model reads: use at most "
            f"{_MAX_CHARACTERS:,}"
        )
    if match := _SURROGATE.search(text):
        raise OptionError(
            f"{name} holds half a character, U+{ord(match[0]):04X} at position {match.start()}: "
            "give text in Unicode (a lone surrogate is what remains of text that was not UTF-8)"
        )
    return text


def _shown(value: Any) -> str:
    """A value of any type in a message, shortened."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 (also a ValueError, for an int of thousands of digits)
        text = f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:60]}…"

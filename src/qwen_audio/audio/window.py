"""Windows: the parts of a recording that a model processes at once, 30 s long by default."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qwen_audio.errors import OptionError, number_option

from .timecode import format_range

__all__ = ["MIN_SECONDS", "WINDOW_SECONDS", "Window", "WindowConfig", "WindowLimits"]

WINDOW_SECONDS = 30.0
"""Length of windows by default: what encoders that are made as Whisper's process at once."""
MIN_SECONDS = 0.04
"""Shortest recording: what the shortest audio token of any model stands for."""


@dataclass(frozen=True)
class Window:
    """Start and end of a window within its recording, in seconds.

    Raises:
        OptionError: unless they are numbers, in order, from 0 on.
    """

    start_seconds: float
    end_seconds: float

    def __post_init__(self) -> None:
        for name in ("start_seconds", "end_seconds"):
            seconds = number_option(name, getattr(self, name), "a number of seconds")
            object.__setattr__(self, name, seconds)
        if not 0 <= self.start_seconds <= self.end_seconds < math.inf:
            raise OptionError(
                f"a window from {self.start_seconds:g} to {self.end_seconds:g} s: use a start from "
                "0 on, and an end after it"
            )

    @property
    def duration_seconds(self) -> float:
        """Length of the window."""
        return self.end_seconds - self.start_seconds

    def __str__(self) -> str:
        return format_range(self.start_seconds, self.end_seconds)


@dataclass(frozen=True)
class WindowLimits:
    """How long a window of a model may be.

    Attributes:
        min_seconds: what one audio token stands for.
        max_seconds: what the model processes at once.
    """

    min_seconds: float = MIN_SECONDS
    max_seconds: float = WINDOW_SECONDS


_DEFAULT_LIMITS = WindowLimits()


@dataclass(frozen=True)
class WindowConfig:
    """Window and hop length by which recordings are divided into windows.

    Windows cover the whole recording: a hop longer than the window is an error, and the last window
    is as short as what is left, but at least as long as one audio token (one that would be shorter
    begins earlier). So equal settings always give equal windows, whose rows say where they begin
    and end.

    Attributes:
        window_seconds: within the limits.
        hop_seconds: from one window's start to the next; the window's length where None.
        limits: of the model.

    Raises:
        OptionError: if a length is no number or outside these limits.
    """

    window_seconds: float = WINDOW_SECONDS
    hop_seconds: float | None = None
    limits: WindowLimits = _DEFAULT_LIMITS

    def __post_init__(self) -> None:
        shortest, longest = self.limits.min_seconds, self.limits.max_seconds
        for name in ("window_seconds", "hop_seconds"):
            if (value := getattr(self, name)) is not None or name == "window_seconds":
                object.__setattr__(self, name, number_option(name, value, "a number of seconds"))
        hop_seconds = self.resolved_hop_seconds
        if not shortest <= self.window_seconds <= longest:
            raise OptionError(
                f"window_seconds={self.window_seconds}: the encoder processes {shortest} to "
                f"{longest:g} s at once"
            )
        if not shortest <= hop_seconds <= self.window_seconds:
            raise OptionError(
                f"hop_seconds={hop_seconds} with windows of {self.window_seconds:g} s: use "
                f"{shortest} s up to the window's length, or audio between windows would be "
                "left out"
            )

    @property
    def resolved_hop_seconds(self) -> float:
        """`hop_seconds`, or the window's length where that is None."""
        return self.window_seconds if self.hop_seconds is None else self.hop_seconds

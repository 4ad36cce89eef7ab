"""Times and durations as text."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """1:02:03 or 4:05, in whole seconds."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def moment(seconds: float, apart_seconds: float, *, long: bool = False) -> str:
    """A time in seconds, to the digits that tell it from one so far away; `long`: as a clock."""
    if long:
        return clock(seconds)
    digits = 0 if apart_seconds >= 10 else 1 if apart_seconds >= 0.1 else 2
    return f"{seconds:.{digits}f}"


def length_text(seconds: float) -> str:
    """40 ms, 6.5 s, or 4:05 min."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{clock(seconds)} min"


def _clock(seconds: float) -> str:
    """12:30, 1:02:03, or 0:07.25 where the second is not whole."""
    whole, fraction = divmod(round(seconds * 100), 100)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{fraction:02}" if fraction else text

"""Times and durations as text: the only place that formats them."""

from __future__ import annotations

__all__ = ["format_duration", "format_range", "format_time", "format_timecode"]


def format_timecode(seconds: float, decimals: int = 0) -> str:
    """Minutes and seconds, with hours from one hour up: 0:07, 4:05, 1:02:03.

    Args:
        decimals: digits of fractions of a second; omitted where the second is whole (12:30, but
            0:07.25 with two decimals).
    """
    ticks_per_second = 10**decimals
    whole, fraction = divmod(round(seconds * ticks_per_second), ticks_per_second)
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    text = f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
    return f"{text}.{fraction:0{decimals}}" if fraction else text


def format_range(start_seconds: float, end_seconds: float) -> str:
    """The time of a window: 0:07.25–0:12."""
    return f"{format_timecode(start_seconds, 2)}–{format_timecode(end_seconds, 2)}"


def format_time(seconds: float, spacing_seconds: float, *, as_timecode: bool = False) -> str:
    """A number of seconds without unit, for labels that lie `spacing_seconds` apart.

    Two neighbouring labels differ in their last digit: no decimals from a spacing of 10 s up, one
    from 0.1 s up, else two.

    Args:
        as_timecode: minutes and seconds instead, for recordings of minutes.
    """
    if as_timecode:
        return format_timecode(seconds)
    decimals = 0 if spacing_seconds >= 10 else 1 if spacing_seconds >= 0.1 else 2
    return f"{seconds:.{decimals}f}"


def format_duration(seconds: float) -> str:
    """A length with its unit: 40 ms, 6.5 s, 4:05 min, 1:02:03 h."""
    if seconds < 0.9995:  # from there on, three digits round up to a second
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{format_timecode(seconds)} {'min' if round(seconds) < 3600 else 'h'}"

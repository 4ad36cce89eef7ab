"""Panels of scores and classes: bars by window or recording, and reliability."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.reliability import Reliability
from qwen_audio.analysis.scores import Scores
from qwen_audio.audio.timecode import format_duration, format_range
from qwen_audio.errors import counted

from .panels import (
    Axis,
    Bars,
    Line,
    Panel,
    PanelBuilders,
    evenly_spaced,
    named_axis,
    short_name,
    time_axis,
)

__all__ = ["score_heading", "score_panels"]

_COLOURS = (
    *("#2f6fdb", "#e07b1a", "#2e9e5b", "#b8475a", "#8a63d2"),
    *("#1a9aa8", "#c9a227", "#d667a8", "#7a8b3c"),
)
"""Of the likeliest; all others are one bar, in grey."""
_REST = "#9aa1aa"
_MAX_NAMES, _MAX_LETTERS = 30, 32


def score_panels(result: Scores | Classification | Reliability) -> PanelBuilders:
    """The panels of a result, by name."""
    if isinstance(result, Reliability):
        return {"reliability": partial(_reliability, result)}
    if isinstance(result, Scores):
        return {"windows": partial(_windows, result, result.choices, result.probability)}
    if len(result) > 1:
        return {"recordings": partial(_recordings, result)}
    shares = result.window_probability()
    return {"windows": partial(_windows, result.scores[0], tuple(result.classes), shares)}


def score_heading(result: Scores | Classification | Reliability) -> tuple[str, str]:
    """Title and subtitle."""
    if isinstance(result, Reliability):
        error = result.expected_calibration_error
        count = counted(int(result.counts.sum()), "recording")
        return "Reliability", f"{count} · expected calibration error {error:.3f}"
    if isinstance(result, Classification) and len(result) > 1:
        classes = counted(len(result.classes), "class", "classes")
        lowest = f"the spellings have at least {result.mass.min():.2g} of the probability"
        return (
            "Zero-shot classification",
            f"{counted(len(result), 'recording')}, {classes} · {lowest}",
        )
    scores = result if isinstance(result, Scores) else result.scores[0]
    likeliest = scores.ranking()[0] if isinstance(result, Scores) else result.labels[0]
    seconds = format_duration(scores.windows[-1].end_seconds)
    mass = f"the choices have at least {scores.mass.min():.2g} of the probability"
    return short_name(scores.name), f"{seconds} · likeliest: {likeliest} · {mass}"


def _windows(scores: Scores, names: Sequence[str], shares: np.ndarray) -> list[Panel]:
    starts = np.array([window.start_seconds for window in scores.windows])
    ends = np.array([window.end_seconds for window in scores.windows])
    ends[:-1] = np.minimum(ends[:-1], starts[1:])  # of windows that overlap
    hover = [
        f"{format_range(window.start_seconds, window.end_seconds)}, mass {mass:.2g}"
        for window, mass in zip(scores.windows, scores.mass, strict=True)
    ]
    x = time_axis(float(ends[-1]))
    return [
        _stacked("Probability among the choices, by window", x, starts, ends, names, shares, hover)
    ]


def _recordings(result: Classification) -> list[Panel]:
    names = [short_name(name) for name in result.names]
    middles = np.arange(len(names), dtype=float)
    x = named_axis(names, "", _MAX_NAMES)
    x = Axis(
        "Recording", x.limits, (), x.ticks if len(names) <= _MAX_NAMES else _numbers(len(names))
    )
    edges = middles - 0.42, middles + 0.42
    hover = [f"{name}, mass {mass:.2g}" for name, mass in zip(names, result.mass, strict=True)]
    shares = result.probability
    title = "Probability among the classes, by recording"
    return [_stacked(title, x, *edges, tuple(result.classes), shares, hover)]


def _numbers(count: int) -> tuple[tuple[float, str], ...]:
    return tuple((float(k), str(k + 1)) for k in evenly_spaced(count, _MAX_NAMES))


def _stacked(
    title: str,
    x: Axis,
    starts: np.ndarray,
    ends: np.ndarray,
    names: Sequence[str],
    shares: np.ndarray,
    hover: Sequence[str],
) -> Panel:
    """Bars of shares that sum to 1, those of the likeliest names each in its colour."""
    shown = sorted(np.argsort(-shares.mean(axis=0), kind="stable")[: len(_COLOURS)])
    groups = [(names[k], shares[:, k], colour) for k, colour in zip(shown, _COLOURS, strict=False)]
    if rest := [k for k in range(len(names)) if k not in shown]:
        groups.append((counted(len(rest), "other"), shares[:, rest].sum(axis=1), _REST))
    marks, bottom = [], np.zeros(len(shares))
    for name, heights, colour in groups:
        texts = [f"{where}: {height:.3f}" for where, height in zip(hover, heights, strict=True)]
        label = name if len(name) <= _MAX_LETTERS else f"{name[: _MAX_LETTERS - 1]}…"
        marks.append(Bars(starts, ends - starts, bottom, heights, colour, label, texts))
        bottom = bottom + heights
    return Panel(title, 2.6, x, Axis("Probability", (0.0, 1.0)), tuple(marks))


def _reliability(result: Reliability) -> list[Panel]:
    diagonal = np.array([0.0, 1.0])
    hover = [
        f"right {accuracy:.3f} of {counted(int(count), 'recording')}"
        for accuracy, count in zip(result.accuracy, result.counts, strict=True)
    ]
    marks = (
        Line(diagonal, diagonal, style="dotted", colour="mark"),
        Line(
            result.confidence,
            result.accuracy,
            result.low,
            result.high,
            marker="o",
            marker_size=5.0,
            style="none",
            hover=hover,
        ),
    )
    x = Axis("Probability of the likeliest class")
    y = Axis("Share that is right (95 % interval)")
    title = "Above the dotted line: right more often than said; below: less"
    return [Panel(title, 4.2, x, y, marks)]

"""Panels of a View: waveform, spectrogram, hidden states, sections, norms by depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration, format_timecode

from .panels import (
    Axis,
    ColourStrip,
    Envelope,
    FigureSpec,
    Heatmap,
    Line,
    Panel,
    named_axis,
    short_name,
    time_axis,
)

__all__ = ["VIEW_PANELS", "missing_view_panels", "view_figure"]

_MAX_WINDOW_LINES, _MAX_LABELS = 200, 14
_MEL_RANGE_DB = 70.0
_MEL_TICKS_HZ = (250, 500, 1000, 2000, 4000)
_NO_TICKS = Axis(limits=(0.0, 1.0), ticks=())


def missing_view_panels(view: View) -> dict[str, str]:
    """The panels without data, and how to provide it."""
    missing = {
        "waveform": (view.envelope, "give View.of the waveform"),
        "mel": (view.log_mel, "give View.of the hidden states of mel"),
        "depth": (view.depth_norms, "ask for it (depth)"),
    }
    return {name: advice for name, (data, advice) in missing.items() if data is None}


def view_figure(view: View, names: tuple[str, ...]) -> FigureSpec:
    """The panels named, which must have data."""
    subtitle = (
        f"{format_duration(view.duration_seconds)} · {len(view.rows)} columns of "
        f"{format_duration(view.hop_seconds)} · width {view.rows.shape[1]} · {view.dtype}"
    )
    title = f"{short_name(view.name)} at {view.tap}"
    return FigureSpec(title, subtitle, tuple(VIEW_PANELS[name](view) for name in names))


def _over_time(view: View, name: str, title: str, height: float, y: Axis, mark: Any) -> Panel:
    starts = [window.start_seconds for window in view.windows[1:]]
    return Panel(
        name,
        title,
        height,
        time_axis(view.duration_seconds),
        y,
        mark,
        sections=view.boundaries.tolist(),
        windows=starts if len(starts) < _MAX_WINDOW_LINES else (),
    )


def _waveform(view: View) -> Panel:
    low, high = view.envelope if view.envelope is not None else np.zeros((2, 1))
    peak = max(float(-low.min()), float(high.max()), 1e-4) * 1.05
    y = Axis("Amplitude\n(full scale 1)", (-peak, peak))
    return _over_time(view, "waveform", "Waveform", 1.0, y, Envelope(low, high))


def _mel(view: View) -> Panel:
    log_mel = np.zeros((1, 1)) if view.log_mel is None else view.log_mel
    bands = log_mel.shape[1]
    y = named_axis([str(band) for band in range(bands)], "Mel band", 6)
    if view.mel_hz is not None:
        ticks = [hz for hz in _MEL_TICKS_HZ if hz < view.mel_hz[-1]]
        places = np.interp(ticks, view.mel_hz, np.arange(bands))
        names = tuple(f"{hz:.1f} Hz" for hz in view.mel_hz)
        texts = [f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}" for hz in ticks]
        shown = tuple(zip(places.tolist(), texts, strict=True))
        y = Axis("Frequency (Hz)", (-0.5, bands - 0.5), names=names, ticks=shown)
    top = float(log_mel.max())
    image = Heatmap(log_mel.T, "Power (dB)", "magma", (top - _MEL_RANGE_DB, top))
    return _over_time(view, "mel", "Log-mel spectrogram: the encoder's input", 1.9, y, image)


def _heat(view: View) -> Panel:
    image = Heatmap(view.deviations.T, "Standard deviations", "signed", (-3, 3))
    title = f"Hidden states at {view.tap}, each dimension standardised"
    y = Axis("Dimension", (0, view.rows.shape[1]))
    return _over_time(view, "heat", title, 1.9, y, image)


def _colours(view: View) -> Panel:
    title = "First three principal components as colours: similar colours, similar hidden states"
    x = time_axis(view.duration_seconds)
    return Panel("colours", title, 0.75, x, _NO_TICKS, ColourStrip(view.colours))


def _norms(view: View) -> Panel:
    curve = Line(view.seconds + view.hop_seconds / 2, view.norms)
    y = Axis("L2 norm", (0, float(view.norms.max()) * 1.05 or 1.0))
    x = time_axis(view.duration_seconds)
    return Panel("norms", "Norm of the hidden states", 1.1, x, y, curve)


def _novelty(view: View) -> Panel:
    half = format_duration(view.kernel_seconds / 2)
    found = "" if len(view.boundaries) else " (no section boundaries found)"
    known = view.novelty[np.isfinite(view.novelty)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    margin = max(high - low, 1e-3)
    y = Axis("Novelty\n(at most 1)", (low - 0.08 * margin, high + 0.35 * margin))
    long = view.duration_seconds > 120
    labels = [(s, format_timecode(s) if long else f"{s:.1f} s") for s in view.boundaries.tolist()]
    title = f"Novelty: {half} before against {half} after{found}"
    panel = _over_time(view, "novelty", title, 1.4, y, Line(view.seconds, view.novelty))
    shown = labels if len(labels) <= _MAX_LABELS else ()
    return Panel(**{**vars(panel), "labels": shown})


def _similarity(view: View) -> Panel:
    end = len(view.rows) * view.hop_seconds
    image = Heatmap(view.similarity, "Cosine after mean removal", "signed", (-1, 1))
    return Panel(
        "similarity",
        "Self-similarity of all pairs of moments",
        5.0,
        time_axis(end),
        time_axis(end),
        image,
        placement="square",
        sections=view.boundaries.tolist(),
    )


def _depth(view: View) -> Panel:
    low, middle, high = np.zeros((3, 1)) if view.depth_norms is None else view.depth_norms.T
    taps = view.depth_taps
    highlight = taps.index(str(view.tap)) if str(view.tap) in taps else None
    curve = Line(np.arange(len(middle)), middle, low, high, True, highlight)
    x = named_axis(taps, "Tap", 24, rotate=True)
    title = "Norm by depth: median, quartiles"
    return Panel("depth", title, 2.2, x, Axis("L2 norm", is_log=True), curve, placement="side")


VIEW_PANELS: dict[str, Callable[[View], Panel]] = {
    "waveform": _waveform,
    "mel": _mel,
    "heat": _heat,
    "colours": _colours,
    "norms": _norms,
    "novelty": _novelty,
    "similarity": _similarity,
    "depth": _depth,
}
"""From top to bottom."""

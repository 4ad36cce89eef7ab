"""Panels of a View: waveform, spectrogram, hidden states, sections, norms by depth."""

from __future__ import annotations

from functools import partial

import numpy as np

from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration, format_timecode
from qwen_audio.errors import counted

from .panels import Axis, Image, Line, Panel, PanelBuilders, named_axis, short_name, time_axis

__all__ = ["view_heading", "view_panels"]

_MAX_WINDOW_LINES, _MAX_LABELS = 200, 14
_MEL_RANGE_DB = 70.0
_MEL_TICKS_HZ = (250, 500, 1000, 2000, 4000)


def view_heading(view: View) -> tuple[str, str]:
    """Title and subtitle."""
    subtitle = (
        f"{format_duration(view.duration_seconds)} · {counted(len(view.rows), 'column')} of "
        f"{format_duration(view.hop_seconds)} · width {view.rows.shape[1]} · {view.dtype}"
    )
    return f"{short_name(view.name)} at {view.tap}", subtitle


def view_panels(view: View) -> PanelBuilders:
    """Builders of the panels, or how to provide their data."""
    envelope, log_mel, depth_norms = view.envelope, view.log_mel, view.depth_norms
    return {
        "waveform": "give View.of the waveform"
        if envelope is None
        else partial(_waveform, view, envelope),
        "mel": "give View.of the hidden states of mel"
        if log_mel is None
        else partial(_mel, view, log_mel),
        "heat": partial(_hidden_states, view),
        "colours": partial(_colours, view),
        "norms": partial(_norms, view),
        "novelty": partial(_novelty, view),
        "similarity": partial(_similarity, view),
        "depth": "ask for it (depth)"
        if depth_norms is None
        else partial(_depth, view, depth_norms),
    }


def _over_time(
    view: View,
    title: str,
    height_inches: float,
    y: Axis,
    mark: Image | Line,
    labels: list[tuple[float, str]] | None = None,
) -> list[Panel]:
    starts = [window.start_seconds for window in view.windows[1:]]
    panel = Panel(
        title,
        height_inches,
        time_axis(view.duration_seconds),
        y,
        (mark,),
        sections=view.boundaries.tolist(),
        windows=starts if len(starts) < _MAX_WINDOW_LINES else (),
        labels=labels or (),
    )
    return [panel]


def _waveform(view: View, envelope: np.ndarray) -> list[Panel]:
    peak = max(float(np.abs(envelope).max()), 1e-4) * 1.05
    y = Axis("Amplitude\n(full scale 1)", (-peak, peak))
    seconds = time_axis(view.duration_seconds).cell_edges(envelope.shape[1])[:-1]
    line = Line(np.repeat(seconds, 2), envelope.T.ravel(), width=0.5)
    return _over_time(view, "Waveform", 1.0, y, line)


def _mel(view: View, log_mel: np.ndarray) -> list[Panel]:
    bands = log_mel.shape[1]
    y = named_axis([str(band) for band in range(bands)], "Mel band", 6)
    if view.mel_hz is not None:
        ticks = [hz for hz in _MEL_TICKS_HZ if hz < view.mel_hz[-1]]
        positions = np.interp(ticks, view.mel_hz, np.arange(bands)).tolist()
        texts = [f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}" for hz in ticks]
        names = tuple(f"{hz:.1f} Hz" for hz in view.mel_hz)
        y = Axis("Frequency (Hz)", y.limits, names, tuple(zip(positions, texts, strict=True)))
    top = float(log_mel.max())
    image = Image(log_mel.T, "Power (dB)", "magma", (top - _MEL_RANGE_DB, top))
    return _over_time(view, "Log-mel spectrogram: the encoder's input", 1.9, y, image)


def _hidden_states(view: View) -> list[Panel]:
    image = Image(view.deviations.T, "Standard deviations", "signed", (-3, 3))
    title = f"Hidden states at {view.tap}, each dimension standardised"
    return _over_time(view, title, 1.9, Axis("Dimension", (0, view.rows.shape[1])), image)


def _colours(view: View) -> list[Panel]:
    title = "First three principal components as colours: similar colours, similar hidden states"
    x = time_axis(view.duration_seconds)
    return [Panel(title, 0.75, x, Axis(ticks=()), (Image(view.colours[None]),))]


def _norms(view: View) -> list[Panel]:
    y = Axis("L2 norm", (0, float(view.norms.max()) * 1.05 or 1.0))
    line = Line(view.start_seconds + view.hop_seconds / 2, view.norms)
    return _over_time(view, "Norm of the hidden states", 1.1, y, line)


def _novelty(view: View) -> list[Panel]:
    half = format_duration(view.kernel_seconds / 2)
    none = "" if len(view.boundaries) else " (no section boundaries found)"
    defined = view.novelty[np.isfinite(view.novelty)]
    low, high = (float(defined.min()), float(defined.max())) if defined.size else (0.0, 1.0)
    margin = max(high - low, 1e-3)
    y = Axis("Novelty\n(at most 1)", (low - 0.08 * margin, high + 0.35 * margin))
    long = view.duration_seconds > 120
    labels = [(s, format_timecode(s) if long else f"{s:.1f} s") for s in view.boundaries.tolist()]
    title = f"Novelty: {half} before against {half} after{none}"
    line = Line(view.start_seconds, view.novelty)
    return _over_time(view, title, 1.4, y, line, labels if len(labels) <= _MAX_LABELS else None)


def _similarity(view: View) -> list[Panel]:
    seconds = time_axis(len(view.rows) * view.hop_seconds)
    image = Image(view.similarity, "Cosine after mean removal", "signed", (-1, 1))
    title, sections = "Self-similarity of all pairs of moments", view.boundaries.tolist()
    return [Panel(title, 4.2, seconds, seconds, (image,), is_square=True, sections=sections)]


def _depth(view: View, depth_norms: np.ndarray) -> list[Panel]:
    low, median, high = depth_norms.T
    k = np.arange(len(median))
    hover = [f"{m:.3f} ({a:.3f} to {b:.3f})" for a, m, b in depth_norms]
    lines = [Line(k, median, low, high, marker="o", hover=hover)]
    if str(view.tap) in view.depth_taps:
        at = k[view.depth_taps.index(str(view.tap)), None]
        shown = [hover[int(at[0])]]
        lines.append(
            Line(
                at, median[at], colour="mark", marker="o", marker_size=7, style="none", hover=shown
            )
        )
    x, y = (
        named_axis(view.depth_taps, "Tap", 24),
        Axis("L2 norm", _log_limits(low, high), is_log=True),
    )
    title = "Norm by depth: median, quartiles"
    return [Panel(title, 3.3, x, y, tuple(lines), beside_square=True)]


def _log_limits(low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """A little more than the range of the data."""
    return float(max(low.min(), 1e-6)) / 1.2, float(max(high.max(), 1e-6)) * 1.2

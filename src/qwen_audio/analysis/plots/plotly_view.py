"""A View as panels of a chart."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from qwen_audio.analysis.plots import panels as p
from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration

from .panels import Panel
from .theme import Theme

__all__ = ["view_panels"]

_COLUMNS, _DIMENSIONS = 500, 512
"""Of a heat map: more makes a page large and no clearer. Of more each second, third, … is shown."""


def _step(count: int, most: int) -> int:
    return max(1, math.ceil(count / most))


def view_panels(view: View, theme: Theme, name: str) -> list[Panel]:
    """One panel."""
    import plotly.graph_objects as go

    middles = view.seconds + view.hop_seconds / 2
    time = {"title_text": "Time (s)"}

    def marks(figure: Any, row: int) -> None:
        for start in p.window_boundaries(view) if len(view.windows) <= 200 else []:
            figure.add_vline(start, line={"color": theme.faint, "width": 1, "dash": "dot"}, row=row)
        for start in view.boundaries:
            figure.add_vline(start, line={"color": theme.mark, "width": 1, "dash": "dash"}, row=row)

    def lines(y: Any, x: Any, label: str, hover: str) -> Callable[[Any, int], None]:
        def add(figure: Any, row: int) -> None:
            trace = go.Scatter(
                x=x, y=y, line={"color": theme.accent, "width": 1.3}, hovertemplate=hover
            )
            figure.add_trace(trace, row=row, col=1)
            figure.update_yaxes(title_text=label, row=row)
            figure.update_xaxes(row=row, **time)
            marks(figure, row)

        return add

    def heat(
        z: Any, x: Any, y: Any, unit: str, label: str, **more: Any
    ) -> Callable[[Any, int], None]:
        def add(figure: Any, row: int) -> None:
            hover = f"%{{x:.2f}} s<br>{label} %{{y}}<br>%{{z:.2f}} {unit}<extra></extra>"
            shown = {"colorbar": {"title": {"text": unit}}, "hovertemplate": hover, **more}
            figure.add_trace(go.Heatmap(z=z, x=x, y=y, **shown), row=row, col=1)
            figure.update_yaxes(title_text=label, row=row)
            figure.update_xaxes(row=row, **time)
            marks(figure, row)

        return add

    signed = theme.signed_scale
    if name == "waveform" and view.envelope is not None:
        low, high = view.envelope
        edges = np.repeat(np.linspace(0, view.duration_seconds, len(low), endpoint=False), 2)
        both = np.stack([low, high], axis=1).ravel()
        add = lines(both, edges, "Amplitude", "%{x:.2f} s<br>%{y:.3f}<extra></extra>")
        return [("Waveform (full scale: 1)", 110, add)]
    if name == "mel" and view.log_mel is not None:
        step = _step(len(view.log_mel), 2 * _COLUMNS)
        x = (np.arange(len(view.log_mel)) + 0.5) / len(view.log_mel) * view.duration_seconds
        y = np.arange(view.log_mel.shape[1]) if view.mel_hz is None else np.round(view.mel_hz)
        label = "Mel band" if view.mel_hz is None else "Frequency (Hz)"
        top = float(view.log_mel.max())
        limits = {"zmin": top - 70, "zmax": top, "colorscale": "Magma"}
        add = heat(view.log_mel[::step].T, x[::step], y, "dB", label, **limits)

        def mel(figure: Any, row: int) -> None:
            add(figure, row)
            if view.mel_hz is not None:
                figure.update_yaxes(type="log", dtick=0.30103, row=row)

        return [("Log-mel spectrogram: what the encoder is given", 220, mel)]
    if name == "heat":
        across, down = _step(len(view.rows), _COLUMNS), _step(view.rows.shape[1], _DIMENSIONS)
        z = view.deviations[::across, ::down].T
        y = np.arange(view.rows.shape[1])[::down]
        limits = {"zmin": -3, "zmax": 3, "colorscale": signed}
        add = heat(z, middles[::across], y, "deviations", "Dimension", **limits)
        return [(f"Frames at {view.tap}: each dimension against its mean", 220, add)]
    if name == "colours":

        def colours(figure: Any, row: int) -> None:
            shades = [f"rgb({r},{g},{b})" for r, g, b in (255 * view.colours).astype(int)]
            trace = go.Bar(
                x=middles,
                y=np.ones(len(middles)),
                width=view.hop_seconds,
                marker={"color": shades, "line": {"width": 0}},
                hovertemplate="%{x:.2f} s<extra></extra>",
            )
            figure.add_trace(trace, row=row, col=1)
            figure.update_yaxes(showticklabels=False, range=[0, 1], row=row)
            figure.update_xaxes(row=row, **time)

        return [("The same as colours: like colours are alike (principal components)", 70, colours)]
    if name == "norms":
        add = lines(view.norms, middles, "Euclidean norm", "%{x:.2f} s<br>%{y:.2f}<extra></extra>")
        return [("Length of the frames", 110, add)]
    if name == "novelty":
        half = format_duration(view.kernel_seconds / 2)
        add = lines(view.novelty, view.seconds, "Novelty", "%{x:.2f} s<br>%{y:.3f}<extra></extra>")
        found = ", ".join(f"{start:.1f}" for start in view.boundaries[:12]) or "none"
        title = (
            f"Novelty: the {half} before against the {half} after; sections begin at (s): {found}"
        )
        return [(title, 150, add)]
    if name == "similarity":
        step = _step(len(view.rows), _COLUMNS)
        x = middles[::step]
        limits = {"zmin": -1, "zmax": 1, "colorscale": signed}
        add = heat(view.similarity[::step, ::step], x, x, "cosine", "Time (s)", **limits)
        return [("Self-similarity: every moment against every other", 560, add)]
    return [("Length of the frames by depth: median and quartiles", 240, _depth(view, theme))]


def _depth(view: View, theme: Theme) -> Callable[[Any, int], None]:
    import plotly.graph_objects as go

    def add(figure: Any, row: int) -> None:
        if view.depth_norms is None:
            return
        low, middle, high = view.depth_norms.T
        trace = go.Scatter(
            x=list(view.depth_taps),
            y=middle,
            error_y={"array": high - middle, "arrayminus": middle - low, "color": theme.faint},
            mode="lines+markers",
            line={"color": theme.accent},
            hovertemplate="%{x}: %{y:.2f}<extra></extra>",
        )
        figure.add_trace(trace, row=row, col=1)
        figure.update_yaxes(type="log", dtick="D2", title_text="Euclidean norm", row=row)
        figure.update_xaxes(title_text="Tap", row=row)

    return add

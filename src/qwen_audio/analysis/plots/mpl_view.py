"""A View as panels on one time axis: waveform, spectrogram, frames, colours, sections, form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.analysis.plots import panels as p
from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration, format_timecode

from .mpl_style import WIDTH_INCHES, bar, heading, time_axis
from .theme import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_view"]

_HEIGHTS = {"waveform": 1.0, "mel": 1.9, "heat": 1.9, "colours": 0.75, "norms": 1.1, "novelty": 1.4}
_MOST_LABELS = 14


def draw_view(figure: Figure, view: View, names: Sequence[str], theme: Theme) -> None:
    """The panels asked for, those over time one below another, the square ones at the end."""
    stacked = [name for name in names if name in _HEIGHTS]
    below = [name for name in names if name not in _HEIGHTS]
    heights = [_HEIGHTS[name] + 0.3 for name in stacked]
    heights_below: dict[tuple[str, ...], float] = {("similarity",): 6.0, ("depth",): 3.6}
    square = [heights_below.get(tuple(below), 5.0)] if below else []
    figure.set_size_inches(WIDTH_INCHES, sum(heights) + sum(square) + 0.85)
    heading(
        figure,
        f"{p.short_name(view.name)} at {view.tap}",
        f"{format_duration(view.duration_seconds)} · {len(view.rows)} columns of "
        f"{format_duration(view.hop_seconds)} · {view.rows.shape[1]} wide · {view.dtype}",
        theme,
    )
    grid = figure.add_gridspec(len(heights) + len(square), 1, height_ratios=heights + square)
    first = None
    for number, name in enumerate(stacked):
        axes = figure.add_subplot(grid[number], sharex=first)
        first = first or axes
        _VIEW_PANELS[name](figure, axes, view, theme)
        time_axis(axes, view.duration_seconds, last=number == len(stacked) - 1)
        if name not in ("colours", "norms"):
            _marks(axes, view, theme)
    if below:
        # A square leaves room beside it; its colour bar is to stand next to it all the same.
        by_panels: dict[tuple[str, ...], list[float]] = {("similarity",): [1.6, 1], ("depth",): [1]}
        widths = by_panels.get(tuple(below), [1.4, 1])
        parts = grid[-1].subgridspec(1, len(widths), width_ratios=widths)
        for number, name in enumerate(below):
            _VIEW_PANELS[name](figure, figure.add_subplot(parts[number]), view, theme)


def _marks(axes: Axes, view: View, theme: Theme) -> None:
    """Sections as dashed lines; where one window ends and the next begins, dotted."""
    for start in p.window_boundaries(view) if len(view.windows) <= 200 else []:
        axes.axvline(start, color=theme.faint, linewidth=0.7, linestyle=":")
    for start in view.boundaries:
        axes.axvline(start, color=theme.mark, linewidth=1.0, linestyle=(0, (4, 2)))


def _waveform(_figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    if view.envelope is None:
        return
    low, high = view.envelope
    edges = np.linspace(0, view.duration_seconds, len(low) + 1)
    axes.fill_between(edges[:-1], low, high, step="post", color=theme.accent, linewidth=0.3)
    peak = max(float(np.abs(view.envelope).max()), 1e-4) * 1.05
    axes.set(ylim=(-peak, peak), title="Waveform", ylabel="Amplitude\n(full scale 1)")


def _mel(figure: Figure, axes: Axes, view: View, _theme: Theme) -> None:
    if view.log_mel is None:
        return
    top = float(view.log_mel.max())
    image = axes.imshow(
        view.log_mel.T,
        origin="lower",
        extent=(0, view.duration_seconds, 0, view.log_mel.shape[1]),
        cmap="magma",
        vmin=top - 70,
        vmax=top,
    )
    axes.set(title="Log-mel spectrogram: what the encoder is given", ylabel="Mel band")
    if view.mel_hz is not None:
        ticks = [hz for hz in (250, 500, 1000, 2000, 4000) if hz < view.mel_hz[-1]]
        places = np.interp(ticks, view.mel_hz, np.arange(len(view.mel_hz)) + 0.5)
        axes.set_yticks(places, [f"{hz / 1000:g}k" if hz >= 1000 else f"{hz}" for hz in ticks])
        axes.set_ylabel("Frequency (Hz)")
    bar(figure, image, axes, "Power (dB)")


def _heat(figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    shown = view.deviations
    extent = (0, len(view.rows) * view.hop_seconds, 0, shown.shape[1])
    limits: Any = {"vmin": -3, "vmax": 3, "cmap": theme.signed}
    image = axes.imshow(shown.T, origin="lower", extent=extent, **limits)
    axes.set(title=f"Frames at {view.tap}: each dimension against its mean", ylabel="Dimension")
    bar(figure, image, axes, "Deviations")


def _colours(_figure: Figure, axes: Axes, view: View, _theme: Theme) -> None:
    extent = (0, len(view.rows) * view.hop_seconds, 0, 1)
    axes.imshow(view.colours[None], extent=extent, interpolation="nearest")
    axes.set(title="The same as colours: like colours are alike (first three principal components)")
    axes.set_yticks([])


def _norms(_figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    axes.plot(view.seconds + view.hop_seconds / 2, view.norms, color=theme.accent, linewidth=1)
    axes.set(title="Length of the frames", ylabel="Euclidean\nnorm")
    axes.set_ylim(bottom=0)


def _novelty(_figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    axes.plot(view.seconds, view.novelty, color=theme.accent, linewidth=1.2)
    half = format_duration(view.kernel_seconds / 2)
    title = f"Novelty: the {half} before against the {half} after"
    if not len(view.boundaries):
        title += " (no section boundaries found)"
    axes.set(title=title, ylabel="Novelty\n(at most 1)")
    known = view.novelty[np.isfinite(view.novelty)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    room = max(high - low, 1e-3)
    axes.set_ylim(low - 0.08 * room, high + 0.35 * room)
    if 0 < len(view.boundaries) <= _MOST_LABELS:
        for start in view.boundaries:
            text = f"{start:.1f} s" if view.duration_seconds <= 120 else format_timecode(start)
            right = start < 0.93 * view.duration_seconds
            axes.annotate(
                text,
                (start, high + 0.3 * room),
                xytext=(3 if right else -3, 0),
                textcoords="offset points",
                ha="left" if right else "right",
                va="top",
                fontsize=8,
                color=theme.mark,
            )


def _similarity(figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    end = len(view.rows) * view.hop_seconds
    shown: Any = {"vmin": -1, "vmax": 1, "cmap": theme.signed, "aspect": "equal"}
    image = axes.imshow(view.similarity, origin="lower", extent=(0, end, 0, end), **shown)
    time_axis(axes, end, last=True)
    axes.set_ylim(0, end)
    axes.set_yticks([tick for tick in axes.get_xticks() if 0 <= tick <= end])
    axes.yaxis.set_major_formatter(axes.xaxis.get_major_formatter())
    axes.set(title="Self-similarity: every moment against every other", ylabel=axes.get_xlabel())
    for start in view.boundaries:
        axes.axvline(start, color=theme.ink, linewidth=0.6, linestyle=(0, (4, 2)))
        axes.axhline(start, color=theme.ink, linewidth=0.6, linestyle=(0, (4, 2)))
    # In axes of the square's own, or the bar would stand where a wider panel ends.
    beside = axes.inset_axes((1.03, 0.1, 0.04, 0.8), label="<colorbar>")
    bar(figure, image, axes, "Cosine, the mean taken off", cax=beside)
    axes.set_anchor("W")


def _depth(_figure: Figure, axes: Axes, view: View, theme: Theme) -> None:
    if view.depth_norms is None:
        return
    from matplotlib.ticker import FuncFormatter

    low, middle, high = view.depth_norms.T
    places = np.arange(len(middle))
    axes.fill_between(places, low, high, color=theme.accent, alpha=0.3, linewidth=0)
    axes.plot(places, middle, color=theme.accent, marker="o", markersize=3, linewidth=1.2)
    if str(view.tap) in view.depth_taps:
        here = view.depth_taps.index(str(view.tap))
        axes.plot(here, middle[here], color=theme.mark, marker="o", markersize=7)
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else ""))
    axes.set(title="Length of frames by depth: median, quartiles", ylabel="Euclidean norm")
    shown = p.even_share(len(places), 24)
    axes.set_xticks(shown, [view.depth_taps[k] for k in shown], rotation=90)


_VIEW_PANELS: dict[str, Callable[[Any, Any, View, Theme], None]] = {
    "waveform": _waveform,
    "mel": _mel,
    "heat": _heat,
    "colours": _colours,
    "norms": _norms,
    "novelty": _novelty,
    "similarity": _similarity,
    "depth": _depth,
}

"""The figure of any plottable result: which panels there are, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from qwen_audio.analysis.comparison import Comparison
from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.similarity import LayerSimilarity
from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration
from qwen_audio.errors import OptionError

from .lens_panels import LENS_PANELS, lens_figure, missing_lens_panels
from .panels import WIDTH_INCHES, FigureSpec, Heatmap, Panel, evenly_spaced, named_axis, time_axis
from .view_panels import VIEW_PANELS, missing_view_panels, view_figure

__all__ = ["Plottable", "chosen_panels", "figure_spec"]

Plottable: TypeAlias = View | LogitLens | LayerSimilarity | Comparison

_MAX_CELLS_WITH_TEXT = 18


def figure_spec(result: Plottable, panels: Sequence[str] | None = None) -> FigureSpec:
    """The figure of a result with the panels named; None: all that have data.

    Raises:
        OptionError: for an unknown panel, or one without data.
    """
    names = chosen_panels(result, panels)
    if isinstance(result, View):
        return view_figure(result, names)
    if isinstance(result, LogitLens):
        return lens_figure(result, names)
    return _layers(result) if isinstance(result, LayerSimilarity) else _comparison(result)


def chosen_panels(result: Plottable, panels: Sequence[str] | None) -> tuple[str, ...]:
    """The panels to draw, from top to bottom; None: all that have data.

    Raises:
        OptionError: for an unknown panel, or one without data.
    """
    names: Sequence[str] = ("layers",) if isinstance(result, LayerSimilarity) else ("times",)
    missing: dict[str, str] = {}
    if isinstance(result, View):
        names, missing = tuple(VIEW_PANELS), missing_view_panels(result)
    elif isinstance(result, LogitLens):
        names, missing = LENS_PANELS, missing_lens_panels(result)
    if panels is None:
        return tuple(name for name in names if name not in missing)
    if isinstance(panels, str):
        raise OptionError(f"panels={panels!r} is one text: give a list, such as [{panels!r}]")
    for name in panels:
        if name not in names:
            kind = type(result).__name__
            raise OptionError(f"panel {name!r}: a {kind} has {', '.join(names)}")
        if name in missing:
            raise OptionError(f"panel {name!r} has no data: {missing[name]}")
    if not panels:
        raise OptionError(f"panels is empty: name at least one of {', '.join(names)}")
    return tuple(name for name in names if name in panels)


def _layers(layers: LayerSimilarity) -> FigureSpec:
    count = len(layers.taps)
    side = max(5.5, min(WIDTH_INCHES, 2.6 + 0.5 * count))
    image = Heatmap(
        layers.similarity,
        "Linear CKA (debiased); 1: equal up to rotation and scale",
        limits=(0, 1),
        cell_format=".2f" if count <= _MAX_CELLS_WITH_TEXT else None,
    )
    panel = Panel(
        "layers",
        "",
        0.92 * side - 1.15,
        named_axis(layers.taps, "Tap", 30, rotate=True),
        named_axis(layers.taps, "Tap", 30, reverse=True),
        image,
    )
    recordings = f"{len(layers.names)} recording{'s' * (len(layers.names) != 1)}"
    subtitle = f"{recordings}, {layers.examples} examples, {layers.dtype}"
    return FigureSpec("Similarity of the taps", subtitle, (panel,), side)


def _comparison(comparison: Comparison) -> FigureSpec:
    count, columns = comparison.by_time.shape
    end = columns * comparison.column_seconds
    means = [(float(k), f"{comparison.cosines[k]:.3f}") for k in evenly_spaced(count, 40)]
    panel = Panel(
        "times",
        "",
        0.26 * max(count, 6) + 0.5,
        time_axis(end),
        named_axis(comparison.taps, "Tap", 40),
        Heatmap(comparison.by_time, "Cosine at each moment"),
        right_ticks=(means, "Cosine of the means over time"),
    )
    column = format_duration(comparison.column_seconds)
    subtitle = f"{format_duration(end)} · {columns} columns of {column}"
    return FigureSpec("Similarity of two recordings, by tap and time", subtitle, (panel,))

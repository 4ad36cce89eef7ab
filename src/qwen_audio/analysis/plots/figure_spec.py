"""The figure of any plottable result: its titles, and the panels that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias, get_args

import numpy as np

from qwen_audio.analysis.attention import AttentionWeights
from qwen_audio.analysis.classification import Classification
from qwen_audio.analysis.comparison import Comparison
from qwen_audio.analysis.logit_lens import LogitLens
from qwen_audio.analysis.occlusion import Occlusion
from qwen_audio.analysis.reliability import Reliability
from qwen_audio.analysis.row_metrics import METRIC_NAMES
from qwen_audio.analysis.scores import Scores
from qwen_audio.analysis.similarity import LayerSimilarity
from qwen_audio.analysis.trace import Trace
from qwen_audio.analysis.view import View
from qwen_audio.audio.timecode import format_duration
from qwen_audio.errors import OptionError, counted

from .attribution_panels import (
    attention_heading,
    attention_panels,
    occlusion_heading,
    occlusion_panels,
)
from .lens_panels import lens_heading, lens_panels
from .panels import (
    WIDTH_INCHES,
    FigureSpec,
    Image,
    Panel,
    PanelBuilders,
    evenly_spaced,
    named_axis,
    short_name,
    time_axis,
)
from .score_panels import score_heading, score_panels
from .trace_panels import trace_heading, trace_panels
from .view_panels import view_heading, view_panels

__all__ = ["Plottable", "chosen_panels", "figure_spec"]

Plottable: TypeAlias = (
    View
    | LogitLens
    | LayerSimilarity
    | Comparison
    | Scores
    | Classification
    | Reliability
    | AttentionWeights
    | Occlusion
    | Trace
)

_MAX_CELLS_WITH_TEXT = 18


def figure_spec(result: Plottable, panels: Sequence[str] | None = None) -> FigureSpec:
    """The figure of a result with the panels named; None: all that have data.

    Raises:
        OptionError: for anything else, an unknown panel, or one without data.
    """
    builders, rows = _panel_builders(result), list[tuple[Panel, ...]]()
    for name in chosen_panels(result, panels):
        builder = builders[name]
        for panel in [] if isinstance(builder, str) else builder():
            if panel.beside_square and rows and rows[-1][0].is_square:
                rows[-1] += (panel,)
            else:
                rows.append((panel,))
    width = _side_inches(result) if isinstance(result, LayerSimilarity) else WIDTH_INCHES
    return FigureSpec(*_heading(result), tuple(rows), width)


def chosen_panels(result: Plottable, panels: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the panels to draw, from top to bottom; None: all that have data.

    Raises:
        OptionError: for an unknown panel, or one without data.
    """
    builders = _panel_builders(result)
    if panels is None:
        return tuple(name for name, builder in builders.items() if not isinstance(builder, str))
    if isinstance(panels, str):
        raise OptionError(f"panels={panels!r} is one text: give a list, such as [{panels!r}]")
    for name in panels:
        if name not in builders:
            kind = type(result).__name__
            raise OptionError(f"panel {name!r}: a {kind} has {', '.join(builders)}")
        if isinstance(builder := builders[name], str):
            raise OptionError(f"panel {name!r} has no data: {builder}")
    if not panels:
        raise OptionError(f"panels is empty: name at least one of {', '.join(builders)}")
    return tuple(name for name in builders if name in panels)


def _panel_builders(result: Plottable) -> PanelBuilders:
    if not isinstance(result, get_args(Plottable)):
        names = ", ".join(kind.__name__ for kind in get_args(Plottable))
        raise OptionError(f"{type(result).__name__} can't be plotted: give one of {names}")
    if isinstance(result, View):
        return view_panels(result)
    if isinstance(result, LogitLens):
        return lens_panels(result)
    if isinstance(result, Scores | Classification | Reliability):
        return score_panels(result)
    if isinstance(result, LayerSimilarity):
        return {"layers": partial(_layers, result)}
    if isinstance(result, AttentionWeights):
        return attention_panels(result)
    if isinstance(result, Occlusion):
        return occlusion_panels(result)
    if isinstance(result, Trace):
        return trace_panels(result)
    return {"times": partial(_times, result)}


def _heading(result: Plottable) -> tuple[str, str]:
    """Title and subtitle."""
    if isinstance(result, View):
        return view_heading(result)
    if isinstance(result, LogitLens):
        return lens_heading(result)
    if isinstance(result, AttentionWeights):
        return attention_heading(result)
    if isinstance(result, Scores | Classification | Reliability):
        return score_heading(result)
    if isinstance(result, Occlusion):
        return occlusion_heading(result)
    if isinstance(result, Trace):
        return trace_heading(result)
    if isinstance(result, LayerSimilarity):
        recordings = counted(len(result.names), "recording")
        subtitle = f"{recordings}, {counted(result.examples, 'example')}, {result.dtype}"
        return "Similarity of the taps", subtitle
    column, columns = result.column_seconds, result.by_time.shape[1]
    aligned = "" if result.path_seconds is None else " · aligned by dynamic time warping"
    subtitle = (
        f"{format_duration(columns * column)} · {counted(columns, 'column')} of "
        f"{format_duration(column)}{aligned}"
    )
    if not any(result.names):
        return "Similarity of two recordings, by tap and time", subtitle
    return " and ".join(map(short_name, result.names)), f"Similarity by tap and time · {subtitle}"


def _side_inches(layers: LayerSimilarity) -> float:
    return max(5.5, min(WIDTH_INCHES, 2.6 + 0.5 * len(layers.taps)))


def _layers(layers: LayerSimilarity) -> list[Panel]:
    x, y = (named_axis(layers.taps, "Tap", 30, is_reversed=flip) for flip in (False, True))
    texts = [[f"{v:.2f}".replace("0.", ".", 1) for v in row] for row in layers.similarity]
    shown = texts if len(layers.taps) <= _MAX_CELLS_WITH_TEXT else None
    image = Image(layers.similarity, "CKA", limits=(0, 1), texts=shown)
    title = "Linear CKA (debiased); 1: equal up to rotation and scale"
    return [Panel(title, 0.92 * _side_inches(layers) - 1.15, x, y, (image,), is_square=True)]


def _times(comparison: Comparison) -> list[Panel]:
    count, columns = comparison.by_time.shape
    name = METRIC_NAMES[comparison.metric]
    overall = [
        (float(k), f"{comparison.overall[k]:.3f} ({row.min():.2f} to {row.max():.2f})")
        for k in evenly_spaced(count, 40)
        for row in [comparison.by_time[k]]
    ]
    others = comparison.other_seconds(np.arange(columns) * comparison.column_seconds)
    aligned = [f", aligned with {seconds:.2f} s" for seconds in others]
    hover = [
        [
            f"{name.lower()} {value:.3f}{'' if comparison.path_seconds is None else where}"
            for value, where in zip(row, aligned, strict=True)
        ]
        for row in comparison.by_time
    ]
    moment = "each moment" if comparison.path_seconds is None else "each moment of the first"
    is_mean = comparison.metric == "centred_cosine"
    whole = f"{name}, mean over time" if is_mean else f"{name} of the means over time"
    panel = Panel(
        f"{name} at {moment}, between the lowest and highest of its tap",
        0.26 * max(count, 6) + 0.5,
        time_axis(columns * comparison.column_seconds),
        named_axis(comparison.taps, "Tap", 40),
        (Image(comparison.by_time_scaled, "Within the tap's range", limits=(0, 1), hover=hover),),
        right_ticks=(overall, f"{whole} (range)"),
    )
    return [panel]

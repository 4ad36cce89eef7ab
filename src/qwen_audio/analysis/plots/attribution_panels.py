"""Panels of attention weights by time, and of occlusion: the waveform, shaded by effect."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from qwen_audio.analysis.attention import AttentionWeights
from qwen_audio.analysis.occlusion import Occlusion

from .panels import (
    Axis,
    Image,
    Line,
    Panel,
    PanelBuilders,
    evenly_spaced,
    named_axis,
    short_name,
    time_axis,
)

__all__ = ["attention_heading", "attention_panels", "occlusion_heading", "occlusion_panels"]

_MAX_ROWS, _MAX_PANELS = 40, 6
_MAX_CHARACTERS = 40
"""Of an answer in a title."""
_SHADES = 600
_LEAST_LIMIT = math.log(2)
"""Of the colour scale: effects that change odds by less than a factor of 2 stay pale."""


def attention_heading(attention: AttentionWeights) -> tuple[str, str]:
    """Title and subtitle."""
    heads = len(attention.heads)
    which = "one head" if heads == 1 else f"mean of {heads} heads"
    subtitle = f"where it looks, not why · {which} · {attention.dtype}"
    return f"{short_name(attention.name)}: attention to the audio", subtitle


def attention_panels(attention: AttentionWeights) -> PanelBuilders:
    """Builders of the panels, or how to provide their data."""
    if not attention.is_audio.any():
        return {"audio": "there are no positions of audio"}
    return {"audio": partial(_audio, attention)}


def _audio(attention: AttentionWeights) -> list[Panel]:
    """Levels over time for a single query; else queries over time, a panel a level."""
    names = attention.query_names()
    levels = [f"lm.{level}" for level in attention.levels]
    if len(names) == 1:
        title = f"Attention of {names[0]!r} by level"
        return [_over_time(attention, title, levels, "Level", attention.by_level[:, 0])]
    shown = evenly_spaced(len(levels), _MAX_PANELS)
    return [
        _over_time(attention, f"Attention at {levels[k]}", names, "Position", attention.by_level[k])
        for k in shown
    ]


def _over_time(
    attention: AttentionWeights, title: str, names: list[str], label: str, weights: np.ndarray
) -> Panel:
    """Rows of attention to the audio, each relative to its highest weight."""
    audio = weights[:, attention.is_audio]
    highest = np.maximum(audio.max(1, keepdims=True), 1e-12)
    index = attention.keys[attention.is_audio]
    edges = np.append(index.start_seconds, index.end_seconds[-1])
    hover = [[f"weight {value:.4f}" for value in row] for row in audio]
    shares = [(float(k), f"{audio[k].sum():.0%}") for k in evenly_spaced(len(names), _MAX_ROWS)]
    return Panel(
        title,
        0.26 * min(max(len(names), 6), _MAX_ROWS) + 0.9,
        time_axis(float(edges[-1])),
        named_axis(names, label, _MAX_ROWS, is_reversed=len(names) > 1 and label != "Level"),
        (Image(audio / highest, "Relative to\nthe row's highest", limits=(0, 1), hover=hover),),
        right_ticks=(shares, "On the audio"),
    )


def occlusion_heading(occlusion: Occlusion) -> tuple[str, str]:
    """Title and subtitle."""
    names = [_quoted(text) for text in occlusion.answers]
    compared = f"log-odds of {names[0]}:"
    if len(names) > 1:
        compared = f"log P({names[0]}) − log P({names[1]}) is"
    subtitle = (
        f"{compared} {occlusion.difference:+.2f} as heard · windows of "
        f"{occlusion.window_seconds:g} s made silent · {occlusion.dtype}"
    )
    return f"{short_name(occlusion.name)}: what {names[0]} depends on", subtitle


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…")


def occlusion_panels(occlusion: Occlusion) -> PanelBuilders:
    """Builders of the panels."""
    return {"waveform": partial(_shaded, occlusion), "effect": partial(_effect, occlusion)}


def _shaded(occlusion: Occlusion) -> list[Panel]:
    """The waveform over a band for each part, coloured by the mean effect of its windows."""
    edges, means = occlusion.map()
    peak = max(float(np.abs(occlusion.envelope).max()), 1e-4) * 1.05
    end = occlusion.duration_seconds
    count = occlusion.envelope.shape[1]
    seconds = np.linspace(0, end, count + 1)[:-1]
    line = Line(np.repeat(seconds, 2), occlusion.envelope.T.ravel(), width=0.5)
    limit = max(float(np.abs(means).max()), _LEAST_LIMIT)
    # Columns of equal width, as the parts' ends are: those of the map that hold their middles.
    columns = np.linspace(0, end, _SHADES + 1)
    parts = np.searchsorted(edges, (columns[1:] + columns[:-1]) / 2, "right") - 1
    shades = means[np.clip(parts, 0, len(means) - 1)]
    hover = [[f"{value:+.2f}" for value in shades]]
    image = Image(shades[None], "Effect (nats)", "signed", (-limit, limit), hover=hover)
    y = Axis("Amplitude\n(full scale 1)", (-peak, peak))
    first, *second = map(_quoted, occlusion.answers)
    title = f"Red: speaks for {first}; blue: {f'for {second[0]}' if second else 'against it'}"
    return [Panel(title, 1.6, time_axis(end), y, (image, line))]


def _effect(occlusion: Occlusion) -> list[Panel]:
    """The effect of each window, at its middle."""
    effect = occlusion.effect
    margin = 0.08 * max(float(np.ptp(np.append(effect, 0))), 1e-6)
    y = Axis("Effect (nats)", (min(effect.min(), 0) - margin, max(effect.max(), 0) + margin))
    middles = occlusion.start_seconds + occlusion.window_seconds / 2
    hover = [
        f"{start:.2f} to {end:.2f} s: {value:+.2f}"
        for start, end, value in zip(
            occlusion.start_seconds, occlusion.end_seconds, effect, strict=True
        )
    ]
    line = Line(middles, effect, marker="o", hover=hover)
    of_what = "difference falls" if len(occlusion.answers) > 1 else "log-odds fall"
    title = f"How much the {of_what} without each window"
    end = occlusion.duration_seconds
    return [Panel(title, 1.4, time_axis(end), y, (line,), baseline=0.0)]

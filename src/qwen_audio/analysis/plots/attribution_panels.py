"""Panels of attention weights: where positions look in the audio, by level."""

from __future__ import annotations

from functools import partial

import numpy as np

from qwen_audio.analysis.attention import AttentionWeights

from .panels import Image, Panel, PanelBuilders, evenly_spaced, named_axis, short_name, time_axis

__all__ = ["attention_heading", "attention_panels"]

_MAX_ROWS, _MAX_PANELS = 40, 6


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

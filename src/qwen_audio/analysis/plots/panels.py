"""Panels as data: what a figure shows, independent of the library that draws it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias

import numpy as np

__all__ = [
    "Axis",
    "Bars",
    "FigureSpec",
    "Image",
    "Line",
    "Panel",
    "PanelBuilders",
    "evenly_spaced",
    "named_axis",
    "short_name",
    "time_axis",
]

WIDTH_INCHES = 10.0
_MAX_NAME_LENGTH = 60


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: with its unit. A time axis is labelled by the renderer.
        names: of a categorical axis: item k is at k.
        ticks: (position, text); None: chosen by the renderer; empty: none.
    """

    label: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    names: tuple[str, ...] = ()
    ticks: tuple[tuple[float, str], ...] | None = None
    is_time: bool = False
    is_log: bool = False
    is_reversed: bool = False

    def cell_edges(self, count: int) -> np.ndarray:
        """The edges of so many equal cells between the limits."""
        return np.linspace(*self.limits, count + 1)


@dataclass(frozen=True, eq=False)
class Image:
    """Values on a grid, as colours.

    Attributes:
        values: shape (rows, columns), the first row at the bottom (at the top if y is reversed);
            or (rows, columns, 3): colours themselves, RGB from 0 to 1.
        unit: the colour bar's label.
        limits: the ends of the colour scale; None: those of the values.
        x_edges: shape (columns + 1,), to draw separate cells; NaN values leave gaps. None: equal
            columns without gaps.
        texts, hover: shape (rows, columns): written in the cells; shown for them.
    """

    values: np.ndarray
    unit: str = ""
    scale: Literal["sequential", "signed", "magma"] = "sequential"
    limits: tuple[float, float] | None = None
    x_edges: np.ndarray | None = None
    texts: Sequence[Sequence[str]] | None = None
    hover: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True, eq=False)
class Line:
    """A curve.

    Attributes:
        low, high: of an interval around y: a band, or error bars where only markers are drawn.
        colour: None: the theme's accent.
        marker: as matplotlib names it: "o", "s", "^", "*".
        style: of the line between the points.
        name: of the group of lines that the legend shows or hides together.
        hover: a text for each point.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: str | None = None
    marker: Literal["", "o", "s", "^", "*"] = ""
    marker_size: float = 3.0
    width: float = 1.2
    style: Literal["solid", "dotted", "none"] = "solid"
    name: str = ""
    in_legend: bool = False
    hover: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Bars:
    """Vertical bars: of several, stacked by their `bottoms`.

    Attributes:
        starts, widths: on the x axis.
        colour: in CSS notation.
        name: for the legend.
        hover: a text for each bar.
    """

    starts: np.ndarray
    widths: np.ndarray
    bottoms: np.ndarray
    heights: np.ndarray
    colour: str
    name: str
    hover: Sequence[str]


@dataclass(frozen=True, eq=False)
class Panel:
    """One set of axes and what is drawn in them.

    Attributes:
        height_inches: of the axes; the renderers add space for titles and tick labels.
        is_square: whether both axes have the same scale.
        beside_square: whether to draw it to the right of a square panel that comes before it.
        sections, windows: positions on the x axis (square panels: sections on both) marked by
            dashed and dotted lines: where sections begin, and where the model's windows do.
        labels: (x, text): written at the top of the panel.
        captions: (x, text): written below the x axis, centred at x.
        baseline: y of a dashed horizontal line.
        right_ticks: (y, text) on the right side, and their label.
    """

    title: str
    height_inches: float
    x: Axis
    y: Axis
    marks: tuple[Image | Line | Bars, ...]
    is_square: bool = False
    beside_square: bool = False
    sections: Sequence[float] = ()
    windows: Sequence[float] = ()
    labels: Sequence[tuple[float, str]] = ()
    captions: Sequence[tuple[float, str]] = ()
    baseline: float | None = None
    right_ticks: tuple[Sequence[tuple[float, str]], str] | None = None


PanelBuilders: TypeAlias = Mapping[str, Callable[[], list[Panel]] | str]
"""By name, from top to bottom; a string instead: how to provide the data that is missing."""


@dataclass(frozen=True, eq=False)
class FigureSpec:
    """Titles, and rows of panels from top to bottom."""

    title: str
    subtitle: str
    rows: tuple[tuple[Panel, ...], ...]
    width_inches: float = WIDTH_INCHES


def named_axis(
    names: Sequence[str], label: str, max_ticks: int, *, is_reversed: bool = False
) -> Axis:
    """A categorical axis with at most `max_ticks` tick labels, evenly spaced."""
    ticks = tuple((float(k), names[k]) for k in evenly_spaced(len(names), max_ticks))
    return Axis(label, (-0.5, len(names) - 0.5), tuple(names), ticks, is_reversed=is_reversed)


def time_axis(stop_seconds: float) -> Axis:
    """Time from 0 to the end of a recording."""
    return Axis(limits=(0.0, stop_seconds), is_time=True)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spaced, the last one included."""
    return list(range(count - 1, -1, -max(1, math.ceil(count / most))))[::-1]


def short_name(name: str) -> str:
    """A recording's name without its folder, shortened in the middle for a title."""
    short = PurePath(name).name or name
    half = _MAX_NAME_LENGTH // 2 - 1
    return short if len(short) <= _MAX_NAME_LENGTH else f"{short[:half]}…{short[-half:]}"

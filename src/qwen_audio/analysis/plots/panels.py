"""Panels as data: what a figure shows, independent of the library that draws it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal, TypeAlias

import numpy as np

__all__ = [
    "Axis",
    "Cells",
    "ColourStrip",
    "Envelope",
    "FigureSpec",
    "Heatmap",
    "Line",
    "Mark",
    "Panel",
    "evenly_spaced",
    "named_axis",
    "short_name",
    "time_axis",
]

ColourScale: TypeAlias = Literal["amounts", "signed", "magma"]

WIDTH_INCHES = 10.0
_NAME_LENGTH = 60


@dataclass(frozen=True)
class Axis:
    """One axis of a panel.

    Attributes:
        label: with its unit. A time axis is labelled by the renderer.
        limits: None: those of the data.
        is_time: whether it counts seconds.
        names: of a categorical axis: item k lies at k.
        ticks: (position, text); None: chosen by the renderer; empty: none.
    """

    label: str = ""
    limits: tuple[float, float] | None = None
    is_time: bool = False
    is_log: bool = False
    is_reversed: bool = False
    names: tuple[str, ...] = ()
    ticks: tuple[tuple[float, str], ...] | None = None
    rotate_ticks: bool = False


@dataclass(frozen=True, eq=False)
class Heatmap:
    """Values on a grid that fills the panel's axes.

    Attributes:
        values: shape (rows, columns), the first row at the bottom (at the top if y is reversed).
        unit: the colour bar's label.
        limits: the ends of the colour scale; None: those of the values.
        cell_format: such as ".2f", to write the values into the cells.
        hover: shape (rows, columns): more text to show for a cell.
    """

    values: np.ndarray
    unit: str
    scale: ColourScale = "amounts"
    limits: tuple[float, float] | None = None
    cell_format: str | None = None
    hover: Sequence[Sequence[str]] | None = None


@dataclass(frozen=True, eq=False)
class Cells:
    """Labelled cells in rows, coloured by a value.

    Attributes:
        lefts: shape (columns,): their left edges.
        widths: shape (columns,).
        values: shape (rows, columns).
        texts, hover: (rows, columns): shown in the cells; shown for them.
        column_names: of the columns, shown with `hover`.
    """

    lefts: np.ndarray
    widths: np.ndarray
    values: np.ndarray
    texts: Sequence[Sequence[str]]
    hover: Sequence[Sequence[str]]
    column_names: Sequence[str]
    unit: str
    limits: tuple[float, float]


@dataclass(frozen=True, eq=False)
class ColourStrip:
    """One RGB colour (0 to 1) for each of equal columns. Shape (columns, 3)."""

    colours: np.ndarray


@dataclass(frozen=True, eq=False)
class Line:
    """A curve, with a band around it where `low` and `high` are given.

    Attributes:
        highlight: the index of a point to emphasise.
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    markers: bool = False
    highlight: int | None = None


@dataclass(frozen=True, eq=False)
class Envelope:
    """The area between the lowest and highest sample of equal columns."""

    low: np.ndarray
    high: np.ndarray


Mark: TypeAlias = Heatmap | Cells | ColourStrip | Line | Envelope


@dataclass(frozen=True, eq=False)
class Panel:
    """One set of axes and what is drawn in them.

    Attributes:
        height_inches: of the axes; the renderers add room for titles and tick labels.
        placement: "stack": as wide as the figure; "square": equal scales on both axes; "side":
            beside a square panel where there is one.
        sections, windows: positions on the x axis (square panels: on both) marked by dashed and
            dotted lines: where sections begin, and where the model's windows do.
        labels: (x, text): written at the top of the panel.
        captions: (x, text): written below the x axis, centred at x.
        right_ticks: (y, text) on the right side, and their label.
    """

    name: str
    title: str
    height_inches: float
    x: Axis
    y: Axis
    mark: Mark
    placement: Literal["stack", "square", "side"] = "stack"
    sections: Sequence[float] = ()
    windows: Sequence[float] = ()
    labels: Sequence[tuple[float, str]] = ()
    captions: Sequence[tuple[float, str]] = ()
    right_ticks: tuple[Sequence[tuple[float, str]], str] | None = None


@dataclass(frozen=True, eq=False)
class FigureSpec:
    """A title, a subtitle and panels from top to bottom."""

    title: str
    subtitle: str
    panels: tuple[Panel, ...]
    width_inches: float = field(default=WIDTH_INCHES)


def named_axis(
    names: Sequence[str], label: str, ticks: int, *, reverse: bool = False, rotate: bool = False
) -> Axis:
    """A categorical axis with at most so many tick labels, evenly spaced."""
    shown = tuple((float(k), names[k]) for k in evenly_spaced(len(names), ticks))
    limits = (-0.5, len(names) - 0.5)
    return Axis(label, limits, False, False, reverse, tuple(names), shown, rotate)


def time_axis(stop_seconds: float) -> Axis:
    """Time from 0 to the end of a recording."""
    return Axis(limits=(0.0, stop_seconds), is_time=True)


def evenly_spaced(count: int, most: int) -> list[int]:
    """At most `most` of `count` indices, evenly spaced, the last one included."""
    step = max(1, math.ceil(count / most))
    return list(range(count - 1, -1, -step))[::-1]


def short_name(name: str) -> str:
    """A recording's name without its folder, shortened in the middle for a title."""
    short = PurePath(name).name or name
    if len(short) <= _NAME_LENGTH:
        return short
    half = _NAME_LENGTH // 2 - 1
    return f"{short[:half]}…{short[-half:]}"

"""Panels → a matplotlib figure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.timecode import format_timecode
from qwen_audio.errors import check_extra

from .figure_spec import Plottable, figure_spec
from .panels import Axis, Bars, FigureSpec, Image, Line, Panel
from .theme import Theme, ThemeName, matplotlib_settings, theme_of

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["drawable", "plot", "render", "save_image"]

_RC_LOCK = threading.Lock()
"""matplotlib's settings, which hold the theme, are shared by all threads."""
_DOTS_PER_INCH = 120
_DATES = {"svg": "Date", "pdf": "CreationDate"}
"""The metadata in which matplotlib would write the time, by format."""
_HEADING_INCHES, _PANEL_MARGIN_INCHES = 0.85, 0.3


def plot(
    result: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> Figure:
    """Draw a result as a matplotlib figure, 1200 pixels wide, one panel below another.

    Args:
        result: from `view`, `lens`, `layer_similarity`, `compare`, `score`, `classify` or
            `attention`.
        panels: of a View: waveform, mel, heat, colours, norms, novelty, similarity, depth; of a
            LogitLens: words, entropy, followed, nearest. None: all that have data.
        theme: "light" or "dark".

    Returns:
        A matplotlib Figure; `savefig` writes it. Doesn't use pyplot; safe to call from threads.

    Raises:
        OptionError: for an unknown panel or theme, or a panel without data.
        MissingExtraError: without matplotlib.
    """
    return render(figure_spec(result, panels), theme_of(theme))


def render(spec: FigureSpec, theme: Theme, *, extra: str = "plot") -> Figure:
    """Draw a figure. `extra` is the one to install, named by MissingExtraError."""
    check_extra("a picture", extra, "matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    heights = [max(p.height_inches for p in row) + _PANEL_MARGIN_INCHES for row in spec.rows]
    longest = max(spec.rows, key=len)
    widths = [1.7 if panel.is_square else 1.0 for panel in longest]
    with _RC_LOCK, mpl.rc_context(matplotlib_settings(theme)):
        figure = Figure(layout="constrained", dpi=_DOTS_PER_INCH)
        figure.set_size_inches(spec.width_inches, sum(heights) + _HEADING_INCHES)
        engine: Any = figure.get_layout_engine()
        engine.set(h_pad=0.06, w_pad=0.06, hspace=0.02)
        _heading(figure, spec)
        size = (len(heights), len(widths))
        grid = figure.add_gridspec(*size, height_ratios=heights, width_ratios=widths)
        timed = [len(row) == 1 and row[0].x.is_time and not row[0].is_square for row in spec.rows]
        shared = None
        for number, row in enumerate(spec.rows):
            for column, panel in enumerate(row):
                cell = grid[number, column] if len(row) > 1 else grid[number, :]
                axes = figure.add_subplot(cell, sharex=shared if timed[number] else None)
                _draw_panel(figure, axes, panel, theme)
                if timed[number]:
                    shared = shared or axes
                    if timed[number + 1 : number + 2] == [True]:
                        axes.tick_params(labelbottom=False)
                        axes.set_xlabel("")
        figure.draw_without_rendering()  # lays text out while the theme's settings hold
    return figure


def save_image(figure: Figure, path: Path) -> None:
    """Write a figure as its path's suffix says; the same figure is the same bytes at any time.

    Raises:
        OSError: if it can't be written.
    """
    import matplotlib as mpl

    kind = path.suffix[1:].lower()
    metadata = {_DATES[kind]: None} if kind in _DATES else None
    with _RC_LOCK, mpl.rc_context({"svg.hashsalt": "qwen-audio"}):  # else ids are random
        figure.savefig(path, format=kind, metadata=metadata)


def drawable(text: str) -> str:
    """A text with □ for letters that the font lacks, and visible line ends and tabs."""
    known = _letters_of_the_font()
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(letter if ord(letter) in known else "□" for letter in shown)


@cache
def _letters_of_the_font() -> frozenset[int]:
    """Those that both of the font's weights have."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    fonts = (FontProperties(family="DejaVu Sans", weight=weight) for weight in ("normal", "bold"))
    normal, bold = (frozenset(get_font(fontManager.findfont(f)).get_charmap()) for f in fonts)
    return (normal & bold) - {0xFEFF}  # a byte order mark: no PDF can be written with it


def _drawable_lines(text: str) -> str:
    """A label, which may have several lines, made drawable."""
    return "\n".join(map(drawable, text.split("\n")))


def _heading(figure: Figure, spec: FigureSpec) -> None:
    left, height = 0.008, figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top"}
    title, subtitle = drawable(spec.title), drawable(spec.subtitle)
    figure.text(left, 1 - 0.1 / height, title, fontsize=13, weight="bold", **style)
    figure.text(left, 1 - 0.38 / height, subtitle, fontsize=8.5, **style)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, 1 - 0.6 / height))  # where the panels may lie


def _draw_panel(figure: Figure, axes: Axes, panel: Panel, theme: Theme) -> None:
    for mark in panel.marks:
        if isinstance(mark, Image):
            _image(figure, axes, panel, mark, theme)
        elif isinstance(mark, Bars):
            _bars(axes, mark, theme)
        else:
            _line(axes, mark, theme)
    axes.set_title(drawable(panel.title))
    _axis(axes, panel.y, "y")
    _axis(axes, panel.x, "x")
    for x in panel.windows:
        axes.axvline(x, color=theme.faint, linewidth=0.7, linestyle=":")
    style: dict[str, Any] = {"color": theme.mark, "linewidth": 1.0, "linestyle": (0, (4, 2))}
    if panel.is_square:
        style |= {"color": theme.ink, "linewidth": 0.6}
        axes.set_anchor("W")
    for x in panel.sections:
        axes.axvline(x, **style)
        if panel.is_square:
            axes.axhline(x, **style)
    if panel.baseline is not None:
        axes.axhline(panel.baseline, color=theme.faint, linewidth=1, linestyle="--", zorder=0)
    if any(isinstance(mark, Bars) for mark in panel.marks):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), reverse=True)
    if any(isinstance(mark, Line) and mark.in_legend for mark in panel.marks):
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        axes.grid(axis="y", color=theme.faint, alpha=0.3, linewidth=0.8)
    _texts(axes, panel, theme)


def _image(figure: Figure, axes: Axes, panel: Panel, mark: Image, theme: Theme) -> None:
    rows, columns = mark.values.shape[:2]
    edges = panel.x.cell_edges(columns) if mark.x_edges is None else mark.x_edges
    low, high = mark.limits or (None, None)
    style: dict[str, Any] = {
        "cmap": theme.matplotlib_scales[mark.scale],
        "vmin": low,
        "vmax": high,
    }
    image: Any
    if mark.x_edges is None:
        y_low, y_high = panel.y.limits[::-1] if panel.y.is_reversed else panel.y.limits
        image = axes.imshow(
            mark.values,
            origin="upper" if panel.y.is_reversed else "lower",
            extent=(*panel.x.limits, y_low, y_high),
            aspect="equal" if panel.is_square else "auto",
            interpolation="nearest" if panel.y.names and not panel.x.names else None,
            **style,
        )
    else:
        y_edges = panel.y.cell_edges(rows)
        style |= {"edgecolors": theme.paper, "linewidth": 2}
        image = axes.pcolormesh(edges, y_edges, np.ma.masked_invalid(mark.values), **style)
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0)
    if mark.texts is not None:
        fills, middles = image.cmap(image.norm(mark.values)), (edges[1:] + edges[:-1]) / 2
        for row, column in np.ndindex(rows, columns):
            text = drawable(mark.texts[row][column])
            red, green, blue = fills[row, column, :3]
            readable = "#000000" if red * 0.3 + green * 0.59 + blue * 0.11 > 0.5 else "#ffffff"
            size = 7.2 if len(text) <= 8 else 6.0
            where = (middles[column], row)
            axes.text(*where, text, fontsize=size, color=readable, ha="center", va="center")
    if not mark.unit:
        return
    where_bar: dict[str, Any] = {"ax": axes, "pad": 0.01, "fraction": 0.035, "aspect": 12}
    if panel.is_square:  # in axes of the square's own: beside the square and not the panel
        where_bar = {"cax": axes.inset_axes((1.03, 0.1, 0.04, 0.8), label="<colorbar>")}
    bar = figure.colorbar(image, **where_bar)
    bar.set_label(_drawable_lines(mark.unit), fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)


def _bars(axes: Axes, mark: Bars, theme: Theme) -> None:
    axes.bar(
        mark.starts,
        mark.heights,
        mark.widths,
        mark.bottoms,
        align="edge",
        color=mark.colour,
        edgecolor=theme.paper,
        linewidth=0.6,
        label=drawable(mark.name),
    )


def _line(axes: Axes, mark: Line, theme: Theme) -> None:
    colour, drawn = theme.line_colour(mark.colour), mark.style != "none"
    if mark.low is not None and mark.high is not None:
        if drawn:
            axes.fill_between(mark.x, mark.low, mark.high, color=colour, alpha=0.2, linewidth=0)
        else:
            axes.vlines(mark.x, mark.low, mark.high, color=colour, linewidth=1)
    axes.plot(
        mark.x,
        mark.y,
        color=colour,
        linestyle={"solid": "-", "dotted": ":", "none": "none"}[mark.style],
        linewidth=mark.width,
        marker=mark.marker or None,
        markersize=mark.marker_size,
        label=drawable(mark.name) if mark.in_legend else None,
    )


def _axis(axes: Axes, axis: Axis, which: str) -> None:
    from matplotlib.ticker import FuncFormatter

    drawn = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}lim": axis.limits[::-1] if axis.is_reversed else axis.limits})
    label = _time_ticks(drawn, axis.limits[1]) if axis.is_time else _drawable_lines(axis.label)
    if axis.is_log:
        axes.set(**{f"{which}scale": "log"})
        digits = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else "")
        drawn.set_major_formatter(digits)
        drawn.set_minor_formatter(digits)
    if axis.ticks is not None:
        style: dict[str, Any] = {}
        if which == "x":
            style = {"rotation": 90} if axis.names else {"fontsize": 6.8}
        texts = [drawable(text) for _, text in axis.ticks]
        drawn.set_ticks([position for position, _ in axis.ticks], texts, **style)
    drawn.set_label_text(label)


def _time_ticks(drawn: Any, seconds: float) -> str:
    """Ticks in seconds, or in minutes where the recording is long. Returns the axis' label."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if seconds <= 120:
        drawn.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
        return "Time (s)"
    steps = [1, 1.2, 2, 3, 6, 10]  # whole parts of a minute, whatever the length
    drawn.set_major_locator(MaxNLocator(10, steps=steps))
    drawn.set_major_formatter(FuncFormatter(lambda value, _: format_timecode(value)))
    return f"Time ({'h:min:s' if seconds >= 3600 else 'min:s'})"


def _texts(axes: Axes, panel: Panel, theme: Theme) -> None:
    points: dict[str, Any] = {"textcoords": "offset points", "va": "top"}
    for x, text in panel.labels:
        side, shift = ("left", 3) if x < 0.93 * panel.x.limits[1] else ("right", -3)
        style: dict[str, Any] = {"fontsize": 8, "color": theme.mark, "ha": side}
        axes.annotate(drawable(text), (x, panel.y.limits[1]), (shift, -2), **points, **style)
    for x, text in panel.captions:
        below: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center"}
        axes.annotate(drawable(text), (x, 0), (0, -18), fontsize=8.5, **points, **below)
    if panel.right_ticks:
        ticks, label = panel.right_ticks
        right_axis = axes.secondary_yaxis("right")
        texts = [drawable(text) for _, text in ticks]
        right_axis.set_yticks([position for position, _ in ticks], texts)
        right_axis.set_ylabel(_drawable_lines(label))

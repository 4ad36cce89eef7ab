"""Panels → a matplotlib figure."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_audio.audio.timecode import format_timecode
from qwen_audio.errors import MissingExtraError

from .figure_spec import Plottable, figure_spec
from .panels import Axis, Cells, ColourStrip, Envelope, FigureSpec, Heatmap, Line, Panel
from .theme import Theme, ThemeName, matplotlib_settings, theme_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["drawable", "plot", "render"]

_RC_LOCK = threading.Lock()
"""matplotlib's settings, which hold the theme, are shared by all threads."""
_DOTS_PER_INCH = 120
_HEADING_INCHES, _PANEL_MARGIN_INCHES = 0.85, 0.3


def plot(
    result: Plottable, panels: Sequence[str] | None = None, *, theme: ThemeName = "light"
) -> Figure:
    """Draw a result as a matplotlib figure, 1200 pixels wide, one panel below another.

    Args:
        result: from `view`, `lens`, `layer_similarity` or `Comparison.of`.
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


def render(spec: FigureSpec, theme: Theme) -> Figure:
    """Draw panels: stacked ones share the figure's width, square and side ones the last row."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture", "look") from error
    stacked = [panel for panel in spec.panels if panel.placement == "stack"]
    last_row = [panel for panel in spec.panels if panel.placement != "stack"]
    heights = [panel.height_inches + _PANEL_MARGIN_INCHES for panel in stacked]
    if last_row:
        square = last_row[0].placement == "square"
        heights.append(3.6 if not square else 5.0 if len(last_row) > 1 else 6.0)
    with _RC_LOCK, mpl.rc_context(matplotlib_settings(theme)):
        figure = Figure(layout="constrained", dpi=_DOTS_PER_INCH)
        figure.set_size_inches(spec.width_inches, sum(heights) + _HEADING_INCHES)
        engine: Any = figure.get_layout_engine()
        engine.set(h_pad=0.06, w_pad=0.06, hspace=0.02)
        _heading(figure, spec)
        grid = figure.add_gridspec(len(heights), 1, height_ratios=heights)
        shared = None
        for number, panel in enumerate(stacked):
            axes = figure.add_subplot(grid[number], sharex=shared if panel.x.is_time else None)
            shared = axes if panel.x.is_time and shared is None else shared
            following = stacked[number + 1 : number + 2]
            labelled = not (panel.x.is_time and following and following[0].x.is_time)
            _draw_panel(figure, axes, panel, theme, labelled=labelled)
        if last_row:
            # A lone square leaves space on its right.
            widths = {1: [1.6, 1.0] if square else [1.0], 2: [1.4, 1.0]}[len(last_row)]
            columns = grid[-1].subgridspec(1, len(widths), width_ratios=widths)
            for number, panel in enumerate(last_row):
                axes = figure.add_subplot(columns[number])
                _draw_panel(figure, axes, panel, theme, labelled=True)
        figure.draw_without_rendering()  # lays text out while the theme's settings hold
    return figure


def drawable(text: str) -> str:
    """A text with □ for letters that the font lacks, and visible line ends and tabs."""
    from matplotlib.font_manager import FontProperties, fontManager, get_font

    known = get_font(fontManager.findfont(FontProperties(family="DejaVu Sans"))).get_charmap()
    shown = text.replace("\n", "⏎").replace("\t", "⇥")
    return "".join(letter if ord(letter) in known else "□" for letter in shown)


def _heading(figure: Figure, spec: FigureSpec) -> None:
    left, height = 0.008, figure.get_figheight()
    style: dict[str, Any] = {"ha": "left", "va": "top"}
    title, subtitle = drawable(spec.title), drawable(spec.subtitle)
    figure.text(left, 1 - 0.1 / height, title, fontsize=13, weight="bold", **style)
    figure.text(left, 1 - 0.38 / height, subtitle, fontsize=8.5, **style)
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, 0, 1, 1 - 0.6 / height))  # where the panels may lie


def _draw_panel(figure: Figure, axes: Axes, panel: Panel, theme: Theme, *, labelled: bool) -> None:
    mark, square = panel.mark, panel.placement == "square"
    if isinstance(mark, Heatmap):
        _heatmap(figure, axes, panel, mark, theme)
    elif isinstance(mark, Cells):
        _cells(figure, axes, mark, theme)
    elif isinstance(mark, ColourStrip):
        axes.imshow(mark.colours[None], extent=_extent(panel), interpolation="nearest")
    elif isinstance(mark, Line):
        _line(axes, mark, theme)
    else:
        _envelope(axes, panel, mark, theme)
    axes.set_title(drawable(panel.title))
    _axis(axes, panel.y, "y")
    _axis(axes, panel.x, "x")
    if panel.x.is_time and not labelled:
        axes.tick_params(labelbottom=False)
        axes.set_xlabel("")
    for x in panel.windows:
        axes.axvline(x, color=theme.faint, linewidth=0.7, linestyle=":")
    style: dict[str, Any] = {"color": theme.mark, "linewidth": 1.0, "linestyle": (0, (4, 2))}
    if square:
        style |= {"color": theme.ink, "linewidth": 0.6}
        axes.set_anchor("W")
    for x in panel.sections:
        if not isinstance(mark, ColourStrip):
            axes.axvline(x, **style)
        if square:
            axes.axhline(x, **style)
    _texts(axes, panel, theme)


def _extent(panel: Panel) -> tuple[float, float, float, float]:
    x, y = panel.x.limits or (0, 1), panel.y.limits or (0, 1)
    return (*x, *(y[::-1] if panel.y.is_reversed else y))


def _heatmap(figure: Figure, axes: Axes, panel: Panel, mark: Heatmap, theme: Theme) -> None:
    low, high = mark.limits or (None, None)
    square = panel.placement == "square" or bool(panel.x.names)
    image = axes.imshow(
        mark.values,
        origin="upper" if panel.y.is_reversed else "lower",
        extent=_extent(panel),
        cmap=theme.matplotlib_scale(mark.scale),
        vmin=low,
        vmax=high,
        aspect="equal" if square else "auto",
        interpolation="nearest" if panel.y.names and mark.scale == "amounts" else None,
    )
    if mark.cell_format:
        fills: Any = image.cmap(image.norm(mark.values))
        for row, column in np.ndindex(*mark.values.shape):
            text = f"{mark.values[row, column]:{mark.cell_format}}".replace("0.", ".", 1)
            style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 6.5}
            axes.text(column, row, text, color=_text_colour(fills[row, column]), **style)
    if panel.placement == "square":
        # In axes of the square's own, so that it stands beside the square and not the panel.
        beside = axes.inset_axes((1.03, 0.1, 0.04, 0.8), label="<colorbar>")
        _colour_bar(figure, image, mark.unit, cax=beside)
    else:
        _colour_bar(figure, image, mark.unit, ax=axes, shrink=0.8 if square else 1.0)


def _cells(figure: Figure, axes: Axes, mark: Cells, theme: Theme) -> None:
    import matplotlib as mpl

    scale = theme.matplotlib_scale("amounts")
    mappable = mpl.cm.ScalarMappable(mpl.colors.Normalize(*mark.limits), scale)
    fills = mappable.to_rgba(np.clip(mark.values, *mark.limits))
    style: dict[str, Any] = {"ha": "center", "va": "center"}
    for (row, column), _ in np.ndenumerate(mark.values):
        left, width = float(mark.lefts[column]), float(mark.widths[column])
        fill, text = fills[row, column], drawable(mark.texts[row][column])
        corner = (left + 0.02 * width, row - 0.46)
        cell = mpl.patches.Rectangle(corner, 0.96 * width, 0.92, color=fill, linewidth=0)
        axes.add_patch(cell)
        size = 7.2 if len(text) <= 8 else 6.0
        where = (left + width / 2, row)
        axes.text(*where, text, fontsize=size, color=_text_colour(fill), **style)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    _colour_bar(figure, mappable, mark.unit, ax=axes)


def _line(axes: Axes, mark: Line, theme: Theme) -> None:
    if mark.low is not None and mark.high is not None:
        axes.fill_between(mark.x, mark.low, mark.high, color=theme.accent, alpha=0.3, linewidth=0)
    marker: dict[str, Any] = {"marker": "o", "markersize": 3} if mark.markers else {}
    axes.plot(mark.x, mark.y, color=theme.accent, linewidth=1.2, **marker)
    if mark.highlight is not None:
        point = (mark.x[mark.highlight], mark.y[mark.highlight])
        axes.plot(*point, color=theme.mark, marker="o", markersize=7)


def _envelope(axes: Axes, panel: Panel, mark: Envelope, theme: Theme) -> None:
    start, stop = panel.x.limits or (0.0, 1.0)
    x = np.linspace(start, stop, len(mark.low), endpoint=False)
    axes.fill_between(x, mark.low, mark.high, step="post", color=theme.accent, linewidth=0.3)


def _axis(axes: Axes, axis: Axis, which: str) -> None:
    from matplotlib.ticker import FuncFormatter

    drawn = axes.xaxis if which == "x" else axes.yaxis
    label = axis.label
    if axis.limits:
        limits = axis.limits[::-1] if axis.is_reversed else axis.limits
        axes.set(**{f"{which}lim": limits})
    if axis.is_time:
        label = _time_ticks(drawn, axis.limits[1] if axis.limits else 0.0)
    if axis.is_log:
        axes.set(**{f"{which}scale": "log"})
        digits = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}"[0] in "125" else "")
        drawn.set_major_formatter(digits)
        drawn.set_minor_formatter(digits)
    if axis.ticks is not None:
        style: dict[str, Any] = {"rotation": 90} if axis.rotate_ticks else {}
        style |= {"fontsize": 6.8} if which == "x" and not axis.names else {}
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
    top = (panel.y.limits or (0, 1))[1]
    points: dict[str, Any] = {"textcoords": "offset points", "va": "top"}
    for x, text in panel.labels:
        right = x < 0.93 * (panel.x.limits or (0, 1))[1]
        style: dict[str, Any] = {
            "ha": "left" if right else "right",
            "fontsize": 8,
            "color": theme.mark,
        }
        axes.annotate(text, (x, top), (3 if right else -3, -2), **points, **style)
    for x, text in panel.captions:
        below: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "ha": "center"}
        axes.annotate(text, (x, 0), (0, -18), fontsize=8.5, **points, **below)
    if panel.right_ticks:
        ticks, label = panel.right_ticks
        right_axis = axes.secondary_yaxis("right")
        right_axis.set_yticks([position for position, _ in ticks], [text for _, text in ticks])
        right_axis.set_ylabel(label)


def _text_colour(fill: Any) -> str:
    """Black or white, whichever can be read on a colour."""
    return "#000000" if fill[0] * 0.3 + fill[1] * 0.59 + fill[2] * 0.11 > 0.5 else "#ffffff"


def _colour_bar(figure: Figure, image: Any, label: str, **place: Any) -> None:
    beside: dict[str, Any] = {"pad": 0.01, "fraction": 0.035, "aspect": 12}
    bar = figure.colorbar(image, **({} if "cax" in place else beside), **place)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.outline.set_visible(False)
